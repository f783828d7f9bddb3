"""From the records of one W&B log to what the run was: settings, configuration, metrics, environment, artefacts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from bundler.importers import protobuf
from bundler.importers.files import too_large
from bundler.importers.json_lines import compact
from bundler.importers.protobuf import WireError, signed
from bundler.importers.values import Flag, clean
from bundler.importers.wandb.artefacts import LoggedArtefact, artefact
from bundler.importers.wandb.datastore import RecordLog, damaged
from bundler.importers.wandb.fields import environment_fields, milliseconds, run_fields, text_field
from bundler.importers.wandb.history import NAMES_MERGED, History
from bundler.importers.wandb.items import Name, leaves, parsed, read_item
from bundler.importers.wandb.summary import Summary, by_name
from bundler.records import Scalar

MAX_CONFIG = 64 << 20
"""Most bytes of configuration of one run, all changes of it included."""

_KEPT = 16
"""Bytes that a value which is there already counts as, each time that the object it is in is set again."""

MAX_ENTRIES = 100_000
"""Most files in the artefacts of one run."""

_DROPPED = b"Steps must be monotonically increasing"
"""W&B's own warning in the console output when it drops what was logged to an earlier step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What the record ``run`` says first: enough to find a run again. ``started`` is in milliseconds."""

    run_id: str
    project: str
    entity: str
    started: int | None


@dataclass(slots=True, kw_only=True)
class Recorded:
    """All that one record log says. ``values`` are the numbers of the summary, once all is read.

    ``merged`` are the names of those that several are called.
    """

    run: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    rewritten: set[str] = field(default_factory=set)
    history: History
    summary: Summary
    values: dict[str, float] = field(default_factory=dict)
    merged: set[str] = field(default_factory=set)
    environment: dict[str, Any] = field(default_factory=dict)
    telemetry: dict[str, str] = field(default_factory=dict)
    artefacts: list[LoggedArtefact] = field(default_factory=list)
    used: list[tuple[str, str]] = field(default_factory=list)
    exit_code: int | None = None
    open_ended: bool = False
    latest: int | None = None
    dropped: int = 0
    truncated: int | None = None


def identity(path: Path) -> Identity | None:
    """What the first ``run`` record of the log at ``path`` says, or ``None`` where a cut-off file has none."""
    log = RecordLog(path)
    for offset, data in log.records():
        try:
            for number, kind, value in protobuf.fields(data):
                if number == 17 and kind == protobuf.BYTES:
                    said = run_fields(cast(bytes, value))
                    return Identity(
                        run_id=said.get("id", ""),
                        project=said.get("project", ""),
                        entity=said.get("entity", ""),
                        started=said.get("started"),
                    )
        except WireError as error:
            raise damaged(path, offset, str(error)) from None
    return None


def recorded(path: Path) -> Recorded:
    """All that the record log at ``path`` says. Raises :class:`SourceError` that names file and offset."""
    log = RecordLog(path)
    reader = _Reader(path)
    for offset, data in log.records():
        try:
            reader.take(data)
        except WireError as error:
            raise damaged(path, offset, str(error)) from None
    try:
        reader.said.history.finish()
        reader.said.values, reader.said.merged = by_name(reader.said.summary.numbers())
    except WireError as error:
        raise damaged(path, None, f"in the summary, {error}") from None
    reader.said.truncated = log.truncated
    return reader.said


