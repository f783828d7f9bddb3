"""Reading every run and metric point of a SQLite store: our importer beside ``MlflowClient``.

    .venv/bin/python benchmarks/mlflow_import.py [--python PYTHON] [--runs N] [--points N] [--ours-only]

PYTHON has mlflow; without it, ``build/bench/venv`` is made with mlflow 3.17.2. MLflow makes the schema, the runs are
inserted by SQL, as MLflow stores them, into ``build/bench``. Ours is one full pass over all runs with parameters,
tags, points and flags, in a process of its own. The client's is ``search_runs`` and ``get_metric_history`` for every
metric of every run; where that would take more than four minutes, it is done for the first runs and the rest is
extrapolated, which the output then says. All points of the runs that the client read are compared.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from results import table, write

PLACE = Path(__file__).parents[1] / "build" / "bench"
MLFLOW = "3.17.2"
AIM = 20
BUDGET_SECONDS = 240
METRICS = 10
START = 1_760_000_000_000

SCHEMA = """
import sys
from mlflow.tracking import MlflowClient
MlflowClient("sqlite:///" + sys.argv[1]).create_experiment("bench", artifact_location="mlflow-artifacts:/1")
"""

CLIENT = """
import json, sys, time
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient
client = MlflowClient("sqlite:///" + sys.argv[1])
budget, kept = float(sys.argv[2]), {}
experiment = client.get_experiment_by_name("bench").experiment_id
begin = time.perf_counter()
runs, token = [], None
while True:
    page = client.search_runs([experiment], run_view_type=ViewType.ALL, max_results=1000, page_token=token)
    runs += page
    token = page.token
    if not token:
        break
