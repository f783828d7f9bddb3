"""Neptune's offline folders: ``.neptune/offline/run__…/data-N.log``, the operations that were never sent.

Read for clients 0.10 to 1.14. What an operation would have done on Neptune's server is done here.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from bundler.canonical import MAX_INTEGER
from bundler.errors import quoted
from bundler.importers.files import below, walk
from bundler.importers.model import ArtefactFile
from bundler.importers.neptune.attributes import Attributes, Moment, short_name
from bundler.importers.neptune.copies import Copies
from bundler.importers.neptune.logs import is_log, metadata_of, operations
from bundler.importers.neptune.parquet import artefact_path
from bundler.importers.values import Flags, flag_counts
from bundler.records import DatasetVersion, Scalar

_FOLDER = re.compile(r"(?:(run|model|model_version|project)__)?([0-9A-Za-z-]{8,64})(?:__.*)?")
_ASSIGNED = {"AssignFloat": float, "AssignInt": int, "AssignBool": bool, "AssignString": str}
_IGNORED = {"ConfigFloatSeries", "ClearImageLog", "ClearStringLog"}


@dataclass(slots=True)
class OfflineRun:
    """A run: the folders with its logs, one an execution, and when it began (milliseconds)."""

    run: str
    folders: list[Path] = field(default_factory=list)
    started: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where files of a run may lie: below its ``.neptune`` in ``store``, and below ``given``."""

    store: Path
    given: Path | None

    def own(self, folder: Path) -> Path:
        """The folder ``.neptune`` that has a run's ``folder``, no higher than the store; without one, the folder."""
        inside = [each for each in (folder, *folder.parents) if each.is_relative_to(self.store)]
        return next((each for each in inside if each.name == ".neptune"), folder)


def find(store: Path) -> list[OfflineRun]:
    """All runs below ``store``. Logs of projects and models are no runs."""
    flags = Flags()
    folders = sorted(
        {
            each.file.parent
            for each in walk(store, "", flags)
            if each.file is not None and is_log(each.file.name)
        }
    )
    runs: dict[str, OfflineRun] = {}
    for folder in folders:
        metadata = metadata_of(folder, flags)
        kind, identity = _identity(folder, metadata)
        if kind != "run":
            continue
        run = runs.setdefault(identity, OfflineRun(identity))
        run.folders.append(folder)
        began = _moment(metadata.get("createdAt"))
        run.started = began if run.started is None else min(run.started, began or run.started)
    for run in runs.values():
        run.folders.sort(
            key=lambda each: (_moment(metadata_of(each, flags).get("createdAt")) or 0, each)
        )
    return list(runs.values())


def read(run: OfflineRun, places: Places) -> Attributes:
    """The attributes that the operations of ``run`` make."""
    attributes = Attributes(started=run.started)
    copies = Copies() if len(run.folders) > 1 else None
    for folder in run.folders:
        attributes.environment |= _environment(metadata_of(folder, attributes.flags))
        reader = _Reader(attributes, folder, places)
        for operation, at in operations(folder, attributes.flags):
            if copies is not None:
                copies.check(folder, operation, at)
            attributes.ended = _milliseconds(at) or attributes.ended
            reader.take(operation)
        reader.finish()
    if attributes.ended is not None:
        attributes.flags("run", "time_of_events", "its end is that of its last operation")
    if not any(path.startswith("source_code/commit") for path in attributes.values):
        attributes.flags("code", "not_recorded", "offline logs have no commit")
    return attributes


