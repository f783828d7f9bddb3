"""MLflow's SQLite store: read as it is, never written, and refused with advice where it is not one."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from bundler.errors import SourceError
from bundler.importers.mlflow import MlflowImporter
from bundler.importers.mlflow import database as mlflow_database
from bundler.importers.mlflow.artefacts import Places
from tests.unit.importers.support import (
    FIXTURES,
    MAIN,
    copy_of,
    execute,
    flags,
    named,
    read,
    refused,
    state,
)


@pytest.fixture
def store(tmp_path) -> Path:
    return copy_of("sqlite", tmp_path / "store")


def refused_by_name(store: Path, match: str) -> SourceError:
    """Reading ``store`` is refused with its name."""
    error = refused(store, match)
    assert store.name in error.message
    return error


# --- nothing is written -----------------------------------------------------------------------------------------------


def test_a_store_in_wal_mode_is_read_without_a_trace(store):
    execute(store, "PRAGMA journal_mode=WAL", "UPDATE tags SET value = 'x' WHERE key = 'größe'")
    assert not store.with_name("store.db-wal").exists()
    before = state(store.parent)
    assert named(store, "values").tags["größe"] == "x"
    assert state(store.parent) == before


def test_a_live_writers_log_is_read_and_left_alone(store):
    with closing(sqlite3.connect(store)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("UPDATE params SET value = '0.2' WHERE key = 'rate'")
        writer.commit()
        writer.execute("UPDATE params SET value = '0.3' WHERE key = 'rate'")
        assert store.with_name("store.db-wal").stat().st_size > 0
        before = state(store.parent)
        # What is committed counts, although it is only in the log; what is not does not.
        assert named(store, "values").parameters["rate"] == "0.2"
        assert MlflowImporter().detect(store.parent) == (store,)
        assert state(store.parent) == before
        writer.rollback()


def test_a_transaction_that_broke_off_is_not_finished_here(store):
    with closing(sqlite3.connect(store)) as writer:
        writer.execute("PRAGMA cache_size=1")
        writer.execute("DELETE FROM metrics")
        writer.execute("CREATE TABLE filler AS SELECT hex(zeroblob(100000)) x")
        before = state(store.parent)
        assert "store.db-journal" in before
        refused_by_name(store, "is being written")
        assert state(store.parent) == before
        writer.rollback()
    assert len(read(store)) == 7


def test_a_journal_that_is_finished_does_not_matter(store):
    store.with_name("store.db-journal").write_bytes(bytes(512))
    assert len(read(store)) == 7


def test_a_lock_of_another_program_does_not_matter(store):
    with closing(sqlite3.connect(store, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        assert len(read(store)) == 7


def test_a_store_in_a_folder_that_nobody_may_write_is_read(store):
    store.chmod(0o444)
    store.parent.chmod(0o555)
    try:
        before = state(store.parent)
        assert len(read(store)) == 7
        assert state(store.parent) == before
    finally:
        store.parent.chmod(0o755)


@pytest.mark.parametrize(
    "name",
    ["a b.db", "per%20cent.db", "what?mode=rwc.db", "a#b.db", "ü.db", "'quoted\".db", os.fsdecode(b"\xff.db")],
)  # fmt: skip
def test_a_name_that_means_something_in_an_address_is_only_a_name(store, name):
    moved = store.rename(store.with_name(name))
    before = state(store.parent)
    assert len(read(moved)) == 7
    assert state(store.parent) == before


def test_a_store_behind_a_link_is_read(store, tmp_path):
    link = store.parent / "current.db"
    link.symlink_to(store.name)
    assert len(read(link)) == 7


def test_a_store_that_changes_while_it_is_read_is_refused(store):
    with (
        pytest.raises(SourceError, match="changed") as error,
        MlflowImporter().open(store, experiment=MAIN, artefacts=None) as session,
    ):
        next(iter(session))
        execute(store, "UPDATE tags SET value = 'y' WHERE key = 'größe'")
    assert error.value.remedy


def test_a_store_that_is_gone_while_it_is_read_is_refused(store):
    with (
        pytest.raises(SourceError),
        MlflowImporter().open(store, experiment=MAIN, artefacts=None) as session,
    ):
        next(iter(session))
        store.unlink()


@pytest.mark.parametrize(
    "error",
    [OSError(28, "disk is full"), sqlite3.DatabaseError("of the caller"), ValueError("of the caller")],
    ids=repr,
)  # fmt: skip
def test_an_error_of_the_caller_stays_what_it_is(store, error):
    with (
        pytest.raises(type(error)) as caught,
        MlflowImporter().open(store, experiment=MAIN, artefacts=None) as session,
    ):
        next(iter(session))
        raise error
    assert caught.value is error


# --- what is no store -------------------------------------------------------------------------------------------------


def cut(store: Path) -> None:
    os.truncate(store, store.stat().st_size // 2 // 512 * 512)


def without_a_header(store: Path) -> None:
    store.write_bytes(b"not a database" * 100)


def emptied(store: Path) -> None:
    store.write_bytes(b"")


def only_a_header(store: Path) -> None:
    os.truncate(store, 100)


def without_pages(store: Path) -> None:
    data = store.read_bytes()
    store.write_bytes(data[:512] + bytes(len(data) - 512))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "as a SQLite database"),
        (without_a_header, "no SQLite database"),
        (emptied, "is empty"),
        (only_a_header, "as a SQLite database"),
        (without_pages, "as a SQLite database"),
    ],
)
def test_a_damaged_store_is_refused(store, damage, words):
    damage(store)
    refused_by_name(store, words)


def test_another_database_is_no_store(tmp_path):
    execute(tmp_path / "store.db", "CREATE TABLE t (x)")
    refused_by_name(tmp_path / "store.db", "table experiments lacks experiment_id, name")
    assert MlflowImporter().detect(tmp_path) == ()


def test_a_file_that_cannot_be_opened_is_refused(store, monkeypatch):
    def denied(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)
    refused_by_name(store, "Permission denied")


def test_files_of_a_run_that_cannot_be_looked_for_are_an_error(store, monkeypatch):
    def broken(places, uri):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Places, "find", broken)
    refused_by_name(store, "Input/output error")


def test_a_folder_without_experiments_is_refused(tmp_path):
    (tmp_path / "store.db").mkdir()
    refused_by_name(tmp_path / "store.db", "holds no MLflow experiment")


def test_a_device_is_refused(tmp_path):
    os.mkfifo(tmp_path / "store.db")
    refused_by_name(tmp_path / "store.db", "no MLflow store")
    assert MlflowImporter().detect(tmp_path) == ()


@pytest.mark.parametrize("table", ["experiments", "runs", "params", "tags", "metrics"])
def test_a_missing_table_is_named(store, table):
    execute(store, f"ALTER TABLE {table} RENAME TO away")
    refused_by_name(store, f"table {table} lacks")


@pytest.mark.parametrize("column", ["step", "is_nan"])
def test_a_missing_column_is_named_with_the_way_to_upgrade(store, column):
    execute(store, f"ALTER TABLE metrics RENAME COLUMN {column} TO away")
    error = refused_by_name(store, f"table metrics lacks {column}")
    assert "mlflow db upgrade" in error.remedy


@pytest.mark.parametrize("table", ["inputs", "input_tags", "datasets"])
def test_an_old_store_without_data_sets_is_read(store, table):
    execute(store, f"ALTER TABLE {table} RENAME TO away")
    assert named(store, "files").data == ()


def test_an_old_store_without_logged_models_is_read(store):
    execute(store, "ALTER TABLE logged_models RENAME TO away")
    paths = [each.path for each in named(store, "files").artefacts]
    assert paths
    assert not any(path.startswith("models/") for path in paths)


def test_an_old_store_without_names_of_runs_is_read(store):
    execute(store, "ALTER TABLE runs DROP COLUMN name")
    assert len(named(store, "files").artefacts) > 0  # the tag says it


def test_an_old_store_without_indexes_is_read_alike(store):
    with closing(sqlite3.connect(store)) as connection:
        query = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        names = [name for (name,) in connection.execute(query)]
    assert "index_params_run_uuid" in names
    # A declared key has an index of its own, which cannot be dropped.
    execute(
        store,
        *(f"DROP INDEX {name}" for name in names),
        "ALTER TABLE metrics RENAME TO away",
        "CREATE TABLE metrics AS SELECT * FROM away",
    )
    before = state(store.parent)
    expected = [(run.points, run.parameters, run.tags) for run in read(FIXTURES / "store.db")]
    with MlflowImporter().open(store, experiment=MAIN, artefacts=None) as session:
        for _ in range(2):
            found = [(run.points, run.parameters, run.tags) for run in session]
            assert repr(found) == repr(expected)
    assert state(store.parent) == before


def test_an_experiment_without_a_stage_is_not_deleted(store):
    execute(store, "ALTER TABLE experiments RENAME COLUMN lifecycle_stage TO away")
    assert [run.deleted for run in read(store)] == [False] * 6 + [True]


def test_the_limit_of_an_old_schema(store):
    execute(
        store,
        "ALTER TABLE params RENAME TO away",
        "CREATE TABLE params (key VARCHAR(250), value VARCHAR(250), run_uuid VARCHAR(32))",
        "INSERT INTO params SELECT key, substr(value, 1, 250), run_uuid FROM away",
    )
    (flag,) = [each for each in named(store, "values").fidelity if each.field == "parameters.long"]
    assert flag.detail == "MLflow may have cut it at 250 characters"


def test_a_name_goes_before_an_id(store):
    execute(store, "UPDATE experiments SET name = '1' WHERE experiment_id = 2")
    assert [run.name for run in read(store, "1")] == ["in second"]


def test_a_view_in_place_of_a_table_is_not_computed(store):
    execute(
        store,
        "ALTER TABLE params RENAME TO away",
        "CREATE VIEW params AS WITH RECURSIVE n(key) AS (SELECT 1 UNION ALL SELECT key + 1 FROM n)"
        " SELECT key, key AS value, key AS run_uuid FROM n",
    )
    refused_by_name(store, "table params lacks")


# --- values of the wrong kind -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE metrics SET value = 'text' WHERE key = 'loss'",
        "UPDATE metrics SET value = x'00ff' WHERE key = 'loss'",
        "UPDATE metrics SET value = x'3132' WHERE key = 'loss'",
        "UPDATE metrics SET step = 'text' WHERE key = 'loss'",
        "UPDATE metrics SET step = x'00' WHERE key = 'loss'",
        "UPDATE metrics SET step = 1.5 WHERE key = 'loss'",
        "UPDATE metrics SET timestamp = 'text' WHERE key = 'loss'",
        "UPDATE metrics SET timestamp = 9e999 WHERE key = 'loss'",
        "UPDATE metrics SET key = x'ff' WHERE key = 'loss'",
        "UPDATE runs SET start_time = 'yesterday'",
        "UPDATE runs SET end_time = x'00'",
        "UPDATE runs SET end_time = 1.5",
        "UPDATE runs SET artifact_uri = x'00'",
        "UPDATE params SET value = x'00' WHERE key = 'rate'",
        "UPDATE logged_models SET artifact_location = x'00'",
        "UPDATE runs SET run_uuid = CAST(x'61ff' AS TEXT) WHERE name = 'failed'",
        "UPDATE runs SET run_uuid = x'61ff' WHERE name = 'failed'",
    ],
)
def test_a_value_of_the_wrong_type_is_refused_and_not_guessed(store, change):
    execute(store, change)
    refused_by_name(store, "wrong type")


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ("UPDATE runs SET start_time = NULL, end_time = NULL", lambda r: r.started is r.ended is None),
        ("UPDATE runs SET artifact_uri = NULL", lambda r: True),
        ("UPDATE tags SET value = NULL WHERE key = 'größe'", lambda r: r.tags["größe"] == ""),
        ("UPDATE metrics SET value = 9e999 WHERE key = 'tiny'", lambda r: True),
        ("UPDATE tags SET value = CAST(x'ff' AS TEXT)", lambda r: r.tags["größe"] == "\\xff"),
        ("DELETE FROM tags", lambda r: r.name == "values"),
    ],
)  # fmt: skip
def test_what_may_be_missing_is_missing(store, change, check):
    execute(store, change)
    (run,) = [each for each in read(store) if each.parameters]
    assert check(run)


def test_an_unknown_status_is_unknown(store):
    execute(store, "UPDATE runs SET status = 'ODD'")
    assert {run.status for run in read(store)} == {"unknown"}


def test_a_run_without_a_start_comes_first(store):
    execute(store, "UPDATE runs SET start_time = NULL WHERE name = 'scheduled'")
    first = read(store)[0]
    assert (first.name, first.started) == ("scheduled", None)


def test_a_data_set_that_is_gone_leaves_its_id(store):
    execute(store, "DELETE FROM datasets WHERE name = 'half'")
    (data,) = [each for each in named(store, "files").data if each.role == "validation"]
    assert len(data.name) >= 32
    assert (data.source, data.rows, data.tracker_digest) == (None, None, None)


def test_text_that_is_not_utf8_is_escaped_and_flagged(store):
    execute(store, "UPDATE tags SET value = CAST(x'ff41' AS TEXT) WHERE key = 'größe'")
    runs = read(store)
    assert [run.tags["größe"] for run in runs if "größe" in run.tags] == ["\\xffA"]
    assert [run.name for run in runs if ("run", "not_utf8") in flags(run)] == ["values"]


def test_artefacts_on_another_machine_are_flagged(store):
    execute(store, "UPDATE runs SET artifact_uri = 's3://bucket/1/' || run_uuid || '/artifacts'")
    run = named(store, "files")
    (flag,) = run.fidelity
    assert (flag.field, flag.flag) == ("artefacts", "artefacts_unreachable")
    assert flag.detail == "s3: is not on this machine"
    assert run.artefacts
    assert all(each.path.startswith("models/") for each in run.artefacts)
    execute(store, "UPDATE logged_models SET artifact_location = 'dbfs:/x'")
    run = named(store, "files")
    assert run.artefacts == ()
    model, _ = (each.detail for each in run.fidelity)
    assert model.startswith("models/m-")
    assert model.endswith("/dbfs: is not on this machine")


def test_a_store_of_another_machine_finds_its_files_beside_it(store):
    expected = [each.path for each in named(store, "files").artefacts]
    execute(
        store,
        "UPDATE runs SET artifact_uri = '/srv/training/mlruns/1/' || run_uuid || '/artifacts'",
        "UPDATE logged_models SET artifact_location = '/srv/mlruns/1/models/' || model_id || '/artifacts'",
    )
    run = named(store, "files")
    assert [each.path for each in run.artefacts] == expected
    assert run.fidelity == ()


def test_the_folder_of_the_artefact_server_is_beside_the_store_or_given(store, tmp_path):
    beside = named(store, "files")
    given_ = tmp_path / "given"
    (store.parent / "mlartifacts").rename(given_)
    away = named(store, "files")
    assert away.artefacts == ()
    assert ("artefacts", "artefacts_unreachable") in flags(away)
    given_run = named(store, "files", artefacts=given_)
    assert [each.path for each in given_run.artefacts] == [each.path for each in beside.artefacts]
    assert all(given_ in each.file.parents for each in given_run.artefacts)


def test_a_missing_artefact_folder_of_one_run_is_no_error(store):
    shutil.rmtree(store.parent / "mlartifacts" / "1" / named(store, "files").source.run_id)
    run = named(store, "files")
    assert all(each.path.startswith("models/") for each in run.artefacts)


@pytest.mark.parametrize("uri", ["/etc", "file:///etc", "mlflow-artifacts:/../../../../etc", "/"])
def test_a_foreign_store_cannot_point_at_the_readers_files(store, uri):
    execute(
        store,
        f"UPDATE runs SET artifact_uri = '{uri}'",
        f"UPDATE logged_models SET artifact_location = '{uri}'",
    )
    for run in read(store, confined=True):
        assert run.artefacts == ()


def test_an_absolute_path_outside_is_read_only_where_that_is_said(store, tmp_path):
    elsewhere = tmp_path / "elsewhere" / "artifacts"
    shutil.copytree(store.parent / "mlartifacts", elsewhere)
    # What lies beside the store would be found, as that of a store that was moved.
    shutil.rmtree(store.parent / "mlartifacts" / "1" / named(store, "files").source.run_id)
    execute(store, f"UPDATE runs SET artifact_uri = '{elsewhere.as_uri()}/1/' || run_uuid || '/artifacts'")  # fmt: skip
    confined = named(store, "files")
    assert ("artefacts", "artefacts_unreachable") in flags(confined)
    assert all(each.path.startswith("models/") for each in confined.artefacts)
    for run in (
        named(store, "files", confined=False),
        named(store, "files", artefacts=elsewhere),
    ):
        assert any(elsewhere in each.file.parents for each in run.artefacts)


# --- stores that want to exhaust the reader ---------------------------------------------------------------------------


def test_too_many_rows_are_refused(store, monkeypatch):
    monkeypatch.setattr(mlflow_database, "MAX_ROWS", 20)
    refused_by_name(store, "more memory or time")


def test_a_column_whose_default_makes_much_of_little_is_refused(store, monkeypatch):
    monkeypatch.setattr(mlflow_database, "MAX_TEXT", 100_000)
    execute(
        store,
        "ALTER TABLE params RENAME COLUMN value TO away",
        f"ALTER TABLE params ADD COLUMN value TEXT DEFAULT '{'x' * 50_000}'",
    )
    refused_by_name(store, "more memory or time")


@pytest.mark.parametrize("default", [f"x'{'00' * 1000}'", f"'{'x' * 201}'"])
def test_long_defaults_of_columns_are_refused_before_a_row_is_read(store, default):
    execute(
        store,
        "ALTER TABLE params RENAME COLUMN value TO away",
        f"ALTER TABLE params ADD COLUMN value BLOB DEFAULT {default}",
    )
    refused_by_name(store, "more memory or time")


@pytest.mark.parametrize("form", ["zeroblob({})", "printf('%0*d', {}, 1)"])
def test_blobs_are_bounded_like_texts(store, form, monkeypatch):
    monkeypatch.setattr(mlflow_database, "MAX_TEXT", 100_000)
    execute(store, f"UPDATE experiments SET name = {form.format('60000 + experiment_id')}")
    refused_by_name(store, "more memory or time")


def test_rows_are_taken_one_at_a_time(tmp_path):
    """300 blobs of 1 MB, of which none but the first is wanted."""
    file = tmp_path / "blobs.db"
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
    execute(file, "CREATE TABLE t (x)")
    with mlflow_database.opened(file) as opened:
        rows = opened.rows(f"{many} SELECT zeroblob(1000000) FROM n")
        tracemalloc.start()
        try:
            assert len(next(rows)[0]) == 1_000_000
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
        finally:
            tracemalloc.stop()
        with pytest.raises(SourceError, match="more memory or time"):
            list(rows)


@pytest.mark.parametrize("end", [" WHERE 0", ""], ids=["partial", "other collation"])
def test_an_index_that_cannot_be_used_is_no_index(store, end):
    execute(
        store,
        "ALTER TABLE metrics RENAME TO away",
        "CREATE TABLE metrics AS SELECT * FROM away",
        f"CREATE INDEX i ON metrics (run_uuid{'' if end else ' COLLATE NOCASE'}){end}",
    )
    with mlflow_database.opened(store) as opened:
        opened.prepare({"metrics": "run_uuid"})
        (plan,) = opened.rows("EXPLAIN QUERY PLAN SELECT * FROM metrics WHERE run_uuid = 'x'")
        assert "by_metrics" in plan[-1]
    expected = [run.points for run in read(FIXTURES / "store.db")]
    assert repr([run.points for run in read(store)]) == repr(expected)


def test_steps_are_counted_over_all_questions(store, monkeypatch):
    monkeypatch.setattr(mlflow_database, "_STEP", 100)
    with mlflow_database.opened(store) as opened:
        before = opened._steps_left
        list(opened.rows("SELECT count(*) FROM metrics, metrics"))
        between = opened._steps_left
        list(opened.rows("SELECT count(*) FROM metrics, metrics"))
        assert before > between > opened._steps_left


def test_a_parameter_that_is_there_twice_is_refused(store):
    execute(
        store,
        "ALTER TABLE params RENAME TO away",
        "CREATE TABLE params AS SELECT * FROM away UNION ALL SELECT * FROM away",
    )
    refused_by_name(store, "twice in table params")


def test_a_time_that_no_date_can_be_is_left_out_and_flagged(store):
    execute(
        store, f"UPDATE runs SET start_time = {2**60}, end_time = -{2**60} WHERE name = 'values'"
    )
    first = read(store)[0]  # as one without a start
    assert (first.name, first.started, first.ended) == ("values", None, None)
    found = {each.detail for each in first.fidelity if each.flag == "time_out_of_range"}
    assert found == {"start_time", "end_time"}


@pytest.mark.parametrize(
    "form",
    [
        "sqlite:///{}?timeout=5",
        "sqlite+pysqlite:///{}?mode=rwc",
        "sqlite:///relative.db",
        "sqlite:///:memory:",
        "sqlite://",
        "sqlite+pysqlcipher://:secret@/{}",
        "SQLite:///file:{}?uri=true",
    ],
)
def test_an_address_of_sqlite_that_is_no_full_path_is_refused(tmp_path, form):
    error = refused(form.format(tmp_path / "new.db"), "does not name a file by its full path")
    assert "Give the path itself" in error.remedy
    assert "secret" not in error.message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "form", ["sqlite:///{}", "sqlite+pysqlite:///{}", "SQLITE+aiosqlite:///{}"]
)
def test_every_dialect_of_sqlite_is_the_file(store, form, tmp_path):
    assert repr(read(form.format(store))) == repr(read(store))
    refused(form.format(tmp_path / "new.db"), "no MLflow store")
    assert not (tmp_path / "new.db").exists()


def test_a_query_without_an_end_is_ended(store, monkeypatch):
    monkeypatch.setattr(mlflow_database, "_STEP", 10)
    monkeypatch.setattr(mlflow_database, "_SECONDS_OF_STEPS", 1)
    refused_by_name(store, "more memory or time")


def test_a_value_larger_than_any_of_mlflow_is_refused(store, monkeypatch):
    monkeypatch.setattr(mlflow_database, "MAX_LENGTH", 5000)
    refused_by_name(store, "too big")


def test_a_store_that_becomes_unreadable_is_refused_as_changed(store):
    with (
        pytest.raises(SourceError, match="changed"),
        MlflowImporter().open(store, experiment=MAIN, artefacts=None) as session,
    ):
        for _ in session:
            store.write_bytes(store.read_bytes()[:4096] + bytes(store.stat().st_size - 4096))
