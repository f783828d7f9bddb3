"""Any training command, unmodified: a script that logs to its tracker is repeated in the sandbox and read back.

The tracker is pointed at an offline store in the output folder, by the variables and arguments that its users know. The
real SDKs run; one that the environment does not have is looked for where ``AISDP_WANDB_PYTHON`` and the like point.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

BIN = Path(sys.executable).parent

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("trackers")]

MODEL = """\
import argparse, json, os, pathlib, random

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int)
parser.add_argument("--rate", type=float)
parser.add_argument("--data")
parser.add_argument("--out")
a = parser.parse_args()
rows = [[float(cell) for cell in line.split(",")] for line in open(a.data)]


def train():
    # Logistic regression by stochastic gradient descent: other seeds give slightly other results.
    import math

    source = random.Random(a.seed)
    w = [source.gauss(0, 0.1) for _ in range(3)]
    for epoch in range(5):
        loss = 0.0
        for x, y, label in source.sample(rows[:150], 150):
            p = 1 / (1 + math.exp(-(w[0] * x + w[1] * y + w[2])))
            loss -= math.log(p if label else 1 - p) / 150
            for i, value in enumerate((x, y, 1)):
                w[i] += a.rate * (label - p) * value
        yield epoch, {"train_loss": loss}
    errors = [(1 / (1 + math.exp(-(w[0] * x + w[1] * y + w[2]))) - label) ** 2 for x, y, label in rows]
    yield 5, {"val_brier": sum(errors[150:200]) / 50, "holdout_brier": sum(errors[200:]) / 50}


"""

WANDB = """\
import wandb

run = wandb.init(project="tiny", config={"rate": a.rate, "seed": a.seed})
for step, values in train():
    run.log(values, step=step)
run.finish()
"""

MLFLOW = """\
import mlflow

with mlflow.start_run():
    mlflow.log_params({"rate": a.rate, "seed": a.seed})
    for step, values in train():
        mlflow.log_metrics(values, step=step)
"""

DVCLIVE = """\
from dvclive import Live

with Live(a.out, save_dvc_exp=False, dvcyaml=None) as live:
    live.log_params({"rate": a.rate, "seed": a.seed})
    for step, values in train():
        live.step = step
        for name, value in values.items():
            live.log_metric(name, value)
"""

PLAIN = """\
out = pathlib.Path(a.out)
out.mkdir(parents=True)
(out / "params.json").write_text(json.dumps({"rate": a.rate, "seed": a.seed}))
with (out / "metrics.jsonl").open("w") as file:
    for step, values in train():
        file.write(json.dumps({"step": step, **values}) + "\\n")