class _Reader:
    """Takes records one by one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._config_bytes = self._entries = 0
        self.said = Recorded(history=History(path), summary=Summary(path))

    def take(self, data: bytes) -> None:
        """Take one record: a number, and one field that says what it is."""
        number, start = _only_field(data)
        if number == 2:
            self.said.history.add(data[start:])
            return
        if number == 3:
            self.said.summary.add(data[start:])
            return
        for number, kind, value in protobuf.fields(data):
            if kind != protobuf.BYTES:
                continue
            body = cast(bytes, value)
            if number == 2:
                self.said.history.add(body)
            elif number == 3:
                self.said.summary.add(body)
            elif number in _TAKES:
                _TAKES[number](self, body)

    def run(self, body: bytes) -> None:
        """The run itself; a later record of it replaces what it names."""
        said = run_fields(body)
        tags = said.pop("tags")
        if said.get("telemetry"):
            self.telemetry(said.pop("telemetry"))
        started = self.said.run.get("started")
        self.said.run |= said
        if started is not None:
            self.said.run["started"] = started
        self.said.tags = tags or self.said.tags
        for config in said.get("configs", ()):
            self.config(config)
        for summary in said.get("summaries", ()):
            self.said.summary.add(summary)

    def config(self, body: bytes) -> None:
        """Changes of the configuration: values to set, then names to remove."""
        self._config_bytes += len(body)
        if self._config_bytes > MAX_CONFIG:
            raise too_large(self._path, f"{MAX_CONFIG:,} bytes of configuration")
        for number, kind, value in protobuf.fields(body):
            if kind != protobuf.BYTES or number not in {1, 2}:
                continue
            name, text = read_item(cast(bytes, value))
            if number == 1:
                self._set(name, text)
            else:
                place, last = self._within(name)
                place.pop(last, None)

    def _set(self, name: Name, text: bytes) -> None:
        place, last = self._within(name)
        value = parsed(text)
        # A later record of the run repeats the whole configuration, with 1.0 as 1.
        before = dict(leaves(name, place.get(last)))
        # What is kept is looked at again, however short the record.
        self._config_bytes += _KEPT * len(before)
        if self._config_bytes > MAX_CONFIG:
            raise too_large(self._path, f"{MAX_CONFIG:,} bytes of configuration")
        for path, leaf in leaves(name, value):
            if _was_float(before.get(path), leaf):
                self.said.rewritten.add(".".join(path))
        place[last] = _with_floats(place.get(last), value, 0)

    def _within(self, name: Name) -> tuple[dict[str, Any], str]:
        """The object that the last part of ``name`` is in."""
        place = self.said.config
        for part in name[:-1]:
            inner = place.get(part)
            if not isinstance(inner, dict):
                inner = place[part] = {}
            place = inner
        return place, name[-1] if name else ""

    def environment(self, body: bytes) -> None:
        """Hardware and software, from 0.31 on; several records add up."""
        self.said.environment |= environment_fields(body)

    def telemetry(self, body: bytes) -> None:
        """Versions."""
        for name, number in (("python", 4), ("wandb", 5), ("huggingface", 6), ("platform", 13)):
            found = text_field(body, number)
            if found:
                self.said.telemetry[name] = found

    def exit(self, body: bytes) -> None:
        """The end of the process: W&B writes no code of 0."""
        values = {
            number: cast(int, value)
            for number, kind, value in protobuf.fields(body)
            if kind == protobuf.VARINT
        }
        self.said.exit_code = signed(values.get(1, 0))
        self.said.run["runtime"] = signed(values.get(2, 0))
        self.said.open_ended = bool(values.get(3))

    def artefact(self, body: bytes) -> None:
        """An artefact that the run logged."""
        logged = artefact(body)
        self._entries += len(logged.entries) + 1
        if self._entries > MAX_ENTRIES:
            raise too_large(self._path, f"{MAX_ENTRIES:,} files in artefacts")
        self.said.artefacts.append(logged)

    def used(self, body: bytes) -> None:
        """An artefact that the run read: type and name."""
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise too_large(self._path, f"{MAX_ENTRIES:,} files in artefacts")
        self.said.used.append((text_field(body, 2), text_field(body, 3)))

    def stamped(self, body: bytes) -> None:
        """System metrics and console output: no metrics of the model, but they have times."""
        for number, kind, value in protobuf.fields(body):
            if number == 2 and kind == protobuf.BYTES:
                time = milliseconds(cast(bytes, value))
                if time is not None:
                    self.said.latest = max(self.said.latest or time, time)

    def output(self, body: bytes) -> None:
        """Console output."""
        self.said.dropped += _DROPPED in body
        self.stamped(body)


def _only_field(data: bytes) -> tuple[int, int]:
    """Number and start of the one message that ``data`` holds after its own number; 0 where there is more or less."""
    position = 0
    if data[:1] == b"\x08":
        position = 1
        while position < 8 and data[position : position + 1] >= b"\x80":
            position += 1
        position += 1
    if len(data) < position + 4:
        return 0, 0
    tag, length, more, most = data[position : position + 4]
    position += 2
    if length >= 0x80:
        length = length & 0x7F | more << 7
        position += 1
        if more >= 0x80:
            if most >= 0x80:
                return 0, 0  # four bytes or more
            length = length & 0x3FFF | most << 14
            position += 1
    found = tag & 7 == protobuf.BYTES and tag < 0x80 and position + length == len(data)
    return (tag >> 3, position) if found else (0, 0)


_TAKES = {
    5: _Reader.config,
    7: _Reader.stamped,
    8: _Reader.artefact,
    11: _Reader.telemetry,
    13: _Reader.output,
    17: _Reader.run,
    18: _Reader.exit,
    25: _Reader.used,
    26: _Reader.environment,
}
"""What is read of a record besides history (2) and summary (3); alerts, metric definitions and requests are not."""


def parameters(config: dict[str, Any]) -> Iterator[tuple[str, Scalar]]:
    """The configuration on one level, types as they are; a list is one parameter, as JSON text."""
    for key, value in config.items():
        if key == "_wandb":
            continue  # W&B's own bookkeeping
        for path, leaf in leaves((key,), value):
            name = ".".join(path)
            if isinstance(leaf, list | dict):
                yield name, compact(leaf)
            else:
                yield name, leaf


def named_parameters(config: Mapping[str, Any], flag: Flag) -> dict[str, Scalar]:
    """The configuration by names that can be written; what cannot be told from it is flagged."""
    found: dict[str, Scalar] = {}
    for name, value in parameters(dict(config)):
        written = clean(name) or ""
        if written in found:
            flag(f"parameters.{written}", "names_merged", f"{NAMES_MERGED}; the first is kept")
            continue
        found[written] = clean(value) if isinstance(value, str) else value
        if value is None:
            flag(f"parameters.{written}", "null_ambiguous", "W&B writes NaN as null too")
    return found


def _was_float(before: Any, after: Any) -> bool:
    return (
        isinstance(before, float)
        and isinstance(after, int)
        and not isinstance(after, bool)
        and before == after
    )


def _with_floats(before: Any, after: Any, depth: int) -> Any:
    """``after`` with what W&B loses of ``before``: floats that it wrote as integers, and empty objects."""
    if _was_float(before, after):
        return before
    if isinstance(before, dict) and isinstance(after, dict) and depth < 64:
        empty = {key: value for key, value in before.items() if value == {}}
        return empty | {
            key: _with_floats(before.get(key), value, depth + 1) for key, value in after.items()
        }
    return after
