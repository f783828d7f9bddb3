"""Reading record logs of Weights & Biases: ours beside wandb's own reader; and the memory that many runs take.

    .venv/bin/python benchmarks/wandb_import.py [--environments FOLDER] [--passes N] [--runs N]

FOLDER holds ``0.17.9`` and ``0.19.11``, environments with that wandb; without it they are made in
``build/bench/wandb``. Each version logs 1,000 steps of 100 metrics and 100,000 steps of 10 metrics offline. Theirs is
``wandb.sdk.internal.datastore`` with the Protocol Buffers messages of the same version (its C implementation), twice:
``parse`` only makes the messages, ``read`` also takes step and numbers out of the history. Ours is a whole import:
points sorted, summary, flags. All are processes of their own, taken in turn, best of N passes; start-up and imports do
not count. All points are compared. The memory is that of one pass over N run folders of 1,000 points each, made from
one of 0.19 under other ids.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

from results import table, write

PLACE = Path(__file__).parents[1] / "build" / "bench" / "wandb"
VERSIONS = ("0.17.9", "0.19.11")
SIZES = ((1_000, 100), (100_000, 10))

LOG = """
import math, sys, wandb
steps, metrics, identity = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
run = wandb.init(project="bench", id=identity, name="bench", mode="offline")
for step in range(steps):
    run.log({f"metric_{m}": math.sin(m + step / 7) / (step + 1) for m in range(metrics)})
run.finish()
"""

THEIRS = """
import hashlib, json, sys, time
import wandb
wandb._assert_is_internal_process = True
from wandb.proto import wandb_internal_pb2 as pb
from wandb.sdk.internal.datastore import DataStore

begin = time.perf_counter()
store = DataStore()
store.open_for_scan(sys.argv[1])
values = sys.argv[2] == "read"
points = {}
records = 0
while (data := store.scan_data()) is not None:
    record = pb.Record()
    record.ParseFromString(data)
    records += 1
    if values and record.HasField("history"):
        step = record.history.step.num
        for item in record.history.item:
            name = item.key or ".".join(item.nested_key)
            if not name.startswith("_"):
                points.setdefault(name, []).append((step, json.loads(item.value_json)))
seconds = time.perf_counter() - begin
digest = hashlib.sha256()
for name in sorted(points):
    digest.update(repr([(name, step, float(value)) for step, value in points[name]]).encode())
