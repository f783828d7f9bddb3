"""A real MLflow server, and a real PostgreSQL with MLflow's own tables: what they give is what lies in the file.

The server's Python is that of ``MLFLOW_SERVER_PYTHON``, else ``build/mlflow-server-venv``, else this one, if it has what
``mlflow server`` needs. Without any, these tests are left out, except under CI, where that is an error.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from bundler.errors import SourceError
from bundler.importers.mlflow import MlflowImporter
from bundler.importers.mlflow import alchemy as mlflow_alchemy
from bundler.importers.mlflow import history as mlflow_history
from bundler.importers.model import ImportedRun
from tests.unit.importers.support import (
    BULK,
    EXAMPLE,
    EXPECTED,
    MAIN,
    SINGLE,
    copy_of,
    flags,
    read,
    refused,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("mlflow-server")]

ROOT = Path(__file__).parents[3]
NEEDED = (
    "mlflow",
    "flask",
    "flask_cors",
    "fastapi",
    "uvicorn",
    "sqlalchemy",
    "alembic",
    "graphene",
    "aiohttp",
    "pandas",
)
START = 1_760_000_000_000
LONG = 26_000
MANY, EACH = 130, 260


def absent(what: str) -> None:
    """Leave out, or under CI fail: a test that is always left out proves nothing."""
    if os.environ.get("CI"):
        pytest.fail(f"CI has to provide {what}")
    pytest.skip(f"{what} is not here")


@pytest.fixture(scope="module")
def python() -> str:
    """A Python that can run ``mlflow server``."""
    named = os.environ.get("MLFLOW_SERVER_PYTHON") or ROOT / "build/mlflow-server-venv/bin/python"
    if Path(named).exists():
        return str(named)
    if not all(map(find_spec, NEEDED)):
        absent("what `mlflow server` needs")
    return sys.executable


def quiet() -> dict[str, str]:
    names = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return {
        key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")
    } | names


def insert(
    database: sqlite3.Connection, run: str, start: int, points: list[tuple[int, float]]
) -> None:
    """A run of experiment 99 with one metric, as MLflow would have left it."""
    database.execute(
        "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, source_version, status,"
        " start_time, end_time, lifecycle_stage, artifact_uri, experiment_id)"
        " VALUES (?, ?, 'UNKNOWN', '', '', '', '', 'FINISHED', ?, ?, 'active', ?, 99)",
        (run, run, start, start + 1, f"mlflow-artifacts:/99/{run}/artifacts"),
    )
    rows = [("loss", step, START + step, value, run) for step, value in points]
    columns = "(key, step, timestamp, value, run_uuid, is_nan) VALUES (?, ?, ?, ?, ?, 0)"
    database.executemany(f"INSERT INTO metrics {columns}", rows)
    database.execute(f"INSERT INTO latest_metrics {columns}", rows[-1])


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """The fixture's store, with an experiment beyond what one answer of a server holds."""
    store = copy_of("sqlite", tmp_path_factory.mktemp("live"))
    with closing(sqlite3.connect(store, uri=True)) as database:
        database.execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, workspace)"
            " VALUES (99, 'large', 'mlflow-artifacts:/99', 'active', 'default')"
        )
        insert(database, "f" * 32, START, [(step, 1 / (step + 1)) for step in range(LONG)])
        for number in range(MANY):
            values = [(step, math.sin(step + number)) for step in range(EACH)]
            insert(database, f"{number:032x}", START + 1 + number % 7, values)
        with_example(database)
        database.commit()
    shutil.copytree(EXAMPLE / "mlartifacts", store.parent / "mlartifacts", dirs_exist_ok=True)
    return store


