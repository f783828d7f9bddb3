"""Peak memory and time of ``build-bundle`` and ``verify-bundle`` over many runs.

    .venv/bin/python benchmarks/build_memory.py [--runs N ...]

The store has MLflow's own schema (that of the test fixture) and rows as MLflow stores them: 10 metrics of 100 steps, 12
parameters, 8 tags a run. Each command runs in a process of its own, whose peak resident memory the system reports.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from results import table, write

ROOT = Path(__file__).parents[1]
FIXTURE = ROOT / "tests" / "fixtures" / "mlflow" / "store.db"
LIMIT_MB = 1000
METRICS, STEPS = 10, 100
START = 1_760_000_000_000

CONFIG = """\
version: 1
system: {name: bench, version: "1", provider: p, intended_purpose: p}
sources: [{tracker: mlflow, store: store.db, experiment: bench}]
facts:
  data_sha256: tags.data.sha256
  metrics: {hold-out: ["m9"], validation: ["m8"], training: ["m*"]}
selection: {run: run-000000, metric: m8, direction: minimise, rationale: r}
reproducibility: {level: statistical}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[1000, 10_000])
    options = parser.parse_args()
    rows, figures = [], {}
    for runs in options.runs:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            fill(folder / "store.db", runs)
            (folder / "bundle.yaml").write_text(CONFIG)
            run(["bundler", "keygen", "-o", str(folder / "keys")])
            config, bundle = str(folder / "bundle.yaml"), str(folder / "b")
            key = str(folder / "keys" / "key.pem")
            built = run(["build-bundle", config, "-o", bundle, "--key", key])
            trust = str(folder / "keys" / "trust.pem")
            verified = run(["verify-bundle", bundle, "--trust", trust])
        figures[str(runs)] = {"build": built, "verify": verified}
        for what, figure in (("build", built), ("verify", verified)):
            rows.append(
                [f"{what}, {runs:,} runs", f"{figure['seconds']:.1f} s", f"{figure['mb']:.0f} MB"]
            )
    table(["", "time", "peak memory"], rows)
    most = max(each["mb"] for figure in figures.values() for each in figure.values())
    print(f"limit {LIMIT_MB} MB: {'met' if most < LIMIT_MB else 'missed'}")
    write("build_memory", figures)


def fill(store: Path, runs: int) -> None:
    """Write a store with one experiment of ``runs`` runs."""
    shutil.copy(FIXTURE, store)
    database = sqlite3.connect(store)
    database.execute("PRAGMA synchronous=OFF")
    for name in ("metrics", "latest_metrics", "params", "tags", "inputs", "logged_models", "runs"):
        database.execute(f"DELETE FROM {name}")
    database.execute("INSERT INTO experiments (experiment_id, name) VALUES (77, 'bench')")
    with database:
        for number in range(runs):
            run_id, start = f"run-{number:06}", START + number * 60_000
            database.execute(
                "INSERT INTO runs (run_uuid, name, experiment_id, status, start_time, end_time, lifecycle_stage,"
                " artifact_uri) VALUES (?, ?, 77, 'FINISHED', ?, ?, 'active', ?)",
                (run_id, run_id, start, start + 50_000, f"/absent/77/{run_id}/artifacts"),
            )
            parameters = [(f"p{i}", str(i + number % 7), run_id) for i in range(11)]
            database.executemany(
                "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)",
                [*parameters, ("seed", str(number), run_id)],
            )
            tags = [(f"t{i}", f"value {i}", run_id) for i in range(6)]
            tags += [
                ("data.sha256", "0" * 64, run_id),
                ("mlflow.source.git.commit", "1" * 40, run_id),
            ]
            database.executemany("INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", tags)
            database.executemany(
                "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, 0)",
                [
                    (f"m{m}", 1 / (s + 1) + m + number * 1e-6, start + s * 100, run_id, s)
                    for m in range(METRICS)
                    for s in range(STEPS)
                ],
            )
    database.close()


def run(command: list[str]) -> dict[str, Any]:
    """Run one of our commands; its time and its own peak memory."""
    program = str(Path(sys.executable).parent / command[0])
    begin = time.perf_counter()
    pid = os.posix_spawn(
        program, [program, *command[1:]], os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )  # fmt: skip
    _, status, usage = os.wait4(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in {0, 1, 6}:
        raise SystemExit(f"{command[0]} ended with {code}")
    return {"seconds": time.perf_counter() - begin, "mb": usage.ru_maxrss / 1024, "exit_code": code}


if __name__ == "__main__":
    main()
