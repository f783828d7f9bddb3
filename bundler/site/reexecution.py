"""A re-execution as page 5.4 shows it: judged metrics with what a figure needs, and the ladder of the declared seed.

Nothing here decides: verdicts are the report's. Only :func:`trajectory` puts figures of the report into words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bundler.equivalence import Better
from bundler.evaluation import ABSOLUTE, RELATIVE
from bundler.records import Number
from bundler.report import (
    MetricComparison,
    MetricVerdict,
    Rerun,
    ScoredMetric,
    TensorComparison,
)

SAME_DECISIONS = 0.97
"""Least share of equal decisions of one seed under other arithmetic; another seed was measured to give 0.51 to 0.78."""

SAME_DIRECTION = 0.9
"""Least cosine, declared against re-run, of a tensor that is still called the same."""

_DRAWABLE = 1e150
"""Beyond it, differences and their reciprocals leave the floating-point range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedMetric:
    """A metric of the provider's and of the verifier's independent runs, with the places that a figure marks."""

    result: MetricVerdict
    overstatement: Better | None

    @property
    def declared_mean(self) -> float | None:
        """Mean of the provider's runs."""
        return mean(self.result.declared)

    @property
    def rerun_mean(self) -> float | None:
        """Mean of the verifier's runs."""
        return mean(self.result.rerun)

    @property
    def capped(self) -> bool:
        """Whether the verifier's policy allows less than was declared."""
        declared, margin = self.result.declared_margin, self.result.margin
        return declared is not None and margin is not None and margin < declared

    @property
    def band(self) -> tuple[float, float] | None:
        """Where the verifier's mean agrees with the declared one; infinite where only overstatement counts."""
        middle, margin = self.declared_mean, self.result.margin
        if middle is None or margin is None:
            return None
        low = -math.inf if self.overstatement == "lower is better" else middle - margin
        high = math.inf if self.overstatement == "higher is better" else middle + margin
        return low, high

    @property
    def chance(self) -> tuple[float, float] | None:
        """What chance allows for the verifier's mean: it lies in the band exactly where the bound is in the margin."""
        middle, bound, difference = self.rerun_mean, self.result.bound, self.result.difference
        if middle is None or bound is None or difference is None:
            return None
        size = {"higher is better": difference, "lower is better": -difference}.get(
            self.overstatement or "", abs(difference)
        )
        half = max(0.0, bound - size)
        return middle - half, middle + half

    @property
    def scale(self) -> tuple[float, float] | None:
        """The ends of an axis that shows all of it; ``None`` where nothing can be drawn."""
        marks = [
            *self.result.declared,
            *self.result.rerun,
            *(self.band or ()),
            *(self.chance or ()),
        ]
        marks = [each for each in marks if math.isfinite(each)]
        largest = max(map(abs, marks), default=math.inf)
        if largest > _DRAWABLE or not (self.result.declared or self.result.rerun):
            return None
        span = max(marks) - min(marks)
        room = max(0.08 * span, 1e-6 * largest)
        if room < 1 / _DRAWABLE:
            room = 1.0
        return min(marks) - room, max(marks) + room

    @property
    def finding(self) -> str:
        """One sentence for those who do not see the figure."""
        result = self.result
        margin = "no margin" if result.margin is None else f"margin {result.margin:.3g}"
        sides = (
            f"{len(values)} {whose} with mean {'unknown' if middle is None else f'{middle:.5g}'}"
            for values, whose, middle in (
                (result.declared, "declared runs", self.declared_mean),
                (result.rerun, "re-runs", self.rerun_mean),
            )
        )
        return f"{result.metric}: {', '.join(sides)}, {margin}: {result.verdict}."


def mean(values: Sequence[float]) -> float | None:
    """The mean of ``values``; ``None`` without any, or where their sum leaves the floating-point range."""
    try:
        return math.fsum(values) / len(values) if values else None
    except (OverflowError, ValueError):
        return None


