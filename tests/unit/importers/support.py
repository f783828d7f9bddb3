"""Copies of the fixture stores that real MLflow made, small stores made by hand, and a server that answers like MLflow."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from bundler.errors import SourceError
from bundler.importers.mlflow import MlflowImporter
from bundler.importers.model import ImportedRun, Store

FIXTURES = Path(__file__).parents[2] / "fixtures" / "mlflow"
EXAMPLE = Path(__file__).parents[3] / "example_bundle" / "credit_scoring"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
MAIN = "Grüße/crédit"
STORE_OF = {"sqlite": "store.db", "files": "mlruns"}


def copy_of(kind: str, target: Path) -> Path:
    """A copy of one fixture store, with its artefacts, in ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    if kind == "sqlite":
        shutil.copy(FIXTURES / "store.db", target)
        shutil.copytree(FIXTURES / "mlartifacts", target / "mlartifacts", dirs_exist_ok=True)
    else:
        shutil.copytree(FIXTURES / "mlruns", target / "mlruns", dirs_exist_ok=True)
    return target / STORE_OF[kind]


def read(
    store: Store, experiment: str | None = MAIN, artefacts: Path | None = None, **more: Any
) -> list[ImportedRun]:
    """All runs of an experiment."""
    with MlflowImporter().open(
        store, experiment=experiment, artefacts=artefacts, **more
    ) as session:
        runs = list(session)
        assert len(session) == len(runs)
    return runs


def named(store: Store, name: str, **more: Any) -> ImportedRun:
    """The run called ``name``."""
    (run,) = [each for each in read(store, **more) if each.name == name]
    return run


def refused(store: Store, match: str, experiment: str | None = MAIN) -> SourceError:
    """Reading ``store`` is refused with a remedy, in words that cannot steer a terminal."""
    with pytest.raises(SourceError, match=match) as error:
        read(store, experiment)
    assert error.value.remedy
    assert (error.value.message + error.value.remedy).isprintable()
    return error.value


def flags(run: ImportedRun) -> set[tuple[str, str]]:
    """Field and flag of all the fidelity flags of a run."""
    return {(each.field, each.flag) for each in run.fidelity}


def execute(store: Path, *statements: str) -> None:
    """Change a SQLite store, also against its own rules."""
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA ignore_check_constraints=ON")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def state(folder: Path) -> dict[str, tuple[int, int, str]]:
    """``folder`` and everything below it: size, time of change, digest."""
    found = {}
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (status.st_size, status.st_mtime_ns, digest)
    return found


def make_run(store: Path, experiment: str = "1", run: str = "a" * 32, **meta: str) -> Path:
    """A run of a file store made by hand, with its experiment; returns its folder."""
    described = store / experiment / "meta.yaml"
    if not described.exists():
        write(described, f"experiment_id: '{experiment}'\nname: hand\nlifecycle_stage: active\n")
    folder = store / experiment / run
    (folder / "metrics").mkdir(parents=True)
    lines = {
        "run_id": run,
        "status": "3",
        "start_time": "1000",
        "lifecycle_stage": "active",
        **meta,
    }
    write(folder / "meta.yaml", "".join(f"{key}: {value}\n" for key, value in lines.items()))
    return folder


