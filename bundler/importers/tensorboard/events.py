"""TensorBoard's events: scalars, hyperparameters and what is neither, from the bytes of ``Event`` messages.

Only scalars are metrics. Histograms, images, text and graphs are counted, not read. Scalars are 32-bit floats in most
writers; a 32-bit float is a double exactly.
"""

from __future__ import annotations

import math
import re
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bundler.canonical import MAX_INTEGER
from bundler.importers import json_lines
from bundler.importers.files import too_large
from bundler.importers.model import MetricPoint
from bundler.importers.protobuf import WireError
from bundler.importers.tensorboard.framing import Tail, damaged, records
from bundler.importers.tensorboard.values import (
    FLOAT,
    arguments,
    bytes_of,
    double,
    json_value,
    last,
    number_of,
    numbers,
    parts,
    scalar,
    unpacked,
)
from bundler.importers.values import Flag, flag_counts, text
from bundler.records import Scalar, Status

MAX_POINTS = 5_000_000
"""Most points of one run: about 1 GB of memory."""

MAX_NAMES = 1_000_000
"""Most different tags, and most hyperparameters, of one run."""

ARGUMENTS = b"args/text_summary"
"""Tag of the text with the arguments of the Trainer of transformers."""

_KINDS = {3: "histograms", 4: "images", 5: "histograms", 6: "audio"}
_START = 1
_TIME, _VALUE = struct.Struct("<d"), struct.Struct("<f")
_PLAIN = re.compile(
    # Time, step if it is not 0, a summary of one value, which has a tag and a 32-bit float.
    rb"\x09(?P<time>.{8})(?:\x10(?P<step>[\x80-\xff]{0,6}[\x01-\x7f]))?"
    rb"\x2a(?P<lengths>[\x00-\x7f]\x0a[\x00-\x7f])\x0a(?P<length>[\x00-\x76])(?P<tag>.*)\x15(?P<value>.{4})",
    re.DOTALL,
)
_STATUS: dict[int, Status] = {1: "finished", 2: "failed", 3: "running"}