"""


@dataclass(frozen=True, kw_only=True)
class Tracker:
    """A tracker: the package that has to be there, what users set, and where the store is below the output folder."""

    name: str
    script: str
    location: str
    package: str | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        named = os.environ.get(f"AISDP_{self.name.upper()}_PYTHON")
        python = Path(named or sys.executable)
        if self.package is not None:
            code = f"import {self.package}"
            if subprocess.run([python, "-c", code], capture_output=True).returncode != 0:
                pytest.skip(
                    f"{python} has no package {self.package}; AISDP_{self.name.upper()}_PYTHON can name another"
                )
        return python


TRACKERS = [
    Tracker(
        name="wandb",
        script=WANDB,
        location="wandb",
        package="wandb",
        environment={
            "WANDB_MODE": "offline",
            "WANDB_DIR": "{out}",
            "WANDB_CACHE_DIR": "{out}/cache",
            "WANDB_DATA_DIR": "{out}/data",
            "WANDB_CONFIG_DIR": "{out}/config",
        },
    ),
    Tracker(
        name="mlflow",
        script=MLFLOW,
        location="mlruns",
        package="mlflow",
        environment={
            "MLFLOW_TRACKING_URI": "file://{out}/mlruns",
            "MLFLOW_ALLOW_FILE_STORE": "true",
        },
    ),
    Tracker(name="dvclive", script=DVCLIVE, location="dvclive", package="dvclive"),
    Tracker(name="metrics", script=PLAIN, location="run"),
]


def command(*words: object, expected: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [BIN / str(words[0]), *map(str, words[1:])], capture_output=True, text=True
    )
    assert done.returncode in expected, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done


def provider(base: Path, tracker: Tracker, python: Path) -> Path:
    """A repository with the script and the data, and the first run, as its author made it; returns bundle.yaml."""
    import random

    code = base / "code"
    code.mkdir(parents=True)
    (code / "train.py").write_text(MODEL + tracker.script)
    source = random.Random(1)
    points = [(source.gauss(0, 1), source.gauss(0, 1)) for _ in range(250)]
    rows = [f"{x!r},{y!r},{int(x - y + source.gauss(0, 0.5) > 0)}\n" for x, y in points]
    (base / "data.csv").write_text("".join(rows))
    git = ["git", "-C", code, "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "training"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    out = base / "first"
    out.mkdir()
    words = ["--seed=42", "--rate=0.01", f"--data={base}/data.csv", f"--out={out}/{tracker.location}"]  # fmt: skip
    variables = {
        name: text.replace("{out}", str(out)) for name, text in tracker.environment.items()
    }
    done = subprocess.run(
        [python, "train.py", *words],
        cwd=code,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    config = {
        "version": 1,
        "system": {"name": "tiny", "version": "1", "provider": "p", "intended_purpose": "p"},
        "sources": [{"tracker": tracker.name, "store": f"first/{tracker.location}"}],
        "facts": {
            "finished_with": "holdout_brier",
            "metrics": {"hold-out": ["holdout_*"], "validation": ["val_*"]},
        },
        "selection": {
            "run": run_of(tracker, out),
            "metric": "val_brier",
            "direction": "minimise",
            "rationale": "The only candidate.",
        },
        "reproducibility": {
            "level": "bitwise",
            "tolerances": [{"metric": "holdout_brier", "margin": 0.02}],
        },
        "training": {
            "code": "code",
            "command": [
                *("{python}", "train.py", "--seed={seed}", "--rate={parameter.rate}"),
                *("--data={input.data}", f"--out={{out}}/{tracker.location}"),
            ],
            "environment": tracker.environment,
            "inputs": {"data": "data.csv"},
            "outputs": {"tracker": tracker.name, "location": tracker.location},
        },
    }
    (base / "bundle.yaml").write_text(yaml.safe_dump(config))
    return base / "bundle.yaml"


def run_of(tracker: Tracker, out: Path) -> str:
    """The id that the tracker gave the only run of a store."""
    from bundler import importers

    importer = importers.find(tracker.name)
    with importer.open(out / tracker.location, experiment=None, artefacts=None) as session:
        (run,) = session
    return run.source.run_id


@pytest.mark.parametrize("tracker", TRACKERS, ids=lambda each: each.name)
def test_a_script_that_logs_to_its_tracker_is_repeated_by_provider_and_verifier(tracker, tmp_path):
    python = tracker.python
    config = provider(tmp_path / "provider", tracker, python)
    said = command("bundler", "rerun", config, "-o", config.parent / "repetitions", "--runs", "4", "--python", python)  # fmt: skip
    assert "independent runs: 4 (1 before)" in said.stdout
    entries = yaml.safe_load(said.stdout[said.stdout.index("  - tracker") :])
    assert len(entries) == 3
    value = yaml.safe_load(config.read_text())
    value["sources"] += entries
    config.write_text(yaml.safe_dump(value))

    command("bundler", "keygen", "-o", tmp_path / "keys")
    bundle, report = tmp_path / "bundle", tmp_path / "report.json"
    command("build-bundle", config, "-o", bundle, "--key", tmp_path / "keys" / "key.pem")
    command(
        *("verify-bundle", bundle, "--trust", tmp_path / "keys" / "trust.pem", "--report", report),
        *("--rerun", "--seeds", "11,12,13", "--python", python, "--state", tmp_path / "state"),
        # Gaps there are: what a hurried provider leaves out is not what this is about.
        expected=(0, 1, 6),
    )
    found = json.loads(report.read_bytes())
    (rerun,) = found["reruns"]
    assert rerun["exit_code"] == 0
    assert rerun["isolation"]["kind"] in {"bubblewrap", "sandlock"}
    # The script gives the same numbers each time, so those that came through the tracker must be the same.
    differing = {each["metric"]: each["points_differing"] for each in rerun["metrics"]}
    assert differing["holdout_brier"] == differing["train_loss"] == 0
    (metric,) = found["judgement"]["metrics"]
    assert metric["metric"] == "holdout_brier"
    assert metric["verdict"] == "CONSISTENT"
    assert len({*metric["declared"]}) == 4
    assert [each["seed"] for each in found["judgement"]["trials"]] == [11, 12, 13]