class _Reader:
    """Does what the operations of one folder say."""

    def __init__(self, attributes: Attributes, folder: Path, places: Places) -> None:
        self._attributes = attributes
        self._folder = folder
        self._places = places
        self._timeless: dict[str, int] = {}
        self._cleared: dict[str, int] = {}
        self._steps: dict[str, int] = {}
        self._unknown: dict[str, int] = {}
        self._kinds: dict[str, Callable[[str, dict[str, Any]], None]] = {
            "AssignArtifact": self._artefact,
            "AssignDatetime": self._datetime,
            "LogFloats": self._floats,
            "LogStrings": lambda path, each: self._skip("string_series", path, each),
            "LogImages": lambda path, each: self._skip("file_series", path, each),
            "AddStrings": lambda path, each: self._attributes.add(path, _texts(each.get("values"))),
            "RemoveStrings": self._remove,
            "ClearStringSet": self._empty,
            "ClearFloatLog": self._clear,
            "DeleteAttribute": self._delete,
            "UploadFile": self._upload,
            "UploadFileContent": self._content,
            "UploadFileSet": self._upload_set,
            "TrackFilesToArtifact": self._track,
        }

    def take(self, operation: dict[str, Any]) -> None:
        """Do one operation; what is none is counted."""
        path, kind = operation.get("path"), operation.get("type")
        if (
            not isinstance(path, list)
            or not path
            or not all(isinstance(each, str) for each in path)
        ):
            self._count_unknown(kind)
            return
        name = "/".join(path)
        if kind in _ASSIGNED:
            self._assign(name, operation.get("value"), _ASSIGNED[kind])
        elif kind in self._kinds:
            self._kinds[kind](name, operation)
        elif kind not in _IGNORED:
            self._count_unknown(kind)

    def finish(self) -> None:
        """Say what was left out."""
        flag = self._attributes.flags
        flag_counts("no_time", self._timeless, flag)
        flag_counts("cleared", self._cleared, flag)
        flag_counts("step_lost", self._steps, flag)
        for kind, count in self._unknown.items():
            flag("run", "unknown_operation", f"{count} times {kind}")

    def _count_unknown(self, kind: object) -> None:
        shown = quoted(kind, 40)
        if shown not in self._unknown and len(self._unknown) >= 100:
            shown = "others"
        self._unknown[shown] = self._unknown.get(shown, 0) + 1

    def _assign(self, path: str, value: object, kind: type) -> None:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = _float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self._attributes.flags(
                f"parameters.{short_name(path)}", "unreadable", f"no {kind.__name__}"
            )
            return
        held: Scalar = value  # type: ignore[assignment]  # one of the four types
        self._attributes.assign(path, held)

    def _datetime(self, path: str, operation: dict[str, Any]) -> None:
        value = operation.get("value")
        if isinstance(value, int) and abs(value) <= MAX_INTEGER:
            self._attributes.assign(path, Moment(value))

    def _floats(self, path: str, operation: dict[str, Any]) -> None:
        for each in _objects(operation.get("values")):
            value = each.get("value")
            number = _float(value) if isinstance(value, int | float) else None
            if number is None:
                self._count_unknown("LogFloats without a number")
                continue
            time = _milliseconds(each.get("ts"))
            if time is None:
                self._timeless[path] = self._timeless.get(path, 0) + 1
            step = _step(each.get("step"))
            if step is None and each.get("step") is not None:
                self._steps[path] = self._steps.get(path, 0) + 1
            self._attributes.append(path, step, time or 0, number)

    def _skip(self, kind: str, path: str, operation: dict[str, Any]) -> None:
        for _ in _objects(operation.get("values")):
            self._attributes.skip(kind, path)

    def _remove(self, path: str, operation: dict[str, Any]) -> None:
        self._attributes.sets.get(path, set()).difference_update(_texts(operation.get("values")))

    def _empty(self, path: str, _: dict[str, Any]) -> None:
        self._attributes.sets.pop(path, None)

    def _clear(self, path: str, _: dict[str, Any]) -> None:
        removed = len(self._attributes.series.pop(path, ()))
        if removed:
            self._cleared[path] = self._cleared.get(path, 0) + removed

    def _delete(self, path: str, operation: dict[str, Any]) -> None:
        self._clear(path, operation)
        held: list[dict[str, Any]] = [self._attributes.values, self._attributes.sets]
        if any([each.pop(path, None) is not None for each in held]):  # noqa: C419  # of all of them
            self._attributes.flags(f"parameters.{short_name(path)}", "deleted", "by the run itself")

    def _artefact(self, path: str, operation: dict[str, Any]) -> None:
        digest = operation.get("hash")
        self._attributes.data.append(
            DatasetVersion(
                name=artefact_path(path),
                tracker_digest=f"neptune:{digest}" if isinstance(digest, str) else None,
            )
        )

    def _track(self, path: str, operation: dict[str, Any]) -> None:
        """Data sets are named; their digests were only made while sending."""
        entries = operation.get("entries")
        for entry in entries if isinstance(entries, list) else ():
            source = entry[0] if isinstance(entry, list) and entry else None
            if isinstance(source, str):
                self._attributes.data.append(
                    DatasetVersion(name=artefact_path(path), source=source)
                )

    def _upload(self, path: str, operation: dict[str, Any]) -> None:
        ending = operation.get("ext")
        shown = artefact_path(f"{path}.{ending}" if isinstance(ending, str) and ending else path)
        temporary, original = operation.get("tmp_file_name"), operation.get("file_path")
        if isinstance(temporary, str) and temporary:
            # No name of a file in a folder below: the client makes none.
            place = (self._folder / "upload_path").relative_to(self._places.store)
            found = self._below(self._places.store, (*place.parts, temporary))
        else:
            found = self._find(original) if isinstance(original, str) else None
        self._put(shown, found)

    def _upload_set(self, path: str, operation: dict[str, Any]) -> None:
        """Files by their paths, or by a pattern for the names in one folder."""
        for pattern in _texts(operation.get("file_globs")):
            folder, _, name = pattern.rpartition("/")
            if not any(each in name for each in "*?["):
                self._put(artefact_path(f"{path}/{name}"), self._find(pattern))
                continue
            place = self._find(folder, least=1)
            names = _names(place) if place is not None else []
            found = [each for each in names if fnmatchcase(each, name)]
            for each in found:
                self._put(artefact_path(f"{path}/{each}"), self._below(place, (each,)))
            if not found:
                self._put(artefact_path(f"{path}/{name}"), None)

    def _content(self, path: str, operation: dict[str, Any]) -> None:
        self._attributes.flags("artefacts", "inline_skipped", "bytes inside the log are not read")
        self._put(artefact_path(path), None)

    def _put(self, shown: str, place: Path | None) -> None:
        if place is None:
            self._attributes.flags("artefacts", "missing", shown)
        elif place.is_dir():
            for each in walk(place, f"{shown}/", self._attributes.flags):
                self._attributes.put(each)
            return
        self._attributes.put(ArtefactFile(path=shown, file=place))

    def _find(self, original: str, *, least: int = 2) -> Path | None:
        """The file or folder that was at an absolute path on the machine of the run, if it lies where it may lie.

        If it was moved, the longest end of the path that is there counts, and is flagged. Of a file that is at
        ``least`` its name and that of its folder: by its name alone, a file of another run would be taken.
        """
        windows = re.match(r"[A-Za-z]:[\\/]", original)
        parts = (PureWindowsPath if windows else PurePath)(original).parts[1:]
        if ".." in parts:
            return None
        given = self._places.given
        roots = [each.absolute() for each in (given, self._places.own(self._folder)) if each]
        for root in roots:
            if not windows and PurePath(original).is_relative_to(root):
                return self._below(root, PurePath(original).relative_to(root).parts)
        for count in range(min(len(parts), 16), least - 1, -1):
            end = parts[-count:]
            for root in roots:
                found = self._below(root, end)
                if found is None and end[0] == root.name:
                    found = self._below(root, end[1:])  # what is given is the folder itself
                if found is not None:
                    self._attributes.flags("artefacts", "moved", "/".join(end))
                    return found
        return None

    def _below(self, root: Path | None, parts: Iterable[str]) -> Path | None:
        parts = tuple(parts)
        if root is None or any("/" in each for each in parts):
            return None
        return below(root, "/".join(parts) or ".", self._attributes.flags)


