"""The cheats, with real trainings and the real commands: each is caught and named, and its honest twin is verified."""

from __future__ import annotations

import json

import pytest

from tests import small
from tests.conformance.cheats.steps import HERE, Story

CASES = sorted(path.parent.name for path in HERE.glob("*/cheat.json"))
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cheats")]

OF_THE_CLOCK = {"rerun-too-fast"}
"""A training of 0.05 s that was held up once, on a busy machine, looks as if it had been ten times as long."""


def story_of(case: str) -> dict:
    return json.loads((HERE / case / "cheat.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_the_cheat_is_named(case, tmp_path):
    told = story_of(case)
    expected = told["expected"]
    story = Story(tmp_path)
    story.tell(told["how"], cheating=True)

    code, report = story.verify(told["verify"], told.get("policy"))

    found = small.codes(report)
    assert sorted(found.keys() - OF_THE_CLOCK) == sorted(expected["findings"]), report["terminal"]
    assert code == expected["exit_code"], report["terminal"]
    status = {claim["name"]: claim["status"] for claim in report["claims"]}
    words = {0: {"met", "not run"}, 1: {"not met"}, 6: {"inconclusive"}}
    assert status[expected["claim"]] in words[code]
    verdict = None if report["judgement"] is None else report["judgement"]["verdict"]
    assert verdict == expected.get("verdict")
    for name, fragment in expected.get("says", {}).items():
        assert fragment in found[name]["message"]


def controls() -> dict[str, list[str]]:
    """Stories by what is left of them without the cheat: what is the same is told once."""
    same: dict[str, list[str]] = {}
    for case in CASES:
        told = story_of(case)
        honest = [step for step in told["how"] if step.get("in") != "cheat"]
        steps = [{key: value for key, value in step.items() if key != "in"} for step in honest]
        rest = json.dumps([steps, told["verify"], told.get("policy")])
        if "why_not_caught" not in told:
            same.setdefault(rest, []).append(case)
    return {cases[0]: cases for cases in same.values()}


@pytest.mark.parametrize("case", controls())
def test_the_same_provider_without_the_cheat_is_verified(case, tmp_path):
    told = story_of(case)
    story = Story(tmp_path)
    story.tell(told["how"], cheating=False)
    code, report = story.verify(told["verify"], told.get("policy"))
    assert code == 0, (controls()[case], report["terminal"])
    assert not small.codes(report).keys() - OF_THE_CLOCK


def test_what_is_not_caught_says_why():
    assert CASES
    for case in CASES:
        told = story_of(case)
        assert ("why_not_caught" in told) == (told["expected"]["exit_code"] == 0), case


def test_each_story_is_in_the_assessor_s_table():
    page = (HERE.parent.parent.parent / "docs/cheats.md").read_text()
    for case in CASES:
        row = next((line for line in page.splitlines() if f"`{case}`" in line), "")
        assert row, case
        for code in story_of(case)["expected"]["findings"]:
            assert f"`{code}`" in row, (case, code)
