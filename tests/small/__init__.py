"""A small provider whose every run was really trained, for tests of honest and of cheating providers.

Nothing is faked: a git repository, trainings in subprocesses, bundle.yaml, a key, and the real commands.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import yaml

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
SEEDS = (42, 1, 2, 3, 4)
"""The declared seed, and those of the repetitions."""

CONFIG = {
    "version": 1,
    "system": {
        "name": "small-scoring",
        "version": "1.0.0",
        "provider": "Example Bank",
        "intended_purpose": "Scoring of loan applications by natural persons",
        "annex_iii": "5(b)",
        "responsible": "A. Example",
    },
    "sources": [{"tracker": "metrics", "store": "runs"}],
    "facts": {
        "seed": "parameters.seed",
        "code_commit": "parameters.commit",
        "code_dirty": "parameters.dirty",
        "data_version": "parameters.data_version",
        "data_sha256": "parameters.data_sha256",
        "environment": "artefacts.environment.json",
        "model": "model.safetensors",
        "finished_with": "holdout_auc",
        "data_rows": {"holdout": "parameters.holdout_rows"},
        "metrics": {"hold-out": ["holdout_*"], "validation": ["val_*"], "training": ["train_*"]},
    },
    "selection": {
        "run": "seed-42",
        "metric": "val_auc",
        "direction": "maximise",
        "rationale": "The better of two learning rates.",
        "declared_at": "2025-10-01",
        "eligible": {"seed": [42]},
    },
    "reproducibility": {
        "level": "bitwise",
        "mechanisms": ["seeds", "deterministic algorithms", "one thread"],
        "factors_of_variation": ["the seed"],
        "tolerances": [
            {"metric": "holdout_auc", "margin": 0.02},
            {"metric": "holdout_brier", "margin": 0.02},
        ],
        "limitations": ["A toy."],
    },
    "gates": [
        {
            "name": "auc",
            "category": "performance",
            "metric": "holdout_auc",
            "comparator": ">=",
            "threshold": 0.6,
            "sampling": {"kind": "auc", "dataset_role": "holdout", "positives": 100},
        }
    ],
    "training": {
        "code": "repository",
        "command": [
            "{python}",
            "train.py",
            "--seed={seed}",
            "--rate={parameter.rate}",
            "--epochs={parameter.epochs}",
            "--commit={parameter.commit}",
            "--data={input.data}",
            "--out={out}/run",
        ],
        "inputs": {"data": "repository/data.csv"},
        "lock": "repository/requirements.txt",
        "outputs": {
            "tracker": "metrics",
            "location": "run",
            "tensors": ["model.safetensors"],
            "predictions": {
                "path": "predictions.csv",
                "label": "label",
                "score": "score",
                "key": "row",
            },
        },
        "evaluation": {
            "command": [
                "{python}",
                "evaluate.py",
                "{artefact.model.safetensors}",
                "{input.data}",
                "{out}/metrics.json",
            ]
        },
    },
}


@dataclass
class Provider:
    """A provider's folder: change files, runs or ``config``, then :meth:`build` and :meth:`verify`."""

    root: Path
    commit: str = ""
    config: dict = field(default_factory=lambda: json.loads(json.dumps(CONFIG)))

    @property
    def repository(self) -> Path:
        return self.root / "repository"

    def git(self, *arguments: str) -> str:
        command = [
            "git",
            "-C",
            str(self.repository),
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.org",
        ]
        done = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit_all(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "training")
        self.commit = self.git("rev-parse", "HEAD")
        return self.commit

    def train(
        self,
        seed: int,
        *,
        name: str | None = None,
        rate: float = 0.05,
        epochs: int = 4,
        **options: str,
    ) -> Path:
        """Train in the repository as it is, into ``runs/NAME``."""
        out = self.root / "runs" / (name or f"seed-{seed}")
        data = options.pop("data", str(self.repository / "data.csv"))
        script = options.pop("script", str(self.repository / "train.py"))
        subprocess.run(
            [sys.executable, script, f"--seed={seed}", f"--rate={rate}", f"--epochs={epochs}", f"--data={data}", f"--out={out}",
             f"--commit={options.pop('commit', self.commit)}"],
            check=True, capture_output=True,
        )  # fmt: skip
        return out

    def build(self, *more: str) -> subprocess.CompletedProcess:
        (self.root / "bundle.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))
        keys = self.root / "keys"
        if not keys.exists():
            command("bundler", "keygen", "-o", keys, "--algorithm", "ed25519")
        shutil.rmtree(self.root / "bundle", ignore_errors=True)
        return command(
            "build-bundle",
            self.root / "bundle.yaml",
            "-o",
            self.root / "bundle",
            "--key",
            keys / "key.pem",
            *more,
        )

    def verify(self, *more: object) -> tuple[int, dict]:
        """``verify-bundle``: its exit code and report."""
        report = self.root / "report.json"
        done = command(
            "verify-bundle", self.root / "bundle", "--trust", self.root / "keys" / "trust.pem",
            "--report", report, *(("--state", self.root / "state") if "--rerun" in more else ()), *more,
        )  # fmt: skip
        assert report.exists(), done.stderr
        found = json.loads(report.read_bytes())
        found["terminal"] = done.stdout
        return done.returncode, found


def make_provider(root: Path, seeds: tuple[int, ...] = SEEDS) -> Provider:
    """An honest provider: one other candidate, and the selected configuration with ``seeds``."""
    provider = Provider(root)
    provider.repository.mkdir(parents=True)
    for name in ("train.py", "evaluate.py"):
        shutil.copy(HERE / name, provider.repository / name)
    (provider.repository / "data.csv").write_text(data())
    (provider.repository / "requirements.txt").write_text(f"click=={version('click')}\n")
    provider.git("init", "-q")
    provider.commit_all()
    for seed in seeds:
        provider.train(seed)
    provider.train(42, name="slow", rate=0.0005)
    return provider


def data(rows: int = 600, seed: int = 7, features: int = 4, blur: float = 1.2) -> str:
    """Rows of which every third is hold-out: ``features``, and a label that depends on two of them and on chance.

    With many features and few rows, a model can learn rows by heart; with less ``blur`` they are easier.
    """
    chance = random.Random(seed)
    lines = [",".join(["holdout", *(f"x{number}" for number in range(features)), "label"])]
    for number in range(rows):
        row = [chance.gauss(0, 1) for _ in range(features)]
        label = int(row[0] - 0.7 * row[1] + chance.gauss(0, blur) > 0)
        lines.append(",".join([str(int(number % 3 == 0)), *(f"{x:.6f}" for x in row), str(label)]))
    return "\n".join(lines) + "\n"


def command(*words: object) -> subprocess.CompletedProcess:
    """Run a console script of the environment, as a stranger would; never a traceback."""
    done = subprocess.run(
        [str(BIN / str(words[0])), *map(str, words[1:])],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done


def codes(report: dict) -> dict[str, dict]:
    """Findings that are no notes, by code."""
    return {
        finding["code"]: finding
        for check in report["checks"]
        for finding in check["findings"]
        if finding["severity"] != "note"
    }
