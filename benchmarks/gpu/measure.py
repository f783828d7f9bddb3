"""How far runs of one training differ on a GPU: with and without deterministic mode, by seed, and from the CPU.

Called by benchmarks/gpu.sh, which prepares the interpreter. Every run is a process of its own; two of them are repeated
inside the sandbox, with the devices that a verifier would show.
"""

from __future__ import annotations

import argparse
import array
import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import results

from bundler.devices import cuda_environment
from bundler.errors import BundlerError
from bundler.sandbox import Job, Limits, Mount, find, gpus

CNN = Path(__file__).parent / "cnn.py"
NO_GPU = 3


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one training left."""

    accuracy: float
    log_loss: float
    last_loss: float
    seconds: float
    sha256: str
    weights: array.array = field(repr=False)
    hardware: dict[str, Any] = field(repr=False)


class Trainings:
    """Starts trainings, each in a process of its own."""

    def __init__(self, folder: Path, size: list[str]) -> None:
        self._folder = folder
        self._size = size

    def run(self, device: str, seed: int, *, deterministic: bool) -> Run:
        """Train here, in a process of its own."""
        words = self._words(device, seed, self._folder, deterministic=deterministic)
        subprocess.run([sys.executable, str(CNN), *words], check=True)
        return _read(self._folder)

    def sandboxed(self, device: str, seed: int) -> tuple[Run, dict[str, Any]]:
        """The same, deterministic, in bubblewrap; and what the self-test says of the confinement."""
        box = find("bubblewrap")
        limits = gpus.limits(Limits(wall_seconds=1800, memory_bytes=32 << 30))
        isolation = box.isolation(limits, gpus=device == "cuda")
        place = self._folder / "sandbox"
        place.mkdir()
        job = Job(
            command=(
                sys.executable,
                "/code/cnn.py",
                *self._words(device, seed, Path("/out"), deterministic=True),
            ),
            working_directory=PurePosixPath("/out"),
            mounts=(Mount(source=CNN.parent, target=PurePosixPath("/code")),),
            output=place / "out",
            log=place / "log",
            environment=cuda_environment(),
            limits=limits,
            interpreter=Path(sys.executable),
            gpus=device == "cuda",
        )
        outcome = box.run(job)
        if outcome.exit_code != 0:
            raise SystemExit(f"in the sandbox: {outcome}\n{(place / 'log').read_text()[-2000:]}")
        probes = {each.name: each.detail for each in isolation.probes if not each.blocked}
        return _read(place / "out"), {
            "kind": f"{isolation.kind} {isolation.version}",
            "limits_missing": isolation.limits_missing,
            "got_through": probes,
            "wall_seconds": outcome.wall_seconds,
        }

    def _words(self, device: str, seed: int, out: Path, *, deterministic: bool) -> list[str]:
        mode = ["--deterministic"] if deterministic else []
        files = ["--output", str(out / "run.json"), "--weights", str(out / "weights.bin")]
        return ["--device", device, "--seed", str(seed), *mode, *self._size, *files]


def _read(folder: Path) -> Run:
    weights = array.array("f")
    weights.frombytes((folder / "weights.bin").read_bytes())
    return Run(weights=weights, **json.loads((folder / "run.json").read_text()))


def distance(one: Run, other: Run) -> float:
    """Relative L2 distance of the weights."""
    difference = math.dist(one.weights, other.weights)
    return difference / math.sqrt(sum(each * each for each in one.weights))


def spread(runs: list[Run]) -> dict[str, Any]:
    """How far runs differ from one another; those of one seed should not."""
    return {
        "runs": len(runs),
        "distinct_weights": len({run.sha256 for run in runs}),
        "largest_relative_l2": max(distance(runs[0], run) for run in runs),
        "accuracy_mean": statistics.fmean(run.accuracy for run in runs),
        "accuracy_deviation": statistics.stdev(run.accuracy for run in runs),
        "log_loss_mean": statistics.fmean(run.log_loss for run in runs),
        "log_loss_deviation": statistics.stdev(run.log_loss for run in runs),
        "median_seconds": statistics.median(run.seconds for run in runs),
    }


def against(declared: list[Run], again: list[Run]) -> dict[str, Any]:
    """The runs of one device held against those of another, over seeds, as a verifier holds a metric."""
    return {
        name: _interval(
            [getattr(run, name) for run in declared], [getattr(run, name) for run in again]
        )
        for name in ("accuracy", "log_loss")
    }


def _interval(one: list[float], other: list[float]) -> dict[str, Any]:
    """Difference of the means with its 90 % interval (Welch); is it within two deviations of the first?"""
    from scipy import stats

    found = stats.ttest_ind(other, one, equal_var=False).confidence_interval(0.90)
    margin = 2 * statistics.stdev(one)
    return {
        "difference": statistics.fmean(other) - statistics.fmean(one),
        "interval": [float(found.low), float(found.high)],
        "margin_of_two_deviations": margin,
        "within": bool(-margin < found.low and found.high < margin),
    }


def measure(device: str, runs: int, trainings: Trainings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Hardware and figures. Modes take turns, so that heat and clocks are the same for both."""
    repeated: dict[bool, list[Run]] = {False: [], True: []}
    for _ in range(runs):
        for mode, made in repeated.items():
            made.append(trainings.run(device, 1, deterministic=mode))
    others = [trainings.run(device, seed, deterministic=True) for seed in range(2, runs + 1)]
    seeds = [repeated[True][0], *others]
    figures: dict[str, Any] = {
        "same_seed_default": spread(repeated[False]),
        "same_seed_deterministic": spread(repeated[True]),
        "seeds_deterministic": spread(seeds),
    }
    figures["cost_of_deterministic_mode"] = (
        figures["same_seed_deterministic"]["median_seconds"]
        / figures["same_seed_default"]["median_seconds"]
    )
    if device == "cuda":
        on_cpu = [trainings.run("cpu", seed, deterministic=True) for seed in range(1, runs + 1)]
        figures["cpu_against_gpu"] = {
            "same_seed_same_weights": on_cpu[0].sha256 == seeds[0].sha256,
            "same_seed_relative_l2": distance(seeds[0], on_cpu[0]),
            "median_seconds_on_cpu": statistics.median(run.seconds for run in on_cpu),
            "over_seeds": against(seeds, on_cpu),
        }
    try:
        inside, confinement = trainings.sandboxed(device, 1)
    except BundlerError as error:
        figures["in_the_sandbox"] = {"not_measured": f"{error.message} {error.remedy}"}
    else:
        same = inside.sha256 == seeds[0].sha256
        figures["in_the_sandbox"] = {"same_weights": same, **confinement}
    return seeds[0].hardware, figures


