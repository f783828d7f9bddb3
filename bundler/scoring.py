"""Statistics over predictions, and the variance that the finite hold-out gives them. Written out, with numpy alone.

The definitions are those of scikit-learn, which is the oracle of the tests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from bundler.errors import MalformedError
from bundler.spec import Statistic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESAMPLES: Final = 2000
"""Resamples of the bootstrap. They bring its standard error to within 2 % of where more would."""

RESAMPLED_ROWS: Final = 100_000
"""Most rows of one resample; of more examples, so many are drawn and the variance is scaled (m out of n bootstrap)."""

SHARES: Final[frozenset[Statistic]] = frozenset(
    {"accuracy", "auc", "balanced_accuracy", "brier", "f1", "precision", "recall", "specificity"}
)
"""Statistics between 0 and 1; the others have no upper limit, or no lower one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """Labels and scores, one an example, in order of the file; ``keys`` where a column names the examples."""

    labels: NDArray[np.float64]
    scores: NDArray[np.float64]
    threshold: float = 0.5
    keys: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return self.labels.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A statistic over ``rows`` predictions: its value, and the variance that the finite hold-out gives it.

    ``degrees`` are the degrees of freedom of the variance. A statistic between 0 and 1 varies like a proportion of
    ``effective`` examples (the effective sample size of survey statistics; Korn and Graubard 1998).
    """

    rows: int
    value: float
    variance: float
    degrees: float
    effective: float | None = None


def statistic(name: Statistic, examples: Examples) -> float:
    """The metric ``name`` over ``examples``, as scikit-learn defines it.

    Raises :class:`MalformedError` (``predictions-undefined``) where it has no value, such as the AUC of one class.
    """
    if name == "auc":
        return _auc(*_classes(examples))
    if name == "f1":
        hits, counted = _hits(examples)
        return 2 * int(hits.sum()) / int(hits.sum() + counted.sum())
    if name == "balanced_accuracy":
        return (statistic("recall", examples) + statistic("specificity", examples)) / 2
    if name == "r2":
        return _r2(examples)
    value = _mean(_losses(name, examples))
    return math.sqrt(value) if name == "rmse" else value


def variance(name: Statistic, examples: Examples) -> float:
    """Variance of :func:`statistic` over samples of so many examples.

    The AUC after DeLong et al. (1988), means exactly, others by a bootstrap that always draws the same. Raises
    :class:`MalformedError` (``predictions-undefined``).
    """
    if name == "auc":
        return _delong(*_classes(examples))
    if name == "balanced_accuracy":
        return (variance("recall", examples) + variance("specificity", examples)) / 4
    if name == "f1":
        # Negatives that were called so have no part in it.
        return _bootstrap(name, _only(examples, _hits(examples)[1]))
    if name in {"rmse", "r2"}:
        return _bootstrap(name, examples)
    return _variance_of_mean(_losses(name, examples))


def measure(name: Statistic, examples: Examples) -> Measured:
    """What a gate on :func:`statistic` needs. Raises :class:`MalformedError` (``predictions-undefined``)."""
    import numpy as np  # noqa: PLC0415  # heavy, and few bundles need it

    with np.errstate(all="ignore"):  # what is too large is said below
        value, spread, counted = statistic(name, examples), variance(name, examples), None
    if not (math.isfinite(value) and math.isfinite(spread)):
        raise _undefined(f"{name} is too large to compute with")
    if name in SHARES:
        counted = _effective(name, examples, value, spread)
    elif spread == 0:
        raise _undefined(f"all examples give the same {name}, which shows no variance")
    degrees = max(1.0, min(len(examples), counted or math.inf) - 1)
    return Measured(
        rows=len(examples), value=value, variance=spread, degrees=degrees, effective=counted
    )


def _losses(name: Statistic, examples: Examples) -> NDArray[np.float64]:
    """The values whose mean the statistic is (of rmse, its square): one for each example that counts."""
    import numpy as np  # noqa: PLC0415  # heavy, and few bundles need it

    labels, scores = examples.labels, examples.scores
    errors: NDArray[np.float64] = np.abs(scores - labels)
    squares: NDArray[np.float64] = errors**2
    if name == "mae":
        return errors
    if name in {"mse", "rmse"}:
        return squares
    _require_binary(examples)
    if name in {"brier", "log_loss"}:
        if scores.min() < 0 or scores.max() > 1:
            raise _undefined(f"{name} needs scores between 0 and 1")
        if name == "brier":
            return squares
        smallest = np.finfo(np.float64).eps
        right = np.clip(np.where(labels == 1, scores, 1 - scores), smallest, 1 - smallest)
        surprise: NDArray[np.float64] = -np.log(right)
        return surprise
    positive = scores >= examples.threshold
    correct = (positive == (labels == 1)).astype(np.float64)
    counts = {"recall": labels == 1, "specificity": labels == 0, "precision": positive}
    counted: NDArray[np.float64] = correct[counts[name]] if name in counts else correct
    if counted.size == 0:
        raise _undefined(f"{name} of no examples")
    return counted


def _hits(examples: Examples) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which examples are true positives, and which are positive by label or decision."""
    _require_binary(examples)
    positive, label = examples.scores >= examples.threshold, examples.labels == 1
    if not (positive | label).any():
        raise _undefined("f1 of no positives")
    return positive & label, positive | label


