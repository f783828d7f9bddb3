"""Copies of the fixture stores that real MLflow made, and small stores made by hand."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bundler.errors import SourceError
from bundler.importers.mlflow import MlflowImporter
from bundler.importers.model import ImportedRun

FIXTURES = Path(__file__).parents[2] / "fixtures" / "mlflow"
EXAMPLE = Path(__file__).parents[3] / "example_bundle" / "credit_scoring"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
MAIN = "Grüße/crédit"
STORE_OF = {"sqlite": "store.db", "files": "mlruns"}


def copy_of(kind: str, target: Path) -> Path:
    """A copy of one fixture store, with its artefacts, in ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    if kind == "sqlite":
        shutil.copy(FIXTURES / "store.db", target)
        shutil.copytree(FIXTURES / "mlartifacts", target / "mlartifacts", dirs_exist_ok=True)
    else:
        shutil.copytree(FIXTURES / "mlruns", target / "mlruns", dirs_exist_ok=True)
    return target / STORE_OF[kind]


def read(
    store: Path, experiment: str | None = MAIN, artefacts: Path | None = None, **more: Any
) -> list[ImportedRun]:
    """All runs of an experiment."""
    with MlflowImporter().open(
        store, experiment=experiment, artefacts=artefacts, **more
    ) as session:
        runs = list(session)
        assert len(session) == len(runs)
    return runs


def named(store: Path, name: str, **more: Any) -> ImportedRun:
    """The run called ``name``."""
    (run,) = [each for each in read(store, **more) if each.name == name]
    return run


def refused(store: Path, match: str, experiment: str | None = MAIN) -> SourceError:
    """Reading ``store`` is refused with a remedy, in words that cannot steer a terminal."""
    with pytest.raises(SourceError, match=match) as error:
        read(store, experiment)
    assert error.value.remedy
    assert (error.value.message + error.value.remedy).isprintable()
    return error.value


def flags(run: ImportedRun) -> set[tuple[str, str]]:
    """Field and flag of all the fidelity flags of a run."""
    return {(each.field, each.flag) for each in run.fidelity}


def execute(store: Path, *statements: str) -> None:
    """Change a SQLite store, also against its own rules."""
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA ignore_check_constraints=ON")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def state(folder: Path) -> dict[str, tuple[int, int, str]]:
    """``folder`` and everything below it: size, time of change, digest."""
    found = {}
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (status.st_size, status.st_mtime_ns, digest)
    return found


def make_run(store: Path, experiment: str = "1", run: str = "a" * 32, **meta: str) -> Path:
    """A run of a file store made by hand, with its experiment; returns its folder."""
    described = store / experiment / "meta.yaml"
    if not described.exists():
        write(described, f"experiment_id: '{experiment}'\nname: hand\nlifecycle_stage: active\n")
    folder = store / experiment / run
    (folder / "metrics").mkdir(parents=True)
    lines = {
        "run_id": run,
        "status": "3",
        "start_time": "1000",
        "lifecycle_stage": "active",
        **meta,
    }
    write(folder / "meta.yaml", "".join(f"{key}: {value}\n" for key, value in lines.items()))
    return folder


def write(file: Path, text: str | bytes) -> Path:
    """Write a file and the folders that it needs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file
