"""How all benchmarks show and keep their figures: a small table, and JSON that names no machine."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def write(name: str, figures: dict[str, Any]) -> None:
    """Write ``results/NAME.json`` with the figures and with what they depend on."""
    made = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "aisdp-bundler": version("aisdp-bundler"),
        "click": version("click"),
    }
    text = json.dumps({"made_with": made, **_rounded(figures)}, indent=2, ensure_ascii=False)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def table(head: list[str], rows: list[list[str]]) -> None:
    """Print ``rows``, the first column to the left and the others to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        first, *others = (
            text.rjust(width) if column else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]))
    sys.stdout.flush()


def _rounded(value: Any) -> Any:
    """Floats with four digits: more would be noise."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
