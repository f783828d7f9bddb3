"""Interval and gate: is the requirement met even at the pessimistic end of what the runs allow?

A gate on the mean alone passes half of the systems that sit exactly on the threshold; one on the seeds' interval
alone still passes 33 % of them at a hold-out of 500, because every seed is scored on the same finite sample. So both
sources of error enter the standard error: seeds (s²/n) and hold-out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from bundler.spec import Gate, GateResult, Sampling


def holdout_variance(sampling: Sampling, estimate: float, rows: int) -> float | None:
    """Variance of a metric's estimate from scoring ``rows`` examples (see :class:`bundler.spec.Sampling`).

    ``None`` if the declaration does not fit the number of rows or the estimate is outside [0, 1].
    """
    if rows < 2 or not 0.0 <= estimate <= 1.0:
        return None
    if sampling.kind == "proportion":
        # Laplace's estimate keeps a perfect score on a small sample from claiming no variance at all.
        smoothed = (estimate * rows + 1) / (rows + 2)
        return smoothed * (1 - smoothed) / rows
    if sampling.kind == "auc":
        return _auc_variance(estimate, sampling.positives or 0, rows)
    if len(sampling.groups) != 2 or min(sampling.groups) < 1 or sum(sampling.groups) > rows:
        return None
    return sum(0.25 / group for group in sampling.groups)


def _auc_variance(auc: float, positives: int, rows: int) -> float | None:
    """Hanley and McNeil (1982), equation 1, with their Q1 and Q2."""
    negatives = rows - positives
    if positives < 1 or negatives < 1:
        return None
    q1 = auc / (2 - auc)
    q2 = 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    return max(spread, 0.0) / (positives * negatives)


def sample_variance(values: Sequence[float]) -> float:
    """Unbiased sample variance of two or more values."""
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def pessimistic_bound(
    mean: float, parts: Sequence[tuple[float, int]], *, confidence: float, lower: bool
) -> float:
    """One-sided t bound of ``mean``. ``parts`` are (variance of the mean, degrees of freedom) of its error sources.

    Degrees of freedom of the sum by Welch and Satterthwaite; with no variance at all the bound is the mean.
    """
    variance = math.fsum(part for part, _ in parts)
    if variance == 0.0:
        return mean
    freedom = variance**2 / math.fsum(part**2 / df for part, df in parts)
    # scipy.special is a quarter of the import of scipy.stats.
    from scipy.special import stdtrit  # noqa: PLC0415

    margin = float(stdtrit(freedom, confidence)) * math.sqrt(variance)
    return mean - margin if lower else mean + margin


def evaluate(gate: Gate, values: Sequence[float], rows: int | None) -> GateResult:
    """Judge ``gate`` over the final ``values`` of independent runs, scored on ``rows`` hold-out examples.

    Met or not met only where both parts of the variance are known; *not met* already where the bound without the
    unknown part fails.
    """
    if not values:
        return _result(gate, 0, None, None, None, None, "inconclusive", "no run has this metric")
    mean = math.fsum(values) / len(values)
    seeds = sample_variance(values) / len(values) if len(values) > 1 else None
    holdout = None
    if gate.sampling is not None and rows is not None:
        holdout = holdout_variance(gate.sampling, mean, rows)
    parts = []
    if seeds is not None:
        parts.append((seeds, len(values) - 1))
    if holdout is not None:
        parts.append((holdout, (rows or 2) - 1))
    lower = gate.comparator == ">="
    bound = pessimistic_bound(mean, parts, confidence=gate.confidence, lower=lower)
    passed = bound >= gate.threshold if lower else bound <= gate.threshold
    unknown = []
    if seeds is None:
        unknown.append("one run shows no variance between seeds")
    if holdout is None:
        unknown.append("the variance of the finite hold-out is not known")
    side = "lower" if lower else "upper"
    words = f"{side} {gate.confidence:.0%} bound {bound:.4f} {gate.comparator} {gate.threshold:g}"
    if not passed:
        words = f"{side} {gate.confidence:.0%} bound {bound:.4f} is not {gate.comparator} {gate.threshold:g}"
        return _result(gate, len(values), mean, bound, seeds, holdout, "not met", words)
    if unknown:
        reason = f"{words}, but {' and '.join(unknown)}"
        return _result(gate, len(values), mean, bound, seeds, holdout, "inconclusive", reason)
    return _result(gate, len(values), mean, bound, seeds, holdout, "met", words)


def _result(  # noqa: PLR0913  # one argument a field, in their order
    gate: Gate,
    runs: int,
    estimate: float | None,
    bound: float | None,
    seeds: float | None,
    holdout: float | None,
    verdict: str,
    explanation: str,
) -> GateResult:
    return GateResult(
        gate=gate.name,
        runs=runs,
        estimate=estimate,
        bound=bound,
        seed_variance=seeds,
        holdout_variance=holdout,
        verdict=verdict,  # type: ignore[arg-type]  # one of the three words, see evaluate
        explanation=explanation,
    )
