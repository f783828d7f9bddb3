"""What real DVC and DVCLive show of their repositories (expected.json) is what we read, but for what DVC gets wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from bundler.importers.dvc import DvcImporter
from tests.unit.importers.dvc_support import (
    EXPECTED,
    FIXTURES,
    contents,
    details,
    flags,
    git,
    named,
    read,
    unpack,
)

ALL = pytest.mark.parametrize("name", ["pipeline", "saved", "legacy"])


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dvc")
    for archive in FIXTURES.glob("*.tar.xz"):
        unpack(archive, folder / archive.name.partition(".")[0])
    return folder


@cache
def runs_of(folder: Path):
    return {run.source.run_id: run for run in read(folder)}


def shown(name: str):
    """Every row that DVC shows, by run id: kind of row, name, state of the executor, and what it holds."""
    for row in EXPECTED[name]["shown"]:
        yield row["rev"], "commit", row["name"], "", row["data"]
        for each in row["experiments"] or []:
            state = (each["executor"] or {}).get("state", "success")
            yield each["revs"][0]["rev"], "experiment", each["name"], state, each["revs"][0]["data"]


def cells(row) -> list[str]:
    """The cells of a row; those that are too many for the header come as a list."""
    return [c for cell in row.values() for c in (cell if isinstance(cell, list) else [cell]) if c]


def flat(value, prefix=""):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat(item, f"{prefix}{key}.")
    else:
        yield prefix.removesuffix("."), value


@ALL
def test_every_experiment_that_dvc_shows_is_a_run_and_every_commit_with_results_of_its_own(
    name, originals
):
    runs = runs_of(originals / name)
    experiments = {rev for rev, kind, *_ in shown(name) if kind == "experiment"}
    others = {rev for rev, kind, *_ in shown(name) if kind == "commit"}
    assert experiments <= runs.keys()
    assert runs.keys() - experiments <= others
    assert {run.name for run in runs.values()} == {
        "pipeline": {
            "steeper",
            "diverged",
            "crashed",
            "later",
            "deeper",
            "unrun",
            None,
            "workspace",
        },
        "saved": {"whole", "broken"},
        "legacy": {"main"},
    }[name]


@ALL
def test_names_and_states_are_those_of_dvc(name, originals):
    runs = runs_of(originals / name)
    words = {"success": {"finished", "unknown"}, "failed": {"failed"}, "queued": {"scheduled"}}
    for rev, kind, label, state, _ in shown(name):
        if kind == "experiment":
            assert runs[rev].name == label
            assert runs[rev].status in words[state]


@ALL
def test_parameters_are_those_of_dvc_with_their_types(name, originals):
    runs = runs_of(originals / name)
    for rev, *_, data in shown(name):
        if rev not in runs:
            continue
        expected = {}
        for file in data["params"].values():
            expected |= dict(flat(file["data"]))
        mine = dict(runs[rev].parameters)
        assert mine.keys() == expected.keys()
        for key, value in expected.items():
            if isinstance(value, list):
                assert isinstance(mine[key], str)
            else:
                assert repr(mine[key]) == repr(value), key


@ALL
def test_last_values_are_those_of_dvc(name, originals):
    runs = runs_of(originals / name)
    for rev, _, _, state, data in shown(name):
        if rev not in runs or state in {"failed", "queued"}:
            continue
        live = "dvclive/metrics.json"
        expected = {
            (key.replace(".", "/") if path == live else key): float(value)
            for path, file in data["metrics"].items()
            for key, value in flat(file["data"])
            if (path, key) != (live, "step")
        }
        last = {point.metric: point.value for point in runs[rev].points}
        assert repr(sorted(last.items())) == repr(sorted(expected.items()))


@ALL
def test_every_row_of_a_series_is_that_of_dvclive(name, originals):
    runs = runs_of(originals / name)
    for rev, files in EXPECTED[name]["series"].items():
        if rev not in runs or not runs[rev].points:
            continue
        for path, rows in files.items():
            metric = path.removeprefix("dvclive/plots/metrics/").removesuffix(".tsv")
            mine = [point for point in runs[rev].points if point.metric == metric]
            assert len(mine) == len(rows)
            for point, row in zip(mine, rows, strict=True):
                *times, step, value = cells(row)
                assert (point.step, repr(point.value)) == (int(step), repr(float(value)))
                assert times in ([], [str(point.timestamp)])


@ALL
def test_digests_of_data_and_outputs_are_those_of_dvc(name, originals):
    runs = runs_of(originals / name)
    for rev, *_, state, data in shown(name):
        if rev not in runs:
            continue
        known = {
            path: f"md5:{each['hash']}" for path, each in {**data["outs"], **data["deps"]}.items()
        }
        for each in runs[rev].data:
            assert each.tracker_digest == known[each.name]
            assert each.sha256 == EXPECTED[name]["sha256"][each.name]
        wanted = {
            path
            for path, out in data["outs"].items()
            if out["use_cache"] and not out["is_data_source"]
        }
        if state in {"failed", "queued"}:
            wanted = set()
        mine = {each.path.partition("/")[0] for each in runs[rev].artefacts} - {"model.bin"}
        assert mine == {path for path in wanted if path != "model.bin"}


@ALL
def test_times_are_those_of_the_commits(name, originals):
    runs = runs_of(originals / name)
    for rev, kind, _, state, data in shown(name):
        if rev not in runs or not data["timestamp"]:
            continue
        if state in {"failed", "queued"}:
            assert (runs[rev].started, runs[rev].ended) == (None, None)
            continue
        made = datetime.fromisoformat(data["timestamp"]).replace(tzinfo=UTC)
        assert abs(runs[rev].ended / 1000 - made.timestamp()) < 1
        assert (kind == "commit") == (("run", "time_of_commit") in flags(runs[rev]))


def test_nan_and_infinity_are_numbers(originals):
    run = named(originals / "pipeline", "diverged")
    values = [point.value for point in run.points if point.metric == "val_loss"]
    assert repr(values[-2:]) == "[nan, inf]"


def test_a_failed_and_a_waiting_run_have_parameters_but_none_of_the_metrics_that_dvc_shows(
    originals,
):
    """DVC shows the baseline's metrics for them: their commits hold what was there before."""
    theirs = {row[2]: row[4]["metrics"] for row in shown("pipeline")}
    assert theirs["crashed"]["dvclive/metrics.json"]["data"]["holdout_accuracy"] == 0.89
    for name, note, status in (("crashed", "crash", "failed"), ("later", "baseline", "scheduled")):
        run = named(originals / "pipeline", name)
        assert (run.status, run.points, run.artefacts) == (status, (), ())
        assert run.parameters["note"] == note
        assert ("run", "no_results") in flags(run)
        assert [each.name for each in run.data] == ["data"]
        assert run.code.entry_point is None


