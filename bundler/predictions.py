"""Predictions example by example: the metric computed anew, and the variance that the finite hold-out gives it.

A metric that is no proportion has no variance that follows from its value and the number of rows; from the predictions
it has. And a metric that was edited is contradicted by them without any re-run.
"""

from __future__ import annotations

import csv
import io
import math
import re
from array import array
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from bundler.errors import MalformedError, quoted
from bundler.report import PredictionComparison
from bundler.scoring import Examples, Measured, binary, measure, statistic, variance
from bundler.spec import Predictions, Sampling

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Examples",
    "Measured",
    "compare",
    "measure",
    "measured",
    "read",
    "statistic",
    "variance",
]

MAX_BYTES: Final = 50_000_000
"""Largest file of predictions that is read."""

MAX_ROWS: Final = 5_000_000
"""Most examples that are read."""

ROUNDING: Final = 1e-6
"""Scoring on another machine may change the last digits of a score, relative to the largest, and no more."""

_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def read(data: bytes, columns: Predictions, *, name: str) -> Examples:
    """Read the examples of a CSV file with a header. ``name`` is what errors call it.

    Raises :class:`MalformedError` (``predictions-syntax``) with the line: for more than :data:`MAX_BYTES` or
    :data:`MAX_ROWS`, a column that is not there exactly once, a number that is not finite, a key that stands twice.
    """
    import numpy as np  # noqa: PLC0415  # a tenth of a second, and most bundles have no such gate

    if len(data) > MAX_BYTES:
        raise _syntax(f"{name}: is larger than {MAX_BYTES // 10**6} MB")
    labels, scores, keys = array("d"), array("d"), []
    try:
        for label, score, key in _lines(data, columns, name):
            labels.append(label)
            scores.append(score)
            if key is not None:
                keys.append(key)
    except (csv.Error, UnicodeDecodeError) as error:
        raise _syntax(f"{name}: {error}") from None
    if not labels:
        raise _syntax(f"{name}: has no examples")
    if len(set(keys)) != len(keys):
        raise _syntax(f"{name}: a key in column {quoted(columns.key)} stands twice")
    return Examples(
        labels=np.frombuffer(labels, np.float64),
        scores=np.frombuffer(scores, np.float64),
        threshold=columns.threshold,
        keys=tuple(keys) if columns.key is not None else None,
    )


def _lines(
    data: bytes, columns: Predictions, name: str
) -> Iterator[tuple[float, float, str | None]]:
    """Label, score and key of each line."""
    rows = csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8", newline=""), strict=True)
    header = next(rows, [])
    wanted = [columns.label, columns.score, *([] if columns.key is None else [columns.key])]
    for column in wanted:
        if header.count(column) != 1:
            raise _syntax(f"{name}: {header.count(column)} columns are called {quoted(column)}")
    if len(set(wanted)) != len(wanted):
        raise _syntax(f"{name}: label, score and key are not different columns")
    places = [header.index(column) for column in wanted]
    for number, row in enumerate(rows, start=1):
        place = f"{name}, line {rows.line_num}"
        if number > MAX_ROWS:
            raise _syntax(f"{place}: more than {MAX_ROWS} examples")
        if len(row) != len(header):
            raise _syntax(f"{place}: {len(row)} fields, the header has {len(header)}")
        label, score = (_number(row[each], place) for each in places[:2])
        yield label, score, row[places[2]] if columns.key is not None else None


def _number(text: str, place: str) -> float:
    value = float(text) if _DECIMAL.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise _syntax(f"{place}: {quoted(text)} is not a finite number")
    return value


def measured(data: bytes, sampling: Sampling, *, name: str) -> Measured:
    """What a gate with this sampling needs of the file ``data``: statistic, number of rows and variance.

    Raises :class:`MalformedError` (``predictions-syntax``, ``predictions-undefined``).
    """
    if sampling.predictions is None or sampling.statistic is None:
        raise MalformedError(
            "predictions-undefined", "the gate names no predictions, or no statistic over them"
        )
    return measure(sampling.statistic, read(data, sampling.predictions, name=name))


def compare(
    declared: bytes, rerun: bytes, columns: Predictions, *, name: str
) -> PredictionComparison:
    """Compare two files of predictions: joined by key, or line by line where no column is the key.

    Where the labels are numbers, the same decision is the same score but for :data:`ROUNDING`.

    Raises :class:`MalformedError`: ``predictions-syntax``, and ``predictions-examples`` where the examples or their
    labels are not the same.
    """
    import numpy as np  # noqa: PLC0415  # only where outputs are compared

    left = read(declared, columns, name=f"{name} as declared")
    right = read(rerun, columns, name=f"{name} as re-run")
    if left.keys is not None and right.keys is not None:
        left, right = _sorted(left), _sorted(right)
    if left.keys != right.keys or not np.array_equal(left.labels, right.labels):
        raise MalformedError(
            "predictions-examples",
            f"{name}: the re-run predicted other examples than declared ({len(left)} and {len(right)}),"
            " or in another order, or with other labels",
        )
    with np.errstate(over="ignore"):
        apart = np.abs(left.scores - right.scores)
    largest, size = float(apart.max()), float(np.abs(left.scores).max())
    scale = max(1.0, size)
    numeric = not binary(left.labels)
    if numeric:
        same = apart <= ROUNDING * size
    else:
        same = (left.scores >= columns.threshold) == (right.scores >= columns.threshold)
    return PredictionComparison(
        artefact=columns.path,
        examples=len(left),
        agreement=float(same.mean()),
        max_absolute_difference=largest if math.isfinite(largest) else None,
        max_logit_difference=_logit_difference(left.scores, right.scores),
        relative_difference=largest / scale if math.isfinite(largest) else None,
        numeric=numeric,
    )


def _sorted(examples: Examples) -> Examples:
    """``examples`` in order of their keys."""
    keys = examples.keys or ()
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return replace(
        examples,
        labels=examples.labels[order],
        scores=examples.scores[order],
        keys=tuple(keys[each] for each in order),
    )


def _logit_difference(left: NDArray[np.float64], right: NDArray[np.float64]) -> float | None:
    """Largest difference of log(p / (1 - p)); ``None`` unless all are probabilities between 0 and 1."""
    import numpy as np  # noqa: PLC0415  # only where outputs are compared

    if any(each.min() <= 0 or each.max() >= 1 for each in (left, right)):
        return None
    logits = [np.log(each) - np.log1p(-each) for each in (left, right)]
    return float(np.abs(logits[0] - logits[1]).max())


def _syntax(message: str) -> MalformedError:
    return MalformedError("predictions-syntax", message)