def write(file: Path, text: str | bytes) -> Path:
    """Write a file and the folders that it needs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


# --- a server ---------------------------------------------------------------------------------------------------------

Reply = tuple[int, bytes] | tuple[int, bytes, dict[str, str]]
"""Status, body and headers of an answer."""

BULK = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
SINGLE = "/api/2.0/mlflow/metrics/get-history"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
VERSION = "/version"


class FakeMlflow:
    """Answers the questions that the importer asks, as mlflow 3.17.2 does; what it holds can be changed at will."""

    def __init__(self) -> None:
        self.experiments = [{"experiment_id": "1", "name": MAIN, "lifecycle_stage": "active"}]
        self.runs: list[dict[str, Any]] = []
        self.points: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.models: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.full = 25_000
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.instead: dict[str, Callable[[dict[str, Any]], Reply]] = {}

    def run(self, run: str, *, start: int | None = 1000, **metrics: list[float]) -> dict[str, Any]:
        """Add a run with one point a second of each metric."""
        latest = []
        for name, values in metrics.items():
            self.points[run, name] = made = [
                {"key": name, "value": value, "timestamp": 1000 * step, "step": step}
                for step, value in enumerate(values)
            ]
            latest.append(made[-1])
        info = {
            "run_id": run,
            "run_name": run,
            "status": "FINISHED",
            "lifecycle_stage": "active",
            "artifact_uri": f"mlflow-artifacts:/1/{run}/artifacts",
        }
        if start is not None:
            info["start_time"] = start
        self.runs.append({"info": info, "data": {"metrics": latest}, "inputs": {}, "outputs": {}})
        return self.runs[-1]

    def answer(self, path: str, question: dict[str, Any]) -> Reply:  # noqa: PLR0911  # one a question
        """What the server says to a question."""
        self.asked.append((path, question))
        if path in self.instead:
            return self.instead[path](question)
        if path == VERSION:
            return 200, b"3.17.2"
        if path.endswith("/experiments/search"):
            return self._page("experiments", self.experiments, question)
        if path.endswith("/runs/search"):
            chosen = [
                each
                for each in self.runs
                if (each["info"] or {}).get("experiment_id", "1") in question["experiment_ids"]
            ]
            return self._page("runs", chosen, question)
        if path.endswith("/logged-models/search"):
            return self._page("models", self.models, question)
        if path.endswith(BULK):
            return self._bulk(question)
        if path.endswith(SINGLE):
            points = self.points.get((question["run_id"], question["metric_key"]), [])
            return self._page("metrics", points, question)
        if path.startswith(FILES):
            return self._file(path, question)
        return 404, b"<html>Not Found</html>"

    @staticmethod
    def _page(key: str, items: list[Any], question: dict[str, Any]) -> Reply:
        start, size = int(question.get("page_token", 0)), int(question["max_results"])
        answer: dict[str, Any] = {key: items[start : start + size]}
        if start + size < len(items):
            answer["next_page_token"] = str(start + size)
        return 200, json.dumps(answer).encode()

    def _bulk(self, question: dict[str, Any]) -> Reply:
        runs = sorted(question["run_id"].split(","))
        assert len(runs) <= 100
        found = [
            {**point, "run_id": run}
            for run in runs
            for point in self.points.get((run, question["metric_key"]), [])
        ]
        most = min(self.full, int(question["max_results"]))
        return 200, json.dumps({"metrics": found[:most]}).encode()

    def _file(self, path: str, question: dict[str, Any]) -> Reply:
        if path != FILES:
            name = path.removeprefix(f"{FILES}/")
            return (200, self.files[name]) if name in self.files else (404, b"{}")
        below = [
            name.removeprefix(f"{question['path']}/")
            for name in self.files
            if name.startswith(f"{question['path']}/")
        ]
        names = sorted({(name.split("/")[0], "/" in name) for name in below})
        return 200, json.dumps({"files": [{"path": n, "is_dir": d} for n, d in names]}).encode()


@contextmanager
def served(answer: Callable[[str, dict[str, Any]], Reply]) -> Iterator[str]:
    """A loopback server that gives the answers of ``answer``; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body go out together: else each answer waits for the client's acknowledgement.
        wbufsize = -1

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            question: dict[str, Any] = {}
            for key, value in parse_qsl(parts.query):
                question[key] = f"{question[key]},{value}" if key in question else value
            self._send(answer(unquote(parts.path), {**question, "headers": dict(self.headers)}))

        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(answer(urlsplit(self.path).path, question))

        def _send(self, reply: Reply) -> None:
            status, body, headers = (*reply, {})[:3]
            self.send_response(status)
            headers = {
                "Content-Length": str(len(body)),
                "Content-Type": "application/json",
                **headers,
            }
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
