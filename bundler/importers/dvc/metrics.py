"""DVCLive's metrics: one TSV file a metric with a row a step, and ``metrics.json`` with the last values.

What DVCLive does to values: NaN and infinity are words; without ``timestamp=True`` no time is kept (0 here); a metric
that is logged with a time on some steps only has rows of different lengths under one header.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from bundler.canonical import MAX_INTEGER
from bundler.importers.dvc.values import flat, is_exact, number
from bundler.importers.model import MetricPoint
from bundler.importers.values import Flag, clean, flag_counts, flag_steps, logged_order, text

MAX_POINTS = 5_000_000
"""Most metric points of one run: about 1 GB of memory."""

MAX_ROW = 1 << 16
"""Most bytes of one row."""

MAX_SERIES = 1 << 29
"""Most bytes of the file of one metric."""

FOLDER = "plots/metrics/"
"""Where DVCLive's series lie in its folder."""

SUMMARY = "metrics.json"

_NAMED = 3
"""So many rows that are no points are named."""

_STEP = "step"
"""The number of the step among DVCLive's last values: a counter, not a metric."""


class TooManyPointsError(ValueError):
    """A run with more than ``MAX_POINTS``."""


@dataclass(frozen=True, slots=True)
class Value:
    """A last value of a metric file: its name, its number, and the step where that is known."""

    name: str
    value: float
    step: int | None


def series_name(path: str) -> str | None:
    """The metric of the file at ``path`` below ``plots/metrics/``, ``None`` for a file that is no series."""
    name, dot, suffix = path.rpartition(".")
    return clean(name) if dot and suffix in {"tsv", "csv"} and name else None


def series(metric: str, lines: Iterable[bytes], flag: Flag, place: str) -> Iterator[MetricPoint]:
    """Points of one series in the order of logging. Raises :class:`ValueError` for what is no such file.

    Rows that are no points are flagged: a last one may be cut, and a metric may be text. ``place`` names the file.
    """
    rows = _rows(lines)
    header = next(rows, None)
    if header is None:
        flag(f"metrics.{metric}", "truncated_file", f"{clean(place)}: empty")
        return
    names = header[1]
    if _STEP not in names or len(names) > 3 or set(names[:-1]) - {_STEP, "timestamp"}:
        raise ValueError("the first row is not [timestamp] step NAME")
    cut = untimed = time = 0
    odd: list[int] = []
    for row_number, row, ended in rows:
        point = _point(metric, row) if ended or len(row) >= len(names) else None
        if not ended:
            cut = row_number
        elif point is None:
            odd.append(row_number)
        if point is not None:
            # A row without a time takes that of the one before it, so that the order of logging is kept.
            untimed += not point.timestamp
            time = point.timestamp or time
            yield point._replace(timestamp=time)
    flag_counts("time_unknown", {metric: untimed} if untimed else {}, flag)
    if cut:
        flag(
            f"metrics.{metric}",
            "truncated_file",
            f"{clean(place)}: row {cut}, the last, may be cut",
        )
    if odd:
        first = ", ".join(map(str, odd[:_NAMED])) + (" ..." if len(odd) > _NAMED else "")
        words = "row" if len(odd) == 1 else f"{len(odd)} rows:"
        flag(f"metrics.{metric}", "not_a_number", f"{clean(place)}: {words} {first}")


def lines_of(stream: BinaryIO) -> Iterator[bytes]:
    """Lines with their ends, none in memory that is longer than a row may be."""
    while line := stream.readline(MAX_ROW + 1):
        yield line


def _rows(lines: Iterable[bytes]) -> Iterator[tuple[int, list[str], bool]]:
    """Number, fields and whether it has an end, of each row that is not empty."""
    for place, data in enumerate(lines, start=1):
        if len(data) > MAX_ROW:
            raise ValueError(f"more than {MAX_ROW:,} bytes in row {place}")
        if not data.strip(b"\r\n"):
            continue
        try:
            row = next(csv.reader([text(data).rstrip("\r\n")], delimiter="\t"), [])
        except csv.Error:
            row = []
        yield place, row, data.endswith(b"\n")


def _point(metric: str, row: list[str]) -> MetricPoint | None:
    """A row ``[timestamp] step value``. Its length says whether it has a time: the header is that of the first row."""
    try:
        *times, step = map(int, row[:-1])
        value = float(row[-1])
    except (ValueError, IndexError):
        return None
    if len(times) > 1 or max(abs(step), *map(abs, times), 0) > MAX_INTEGER:
        return None
    return MetricPoint(metric, step, times[0] if times else 0, value)


def last_values(value: Any, separator: str, flag: Flag) -> Iterator[Value]:
    """Numbers of a metric file; other things are flagged. Raises :class:`ValueError` for too many of them.

    ``separator`` joins nested names: DVCLive's are split at ``/``, other files' are shown with ``.``.
    """
    live = separator == "/"
    step = value.get(_STEP) if live and isinstance(value, dict) else None
    known = step if isinstance(step, int) and not isinstance(step, bool) else None
    if known is not None and abs(known) > MAX_INTEGER:
        known = None
    for name, item in flat(value, separator):
        if name == _STEP and live:
            continue
        found = number(item)
        if found is None:
            flag(f"metrics.{name}", "not_a_number", (clean(repr(item)) or "")[:80])
            continue
        if not is_exact(item):
            flag(f"metrics.{name}", "rounded", "an integer that is no exact double")
        yield Value(name or "value", found, known)


def joined(
    logged: Iterable[MetricPoint], last: Iterable[Value], flag: Flag
) -> tuple[MetricPoint, ...]:
    """All points of a run: those of its series, and the last values that these do not end with.

    Raises :class:`TooManyPointsError`.
    """
    points: list[MetricPoint] = []
    for point in logged:
        points.append(point)
        if len(points) > MAX_POINTS:
            raise TooManyPointsError(f"more than {MAX_POINTS:,} metric points")
    points.sort(key=logged_order)
    ends = {point.metric: point for point in points}
    for value in last:
        end = ends.get(value.name)
        if end is not None and _same(end.value, value.value):
            continue
        if end is None:
            flag_counts("time_unknown", {value.name: 1}, flag)
            points.append(MetricPoint(value.name, value.step or 0, 0, value.value))
            continue
        detail = f"the last value is {value.value!r}, the series ends with {end.value!r}"
        flag(f"metrics.{value.name}", "summary_differs", detail)
        points.append(MetricPoint(value.name, end.step, end.timestamp, value.value))
    # Stable, so that an added value comes behind the others of its step.
    points.sort(key=logged_order)
    flag_steps(points, flag)
    return tuple(points)


def span(points: Iterable[MetricPoint]) -> tuple[int | None, int | None]:
    """The first and the last time at which a value was logged, ``None`` where none is known."""
    times = [point.timestamp for point in points if point.timestamp]
    return (min(times), max(times)) if times else (None, None)


def _same(left: float, right: float) -> bool:
    return left == right or (math.isnan(left) and math.isnan(right))


def parameters(value: Any, flag: Flag) -> Mapping[str, Any]:
    """Parameters of one file on one level of names. Raises :class:`ValueError` for too many of them."""
    found: dict[str, Any] = {}
    for name, item in flat(value):
        if name in found:
            flag(f"parameters.{name}", "name_conflict", "two parameters have this name")
        found[name or "value"] = item
    return found
