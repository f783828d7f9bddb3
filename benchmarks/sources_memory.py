"""Peak memory of every importer of files over many runs: whether it is flat in their number.

    .venv/bin/python benchmarks/sources_memory.py [--runs FEW MANY] [--only TRACKER ...]

Each run has 1,000 points: 10 metrics of 100 steps. The stores are written in the tools' formats (MLflow's stores, W&B's
logs and experiment logs have benchmarks or tests of their own) and read in a process of their own, twice: with few runs
and with many.
"""

from __future__ import annotations

import argparse
import json
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from results import table, write

sys.path.insert(0, str(Path(__file__).parents[1]))

LIMIT_MB = 1000
METRICS, STEPS = 10, 100
START = 1_760_000_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs=2, default=[1000, 10_000])
    parser.add_argument("--only", nargs="+", default=list(MAKERS))
    parser.add_argument("--pass-over", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pass_over:
        print(json.dumps(pass_over(*options.pass_over)))
        return
    rows, figures = [], {}
    for tracker in options.only:
        found = []
        for runs in options.runs:
            with tempfile.TemporaryDirectory() as name:
                store = MAKERS[tracker](Path(name), runs)
                command = [sys.executable, __file__, "--pass-over", tracker, str(store)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(json.loads(done.stdout))
            print(tracker, found[-1], file=sys.stderr, flush=True)
        figures[tracker] = {str(each["runs"]): each for each in found}
        few, many = found
        rows.append(
            [tracker, f"{few['mb']:.0f} MB", f"{many['mb']:.0f} MB", f"{many['seconds']:.0f} s"]
        )
    head = ["", *(f"{runs:,} runs" for runs in options.runs), "time"]
    table(head, rows)
    most = max(each["mb"] for found in figures.values() for each in found.values())
    print(f"limit {LIMIT_MB} MB: {'met' if most < LIMIT_MB else 'missed'}")
    if options.only == list(MAKERS):
        write("sources_memory", figures)


def pass_over(tracker: str, store: str) -> dict[str, Any]:
    from bundler import importers

    begin = time.perf_counter()
    runs = points = 0
    importer = importers.find(tracker)
    with importer.open(Path(store), experiment=None, artefacts=None) as session:
        for run in session:
            runs += 1
            points += len(run.points)
    # Not ru_maxrss of this process: it begins with what the one that started it had.
    status = Path("/proc/self/status").read_text()
    own = int(status.partition("VmHWM:")[2].split()[0])
    helpers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {
        "runs": runs,
        "points": points,
        "seconds": time.perf_counter() - begin,
        "mb": max(own, helpers) / 1024,
    }


def value(metric: int, step: int, run: int) -> float:
    return 1 / (step + 1) + metric + run * 1e-6


def clearml(folder: Path, runs: int) -> Path:
    for run in range(runs):
        identity = f"offline-{run:032x}"
        place = folder / "store" / identity
        place.mkdir(parents=True)
        task = {
            "id": identity, "name": f"run {run}", "project_name": "bench", "type": "training",
            "hyperparams": {"Args": {"seed": {"section": "Args", "name": "seed", "value": str(run), "type": "int"}}},
        }  # fmt: skip
        (place / "task.json").write_text(json.dumps(task))
        lines = [
            [
                {
                    "timestamp": START + run * 1000 + step, "type": "training_stats_scalar", "task": identity,
                    "iter": step, "metric": f"m{metric}", "variant": "v", "value": value(metric, step, run),
                }
                for metric in range(METRICS)
            ]
            for step in range(STEPS)
        ]  # fmt: skip
        (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "store"


def comet(folder: Path, runs: int) -> Path:
    (folder / "store").mkdir()
    for run in range(runs):
        key, start = f"{run:032x}", START + run * 1000
        described = {
            "offline_id": key, "project_name": "bench", "workspace": "w", "start_time": start,
            "stop_time": start + 900, "tags": [], "resume_strategy": "create",
        }  # fmt: skip
        messages = [
            {
                "payload": {
                    "local_timestamp": start + step, "message_id": step * METRICS + metric,
                    "metric": {"metricName": f"m{metric}", "metricValue": value(metric, step, run), "step": step,
                               "epoch": None},
                },
                "type": "metric_msg",
            }
            for step in range(STEPS)
            for metric in range(METRICS)
        ]  # fmt: skip
        with zipfile.ZipFile(folder / "store" / f"{key}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("experiment.json", json.dumps(described))
            archive.writestr("messages.json", "".join(json.dumps(each) + "\n" for each in messages))
    return folder / "store"


def dvclive(folder: Path, runs: int) -> Path:
    for run in range(runs):
        place = folder / "store" / f"run-{run:06}"
        (place / "plots" / "metrics").mkdir(parents=True)
        (place / "params.yaml").write_text(f"seed: {run}\n")
        finals = {f"m{metric}": value(metric, STEPS - 1, run) for metric in range(METRICS)}
        (place / "metrics.json").write_text(json.dumps({**finals, "step": STEPS - 1}))
        for metric in range(METRICS):
            lines = "".join(f"{step}\t{value(metric, step, run)}\n" for step in range(STEPS))
            (place / "plots" / "metrics" / f"m{metric}.tsv").write_text(f"step\tm{metric}\n{lines}")
    return folder / "store"


def neptune(folder: Path, runs: int) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tests.fixtures.make.neptune_export import SCHEMA

    place = folder / "store" / "data" / "bench"
    place.mkdir(parents=True)
    count = METRICS * STEPS
    empty = {
        field.name: pa.nulls(count, field.type)
        for field in SCHEMA
        if field.name.endswith("_value") and field.name != "float_value"
    }
    steps = pa.array([step for _ in range(METRICS) for step in range(STEPS)], pa.int32())
    for run in range(runs):
        columns = {
            "project_id": pa.array(["bench"] * count),
            "run_id": pa.array([f"B-{run}"] * count),
            "attribute_path": pa.array(
                [f"m{metric}" for metric in range(METRICS) for _ in range(STEPS)]
            ),
            "attribute_type": pa.array(["float_series"] * count),
            "step": steps.cast(pa.decimal128(18, 6)),
            "timestamp": pa.array(
                [START + run * 1000 + step for _ in range(METRICS) for step in range(STEPS)]
            ).cast(SCHEMA.field("timestamp").type),
            "float_value": pa.array(
                [value(metric, step, run) for metric in range(METRICS) for step in range(STEPS)]
            ),
            **empty,
        }
        rows = pa.table([columns[field.name] for field in SCHEMA], schema=SCHEMA)
        pq.write_table(rows, place / f"B-{run}_part_0.parquet")
    return folder / "store"


def tensorboard(folder: Path, runs: int) -> Path:
    from bundler.importers.tensorboard.framing import masked_crc32c

    def framed(event: bytes) -> bytes:
        length = struct.pack("<Q", len(event))
        crcs = [struct.pack("<I", masked_crc32c(part)) for part in (length, event)]
        return length + crcs[0] + event + crcs[1]

    def event(metric: int, step: int) -> bytes:
        # Summary.Value: tag = 1, simple_value = 2. Event: wall_time = 1, step = 2, summary = 5.
        inner = (
            b"\x0a\x02"
            + f"m{metric}".encode()
            + b"\x15"
            + struct.pack("<f", value(metric, step, 0))
        )
        summary = b"\x0a" + bytes([len(inner)]) + inner
        head = b"\x09" + struct.pack("<d", START / 1000 + step) + b"\x10" + bytes([step])
        return head + b"\x2a" + bytes([len(summary)]) + summary

    version = b"\x09" + struct.pack("<d", START / 1000) + b"\x1a\x0dbrain.Event:2"
    whole = framed(version) + b"".join(
        framed(event(metric, step)) for step in range(STEPS) for metric in range(METRICS)
    )
    for run in range(runs):
        place = folder / "store" / f"run-{run:06}"
        place.mkdir(parents=True)
        (place / "events.out.tfevents.1760000000.bench.1.0").write_bytes(whole)
    return folder / "store"


def trainer_state(folder: Path, runs: int) -> Path:
    for run in range(runs):
        place = folder / "store" / f"run-{run:06}"
        place.mkdir(parents=True)
        history = [
            {"epoch": step / 10, "step": step + 1}
            | {f"m{metric}": value(metric, step, run) for metric in range(METRICS)}
            for step in range(STEPS)
        ]
        state = {
            "log_history": history,
            "global_step": STEPS,
            "epoch": STEPS / 10,
            "max_steps": STEPS,
        }
        (place / "trainer_state.json").write_text(json.dumps(state))
    return folder / "store"


MAKERS: dict[str, Callable[[Path, int], Path]] = {
    "clearml": clearml,
    "comet": comet,
    "dvclive": dvclive,
    "neptune": neptune,
    "tensorboard": tensorboard,
    "trainer-state": trainer_state,
}

if __name__ == "__main__":
    main()
