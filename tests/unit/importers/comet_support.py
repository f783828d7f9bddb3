"""The committed archives of real Comet, and archives made by hand."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bundler.errors import SourceError
from bundler.importers.comet import CometImporter
from bundler.importers.model import ImportedRun

FIXTURES = Path(__file__).parents[2] / "fixtures" / "comet"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
LOGGED = EXPECTED["logged"]
KEY = "0f" * 16
OTHER = "1e" * 16


def read(store: Path, experiment: str | None = None) -> list[ImportedRun]:
    """All runs of an experiment; their files are gone afterwards."""
    with CometImporter().open(store, experiment=experiment, artefacts=None) as session:
        runs = list(session)
        assert len(session) == len(runs)
    return runs


def one(store: Path, experiment: str | None = None) -> ImportedRun:
    """The only run of a store."""
    (run,) = read(store, experiment)
    return run


def named(name: str) -> ImportedRun:
    """The committed run called ``name``."""
    (run,) = [each for each in read(FIXTURES / "runs") if each.source.run_id == LOGGED[name]["key"]]
    return run


def described(**more: Any) -> dict[str, Any]:
    """An ``experiment.json``."""
    return {
        "offline_id": KEY,
        "project_name": "toy",
        "workspace": "lab",
        "start_time": 1000,
        "stop_time": 2000,
        "tags": [],
        "resume_strategy": "create",
        "customer_error_reported": False,
        "customer_error_message": None,
        **more,
    }


def metric(name: str, value: Any, **more: Any) -> dict[str, Any]:
    """A metric message."""
    said = {"metricName": name, "metricValue": value, "step": 0, "epoch": None, **more}
    return {"type": "metric_msg", "payload": {"local_timestamp": 1000, "metric": said}}


def parameter(name: str, value: Any, **more: Any) -> dict[str, Any]:
    """A parameter message."""
    said = {"paramName": name, "paramValue": value, "source": "manual", "step": None, **more}
    return {"type": "parameter_msg", "payload": {"param": said}}


def step(value: Any) -> dict[str, Any]:
    """What Comet writes where a new step is given."""
    return parameter("curr_step", value, source="auto-logged")


def upload(file: str, name: str | None, kind: str = "asset", **more: Any) -> dict[str, Any]:
    """A message of a file."""
    parameters = None if name is None else {"fileName": name, **more}
    return {
        "type": "file_upload",
        "payload": {"file_path": file, "upload_type": kind, "additional_params": parameters},
    }


def message(kind: str, **payload: Any) -> dict[str, Any]:
    """Any other message."""
    return {"type": kind, "payload": payload}


def archive(
    path: Path,
    messages: list[Any] | bytes = (),
    files: dict[str, bytes] | None = None,
    **more: Any,
) -> Path:
    """An archive with the given messages (bytes: as they are) and members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = messages if isinstance(messages, bytes) else lines(messages)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("experiment.json", json.dumps(described(**more)))
        file.writestr("messages.json", text)
        for name, data in (files or {}).items():
            file.writestr(name, data)
    return path


def lines(messages: Any) -> bytes:
    """Messages as Comet writes them."""
    return "".join(json.dumps(each) + "\n" for each in messages).encode()


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