# --- the declared seed ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """A step of the comparison of outputs: what was compared, what was found, and ``word``, a verdict."""

    name: str
    word: str
    found: str


def ladder(
    rerun: Rerun, margins: Mapping[str, float], deviations: Mapping[str, float]
) -> tuple[Rung, ...]:
    """The comparison of the declared seed in its order: bytes, elements, distances, predictions, metrics.

    ``margins`` and ``deviations`` (between seeds) are by metric. Distances are left out where all bytes are equal.
    """
    if rerun.verdict == "failed":
        return ()
    judged = [each for each in rerun.metrics if each.metric in {*margins, *deviations}]
    return (
        *_tensor_rungs(rerun.tensors),
        *_prediction_rungs(rerun),
        _history_rung(rerun.metrics),
        *(_metric_rung(each, margins, deviations) for each in judged),
    )


def _tensor_rungs(tensors: Sequence[TensorComparison]) -> Iterator[Rung]:
    if not tensors:
        yield Rung(name="Tensors, byte by byte", word="not run", found="no tensor was compared")
        return
    equal = sum(each.equal for each in tensors)
    word = "equal" if equal == len(tensors) else "differs"
    words = f"{equal:,} of {len(tensors):,} tensors have equal bytes"
    yield Rung(name="Tensors, byte by byte", word=word, found=words)
    if equal == len(tensors):
        return
    yield Rung(name="Equal elements", word="differs", found=_equal_elements(tensors))
    ulps = (
        _worst("median at most", tensors, "ulp_median"),
        _worst("99th percentile at most", tensors, "ulp_p99"),
    )
    yield Rung(
        name="Distance in units in the last place (ULP)", word="differs", found=_joined(ulps)
    )
    directions = (
        _worst("distance at most", tensors, "relative_l2"),
        _worst("cosine at least", tensors, "cosine", lowest=True),
    )
    yield Rung(name="Relative distance (L2) and cosine", word="differs", found=_joined(directions))


def _equal_elements(tensors: Sequence[TensorComparison]) -> str:
    known = [
        (min(math.prod(each.shape), 1 << 62), each.equal_fraction)
        for each in tensors
        if each.equal_fraction is not None
    ]
    total = sum(count for count, _ in known)
    left = len(tensors) - len(known)
    rest = f"; not known of {left:,} tensors" if left else ""
    if not total:
        return "not known"
    share = sum(count * fraction for count, fraction in known) / total
    return f"{100 * share:.4g} % of {total:,} elements{rest}"


def _worst(
    words: str, tensors: Sequence[TensorComparison], name: str, *, lowest: bool = False
) -> str:
    """The worst figure ``name`` of all tensors, and which tensor has it."""
    known = [(getattr(each, name), each.tensor) for each in tensors]
    known = [each for each in known if each[0] is not None]
    if not known:
        return ""
    value, tensor = min(known) if lowest else max(known)
    shown = f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if lowest else f"{value:.3g}"
    return f"{words} {shown} ({tensor})"


def _joined(parts: Iterable[str]) -> str:
    return "; ".join(filter(None, parts)) or "not known"


def _prediction_rungs(rerun: Rerun) -> Iterator[Rung]:
    if not rerun.predictions:
        yield Rung(name="Predictions", word="not run", found="none were compared")
    for each in rerun.predictions:
        same = each.agreement == 1 and each.max_absolute_difference == 0
        largest = {
            "logit": each.max_logit_difference,
            "score": each.max_absolute_difference,
        }
        parts = [
            f"{each.alike} in {100 * each.agreement:.4g} % of {each.examples:,} examples",
            *(
                f"largest difference of a {name} {value:.3g}"
                for name, value in largest.items()
                if value is not None
            ),
        ]
        found = f"{'; '.join(parts)} ({each.artefact})"
        yield Rung(name="Predictions", word="equal" if same else "differs", found=found)


