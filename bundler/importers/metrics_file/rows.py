"""Rows of metrics: what a script writes a step, as a JSON object or as a line of a table.

A row names its step (``step``, ``global_step``, ``iteration`` or ``epoch``, the first that is a whole number in the
file's first row that has one) and may have a ``timestamp``: seconds since 1970, or RFC 3339 with a time zone. All else
are metrics. NaN and infinity may be words.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias

from bundler.canonical import MAX_INTEGER
from bundler.errors import quoted
from bundler.importers import json_lines
from bundler.importers.dvc.metrics import MAX_POINTS, Value
from bundler.importers.dvc.values import is_exact, number
from bundler.importers.json_lines import ShapeError
from bundler.importers.model import MetricPoint
from bundler.importers.values import Flag, clean, flag_counts, integer, text
from bundler.records import moment

Stream: TypeAlias = BinaryIO

MAX_SERIES = 512 << 20
"""Most bytes of a file with a line a step."""

MAX_SUMMARY = 64 << 20
"""Most bytes of a ``metrics.json``."""

MAX_ROW = 1 << 20
"""Most bytes of one line."""

MAX_NESTING = 16

STEPS = ("step", "global_step", "iteration", "epoch")
TIMES = ("timestamp", "_timestamp")

_CHUNK = 1 << 20
_LATEST = 10**11
"""Seconds since 1970 from which on a number is none: the year 5138, and milliseconds of 1973."""

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WORDS = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a ``metrics.json`` holds: points of its lists, and single last values."""

    points: tuple[MetricPoint, ...]
    last: tuple[Value, ...]


def of_lines(stream: Stream, name: str, flag: Flag) -> Iterator[MetricPoint]:
    """Points of JSON lines. Raises :class:`ValueError` that names the line; a last one may be cut, and is flagged."""
    taken = _Rows(flag)
    for line in json_lines.lines(iter(lambda: stream.read(_CHUNK), b""), MAX_ROW):
        if len(line.data) > MAX_ROW:
            raise ValueError(f"line {line.number} has more than {MAX_ROW:,} bytes")
        if not line.data.strip():
            continue
        try:
            row = json_lines.an_object(json_lines.parsed(line.data), "the value")
        except ValueError as error:
            if line.ended:
                raise ValueError(f"line {line.number}: {error}") from None
            flag("metrics", "truncated_file", f"{name}: line {line.number}, the last, is cut")
            continue
        yield from taken.points(_flat(row, f"line {line.number}"))
    taken.tell()


def of_table(stream: Stream, name: str, flag: Flag) -> Iterator[MetricPoint]:
    """Points of a CSV table with a line of names. Raises :class:`ValueError` that names the line.

    A last line may be cut, and a training that was started again may repeat the names; both are flagged.
    """
    taken, names, delimiter = _Rows(flag), list[str](), ","
    for line in json_lines.lines(iter(lambda: stream.read(_CHUNK), b""), MAX_ROW):
        if len(line.data) > MAX_ROW:
            raise ValueError(f"line {line.number} has more than {MAX_ROW:,} bytes")
        words = text(line.data.removeprefix(b"\xef\xbb\xbf")).rstrip("\r")
        if not words.strip():
            continue
        if not names:
            delimiter = next((each for each in ",\t;" if each in words), ",")
            names = _names(_cells(words, delimiter, line.number), flag)
            continue
        cells = _cells(words, delimiter, line.number)
        if not line.ended:
            flag("metrics", "truncated_file", f"{name}: line {line.number}, the last, may be cut")
        if [cell.strip() for cell in cells] == names:
            flag("metrics", "restarted", f"{name}: line {line.number} repeats the names")
            continue
        if len(cells) != len(names):
            if not line.ended:
                continue
            raise ValueError(f"line {line.number} has {len(cells)} cells, the first {len(names)}")
        row = zip(names, (cell.strip() for cell in cells), strict=True)
        yield from taken.points({each: _cell(cell) for each, cell in row if each})
    taken.tell()


def of_summary(data: bytes, flag: Flag) -> Summary:
    """What is in a ``metrics.json``: name → number, list of numbers, or list of ``{"step": …, "value": …}``.

    Nested names are joined with dots; numbers of a list without steps are counted from 0, which is flagged. Raises
    :class:`ValueError`.
    """
    row = _flat(json_lines.an_object(json_lines.parsed(data), "the file"), "the file")
    lists = {name: item for name, item in row.items() if isinstance(item, list)}
    taken = _Rows(flag)
    last = [
        Value(point.metric, point.value, point.step if taken.has_step else None)
        for point in taken.points({name: row[name] for name in row if name not in lists})
    ]
    points: list[MetricPoint] = []
    for name, items in lists.items():
        series = _Rows(flag, metric=name)
        for item in items:
            points += series.points(_item(item))
            if len(points) > MAX_POINTS:
                raise ValueError(f"more than {MAX_POINTS:,} metric points")
        series.tell()
    taken.tell_odd()
    if taken.has_time:
        flag("metrics", "time_not_taken", "that of the last values")
    return Summary(points=tuple(points), last=tuple(last))


