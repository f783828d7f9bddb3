"""SHA-256 of many files: ``bundler.storage.hashing.digest_all`` beside ``hashlib.file_digest``.

    .venv/bin/python benchmarks/hashing.py

Two sets of files, made in ``build/bench``: two of 512 MB, and 2,000 of 64 KB. Both ways read the same files, in turns,
from the page cache. What counts is bytes for each second of CPU time (user and system, all threads): threads make the
wall time shorter, not the work. ``file_digest`` runs in one thread, ``digest_all`` in as many as there are CPUs, and
once more in a single one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

from results import table, write

from bundler.storage.hashing import digest_all

PLACE = Path(__file__).parents[1] / "build" / "bench" / "hashing"
SETS = {"2 files of 512 MB": (2, 512 << 20), "2,000 files of 64 KB": (2000, 64 << 10)}
REPEATS = 7
AIM = 0.9

Way = Callable[[list[str]], dict[str, str]]


def peer(paths: list[str]) -> dict[str, str]:
    """The standard library's own way, one file after the other."""
    digests = {}
    for path in paths:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            digests[path] = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # FileIO has readinto
    return digests


def opener(path: str) -> BinaryIO:
    return cast("BinaryIO", open(path, "rb", buffering=0))  # noqa: PTH123


WAYS: dict[str, Way] = {
    "hashlib.file_digest": peer,
    "digest_all": lambda paths: digest_all(paths, opener),
    "digest_all, one thread": lambda paths: digest_all(paths, opener, workers=1),
}


def main() -> None:
    figures: dict[str, Any] = {"repeats": REPEATS, "aim_ratio": AIM, "sets": {}}
    for title, (count, size) in SETS.items():
        paths = make(count, size)
        measured = measure(paths)
        figures["sets"][title] = show(title, measured, count * size)
    shutil.rmtree(PLACE)
    write("hashing", figures)


def make(count: int, size: int) -> list[str]:
    """Files of pseudo-random bytes; reading them for the first time is part of making them."""
    folder = PLACE / str(size)
    folder.mkdir(parents=True, exist_ok=True)
    block = hashlib.shake_256(b"benchmark").digest(min(size, 1 << 20))
    paths = []
    for number in range(count):
        path = folder / f"{number}.bin"
        with path.open("wb") as file:
            for start in range(0, size, len(block)):
                file.write(number.to_bytes(4, "big") + start.to_bytes(8, "big") + block[12:])
        paths.append(str(path))
    return paths


def measure(paths: list[str]) -> dict[str, list[tuple[float, float]]]:
    """CPU and wall seconds of each way, in turns; the digests must be the same."""
    expected = peer(paths)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for _ in range(REPEATS):
        for name, way in WAYS.items():
            cpu, wall = time.process_time(), time.perf_counter()
            digests = way(paths)
            times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
            if digests != expected:
                raise SystemExit(f"{name} gives other digests")
    return times


def show(title: str, measured: dict[str, list[tuple[float, float]]], size: int) -> dict[str, Any]:
    """Print the table of one set and return its figures."""
    rows: dict[str, dict[str, float]] = {}
    for name, times in measured.items():
        cpu = statistics.median(each[0] for each in times)
        wall = statistics.median(each[1] for each in times)
        rows[name] = {"mb_per_cpu_second": size / cpu / 1e6, "mb_per_second": size / wall / 1e6}
    base = rows["hashlib.file_digest"]["mb_per_cpu_second"]
    for row in rows.values():
        row["ratio_per_cpu_second"] = row["mb_per_cpu_second"] / base
    table(
        [f"{title}, {os.cpu_count()} CPUs", "MB a CPU second", "MB a second", "ratio a CPU second"],
        [
            [name, *(f"{row[key]:.{digits}f}" for key, digits in zip(row, (0, 0, 2), strict=True))]
            for name, row in rows.items()
        ],
    )
    ratio = rows["digest_all"]["ratio_per_cpu_second"]
    print(f"aim: at least {AIM} of hashlib's rate a core: {'met' if ratio >= AIM else 'missed'}\n")
    return {"ways": rows}


if __name__ == "__main__":
    main()
