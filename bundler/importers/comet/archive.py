"""Comet's offline archives: which there are in a store, what each says about its run, and which belong together."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundler.canonical import MAX_INTEGER
from bundler.errors import SourceError, quoted
from bundler.importers import archives
from bundler.importers.archives import Archive
from bundler.importers.files import unreadable
from bundler.importers.json_lines import a_list, a_text, an_object, parsed
from bundler.importers.values import clean, integer

FOLDER = ".cometml-runs"
"""Where Comet puts its archives by default."""

DESCRIPTION = "experiment.json"
MESSAGES = "messages.json"
MAX_DESCRIPTION = 1 << 20
MAX_ARCHIVES = 100_000

UNCATEGORISED = "Uncategorized Experiments"
"""The project that Comet puts a run into that names none."""

UNKNOWN = "unknown project"
"""For runs whose archives do not say: empty ones, and continuations of a run that was begun elsewhere."""

_NAME = re.compile(r"([0-9A-Za-z]{32,50})(-\w+)?\.zip")
"""The key of the run, and random letters where the run is or may be a continuation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One archive. An ``empty`` one is what a run leaves that never came to its end (killed, or still running)."""

    path: Path
    empty: bool
    key: str
    project: str | None = None
    workspace: str | None = None
    start: int | None = None
    stop: int | None = None
    strategy: str = "create"
    tags: tuple[str, ...] = ()
    error: str | None = None

    @property
    def order(self) -> tuple[int, str]:
        """By start; one without a start comes last: it was begun when nothing else was there to be said."""
        return (MAX_INTEGER if self.start is None else self.start, self.path.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The archives of one run in order, and the experiment (Comet's project) that it belongs to."""

    key: str
    segments: tuple[Segment, ...]
    project: str
    workspace: str

    @property
    def experiment_id(self) -> str:
        """Workspace and project: projects of several workspaces can have one name."""
        return f"{self.workspace}/{self.project}"

    @property
    def start(self) -> int | None:
        """Milliseconds; ``None`` where no archive says."""
        return next((each.start for each in self.segments if each.start is not None), None)


def runs(store: Path) -> list[Run]:
    """All runs of ``store`` (one archive, or a folder of them), by start and key. Raises :class:`SourceError`."""
    groups: dict[str, list[Segment]] = {}
    for path in _archives(store):
        segment = read_segment(path)
        if segment is not None:
            groups.setdefault(segment.key, []).append(segment)
    if not groups:
        raise SourceError(
            f"{quoted(str(store), 200)} holds no offline experiment of Comet",
            remedy=f"Give a zip file that OfflineExperiment wrote, or their folder ({FOLDER}).",
        )
    found = [_run(key, segments) for key, segments in groups.items()]
    return sorted(_placed(found), key=lambda run: (run.start or 0, run.key))


def is_archive(path: Path) -> bool:
    """Whether ``path`` looks like an archive of Comet. Never raises."""
    try:
        return _NAME.fullmatch(path.name) is not None and read_segment(path) is not None
    except (SourceError, OSError):
        return False


def read_segment(path: Path) -> Segment | None:
    """What the archive at ``path`` says about its run; ``None`` if it is a zip file of something else.

    Raises :class:`SourceError` for one that is named as a run or has messages, and does not say whose they are.
    """
    named = _NAME.fullmatch(path.name)
    with archives.opened(path) as archive:
        if not archive.names and named is not None:
            return Segment(path=path, empty=True, key=named[1])
        if DESCRIPTION not in archive and (named is not None or MESSAGES in archive):
            raise damaged_member(path, DESCRIPTION, "is missing")
        if DESCRIPTION not in archive:
            return None
        return _described(path, archive)


def _archives(store: Path) -> list[Path]:
    try:
        if not store.is_dir():
            return [store]
        found = sorted(path for path in store.iterdir() if path.suffix == ".zip")
        linked = [path for path in found if path.is_symlink()]
        found = [path for path in found if path.is_file()]
    except OSError as error:
        raise unreadable(store, error) from None
    if linked:
        raise SourceError(
            f"{quoted(str(linked[0]), 200)} is a link",
            remedy="Replace it by a copy of what it leads to, or remove it.",
        )
    if len(found) > MAX_ARCHIVES:
        raise SourceError(
            f"{quoted(str(store), 200)} holds more than {MAX_ARCHIVES:,} archives",
            remedy="Move some of them into a folder of their own.",
        )
    return found


def _described(path: Path, archive: Archive) -> Segment:
    try:
        said = an_object(parsed(archive.read(DESCRIPTION, limit=MAX_DESCRIPTION)), "it")
        reported = said.get("customer_error_reported") is True
        return Segment(
            path=path,
            empty=False,
            key=clean(a_text(said.get("offline_id"), "offline_id")) or "",
            project=_text(said, "project_name"),
            workspace=_text(said, "workspace"),
            start=_time(said, "start_time"),
            stop=_time(said, "stop_time"),
            strategy=_text(said, "resume_strategy") or "create",
            tags=tuple(clean(tag) or "" for tag in a_list(said.get("tags"), "tags")),
            error=(_text(said, "customer_error_message") or "") if reported else None,
        )
    except ValueError as error:
        raise damaged_member(path, DESCRIPTION, str(error)) from None


def damaged_member(path: Path, member: str, problem: str) -> SourceError:
    """A member whose contents are not what Comet writes."""
    return SourceError(
        f"{quoted(str(path), 200)}, {member}: {problem}",
        remedy="Use an intact copy of the archive; Comet wrote it when the run ended.",
    )


def _text(said: dict[str, Any], name: str) -> str | None:
    return None if said.get(name) is None else clean(a_text(said[name], name))


def _time(said: dict[str, Any], name: str) -> int | None:
    value = said.get(name)
    if value is not None and (integer(value) is None or abs(value) > MAX_INTEGER):
        raise ValueError(f"{name} is {quoted(value)}")
    return value


def _run(key: str, segments: list[Segment]) -> Run:
    """The archives of one key. Comet itself refuses a second one that begins the run, and so does this."""
    segments = sorted(segments, key=lambda each: each.order)
    begun = [each for each in segments if not each.empty and each.strategy == "create"]
    if len(begun) > 1:
        names = " and ".join(quoted(each.path.name, 100) for each in begun[:2])
        raise SourceError(
            f"{quoted(str(begun[0].path.parent), 200)} holds run {quoted(key)} twice: {names} both begin it",
            remedy="Move one of them out of the folder; it is a copy, or two runs were given one key.",
        )
    projects = [each for each in segments if each.project]
    named = projects[0] if projects else next((each for each in segments if each.workspace), None)
    begins = any(not each.empty and each.strategy != "get" for each in segments)
    return Run(
        key=key,
        segments=tuple(segments),
        project=(named.project if named else None) or (UNCATEGORISED if begins else UNKNOWN),
        workspace=(named.workspace if named else None) or "",
    )


def _placed(found: list[Run]) -> Iterable[Run]:
    """Runs that do not say where they belong belong to the only experiment, if there is one only."""
    known = {(run.workspace, run.project) for run in found if run.project != UNKNOWN}
    for run in found:
        if run.project == UNKNOWN and len(known) == 1:
            ((workspace, project),) = known
            yield Run(key=run.key, segments=run.segments, project=project, workspace=workspace)
        else:
            yield run