def test_an_experiment_that_dvclive_saved_after_an_exception_is_not_taken_for_finished(originals):
    runs = {run.name: run for run in read(originals / "saved")}
    assert {run.status for run in runs.values()} == {"unknown"}
    assert [run.code.dirty for run in runs.values()] == [None, None]
    assert [each.path for each in runs["whole"].artefacts] == ["model.bin"]
    assert runs["whole"].artefacts[0].file.read_bytes() == b"model of whole"
    assert runs["whole"].tags["dvc.model.net"] == "model.bin"
    assert runs["broken"].artefacts == ()
    assert ("data", "not_declared") in flags(runs["whole"])


def test_a_working_tree_that_was_saved_as_an_experiment_is_not_taken_for_a_run_of_its_own(
    originals,
):
    """``dvc exp save`` makes the lock fit: other parameters stand beside the results of the baseline."""
    run = named(originals / "pipeline", "unrun")
    (baseline,) = [each for each in read(originals / "pipeline") if each.name is None]
    assert (run.parameters["lr"], baseline.parameters["lr"]) == (0.9, 0.1)
    assert run.points == baseline.points
    assert (run.status, run.code.dirty) == ("unknown", None)
    assert ("run", "saved_not_run") in flags(run)
    assert ("run", "saved_not_run") not in flags(named(originals / "pipeline", "deeper"))


def test_data_of_dvc_2_is_flagged(originals):
    (run,) = read(originals / "legacy")
    assert details(run, "data", "legacy_md5") == ["text.csv"]
    assert details(run, "artefacts", "legacy_md5") == ["out.txt"]


def test_results_that_were_applied_and_committed_are_one_run_with_their_experiment(originals):
    folder = originals / "pipeline"
    chosen = git(folder, "rev-parse", "chosen")
    assert chosen not in runs_of(folder)
    steeper = named(folder, "steeper")
    path = "dvc.lock"
    assert git(folder, "show", f"{chosen}:{path}") == git(folder, "show", f"{steeper.source.run_id}:{path}")  # fmt: skip


def test_results_that_are_not_committed_are_a_run_of_a_dirty_tree(originals):
    folder = originals / "pipeline"
    run = named(folder, "workspace")
    assert (run.source.run_id, run.parameters["seed"], run.status) == ("workspace", 8, "finished")
    assert run.code.dirty is True
    assert run.code.branch == "main"
    assert run.code.commit == git(folder, "rev-parse", "HEAD")
    assert run.code.tree is None


def test_the_code_of_an_experiment_is_its_commit_which_is_clean_where_the_lock_says_so(originals):
    folder = originals / "pipeline"
    run = named(folder, "deeper")
    assert run.code.commit == run.source.run_id
    assert run.code.tree == git(folder, "rev-parse", f"{run.source.run_id}^{{tree}}")
    assert run.code.dirty is False
    assert run.code.branch is None
    assert run.code.repository == "https://example.org/story.git"
    assert run.tags["dvc.baseline"] == git(folder, "rev-parse", f"{run.source.run_id}^")
    (baseline,) = [each for each in read(folder) if each.tags["dvc.kind"] == "commit"]
    assert baseline.code.dirty is None
    assert baseline.tags["dvc.subject"] == "Train the baseline"


def test_the_bytes_of_a_model_come_from_the_cache(originals):
    for name, rate, layers in (("steeper", 0.2, 2), ("deeper", 0.1, 3)):
        run = named(originals / "pipeline", name)
        (model,) = [each for each in run.artefacts if each.path == "model.bin"]
        assert model.file.read_bytes() == f"model {rate} {layers} 3".encode()
        assert [each.path for each in run.artefacts] == ["model.bin", "prepared/rows.csv"]


@ALL
def test_reading_again_gives_the_same_in_the_same_order_and_changes_nothing(name, originals):
    folder = originals / name
    before = contents(folder)
    importer = DvcImporter()
    assert importer.experiments(folder) == ("dvc",)
    assert importer.detect(folder) == (folder,)
    with importer.open(folder, experiment="dvc", artefacts=None) as session:
        first, second = list(session), list(session)
    assert repr(first) == repr(second)
    order = [(run.started or 0, run.source.run_id) for run in first]
    assert order == sorted(order)
    assert contents(folder) == before
