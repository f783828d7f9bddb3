"""Interval and gate: is the requirement met even at the pessimistic end of what the runs allow?

A gate on the mean alone passes half of the systems that sit exactly on the threshold; one on the seeds' interval
alone still passes 33 % of them at a hold-out of 500, because every seed is scored on the same finite sample. So both
sources of error enter the standard error: seeds (s²/n) and hold-out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bundler.scoring import Measured
from bundler.spec import Gate, GateResult, Sampling

CONDITIONAL = (
    "recall",
    "precision",
    "sensitivity",
    "specificity",
    "tpr",
    "fpr",
    "tnr",
    "fnr",
    "f1",
    "balanced",
)
"""Words in the names of metrics that are no mean over all rows."""


def counted_rows(gate: Gate, rows: int) -> int | None:
    """The number of examples that the metric is a mean of; ``None`` where the declaration does not say.

    With all rows in place of the positives, a recall on 25 of 500 rows passed at the threshold 40 % of the time.
    """
    sampling = gate.sampling
    if sampling is None or sampling.kind != "proportion":
        return rows
    partial = any(word in gate.metric.lower() for word in CONDITIONAL)
    if sampling.denominator is not None and not (partial and sampling.denominator >= rows):
        return min(sampling.denominator, rows)
    return None if partial else rows


def holdout_variance(sampling: Sampling, estimate: float, rows: int) -> float | None:
    """Variance of a metric's estimate from scoring ``rows`` examples (see :class:`bundler.spec.Sampling`).

    ``None`` if the declaration does not fit the number of rows or the estimate is outside [0, 1], and where the
    variance does not follow from those (``predictions``).
    """
    if sampling.kind == "predictions" or rows < 2 or not 0.0 <= estimate <= 1.0:
        return None
    if sampling.kind == "proportion":
        return estimate * (1 - estimate) / rows
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
    # A perfect score on a small sample must not claim no variance at all: Laplace's limit for the smaller class.
    limit = 1 / (min(positives, negatives) + 2)
    auc = min(max(auc, limit), 1 - limit)
    q1 = auc / (2 - auc)
    q2 = 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    return max(spread, 0.0) / (positives * negatives)


def sample_variance(values: Sequence[float]) -> float:
    """Unbiased sample variance of two or more values."""
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def pessimistic_bound(
    mean: float, parts: Sequence[tuple[float, float]], *, confidence: float, lower: bool
) -> float:
    """One-sided t bound of ``mean``. ``parts`` are (variance of the mean, degrees of freedom) of its error sources.

    Degrees of freedom of the sum by Welch and Satterthwaite; with no variance at all the bound is the mean.
    """
    margin = _margin(parts, confidence)
    return mean - margin if lower else mean + margin


def score_bound(
    mean: float,
    parts: Sequence[tuple[float, float]],
    variance_at: Callable[[float], tuple[float, float]],
    *,
    confidence: float,
    lower: bool,
) -> float:
    """Like :func:`pessimistic_bound`, one part's variance being taken at the bound itself: ``variance_at(bound)``.

    For a proportion, and with no other part, that is Wilson's interval (1927) with t for z. A variance taken at the
    estimate is too small just where the estimate is too good: at a true 99 % and 500 rows such a bound passes 9 %
    instead of 5 %. The value must lie in [0, 1]; so does the bound.
    """
    outside, inside = (0.0 if lower else 1.0), mean
    while (middle := (outside + inside) / 2) not in {outside, inside}:
        if abs(mean - middle) > _margin([*parts, variance_at(middle)], confidence):
            outside = middle
        else:
            inside = middle
    return outside


def loss_bound(
    mean: float, parts: Sequence[tuple[float, float]], *, confidence: float, power: int = 1
) -> float:
    """Upper bound of a loss that is never negative, its standard error being taken at the bound itself.

    Losses are skewed: a sample without the large ones has too small a mean *and* too small a variance. Where the
    standard error grows like the loss (``power`` 1; of a root mean square, its square: 2), the bound follows in closed
    form. Infinite where the sample is too small for any bound.
    """
    margin = _margin(parts, confidence)
    if margin == 0.0:
        return mean
    share = power * margin / mean if mean > 0.0 else math.inf
    return mean * (1 - share) ** (-1 / power) if share < 1.0 else math.inf


def _margin(parts: Sequence[tuple[float, float]], confidence: float) -> float:
    variance = math.fsum(part for part, _ in parts)
    if variance == 0.0:
        return 0.0
    # Shares of the sum, so that tiny variances do not vanish when they are squared.
    freedom = 1 / math.fsum((part / variance) ** 2 / df for part, df in parts)
    # scipy.special is a quarter of the import of scipy.stats.
    from scipy.special import stdtrit  # noqa: PLC0415

    return float(stdtrit(freedom, confidence)) * math.sqrt(variance)


def evaluate(
    gate: Gate,
    values: Sequence[float],
    rows: int | None,
    missing: int = 0,
    measured: Measured | str = "",
) -> GateResult:
    """Judge ``gate`` over the final ``values`` of independent runs, scored on ``rows`` hold-out examples.

    Met or not met only where both parts of the variance are known; *not met* already where the bound without the
    unknown part fails. ``missing`` counts further runs without a finite value: with any, no gate is met, for they
    may be the bad ones. ``measured`` is what the predictions of one run give, for sampling of that kind, or words that
    say why there is nothing.
    """
    if not values:
        return _result(gate, 0, None, None, None, None, "inconclusive", "no run has this metric")
    if not 0.5 < gate.confidence < 1.0:
        words = f"confidence {gate.confidence:g} is not between 0.5 and 1"
        return _result(gate, len(values), None, None, None, None, "inconclusive", words)
    try:
        return _evaluate(gate, values, rows, missing, measured)
    except OverflowError:
        words = "the values are too large to compute with"
        return _result(gate, len(values), None, None, None, None, "inconclusive", words)


def _evaluate(
    gate: Gate, values: Sequence[float], rows: int | None, missing: int, measured: Measured | str
) -> GateResult:
    mean = math.fsum(values) / len(values)
    rows = None if rows is None else counted_rows(gate, rows)
    seeds = sample_variance(values) / len(values) if len(values) > 1 else None
    if isinstance(measured, Measured) and measured.rows != rows:
        recorded = "did not record how many" if rows is None else f"recorded {rows}"
        measured = f"the predictions are of {measured.rows} examples, the runs {recorded}"
    bound, holdout = _bound(gate, mean, seeds, len(values), rows, measured)
    if not math.isfinite(bound):
        words = "the hold-out is too small for any bound"
        return _result(gate, len(values), mean, None, seeds, holdout, "inconclusive", words)
    lower = gate.comparator == ">="
    passed = bound >= gate.threshold if lower else bound <= gate.threshold
    unknown = []
    if seeds is None:
        unknown.append("one run shows no variance between seeds")
    if holdout is None:
        why = f" ({measured})" if isinstance(measured, str) and measured else ""
        unknown.append(f"the variance of the finite hold-out is not known{why}")
    if missing:
        unknown.append(f"{missing} of {len(values) + missing} repetitions have no finite value")
    side = "lower" if lower else "upper"
    what = f"{side} {100 * gate.confidence:g}% bound {bound:.4f}"
    words = f"{what} {gate.comparator} {gate.threshold:g}"
    if not passed:
        words = f"{what} is not {gate.comparator} {gate.threshold:g}"
        return _result(gate, len(values), mean, bound, seeds, holdout, "not met", words)
    if unknown:
        reason = f"{words}, but {' and '.join(unknown)}"
        return _result(gate, len(values), mean, bound, seeds, holdout, "inconclusive", reason)
    return _result(gate, len(values), mean, bound, seeds, holdout, "met", words)


def _bound(  # noqa: PLR0913  # what was seen of the runs, and of the hold-out
    gate: Gate,
    mean: float,
    seeds: float | None,
    runs: int,
    rows: int | None,
    measured: Measured | str,
) -> tuple[float, float | None]:
    """The pessimistic bound, and the variance that the finite hold-out has in it."""
    lower = gate.comparator == ">="
    parts = [] if seeds is None else [(seeds, float(runs - 1))]
    if isinstance(measured, Measured):
        return _measured_bound(gate, mean, parts, measured)
    sampling, freedom = gate.sampling, (rows or 2) - 1
    holdout = None
    if sampling is not None and rows is not None:
        holdout = holdout_variance(sampling, mean, rows)
    if sampling is not None and sampling.kind == "proportion" and holdout is not None:
        return _share_bound(gate, mean, parts, freedom + 1, freedom)
    if holdout is not None:
        parts.append((holdout, freedom))
    return pessimistic_bound(mean, parts, confidence=gate.confidence, lower=lower), holdout


def _share_bound(
    gate: Gate, mean: float, parts: Sequence[tuple[float, float]], examples: float, freedom: float
) -> tuple[float, float]:
    """The bound of a proportion of ``examples``, and the variance there."""
    bound = score_bound(
        mean,
        parts,
        lambda value: (value * (1 - value) / examples, freedom),
        confidence=gate.confidence,
        lower=gate.comparator == ">=",
    )
    return bound, bound * (1 - bound) / examples


def _measured_bound(
    gate: Gate, mean: float, parts: Sequence[tuple[float, float]], measured: Measured
) -> tuple[float, float]:
    """The bound where predictions show the variance, and that variance."""
    lower = gate.comparator == ">="
    if measured.effective is not None and 0.0 <= mean <= 1.0:
        return _share_bound(gate, mean, parts, measured.effective, measured.degrees)
    parts = [*parts, (measured.variance, measured.degrees)]
    name = gate.sampling.statistic if gate.sampling else None
    if measured.effective is None and lower == (name == "r2"):
        # R2 is 1 less a loss: its lower bound is that loss's upper one.
        loss = 1 - mean if lower else mean
        bound = loss_bound(
            loss, parts, confidence=gate.confidence, power=2 if name == "rmse" else 1
        )
        return 1 - bound if lower else bound, measured.variance
    return pessimistic_bound(
        mean, parts, confidence=gate.confidence, lower=lower
    ), measured.variance


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
