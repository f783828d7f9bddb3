"""Metric histories among a run's artefacts: files that other tools write beside or instead of a tracker."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import MalformedError, SourceError, quoted
from bundler.history import read_points
from bundler.importers import trainer_state
from bundler.importers.files import too_large, unreadable
from bundler.importers.model import MetricPoint
from bundler.importers.tensorboard import events as tensorboard_events
from bundler.importers.values import Flags, clean, flag_steps, logged_order
from bundler.records import FidelityFlag

MAX_HISTORY = 512 << 20
"""Most bytes of a ``metrics.csv``."""

MAX_POINTS = 5_000_000
"""Most points of one history."""

METRICS = "metrics.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The points of a file, sorted like those of a run, and what was done to them. No time is the time 0."""

    points: tuple[MetricPoint, ...]
    flags: tuple[FidelityFlag, ...]


def read_history(file: Path) -> History:
    """The history in ``file``: ``trainer_state.json``, ``events.out.tfevents.*`` or our own ``metrics.csv``.

    Metrics are named as there. Raises :class:`SourceError` for any other file, and for a damaged one.
    """
    flags = Flags()
    if file.name == trainer_state.STATE:
        points = list(trainer_state.points_of(trainer_state.read_state(file), flags))
    elif file.name == METRICS:
        points = _own(file)
    elif tensorboard_events.is_event_file(file.name):
        points = _events(file, flags)
    else:
        raise SourceError(
            f"{quoted(str(file), 200)} is no metric history",
            remedy=f"A history is a {trainer_state.STATE}, an events.out.tfevents.* or a {METRICS}.",
        )
    points.sort(key=logged_order)
    flag_steps(points, flags)
    return History(points=tuple(points), flags=flags.all())


def _events(file: Path, flags: Flags) -> list[MetricPoint]:
    events = tensorboard_events.Events()
    events.add(file, clean(file.name) or "", flags)
    events.flag(flags)
    return events.points


def _own(file: Path) -> list[MetricPoint]:
    try:
        with file.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size > MAX_HISTORY:
                raise too_large(file, f"{MAX_HISTORY:,} bytes")
            data = stream.read(MAX_HISTORY)
    except OSError as error:
        raise unreadable(file, error) from None
    if data.count(b"\n") > MAX_POINTS + 1:
        raise too_large(file, f"{MAX_POINTS:,} metric points")
    try:
        return list(read_points(data, name=METRICS))
    except (MalformedError, ValueError) as error:
        raise SourceError(
            f"{quoted(str(file), 200)} is damaged: {error}",
            remedy="Use an intact copy of the file.",
        ) from None
