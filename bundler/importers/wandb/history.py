"""The metric history of a run, from history records of W&B's record log or from rows of its API."""

from __future__ import annotations

import gc
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from operator import le
from pathlib import Path
from typing import Any, cast

from bundler.errors import quoted
from bundler.importers import protobuf
from bundler.importers.files import too_large
from bundler.importers.model import MetricPoint
from bundler.importers.protobuf import WireError
from bundler.importers.values import Flag, clean, flag_counts
from bundler.importers.wandb.datastore import damaged
from bundler.importers.wandb.items import ItemReader, Name, Sink, leaves, numbers, parsed

MAX_POINTS = 5_000_000
MAX_METRICS = 100_000
MAX_NAME = 10_000
MAX_PARTS = 100
"""Most parts, with dots between them, of the name of a metric."""

_PENDING = 250_000
_PENDING_BYTES = 64 << 20
"""Values, and bytes of records, that wait as text before they are turned into numbers together."""

_EXACT = 1 << 53
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""What W&B writes for numbers inside other values, for want of a JSON word."""

_INFINITE = (math.inf, -math.inf)
_OWN = ("_step", "_timestamp", "_runtime", "_wandb")
NAMES_MERGED = "several names are spelled so: one with dots, or one in another"
MEDIA = "_type"
"""Name in an object that describes a file, a table or a histogram."""

_point = cast(Any, partial(tuple.__new__, MetricPoint))
"""Makes a point from four values, faster than the class does it."""


class Column:
    """The values of one metric with the rows that they stand in."""

    def __init__(self, name: str, path: Name = ()) -> None:
        self.name = name
        self.path = path or (name,)
        """The name with what it was nested in, the first time."""
        self.is_merged = False
        self.rows = array("I")
        self.values = array("d")
        self.waiting: list[bytes] = []
        self.waiting_rows: list[int] = []
        self.others = 0
        self.inexact = 0
        self.words = 0

    def sorted(
        self, pairs: Sequence[tuple[int, int]], *, is_sorted: bool
    ) -> tuple[Sequence[int], Sequence[float]]:
        """Rows and values in order of time, step and logging; ``pairs`` are time and step of all rows."""
        if is_sorted and all(map(le, self.rows, self.rows[1:])):
            return self.rows, self.values
        order = sorted(
            range(len(self.rows)), key=lambda each: (pairs[self.rows[each]], self.rows[each])
        )
        return [self.rows[each] for each in order], [self.values[each] for each in order]

    def add(self, row: int, value: Any) -> None:
        """Take a value that is a number; count one that is none."""
        if isinstance(value, str) and value in _WORDS:
            self.words += 1
            value = _WORDS[value]
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.others += 1
            return
        try:
            number = float(value)
        except OverflowError:
            number = math.inf if value > 0 else -math.inf
        self.inexact += number != value and not math.isnan(number)
        self.rows.append(row)
        self.values.append(number)


class History:
    """Collects history records; a row is what was logged at one step."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._columns: dict[str, Column] = {}
        self._items = ItemReader(self._sink)
        self._steps: list[int] = []
        self._times = Column("_timestamp")
        self._waiting = self._waiting_bytes = 0
        self._media: set[str] = set()
        self.last_values: dict[str, float] = {}

    def add(self, record: bytes) -> None:
        """Take a history record. Raises :class:`WireError`."""
        row = self._next_row()
        count, rest = self._items.read(record, row)
        step = _short_step(rest)
        if step is None:
            for number, kind, value in protobuf.fields(rest):
                if number == 1 and kind == protobuf.BYTES:
                    self._items.slow(cast(bytes, value), row)
                    count += 1
                elif number == 2 and kind == protobuf.BYTES:
                    step = _number(cast(bytes, value))
        if step is None:
            step = self._step_item(row)
        if not -_EXACT < step < _EXACT:
            raise WireError(f"step {step}", 0)
        self._steps.append(step)
        self._waiting += count
        self._waiting_bytes += len(record)
        if self._waiting > _PENDING or self._waiting_bytes > _PENDING_BYTES:
            self.finish()

    def finish(self) -> None:
        """Turn the texts that wait into numbers. Raises :class:`SourceError` that names metric and step."""
        self._waiting = self._waiting_bytes = 0
        # A value can be an object, and then gives columns that are not there yet.
        for column in [self._times, *self._columns.values()]:
            if column.waiting and (column is self._times or not is_own(column.name)):
                self._convert(column)
            column.waiting.clear()
            column.waiting_rows.clear()
        self._count()

    def _convert(self, column: Column) -> None:
        values = numbers(column.waiting)
        if values is not None and _are_exact(values):
            column.values.extend(values)
            column.rows.extend(column.waiting_rows)
            return
        for row, text in zip(column.waiting_rows, column.waiting, strict=True):
            try:
                value = parsed(text)
                # A number too large for a float reads as infinity, for which W&B has a word.
                column.inexact += value in _INFINITE and not text.endswith(b"Infinity")
                self._take(column, row, value)
            except WireError as error:
                problem = f"metric {quoted(column.name)} at step {self._steps[row]}: {error}"
                raise damaged(self._place, None, problem) from None

    def add_row(self, row: Mapping[str, Any]) -> int:
        """Take a row as W&B's API gives it, and return its step."""
        step = row.get("_step")
        if not isinstance(step, int) or not -_EXACT < step < _EXACT:
            raise WireError(f"a row of step {step!r}", 0)
        self._next_row()
        self._steps.append(step)
        for name, value in row.items():
            if not is_own(name) or name == "_timestamp":
                self._take(self._column((name,)), len(self._steps) - 1, value)
        return step

    def _next_row(self) -> int:
        """The number of the row that comes now. A row needs no values, so these bound it not."""
        if len(self._steps) >= MAX_POINTS:
            raise too_large(self._place, f"{MAX_POINTS:,} rows")
        return len(self._steps)

    def last(self, started: int | None) -> tuple[int, int | None]:
        """Step and time of the last row; a row without a time is of the time ``started`` or of the row before."""
        times = self._finished_times(started)
        return (self._steps[-1] if self._steps else 0), (times[-1] if times else None)

    def extend(self, other: History) -> None:
        """Add the rows of ``other`` after those that are here."""
        other.finish()
        self.finish()
        shift = len(self._steps)
        self._steps += other._steps
        self._media |= other._media
        pairs = [(self._times, other._times)]
        pairs += [(self._column(column.path), column) for column in other._columns.values()]
        for mine, theirs in pairs:
            mine.is_merged |= theirs.is_merged
            mine.rows.extend(row + shift for row in theirs.rows)
            mine.values.extend(theirs.values)
            mine.others += theirs.others
            mine.inexact += theirs.inexact
            mine.words += theirs.words
        self._count()

    def names(self) -> set[str]:
        """Names of all that was logged, be it a number or not."""
        return set(self._columns)

    def points(self, started: int | None, flag: Flag) -> tuple[MetricPoint, ...]:
        """All points, sorted; what became of values on the way is flagged. Sets :attr:`last_values`."""
        self.finish()
        times = self._finished_times(started)
        missing = len(times) - len(self._given_times())
        if missing:
            flag("metrics", "time_missing", f"{missing} steps")
        columns = [each for name, each in sorted(self._columns.items()) if not is_own(name)]
        metrics = [each for each in columns if self._media_of(each.name) is None]
        points, surplus = self._made(metrics, times)
        others = {each.name: each.others for each in metrics if each.others}
        for each in columns:
            root = self._media_of(each.name)
            if root is not None:
                others[root] = max(others.get(root, 0), each.others + len(each.values))
        flag_counts("not_a_number", others, flag)
        flag_counts("number_as_text", {c.name: c.words for c in metrics if c.words}, flag)
        flag_counts("type_lost", {c.name: c.inexact for c in metrics if c.inexact}, flag)
        for column in columns:
            if column.is_merged:
                flag(f"metrics.{column.name}", "names_merged", NAMES_MERGED)
        # As `flag_steps` does it, of which a second pass over all points would be half of the time.
        flag_counts("duplicate_step", surplus, flag)
        return tuple(points)

    def _made(
        self, columns: Sequence[Column], times: Sequence[int]
    ) -> tuple[list[MetricPoint], dict[str, int]]:
        """The points of ``columns``, and how many of each have a step that another has."""
        points: list[MetricPoint] = []
        surplus: dict[str, int] = {}
        pairs = list(zip(times, self._steps, strict=True))
        is_sorted = all(map(le, pairs, pairs[1:]))
        with _collector_paused():
            for column in columns:
                rows, values = column.sorted(pairs, is_sorted=is_sorted)
                steps = [self._steps[row] for row in rows]
                stamps = [times[row] for row in rows]
                points += map(_point, zip(repeat(column.name), steps, stamps, values, strict=False))
                if len(set(steps)) < len(steps):
                    surplus[column.name] = len(steps) - len(set(steps))
                if values:
                    self.last_values[column.name] = values[-1]
        return points, surplus

    def _column(self, name: Name) -> Column:
        text = clean(".".join(name)) or ""
        if text == "_timestamp":
            return self._times
        if name[-1:] == (MEDIA,) and len(name) > 1:
            self._media.add(clean(".".join(name[:-1])) or "")
        column = self._columns.get(text)
        if column is None:
            if len(text) > MAX_NAME:
                raise too_large(self._place, f"{MAX_NAME:,} characters in the name of a metric")
            if text.count(".") >= MAX_PARTS:
                raise too_large(self._place, f"{MAX_PARTS:,} parts in the name of a metric")
            column = self._columns[text] = Column(text, name)
            if len(self._columns) > MAX_METRICS:
                raise too_large(self._place, f"{MAX_METRICS:,} metrics")
        elif column.path != name:
            column.is_merged = True
        return column

    def _sink(self, name: Name) -> Sink:
        column = self._column(name)
        return column.waiting.append, column.waiting_rows.append

    def _media_of(self, name: str) -> str | None:
        """The file, table or histogram that ``name`` describes."""
        parts = name.split(".") if self._media else []
        prefixes = (".".join(parts[:length]) for length in range(1, len(parts)))
        return next((each for each in prefixes if each in self._media), None)

    def _step_item(self, row: int) -> int:
        """The step as an item says it, else the one after the last."""
        column = self._columns.get("_step")
        if column is not None and column.waiting_rows[-1:] == [row]:
            step = parsed(column.waiting[-1])
            if isinstance(step, int):
                return step
        return self._steps[-1] + 1 if self._steps else 0

    def _take(self, column: Column, row: int, value: Any) -> None:
        if not isinstance(value, dict):
            column.add(row, value)
        elif MEDIA in value or not value:
            column.others += 1
        else:
            for name, leaf in leaves(column.path, value):
                self._column(name).add(row, leaf)

    def _count(self) -> None:
        if len(self._steps) > MAX_POINTS:
            raise too_large(self._place, f"{MAX_POINTS:,} rows")
        if sum(len(each.values) for each in self._columns.values()) > MAX_POINTS:
            raise too_large(self._place, f"{MAX_POINTS:,} points")

    def _given_times(self) -> dict[int, int]:
        """Milliseconds of the rows that tell them."""
        return {
            row: int(value * 1000)
            for row, value in zip(self._times.rows, self._times.values, strict=True)
            if math.isfinite(value) and abs(value) < 1e15
        }

    def _finished_times(self, started: int | None) -> list[int]:
        """Milliseconds of each row; a row that has none takes that of the row before."""
        self.finish()
        given = self._given_times()
        times: list[int] = []
        for row in range(len(self._steps)):
            times.append(given.get(row, times[-1] if times else started or 0))
        return times


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Without searching a million new points for cycles, again and again: that is three quarters of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def is_own(name: str) -> bool:
    """Whether W&B, and not the training, logs ``name``."""
    return name.partition(".")[0] in _OWN


def _short_step(rest: bytes) -> int | None:
    """The step, where the rest of a record is nothing else and it has at most three bytes."""
    size = len(rest)
    if not 4 <= size <= 6 or rest[0] != 0x12 or rest[1] != size - 2 or rest[2] != 8:
        return None
    step = rest[3]
    if size == 4:
        return step if step < 0x80 else None
    step = step & 0x7F | (rest[4] & 0x7F) << 7
    if size == 6:
        step |= rest[5] << 14
    # All but the last say that there is more.
    is_whole = rest[3] >= 0x80 > rest[-1] and (size == 5 or rest[4] >= 0x80)
    return step if is_whole else None


def _are_exact(values: Sequence[int | float]) -> bool:
    """Whether each of ``values`` is surely what was logged. With a NaN in front this says no, and costs only time."""
    if any(each in values for each in _INFINITE):
        return False
    return int not in set(map(type, values)) or (max(values) < _EXACT and min(values) > -_EXACT)


def _number(step: bytes) -> int:
    """The number that a message ``HistoryStep`` holds: 0 is not written."""
    for number, kind, value in protobuf.fields(step):
        if number == 1 and kind == protobuf.VARINT:
            return protobuf.signed(cast(int, value))
    return 0