def with_example(database: sqlite3.Connection) -> None:
    """Add the runs of the committed example, as experiment 50."""
    database.execute("ATTACH ? AS example", (f"file:{EXAMPLE / 'mlflow.db'}?mode=ro&immutable=1",))
    for table in (
        "experiments",
        "runs",
        "params",
        "tags",
        "metrics",
        "latest_metrics",
        "datasets",
        "inputs",
        "input_tags",
    ):
        columns = [
            name for (name,) in database.execute("SELECT name FROM pragma_table_info(?)", (table,))
        ]
        chosen = ["50" if name == "experiment_id" else name for name in columns]
        where = " WHERE name = 'credit-scoring'" if table == "experiments" else ""
        database.execute(
            f"INSERT INTO main.{table} ({', '.join(columns)}) SELECT {', '.join(chosen)} FROM example.{table}{where}"
        )


@pytest.fixture(scope="module")
def address(python, store) -> Iterator[str]:
    """MLflow's server over ``store``, on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{store}", "--artifacts-destination", str(store.parent / "mlartifacts"),
    ]  # fmt: skip
    log = store.parent / "server.log"
    with log.open("w") as output:
        # A group of its own: the server's workers are to end with it.
        process = subprocess.Popen(
            command,
            cwd=store.parent,
            env=quiet(),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()[-3000:]
                time.sleep(0.1)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def ask(address: str, path: str, **query: Any) -> bytes:
    with urllib.request.urlopen(
        f"{address}{path}?{urlencode(query, doseq=True)}", timeout=30
    ) as answer:
        return answer.read()


def runs_and_bytes(
    place: Any, experiment: str, artefacts: Path | None = None
) -> list[tuple[ImportedRun, Any]]:
    """Runs as far as sources can be compared: the order of logging is known to SQLite's own reader only."""
    found = []
    with MlflowImporter().open(place, experiment=experiment, artefacts=artefacts) as session:
        for run in session:
            points = sorted(
                run.points,
                key=lambda p: (p.metric, p.timestamp, p.step, not math.isnan(p.value), p.value),
            )
            files = [(each.path, each.file.read_bytes()) for each in run.artefacts]
            kept = [each for each in run.fidelity if each.flag not in ONLY_OF_ONE_SOURCE]
            source = replace(run.source, store="")
            bare = replace(
                run, points=tuple(points), artefacts=(), fidelity=tuple(kept), source=source
            )
            found.append((repr(bare), files))
    return found


ONLY_OF_ONE_SOURCE = {
    "order_unknown",  # only SQLite's file tells the order of logging
    "models_not_listed",  # MLflow's server hides the models of a deleted experiment
    "artefacts_unreachable",  # the server says of an experiment without a folder that it has no files
}


# --- the server -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "experiment", [MAIN, "second", "dropped", "Default", "large", "credit-scoring"]
)
def test_the_server_gives_every_run_as_its_database_has_it(address, store, experiment):
    assert runs_and_bytes(address, experiment) == runs_and_bytes(store, experiment)


def test_the_server_gives_what_mlflows_client_reads_from_it(address):
    expected = EXPECTED["sqlite"]
    for name in (each["name"] for each in expected["experiments"].values()):
        with MlflowImporter().open(address, experiment=name, artefacts=None) as session:
            for run in session:
                client = expected["runs"][run.source.run_id]
                assert (run.name, run.status, run.started, run.ended) == (
                    client["name"], client["status"].lower(), client["start"], client["end"],
                )  # fmt: skip
                assert dict(run.parameters) == client["parameters"]
                assert run.tags.items() <= client["tags"].items()
                points = [
                    (name, time, step, repr(math.copysign(math.inf, value) if abs(value) == sys.float_info.max else value))
                    for name, series in client["metrics"].items()
                    for time, step, text in series
                    for value in [float(text)]
                ]  # fmt: skip
                assert sorted(
                    (p.metric, p.timestamp, p.step, repr(p.value)) for p in run.points
                ) == sorted(points)
                assert sorted(
                    (d.name, d.tracker_digest, d.role, d.rows) for d in run.data if d.role
                ) == sorted(
                    (d["name"], d["digest"], d["role"], d["rows"])
                    for d in client["datasets"]
                    if d["role"]
                )
                sizes = [[each.path, each.file.stat().st_size] for each in run.artefacts]
                assert sorted(sizes) == sorted([path, size or 0] for path, size in client["files"])