def _only(examples: Examples, chosen: NDArray[Any]) -> Examples:
    """The examples that a mask or positions choose, without their keys."""
    labels, scores = examples.labels[chosen], examples.scores[chosen]
    return replace(examples, labels=labels, scores=scores, keys=None)


def _r2(examples: Examples) -> float:
    total = float(((examples.labels - examples.labels.mean()) ** 2).sum())
    rest = float(((examples.labels - examples.scores) ** 2).sum())
    if total == 0:
        raise _undefined("r2 of labels that are all the same")
    return 1 - rest / total


def _classes(examples: Examples) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of the positive and of the negative examples."""
    _require_binary(examples)
    positives, negatives = (examples.scores[examples.labels == each] for each in (1, 0))
    if positives.size == 0 or negatives.size == 0:
        raise _undefined("auc of examples of one class")
    return positives, negatives


def _auc(positives: NDArray[np.float64], negatives: NDArray[np.float64]) -> float:
    """Share of pairs in which the positive example has the higher score, ties by half (Mann and Whitney 1947)."""
    return float(_placements(positives, negatives)[0].mean())


def _delong(positives: NDArray[np.float64], negatives: NDArray[np.float64]) -> float:
    """Variance of the AUC after DeLong et al. (1988), by midranks in n log n (Sun and Xu 2014)."""
    return sum(map(_variance_of_mean, _placements(positives, negatives)))


def _placements(
    positives: NDArray[np.float64], negatives: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each positive the share of negatives below it, for each negative the share of positives above it."""
    import numpy as np  # noqa: PLC0415  # heavy, and few bundles need it

    count = positives.size
    together = _midranks(np.concatenate([positives, negatives]))
    below = (together[:count] - _midranks(positives)) / negatives.size
    above = 1 - (together[count:] - _midranks(negatives)) / count
    return below, above


def _midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1 on; equal values have the mean of theirs."""
    import numpy as np  # noqa: PLC0415  # heavy, and few bundles need it

    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middles = ends - (counts - 1) / 2
    ranks: NDArray[np.float64] = middles[places]
    return ranks


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean())


def _variance_of_mean(values: NDArray[np.float64]) -> float:
    if values.size < 2:
        raise _undefined("one example shows no variance")
    return float(values.var(ddof=1)) / values.size


def _bootstrap(name: Statistic, examples: Examples) -> float:
    """Variance of the statistic over resamples with replacement (Efron 1979), always the same ones.

    A verifier must come to the provider's figure whatever its numpy, so the draws are made from the raw output of
    PCG64, which the algorithm defines; how a Generator makes integers of it may change from version to version.
    """
    import numpy as np  # noqa: PLC0415  # heavy, and few bundles need it

    size = min(len(examples), RESAMPLED_ROWS)
    generator = np.random.PCG64(20250802)
    found = []
    for _ in range(RESAMPLES):
        upper = np.right_shift(generator.random_raw(size), np.uint64(32))
        drawn = np.right_shift(upper * np.uint64(len(examples)), np.uint64(32)).astype(np.intp)
        try:
            found.append(statistic(name, _only(examples, drawn)))
        except MalformedError:
            continue  # a resample without what the statistic needs
    if len(found) < RESAMPLES / 2:
        raise _undefined(f"{name} has no value in most resamples")
    return float(np.var(found, ddof=1)) * size / len(examples)


def _effective(name: Statistic, examples: Examples, value: float, spread: float) -> float:
    """Of how many examples a proportion with this value would have this variance.

    Few examples that show no variance prove little, so there is an upper limit for each statistic.
    """
    if name == "brier":
        # With one loss of 0 and one of 1 besides: rare large losses may only not have been seen.
        losses = _losses(name, examples)
        size = losses.size + 2
        mean = (float(losses.sum()) + 1) / size
        square = (float((losses**2).sum()) + 1) / size
        return mean * (1 - mean) * size / (square - mean**2)
    if name in {"auc", "balanced_accuracy"}:
        positives, negatives = (each.size for each in _classes(examples))
        # Of two proportions; and twice what an AUC of 1/2 counts for (Mann and Whitney 1947).
        most = 4 * positives * negatives / (positives + negatives)
        if name == "auc":
            most = 6 * positives * negatives / (positives + negatives + 1)
    elif name == "f1":
        most = float(_hits(examples)[1].sum())
    else:
        return float(_losses(name, examples).size)
    share = value * (1 - value)
    return min(most, share / spread) if min(share, spread) > 1e-12 else most


def binary(labels: NDArray[np.float64]) -> bool:
    """Whether the labels name two classes, and are no other numbers."""
    return bool(((labels == 0) | (labels == 1)).all())


def _require_binary(examples: Examples) -> None:
    if not binary(examples.labels):
        raise _undefined("the labels are not all 0 or 1")


def _undefined(message: str) -> MalformedError:
    return MalformedError("predictions-undefined", message)
