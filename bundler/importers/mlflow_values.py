"""What both of MLflow's stores have in common: status, tags, data sets, and flags for what MLflow did to values."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from bundler.canonical import MAX_INTEGER
from bundler.errors import SourceError, quoted
from bundler.importers.model import MetricPoint
from bundler.records import CodeVersion, DatasetVersion, FidelityFlag, Status

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

Flag = Callable[[str, str, str], None]
"""Takes field, flag and detail of a :class:`FidelityFlag`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """An experiment of a store and how many runs it has, deleted ones included."""

    id: str
    name: str
    runs: int
    deleted: bool


class Flags:
    """Collects the fidelity flags of one run."""

    def __init__(self) -> None:
        self._flags: list[FidelityFlag] = []

    def __call__(self, field: str, flag: str, detail: str) -> None:
        """Take a flag."""
        self._flags.append(FidelityFlag(field=field, flag=flag, detail=detail))

    def all(self) -> tuple[FidelityFlag, ...]:
        """All flags, each once, sorted."""
        return tuple(
            sorted(set(self._flags), key=lambda each: (each.field, each.flag, each.detail))
        )


def ordered(experiments: Iterable[Experiment]) -> list[Experiment]:
    """Experiments with most runs first; ids are numbers in most stores, so shorter ones come first."""
    return sorted(experiments, key=lambda each: (-each.runs, len(each.id), each.id))


def choose(experiments: Iterable[Experiment], wanted: str | None, store: Path) -> Experiment:
    """The experiment called ``wanted`` (name, else id), or the only one that has runs.

    Deleted experiments count: leaving one out is for the caller to say, not for the store.
    """
    known = list(experiments)
    if wanted is None:
        matching = [each for each in known if each.runs] or known
        problem = "several experiments" if matching else "no experiment"
    else:
        matching = [each for each in known if each.name == wanted]
        matching = matching or [each for each in known if each.id == wanted]
        problem = (
            f"several experiments {quoted(wanted)}"
            if matching
            else f"no experiment {quoted(wanted)}"
        )
    if len(matching) != 1:
        names = ", ".join(
            f"{quoted(each.name)} (id {each.id}, {each.runs} runs{', deleted' if each.deleted else ''})"
            for each in known
        )
        raise SourceError(
            f"{quoted(str(store), 200)} has {problem}", remedy=f"Name one of: {names or 'none'}."
        )
    return matching[0]


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


def flag_steps(points: Iterable[MetricPoint], flag: Flag) -> None:
    """Flag metrics that have more than one value at a step: after a restart, or because no step was given.

    ``points`` are sorted by metric.
    """
    repeated = {}
    for metric, group in groupby(points, key=lambda point: point[0]):
        steps = [point[1] for point in group]
        surplus = len(steps) - len(set(steps))
        if surplus:
            repeated[metric] = surplus
    flag_counts("duplicate_step", repeated, flag)


def flag_counts(name: str, counts: Mapping[str, int], flag: Flag) -> None:
    """Flag each metric of ``counts`` with its number of points."""
    for metric, count in counts.items():
        flag(f"metrics.{metric}", name, f"{count} points")


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


def clean(value: object) -> str | None:
    """``value`` as text that can be written: escapes of JSON and YAML can make half a character."""
    return None if value is None else str(value).encode("utf-8", "backslashreplace").decode()


def text(data: bytes) -> str:
    """Text from bytes that should be UTF-8; what is not becomes an escape."""
    return data.decode("utf-8", "backslashreplace")


def readable_name(name: str, flag: Flag, field: str) -> str:
    """A file name as text. One that is not UTF-8 becomes text that says so, and is flagged."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        name = text(os.fsencode(name))
        flag(field, "not_utf8", name)
    return name


def integer(value: object) -> int | None:
    """``value`` if it is an integer."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def unreadable(place: Path, error: OSError) -> SourceError:
    """What an error of the system means: it names the file, or ``place`` if it names none."""
    return SourceError(
        f"{quoted(str(error.filename or place), 200)} cannot be read: {error.strerror or error}",
        remedy="Check path and permissions.",
    )


def too_large(place: Path, limit: str) -> SourceError:
    """A bound that no store of MLflow's own comes near."""
    return SourceError(
        f"{quoted(str(place), 200)} holds more than {limit}",
        remedy="MLflow does not make such a store; look at what has written it.",
    )