def test_what_the_server_does_not_show_is_flagged(address):
    runs = {run.name: run for name in (MAIN, "dropped") for run in read(address, name)}
    assert ("metrics.same place", "order_unknown") in flags(runs["values"])
    assert flags(runs["files"]) == set()
    assert flags(runs["in dropped"]) == {("artefacts", "models_not_listed")}


def test_the_bulk_endpoint_cuts_in_silence_and_refuses_more_than_100_runs(address):
    """Why mlflow_history.py is what it is; a server that changes this shows up here."""
    runs = [f"{number:032x}" for number in range(100)]
    answer = json.loads(ask(address, BULK, metric_key="loss", run_id=runs, max_results=100_000))
    assert len(answer["metrics"]) == mlflow_history.FULL < 100 * EACH
    assert answer.keys() == {"metrics"}
    with pytest.raises(urllib.error.HTTPError, match="400"):
        ask(address, BULK, metric_key="loss", run_id=[*runs, "f" * 32])


def test_the_endpoints_spell_nan_in_two_ways_and_infinity_as_the_largest_number(address):
    (run,) = [run for run in read(address) if run.name == "values"]
    identity = run.source.run_id
    assert b'"value":NaN' in ask(address, BULK, metric_key="odd", run_id=identity)
    single = ask(address, SINGLE, metric_key="odd", run_id=identity)
    assert b'"value": "NaN"' in single
    assert b'"value": -1.7976931348623157e+308' in single
    assert [p.value for p in run.points if p.metric == "odd"][1:3] == [math.inf, -math.inf]


def test_without_the_bulk_endpoint_the_pages_give_the_same(address, monkeypatch):
    expected = [repr(run.points) for run in read(address)]
    monkeypatch.setattr(mlflow_history, "_BULK", "/ajax-api/2.0/mlflow/nowhere")
    monkeypatch.setattr(mlflow_history, "_PAGE", 7)
    assert [repr(run.points) for run in read(address)] == expected


def test_a_model_that_was_deleted_is_flagged_where_its_run_names_it(address, store):
    (run,) = [run for run in read(address) if run.name == "files"]
    model = next(each.path for each in run.artefacts if each.path.startswith("models/")).split("/")[
        1
    ]

    def tell(method: str, path: str, body: Any = None) -> None:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(
            f"{address}/api/2.0/mlflow/{path}",
            data,
            {"Content-Type": "application/json"},
            method=method,
        )
        urllib.request.urlopen(request, timeout=30).close()

    tell(
        "POST",
        "runs/outputs",
        {"run_id": run.source.run_id, "models": [{"model_id": model, "step": 0}]},
    )
    assert flags(next(each for each in read(address) if each.name == "files")) == set()
    tell("DELETE", f"logged-models/{model}")
    try:
        (run,) = [run for run in read(address) if run.name == "files"]
        assert [(each.flag, each.detail) for each in run.fidelity] == [
            ("model_not_listed", f"models/{model}")
        ]
    finally:
        with closing(sqlite3.connect(store)) as database:
            database.execute("UPDATE logged_models SET lifecycle_stage = 'active'")
            database.commit()


