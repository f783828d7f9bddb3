"""Time to ``--help`` of the three commands, beside an empty Python and one that imports click.

    .venv/bin/python benchmarks/startup.py

Wall time of a whole process, median of 15. The commands take turns, so that a busy moment hits all of them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from results import table, write

REPEATS = 15
AIM_SECONDS = 0.3


def main() -> None:
    scripts = Path(sys.executable).parent
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        'python -c "import click"': [sys.executable, "-c", "import click"],
        "bundler --help": [str(scripts / "bundler"), "--help"],
        "build-bundle --help": [str(scripts / "build-bundle"), "--help"],
        "verify-bundle --help": [str(scripts / "verify-bundle"), "--help"],
    }
    for command in commands.values():
        seconds(command)  # so that nobody is the first to read the files
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(REPEATS):
        for name, command in commands.items():
            times[name].append(seconds(command))
    rows = {
        name: {"median_s": statistics.median(each), "fastest_s": min(each), "slowest_s": max(each)}
        for name, each in times.items()
    }
    slowest = max(row["median_s"] for name, row in rows.items() if "--help" in name)
    table(
        ["command", "median", "fastest", "slowest"],
        [
            [name, *(f"{value * 1000:.0f} ms" for value in row.values())]
            for name, row in rows.items()
        ],
    )
    print(
        f"aim: --help in less than {AIM_SECONDS} s: {'met' if slowest < AIM_SECONDS else 'missed'}"
    )
    write("startup", {"repeats": REPEATS, "aim_s": AIM_SECONDS, "commands": rows})


def seconds(command: list[str]) -> float:
    """Wall time of ``command``."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
