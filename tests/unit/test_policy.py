"""The verifier's policy file: its defaults, its bounds, and which cap counts."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from bundler.equivalence import Rule
from bundler.errors import UsageError
from bundler.policy import DEFAULT, MAX_BYTES, Policy, cap, effective_margin, facts, load, rule
from bundler.spec import Tolerance

DOCS = Path(__file__).parents[2] / "docs" / "policy.md"


@pytest.fixture
def written(tmp_path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "policy.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_the_documented_example_is_read(written):
    policy = load(written(re.search(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)[1]))
    assert policy == replace(
        DEFAULT,
        margins={"holdout_auc": 0.01, "holdout_*": 0.02, "*_seconds": 60.0},
        isolation=("bubblewrap", "sandlock"),
        environments=("locked", "image"),
    )


def test_the_documentation_warns_that_a_pattern_grants_its_cap_to_any_name():
    text = " ".join(DOCS.read_text().split())
    assert cap("error_seconds", Policy(version=1, margins={"*_seconds": 60.0})) == 60.0
    assert "`error_seconds`" in text


def test_the_documented_defaults_are_those_of_the_program(written):
    assert load(written("version: 1")) == DEFAULT
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", DOCS.read_text(), re.MULTILINE))
    assert rows.keys() == set(Policy.__dataclass_fields__)
    for name, words in rows.items():
        if words.startswith("`"):
            value = getattr(DEFAULT, name)
            assert words == f"`{list(value) if isinstance(value, tuple) else value}`"
        else:
            assert words == "required" or len(getattr(DEFAULT, name)) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "document: expected an object"),
        ("looks: [3]", "version: missing"),
        ("version: 2", "version: expected one of 1"),
        ("version: 1\nmargin: 1", "margin: unknown; known are: version, margins"),
        ("version: 1\nmargins: {auc: much}", "margins.auc: expected a number"),
        ("version: 1\nmargins: {auc: -0.1}", "margins.auc: -0.1 is negative"),
        ("version: 1\nmargins: {auc: .nan}", "margins.auc: expected a finite number"),
        ("version: 1\nmargins: {auc: 1, auc: 2}", "key 'auc' stands twice"),
        ("version: 1\ndefault_margin: -1", "default_margin: -1 is negative"),
        ("version: 1\ndefault_margin: .inf", "default_margin: expected a finite number"),
        ("version: 1\nfalse_consistent: 0", "false_consistent: 0 is not between 0 and 0.2"),
        ("version: 1\nfalse_consistent: 0.21", "false_consistent: 0.21 is not between"),
        ("version: 1\nfalse_inconsistent: 0.5", "false_inconsistent: 0.5 is not between"),
        ("version: 1\nlooks: []", "looks: expected increasing"),
        ("version: 1\nlooks: [1, 3]", "looks: expected increasing"),
        ("version: 1\nlooks: [3, 3]", "looks: expected increasing"),
        ("version: 1\nlooks: [5, 3]", "looks: expected increasing"),
        ("version: 1\nlooks: [5, 100000000000]", "looks: more than 1000"),
        ("version: 1\nlooks: [true, 3]", "looks[0]: expected a whole number"),
        ("version: 1\nminimum_runs: 2", "minimum_runs: 2 is not between 3 and 1000; the best"),
        ("version: 1\nconfidence: 1", "confidence: 1 is not between 0.5 and 1"),
        ("version: 1\nconfidence: 0.5", "confidence: 0.5 is not between 0.5 and 1"),
        ("version: 1\nisolation: [docker]", "isolation[0]: expected one of bubblewrap"),
        ("version: 1\nisolation: []", "isolation: nothing is allowed"),
        ("version: 1\nenvironments: []", "environments: nothing is allowed"),
        ("version: 1\nenvironments: locked", "environments: expected a list"),
        ("version: [1", "line 1"),
        ("version: !!python/object:os.system 1", "tags are not allowed"),
        (b"\xff\xfe\x00", "policy.yaml: "),
        ("#" * (MAX_BYTES + 1), "is larger than 1 MiB"),
    ],
)
def test_a_policy_that_is_none_is_refused_with_its_key(written, text, words):
    with pytest.raises(UsageError) as caught:
        load(written(text))
    assert words in caught.value.message
    assert caught.value.remedy == "docs/policy.md describes every key."
    assert caught.value.exit_code == 2


def test_a_policy_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        load(tmp_path / "missing.yaml")
    with pytest.raises(UsageError, match="cannot read"):
        load(tmp_path)


POLICY = replace(
    DEFAULT,
    margins={
        "auc": 0.01,
        "holdout_*": 0.02,
        "holdout_brie?": 0.03,
        "*_loss": 5.0,
        "val_*": 2.0,
        "????_loss": 1.0,
    },
)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("auc", 0.01),
        ("AUC", 0.05),
        ("holdout_auc", 0.02),
        ("holdout_brier", 0.03),
        ("my_loss", 5.0),
        ("test_loss", 1.0),
        ("val_my_loss", 5.0),
        ("val_f1", 2.0),
        ("seconds", 0.05),
    ],
)
def test_the_exact_name_counts_first_then_the_longest_pattern(metric, expected):
    assert cap(metric, POLICY) == expected


def test_of_patterns_as_long_the_smallest_cap_counts():
    assert cap("ab", replace(DEFAULT, margins={"a*": 0.5, "*b": 0.2})) == 0.2


def test_a_name_with_brackets_is_matched_by_itself():
    assert cap("f1[0]", replace(DEFAULT, margins={"f1[0]": 0.2})) == 0.2


def test_a_declared_margin_is_cut_and_never_widened():
    assert effective_margin(Tolerance(metric="auc", margin=0.5), POLICY) == 0.01
    assert effective_margin(Tolerance(metric="auc", margin=0.001), POLICY) == 0.001
    assert effective_margin(Tolerance(metric="other", margin=9.0), POLICY) == 0.05


def test_the_rule_takes_the_policys_rates_and_its_looks_unless_told_otherwise():
    policy = replace(DEFAULT, false_consistent=0.01, false_inconsistent=0.03, minimum_runs=5)
    assert rule(policy) == Rule(
        false_consistent=0.01,
        false_inconsistent=0.03,
        looks=3,
        minimum_runs=5,
        schedule=(3, 5, 8),
    )
    assert rule(policy, looks=1).looks == 1
    assert rule(DEFAULT) == Rule(schedule=(3, 5, 8))


def test_blind_there_is_one_look_at_however_many_reruns():
    seen, blind = rule(DEFAULT), rule(DEFAULT, blind=True)
    runs = (2, 3, 4, 5, 6, 8, 9, 40)
    assert [seen.looks_with(each) for each in runs] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert [blind.looks_with(each) for each in runs] == [1] * 8
    assert blind.looks == 1


def test_the_report_shows_the_whole_policy():
    shown = facts(POLICY)
    assert shown.keys() == set(Policy.__dataclass_fields__)
    assert "holdout_*: 0.02" in shown["margins"]
    assert shown["looks"] == ("3", "5", "8")
    assert shown["isolation"] == ("bubblewrap", "sandlock", "none")