class _Rows:
    """Makes points of rows, in their order, and keeps count of what is to be flagged.

    ``metric`` is the one that all values belong to, whatever they are called.
    """

    def __init__(self, flag: Flag, metric: str | None = None) -> None:
        self._flag, self._metric = flag, metric
        self._key: str | None = None
        self._count = self._step = self._time = 0
        self._untimed = self._inherited = 0
        self._odd: Counter[str] = Counter()
        self._nothing: Counter[str] = Counter()
        self._rounded: set[str] = set()

    @property
    def has_time(self) -> bool:
        """Whether a row so far had a time."""
        return self._time > 0

    @property
    def has_step(self) -> bool:
        """Whether a row so far had a step."""
        return self._key is not None

    def points(self, row: Mapping[str, object]) -> Iterator[MetricPoint]:
        """The points of one row."""
        self._advance(row)
        for name, value in row.items():
            if name == self._key or name in TIMES:
                continue
            metric, found = self._metric or name, number(value)
            if found is None:
                (self._nothing if value is None else self._odd)[metric] += 1
                continue
            if not is_exact(value):
                self._rounded.add(metric)
            yield MetricPoint(metric, self._step, self._time, found)

    def _advance(self, row: Mapping[str, object]) -> None:
        """Step and time of the row; one without has those of the row before it."""
        if self._key is None:
            self._key = next((each for each in STEPS if _whole(row.get(each)) is not None), None)
        step = _whole(row.get(self._key)) if self._key is not None else self._count
        self._inherited += step is None
        self._step = self._step if step is None else step
        self._count += 1
        times = [row[each] for each in TIMES if each in row]
        time = _milliseconds(times[0]) if times else None
        self._untimed += bool(times) and time is None
        self._time = time or self._time

    def tell(self) -> None:
        """Flag what was to be said of the rows, once they are all read."""
        field = "metrics" if self._metric is None else f"metrics.{self._metric}"
        if self._count and self._key is None:
            self._flag(field, "no_step", "the steps are positions, counted from 0")
        if self._inherited:
            detail = f"{self._inherited} rows have no step, and take that of the row before"
            self._flag(field, "step_inherited", detail)
        if self._untimed:
            self._flag(field, "time_unknown", f"{self._untimed} rows")
        self.tell_odd()

    def tell_odd(self) -> None:
        """Flag values that are no numbers, or not exactly those that were written."""
        flag_counts("not_a_number", self._odd, self._flag)
        # Absent, or the NaN of a writer that has no word for it, as pandas and JavaScript have none.
        flag_counts("null_ambiguous", self._nothing, self._flag)
        for name in sorted(self._rounded):
            self._flag(f"metrics.{name}", "rounded", "an integer that is no exact double")


def _item(item: object) -> dict[str, object]:
    """The row that an item of a list is: a value, and the step and time that it may have."""
    if not isinstance(item, dict):
        return {"value": item}
    step = [each for each in STEPS if each in item][:1]
    return {each: item[each] for each in (*step, *TIMES) if each in item} | {
        "value": item.get("value")
    }


def _flat(row: Mapping[str, Any], place: str) -> dict[str, object]:
    """Nested objects as one level of names. Raises :class:`ValueError` for one that is too deep."""
    found: dict[str, object] = {}
    waiting: list[tuple[str, object, int]] = [("", row, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        if not isinstance(value, dict):
            if name in found:
                raise ShapeError(f"{place}: two values are called {quoted(name)}")
            found[name] = value
        elif depth > MAX_NESTING:
            raise ShapeError(f"{place}: nested too deep")
        else:
            prefix = f"{name}." if depth else ""
            inside = [(f"{prefix}{clean(key)}", item, depth + 1) for key, item in value.items()]
            waiting += reversed(inside)
    return found


def _names(cells: list[str], flag: Flag) -> list[str]:
    """The names of the columns; one without a name, as the index that pandas writes, is left out and flagged."""
    names = [cell.strip() for cell in cells]
    twice = next((each for each in names if each and names.count(each) > 1), None)
    if twice is not None:
        raise ValueError(f"two columns are called {quoted(twice)}")
    if "" in names:
        flag("metrics", "column_without_name", f"{names.count('')} columns")
    return names


def _cells(words: str, delimiter: str, place: int) -> list[str]:
    try:
        return next(csv.reader([words], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise ValueError(f"line {place}: {error}") from None


def _cell(cell: str) -> object:
    """A number, nothing for an empty cell, else the text. Raises :class:`ValueError` for a number that is too large."""
    if _WORDS.fullmatch(cell):
        return float(cell)
    if not _NUMBER.fullmatch(cell):
        return cell or None
    if cell.lstrip("+-").isdecimal() and len(cell) <= 20:
        return int(cell)
    value = float(cell)
    if math.isinf(value):
        raise ValueError(f"the number {quoted(cell)} is too large")
    return value


def _whole(value: object) -> int | None:
    """A step: a whole number that JSON keeps exactly."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_INTEGER:
        return int(value)
    found = integer(value)
    return found if found is not None and abs(found) <= MAX_INTEGER else None


def _milliseconds(value: object) -> int | None:
    if isinstance(value, str):
        found = moment(value)
        seconds = found.timestamp() if found is not None else None
    else:
        seconds = number(value)
    return round(seconds * 1000) if seconds is not None and 0 < seconds < _LATEST else None
