"""One run of Comet, from the messages in its archives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bundler.errors import quoted
from bundler.importers import archives
from bundler.importers.archives import Archive
from bundler.importers.comet.archive import MESSAGES, Run, Segment, damaged_member
from bundler.importers.comet.files import Uploads
from bundler.importers.comet.values import CUT, FACTS, Parameters, Points, is_counter, text
from bundler.importers.json_lines import Line, a_text, an_object, compact, lines, parsed
from bundler.importers.model import ImportedRun
from bundler.importers.values import Flags
from bundler.records import CodeVersion, DatasetVersion, Scalar, Source, Status

MAX_LINE = 16 << 20
MAX_MESSAGES = 8 << 30
MAX_KEPT = 64 << 20
"""Most bytes of all the messages of one run of which something is kept: all but its metrics and what it printed."""

_CRASHED = "Unexpected error detected in the user script"
"""How Comet begins the error of a script; its own troubles stand in the same place."""

_LEFT_OUT = {
    "standard_output",
    "os_packages",
    "graph",
    "html",
    "htmlOverride",
    "3d-points",
    "register_model",
}
"""Messages that say nothing about how the model came about, or that are another's business (a registry)."""

_VALUES = {"metric_msg", "parameter_msg", "ws_msg"}
"""Messages whose contents say what they are, whatever their type."""

_OWN_OTHERS = {"Name", "offline_experiment", "hasNestedParams"}

# The names that messages had before Comet gave each kind a type of its own.
_OLD = {
    "env_details": "system_details",
    "git_meta": "git_metadata",
    "log_other": "log_other",
    "log_dependency": "log_dependency",
}
_OLD_WHOLE = {
    "fileName": ("file_name", "file_name"),
    "installed_packages": ("installed_packages", "installed_packages"),
    "gpu_static_info": ("gpu_static_info", "gpu_static_info"),
    "log_system_info": ("system_info", "system_info"),
}
_OLD_LEFT_OUT = {"stdout", "graph", "html", "htmlOverride", "os_packages", "code"}


def read(run: Run, folder: Path) -> ImportedRun:
    """``run`` as its archives hold it; its files are taken out into ``folder``. Raises :class:`SourceError`."""
    reader = _Reader(folder)
    for segment in run.segments:
        reader.read(segment)
    return reader.made(run)


