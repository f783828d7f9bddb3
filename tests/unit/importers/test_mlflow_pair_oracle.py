"""Both stores hold what MLflow's own client reads from them (expected.json)."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from bundler.importers.mlflow import MlflowImporter
from bundler.importers.model import ImportedRun

from . import pair_stores as stores

MOVED = {
    "mlflow.source.git.repoURL": "repository",
    "mlflow.source.git.commit": "commit",
    "mlflow.source.git.branch": "branch",
    "mlflow.source.name": "entry_point",
}
BOTH = pytest.mark.parametrize("kind", ["sqlite", "files"])
CASES = [
    (kind, experiment) for kind in ("sqlite", "files") for experiment in stores.expected()[kind]
]


def store(kind: str) -> Path:
    return stores.SQL if kind == "sqlite" else stores.FILES


def infinite(kind: str, value: float) -> float:
    """The client shows MLflow's stand-in for infinity, we show infinity."""
    if kind == "sqlite" and abs(value) == sys.float_info.max:
        return math.copysign(math.inf, value)
    return value


def same_metrics(kind: str, run: ImportedRun, theirs: dict[str, list[list[Any]]]) -> None:
    want = sorted(
        # The client loses the step of a row of the file store that names a data set.
        (
            name,
            time,
            4 if (kind, name) == ("files", "linked") else step,
            repr(infinite(kind, float(value))),
        )
        for name, points in theirs.items()
        for time, step, value in points
    )
    got = sorted((p.metric, p.timestamp, p.step, repr(p.value)) for p in run.points)
    assert got == want
    order = [(p.metric, p.timestamp, p.step) for p in run.points]
    assert order == sorted(order)


@pytest.mark.parametrize(("kind", "experiment"), CASES)
def test_runs(kind: str, experiment: str) -> None:
    theirs = stores.expected()[kind][experiment]
    runs = stores.read(store(kind), experiment)
    assert {run.source.run_id for run in runs} == set(theirs["runs"])
    assert [(run.started, run.source.run_id) for run in runs] == sorted(
        (run.started, run.source.run_id) for run in runs
    )
    for run in runs:
        want = theirs["runs"][run.source.run_id]
        assert run.source.tracker == "mlflow"
        assert (run.source.store, run.source.experiment, run.source.experiment_id) == (
            kind, experiment, theirs["id"],
        )  # fmt: skip
        assert (run.name, run.status.upper()) == (want["name"], want["status"])
        assert (run.started, run.ended) == (want["started"], want["ended"])
        assert run.deleted == (want["deleted"] or theirs["deleted"])
        assert run.parameters == want["params"]
        code = {name: getattr(run.code, field) for name, field in MOVED.items()}
        moved = {name: value for name, value in code.items() if value is not None}
        assert {**run.tags, **moved, "mlflow.runName": run.name} == want["tags"]
        assert run.code.dirty is None
        same_metrics(kind, run, want["metrics"])
        assert [each.path for each in run.artefacts] == want["artefacts"]
        assert all(each.file is not None and each.file.is_file() for each in run.artefacts)


@BOTH
def test_datasets(kind: str) -> None:
    run = stores.only(stores.read(store(kind)), "baseline ü")
    want = stores.expected()[kind][stores.EXPERIMENT]["runs"][run.source.run_id]["datasets"]
    got = {(each.name, each.tracker_digest, each.role, each.rows) for each in run.data}
    assert got == {
        (each["name"], each["digest"], each["tags"]["mlflow.data.context"], json.loads(each["profile"])["num_rows"])
        for each in want
    }  # fmt: skip
    assert {each.name: each.source for each in run.data} == {
        "train ü": "data/train.csv",
        "test": "https://example.org/test.csv",
        "made": '{"tags": {"mlflow.source.name": "make.py"}}',
    }
    assert [each.role for each in run.data] == ["holdout", "training", "validation"]
    assert all(each.sha256 is None for each in run.data)


@BOTH
def test_experiments_with_most_runs_come_first(kind: str) -> None:
    names = MlflowImporter().experiments(store(kind))
    assert names[0] == stores.EXPERIMENT
    assert set(names) == set(stores.expected()[kind])
    assert names[-1] == "Default"


@BOTH
def test_import_again_is_equal(kind: str) -> None:
    assert repr(stores.read(store(kind))) == repr(stores.read(store(kind)))


@BOTH
def test_experiment_by_id(kind: str) -> None:
    identity = stores.expected()[kind][stores.EXPERIMENT]["id"]
    assert len(stores.read(store(kind), identity)) == 7


def test_flags_of_the_sql_store() -> None:
    run = stores.only(stores.read(stores.SQL), "baseline ü")
    assert {(each.field, each.flag): each.detail for each in run.fidelity} == {
        ("parameters", "type_lost"): "MLflow keeps text only",
        ("parameters.features", "truncated"): "MLflow may have cut it at 6000 characters",
        ("tags.cut", "truncated"): "MLflow may have cut it at 8000 characters",
        ("metrics.train/loss", "nan_replaced"): "1 points",
        ("metrics.train/loss", "inf_clamped"): "2 points",
        ("metrics.größte", "inf_clamped"): "1 points",
        ("metrics.train/loss", "duplicate_step"): "1 points",
        ("metrics.auc", "duplicate_step"): "1 points",
    }


def test_flags_of_the_file_store() -> None:
    run = stores.only(stores.read(stores.FILES), "baseline ü")
    assert {(each.field, each.flag): each.detail for each in run.fidelity} == {
        ("parameters", "type_lost"): "MLflow keeps text only",
        ("parameters.features", "truncated"): "MLflow may have cut it at 6000 characters",
        ("metrics.train/loss", "duplicate_step"): "1 points",
        ("metrics.auc", "duplicate_step"): "2 points",
        ("metrics.linked", "dataset_link_dropped"): "1 points",
    }


def test_what_only_one_store_keeps() -> None:
    """The SQL store merges identical points and cannot tell the largest number from infinity."""
    sql = stores.only(stores.read(stores.SQL), "baseline ü")
    files = stores.only(stores.read(stores.FILES), "baseline ü")
    assert [p.value for p in sql.points if p.metric == "auc"] == [0.7, 0.6]
    assert [p.value for p in files.points if p.metric == "auc"] == [0.7, 0.7, 0.6]
    assert [p.value for p in sql.points if p.metric == "größte"] == [math.inf]
    assert [p.value for p in files.points if p.metric == "größte"] == [sys.float_info.max]


def test_logged_model_files_belong_to_the_run_that_made_them() -> None:
    for kind in ("sqlite", "files"):
        run = stores.only(stores.read(store(kind)), "model")
        paths = [each.path.split("/", 2)[2] for each in run.artefacts]
        assert paths == ["MLmodel", "weights/layer.bin"]


def test_no_machine_path_is_in_the_fixtures() -> None:
    for path in stores.FIXTURES.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert b"/tmp" not in data
            assert b"/root" not in data
            assert b"/home" not in data
