"""A small provider for tests: a git repository, eight runs in a fake tracker, a bundle.yaml, a key.

Everything but the tracker is real. The tracker is a fake that holds :class:`ImportedRun` objects, so that a test can
say in one line what is different from an honest provider.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519
from safetensors.numpy import save

from bundler import importers
from bundler.build import Built, Request, build
from bundler.config import load
from bundler.importers.model import ArtefactFile, ImportedRun
from bundler.records import CodeVersion, DatasetVersion, MetricPoint, Source
from bundler.signers import FileSigner
from bundler.trust import Key, load_keys

KEY = FileSigner(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
"""The provider's key in tests: fixed, so that bundles are byte-identical."""

TRUST: tuple[Key, ...] = load_keys(KEY.public_pem(), name="trust.pem")

T0 = 1_760_000_000_000
DATA = b"x,y\n" + b"".join(b"%d,%d\n" % (i, i % 2) for i in range(10))
ROWS = 400

TRAIN = """\
import json, pathlib, sys
seed, rate, out = int(sys.argv[1]), float(sys.argv[2]), pathlib.Path(sys.argv[3])
out.mkdir(parents=True, exist_ok=True)
(out / "result.json").write_text(json.dumps({"seed": seed, "rate": rate}))
"""

CONFIG = {
    "version": 1,
    "system": {
        "name": "tiny-scoring",
        "version": "1.0.0",
        "provider": "Example Bank",
        "intended_purpose": "Scoring of loan applications by natural persons",
        "annex_iii": "5(b)",
        "responsible": "A. Example",
    },
    "sources": [{"tracker": "tiny", "store": "store"}],
    "facts": {
        "seed": "parameters.seed",
        "code_dirty": "tags.dirty",
        "data_sha256": "tags.data.sha256",
        "environment": "artefacts.environment.json",
        "model": "model.safetensors",
        "metrics": {
            "hold-out": ["holdout_*"],
            "validation": ["val_*"],
            "training": ["train_*"],
        },
    },
    "selection": {
        "run": "run-c",
        "metric": "val_auc",
        "direction": "maximise",
        "rationale": "Best validation AUC within the disparity bound.",
        "declared_at": "2025-10-01",
        "constraints": [{"metric": "val_disparity", "comparator": "<=", "threshold": 0.2}],
        "eligible": {"seed": [42]},
    },
    "reproducibility": {
        "level": "bitwise",
        "mechanisms": ["seeds", "deterministic algorithms"],
        "factors_of_variation": ["CPU instruction set"],
        "tolerances": [{"metric": "holdout_auc", "margin": 0.01}],
        "limitations": ["One CPU architecture was tried."],
    },
    "gates": [
        {
            "name": "auc",
            "category": "performance",
            "metric": "holdout_auc",
            "comparator": ">=",
            "threshold": 0.7,
            "sampling": {"kind": "auc", "dataset_role": "holdout", "positives": 120},
        },
        {
            "name": "disparity",
            "category": "fairness",
            "metric": "holdout_disparity",
            "comparator": "<=",
            "threshold": 0.2,
            "sampling": {"kind": "difference", "dataset_role": "holdout", "groups": [200, 200]},
        },
    ],
    "training": {
        "code": "repository",
        "command": ["{python}", "train.py", "{seed}", "{parameter.rate}", "{out}/store"],
        "inputs": {"data": "repository/data.csv"},
        "outputs": {"tracker": "tiny", "location": "store", "tensors": ["model.safetensors"]},
        "lock": "repository/requirements.txt",
    },
}


@dataclass
class Provider:
    """A provider's folder. Change ``runs`` or ``config``, then :meth:`build`."""

    root: Path
    commit: str
    runs: list[ImportedRun]
    config: dict = field(default_factory=lambda: json.loads(json.dumps(CONFIG)))

    def write_config(self) -> Path:
        path = self.root / "bundle.yaml"
        path.write_text(yaml.safe_dump(self.config, sort_keys=False))
        return path

    def build(self, target: Path, **options) -> Built:
        FakeImporter.runs = self.runs
        path = self.write_config()
        request = Request(
            config=load(path),
            base=self.root,
            target=target,
            signer=options.pop("signer", KEY),
            **options,
        )
        return build(request)

    def edit(self, run_id: str, change: Callable[[ImportedRun], ImportedRun]) -> None:
        self.runs = [change(run) if run.source.run_id == run_id else run for run in self.runs]

    def add(self, run: ImportedRun) -> None:
        self.runs = [*self.runs, run]


