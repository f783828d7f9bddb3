"""The summary of a run: what W&B keeps of each metric beside the history, and what the training put there itself."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from bundler.importers import protobuf
from bundler.importers.files import too_large
from bundler.importers.model import MetricPoint
from bundler.importers.values import Flag, clean
from bundler.importers.wandb.history import MAX_METRICS, MEDIA, Column, History, is_own
from bundler.importers.wandb.items import ItemReader, Name, Sink, leaves, parsed, read_item

MAX_SUMMARY = 64 << 20
"""Most bytes of a summary."""

MAX_REMOVALS = 20_000_000
"""Most comparisons of a name with those that a summary removes."""

_NOTHING: deque[int] = deque(maxlen=0)
"""Keeps nothing of what is put there."""


class Summary:
    """The last value of each name that W&B keeps beside the history."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._seen = self._compared = 0
        self._values: dict[Name, deque[bytes]] = {}
        self._items = ItemReader(self._sink)

    def _sink(self, name: Name) -> Sink:
        # Only the last value counts; a summary has no rows.
        return self._values.setdefault(name, deque(maxlen=1)).append, _NOTHING.append

    def add(self, record: bytes) -> None:
        """Take a summary record: names to set, then names to remove. Raises :class:`WireError`."""
        self._seen += len(record)
        if self._seen > 2 * MAX_SUMMARY:
            # Much of it was replaced: count what is kept.
            self._seen = sum(len(text) for kept in self._values.values() for text in kept)
            if self._seen > MAX_SUMMARY or len(self._values) > MAX_METRICS:
                raise too_large(self._place, f"{MAX_SUMMARY:,} bytes of summary")
        removed: set[Name] = set()
        _, rest = self._items.read(record, 0)
        for number, kind, value in protobuf.fields(rest):
            if number == 1 and kind == protobuf.BYTES:
                self._items.slow(cast(bytes, value), 0)
            elif number == 2 and kind == protobuf.BYTES:
                removed.add(read_item(cast(bytes, value))[0])
        if removed:
            self._remove(removed)

    def _remove(self, removed: set[Name]) -> None:
        """Forget names, and what is nested in them: all of a record at once, which sets first and then removes."""
        lengths = sorted({len(name) for name in removed})
        self._compared += len(lengths) * len(self._values)
        if self._compared > MAX_REMOVALS:
            raise too_large(self._place, f"{MAX_REMOVALS:,} names to compare with removed ones")
        for name, kept in self._values.items():
            if any(name[:length] in removed for length in lengths):
                kept.clear()

    def numbers(self) -> Iterator[tuple[str, float]]:
        """Name and value of what is a number, media left out. Raises :class:`WireError`."""
        values = {name: kept[0] for name, kept in self._values.items() if kept}
        media = {name[:-1] for name in values if name[-1:] == (MEDIA,)}
        for name, text in values.items():
            if not any(name[:length] in media for length in range(1, len(name))):
                yield from _numbers(name, parsed(text))


def by_name(numbers: Iterable[tuple[str, float]]) -> tuple[dict[str, float], set[str]]:
    """The last number of each name, and the names that several have."""
    found: dict[str, float] = {}
    merged: set[str] = set()
    for name, number in numbers:
        if name in found:
            merged.add(name)
        found[name] = number
    return found, merged


def summary_numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Name and value of what is a number in a summary as W&B's API gives it."""
    for name, value in values.items():
        yield from _numbers((name,), value)


def _numbers(name: Name, value: Any) -> Iterator[tuple[str, float]]:
    if is_own(".".join(name)) or (isinstance(value, dict) and MEDIA in value):
        return
    for path, leaf in leaves(name, value):
        column = Column("")
        column.add(0, leaf)
        for number in column.values:
            yield clean(".".join(path)) or "", number


def with_summary(
    points: tuple[MetricPoint, ...],
    summary: Mapping[str, float],
    history: History,
    started: int | None,
    flag: Flag,
) -> tuple[MetricPoint, ...]:
    """``points`` and, at the last step and time, what only the summary has; where they differ, that is flagged."""
    step, time = history.last(started)
    logged = history.names()
    last = history.last_values
    added = []
    for name, value in sorted(summary.items()):
        if name not in logged:
            added.append(MetricPoint(name, step, time or started or 0, value))
            detail = "not in the history: step and time are the last"
            flag(f"metrics.{name}", "from_summary", detail)
        elif name not in last:
            continue  # a text that reads like a number in the summary
        elif value != last[name] and not (math.isnan(value) and math.isnan(last[name])):
            flag(f"metrics.{name}", "summary_differs", f"the summary says {value!r}")
    if not added:
        return points
    return tuple(sorted((*points, *added), key=lambda point: (point.metric, point[2], point[1])))
