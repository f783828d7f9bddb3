"""The scalars that a ClearML session reported."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bundler.canonical import MAX_INTEGER
from bundler.errors import quoted
from bundler.importers.clearml.store import event_time
from bundler.importers.model import MetricPoint
from bundler.importers.values import Flag, clean, flag_counts, flag_steps, integer

MAX_POINTS = 5_000_000

SINGLE = -(2**31)
"""The iteration of a value that was reported without one."""

_SCALAR = "training_stats_scalar"
_OWN = ":monitor:"
"""How the titles of what ClearML itself measures beside the training begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalars:
    """The points of a task by metric, time, step and order of reporting, and the time of the last event."""

    points: tuple[MetricPoint, ...]
    last: int | None


class EventError(ValueError):
    """A scalar that cannot be one; it says on which line."""


def read(events: Iterable[tuple[int, dict[str, Any]]], task: str, flag: Flag) -> Scalars:
    """The scalars of ``task`` among numbered ``events``. Raises :class:`EventError`."""
    reader = _Reader(task)
    for line, event in events:
        try:
            reader.take(event)
        except ValueError as error:
            raise EventError(f"line {line}: {error}") from None
    return reader.all(flag)


class _Reader:
    def __init__(self, task: str) -> None:
        self._task = task
        self._points: list[MetricPoint] = []
        self._counts: dict[str, Counter[str]] = {
            "zero_ambiguous": Counter(),
            "single_value": Counter(),
            "step_missing": Counter(),
        }
        self._skipped: Counter[str] = Counter()
        self._pairs: dict[str, tuple[str, str]] = {}
        self._merged: set[str] = set()
        self._last: int | None = None

    def take(self, event: dict[str, Any]) -> None:
        if event.get("task") != self._task or event.get("model_event"):
            self._skipped["of_models_skipped"] += 1
            return
        title, series = event.get("metric"), event.get("variant")
        if event.get("type") != _SCALAR:
            self._skipped["plots_skipped"] += 1
            return
        if not isinstance(title, str) or not isinstance(series, str):
            raise EventError("a scalar without a title and a series")
        if title.startswith(_OWN):
            self._skipped["system_skipped"] += 1
            return
        name = clean(f"{title}/{series}") or ""
        if self._pairs.setdefault(name, (title, series)) != (title, series):
            self._merged.add(name)
        time = event_time(event)
        if time is None:
            raise EventError(f"{quoted(name)} without a time")
        if len(self._points) == MAX_POINTS:
            raise EventError(f"more than {MAX_POINTS:,} points in one task")
        self._last = time if self._last is None else max(self._last, time)
        value = _number(name, event.get("value"))
        if value == 0:
            self._counts["zero_ambiguous"][name] += 1
        self._points.append(MetricPoint(name, self._step(name, event.get("iter")), time, value))

    def all(self, flag: Flag) -> Scalars:
        for kind, counts in self._counts.items():
            flag_counts(kind, counts, flag)
        for kind, count in self._skipped.items():
            flag("metrics", kind, f"{count} events")
        for name in self._merged:
            flag(f"metrics.{name}", "names_merged", "several titles and series are spelled so")
        points = tuple(sorted(self._points, key=lambda point: point[:3]))
        flag_steps(points, flag)
        return Scalars(points=points, last=self._last)

    def _step(self, name: str, said: object) -> int:
        if said is None:
            self._counts["step_missing"][name] += 1
            return 0
        step = integer(said)
        if step == SINGLE:
            self._counts["single_value"][name] += 1
            return 0
        if step is None or abs(step) > MAX_INTEGER:
            raise EventError(f"{quoted(name)} with iteration {quoted(said)}")
        return step


def _number(name: str, said: object) -> float:
    if isinstance(said, bool) or not isinstance(said, int | float):
        raise EventError(f"{quoted(name)} with the value {quoted(said)}")
    try:
        return float(said)
    except OverflowError:
        return math.inf if said > 0 else -math.inf
