"""What MLflow's stores have in common: status, tags, data sets, points, and flags for what MLflow did to values."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import groupby
from typing import Any

from bundler.canonical import MAX_INTEGER
from bundler.errors import quoted
from bundler.importers.model import MetricPoint
from bundler.importers.values import Flag, clean, flag_counts, integer
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

_FIRST, _LAST = -62_135_596_800_000, 253_402_300_799_999
"""The milliseconds in which the year 1 begins and the year 9999 ends."""

_DIRTY = "mlflow.source.git.dirty"
_TRUTH = {"true": True, "false": False}


def status_of(value: object) -> Status:
    """The status, which the SQL store keeps as a word and the file store as a number."""
    return _STATUS.get(value, "unknown") if isinstance(value, int | str) else "unknown"


def in_range(value: object) -> int | None:
    """``value`` if it is a moment in milliseconds that a date can be: of the years 1 to 9999."""
    found = integer(value)
    return found if found is not None and _FIRST <= found <= _LAST else None


def moment(field: str, value: object, flag: Flag) -> int | None:
    """The moment of ``field`` in milliseconds; one that is none is left out and flagged."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    found = in_range(value)
    if found is None and value is not None:
        kind = "time_unreadable" if integer(value) is None else "time_out_of_range"
        flag("run", kind, field)
    return found


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


def stored_points(rows: Iterable[tuple[Any, ...]], flag: Flag) -> list[MetricPoint]:
    """Points from ``rows`` (metric, step, timestamp, value, is it NaN) of a SQL store, with flags for what it changed.

    Raises :class:`TypeError` for what is no point: half a step is none, and no text is made into a number.
    """
    points = []
    replaced: Counter[str] = Counter()
    clamped: Counter[str] = Counter()
    # A database gives a new text for each row.
    names: dict[str, str] = {}
    largest = sys.float_info.max
    for name, step, timestamp, stored, is_nan in rows:
        if type(name) is not str or not (_is_whole(step) and _is_whole(timestamp)):
            raise TypeError(f"a point of metric {quoted(name)}")
        key = names.setdefault(name, name)
        value = stored
        if is_nan:
            replaced[key] += 1
            value = math.nan  # MLflow stores 0.0
        elif abs(stored) == largest:
            clamped[key] += 1
            value = math.copysign(math.inf, value)
        points.append(MetricPoint(key, step, timestamp, float(value)))
    flag_counts("nan_replaced", replaced, flag)
    flag_counts("inf_clamped", clamped, flag)
    return points


def _is_whole(value: object) -> bool:
    return type(value) is int and -MAX_INTEGER <= value <= MAX_INTEGER


def by_value(points: list[MetricPoint], flag: Flag) -> None:
    """Sort ``points`` by (metric, timestamp, step, value), where the store does not tell the order of logging.

    Metrics that have more than one value at a time and step are flagged: which one came last is not known. MLflow
    itself takes the largest. NaN comes first.
    """
    points.sort(key=lambda each: (each[0], each[2], each[1], not math.isnan(each[3]), each[3]))
    unknown: Counter[str] = Counter()
    for (metric, _, _), group in groupby(points, key=lambda each: (each[0], each[2], each[1])):
        surplus = sum(1 for _ in group) - 1
        if surplus:
            unknown[metric] += surplus
    flag_counts("order_unknown", unknown, flag)