def _names(folder: Path) -> list[str]:
    """Names of the files in ``folder``; links are none."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return []
    return sorted(each.name for each in entries if each.is_file(follow_symlinks=False))


def _identity(folder: Path, metadata: dict[str, Any]) -> tuple[str, str]:
    """Kind and id of what was logged: from the metadata, or from the name of the folder or of that above it."""
    kind, identity = metadata.get("containerType"), metadata.get("containerId")
    if isinstance(kind, str) and isinstance(identity, str):
        return kind, identity
    for each in (folder.name, folder.parent.name):
        match = _FOLDER.fullmatch(each)
        if match and not each.startswith("exec-"):
            return match[1] or "run", match[2]
    return "run", folder.name


def _environment(metadata: dict[str, Any]) -> dict[str, Scalar]:
    named = {"platform": "os", "packages.neptune": "neptuneClientVersion"}
    found: dict[str, Scalar] = {
        name: metadata[key] for name, key in named.items() if isinstance(metadata.get(key), str)
    }
    python = metadata.get("pythonVersion")
    if isinstance(python, str) and python:
        found["python"] = python.partition(" ")[0]
    return found


def _moment(value: object) -> int | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
        return round(found.timestamp() * 1000) if found and found.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _milliseconds(seconds: object) -> int | None:
    number = _float(seconds) if isinstance(seconds, int | float) else None
    if number is None or not math.isfinite(number) or abs(number) > MAX_INTEGER / 1000:
        return None
    return round(number * 1000)


def _step(value: object) -> Decimal | None:
    """A step as written; ``None`` for none, and for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not math.isfinite(_float(value) or 0.0) or abs(value) > 10**12:
        return None
    return Decimal(repr(value))


def _float(value: float) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None


def _texts(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _objects(value: object) -> Iterable[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
