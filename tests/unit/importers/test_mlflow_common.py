"""Both of MLflow's stores: everything that MLflow's own client reads, we read; nothing is written."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from bundler.errors import SourceError
from bundler.importers.mlflow import MlflowImporter
from bundler.importers.mlflow_artefacts import Places
from bundler.importers.mlflow_values import choose, dataset, split_tags
from tests.unit.importers.support import (
    EXAMPLE,
    EXPECTED,
    FIXTURES,
    MAIN,
    STORE_OF,
    copy_of,
    execute,
    flags,
    named,
    read,
    state,
    write,
)

KINDS = ["sqlite", "files"]
MOVED = {
    "mlflow.source.git.commit": "commit",
    "mlflow.source.git.repoURL": "repository",
    "mlflow.source.git.branch": "branch",
    "mlflow.source.name": "entry_point",
}


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def store(kind, tmp_path) -> Path:
    return copy_of(kind, tmp_path / "store")


def value(text: str) -> float:
    """A value as the client gave it: that one shows infinity as the largest double where the SQL store keeps it so."""
    number = float(text)
    return math.copysign(math.inf, number) if abs(number) > 1.797e308 else number


def sortable(points) -> list[tuple[str, int, int, str]]:
    return sorted((name, time, step, repr(number)) for name, time, step, number in points)


# --- beside MLflow's client -------------------------------------------------------------------------------------------


def pairs(kind: str):
    """Each run as we read it, and what the client says."""
    expected = EXPECTED[kind]
    store = FIXTURES / STORE_OF[kind]
    runs = {
        run.source.run_id: run
        for experiment in expected["experiments"].values()
        for run in read(store, experiment["name"])
    }
    assert runs.keys() == expected["runs"].keys()
    return [(run, expected["runs"][name]) for name, run in runs.items()]


def test_every_run_and_its_state_is_that_of_the_client(kind):
    for run, client in pairs(kind):
        deleted = EXPECTED[kind]["experiments"][client["experiment"]]["stage"] == "deleted"
        assert run.source.experiment_id == client["experiment"]
        assert run.name == client["name"]
        assert run.status == client["status"].lower()
        assert run.deleted == (client["stage"] == "deleted" or deleted)
        assert (run.started, run.ended) == (client["start"], client["end"])


def test_every_parameter_and_tag_is_that_of_the_client(kind):
    for run, client in pairs(kind):
        assert dict(run.parameters) == client["parameters"]
        tags = {name: text for name, text in client["tags"].items() if name != "mlflow.runName"}
        for tag, field in MOVED.items():
            assert getattr(run.code, field) == tags.pop(tag, None)
        assert dict(run.tags) == tags
        assert run.code.dirty is None


def test_every_metric_point_is_that_of_the_client_to_the_last_bit(kind):
    for run, client in pairs(kind):
        theirs = [
            (name, time, step, value(number))
            for name, points in client["metrics"].items()
            for time, step, number in points
        ]
        mine = [(p.metric, p.timestamp, p.step, p.value) for p in run.points]
        assert sortable(mine) == sortable(theirs)


def test_every_data_set_is_that_of_the_client(kind):
    for run, client in pairs(kind):
        mine = [(d.name, d.tracker_digest, d.role, d.source, d.rows) for d in run.data]
        theirs = [tuple(d[key] for key in ("name", "digest", "role", "source", "rows")) for d in client["datasets"]]  # fmt: skip
        assert sorted(mine, key=str) == sorted(theirs, key=str)
        assert all(each.sha256 is None and each.version is None for each in run.data)


def test_every_artefact_and_file_of_a_logged_model_is_that_of_the_client(kind):
    for run, client in pairs(kind):
        sizes = {each.path: each.file.stat().st_size for each in run.artefacts}
        theirs = dict(client["files"])
        assert sizes.keys() == theirs.keys()
        assert all(sizes[path] == size for path, size in theirs.items() if size is not None)
        assert [each.path for each in run.artefacts] == sorted(
            sizes, key=lambda path: (path.startswith("models/"), path)
        )


def test_points_are_in_order_of_metric_time_step_and_logging(kind):
    run = named(FIXTURES / STORE_OF[kind], "values")
    order = [(p.metric, p.timestamp, p.step) for p in run.points]
    assert order == sorted(order)
    # MLflow's SQL store drops a point that is the same in everything.
    logged = [3.0, 1.0, 2.0, *([3.0] if kind == "files" else [])]
    assert [p.value for p in run.points if p.metric == "same place"] == logged
    backwards = [p.step for p in run.points if p.metric == "backwards"]
    assert backwards == [4, 3, 2, 1, 0]


def test_runs_are_in_order_of_start(kind):
    runs = read(FIXTURES / STORE_OF[kind])
    assert [run.started for run in runs] == sorted(run.started for run in runs)
    assert [run.status for run in runs] == [
        "finished", "finished", "failed", "killed", "running", "scheduled", "finished",
    ]  # fmt: skip
    assert [run.deleted for run in runs] == [False] * 6 + [True]


# --- what MLflow did to values ----------------------------------------------------------------------------------------


def test_what_mlflow_did_to_a_value_is_flagged(kind):
    run = named(FIXTURES / STORE_OF[kind], "values")
    expected = {
        ("parameters", "type_lost"),
        ("parameters.long", "truncated"),
        ("metrics.same place", "duplicate_step"),
        ("metrics.same step", "duplicate_step"),
    }
    if kind == "sqlite":
        expected |= {("metrics.odd", "nan_replaced"), ("metrics.odd", "inf_clamped")}
    assert flags(run) == expected
    assert len(run.parameters["long"]) == 6000


def test_a_failed_run_keeps_its_nan(kind):
    run = named(FIXTURES / STORE_OF[kind], "failed")
    assert [math.isnan(point.value) for point in run.points] == [True]


def test_a_run_without_anything_has_no_flags(kind):
    assert named(FIXTURES / STORE_OF[kind], "killed").fidelity == ()


def test_a_dirty_tag_is_believed_only_where_it_says_yes_or_no():
    for text, dirty in (("true", True), ("False", False), ("maybe", None)):
        code, tags = split_tags({"mlflow.source.git.dirty": text, "x": "y"})
        assert code.dirty is dirty
        assert ("mlflow.source.git.dirty" in tags) == (dirty is None)


@pytest.mark.parametrize(
    ("profile", "rows"),
    [
        ('{"num_rows": 7}', 7),
        ('{"num_rows": -1}', None),
        ('{"num_rows": true}', None),
        ('{"num_rows": 1e3}', None),
        ('{"num_rows": 99999999999999999999999}', None),
        ("[" * 100_000, None),
        ("[]", None),
        ("", None),
        (None, None),
    ],
)
def test_a_number_of_rows_is_a_whole_number_or_unknown(profile, rows):
    made = dataset(name="d", digest=None, source=None, profile=profile, role=None)
    assert made.rows == rows


def test_what_a_data_set_says_of_itself_can_be_written_as_utf8():
    made = dataset(
        name="\ud800", digest="\udc80", source='{"url": "\\ud800"}', profile="{}", role="\ud800"
    )
    for text in (made.name, made.tracker_digest, made.source, made.role):
        text.encode()


# --- which experiment -------------------------------------------------------------------------------------------------


def test_an_experiment_is_found_by_name_and_by_id(kind):
    store = FIXTURES / STORE_OF[kind]
    ids = {e["name"]: key for key, e in EXPECTED[kind]["experiments"].items()}
    assert len(read(store, MAIN)) == len(read(store, ids[MAIN])) == 7
    assert [run.deleted for run in read(store, "dropped")] == [True]
    assert read(store, "Default") == []


def test_without_a_name_the_only_experiment_with_runs_is_taken(store, kind):
    with pytest.raises(SourceError, match="several experiments") as error:
        read(store, None)
    assert MAIN in error.value.remedy
    assert "dropped" in error.value.remedy
    if kind == "sqlite":
        execute(store, "DELETE FROM runs WHERE experiment_id = 2")
    else:
        shutil.rmtree(store / ".trash")
    assert len(read(store, None)) == 7


def test_an_unknown_experiment_is_refused_with_the_known_ones(kind):
    with pytest.raises(SourceError, match="nope") as error:
        read(FIXTURES / STORE_OF[kind], "nope")
    assert MAIN in error.value.remedy


def test_an_empty_list_of_experiments_is_an_error():
    with pytest.raises(SourceError) as error:
        choose([], None, Path("store"))
    assert error.value.remedy == "Name one of: none."


def test_experiments_are_listed_with_the_largest_first(kind):
    found = MlflowImporter().experiments(FIXTURES / STORE_OF[kind])
    assert found == (MAIN, "dropped", "Default")


# --- stores and their artefacts ---------------------------------------------------------------------------------------


def test_stores_in_a_folder_are_detected(tmp_path):
    copy_of("sqlite", tmp_path)
    copy_of("files", tmp_path)
    write(tmp_path / "other.db", b"SQLite format 3\0 but no more")
    (tmp_path / "folder.db").mkdir()
    importer = MlflowImporter()
    assert importer.detect(tmp_path) == (tmp_path / "store.db", tmp_path / "mlruns")
    assert importer.detect(tmp_path / "mlruns") == (tmp_path / "mlruns",)
    assert importer.detect(tmp_path / "nowhere") == ()
    assert importer.detect(EXAMPLE) == (EXAMPLE / "mlflow.db",)


def test_a_store_may_be_moved(store, kind, tmp_path):
    moved = tmp_path / "ünd %41?#" / "deeper"
    shutil.copytree(store.parent, moved)
    shutil.rmtree(store.parent)
    run = named(moved / store.name, "files")
    assert len(run.artefacts) == len(EXPECTED[kind]["runs"][run.source.run_id]["files"])
    assert flags(run) == set()


@pytest.mark.parametrize("name", ["mlflow.db", "mlruns"])
def test_a_missing_store_is_named(tmp_path, name):
    with pytest.raises(SourceError, match=name) as error:
        read(tmp_path / name)
    assert error.value.remedy


def test_reading_changes_nothing(store):
    before = state(store.parent)
    read(store)
    MlflowImporter().experiments(store)
    MlflowImporter().detect(store.parent)
    assert state(store.parent) == before


def test_a_link_among_the_artefacts_is_not_followed(store):
    secret = write(store.parent.parent / "secret" / "key", "secret")
    before = named(store, "files")
    folder = next(each.file.parent for each in before.artefacts if each.path == "notes.txt")
    (folder / "link").symlink_to(secret)
    (folder / "loop").symlink_to(folder)
    run = named(store, "files")
    assert [each.path for each in run.artefacts] == [each.path for each in before.artefacts]
    skipped = [each.detail for each in run.fidelity if each.flag == "symlink_skipped"]
    assert skipped == ["link", "loop"]


def test_a_link_in_place_of_the_artefact_folder_is_not_followed(store):
    secret = write(store.parent.parent / "secret" / "key", "secret").parent
    before = named(store, "files")
    folder = next(each.file.parent for each in before.artefacts if each.path == "notes.txt")
    shutil.rmtree(folder)
    folder.symlink_to(secret)
    run = named(store, "files", confined=True)
    assert [each.path for each in run.artefacts if not each.path.startswith("models/")] == []


def test_special_files_among_the_artefacts_are_named(store):
    import os

    folder = next(e.file.parent for e in named(store, "files").artefacts if e.path == "notes.txt")
    os.mkfifo(folder / "pipe")
    (folder / "notes.txt").rename(folder / os.fsdecode(b"n\xff.txt"))
    run = named(store, "files")
    assert ("artefacts", "special_skipped") in flags(run)
    names = [each.path for each in run.artefacts]
    assert "n\\xff.txt" in names
    assert all(each.file.exists() for each in run.artefacts)


# --- where an address leads -------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path) -> Places:
    for folder in ("mlruns/1/r1/artifacts", "mlartifacts/1/r1/artifacts", "given/1/r2/artifacts"):
        (tmp_path / "here" / folder).mkdir(parents=True)
    (tmp_path / "elsewhere" / "1" / "r9" / "artifacts").mkdir(parents=True)
    return Places(beside=tmp_path / "here", given=None)


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("mlflow-artifacts:/1/r1/artifacts", "mlartifacts/1/r1/artifacts"),
        ("mlflow-artifacts://host:5000/1/r1/artifacts", "mlartifacts/1/r1/artifacts"),
        ("mlruns/1/r1/artifacts", "mlruns/1/r1/artifacts"),
        ("./mlruns/1/r1/artifacts", "mlruns/1/r1/artifacts"),
        ("file:///old/home/project/mlruns/1/r1/artifacts", "mlruns/1/r1/artifacts"),
        ("/old/home/other/1/r1/artifacts", "mlruns/1/r1/artifacts"),
        ("file:///C:/Users/x/mlruns/1/r1/artifacts", "mlruns/1/r1/artifacts"),
        ("C:\\Users\\x\\mlruns\\1\\r1\\artifacts", "mlruns/1/r1/artifacts"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("confined", [True, False])
def test_a_folder_is_found_where_it_was_or_beside_the_store(places, uri, found, confined):
    here = Places(beside=places.beside, given=None, confined=confined)
    folder, problem = here.find(uri)
    assert folder is not None
    assert folder.resolve() == (places.beside / found).resolve()
    assert problem == ""


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/1/r1/artifacts",
        "gs://bucket/1/r1/artifacts",
        "dbfs:/1/r1/artifacts",
        "http://[half",
        "/old/home/project/mlruns/7/r9/artifacts",
        "mlflow-artifacts:/../../etc",
        "/etc",
        "file:///etc",
        "..",
        "/old/../../../../../../../etc",
        "file:///%00/%00/artifacts",
        "x" * 5000 + "/1/artifacts",
    ],
)
def test_what_is_not_beside_the_store_is_unreachable_and_says_why(places, uri):
    here = Places(beside=places.beside, given=None, confined=True)
    folder, problem = here.find(uri)
    assert folder is None
    assert problem


def test_a_run_without_artefacts_is_not_unreachable(places):
    for uri in ("mlflow-artifacts:/1/r5/artifacts", "/old/mlruns/1/r5/artifacts"):
        assert places.find(uri) == (None, "")


def test_without_the_artefact_servers_folder_it_is_said(tmp_path):
    folder, problem = Places(beside=tmp_path, given=None).find("mlflow-artifacts:/1/r/artifacts")
    assert folder is None
    assert "artefact server" in problem


def test_a_given_folder_comes_first(places):
    given = places.beside / "given"
    here = Places(beside=places.beside, given=given, confined=True)
    for uri in ("mlflow-artifacts:/1/r2/artifacts", "file:///old/mlruns/1/r2/artifacts"):
        assert here.find(uri)[0] == given / "1" / "r2" / "artifacts"


def test_an_absolute_path_is_followed_only_where_the_store_is_trusted(places, tmp_path):
    outside = tmp_path / "elsewhere" / "1" / "r9" / "artifacts"
    trusted = Places(beside=places.beside, given=None, confined=False)
    assert trusted.find(str(outside))[0] == outside
    assert trusted.find(outside.as_uri())[0] == outside
    folder, problem = places.find(str(outside))
    assert folder is None
    assert "artefacts" in problem


def test_a_link_beside_a_foreign_store_leads_nowhere(places, tmp_path):
    (places.beside / "mlruns" / "1" / "r9").symlink_to(tmp_path / "elsewhere" / "1" / "r9")
    confined = Places(beside=places.beside, given=None, confined=True)
    assert confined.find("/old/mlruns/1/r9/artifacts")[0] is None


# --- the committed example --------------------------------------------------------------------------------------------


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
