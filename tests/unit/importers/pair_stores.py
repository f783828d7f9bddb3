"""The two stores that the real MLflow made (tests/fixtures/make/mlflow_pair.py), and copies of them to break."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from bundler.importers.mlflow import MlflowImporter
from bundler.importers.model import ImportedRun

FIXTURES = Path(__file__).parents[2] / "fixtures" / "mlflow_pair"
SQL = FIXTURES / "sql" / "mlflow.db"
FILES = FIXTURES / "files" / "mlruns"
EXPERIMENT = "Größe & score"


@cache
def expected() -> dict[str, Any]:
    return json.loads((FIXTURES / "expected.json").read_text("utf-8"))["stores"]


def read(
    store: Path, experiment: str | None = EXPERIMENT, artefacts: Path | None = None, **options: bool
) -> list[ImportedRun]:
    importer = MlflowImporter()
    with importer.open(store, experiment=experiment, artefacts=artefacts, **options) as session:
        runs = list(session)
        assert len(session) == len(runs)
    return runs


def only(runs: list[ImportedRun], name: str) -> ImportedRun:
    (run,) = [run for run in runs if run.name == name]
    return run


def flags(run: ImportedRun) -> set[tuple[str, str]]:
    return {(each.field, each.flag) for each in run.fidelity}


def copy_sql(folder: Path) -> Path:
    shutil.copytree(SQL.parent, folder / "sql")
    return folder / "sql" / "mlflow.db"


def copy_files(folder: Path) -> Path:
    shutil.copytree(FILES, folder / "mlruns")
    return folder / "mlruns"


def change(store: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return store


def rich_run(mlruns: Path) -> Path:
    """The folder of the run that has some of everything."""
    (found,) = mlruns.glob("*/*/tags/schlüssel")
    return found.parents[1]


def snapshot(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.stat().st_mtime_ns,
        )
        for path in sorted([folder, *folder.rglob("*")])
    }
