"""The metrics of MLflow's file store: one file each, with one row ``timestamp value step [data set]`` a point."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from bundler.canonical import MAX_INTEGER
from bundler.importers.files import too_large
from bundler.importers.model import MetricPoint
from bundler.importers.values import Flag, flag_counts, text

MAX_POINTS = 5_000_000
"""Most metric points of one run: about 1 GB of memory."""

MAX_METRIC = 1 << 29
"""Most bytes of the file of one metric."""

MAX_ROW = 1 << 16
"""Most bytes of one row of such a file."""

_SHOWN = 5
"""So many bad rows of a metric are named, the others are counted."""


def points(run: Path, files: Iterable[tuple[str, Path]], flag: Flag) -> Iterator[MetricPoint]:
    """All points of a ``run``, from its ``files`` by metric; each metric's by time and step.

    The file store writes NaN and infinities as words, so nothing was replaced.
    """
    left = MAX_POINTS
    for metric, file in files:
        found = list(islice(_points(metric, file, flag), left + 1))
        left -= len(found)
        if left < 0:
            raise too_large(run, f"{MAX_POINTS:,} metric points")
        yield from sorted(found, key=lambda each: (each.timestamp, each.step))


def _points(metric: str, file: Path, flag: Flag) -> Iterator[MetricPoint]:
    """Points in the order of logging, and flags for the rows that are none."""
    name = f"metrics.{metric}"
    bad = linked = 0
    mangled = False
    for number, data in enumerate(_rows(file), start=1):
        try:
            row = data.decode()
        except UnicodeDecodeError:
            row, mangled = text(data), True
        cut = not data.endswith(b"\n")
        point = _point(metric, row, cut=cut)
        if row.strip() and (cut or point is None):
            bad += 1
            if bad <= _SHOWN:
                flag(name, "truncated", f"line {number} {'may be cut' if point else 'is no point'}")
        if point is not None:
            linked += len(row.split()) > 3
            yield point
    if mangled:
        flag(name, "not_utf8", "")
    if bad > _SHOWN:
        flag(name, "truncated", f"{bad - _SHOWN} more lines are no points")
    if linked:
        flag_counts("dataset_link_dropped", {metric: linked}, flag)


def _rows(file: Path) -> Iterator[bytes]:
    """Rows with their ends, one in memory at a time. Raises :class:`SourceError` for a file or row that is too long."""
    with file.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size > MAX_METRIC:
            raise too_large(file, f"{MAX_METRIC:,} bytes")
        # Not splitlines: a data set's name in a row may hold what that takes for the end of a line.
        while data := stream.readline(MAX_ROW):
            if len(data) == MAX_ROW:
                raise too_large(file, f"{MAX_ROW:,} bytes in one row")
            yield data


def _point(metric: str, row: str, *, cut: bool) -> MetricPoint | None:
    """A row ``timestamp value step [data set]``; old stores have no step.

    A row without an end (``cut``) that lacks its step lost it. MLflow's own client reads step 0 where a data set
    follows; the step is there all the same.
    """
    parts = row.split()
    if cut and len(parts) < 3:
        return None
    try:
        timestamp, value = int(parts[0]), float(parts[1])
        step = int(parts[2]) if len(parts) > 2 else 0
    except (ValueError, IndexError):
        return None
    # MLflow's own are 64 bits wide; JSON carries fewer.
    if max(abs(step), abs(timestamp)) > MAX_INTEGER:
        return None
    return MetricPoint(metric, step, timestamp, value)