def _history_rung(metrics: Sequence[MetricComparison]) -> Rung:
    differing = [each for each in metrics if each.points_differing]
    if not metrics:
        return Rung(name="Metric histories", word="not run", found="no metric was compared")
    found = f"{len(metrics) - len(differing):,} of {len(metrics):,} equal in every point"
    steps = [
        each.first_differing_step for each in differing if each.first_differing_step is not None
    ]
    if steps:
        found += f"; the first difference is at step {min(steps):,}"
    return Rung(name="Metric histories", word="differs" if differing else "equal", found=found)


def _metric_rung(
    compared: MetricComparison, margins: Mapping[str, float], deviations: Mapping[str, float]
) -> Rung:
    apart = difference(compared)
    parts = ["has no two values" if apart is None else f"differs by {apart:.3g}"]
    if not compared.points_differing:
        parts = ["the same value"]
    for words, found in (
        ("margin", margins.get(compared.metric)),
        ("standard deviation between seeds", deviations.get(compared.metric)),
    ):
        if found is not None:
            parts.append(f"{words} {found:.3g}")
    return Rung(
        name=f"Metric {compared.metric}",
        word="differs" if compared.points_differing else "equal",
        found="; ".join(parts),
    )


def difference(compared: MetricComparison) -> float | None:
    """The size of the difference of the last values, if both are finite numbers."""
    return _apart(compared.declared, compared.rerun)


def scored_difference(scored: ScoredMetric) -> float | None:
    """The size of the difference of what was declared and what was found, if both are finite numbers."""
    return _apart(scored.declared, scored.found)


def _apart(declared: Number | None, found: Number | None) -> float | None:
    if not isinstance(declared, (int, float)) or not isinstance(found, (int, float)):
        return None
    return abs(found - declared)


def scored_word(scored: ScoredMetric, margin: float | None) -> str:
    """How a metric of the shipped model came out, by the limits of the verifier (:mod:`bundler.evaluation`)."""
    declared, found = scored.declared, scored.found
    if isinstance(declared, str) or isinstance(found, str) or declared is None or found is None:
        return "no value"
    if math.isclose(found, declared, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
        return "equal"
    return (
        "within margin" if margin is not None and abs(found - declared) <= margin else "not equal"
    )


def trajectory(rerun: Rerun, margins: Mapping[str, float], deviations: Mapping[str, float]) -> str:
    """What can be said where the weights differ; empty where they do not, or none were compared."""
    if rerun.verdict == "failed" or all(each.equal for each in rerun.tensors):
        return ""
    if not rerun.predictions:
        return "The weights differ, and no predictions were compared: only the metrics can say how much it matters."
    least = min(rerun.predictions, key=lambda each: each.agreement)
    share = f"{100 * least.agreement:.4g} % of the examples have {least.alike}"
    if least.agreement < SAME_DECISIONS:
        return f"The weights differ, and so do the predictions: only {share}."
    away = next(
        (
            each
            for each in rerun.tensors
            if each.cosine is not None and each.cosine < SAME_DIRECTION
        ),
        None,
    )
    moved = next(_moved(rerun.metrics, margins, deviations), None)
    if away is None and moved is None:
        return (
            f"Numerically divergent, same trajectory: the weights differ, but {share},"
            " and no judged metric moved by more than its margin or the standard deviation between seeds."
        )
    what = f"metric {moved} moved by more than its margin or than another seed moves it"
    if away is not None:
        what = f"the weights point elsewhere (cosine {away.cosine:.3g} of {away.tensor})"
    return f"The weights differ; {share}, but {what}."


def _moved(
    metrics: Iterable[MetricComparison],
    margins: Mapping[str, float],
    deviations: Mapping[str, float],
) -> Iterator[str]:
    """The judged metrics that moved by more than their margin or than another seed would move them."""
    for each in metrics:
        limits = [known[each.metric] for known in (margins, deviations) if each.metric in known]
        if not limits or not each.points_differing:
            continue
        apart = difference(each)
        if apart is None or apart > min(limits):
            yield each.metric
