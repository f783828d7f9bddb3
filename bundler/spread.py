"""How much runs scatter between seeds, and how far a declared scatter is believed (docs/verdict.md)."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Final

from bundler.statistics import sample_variance

ROUNDING: Final = 1e-12
"""Relative to the largest value: what floating-point arithmetic alone can do."""

TOO_ALIKE: Final = 0.9
"""How often an honest provider's variance is not so small against the re-runs' that it is taken for larger."""

TOO_WIDE: Final = 0.99
"""How often an honest provider's variance is not so large against the re-runs' that an accusation cuts it."""

ENOUGH: Final = 5
"""Fewer re-runs cut nothing: their own variance is too uncertain, and little would be gained."""

APART: Final = 0.005
"""How often two runs that differ by chance alone lie further apart than is put down to chance."""

SUSPICIOUS: Final = 0.999
"""How often an honest provider's runs are not said to scatter more than the re-runs."""


def scaled(values: Sequence[float]) -> tuple[list[float], int]:
    """``values`` divided, exactly, by a power of two, so that squares neither overflow nor vanish; its exponent."""
    exponent = math.frexp(max(map(abs, values)))[1]
    return [math.ldexp(each, -exponent) for each in values], exponent


def deviation_bound(values: Sequence[float], confidence: float = 0.95) -> float:
    """The one-sided upper confidence bound of the standard deviation behind two or more ``values``: to plan with.

    Raises :class:`OverflowError` for values at the end of the floating-point range.
    """
    from scipy.special import gammaincinv  # noqa: PLC0415  # a tenth of a second

    shares, exponent = scaled(values)
    degrees = len(values) - 1
    quantile = 2 * float(gammaincinv(degrees / 2, 1 - confidence))
    return math.ldexp(math.sqrt(degrees * sample_variance(shares) / quantile), exponent)


def one_draw(values: Sequence[float], runs: int = 0) -> float | None:
    """How far apart two runs like ``values`` hardly lie: in 5 of 1,000 cases they lie further (two t quantiles).

    ``runs`` are more than there are values, where so many are to come. ``None`` for fewer than three values, or values
    that are all alike: a metric on a coarse scale repeats one by chance.
    """
    from scipy.special import stdtrit  # noqa: PLC0415  # a tenth of a second

    if len(values) < 3:
        return None
    shares, exponent = scaled(values)
    if _constant(shares):
        return None
    quantile = float(stdtrit(max(len(values), runs) - 1, 1 - APART / 2))
    try:
        return math.ldexp(quantile * math.sqrt(2 * sample_variance(shares)), exponent)
    except OverflowError:
        return sys.float_info.max


def pooled_deviations(declared: Sequence[float], rerun: Sequence[float]) -> tuple[float, float]:
    """The standard deviation between seeds, from both :func:`scaled` samples: to agree by, and to accuse by.

    One value alone has no variance and adds none. A provider can invent runs that hardly differ, so the declared
    variance is taken no smaller than what the re-runs make plausible: the lower 90 % confidence limit of the ratio of
    two variances (F distribution). Nor can runs that scatter wildly hide a difference: to accuse by, from five re-runs
    on, the declared variance is taken no larger than the upper 99 % limit. Re-runs that are all alike set no
    such limit, because a metric on a coarse scale repeats a value by chance.
    """
    from scipy.special import fdtri  # noqa: PLC0415  # a tenth of a second

    n, m = len(declared), len(rerun)
    if _constant(declared) and _constant(rerun):
        return 0.0, 0.0
    first = sample_variance(declared) if n > 1 else 0.0
    second = sample_variance(rerun) if m > 1 else 0.0
    if n > 1 and m > 1:
        first = max(first, second / float(fdtri(m - 1, n - 1, TOO_ALIKE)))
    capped = first
    if n > 1 and m >= ENOUGH and not _constant(rerun):
        capped = min(first, second * float(fdtri(n - 1, m - 1, TOO_WIDE)))
    agree, accuse = (
        math.sqrt(((n - 1) * each + (m - 1) * second) / (n + m - 2)) for each in (first, capped)
    )
    return agree, accuse


def deviation_ratio(declared: Sequence[float], rerun: Sequence[float]) -> float | None:
    """The declared standard deviation over the re-runs', if an F test at 0.999 says that it is larger.

    ``None`` otherwise, and where nothing can be said: fewer than two values on a side, or re-runs that are all alike.
    """
    from scipy.special import fdtri  # noqa: PLC0415  # a tenth of a second

    n, m = len(declared), len(rerun)
    if n < 2 or m < 2:
        return None
    values, _ = scaled([*declared, *rerun])
    if _constant(values[n:]):
        return None
    ratio = sample_variance(values[:n]) / sample_variance(values[n:])
    return math.sqrt(ratio) if ratio > float(fdtri(n - 1, m - 1, SUSPICIOUS)) else None


def _constant(values: Sequence[float]) -> bool:
    return max(values) - min(values) <= ROUNDING
