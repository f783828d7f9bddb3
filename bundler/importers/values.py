"""What all importers do with values: fidelity flags, text that can be written, numbers that are numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby

from bundler.importers.model import MetricPoint
from bundler.records import FidelityFlag


def logged_order(point: MetricPoint) -> tuple[str, int, int]:
    """The order of a run's points; a stable sort keeps the order of logging within it."""
    return point.metric, point.timestamp, point.step


Flag = Callable[[str, str, str], None]
"""Takes field, flag and detail of a :class:`FidelityFlag`."""


class Flags:
    """Collects the fidelity flags of one run."""

    def __init__(self) -> None:
        self._flags: list[FidelityFlag] = []

    def __call__(self, field: str, flag: str, detail: str) -> None:
        """Take a flag."""
        self._flags.append(FidelityFlag(field=field, flag=flag, detail=detail))

    def all(self) -> tuple[FidelityFlag, ...]:
        """All flags, each once, sorted."""
        return tuple(
            sorted(set(self._flags), key=lambda each: (each.field, each.flag, each.detail))
        )


def flag_steps(points: Iterable[MetricPoint], flag: Flag) -> None:
    """Flag metrics that have more than one value at a step: after a restart, or because no step was given.

    ``points`` are sorted by metric.
    """
    repeated = {}
    for metric, group in groupby(points, key=lambda point: point[0]):
        steps = [point[1] for point in group]
        surplus = len(steps) - len(set(steps))
        if surplus:
            repeated[metric] = surplus
    flag_counts("duplicate_step", repeated, flag)


def flag_counts(name: str, counts: Mapping[str, int], flag: Flag) -> None:
    """Flag each metric of ``counts`` with its number of points."""
    for metric, count in counts.items():
        flag(f"metrics.{metric}", name, f"{count} points")


def clean(value: object) -> str | None:
    """``value`` as text that can be written: escapes of JSON and YAML can make half a character."""
    return None if value is None else str(value).encode("utf-8", "backslashreplace").decode()


def text(data: bytes) -> str:
    """Text from bytes that should be UTF-8; what is not becomes an escape."""
    return data.decode("utf-8", "backslashreplace")


def readable_name(name: str, flag: Flag, field: str) -> str:
    """A file name as text. One that is not UTF-8 becomes text that says so, and is flagged."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        name = text(os.fsencode(name))
        flag(field, "not_utf8", name)
    return name


def integer(value: object) -> int | None:
    """``value`` if it is an integer."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
