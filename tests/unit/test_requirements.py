"""Every row is provoked once, by one edit of an honest provider."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import datetime

import pytest

from bundler.errors import GapsError
from bundler.records import CodeVersion, DatasetVersion, FidelityFlag, is_date
from bundler.requirements import BUNDLE_REQUIREMENTS, run_requirements
from bundler.spec import FactMap
from tests import tiny

RUN_ROWS = {row.code for row in run_requirements(FactMap())}
ROWS = {row.code: row for row in (*BUNDLE_REQUIREMENTS, *run_requirements(FactMap()))}


def setting(*path, value=None):
    """An edit of bundle.yaml; no value: the key is taken out."""

    def change(provider):
        place = provider.config
        for key in path[:-1]:
            place = place[key]
        if value is None:
            del place[path[-1]]
        else:
            place[path[-1]] = value

    return change


def editing(run="run-a", **changes):
    """An edit of one run."""
    return lambda provider: provider.edit(run, lambda old: replace(old, **changes))


def without_parameter(provider):
    provider.edit("run-a", lambda run: replace(run, parameters={"rate": "1"}))


def points(*metrics):
    def keep(run):
        return replace(run, points=tuple(point for point in run.points if point.metric in metrics))

    return lambda provider: provider.edit("run-a", keep)


def without_artefact(name):
    def drop(run):
        return replace(run, artefacts=tuple(each for each in run.artefacts if each.path != name))

    return lambda provider: provider.edit("run-a", drop)


def flagged(*details, flag="symlink_skipped", run="run-a", without=()):
    """The importer saw files that it did not take, and artefacts ``without`` are not there."""
    flags = tuple(FidelityFlag(field="artefacts", flag=flag, detail=each) for each in details)

    def change(old):
        kept = tuple(each for each in old.artefacts if each.path not in without)
        return replace(old, fidelity=flags, artefacts=kept)

    return lambda provider: provider.edit(run, change)


def only_selected(provider):
    provider.runs = [run for run in provider.runs if run.source.run_id == "run-c"]


def fewer_repetitions(provider):
    provider.runs = [run for run in provider.runs if run.source.run_id not in {"run-c2", "run-c3"}]


def code_without_files(provider):
    folder = provider.root / "repository"
    (folder / "empty").mkdir()
    (folder / "empty" / ".keep").write_text("")
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "empty"], check=True)
    provider.config["training"]["code"] = "repository/empty"


def empty_lock(provider):
    (provider.root / "empty.txt").write_text("# nothing yet\n")
    provider.config["training"]["lock"] = "empty.txt"


def logged_by_hand(count=10, first="2026-01-01", days=1):
    """So many rejected runs from a spreadsheet, one every few days; their ids come after all others."""
    start = int(datetime.fromisoformat(f"{first}T12:00:00Z").timestamp() * 1000)

    def add(provider):
        run = next(each for each in provider.runs if each.source.run_id == "run-a")
        for number in range(count):
            source = replace(run.source, tracker="experiment-log", run_id=f"sheet-{number}")
            started = start + number * days * 86_400_000
            provider.add(replace(run, source=source, started=started, ended=started + 1000))

    return add


PROVOCATIONS = {
    "system-identity": setting("system", "version", value="TODO"),
    "intended-purpose": setting("system", "intended_purpose", value=" "),
    "provider": setting("system", "provider", value="todo: legal name"),
    "responsible-person": setting("system", "responsible"),
    "rationale": setting("selection", "rationale", value="TODO"),
    "criteria-dated": setting("selection", "declared_at"),
    "candidates": only_selected,
    "gates": setting("gates", value=[]),
    "gate-fairness": lambda provider: provider.config["gates"].pop(),
    "repetitions": fewer_repetitions,
    "mechanisms": setting("reproducibility", "mechanisms", value=["TODO"]),
    "limitations": setting("reproducibility", "limitations"),
    "tolerances": setting("reproducibility", "tolerances", value=[]),
    "training-spec": setting("training"),
    "code-included": code_without_files,
    "lock": empty_lock,
    "lock-hashed": lambda provider: None,
    "source-damaged": lambda provider: provider.edit(
        "run-a",
        lambda run: replace(
            run, fidelity=(FidelityFlag(field="run", flag="truncated_file", detail="x: byte 7"),)
        ),
    ),
    "image-unresolved": lambda provider: provider.config.update(images=[{"reference": "repo:1"}]),
    "run-code-version": editing(code=CodeVersion(dirty=False)),
    "run-code-clean": editing(tags={"data.sha256": "0" * 64}),
    "run-code-dirty": editing(tags={"data.sha256": "0" * 64, "dirty": "true"}),
    "run-data-version": editing(tags={"dirty": "false", "data.sha256": "version 1"}),
    "run-parameters": editing(parameters={}),
    "run-seed": without_parameter,
    "run-environment": without_artefact("environment.json"),
    "run-times": editing(ended=None),
    "run-history": points("val_auc", "val_disparity", "holdout_auc"),
    "run-hold-out": points("train_loss", "val_auc", "val_disparity"),
    "run-model": without_artefact("model.safetensors"),
    "artefact-missing": flagged("plot.png"),
    "log-adequacy": logged_by_hand(),
}


def test_every_row_has_a_provocation():
    assert sorted(PROVOCATIONS) == sorted(ROWS)
    assert len(ROWS) == len(BUNDLE_REQUIREMENTS) + len(run_requirements(FactMap()))


def gaps(provider, tmp_path):
    return {gap.code: gap for gap in provider.build(tmp_path / "bundle").index.gaps}


def test_an_honest_provider_has_the_one_gap_that_its_lock_has(provider: tiny.Provider, tmp_path):
    assert set(gaps(provider, tmp_path)) == {"lock-hashed"}


@pytest.mark.parametrize("code", sorted(ROWS))
def test_each_gap_is_named(code, provider: tiny.Provider, tmp_path):
    PROVOCATIONS[code](provider)
    found = gaps(provider, tmp_path)
    assert code in found
    gap, row = found[code], ROWS[code]
    assert (gap.level, gap.point, gap.message, gap.remedy) == (
        row.level,
        row.point,
        row.message,
        row.remedy,
    )
    if code in RUN_ROWS:
        assert "run-a" in gap.subject
    else:
        assert gap.subject == "bundle"


REQUIRED = sorted(code for code, row in ROWS.items() if row.level == "required")


@pytest.mark.parametrize("code", REQUIRED)
def test_strict_refuses_what_is_required_and_leaves_nothing(
    code, provider: tiny.Provider, tmp_path
):
    PROVOCATIONS[code](provider)
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(GapsError) as caught:
        provider.build(folder / "bundle", strict=True)
    assert ROWS[code].message in caught.value.message
    assert caught.value.exit_code == 1
    assert list(folder.iterdir()) == []


def test_strict_lets_recommended_gaps_pass(provider: tiny.Provider, tmp_path):
    assert provider.build(tmp_path / "bundle", strict=True).index.gaps


def test_required_gaps_come_first(provider: tiny.Provider, tmp_path):
    for code in ("responsible-person", "run-code-clean", "run-seed", "lock"):
        PROVOCATIONS[code](provider)
    levels = [gap.level for gap in provider.build(tmp_path / "bundle").index.gaps]
    assert levels == sorted(levels, reverse=True)
    assert set(levels) == {"required", "recommended"}


def test_many_runs_are_counted_and_three_are_named(provider: tiny.Provider, tmp_path):
    provider.runs = [replace(run, tags={}) for run in provider.runs]
    gap = gaps(provider, tmp_path)["run-data-version"]
    assert gap.subject.startswith("9 of 9 runs: ")
    assert gap.subject.count("run-") == 3
    assert gap.subject.endswith(", …")


def test_a_failed_run_need_not_have_what_only_a_finished_one_can(provider: tiny.Provider, tmp_path):
    provider.edit("run-e", lambda run: replace(run, points=(), artefacts=(), ended=None))
    assert set(gaps(provider, tmp_path)) == {"lock-hashed"}


@pytest.mark.parametrize(
    ("flag", "detail", "words"),
    [
        ("symlink_skipped", "model.safetensors", "it is there as a link, or behind one"),
        ("symlink_skipped", ".", "it is there as a link, or behind one"),
        ("special_skipped", "model.safetensors", "not as a regular file"),
        ("missing", "model.safetensors", "the file is missing"),
        ("artefacts_unreachable", "s3: is not on this machine", "are not on this machine"),
        ("artefacts_unreachable", "models/m-1/s3: is not here", None),
        ("symlink_skipped", "other.bin", None),
        ("symlink_skipped", "model", None),
    ],
)
def test_a_model_that_was_not_taken_is_told_from_one_that_was_never_there(
    flag, detail, words, provider: tiny.Provider, tmp_path
):
    flagged(detail, flag=flag, without={"model.safetensors"})(provider)
    provider.edit("run-b", lambda run: replace(run, artefacts=run.artefacts[:1]))
    found = gaps(provider, tmp_path)
    message = found["run-model"].message
    assert message.startswith(ROWS["run-model"].message)
    assert found["run-model"].level == "required"
    assert found["run-model"].subject.startswith("2 of 8 runs: ")
    if words is None:
        assert message == ROWS["run-model"].message
    else:
        assert "; in 1 of them " in message
        assert words in message
    assert found["artefact-missing"].level == "recommended"
    assert found["artefact-missing"].subject == "1 of 9 runs: run-a"


def test_a_model_behind_a_linked_folder(provider: tiny.Provider, tmp_path):
    provider.config["facts"]["model"] = "model/weights.pt"
    flagged("model/")(provider)
    assert "as a link" in gaps(provider, tmp_path)["run-model"].message


def test_a_file_that_is_named_and_missing_is_a_gap(provider: tiny.Provider, tmp_path):
    provider.edit(
        "run-a",
        lambda run: replace(
            run, artefacts=tuple(replace(each, file=None) for each in run.artefacts)
        ),
    )
    found = gaps(provider, tmp_path)
    for code in ("run-model", "run-environment"):
        assert "in 1 of them it is named, but the file is missing" in found[code].message
    assert found["artefact-missing"].subject == "1 of 9 runs: run-a"


def test_a_tracker_digest_is_no_data_version(provider: tiny.Provider, tmp_path):
    data = (DatasetVersion(name="d", tracker_digest="1a2b3c4d", sha256="1a2b3c4d"),)
    provider.edit("run-a", lambda run: replace(run, tags={"dirty": "false"}, data=data))
    assert "run-data-version" in gaps(provider, tmp_path)


@pytest.mark.parametrize(
    ("text", "dated"),
    [
        ("2026-11-25", True),
        ("2026-11-25T10:00:00Z", True),
        ("yesterday", False),
        ("25.11.2026", False),
        ("", False),
        (None, False),
    ],
)
def test_dates(text, dated):
    assert is_date(text) is dated


@pytest.mark.parametrize(
    ("count", "first", "days", "adequate"),
    [
        (9, "2026-01-01", 1, True),
        (10, "2026-01-01", 1, False),
        (10, "2026-03-22", 1, False),
        (10, "2026-03-23", 1, True),
        (20, "2025-12-01", 10, True),
        (20, "2026-02-01", 6, False),
    ],
)
def test_ten_experiments_of_a_quarter_are_too_many_for_a_spreadsheet(
    count, first, days, adequate, provider: tiny.Provider, tmp_path
):
    logged_by_hand(count, first, days)(provider)
    assert ("log-adequacy" not in gaps(provider, tmp_path)) is adequate


def test_runs_of_a_tracker_may_be_as_many_as_they_like(provider: tiny.Provider, tmp_path):
    logged_by_hand(12)(provider)
    provider.runs = [replace(r, source=replace(r.source, tracker="tiny")) for r in provider.runs]
    assert "log-adequacy" not in gaps(provider, tmp_path)