def examples(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """What `verify-bundle --rerun` said of the example, by device: the reports that gpu.sh left."""
    for path in sorted(folder.glob("example-*.json")):
        report = json.loads(path.read_text())
        yield (
            path.stem.removeprefix("example-"),
            {
                "exit_code": report.get("exit_code"),
                "verdict": (report.get("judgement") or {}).get("verdict"),
                "reruns": [each.get("verdict") for each in report.get("reruns", [])],
            },
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--examples", type=int, default=20_000, help="pictures to train with")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--reports", type=Path, help="folder with the reports on the example")
    parser.add_argument("--results", type=Path, default=results.RESULTS)
    options = parser.parse_args()
    if options.device == "cuda" and not gpus.devices():
        print("There is no CUDA device on this machine: nothing was measured.", file=sys.stderr)
        return NO_GPU
    size = ["--examples", str(options.examples), "--epochs", str(options.epochs)]
    with tempfile.TemporaryDirectory() as folder:
        hardware, figures = measure(options.device, options.runs, Trainings(Path(folder), size))
    if options.reports:
        figures["example"] = dict(examples(options.reports))
    name = re.sub(r"[^a-z0-9]+", "_", str(hardware.get("gpu", "cpu")).lower()).strip("_")
    results.RESULTS = options.results
    results.write(f"gpu_{name}", {"hardware": hardware, "training": size, **figures})
    show(figures)
    return 0


def show(figures: dict[str, Any]) -> None:
    rows = [
        [
            name.replace("_", " "),
            f"{part['runs']}",
            f"{part['distinct_weights']}",
            f"{part['largest_relative_l2']:.2g}",
            f"{part['accuracy_mean']:.4f} ± {part['accuracy_deviation']:.4f}",
            f"{part['median_seconds']:.2f} s",
        ]
        for name, part in figures.items()
        if isinstance(part, dict) and "distinct_weights" in part
    ]
    results.table(["", "runs", "distinct weights", "relative L2", "accuracy", "time"], rows)
    print(f"deterministic mode takes {figures['cost_of_deterministic_mode']:.2f} x the time")
    for name in ("cpu_against_gpu", "in_the_sandbox", "example"):
        if name in figures:
            print(f"{name.replace('_', ' ')}: {json.dumps(figures[name])}")


if __name__ == "__main__":
    sys.exit(main())