print(json.dumps({"seconds": seconds, "points": sum(map(len, points.values())), "digest": digest.hexdigest()}))
"""


def main() -> None:
    options = arguments()
    if options.pass_over:
        print(json.dumps(our_pass(options.pass_over)))
        return
    if options.memory_over:
        print(json.dumps(memory_pass(options.memory_over)))
        return
    figures: dict[str, Any] = {"files": {}}
    rows = []
    for version in VERSIONS:
        python = environment(version, options.environments)
        for steps, metrics in SIZES:
            log = made(version, python, steps, metrics)
            found = compare(log, python, options.passes)
            figures["files"][f"wandb {version}, {steps} steps x {metrics} metrics"] = found
            name = f"{version}  {steps:,} x {metrics}  {found['file_mb']:.0f} MB"
            times = [f"{found[each]:.2f} s" for each in ("ours_s", "parse_s", "read_s")]
            ratios = [f"{found[each]:.2f}" for each in ("parse_ratio", "read_ratio")]
            rows.append([name, *times, *ratios])
    table(["", "ours", "theirs, parse", "theirs, read", "parse/ours", "read/ours"], rows)
    figures["memory"] = memory(options.runs)
    print(
        f"{figures['memory']['runs']:,} runs: {figures['memory']['seconds']:.1f} s, peak"
        f" {figures['memory']['peak_rss_mb']:.0f} MB, after a tenth"
        f" {figures['memory']['peak_rss_after_a_tenth_mb']:.0f} MB"
    )
    write("wandb_import", figures)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Read record logs of W&B: ours beside wandb's.")
    parser.add_argument("--environments", type=Path, help="a folder with environments, by version")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--runs", type=int, default=2000, help="run folders of the memory test")
    parser.add_argument("--pass-over", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--memory-over", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def environment(version: str, given: Path | None) -> str:
    """The Python of an environment with that wandb."""
    folder = (given or PLACE) / version
    python = folder / "bin" / "python"
    if given is None and not (folder / "made").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        packages = [f"wandb=={version}", "setuptools<80"]
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
        (folder / "made").touch()
    return str(python)


def made(version: str, python: str, steps: int, metrics: int) -> Path:
    """A record log that this wandb wrote."""
    work = PLACE / f"runs-{version}"
    identity = f"{steps}x{metrics}"
    work.mkdir(parents=True, exist_ok=True)
    pattern = f"wandb/offline-run-*-{identity}/*.wandb"
    if not list(work.glob(pattern)):
        command = [python, "-c", LOG, str(steps), str(metrics), identity]
        subprocess.run(command, check=True, cwd=work, capture_output=True)
    return next(iter(work.glob(pattern)))


def compare(log: Path, python: str, passes: int) -> dict[str, Any]:
    """The best times of all three, taken in turn, and the medians of the ratios of each turn."""
    turns = []
    for _ in range(passes):
        ours = run([sys.executable, __file__, "--pass-over", str(log)])
        parse = run([python, "-c", THEIRS, str(log), "parse"])
        read = run([python, "-c", THEIRS, str(log), "read"])
        if (ours["points"], ours["digest"]) != (read["points"], read["digest"]):
            raise SystemExit(f"{log}: other points than wandb's own reader gives")
        turns.append([each["seconds"] for each in (ours, parse, read)])
    best = [min(times) for times in zip(*turns, strict=True)]
    return {
        "file_mb": log.stat().st_size / 1e6,
        "points": ours["points"],
        "passes": passes,
        "ours_s": best[0],
        "parse_s": best[1],
        "read_s": best[2],
        "parse_ratio": statistics.median(turn[1] / turn[0] for turn in turns),
        "read_ratio": statistics.median(turn[2] / turn[0] for turn in turns),
    }


def run(command: list[str]) -> dict[str, Any]:
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    answer: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return answer


def our_pass(log: Path) -> dict[str, Any]:
    import hashlib
    from itertools import groupby

    from bundler.importers.wandb import WandbImporter

    begin = time.perf_counter()
    with WandbImporter().open(log, experiment=None, artefacts=None) as session:
        (found,) = list(session)
    seconds = time.perf_counter() - begin
    digest = hashlib.sha256()
    for _, group in groupby(found.points, key=lambda point: point.metric):
        digest.update(repr([(p.metric, p.step, p.value) for p in group]).encode())
    return {"seconds": seconds, "points": len(found.points), "digest": digest.hexdigest()}


def memory(runs: int) -> dict[str, Any]:
    """One pass over many run folders."""
    store = PLACE / f"many-{runs}"
    if not store.exists():
        python = environment(VERSIONS[1], None) if not (PLACE / "runs-0.19.11").exists() else ""
        source = made(VERSIONS[1], python, *SIZES[0])
        fill(store, source, runs)
    return run([sys.executable, __file__, "--memory-over", str(store)])


def fill(store: Path, source: Path, runs: int) -> None:
    """Run folders with the first 10 rows of 100 metrics of ``source``, each under another id and start."""
    from bundler.importers.wandb.datastore import RecordLog

    records = [data for _, data in RecordLog(source).records()]
    kept, rows = [], 0
    for data in records:
        rows += b"metric_0" in data and b"\x12\x06_step" not in data
        if rows <= 20:
            kept.append(data)
    kept.append(records[-1])
    partial = store.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for number in range(runs):
        identity = f"{number:06}x"
        folder = partial / f"offline-run-20260101_000000-{identity}"
        (folder / "files").mkdir(parents=True)
        log = folder / f"run-{identity}.wandb"
        log.write_bytes(framed([data.replace(b"1000x100", b"%06dx0" % number) for data in kept]))
    partial.rename(store)


def framed(records: list[bytes]) -> bytes:
    """Records as W&B frames them."""
    out = bytearray(b":W&B\xe1\xbe\x00")
    for record in records:
        first, rest = True, record
        while rest or first:
            left = 32768 - len(out) % 32768
            if left < 7:
                out += bytes(left)
                continue
            body, rest = rest[: left - 7], rest[left - 7 :]
            kind = (1 if first else 4) if not rest else (2 if first else 3)
            checksum = zlib.crc32(body, zlib.crc32(bytes([kind])))
            out += struct.pack("<IHB", checksum, len(body), kind) + body
            first = False
    return bytes(out)


def memory_pass(store: Path) -> dict[str, Any]:
    from bundler.importers.wandb import WandbImporter

    before = peak()
    begin = time.perf_counter()
    count = points = 0
    tenth = 0.0
    with WandbImporter().open(store, experiment=None, artefacts=None) as session:
        for found in session:
            count += 1
            points += len(found.points)
            if count == max(1, len(session) // 10):
                tenth = peak()
    return {
        "runs": count,
        "points": points,
        "seconds": time.perf_counter() - begin,
        "rss_before_mb": before,
        "peak_rss_after_a_tenth_mb": tenth,
        "peak_rss_mb": peak(),
    }


def peak() -> float:
    """Peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