class FakeImporter:
    """A tracker that holds what a test gave it."""

    name = "tiny"
    runs: list[ImportedRun] = []  # noqa: RUF012

    def detect(self, folder: Path) -> tuple[Path, ...]:
        return ()

    def experiments(self, store: Path) -> tuple[str, ...]:
        return ("tiny",)

    @contextmanager
    def open(
        self, store: Path, *, experiment: str | None, artefacts: Path | None
    ) -> Iterator[list]:
        yield sorted(self.runs, key=lambda run: (run.started or 0, run.source.run_id))


def install(monkeypatch) -> None:
    """Make the tracker ``tiny`` known for the length of a test."""
    original = importers.find

    def find(name: str, *, built_in_only: bool = False):
        return FakeImporter() if name == "tiny" else original(name, built_in_only=built_in_only)

    monkeypatch.setattr(importers, "find", find)


def make_provider(root: Path) -> Provider:
    """A git repository with a training script and data, and the runs of an honest search."""
    repository = root / "repository"
    repository.mkdir(parents=True)
    (repository / "train.py").write_text(TRAIN)
    (repository / "data.csv").write_bytes(DATA)
    (repository / "requirements.txt").write_text("numpy==2.0.0\n")
    git = ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    when = {"GIT_AUTHOR_DATE": "@1750000000 +0000", "GIT_COMMITTER_DATE": "@1750000000 +0000"}
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "training"]):
        subprocess.run([*git, *arguments], check=True, env={"PATH": "/usr/bin:/bin", **when})
    commit = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    artefacts = root / "artefacts"
    runs = [
        make_run("run-a", commit, artefacts, model="logistic", val_auc=0.70),
        make_run("run-b", commit, artefacts, rate="0.1", val_auc=0.74),
        make_run("run-c", commit, artefacts, rate="0.01", val_auc=0.78),
        make_run("run-d", commit, artefacts, rate="1.0", val_auc=0.80, val_disparity=0.4),
        make_run("run-e", commit, artefacts, rate="9.0", status="failed"),
        make_run("run-f", commit, artefacts, rate="0.5", val_auc=0.60, deleted=True),
        *(
            make_run(
                f"run-c{seed}",
                commit,
                artefacts,
                rate="0.01",
                seed=seed,
                val_auc=0.77 + seed / 1000,
            )
            for seed in (1, 2, 3)
        ),
    ]
    return Provider(root=root, commit=commit, runs=runs)


def make_run(
    run_id: str,
    commit: str,
    artefacts: Path,
    *,
    val_auc: float = 0.7,
    val_disparity: float = 0.1,
    seed: int = 42,
    rate: str = "0.01",
    model: str = "mlp",
    status: str = "finished",
    deleted: bool = False,
) -> ImportedRun:
    started = T0 + int(hashlib.sha256(run_id.encode()).hexdigest()[:6], 16)
    finals = {
        "val_auc": val_auc,
        "val_disparity": val_disparity,
        "holdout_auc": val_auc + (seed % 7) / 1000,
        "holdout_disparity": 0.08,
    }
    names = ["train_loss"] if status == "failed" else ["train_loss", *finals]
    points = []
    for name in sorted(names):
        if name == "train_loss":
            points += [MetricPoint(name, step, started + step, 1 / (step + 1)) for step in range(3)]
        else:
            points.append(MetricPoint(name, 3, started + 9, finals[name]))
    files = []
    if status == "finished":
        weights = np.arange(6, dtype=np.float32).reshape(2, 3) * np.float32(seed)
        contents = {
            "environment.json": b'{"python":"3.11.7","threads":1}',
            "model.safetensors": save({"weight": weights, "bias": weights[0]}),
        }
        for name, data in contents.items():
            path = artefacts / run_id / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            files.append(ArtefactFile(path=name, file=path))
    return ImportedRun(
        source=Source(
            tracker="tiny", store="fake", experiment_id="1", experiment="tiny", run_id=run_id
        ),
        name=f"name of {run_id}",
        status=status,
        deleted=deleted,
        started=started,
        ended=started + 1000,
        code=CodeVersion(commit=commit, branch="main", entry_point="train.py"),
        data=(
            DatasetVersion(name="tiny", role="training", rows=600),
            DatasetVersion(name="tiny", role="holdout", rows=ROWS),
        ),
        parameters={"rate": rate, "model": model, "seed": str(seed)},
        tags={"dirty": "false", "data.sha256": hashlib.sha256(DATA).hexdigest()},
        points=tuple(points),
        artefacts=tuple(files),
        fidelity=(),
    )


def with_value(run: ImportedRun, metric: str, value: float) -> ImportedRun:
    """``run`` with another value of ``metric``."""
    return replace(
        run,
        points=tuple(
            point._replace(value=value) if point.metric == metric else point for point in run.points
        ),
    )