@dataclass(slots=True)
class Events:
    """What the event files of one run hold. Times are in seconds since 1970-01-01 UTC, as written."""

    points: list[MetricPoint] = field(default_factory=list)
    parameters: dict[str, Scalar] = field(default_factory=dict)
    session_status: Status = "unknown"
    session_written: tuple[Path | None, float] = None, 0.0
    session_ended: float | None = None
    first: float | None = None
    last: float | None = None
    last_points: dict[Path, float] = field(default_factory=dict)
    restarts: list[int] = field(default_factory=list)
    _tags: dict[bytes, str] = field(default_factory=dict)
    _plugins: dict[bytes, str] = field(default_factory=dict)
    _narrow: Counter[str] = field(default_factory=Counter)
    _timeless: Counter[str] = field(default_factory=Counter)
    _skipped: dict[str, Counter[str]] = field(default_factory=dict)
    _overwritten: set[str] = field(default_factory=set)
    _merged: set[str] = field(default_factory=set)
    _whole: bool = False
    _file: Path | None = None

    def add(self, file: Path, shown: str, flag: Flag) -> None:
        """Take the events of ``file``, which flags call ``shown``.

        Raises :class:`SourceError` with the offset of a damaged record.
        """
        tail = Tail()
        for offset, data in records(file, tail):
            self.take(file, offset, data)
            if len(self.points) > MAX_POINTS:
                raise too_large(file, f"{MAX_POINTS:,} metric points of one run")
            if max(len(self._tags), len(self.parameters)) > MAX_NAMES:
                raise too_large(file, f"{MAX_NAMES:,} tags or hyperparameters of one run")
        if tail.offset is not None:
            flag("metrics", "truncated_file", f"{shown} is cut at byte {tail.offset}")

    def take(self, file: Path, offset: int, data: bytes) -> None:
        """Take one event, the record of ``file`` at ``offset``."""
        self._file = file
        try:
            self._event(data)
        except (WireError, struct.error, OverflowError) as error:
            raise damaged(file, offset, str(error)) from None

    def flag(self, flag: Flag) -> None:
        """Say what was changed or left out."""
        flag_counts("float32", self._narrow, flag)
        flag_counts("no_time", self._timeless, flag)
        for kind, tags in sorted(self._skipped.items()):
            flag("metrics", "skipped", f"{kind}: {tags.total()} values of {len(tags)} tags")
        for name in self._overwritten:
            flag(f"parameters.{name}", "overwritten", "logged more than once")
        for name in self._merged:
            flag(f"parameters.{name}", "names_merged", "several arguments are spelled so")
        if self._whole:
            flag("parameters", "type_lost", "every number was a double; whole ones are integers")
        for step in self.restarts:
            flag(
                "run",
                "restarted",
                f"at step {step}: TensorBoard hides the earlier points from there on",
            )

    @property
    def written_early(self) -> bool:
        """Whether the session's end was written before points in another file than its own.

        ``add_hparams`` says "success" before it adds its metrics in the same file, and some call it first of all.
        """
        file, time = self.session_written
        later = [each for each, last in self.last_points.items() if last > time]
        return self.session_ended is None and any(each != file for each in later)

    def _event(self, data: bytes) -> None:
        if self._plain(data):
            return
        held = last(data)
        time = unpacked("<d", held[1]) if 1 in held else 0.0
        step = number_of(held.get(2, 0))
        self._look_at_clock(time)
        if 5 in held:
            # Two summaries in one event are one, as Protocol Buffers have it.
            for value in parts(b"".join(parts(data, 5)), 1):
                self._value(value, time, step)
        # A writer that starts again where an earlier one has been says from where on it counts.
        if 7 in held and self.points and step > 0 and _START in numbers(bytes_of(held[7]), 1):
            self.restarts.append(step)

    def _plain(self, data: bytes) -> bool:
        """Take an event of the form that nearly all have: a short tag that is known, and one 32-bit float.

        It says the same as the long way, three times as fast.
        """
        match = _PLAIN.fullmatch(data)
        if match is None:
            return False
        tag = match["tag"]
        size = len(tag)
        name = self._tags.get(tag)
        if name is None or match["lengths"] + match["length"] != bytes(
            (size + 9, 10, size + 7, size)
        ):
            return False
        step = 0
        for shift, byte in enumerate(match["step"] or b""):
            step |= (byte & 0x7F) << (7 * shift)
        (time,) = _TIME.unpack(match["time"])
        self._look_at_clock(time)
        self._point(name, step, time, *_VALUE.unpack(match["value"]))
        self._narrow[name] += 1
        return True

    def _look_at_clock(self, time: float) -> None:
        if math.isfinite(time) and time > 0:
            self.first = time if self.first is None else min(self.first, time)
            self.last = time if self.last is None else max(self.last, time)

    def _value(self, data: bytes, time: float, step: int) -> None:
        """One ``Summary.Value``."""
        held = last(data)
        tag = bytes_of(held.get(1, b""))
        if 9 in held:
            self._plugin(tag, bytes_of(held[9]), time)
        name = self._tags.setdefault(tag, text(tag))
        plugin = self._plugins.get(tag, "")
        found: tuple[int, float] | None = None
        if 2 in held:
            found = FLOAT, unpacked("<f", held[2])
        elif plugin == "hparams" or (tag == ARGUMENTS and self._arguments(held.get(8, b""))):
            return
        elif plugin == "scalars":
            found = scalar(bytes_of(held.get(8, b"")))
        if found is None:
            kinds = [_KINDS[number] for number in held if number in _KINDS]
            counted = plugin or next(iter(kinds), "values without a kind")
            self._skipped.setdefault(counted, Counter())[name] += 1
            return
        dtype, number = found
        self._point(name, step, time, number)
        if dtype == FLOAT:
            self._narrow[name] += 1

    def _arguments(self, tensor: int | bytes) -> bool:
        """Take the arguments of a training that the Trainer of transformers logs as a text."""
        found, merged = arguments(bytes_of(tensor))
        self._merged |= merged
        for name, value in found.items():
            self._set(name, value)
        return bool(found)

    def _set(self, name: str, value: Scalar) -> None:
        if name in self.parameters and repr(self.parameters[name]) != repr(value):
            self._overwritten.add(name)
        self.parameters[name] = value

    def _point(self, name: str, step: int, time: float, value: float) -> None:
        timestamp = milliseconds(time)
        if timestamp is None:
            self._timeless[name] += 1
            timestamp = 0
        elif self._file is not None:
            self.last_points[self._file] = max(time, self.last_points.get(self._file, time))
        if abs(step) > MAX_INTEGER:
            raise OverflowError(f"step {step} of a metric")
        self.points.append(MetricPoint(name, step, timestamp, value))

    def _plugin(self, tag: bytes, metadata: bytes, time: float) -> None:
        """Writers describe a tag with its first value, or with each."""
        for plugin in parts(metadata, 1):
            name = text(b"".join(parts(plugin, 1)[-1:]))
            self._plugins.setdefault(tag, name)
            if name == "hparams":
                for content in parts(plugin, 2):
                    self._session(content, time)

    def _session(self, content: bytes, time: float) -> None:
        """Hyperparameters and status: what the plug-in calls a session."""
        for start in parts(content, 3):
            for entry in parts(start, 1):
                keys, values = parts(entry, 1), parts(entry, 2)
                # Protobuf leaves out what is empty.
                name = text(keys[-1] if keys else b"")
                self._set(name, self._parameter(values[-1] if values else b""))
        for end in parts(content, 4):
            self.session_status = _STATUS.get(next(iter(numbers(end, 1)), 0), "unknown")
            self.session_written = self._file, time
            self.session_ended = double(end, 2)

    def _parameter(self, data: bytes) -> Scalar:
        value = json_value(data, 0)
        if isinstance(value, list | dict):
            return json_lines.compact(value)
        if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_INTEGER:
            self._whole = True
            return int(value)
        found: Scalar = value
        return found


def is_event_file(name: str) -> bool:
    """Whether TensorBoard reads a file of this ``name``."""
    return "tfevents" in name and not name.endswith(".profile-empty")


def milliseconds(seconds: float) -> int | None:
    """A time as written, in milliseconds; ``None`` for none or one that no clock tells."""
    if not (math.isfinite(seconds) and 0 < seconds <= MAX_INTEGER / 1000):
        return None
    return round(seconds * 1000)
