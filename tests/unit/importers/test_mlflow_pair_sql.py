"""MLflow's SQLite store when it is odd, live, broken or hostile."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from bundler.errors import SourceError
from bundler.importers import mlflow_sql
from bundler.importers.mlflow import MlflowImporter

from . import pair_stores as stores


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return stores.copy_sql(tmp_path)


def refused(store: Path, match: str, experiment: str | None = stores.EXPERIMENT) -> SourceError:
    with pytest.raises(SourceError, match=match) as caught:
        stores.read(store, experiment)
    assert caught.value.remedy
    return caught.value


def test_reading_leaves_no_trace(store: Path) -> None:
    before = stores.snapshot(store.parent)
    stores.read(store)
    assert MlflowImporter().experiments(store)
    assert MlflowImporter().detect(store.parent) == (store, store.parent / "mlruns")[:1]
    assert stores.snapshot(store.parent) == before


def test_a_live_write_ahead_log_is_read_and_left(store: Path) -> None:
    with closing(sqlite3.connect(store)) as server:
        server.execute("PRAGMA journal_mode=WAL").fetchall()
        server.execute("PRAGMA wal_autocheckpoint=0").fetchall()
        server.execute(
            "INSERT INTO params (key, value, run_uuid) SELECT 'new', 'x', run_uuid FROM runs"
        )
        server.commit()
        assert store.with_name("mlflow.db-wal").stat().st_size
        before = stores.snapshot(store.parent)
        assert all(run.parameters["new"] == "x" for run in stores.read(store))
        assert MlflowImporter().detect(store.parent) == (store,)
        assert stores.snapshot(store.parent) == before
    # The last one to close writes the log back; the mode stays.
    assert not store.with_name("mlflow.db-wal").exists()
    before = stores.snapshot(store.parent)
    assert all(run.parameters["new"] == "x" for run in stores.read(store))
    assert stores.snapshot(store.parent) == before


def test_a_transaction_that_is_under_way_is_refused(store: Path) -> None:
    with closing(sqlite3.connect(store, isolation_level=None)) as server:
        server.execute("PRAGMA cache_size=1")
        server.execute("BEGIN")
        server.execute("UPDATE params SET value = value || 'x'")
        server.execute("UPDATE metrics SET step = step + 1")
        assert store.with_name("mlflow.db-journal").exists()
        refused(store, "is being written")
        server.execute("ROLLBACK")
    assert stores.read(store)


def test_a_finished_journal_that_was_kept_is_ignored(store: Path) -> None:
    store.with_name("mlflow.db-journal").write_bytes(bytes(512))
    assert stores.read(store)


def test_a_lock_of_another_program_does_not_matter(store: Path) -> None:
    with closing(sqlite3.connect(store, isolation_level=None)) as server:
        server.execute("BEGIN EXCLUSIVE")
        assert len(stores.read(store)) == 7


def test_a_store_that_changes_while_it_is_read_is_refused(store: Path) -> None:
    importer = MlflowImporter()
    with (
        pytest.raises(SourceError, match="changed while"),
        importer.open(store, experiment=stores.EXPERIMENT, artefacts=None) as session,
    ):
        list(session)
        stores.change(store, "UPDATE runs SET end_time = 1")
    with (
        pytest.raises(SourceError, match="changed while"),
        importer.open(store, experiment=stores.EXPERIMENT, artefacts=None) as session,
    ):
        store.write_bytes(store.read_bytes()[:5000] + bytes(len(store.read_bytes()) - 5000))
        list(session)


def test_an_error_of_the_caller_stays_what_it_is(store: Path) -> None:
    for error in (
        OSError(28, "No space left on device"),
        sqlite3.OperationalError("x"),
        ValueError("y"),
    ):
        with (
            pytest.raises(type(error)) as caught,
            MlflowImporter().open(store, experiment=stores.EXPERIMENT, artefacts=None) as session,
        ):
            next(iter(session))
            raise error
        assert caught.value is error


@pytest.mark.parametrize(
    "name", ["a b.db", "per%20cent.db", "what?mode=rwc.db", "a#b.db", "ü.db", "'quoted\".db"]
)
def test_names_that_mean_something_in_an_address(store: Path, name: str) -> None:
    moved = store.rename(store.with_name(name))
    before = stores.snapshot(store.parent)
    assert len(stores.read(moved)) == 7
    assert stores.snapshot(store.parent) == before


def test_a_name_that_is_not_utf8(store: Path) -> None:
    moved = Path(os.fsdecode(os.fsencode(store.parent) + b"/\xff.db"))
    store.rename(moved)
    assert len(stores.read(moved)) == 7


def test_a_link_to_a_store(store: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(store)
    assert len(stores.read(link)) == 7


def test_what_is_no_store_is_refused(store: Path, tmp_path: Path) -> None:
    whole = store.read_bytes()
    refused(tmp_path / "nowhere.db", "no MLflow store")
    store.write_bytes(b"")
    refused(store, "is empty")
    store.write_bytes(b"not a database, but long enough")
    refused(store, "no SQLite database")
    store.write_bytes(whole[:3000])
    refused(store, "SQLite database")
    store.unlink()
    stores.change(store, "CREATE TABLE t (x)")
    refused(store, "table experiments lacks experiment_id, name")
    assert MlflowImporter().detect(store.parent) == ()


def test_what_cannot_be_opened_is_refused(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(store))

    monkeypatch.setattr(Path, "open", denied)
    assert "mlflow.db" in refused(store, "Permission denied").message
    monkeypatch.setattr(Path, "is_dir", denied)
    refused(store, "Permission denied")


def test_a_missing_column_is_named(store: Path) -> None:
    stores.change(store, "ALTER TABLE metrics RENAME COLUMN is_nan TO nan")
    refused(store, "table metrics lacks is_nan")


def test_a_view_in_place_of_a_table_is_refused(store: Path) -> None:
    """It could compute for ever."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT * FROM n, old"
    stores.change(store, "ALTER TABLE params RENAME TO old", f"CREATE VIEW params AS {endless}")
    refused(store, "table params lacks")


