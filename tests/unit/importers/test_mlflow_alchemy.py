"""MLflow's SQL store through SQLAlchemy: the same runs as from the file, and errors that never hold a password."""

from __future__ import annotations

import builtins
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bundler.errors import SourceError
from bundler.importers import mlflow
from bundler.importers.mlflow import MlflowImporter
from bundler.importers.mlflow import alchemy as mlflow_alchemy
from bundler.importers.mlflow import database as mlflow_database
from tests.unit.importers.support import (
    FIXTURES,
    MAIN,
    copy_of,
    execute,
    flags,
    read,
    refused,
    state,
)

pytest.importorskip("sqlalchemy")


@pytest.fixture
def store(tmp_path) -> Path:
    return copy_of("sqlite", tmp_path / "store")


def address_of(store: Path) -> str:
    """The same file, through SQLAlchemy; see ``sqlite_as_a_server``."""
    return f"sqlite+pysqlite:///{store}"


@pytest.fixture(autouse=True)
def sqlite_as_a_server(monkeypatch):
    """SQLite stands for a database server, which the importer itself never lets it: it has a reader of its own."""
    real = mlflow._local

    def passed(store):
        return store if str(store).startswith("sqlite+pysqlite") else real(store)

    monkeypatch.setattr(mlflow, "_local", passed)
    monkeypatch.setattr(mlflow_alchemy, "_KINDS", {*mlflow_alchemy._KINDS, "sqlite"})


def without_order(run):
    """``run`` as a database without an order of logging shows it."""
    points = sorted(
        run.points, key=lambda p: (p.metric, p.timestamp, p.step, p.value == p.value, p.value)
    )
    kept = [each for each in run.fidelity if each.flag != "order_unknown"]
    source = replace(run.source, store="")
    return repr(replace(run, points=tuple(points), fidelity=tuple(kept), source=source))


@pytest.mark.parametrize("name", [MAIN, "second", "dropped", "Default"])
def test_every_run_is_that_of_the_file(store, name):
    artefacts = store.parent / "mlartifacts"
    through = read(address_of(store), name, artefacts=artefacts)
    assert [without_order(run) for run in through] == [
        without_order(run) for run in read(store, name, artefacts=artefacts)
    ]
    assert {run.source.store for run in through} <= {"sqlite"}


def test_values_of_one_moment_are_flagged(store):
    (run,) = [each for each in read(address_of(store)) if each.name == "values"]
    assert ("metrics.same place", "order_unknown") in flags(run)
    assert [p.value for p in run.points if p.metric == "same place"] == [1.0, 2.0, 3.0]


def test_experiments_are_listed(store):
    assert MlflowImporter().experiments(address_of(store)) == MlflowImporter().experiments(store)


def test_reading_changes_nothing_and_can_be_repeated(store):
    before = state(store.parent)
    with MlflowImporter().open(address_of(store), experiment=MAIN, artefacts=None) as session:
        assert repr(list(session)) == repr(list(session))
    assert state(store.parent) == before


def test_artefacts_lie_where_that_is_said_and_nowhere_else(store):
    (run,) = [each for each in read(address_of(store)) if each.name == "files"]
    assert run.artefacts == ()
    assert ("artefacts", "artefacts_unreachable") in flags(run)
    uri = (store.parent / "mlartifacts").as_uri()
    execute(store, f"UPDATE runs SET artifact_uri = '{uri}/1/' || run_uuid || '/artifacts'")
    (run,) = [each for each in read(address_of(store)) if each.name == "files"]
    assert run.artefacts == ()
    given = read(address_of(store), artefacts=store.parent / "mlartifacts")
    assert [len(each.artefacts) for each in given if each.name == "files"] == [6]
    # Runs that logged nothing have no folder, and miss none.
    assert {each.flag for run in given if run.name == "killed" for each in run.fidelity} == set()


@pytest.mark.parametrize("form", ["sqlite:///{}", "{}", "file://{}"])
def test_a_file_by_another_name_is_the_file(store, form):
    assert repr(read(form.format(store))) == repr(read(store))


def test_a_folder_by_another_name_is_the_folder():
    store = FIXTURES / "mlruns"
    assert repr(read(f"file://{store}")) == repr(read(store))


# --- what is no store -------------------------------------------------------------------------------------------------


