"""What ClearML leaves: session folders, their zip files, exported tasks; where they lie, and whose they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bundler.canonical import MAX_INTEGER
from bundler.errors import SourceError, quoted
from bundler.importers import archives
from bundler.importers.archives import Archive
from bundler.importers.clearml.values import moment
from bundler.importers.collected import temporary_folder
from bundler.importers.files import too_large, unreadable, walk
from bundler.importers.json_lines import a_list, an_object, lines, parsed
from bundler.importers.values import Flag, clean, integer

TASK = "task.json"
METRICS = "metrics.jsonl"
LOG = "log.jsonl"
OWN = {TASK, METRICS, LOG}
MAX_TASK = 64 << 20
MAX_LINE = 64 << 20
MAX_EVENTS = 8 << 30
MAX_TASKS = 100_000
_CHUNK = 1 << 20

_OF_A_TASK = {"script", "hyperparams", "execution", "session_api_version"}
"""Names of which an exported task has one at least."""

_SESSION = "offline-"
"""How the name of a session begins."""

_ANOTHERS = "offline-run-"
"""How the names of W&B's runs begin."""

Kind = Literal["archive", "folder", "export"]


_KINDS: dict[str, Kind] = {".zip": "archive", ".json": "export"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A task of the store: where it lies, what it is called, and when it was started (milliseconds).

    ``copy`` is the zip file of a folder, where that is there too.
    """

    path: Path
    kind: Kind
    id: str
    project: str
    deleted: bool
    start: int | None
    copy: Path | None = None


class FolderFiles:
    """The files of a session that lie in a folder. Links are not followed, but flagged."""

    def __init__(self, folder: Path, flag: Flag) -> None:
        self._folder = folder
        self._files = {each.path: each.file for each in walk(folder, "", flag) if each.file}
        self.names = tuple(sorted(self._files))

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def chunks(self, name: str, *, limit: int) -> Iterator[bytes]:
        """The bytes of a file in pieces. Raises :class:`SourceError` for more than ``limit``."""
        return _pieces(self._files[name], limit)

    def located(self, name: str) -> Path:
        """Where the file lies."""
        return self._files[name]


class ArchiveFiles:
    """The files of a session that lie in a zip file; they are taken out into ``folder`` when they are asked for."""

    def __init__(self, archive: Archive, folder: Path) -> None:
        self._archive = archive
        self._folder = folder
        self.names = archive.names
        self._numbers = {name: number for number, name in enumerate(self.names)}

    def __contains__(self, name: str) -> bool:
        return name in self._archive

    def chunks(self, name: str, *, limit: int) -> Iterator[bytes]:
        """The bytes of a member in pieces. Raises :class:`SourceError` for more than ``limit``."""
        return self._archive.chunks(name, limit=limit)

    def located(self, name: str) -> Path:
        """Where the file lies now. Its name there is a number: what it is called could be anything."""
        target = self._folder / str(self._numbers[name])
        if not target.exists():
            self._archive.extract(name, target)
        return target


Files = FolderFiles | ArchiveFiles


def _pieces(file: Path, limit: int) -> Iterator[bytes]:
    left = limit
    try:
        with file.open("rb") as stream:
            while piece := stream.read(_CHUNK):
                left -= len(piece)
                if left < 0:
                    raise too_large(file, f"{limit:,} bytes")
                yield piece
    except OSError as error:
        raise unreadable(file, error) from None


def _no_flag(field: str, flag: str, detail: str) -> None:
    """Links are flagged when the run is read."""


@contextmanager
def opened(path: Path, kind: Kind, folder: Path, flag: Flag = _no_flag) -> Iterator[Files]:
    """The files of a session; members of a zip file are taken out into ``folder``."""
    if kind == "folder":
        yield FolderFiles(path, flag)
    else:
        with archives.opened(path) as archive:
            yield ArchiveFiles(archive, folder)


def read_task(path: Path, kind: Kind, files: Files | None) -> dict[str, Any]:
    """The description of a task. Raises :class:`SourceError`."""
    pieces = _pieces(path, MAX_TASK) if files is None else files.chunks(TASK, limit=MAX_TASK)
    try:
        return an_object(parsed(b"".join(pieces)), "it")
    except ValueError as error:
        raise damaged(path, None if kind == "export" else TASK, str(error)) from None


def events(path: Path, files: Files, name: str, flag: Flag) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number of the line and event, of a file with a JSON list of events a line. A last line that is cut is flagged."""
    try:
        for line in lines(files.chunks(name, limit=MAX_EVENTS), MAX_LINE):
            try:
                found = a_list(parsed(line.data), "a line")
                objects = [an_object(each, "an event") for each in found]
            except ValueError as error:
                if not line.ended:
                    flag("run", "truncated", f"{name}, line {line.number} is cut")
                    return
                raise damaged(path, name, f"line {line.number}: {error}") from None
            for event in objects:
                yield line.number, event
    except ValueError as error:
        raise damaged(path, name, str(error)) from None


def event_time(event: dict[str, Any]) -> int | None:
    """When an event was reported (milliseconds), where it says so."""
    found = integer(event.get("timestamp"))
    return None if found is None or abs(found) > MAX_INTEGER else found


def places(store: Path) -> list[Place]:
    """All tasks of ``store``, by start and id. Raises :class:`SourceError`."""
    found: dict[str, Place] = {}
    for path, kind in _candidates(store):
        place = _place(path, kind)
        if place is None:
            continue
        other = found.setdefault(place.id, place)
        if other is place:
            continue
        pair = {other.kind: other, place.kind: place}
        if pair.keys() == {"archive", "folder"} and pair["archive"].path == _zip_of(
            pair["folder"].path
        ):
            # ClearML makes the zip file of the folder when the task ends, and may leave out what is not written yet.
            found[place.id] = replace(pair["folder"], copy=pair["archive"].path)
        else:
            raise SourceError(
                f"{quoted(str(store), 200)} holds task {quoted(place.id)} twice:"
                f" {quoted(other.path.name, 100)} and {quoted(path.name, 100)}",
                remedy="Move one of them out of the folder.",
            )
    if not found:
        raise SourceError(
            f"{quoted(str(store), 200)} holds no task of ClearML",
            remedy="Give an offline session (its folder or zip file), a JSON file of Task.export_task(),"
            " or a folder of these.",
        )
    return sorted(found.values(), key=lambda each: (each.start or 0, each.id))


def detected(folder: Path) -> bool:
    """Whether ``folder`` is or holds an offline session. Never raises."""
    try:
        paths = [folder, *sorted(folder.iterdir())]
        named = [each for each in paths if each == folder or each.name.startswith(_SESSION)]
        return any(_is_session(each) for each in named if not each.is_symlink())
    except OSError:
        return False


def _is_session(path: Path) -> bool:
    """Whether ``path`` is a session that can be read. One of another tracker's must not hide those beside it."""
    try:
        kind = _kind(path)
        return kind is not None and kind != "export" and _place(path, kind) is not None
    except SourceError:
        return False


def damaged(path: Path, member: str | None, problem: str) -> SourceError:
    """Contents that are not what ClearML writes."""
    where = quoted(str(path), 200) + (f", {quoted(member, 100)}" if member else "")
    return SourceError(
        f"{where}: {problem}",
        remedy="Use an intact copy of what ClearML wrote, or move it out of the folder.",
    )


def _link(path: Path) -> SourceError:
    return SourceError(
        f"{quoted(str(path), 200)} is a link",
        remedy="Replace it by a copy of what it leads to, or remove it.",
    )


def _zip_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.zip")


def _candidates(store: Path) -> list[tuple[Path, Kind]]:
    try:
        kind = _kind(store)
        # What is given may hold sessions, whatever its name is and what else lies in it.
        if kind is not None and (kind != "folder" or (store / TASK).is_file()):
            return [(store, kind)]
        if not store.is_dir():
            return []
        inside = sorted(store.iterdir())
        linked = [each for each in inside if each.is_symlink() and _kind(each) is not None]
        kinds = [(each, _kind(each)) for each in inside]
    except OSError as error:
        raise unreadable(store, error) from None
    if linked:
        raise _link(linked[0])
    found = [(each, kind) for each, kind in kinds if kind is not None]
    if len(found) > MAX_TASKS:
        raise too_large(store, f"{MAX_TASKS:,} tasks")
    return found


def _kind(path: Path) -> Kind | None:
    if path.is_dir():
        return "folder" if _is_named(path) or any((path / each).is_file() for each in OWN) else None
    if not path.is_file():
        return None
    return _KINDS.get(path.suffix)


def _is_named(path: Path) -> bool:
    return path.name.startswith(_SESSION) and not path.name.startswith(_ANOTHERS)


def _place(path: Path, kind: Kind) -> Place | None:
    """The task at ``path``; ``None`` for a zip or JSON file of something else.

    Raises :class:`SourceError` for what is named as a session or has its events, and lacks its task.
    """
    if kind == "export":
        task = _exported(path)
        return None if task is None else _described(path, kind, task, moment(task.get("started")))
    with (
        temporary_folder("aisdp-clearml-") as folder,
        opened(path, kind, folder) as files,
    ):
        if TASK not in files and (path / TASK).is_symlink():
            raise _link(path / TASK)
        if TASK not in files and (_is_named(path) or OWN.intersection(files.names)):
            raise damaged(path, TASK, "is missing")
        if TASK not in files:
            return None
        task = read_task(path, kind, files)
        started = moment(task.get("started"))
        return _described(path, kind, task, first_time(path, files) if started is None else started)


def _exported(path: Path) -> dict[str, Any] | None:
    """A JSON file of ``Task.export_task()``; ``None`` where the JSON says something else."""
    try:
        value = parsed(b"".join(_pieces(path, MAX_TASK)))
    except ValueError as error:
        raise damaged(path, None, str(error)) from None
    is_task = isinstance(value, dict) and "id" in value and _OF_A_TASK & value.keys()
    return value if is_task else None


def first_time(path: Path, files: Files) -> int | None:
    """When the first event of a session was reported: the session itself keeps no time."""
    times = []
    for name in (LOG, METRICS):
        if name in files:
            event = next(events(path, files, name, _no_flag), None)
            times += [event_time(event[1])] if event else []
    return min((each for each in times if each is not None), default=None)


def _described(path: Path, kind: Kind, task: dict[str, Any], start: int | None) -> Place:
    identity = task.get("id")
    if not isinstance(identity, str) or not identity:
        raise damaged(path, None if kind == "export" else TASK, "does not name its task (id)")
    project = task.get("project_name") or task.get("project")
    tags = task.get("system_tags")
    return Place(
        path=path,
        kind=kind,
        id=clean(identity) or "",
        project=clean(project) or "no project",
        deleted=isinstance(tags, list) and "archived" in tags,
        start=start,
    )