def test_old_stores_without_some_tables_columns_and_indexes(store: Path) -> None:
    whole = {run.source.run_id: run for run in stores.read(store)}
    stores.change(
        store,
        "DROP INDEX index_metrics_run_uuid",
        "DROP INDEX index_metrics_run_uuid_key_step",
        "DROP INDEX index_params_run_uuid",
        "ALTER TABLE runs DROP COLUMN name",
        "DROP TABLE input_tags",
        "DROP TABLE logged_models",
    )
    before = stores.snapshot(store.parent)
    for _ in range(2):
        runs = stores.read(store)
        for run in runs:
            assert repr(run.points) == repr(whole[run.source.run_id].points)
            assert run.parameters == whole[run.source.run_id].parameters
            assert run.data == ()
            assert not any(each.path.startswith("models/") for each in run.artefacts)
    assert stores.snapshot(store.parent) == before


def test_an_experiment_without_a_stage_is_not_deleted(store: Path) -> None:
    stores.change(store, "ALTER TABLE experiments RENAME COLUMN lifecycle_stage TO stage")
    assert len(stores.read(store)) == 7


def test_the_limit_of_an_old_schema(store: Path) -> None:
    stores.change(
        store,
        "ALTER TABLE params RENAME TO old",
        "CREATE TABLE params (key VARCHAR(250), value VARCHAR(250), run_uuid VARCHAR(32))",
        "INSERT INTO params SELECT key, substr(value, 1, 250), run_uuid FROM old",
    )
    run = stores.only(stores.read(store), "baseline ü")
    (flag,) = [each for each in run.fidelity if each.field == "parameters.features"]
    assert flag.detail == "MLflow may have cut it at 250 characters"


def test_several_experiments_are_listed(store: Path) -> None:
    error = refused(store, "several experiments", None)
    assert "'second' (id 2, 1 runs)" in error.remedy
    assert "'dropped' (id 3, 1 runs, deleted)" in error.remedy
    assert "second" in refused(store, "no 'third'", "third").remedy
    stores.change(store, "DELETE FROM runs WHERE experiment_id <> 2")
    assert [run.name for run in stores.read(store, None)] == ["in second"]
    stores.change(store, "DELETE FROM experiments")
    assert refused(store, "no experiment", None).remedy == "Name one of: none."


def test_an_experiment_whose_name_is_the_id_of_another(store: Path) -> None:
    stores.change(store, "UPDATE experiments SET name = '1' WHERE experiment_id = 2")
    assert [run.name for run in stores.read(store, "1")] == ["in second"]


def test_a_text_that_is_not_utf8_is_kept_as_escapes_and_flagged(store: Path) -> None:
    stores.change(store, "UPDATE params SET value = CAST(X'61FF' AS TEXT) WHERE key = 'lr'")
    run = stores.only(stores.read(store), "baseline ü")
    assert run.parameters["lr"] == "a\\xff"
    assert ("run", "not_utf8") in stores.flags(run)
    assert not any(
        flag == "not_utf8"
        for each in stores.read(store)
        if each != run
        for _, flag in stores.flags(each)
    )


def test_a_tag_without_a_value_is_empty(store: Path) -> None:
    stores.change(store, "UPDATE tags SET value = NULL WHERE key = 'empty'")
    assert stores.only(stores.read(store), "baseline ü").tags["empty"] == ""


