"""The committed sessions and exports of real ClearML, and sessions made by hand."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bundler.errors import SourceError
from bundler.importers.clearml import ClearmlImporter
from bundler.importers.model import ImportedRun

FIXTURES = Path(__file__).parents[2] / "fixtures" / "clearml"
SESSIONS = FIXTURES / "sessions"
EXPORTS = FIXTURES / "exports"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
ID = "offline-" + "0f" * 16


def read(store: Path, experiment: str | None = None) -> list[ImportedRun]:
    """All runs of an experiment; their files are gone afterwards."""
    with ClearmlImporter().open(store, experiment=experiment, artefacts=None) as session:
        runs = list(session)
        assert len(session) == len(runs)
    return runs


def one(store: Path) -> ImportedRun:
    """The only run of a store."""
    (run,) = read(store)
    return run


def task(**more: Any) -> dict[str, Any]:
    """A ``task.json``."""
    return {
        "id": ID,
        "name": "by hand",
        "project_name": "toy",
        "offline_folder": f"/fixture/{ID}",
        "script": {},
        **more,
    }


def scalar(title: str, series: str, value: Any, **more: Any) -> dict[str, Any]:
    """A scalar event."""
    return {
        "type": "training_stats_scalar",
        "task": ID,
        "timestamp": 1000,
        "iter": 0,
        "metric": title,
        "variant": series,
        "value": value,
        **more,
    }


def lines(*events: list[Any]) -> bytes:
    """Lists of events as ClearML writes them."""
    return "".join(json.dumps(each) + "\n" for each in events).encode()


def session(
    folder: Path,
    *events: dict[str, Any],
    files: dict[str, bytes] | None = None,
    metrics: bytes | None = None,
    **more: Any,
) -> Path:
    """A session folder with one line of events (or ``metrics`` as they are) and other files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.json").write_text(json.dumps(task(**more)))
    if events or metrics is not None:
        (folder / "metrics.jsonl").write_bytes(lines(list(events)) if metrics is None else metrics)
    for name, data in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def packed(folder: Path) -> Path:
    """The zip file of a session folder, beside it."""
    path = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for each in sorted(folder.rglob("*")):
            if each.is_file():
                file.write(each, each.relative_to(folder))
    return path


def export(path: Path, **more: Any) -> Path:
    """An exported task."""
    said = {"id": "1e" * 16, "name": "by hand", "project_name": "toy", "script": {}, **more}
    path.write_text(json.dumps(said))
    return path


def refused(store: Path, match: str) -> SourceError:
    """Reading ``store`` is refused with a remedy, in words that cannot steer a terminal."""
    with pytest.raises(SourceError, match=match) as error:
        read(store)
    assert error.value.remedy
    assert (error.value.message + error.value.remedy).isprintable()
    return error.value


def flags(run: ImportedRun) -> set[tuple[str, str]]:
    """Field and flag of all the fidelity flags of a run."""
    return {(each.field, each.flag) for each in run.fidelity}


def details(run: ImportedRun) -> dict[tuple[str, str], str]:
    """The details of flags by field and flag."""
    return {(each.field, each.flag): each.detail for each in run.fidelity}
