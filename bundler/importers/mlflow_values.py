"""What both of MLflow's stores have in common: status, tags, data sets, and flags for what MLflow did to values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from bundler.canonical import MAX_INTEGER
from bundler.importers.values import Flag, clean, integer
from bundler.records import CodeVersion, DatasetVersion, Status

PARAMETER_LIMIT = 6000
"""Characters after which MLflow cuts a parameter."""

TAG_LIMIT = 8000
"""Characters after which MLflow cuts a tag."""

_STATUS: dict[object, Status] = {
    "RUNNING": "running",
    "SCHEDULED": "scheduled",
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "killed",
    1: "running",
    2: "scheduled",
    3: "finished",
    4: "failed",
    5: "killed",
}

_MOVED = {
    "mlflow.source.git.repoURL",
    "mlflow.source.git.commit",
    "mlflow.source.git.branch",
    "mlflow.source.name",
    "mlflow.runName",
}
"""Tags that have a place of their own in a record."""

_DIRTY = "mlflow.source.git.dirty"
_TRUTH = {"true": True, "false": False}


def status_of(value: object) -> Status:
    """The status, which the SQL store keeps as a word and the file store as a number."""
    return _STATUS.get(value, "unknown") if isinstance(value, int | str) else "unknown"


def split_tags(tags: Mapping[str, str]) -> tuple[CodeVersion, dict[str, str]]:
    """The code version that MLflow keeps in tags, and the other tags. A missing dirty tag does not mean clean."""
    dirty = _TRUTH.get(tags.get(_DIRTY, "").lower())
    code = CodeVersion(
        repository=tags.get("mlflow.source.git.repoURL"),
        commit=tags.get("mlflow.source.git.commit"),
        branch=tags.get("mlflow.source.git.branch"),
        dirty=dirty,
        entry_point=tags.get("mlflow.source.name"),
    )
    moved = _MOVED if dirty is None else _MOVED | {_DIRTY}
    return code, {name: value for name, value in tags.items() if name not in moved}


def dataset(
    *, name: object, digest: object, source: object, profile: object, role: object
) -> DatasetVersion:
    """A data set input. ``source`` and ``profile`` are JSON in text, as MLflow stores them."""
    rows = integer(_loads(profile).get("num_rows"))
    return DatasetVersion(
        name=clean(name) or "",
        role=clean(role),
        source=clean(_origin(source)),
        version=clean(_loads(source).get("delta_table_version")),
        tracker_digest=clean(digest),
        rows=rows if rows is not None and 0 <= rows <= MAX_INTEGER else None,
    )


def _origin(source: object) -> str | None:
    """The place of the data if that is all that ``source`` says, else the whole text."""
    if source is None:
        return None
    described = _loads(source)
    for key in ("uri", "path", "url"):
        if described.keys() == {key} and isinstance(described[key], str):
            return str(described[key])
    return str(source)


def sorted_datasets(datasets: Iterable[DatasetVersion]) -> tuple[DatasetVersion, ...]:
    """Data sets by role, name and digest."""
    return tuple(
        sorted(datasets, key=lambda each: (each.role or "", each.name, each.tracker_digest or ""))
    )


def _loads(text: object) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        value = json.loads(str(text))
        if isinstance(value, dict):
            return value
    return {}


def flag_texts(
    parameters: Mapping[str, str], tags: Mapping[str, str], flag: Flag, limit: int = PARAMETER_LIMIT
) -> None:
    """Flag what happens to text: parameters lose their type, and long parameters and tags are cut at a limit.

    A tag that came with the creation of its run is not cut: one that is longer than the limit is whole.
    """
    if parameters:
        flag("parameters", "type_lost", "MLflow keeps text only")
    cut = [f"parameters.{name}" for name, value in parameters.items() if len(value) >= limit]
    cut += [f"tags.{name}" for name, value in tags.items() if len(value) == TAG_LIMIT]
    for field in cut:
        most = limit if field.startswith("parameters.") else TAG_LIMIT
        flag(field, "truncated", f"MLflow may have cut it at {most} characters")
