"""``metrics.csv``: the whole metric history of one run as text, exact to the last bit.

Columns metric, step, timestamp (milliseconds since 1970-01-01 UTC), value. Values are the shortest decimal that
reads back as the same IEEE 754 double (Python's ``repr``); non-finite ones are NaN, Infinity, -Infinity.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator

from bundler.errors import MalformedError
from bundler.records import MetricPoint, MetricRole, MetricSummary, number

HEADER = ["metric", "step", "timestamp", "value"]
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def write_points(points: Iterable[MetricPoint]) -> bytes:
    """Return the CSV text of ``points``, in the order given."""
    lines = [",".join(HEADER)]
    for metric, step, timestamp, value in points:
        spelled = number(value)
        shown = spelled if isinstance(spelled, str) else repr(float(spelled))
        lines.append(f"{_quoted(metric)},{step},{timestamp},{shown}")
    return "".join(line + "\n" for line in lines).encode()


def _quoted(name: str) -> str:
    """A field of RFC 4180. Not csv.writer: whether it quotes a lone CR depends on the version of Python."""
    return '"' + name.replace('"', '""') + '"' if any(c in name for c in ',"\r\n') else name


def read_points(data: bytes, *, name: str) -> Iterator[MetricPoint]:
    """Yield the points of a ``metrics.csv``. Raises :class:`MalformedError` (``history-syntax``) with the line."""
    try:
        rows = csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
        if next(rows, None) != HEADER:
            raise MalformedError("history-syntax", f"{name}: line 1 is not {','.join(HEADER)}")
        for row in rows:
            yield _point(row, f"{name}, line {rows.line_num}")
    except (csv.Error, UnicodeDecodeError) as error:
        raise MalformedError("history-syntax", f"{name}: {error}") from None


def _point(row: list[str], place: str) -> MetricPoint:
    try:
        metric, step, timestamp, text = row
        value = _WORDS[text] if text in _WORDS else float(text)
        point = MetricPoint(metric, int(step), int(timestamp), value)
    except ValueError:
        raise MalformedError("history-syntax", f"{place}: not a metric point") from None
    # One spelling a number: neither nan for NaN nor 1_0 nor 010.
    if text not in _WORDS and (repr(value) != text or not math.isfinite(value)):
        raise MalformedError("history-syntax", f"{place}: {text[:40]!r} is not an exact double")
    if (step, timestamp) != (str(point.step), str(point.timestamp)):
        raise MalformedError("history-syntax", f"{place}: not a whole number in plain digits")
    return point


def summarise(
    points: Iterable[MetricPoint], role_of: dict[str, MetricRole]
) -> tuple[MetricSummary, ...]:
    """Return one summary a metric, sorted by name. Points of a metric follow each other in order of logging."""
    groups: dict[str, list[MetricPoint]] = {}
    for point in points:
        groups.setdefault(point.metric, []).append(point)
    return tuple(
        _summary(name, groups[name], role_of.get(name, "other")) for name in sorted(groups)
    )


def _summary(name: str, points: list[MetricPoint], role: MetricRole) -> MetricSummary:
    finite = [point.value for point in points if math.isfinite(point.value)]
    return MetricSummary(
        name=name,
        role=role,
        points=len(points),
        last=number(points[-1].value),
        last_step=points[-1].step,
        minimum=min(finite, default=None),
        maximum=max(finite, default=None),
    )
