"""What sandbox and harness add to a training: the same script bare, and as a trial of the local engine.

    .venv/bin/python benchmarks/rerun_overhead.py

Two trainings, a short one and one of some seconds, run in turns: bare (a subprocess, timed from outside) and through
``bundler.engines`` with everything that a re-run does: sandbox, self-test, working copy, reading the output back,
hashing it. Wall time of each; medians. The aim: at most 3 % of the training's time and half a second a run.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from results import table, write

from bundler import sandbox
from bundler.engines import EngineOptions, open_engine
from bundler.spec import FactMap, Outputs, Resources
from bundler.trials import Trial, trained

REPEATS = 9
SHARE, CONSTANT = 0.03, 0.5
TRAIN = """
import json, pathlib, random, struct, sys, time
seed, rounds, out = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
chance, total = random.Random(seed), 0.0
for step in range(rounds):
    total += sum(chance.gauss(0, 1) ** 2 for _ in range(100_000))
    print(step, total, flush=True)
out.mkdir(parents=True)
raw = struct.pack("<d", total)
header = json.dumps({"total": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}).encode()
(out / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + raw)
(out / "metrics.jsonl").write_text(json.dumps({"step": 1, "timestamp": time.time(), "holdout_total": total}))
(out / "params.json").write_text(json.dumps({"seed": seed}))
"""


def main() -> None:
    figures: dict[str, Any] = {"repeats": REPEATS, "aim": {"share": SHARE, "seconds": CONSTANT}}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        staged = Path(folder) / "staged"
        for name in ("bundle/data/code", "code", "declared"):
            (staged / name).mkdir(parents=True)
        for place in ("bundle/data/code", "code"):
            (staged / place / "train.py").write_text(TRAIN)
        for readable in (Path(folder), *staged.rglob("*")):
            readable.chmod(0o755)
        for title, rounds in {"short": 1, "long": 150}.items():
            bare, harnessed = measure(staged, rounds)
            extra = statistics.median(h - b for b, h in zip(bare, harnessed, strict=True))
            allowed = SHARE * statistics.median(bare) + CONSTANT
            figures[title] = {
                "bare_seconds": statistics.median(bare),
                "harnessed_seconds": statistics.median(harnessed),
                "overhead_seconds": extra,
                "allowed_seconds": allowed,
            }
            seconds = (statistics.median(bare), statistics.median(harnessed), extra, allowed)
            verdict = "met" if extra <= allowed else "NOT MET"
            rows.append([title, *(f"{each:.2f} s" for each in seconds), verdict])
    table(["training", "bare", "as a trial", "added", "allowed", "aim"], rows)
    write("rerun_overhead", figures)


def measure(staged: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each bare run, and of each trial; the two take turns."""
    bare, harnessed = [], []
    with open_engine(EngineOptions(parallel=1), staged, Resources()) as engine:
        for number in range(REPEATS):
            with tempfile.TemporaryDirectory() as out:
                words = [
                    sys.executable,
                    str(staged / "code/train.py"),
                    "1",
                    str(rounds),
                    f"{out}/run",
                ]
                started = time.perf_counter()
                subprocess.run(words, check=True, capture_output=True)
                bare.append(time.perf_counter() - started)
            started = time.perf_counter()
            result = engine.submit(trial(number, rounds)).result()
            harnessed.append(time.perf_counter() - started)
            if not trained(result) or result.record is None:
                sys.exit(f"the trial failed: {result.problem or result.detail} {result.log}")
    return bare, harnessed


def trial(seed: int, rounds: int) -> Trial:
    return Trial(
        seed=seed,
        command=(sys.executable, "train.py", str(seed), str(rounds), "/out/run"),
        working_directory="/bundle/data/code",
        environment={},
        outputs=Outputs(tracker="metrics", location="run", tensors=("model.safetensors",)),
        facts=FactMap(finished_with="holdout_total"),
        run="benchmark",
        limits=sandbox.Limits(),
        interpreter=sys.executable,
    )


if __name__ == "__main__":
    main()
