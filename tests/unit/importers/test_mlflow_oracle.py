"""Everything that MLflow's own client reads from its two stores (expected.json), we read; and the committed example."""

from __future__ import annotations

import json
import math
import sys
from functools import cache

import pytest

from bundler.importers.mlflow import MlflowImporter
from tests.unit.importers.support import (
    EXAMPLE,
    EXPECTED,
    FIXTURES,
    MAIN,
    STORE_OF,
    flags,
    named,
    read,
)

MOVED = {
    "mlflow.source.git.commit": "commit",
    "mlflow.source.git.repoURL": "repository",
    "mlflow.source.git.branch": "branch",
    "mlflow.source.name": "entry_point",
}
BOTH = pytest.mark.parametrize("kind", ["sqlite", "files"])
LARGEST = sys.float_info.max


@cache
def pairs(kind: str):
    """Each run as we read it, and what the client says."""
    expected = EXPECTED[kind]
    runs = {
        run.source.run_id: run
        for experiment in expected["experiments"].values()
        for run in read(FIXTURES / STORE_OF[kind], experiment["name"])
    }
    assert runs.keys() == expected["runs"].keys()
    return [(run, expected["runs"][name]) for name, run in runs.items()]


def ours(kind: str, name: str):
    (run,) = [run for run, _ in pairs(kind) if run.name == name]
    return run


@BOTH
def test_every_run_and_its_state_is_that_of_the_client(kind):
    for run, client in pairs(kind):
        experiment = EXPECTED[kind]["experiments"][client["experiment"]]
        assert (run.source.tracker, run.source.store) == ("mlflow", kind)
        assert run.source.experiment_id == client["experiment"]
        assert run.source.experiment == experiment["name"]
        assert run.name == client["name"]
        assert run.status == client["status"].lower()
        assert run.deleted == ("deleted" in {client["stage"], experiment["stage"]})
        assert (run.started, run.ended) == (client["start"], client["end"])


@BOTH
def test_every_parameter_and_tag_is_that_of_the_client(kind):
    for run, client in pairs(kind):
        assert dict(run.parameters) == client["parameters"]
        tags = {name: text for name, text in client["tags"].items() if name != "mlflow.runName"}
        for tag, field in MOVED.items():
            assert getattr(run.code, field) == tags.pop(tag, None)
        assert dict(run.tags) == tags
        assert run.code.dirty is None


def infinite(kind: str, text: str) -> float:
    """A value as the client gave it: that one shows infinity as the largest double where the SQL store keeps it so."""
    value = float(text)
    return math.copysign(math.inf, value) if kind == "sqlite" and abs(value) == LARGEST else value


@BOTH
def test_every_metric_point_is_that_of_the_client_to_the_last_bit(kind):
    for run, client in pairs(kind):
        theirs = [
            # The client loses the step of a row of the file store that names a data set.
            (name, time, 4 if name == "linked" else step, repr(infinite(kind, number)))
            for name, points in client["metrics"].items()
            for time, step, number in points
        ]
        mine = [(p.metric, p.timestamp, p.step, repr(p.value)) for p in run.points]
        assert sorted(mine) == sorted(theirs)


@BOTH
def test_every_data_set_is_that_of_the_client(kind):
    for run, client in pairs(kind):
        mine = [(d.name, d.tracker_digest, d.role, d.rows) for d in run.data]
        theirs = [tuple(d[key] for key in ("name", "digest", "role", "rows")) for d in client["datasets"]]  # fmt: skip
        assert sorted(mine, key=str) == sorted(theirs, key=str)
        assert all(each.sha256 is None and each.version is None for each in run.data)


@BOTH
def test_a_data_sets_place_is_its_source_and_anything_else_is_kept_whole(kind):
    run = ours(kind, "files")
    assert [(each.role, each.name, each.source) for each in run.data] == [
        (None, "one", '{"tags": {"mlflow.source.name": "make.py"}}'),
        ("training", "äll", "https://example.org/all.csv"),
        ("validation", "half", "data/half.csv"),
    ]


@BOTH
def test_every_artefact_and_file_of_a_logged_model_is_that_of_the_client(kind):
    for run, client in pairs(kind):
        found = [[each.path, each.file.stat().st_size] for each in run.artefacts]
        # A server leaves out a size of nothing.
        theirs = [[path, size or 0] for path, size in client["files"]]
        # The run's own first, then those of its models.
        assert found == sorted(theirs, key=lambda file: (file[0].startswith("models/"), file[0]))


@BOTH
def test_a_logged_model_belongs_to_the_run_that_made_it(kind):
    paths = [each.path.split("/", 2) for each in ours(kind, "files").artefacts]
    models = [path[2] for path in paths if path[0] == "models"]
    assert models == ["MLmodel", "weights/layer.txt"]


@BOTH
def test_points_are_in_order_of_metric_time_step_and_logging(kind):
    run = ours(kind, "values")
    order = [(p.metric, p.timestamp, p.step) for p in run.points]
    assert order == sorted(order)
    # MLflow's SQL store drops a point that is the same in everything.
    logged = [3.0, 1.0, 2.0, *([3.0] if kind == "files" else [])]
    assert [p.value for p in run.points if p.metric == "same place"] == logged
    backwards = [p.step for p in run.points if p.metric == "backwards"]
    assert backwards == [4, 3, 2, 1, 0]


@BOTH
def test_runs_are_in_order_of_start(kind):
    runs = read(FIXTURES / STORE_OF[kind])
    order = [(run.started, run.source.run_id) for run in runs]
    assert order == sorted(order)
    assert [run.status for run in runs] == [
        "finished", "finished", "failed", "killed", "running", "scheduled", "finished",
    ]  # fmt: skip
    assert [run.deleted for run in runs] == [False] * 6 + [True]


