"""Reading every run and metric point of a live MLflow server: our importer beside ``MlflowClient``, in turns.

    .venv/bin/python benchmarks/mlflow_rest.py [--python PYTHON] [--runs N] [--points N] [--rounds N] [--ours-only]

PYTHON can run ``mlflow server``; without it, ``build/bench/venv`` is made with mlflow 3.17.2. MLflow makes the schema,
the runs are inserted by SQL, and MLflow's own server answers on loopback with the four workers that it has by default.
Ours is one full pass over all runs with parameters, tags, points, flags and a look for artefacts; the client's is
``search_runs`` and ``get_metric_history`` for every metric of every run. Each pass is a process of its own, and the
digests of all points of both must be equal.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow_import import MLFLOW, PLACE, fill, made_environment, peak
from results import table, write

AIM = 4

CLIENT = """
import hashlib, json, sys, time
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient
client = MlflowClient(sys.argv[1])
begin = time.perf_counter()
experiment = client.get_experiment_by_name("bench").experiment_id
runs, token = [], None
while True:
    page = client.search_runs([experiment], run_view_type=ViewType.ALL, max_results=1000, page_token=token)
    runs += page
    token = page.token
    if not token:
        break
points = [
    (run.info.run_id, name, p.step, p.timestamp, repr(p.value))
    for run in runs
    for name in run.data.metrics
    for p in client.get_metric_history(run.info.run_id, name)
]
seconds = time.perf_counter() - begin
digest = hashlib.sha256(repr(sorted(points)).encode()).hexdigest()
print(json.dumps({"runs": len(runs), "points": len(points), "seconds": seconds, "digest": digest}))
"""


def main() -> None:
    options = arguments()
    PLACE.mkdir(parents=True, exist_ok=True)
    if options.pass_over:
        print(json.dumps(our_pass(options.pass_over, digest=not options.ours_only)))
        return
    python = str(options.python or made_environment())
    store = PLACE / f"mlflow-{options.runs}x{options.points}.db"
    if not store.exists():
        fill(store, python, options.runs, options.points)
    with server(python, store) as address:
        figures = measured(address, python, options)
    rows = [
        [
            name,
            f"{each['seconds']:.1f} s",
            f"{each['peak_rss_mb']:.0f} MB" if "peak_rss_mb" in each else "",
        ]
        for name, each in figures.items()
    ]
    table(["", "time", "peak memory"], rows)
    name = "mlflow_rest" if "client" in figures else f"mlflow_rest_{options.runs}_runs"
    summary: dict[str, Any] = {"mlflow": MLFLOW, "rounds": options.rounds, **figures}
    if "client" in figures:
        summary["ratio"] = figures["client"]["seconds"] / figures["ours"]["seconds"]
        met = "met" if summary["ratio"] >= AIM else "missed"
        print(f"ratio {summary['ratio']:.1f}; aim: at least {AIM}: {met}")
        print(f"the same in both: {figures['ours']['points']:,} points")
    write(name, summary)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Import over REST: ours beside MlflowClient.")
    parser.add_argument("--python", type=Path, help="a Python that can run mlflow server")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--points", type=int, default=100, help="points of each of the 10 metrics")
    parser.add_argument("--rounds", type=int, default=2, help="passes of each; the best counts")
    parser.add_argument("--ours-only", action="store_true", help="measure only our importer")
    parser.add_argument("--pass-over", help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(address: str, python: str, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The best pass of each, after a look whether both read the same."""
    ours = [sys.executable, __file__, "--pass-over", address]
    commands = {"ours": ours, "client": [python, "-c", CLIENT, address]}
    if options.ours_only:
        commands = {"ours": [*ours, "--ours-only"]}
    passes: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for _ in range(options.rounds):
        for name, command in commands.items():
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            passes[name].append(json.loads(done.stdout.splitlines()[-1]))
    if len({each.get("digest") for some in passes.values() for each in some}) != 1:
        raise SystemExit("ours and the client's are not the same")
    return {
        name: {
            **min(some, key=lambda each: each["seconds"]),
            "all_seconds": [each["seconds"] for each in some],
        }
        for name, some in passes.items()
    }


def our_pass(address: str, *, digest: bool) -> dict[str, Any]:
    from bundler.importers.mlflow import MlflowImporter

    before = peak()
    runs = count = 0
    tenth = 0.0
    kept: list[tuple[Any, ...]] = []
    begin = time.perf_counter()
    with MlflowImporter().open(address, experiment="bench", artefacts=None) as session:
        for run in session:
            runs += 1
            count += len(run.points)
            if digest:
                kept += lines(run.source.run_id, run.points)
            if runs == max(1, len(session) // 10):
                tenth = peak()
    seconds = time.perf_counter() - begin
    found = {"runs": runs, "points": count, "seconds": seconds}
    if digest:
        return found | {"digest": hashlib.sha256(repr(sorted(kept)).encode()).hexdigest()}
    return found | {
        "rss_before_mb": before,
        "peak_rss_after_a_tenth_mb": tenth,
        "peak_rss_mb": peak(),
    }


def lines(run: str, points: Iterable[Any]) -> list[tuple[Any, ...]]:
    return [(run, p.metric, p.step, p.timestamp, repr(p.value)) for p in points]


@contextmanager
def server(python: str, store: Path) -> Iterator[str]:
    """MLflow's own server over ``store``, on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    artefacts = PLACE / "mlartifacts"
    artefacts.mkdir(exist_ok=True)
    command = [
        python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "4",
        "--backend-store-uri", f"sqlite:///{store}", "--artifacts-destination", str(artefacts),
    ]  # fmt: skip
    environment = os.environ | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    log = (PLACE / "server.log").open("w")
    process = subprocess.Popen(
        command, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        log.close()


if __name__ == "__main__":
    main()
