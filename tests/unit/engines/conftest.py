"""A staged package with a training of the standard library alone, and trials of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bundler.errors import SandboxUnavailableError
from bundler.sandbox import Limits, find
from bundler.spec import FactMap, Outputs
from bundler.trials import Trial

TRAIN = """\
import json, os, pathlib, random, sys, time

seed, out = int(sys.argv[1]), pathlib.Path("/out/dvclive")
for _ in range(200):  # until the test lets it end, where it is to last
    if not os.environ.get("LAST"):
        break
    time.sleep(0.1)
(out / "plots").mkdir(parents=True)
pathlib.Path("beside-the-code.txt").write_text(str(seed))
score = random.Random(seed).random()
(out / "metrics.json").write_text(json.dumps({"score": score}))
(out / "params.yaml").write_text(f"seed: {seed}\\n")
print("score", score, flush=True)
"""

LIMITS = Limits(
    wall_seconds=60,
    cpu_seconds=30,
    memory_bytes=256 << 20,
    processes=64,
    file_bytes=10 << 20,
    output_bytes=20 << 20,
    output_files=100,
    log_bytes=1 << 20,
)


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    folder = tmp_path / "staged"
    for place in ("bundle/data/code", "code", "declared"):
        (folder / place).mkdir(parents=True)
    for place in ("bundle/data/code", "code"):
        (folder / place / "train.py").write_text(TRAIN)
    return folder


def a_trial(seed: int = 7, **changes) -> Trial:
    fields = {
        "seed": seed,
        "command": (sys.executable, "-I", "-S", "train.py", str(seed)),
        "working_directory": "/bundle/data/code",
        "environment": {},
        "outputs": Outputs(tracker="dvclive", location="dvclive"),
        "facts": FactMap(metrics={"hold-out": ("score",)}),
        "run": "declared-run",
        "limits": LIMITS,
        "interpreter": sys.executable,
    }
    return Trial(**(fields | changes))


@pytest.fixture
def confined():
    """The tests that run real trials need a sandbox that works here."""
    try:
        find("auto")
    except SandboxUnavailableError as error:
        pytest.skip(str(error))