def test_without_sqlalchemy_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name.partition(".")[0] == "sqlalchemy":
            raise ModuleNotFoundError("No module named 'sqlalchemy'", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    error = refused("postgresql://user:secret@host/db", "needs SQLAlchemy")
    assert error.remedy == "pip install 'aisdp-bundler[sql]'"


@pytest.mark.parametrize(
    ("address", "match", "remedy"),
    [
        ("mysql+nodriver://user:secret@host/db", "names no driver that SQLAlchemy has", "mysql+pymysql://"),
        ("mysql+asyncmy://user:secret@host/db", "needs the driver 'asyncmy'", "aisdp-bundler"),
        ("oracle://user:secret@host/db", "no store that MLflow writes", "postgresql"),
        ("s3://user:secret@host/db", "no store that MLflow writes", "postgresql"),
        ("databricks://profile", "no store that MLflow writes", "postgresql"),
        ("postgresql://user:secret@host:port/db", "no URL that SQLAlchemy", "%-escape"),
        ("postgresql+psycopg://user:secret@127.0.0.1:1/db", "'postgresql\\+psycopg://127.0.0.1:1/db' cannot be read", "client"),
        ("postgresql+psycopg://user:secret@127.0.0.1:1/db?hostaddr=1", "cannot be read", "client"),
    ],
)  # fmt: skip
def test_an_address_that_leads_nowhere_is_refused_without_its_password(address, match, remedy):
    error = refused(address, match)
    assert remedy in error.remedy
    assert "secret" not in error.message + error.remedy


def test_another_database_is_no_store(tmp_path):
    execute(tmp_path / "store.db", "CREATE TABLE t (x)")
    refused(address_of(tmp_path / "store.db"), "table experiments lacks experiment_id, name")


def test_an_unknown_experiment_is_refused_with_the_known_ones(store):
    assert MAIN in refused(address_of(store), "has no experiment 'nope'", "nope").remedy


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE metrics SET value = 'text' WHERE key = 'loss'",
        "UPDATE metrics SET step = 1.5 WHERE key = 'loss'",
        "UPDATE metrics SET step = 9007199254740993 WHERE key = 'loss'",
        "UPDATE metrics SET key = x'ff' WHERE key = 'loss'",
        "UPDATE runs SET start_time = 'yesterday'",
        "UPDATE params SET value = x'00' WHERE key = 'rate'",
    ],
)
def test_a_value_of_the_wrong_type_is_refused(store, change):
    execute(store, change)
    assert "Look at the row" in refused(address_of(store), "wrong type").remedy


def test_a_nan_of_the_databases_own_is_one():
    from bundler.importers.mlflow.values import stored_points

    (point,) = stored_points([("loss", 0, 0, float("nan"), False)], lambda *_: None)
    assert point.value != point.value
    with pytest.raises(TypeError):
        stored_points([("loss", 0, 0, "1.5", False)], lambda *_: None)


def test_too_many_rows_are_refused(store, monkeypatch):
    monkeypatch.setattr(mlflow_database, "MAX_ROWS", 20)
    refused(address_of(store), "more memory or time")


def test_too_much_text_is_refused(store, monkeypatch):
    monkeypatch.setattr(mlflow_database, "MAX_TEXT", 20)
    refused(address_of(store), "more memory or time")


def test_a_row_that_is_gone_meanwhile_is_refused(store):
    with (
        pytest.raises(SourceError, match="0 rows instead of one"),
        MlflowImporter().open(address_of(store), experiment=MAIN, artefacts=None) as session,
    ):
        for _ in session:
            execute(store, "DELETE FROM runs")


def test_an_error_of_the_caller_stays_what_it_is(store):
    with (
        pytest.raises(OSError, match="disk is full"),
        MlflowImporter().open(address_of(store), experiment=MAIN, artefacts=None) as session,
    ):
        next(iter(session))
        raise OSError(28, "disk is full")


def test_a_type_without_a_name_is_no_type():
    class Odd:
        def __str__(self) -> str:
            raise NotImplementedError

    assert mlflow_alchemy._declared(Odd()) == ""


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_the_transaction_of_a_server_is_read_only(kind):
    """What is said to the database, without one: real ones are asked in test_mlflow_live.py."""
    said = []

    class Connection:
        class dialect:  # noqa: N801  # as SQLAlchemy calls it
            name = kind

        def execution_options(self, **options):
            said.append(options)
            return self

        def exec_driver_sql(self, statement):
            said.append(statement)

    mlflow_alchemy._read_only(Connection())
    assert re.search("READ ONLY|readonly", str(said))
    assert "REPEATABLE READ" in str(said)