def test_another_server_of_http_is_none_of_mlflow(address):
    refused(f"{address}/static-files", "answers 40")


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def postgres_program(name: str) -> Path:
    """Debian keeps the programs of each version in a folder of its own, which is not on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if not found and not shutil.which(name):
        absent("PostgreSQL (Debian's package postgresql)")
    return found[-1] if found else Path(str(shutil.which(name)))


@pytest.fixture(scope="module")
def postgres(python, store) -> Iterator[str]:
    """The URL of a database with MLflow's tables and the rows of ``store``, reached by a socket in a folder."""
    # PostgreSQL refuses to run as root; its package brings the user.
    user: dict[str, Any] = (
        {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    )
    initdb, server = postgres_program("initdb"), postgres_program("postgres")
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as place:
        if user:
            shutil.chown(place, "postgres", "postgres")
        data = f"{place}/data"
        form = ["-A", "trust", "-U", "mlflow", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        subprocess.run(
            [initdb, "-D", data, *form], check=True, capture_output=True, cwd="/", **user
        )
        settings = ["-c", "listen_addresses=", "-c", "fsync=off", "-k", place]
        process = subprocess.Popen(
            [server, "-D", data, *settings],
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **user,
        )
        try:
            url = f"postgresql+psycopg://mlflow@/postgres?host={place}"
            filled(url, python, store)
            yield url
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


def filled(url: str, python: str, store: Path) -> None:
    """Let MLflow make its tables, and copy the rows of ``store`` into them."""
    import sqlalchemy as sa

    engine = sa.create_engine(url)
    for _ in range(200):
        try:
            engine.connect().close()
            break
        except sa.exc.OperationalError:
            time.sleep(0.05)
    command = [python, "-m", "mlflow", "db", "upgrade", url]
    subprocess.run(command, check=True, capture_output=True, env=quiet(), cwd=store.parent)
    tables = sa.MetaData()
    tables.reflect(engine)
    with closing(sqlite3.connect(store)) as source, engine.begin() as target:
        source.row_factory = sqlite3.Row
        for table in tables.sorted_tables:
            if table.name == "alembic_version":
                continue
            rows = [dict(row) for row in source.execute(f'SELECT * FROM "{table.name}"')]
            truths = [
                column.name for column in table.columns if isinstance(column.type, sa.Boolean)
            ]
            for row in rows:
                row |= {name: bool(row[name]) for name in truths}
                if table.name == "tags":
                    row["value"] = row["value"][
                        :8000
                    ]  # SQLite's file holds longer ones than the column allows
            target.execute(table.delete())
            if rows:
                target.execute(table.insert(), rows)
    engine.dispose()


@pytest.mark.parametrize(
    "experiment", [MAIN, "second", "dropped", "Default", "large", "credit-scoring"]
)
def test_postgresql_gives_every_run_as_the_file_has_it(postgres, store, experiment):
    artefacts = store.parent / "mlartifacts"
    ours = runs_and_bytes(postgres, experiment, artefacts)
    theirs = runs_and_bytes(store, experiment, artefacts)
    # Its column cuts what the file keeps: a tag of 9,000 characters.
    cut = [(text.replace("t" * 9000, "t" * 8000), files) for text, files in theirs]
    flag = "FidelityFlag(field='tags.whole', flag='truncated', detail='MLflow may have cut it at 8000 characters')"
    assert [(text.replace(f", {flag}", ""), files) for text, files in ours] == cut


def test_postgresql_is_read_in_a_transaction_that_cannot_write_and_sees_one_moment(postgres):
    import sqlalchemy as sa

    with (
        mlflow_alchemy.opened(postgres) as tables,
        pytest.raises(SourceError, match="read-only transaction"),
    ):
        list(tables.rows("DELETE FROM tags"))
    engine = sa.create_engine(postgres)
    with MlflowImporter().open(postgres, experiment="second", artefacts=None) as session:
        with engine.begin() as other:
            other.execute(sa.text("UPDATE runs SET name = 'changed' WHERE name = 'in second'"))
            other.execute(sa.text("DELETE FROM metrics WHERE key = 'linked'"))
        assert [run.name for run in session] == ["in second"]
        assert [len(run.points) for run in session] == [1]
    engine.dispose()


def test_postgresql_is_reached_by_its_plain_name_and_by_no_wrong_one(postgres):
    place = postgres.partition("host=")[2]
    assert MlflowImporter().experiments(f"postgresql://mlflow@/postgres?host={place}")[0] == "large"
    error = refused(
        f"postgresql+psycopg://mlflow:secret@/nowhere?host={place}",
        'database "nowhere" does not exist',
    )
    assert "secret" not in error.message + error.remedy


def test_a_long_history_comes_from_postgresql_in_pieces(postgres, monkeypatch):
    monkeypatch.setattr("bundler.importers.mlflow.database.AT_ONCE", 1000)
    runs = read(postgres, "large")
    assert [len(run.points) for run in runs if len(run.points) != EACH] == [LONG]
    assert all(run.source.store == "postgresql" for run in runs)