def test_a_run_without_a_name_tag_and_times(store: Path) -> None:
    stores.change(
        store,
        "DELETE FROM tags WHERE key = 'mlflow.runName'",
        "UPDATE runs SET start_time = NULL, status = 'ODD' WHERE name = 'model'",
    )
    run = stores.read(store)[0]
    assert (run.name, run.started, run.status) == ("model", None, "unknown")


def test_a_data_set_that_is_gone_leaves_its_id(store: Path) -> None:
    stores.change(store, "DELETE FROM datasets WHERE name = 'test'")
    (data,) = [
        each
        for each in stores.only(stores.read(store), "baseline ü").data
        if each.role == "holdout"
    ]
    assert len(data.name) >= 32
    assert (data.source, data.rows, data.tracker_digest) == (None, None, None)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE metrics SET value = 'abc' WHERE key = 'deep/er/loss'",
        "UPDATE metrics SET step = 'abc' WHERE key = 'deep/er/loss'",
        "UPDATE metrics SET timestamp = X'00' WHERE key = 'deep/er/loss'",
        "UPDATE runs SET start_time = 'noon'",
        "UPDATE runs SET run_uuid = CAST(X'61FF' AS TEXT)  WHERE name = 'model'",
        "UPDATE runs SET run_uuid = X'61FF' WHERE name = 'model'",
    ],
)
def test_a_value_of_the_wrong_type_is_refused(store: Path, statement: str) -> None:
    stores.change(store, statement)
    refused(store, "wrong type")


def test_a_run_elsewhere_says_what_is_unreachable(store: Path) -> None:
    stores.change(
        store,
        "UPDATE runs SET artifact_uri = 's3://bucket/1/x/artifacts' WHERE name = 'model'",
        "UPDATE runs SET artifact_uri = NULL WHERE name = 'failed'",
        "UPDATE logged_models SET artifact_location = 'dbfs:/x'",
    )
    run = stores.only(stores.read(store), "model")
    assert run.artefacts == ()
    assert {each.detail.split("/")[-1] for each in run.fidelity} == {
        "s3: is not on this machine",
    } | {each.detail.split("/")[-1] for each in run.fidelity if each.detail.startswith("models/")}
    assert len(run.fidelity) == 2
    assert stores.only(stores.read(store), "failed").artefacts == ()


def test_a_file_that_cannot_be_read_is_a_gap(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not str(path).endswith("notes.txt") and access(path, mode)
    )
    run = stores.only(stores.read(store), "baseline ü")
    assert [each.path for each in run.artefacts if each.file is None] == ["notes.txt"]
    assert ("artefacts", "unreadable") in stores.flags(run)


def test_a_folder_that_cannot_be_read_is_flagged(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def denied(path: object) -> object:
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    run = stores.only(stores.read(store), "baseline ü")
    assert [each.path for each in run.artefacts] == ["a-b.txt", "notes.txt"]
    assert any(each.detail == "a/: Permission denied" for each in run.fidelity)


def test_a_deep_tree_of_artefacts(store: Path) -> None:
    run = stores.only(stores.read(store), "baseline ü")
    (root,) = store.parent.glob(f"mlruns/*/{run.source.run_id}/artifacts")
    here = Path.cwd()
    try:
        os.chdir(root)
        for _ in range(1500):
            Path("d").mkdir()
            os.chdir("d")
        Path("leaf").touch()
        os.chdir(here)
        paths = [each.path for each in stores.only(stores.read(store), "baseline ü").artefacts]
    finally:
        os.chdir(here)
        # Python's rmtree, which pytest uses, cannot.
        subprocess.run(["rm", "-rf", str(root / "d")], check=True)
    assert "d/" * 1500 + "leaf" in paths


def test_a_confined_store_cannot_point_at_the_readers_files(store: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").touch()
    stores.change(store, f"UPDATE runs SET artifact_uri = '{secret}' WHERE name = 'model'")
    trusted = stores.only(stores.read(store, confined=False), "model")
    assert "key" in [each.path for each in trusted.artefacts]
    confined = stores.only(stores.read(store, confined=True), "model")
    assert "key" not in [each.path for each in confined.artefacts]
    assert ("artefacts", "artefacts_unreachable") in stores.flags(confined)
    assert [each.path for each in confined.artefacts]  # the model beside the store


def test_a_folder_called_like_a_database_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "x.db").mkdir()
    os.mkfifo(tmp_path / "y.db")
    assert MlflowImporter().detect(tmp_path) == ()
    assert MlflowImporter().detect(tmp_path / "nowhere") == ()
    assert not mlflow_sql.is_store(tmp_path / "x.db")