class _Reader:
    """Collects what the messages of one run say."""

    def __init__(self, folder: Path) -> None:
        self._flag = Flags()
        self._points = Points()
        self._parameters = Parameters()
        self._uploads = Uploads(folder, self._flag)
        self._others: dict[str, str] = {}
        self._changed: set[str] = set()
        self._environment: dict[str, Scalar] = {}
        self._git: dict[str, str] = {}
        self._script: str | None = None
        self._unknown: Counter[str] = Counter()
        self._kept = 0

    def read(self, segment: Segment) -> None:
        """Take one archive."""
        self._points.restart()
        if segment.empty:
            self._flag(
                "run", "never_closed", f"{segment.path.name}: the run did not come to its end"
            )
            return
        with archives.opened(segment.path) as archive:
            if MESSAGES not in archive:
                raise damaged_member(segment.path, MESSAGES, "is missing")
            for number, payload, kind, size in self._messages(segment, archive):
                try:
                    if _keeps(kind, payload):
                        self._count(size)
                    self._take(kind, payload, archive, segment)
                except ValueError as error:
                    raise damaged_member(
                        segment.path, f"{MESSAGES}, line {number}", str(error)
                    ) from None

    def made(self, run: Run) -> ImportedRun:
        """The run from all that was taken."""
        for kind, count in sorted(self._unknown.items()):
            self._flag("run", "unknown_message", f"{count} of type {kind}")
        if len(run.segments) > 1:
            self._flag("run", "resumed", f"put together from {len(run.segments)} archives")
        if (
            all(each.strategy == "get" for each in run.segments if not each.empty)
            and not run.segments[0].empty
        ):
            self._flag("run", "beginning_missing", "only continuations of the run are here")
        points = self._points.all(self._flag)
        parameters = self._parameters.all(self._flag)
        return ImportedRun(
            source=Source(
                tracker="comet",
                store="offline",
                experiment_id=run.experiment_id,
                experiment=run.project,
                run_id=run.key,
            ),
            name=self._others.get("Name"),
            status=self._status(run),
            deleted=False,
            started=run.start,
            ended=run.segments[-1].stop,
            code=self._code(),
            data=self._data(),
            parameters=parameters,
            tags=self._tags(run),
            points=points,
            artefacts=self._uploads.all(),
            fidelity=self._flag.all(),
            environment=self._environment,
        )

    def _messages(
        self, segment: Segment, archive: Archive
    ) -> Iterator[tuple[int, dict[str, Any], str, int]]:
        """Number of the line, payload, type and bytes of each message. A last one that is cut is flagged."""
        try:
            for line in lines(archive.chunks(MESSAGES, limit=MAX_MESSAGES), MAX_LINE):
                message = self._message(line, segment)
                if message is not None:
                    yield line.number, message["payload"], message["type"], len(line.data)
        except ValueError as error:
            raise damaged_member(segment.path, MESSAGES, str(error)) from None

    def _message(self, line: Line, segment: Segment) -> dict[str, Any] | None:
        try:
            message = an_object(parsed(line.data), "a message")
            an_object(message.get("payload"), "the payload of a message")
            a_text(message.get("type"), "the type of a message")
        except ValueError as error:
            if not line.ended:
                self._flag("run", "truncated", f"{MESSAGES}, line {line.number} is cut")
                return None
            raise damaged_member(
                segment.path, f"{MESSAGES}, line {line.number}", str(error)
            ) from None
        return message

    def _count(self, size: int) -> None:
        self._kept += size
        if self._kept > MAX_KEPT:
            raise ValueError(f"more than {MAX_KEPT:,} bytes of parameters and facts in one run")

    def _take(self, kind: str, payload: dict[str, Any], archive: Archive, segment: Segment) -> None:
        if kind in _VALUES:
            self._value(payload)
        elif kind == "log_other":
            self._other(text(payload.get("key")), payload.get("value"))
        elif kind == "file_upload":
            self._uploads.add(payload, archive, segment.path)
        elif kind == "remote_file":
            self._uploads.add_remote(payload)
        elif kind == "remote_model":
            self._uploads.add_remote_model(payload)
        elif kind == "git_metadata":
            self._repository(payload.get("git_metadata"))
        elif kind == "file_name":
            self._script = text(payload.get("file_name"))
        elif kind in FACTS:
            self._environment.update(FACTS[kind](payload))
        elif kind not in _LEFT_OUT:
            self._unknown[quoted(kind, 40)] += 1

    def _value(self, payload: dict[str, Any]) -> None:
        """A metric or a parameter; in a ``ws_msg``, the only type of older versions, anything."""
        if payload.get("metric") is not None:
            self._points.add(payload)
        elif _parameter(payload) is not None:
            self._parameters.add(payload, _parameter(payload), self._points)
        else:
            self._old(payload)

    def _old(self, payload: dict[str, Any]) -> None:
        said = False
        for theirs, kind in _OLD.items():
            part = payload.get(theirs)
            if isinstance(part, dict):
                said = True
                self._old_part(kind, part)
        for theirs, (kind, name) in _OLD_WHOLE.items():
            if payload.get(theirs) is not None:
                said = True
                self._old_part(kind, {name: payload[theirs]})
        if not said and not _OLD_LEFT_OUT & payload.keys():
            self._unknown[quoted("ws_msg", 40)] += 1

    def _old_part(self, kind: str, part: dict[str, Any]) -> None:
        if kind == "log_other":
            self._other(text(part.get("key")), part.get("val"))
        elif kind == "git_metadata":
            self._repository(part)
        elif kind == "file_name":
            self._script = text(part["file_name"])
        else:
            self._environment.update(FACTS[kind](part))

    def _other(self, key: str, value: object) -> None:
        said = text(value)
        if self._others.setdefault(key, said) != said and key not in self._changed:
            self._changed.add(key)
            self._flag(f"tags.{key}", "overwritten", "")
        self._others[key] = said
        if said.endswith(CUT) or key.endswith(CUT):
            self._flag(f"tags.{key}", "truncated", "Comet cut it")

    def _repository(self, said: object) -> None:
        facts = an_object(said, "git_metadata")
        self._git.update({name: text(value) for name, value in facts.items() if value is not None})
        if "user" in self._git:
            self._environment["git.user"] = self._git["user"]

    def _code(self) -> CodeVersion:
        branch = self._git.get("branch")
        return CodeVersion(
            repository=self._git.get("origin"),
            commit=self._git.get("parent"),
            branch=None if branch is None else branch.removeprefix("refs/heads/"),
            # Without a patch nothing is known: logging it can be switched off, and it leaves out new files.
            dirty=True if self._uploads.patch else None,
            entry_point=self._script,
            patch=self._uploads.patch,
        )

    def _data(self) -> tuple[DatasetVersion, ...]:
        """The data set that was named, or its hash: Comet's, over the text form and cut, or any that was logged."""
        info = self._others.get("dataset_info")
        digest = self._parameters.get("dataset_hash")
        if info is None and digest is None:
            return ()
        return (
            DatasetVersion(
                name=info or "data",
                tracker_digest=None if digest is None else f"comet:{text(digest)}",
            ),
        )

    def _tags(self, run: Run) -> dict[str, str]:
        tags = {name: value for name, value in self._others.items() if name not in _OWN_OTHERS}
        words = sorted({tag for each in run.segments for tag in each.tags})
        if words:
            tags["comet.tags"] = compact(words)
        error = run.segments[-1].error
        if error is not None:
            tags["comet.error"] = error
        return tags

    def _status(self, run: Run) -> Status:
        last = run.segments[-1]
        if last.empty:
            return "unknown"
        if last.error is None:
            return "finished"
        if not last.error.startswith(_CRASHED):
            self._flag("run", "tracker_error", last.error[:200])
            return "finished"
        return "killed" if "KeyboardInterrupt" in last.error else "failed"


def _parameter(payload: dict[str, Any]) -> object:
    return payload.get("param", payload.get("params"))


def _keeps(kind: str, payload: dict[str, Any]) -> bool:
    """Whether a message becomes anything that stays but a point of a metric: a parameter, a tag, a fact, a file."""
    if kind not in _VALUES:
        return kind not in _LEFT_OUT
    if payload.get("metric") is not None:
        return False
    parameter = _parameter(payload)
    if parameter is not None:
        return not is_counter(parameter)
    return any(payload.get(name) is not None for name in (*_OLD, *_OLD_WHOLE))
