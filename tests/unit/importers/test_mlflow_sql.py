"""MLflow's SQLite store: read as it is, never written, and refused with advice where it is not one."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler.errors import SourceError
from bundler.importers import mlflow_sql
from bundler.importers.mlflow import MlflowImporter
from tests.unit.importers.support import FIXTURES, MAIN, copy_of, execute, flags, named, read, state

FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def store(tmp_path) -> Path:
    return copy_of("sqlite", tmp_path / "store")


def refused(store: Path) -> SourceError:
    """Reading ``store`` is refused with its name and a remedy."""
    with pytest.raises(SourceError) as error:
        read(store, None if not store.is_file() else MAIN)
    assert store.name in error.value.message
    assert error.value.remedy
    assert "\x1b" not in error.value.message
    return error.value


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
        refused(store)
        assert state(store.parent) == before


def test_a_journal_that_is_finished_does_not_matter(store):
    store.with_name("store.db-journal").write_bytes(bytes(512))
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


def test_an_error_of_the_caller_stays_what_it_is(store):
    with (
        pytest.raises(OSError, match="disk is full"),
        MlflowImporter().open(store, experiment=MAIN, artefacts=None),
    ):
        raise OSError(28, "disk is full")
    with (
        pytest.raises(sqlite3.DatabaseError, match="of the caller"),
        MlflowImporter().open(store, experiment=MAIN, artefacts=None),
    ):
        raise sqlite3.DatabaseError("of the caller")


# --- what is no store -------------------------------------------------------------------------------------------------


def truncated(store: Path) -> None:
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
    "damage", [truncated, without_a_header, emptied, only_a_header, without_pages]
)
def test_a_damaged_store_is_refused(store, damage):
    damage(store)
    refused(store)


def test_a_folder_without_experiments_is_refused(tmp_path):
    (tmp_path / "store.db").mkdir()
    refused(tmp_path / "store.db")


def test_a_device_is_refused(tmp_path):
    os.mkfifo(tmp_path / "store.db")
    refused(tmp_path / "store.db")
    assert MlflowImporter().detect(tmp_path) == ()


@pytest.mark.parametrize("table", ["experiments", "runs", "params", "tags", "metrics"])
def test_a_missing_table_is_named(store, table):
    execute(store, f"ALTER TABLE {table} RENAME TO away")
    assert table in refused(store).message


def test_a_missing_column_is_named_with_the_way_to_upgrade(store):
    execute(store, "ALTER TABLE metrics RENAME COLUMN step TO away")
    error = refused(store)
    assert "table metrics lacks step" in error.message
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


def test_an_old_store_without_indexes_is_read_alike(store):
    expected = read(FIXTURES / "store.db")
    with closing(sqlite3.connect(store)) as connection:
        query = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        names = [name for (name,) in connection.execute(query)]
    execute(store, *(f"DROP INDEX {name}" for name in names))
    again = read(store)
    assert [run.points for run in again[1:]] == [run.points for run in expected[1:]]
    assert [run.parameters for run in again] == [run.parameters for run in expected]


def test_a_view_in_place_of_a_table_is_not_computed(store):
    execute(
        store,
        "ALTER TABLE params RENAME TO away",
        "CREATE VIEW params AS WITH RECURSIVE n(key) AS (SELECT 1 UNION ALL SELECT key + 1 FROM n)"
        " SELECT key, key AS value, key AS run_uuid FROM n",
    )
    assert "params" in refused(store).message


# --- values of the wrong kind -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE metrics SET value = 'text' WHERE key = 'loss'",
        "UPDATE metrics SET value = x'00ff' WHERE key = 'loss'",
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
    ],
)
def test_a_value_of_the_wrong_type_is_refused_and_not_guessed(store, change):
    execute(store, change)
    refused(store)


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
    execute(store, "PRAGMA ignore_check_constraints=ON", change)
    (run,) = [each for each in read(store) if each.parameters]
    assert check(run)


def test_an_unknown_status_is_unknown(store):
    execute(store, "PRAGMA ignore_check_constraints=ON", "UPDATE runs SET status = 'ODD'")
    assert {run.status for run in read(store)} == {"unknown"}


def test_text_that_is_not_utf8_is_escaped_and_flagged(store):
    execute(store, "UPDATE tags SET value = CAST(x'ff41' AS TEXT) WHERE key = 'größe'")
    run = named(store, "values")
    assert run.tags["größe"] == "\\xffA"
    assert ("run", "not_utf8") in flags(run)


def test_artefacts_on_another_machine_are_flagged(store):
    execute(store, "UPDATE runs SET artifact_uri = 's3://bucket/1/' || run_uuid || '/artifacts'")
    run = named(store, "files")
    (flag,) = [each for each in run.fidelity if each.flag == "artefacts_unreachable"]
    assert "s3" in flag.detail
    assert all(each.path.startswith("models/") for each in run.artefacts)


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
    monkeypatch.setattr(mlflow_sql, "MAX_ROWS", 20)
    assert "more memory or time" in refused(store).message


def test_a_column_whose_default_makes_much_of_little_is_refused(store, monkeypatch):
    monkeypatch.setattr(mlflow_sql, "MAX_TEXT", 100_000)
    execute(
        store,
        "ALTER TABLE params RENAME COLUMN value TO away",
        f"ALTER TABLE params ADD COLUMN value TEXT DEFAULT '{'x' * 50_000}'",
    )
    assert "more memory or time" in refused(store).message


def test_a_query_without_an_end_is_ended(store, monkeypatch):
    monkeypatch.setattr(mlflow_sql, "_STEP", 10)
    monkeypatch.setattr(mlflow_sql, "_SECONDS_OF_STEPS", 1)
    assert "more memory or time" in refused(store).message


def test_a_value_larger_than_any_of_mlflow_is_refused(store, monkeypatch):
    monkeypatch.setattr(mlflow_sql, "MAX_LENGTH", 5000)
    refused(store)


def test_a_store_that_becomes_unreadable_is_refused_as_changed(store):
    with (
        pytest.raises(SourceError, match="changed"),
        MlflowImporter().open(store, experiment=MAIN, artefacts=None) as session,
    ):
        for _ in session:
            store.write_bytes(store.read_bytes()[:4096] + bytes(store.stat().st_size - 4096))


# --- fuzz -------------------------------------------------------------------------------------------------------------

DATABASE = (FIXTURES / "store.db").read_bytes()


def survives(data: bytes, folder: Path) -> None:
    """Reading ``data`` as a store gives runs or a :class:`SourceError`, and nothing else."""
    store = folder / "store.db"
    store.write_bytes(data)
    importer = MlflowImporter()
    importer.detect(folder)
    for experiment in (MAIN, None):
        try:
            with importer.open(
                store, experiment=experiment, artefacts=None, confined=True
            ) as session:
                list(session)
        except SourceError:
            continue


@FUZZ
@given(
    st.lists(
        st.tuples(st.integers(0, len(DATABASE) - 1), st.integers(0, 255)), min_size=1, max_size=40
    )
)
def test_flipped_bytes_never_end_in_another_error(tmp_path, changes):
    data = bytearray(DATABASE)
    for place, byte in changes:
        data[place] = byte
    survives(bytes(data), tmp_path)


@FUZZ
@given(st.integers(0, len(DATABASE) // 512 - 1), st.binary(min_size=1, max_size=512))
def test_overwritten_pages_never_end_in_another_error(tmp_path, page, content):
    data = bytearray(DATABASE)
    data[page * 512 : page * 512 + len(content)] = content
    survives(bytes(data), tmp_path)


@FUZZ
@given(st.integers(0, len(DATABASE)))
def test_a_cut_store_never_ends_in_another_error(tmp_path, length):
    survives(DATABASE[:length], tmp_path)


@FUZZ
@given(st.integers(0, 4096), st.binary(min_size=1, max_size=64))
def test_a_damaged_schema_never_ends_in_another_error(tmp_path, place, content):
    data = bytearray(DATABASE)
    data[place : place + len(content)] = content
    survives(bytes(data), tmp_path)


@FUZZ
@given(st.binary(max_size=4096))
def test_a_forged_log_never_ends_in_another_error(tmp_path, log):
    (tmp_path / "store.db-wal").write_bytes(b"\x37\x7f\x06\x82" + log)
    survives(DATABASE, tmp_path)