@BOTH
def test_what_is_read_again_is_equal(kind):
    runs = {run.source.run_id: run for run, _ in pairs(kind)}
    for again in read(FIXTURES / STORE_OF[kind]):
        assert repr(again) == repr(runs[again.source.run_id])


FLAGS = {
    ("parameters", "type_lost"): "MLflow keeps text only",
    ("parameters.long", "truncated"): "MLflow may have cut it at 6000 characters",
    ("metrics.same step", "duplicate_step"): "1 points",
}
FLAGS_OF = {
    "sqlite": FLAGS
    | {
        ("tags.cut", "truncated"): "MLflow may have cut it at 8000 characters",
        ("metrics.same place", "duplicate_step"): "2 points",
        ("metrics.odd", "nan_replaced"): "1 points",
        ("metrics.odd", "inf_clamped"): "2 points",
        ("metrics.größte", "inf_clamped"): "1 points",
    },
    "files": FLAGS
    | {
        ("metrics.same place", "duplicate_step"): "3 points",
        ("metrics.linked", "dataset_link_dropped"): "1 points",
    },
}


@BOTH
def test_what_mlflow_did_to_a_value_is_flagged(kind):
    run = ours(kind, "values")
    assert {(each.field, each.flag): each.detail for each in run.fidelity} == FLAGS_OF[kind]
    assert len(run.fidelity) == len(FLAGS_OF[kind])
    assert len(run.parameters["long"]) == 6000
    assert len(run.tags["cut"]) == (8000 if kind == "sqlite" else 9000)
    assert len(run.tags["whole"]) == 9000


def test_the_sql_store_cannot_tell_the_largest_number_from_infinity():
    found = {
        kind: [p.value for p in ours(kind, "values").points if p.metric == "größte"]
        for kind in FLAGS_OF
    }
    assert found == {"sqlite": [math.inf], "files": [LARGEST]}


@BOTH
def test_a_failed_run_keeps_its_nan(kind):
    assert [math.isnan(point.value) for point in ours(kind, "failed").points] == [True]


@BOTH
def test_a_run_without_anything_has_no_flags(kind):
    assert ours(kind, "killed").fidelity == ()


@BOTH
def test_an_experiment_is_found_by_name_and_by_id(kind):
    store = FIXTURES / STORE_OF[kind]
    ids = {each["name"]: key for key, each in EXPECTED[kind]["experiments"].items()}
    assert len(read(store, MAIN)) == len(read(store, ids[MAIN])) == 7
    assert [run.deleted for run in read(store, "dropped")] == [True]
    assert [run.deleted for run in read(store, "second")] == [False]
    assert read(store, "Default") == []


@BOTH
def test_experiments_are_listed_with_the_largest_first(kind):
    found = MlflowImporter().experiments(FIXTURES / STORE_OF[kind])
    assert (found[0], found[-1]) == (MAIN, "Default")
    assert sorted(found) == sorted(each["name"] for each in EXPECTED[kind]["experiments"].values())


# --- what is committed ------------------------------------------------------------------------------------------------


def test_the_fixture_is_small_and_names_no_machine():
    files = [path for path in FIXTURES.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 500_000
    for path in files:
        data = path.read_bytes()
        assert not [word for word in (b"/tmp", b"/root", b"/home", b"/work", b"127.0.0.1") if word in data]  # fmt: skip


def test_a_store_that_lost_its_empty_folders_is_read_alike():
    # The fixture has none: git does not keep them.
    assert not [path for path in (FIXTURES / "mlruns").rglob("*") if path.is_dir() and not any(path.iterdir())]  # fmt: skip
    assert named(FIXTURES / "mlruns", "killed").fidelity == ()


def test_the_example_is_read_as_its_search_made_it():
    runs = read(EXAMPLE / "mlflow.db", None)
    assert len(runs) == 40
    assert sum(run.deleted for run in runs) == 1
    assert sum(run.status == "finished" and not run.deleted for run in runs) == 38
    (failed,) = [run for run in runs if run.status == "failed"]
    assert any(math.isnan(p.value) for p in failed.points)
    assert any(flag.flag == "nan_replaced" for flag in failed.fidelity)
    for run in runs:
        assert sorted(each.rows for each in run.data) == [200, 200, 600]
    assert all(("artefacts", "artefacts_unreachable") not in flags(run) for run in runs)


def test_the_story_is_read_as_the_client_reads_it():
    """The small training that the fixtures of all trackers tell."""
    story = FIXTURES / "story"
    expected = json.loads((story / "expected.json").read_text(encoding="utf-8"))["files"]["runs"]
    runs = read(story / "mlruns", "story")
    assert [run.status for run in runs] == ["finished", "failed", "finished"]
    for run in runs:
        client = expected.pop(run.source.run_id)
        points = [
            (name, time, step, number)
            for name, series in client["metrics"].items()
            for time, step, number in series
        ]
        assert [(p.metric, p.timestamp, p.step, repr(p.value)) for p in run.points] == points
        assert dict(run.parameters) == client["parameters"]
        assert (run.parameters["seed"], run.parameters["optimiser.momentum"]) == ("7", "0.9")
        assert [[each.path, each.file.stat().st_size] for each in run.artefacts] == client["files"]
        assert [(each.name, each.role, each.rows) for each in run.data] == [
            ("train", "training", 2)
        ]
        assert run.code.dirty
    assert expected == {}


def test_the_cases_for_the_table_of_facts_are_there():
    for case in json.loads((FIXTURES / "case.json").read_text(encoding="utf-8")):
        artefacts = FIXTURES / case["artefacts"] if case["artefacts"] else None
        runs = read(FIXTURES / case["store"], case["experiment"], artefacts)
        assert any(case["facts"]["model"] in {each.path for each in run.artefacts} for run in runs)