searched = time.perf_counter() - begin
begin = time.perf_counter()
for run in runs:
    kept[run.info.run_id] = {
        name: [[p.step, p.timestamp, repr(p.value)] for p in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    if time.perf_counter() - begin > budget:
        break
history = time.perf_counter() - begin
print(json.dumps({"runs": len(runs), "search": searched, "history": history, "points": kept}))
"""


def main() -> None:
    options = arguments()
    PLACE.mkdir(parents=True, exist_ok=True)
    if options.pass_over:
        print(json.dumps(our_pass(options.pass_over)))
        return
    python = str(options.python or made_environment())
    store = PLACE / f"mlflow-{options.runs}x{options.points}.db"
    if not store.exists():
        fill(store, python, options.runs, options.points)
    ours = run_ours(store)
    total = ours["points"]
    print(f"store: {ours['runs']} runs, {total:,} points, {store.stat().st_size / 1e6:.0f} MB")
    figures: dict[str, Any] = {
        "mlflow": MLFLOW,
        "store_mb": store.stat().st_size / 1e6,
        "ours": ours,
    }
    rows = [["ours, full pass", f"{ours['seconds']:.1f} s", f"{ours['peak_rss_mb']:.0f} MB"]]
    if not options.ours_only:
        client = run_client(store, python)
        figures["client"] = client
        figures["ratio"] = client["seconds"] / ours["seconds"]
        how = "extrapolated from" if client["extrapolated"] else "measured over"
        rows.append(
            [f"MlflowClient, {how} {client['runs_read']} runs", f"{client['seconds']:.1f} s", ""]
        )
    table(["", "time", "peak memory"], rows)
    name = "mlflow_import"
    if options.ours_only:
        name = f"mlflow_import_{options.runs}_runs"
    else:
        met = "met" if figures["ratio"] >= AIM else "missed"
        print(f"ratio {figures['ratio']:.0f}; aim: at least {AIM}: {met}")
        print(f"the same in both: {figures['client']['points_compared']:,} points")
    write(name, figures)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Import 1,000 runs: ours beside MlflowClient.")
    parser.add_argument("--python", type=Path, help="a Python that has mlflow")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--points", type=int, default=100, help="points of each of the 10 metrics")
    parser.add_argument("--ours-only", action="store_true", help="measure only our importer")
    parser.add_argument("--pass-over", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def made_environment() -> Path:
    """A virtual environment with MLflow."""
    folder = PLACE / "venv"
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", f"mlflow=={MLFLOW}"]
        subprocess.run(pip, check=True)
        (folder / "made").touch()
    return python


def fill(store: Path, python: str, runs: int, points: int) -> None:
    """Write a store: MLflow's own schema, then rows as its client would have left them."""
    partial = store.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    subprocess.run([python, "-c", SCHEMA, str(partial)], check=True, capture_output=True)
    database = sqlite3.connect(partial)
    database.execute("PRAGMA synchronous=OFF")
    (experiment,) = database.execute(
        "SELECT experiment_id FROM experiments WHERE name='bench'"
    ).fetchone()
    with database:
        for number in range(runs):
            insert(database, experiment, number, points)
    database.execute("PRAGMA journal_mode=DELETE")
    database.close()
    partial.rename(store)


def insert(database: sqlite3.Connection, experiment: int, number: int, points: int) -> None:
    """One run with 10 parameters, 4 tags and 10 metrics."""
    run, start = f"{number:032x}", START + number * 1000
    uri = f"mlflow-artifacts:/{experiment}/{run}/artifacts"
    database.execute(
        "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id,"
        " source_version, status, start_time, end_time, lifecycle_stage, artifact_uri, experiment_id)"
        " VALUES (?, ?, 'UNKNOWN', '', '', 'bench', '', 'FINISHED', ?, ?, 'active', ?, ?)",
        (run, f"run {number}", start, start + 900, uri, experiment),
    )
    parameters = [(f"p{each}", str(each * number), run) for each in range(10)]
    database.executemany("INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)", parameters)
    tags = [("mlflow.runName", f"run {number}", run), ("mlflow.source.git.commit", "0" * 40, run)]
    tags += [("mlflow.user", "bench", run), ("mlflow.source.name", "train.py", run)]
    database.executemany("INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", tags)
    rows = list(values(run, start, points))
    columns = "(key, step, timestamp, value, run_uuid, is_nan)"
    marks = "VALUES (?, ?, ?, ?, ?, 0)"
    database.executemany(f"INSERT INTO metrics {columns} {marks}", rows)
    latest = rows[points - 1 :: points]
    database.executemany(f"INSERT INTO latest_metrics {columns} {marks}", latest)


def values(run: str, start: int, points: int) -> Iterator[tuple[str, int, int, float, str]]:
    for metric in range(METRICS):
        for step in range(points):
            value = math.sin(metric + step / 7) / (step + 1)
            yield f"metric_{metric}", step, start + step, value, run


def run_ours(store: Path) -> dict[str, Any]:
    """Our pass in a process of its own, so that its peak memory is its own: the best of three."""
    command = [sys.executable, __file__, "--pass-over", str(store)]
    passes = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(3)
    ]
    return {**passes[0], "seconds": min(each["seconds"] for each in passes), "passes": 3}


def our_pass(store: Path) -> dict[str, Any]:
    from bundler.importers.mlflow import MlflowImporter

    before = peak()
    begin = time.perf_counter()
    runs = points = 0
    tenth = 0.0
    with MlflowImporter().open(store, experiment="bench", artefacts=None) as session:
        for run in session:
            runs += 1
            points += len(run.points)
            if runs == max(1, len(session) // 10):
                tenth = peak()
    seconds = time.perf_counter() - begin
    return {
        "runs": runs,
        "points": points,
        "seconds": seconds,
        "rss_before_mb": before,
        "peak_rss_after_a_tenth_mb": tenth,
        "peak_rss_mb": peak(),
    }


def peak() -> float:
    """Peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_client(store: Path, python: str) -> dict[str, Any]:
    """The client's time, extrapolated where it would be too long, after comparing its points with ours."""
    command = [python, "-c", CLIENT, str(store), str(BUDGET_SECONDS)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    answer = json.loads(printed.splitlines()[-1])
    kept, runs = answer["points"], answer["runs"]
    return {
        "runs_read": len(kept),
        "extrapolated": len(kept) < runs,
        "search_runs_s": answer["search"],
        "get_metric_history_s": answer["history"],
        "seconds": answer["search"] + answer["history"] / len(kept) * runs,
        "points_compared": compared(store, kept),
    }


def compared(store: Path, kept: dict[str, dict[str, list[list[Any]]]]) -> int:
    """The number of points that were held against the client's. Ends if one is not the same."""
    from bundler.importers.mlflow import MlflowImporter

    count = 0
    with MlflowImporter().open(store, experiment="bench", artefacts=None) as session:
        for run in session:
            if run.source.run_id not in kept:
                continue
            mine = sorted((p.metric, p.step, p.timestamp, repr(p.value)) for p in run.points)
            history = kept[run.source.run_id]
            theirs = sorted((name, *point) for name, points in history.items() for point in points)
            if mine != theirs:
                raise SystemExit(f"run {run.source.run_id}: other points than the client's")
            count += len(mine)
    return count


if __name__ == "__main__":
    main()
