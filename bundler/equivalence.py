"""Whether re-runs agree with what was declared: the statistical verdict, with known error rates (docs/verdict.md).

D is the difference of two means, of the provider's and of the verifier's independent runs, with a pooled standard
error. The margin is absolute and known before: one in units of the provider's own spread would let a noisy provider
buy acceptance. Looks share the error probabilities (Bonferroni), so that stopping early costs nothing:

- *consistent*: the confidence bound of D lies within the margin, for every metric (two one-sided tests, Schuirmann
  1987; over several metrics an intersection-union test, Berger 1982, which needs no correction);
- *inconsistent*: D is beyond the margin and significant, corrected over the metrics (Holm 1979);
- *inconclusive*: otherwise.

The same seed again is no independent run: callers leave out re-runs of a declared seed. A training that crashed or was
stopped is a run without a value, for it may be the bad one.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Literal

from bundler.report import MetricVerdict, Verdict
from bundler.spread import ROUNDING, deviation_ratio, pooled_deviations, scaled

MIN_DECLARED: Final = 3
"""The best of 20 seeds, reported as one, looks like any single run: fewer declared runs are never consistent."""

POWER: Final = 0.9
MOST_RERUNS: Final = 40
"""Beyond so many re-runs nobody is asked for more: the declaration cannot be settled."""

MIN_RERUNS: Final = 2
"""One re-run may be the collapse that happens to one seed in a hundred: alone it settles nothing."""

MIN_OTHERS: Final = 3
"""Where trainings gave no value, fewer others contradict nothing."""

Better = Literal["higher is better", "lower is better"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Error probabilities over all ``looks`` together, and how many declared runs can be consistent at all.

    ``schedule`` are the numbers of re-runs, increasing, at which a verification with more of them is judged, too; empty
    if however many there are, there are ``looks`` looks.
    """

    false_consistent: float = 0.05
    false_inconsistent: float = 0.02
    looks: int = 3
    minimum_runs: int = MIN_DECLARED
    schedule: tuple[int, ...] = ()

    def looks_with(self, reruns: int) -> int:
        """At how many looks a verification with so many re-runs is judged: the schedule's before, and its end."""
        before = sum(look < reruns for look in self.schedule)
        return before + 1 if self.schedule else self.looks


ONE_LOOK: Final = Rule(looks=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One metric: a value of each of the provider's and of the verifier's independent runs, and the margin.

    ``None`` or a number that is not finite is a run without a value. ``margin`` is the one that counts,
    ``declared_margin`` the provider's. With ``overstatement`` only declared values that are better count against it.
    """

    metric: str
    declared: tuple[float | None, ...]
    rerun: tuple[float | None, ...]
    declared_margin: float | None = None
    margin: float | None = None
    overstatement: Better | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Test:
    """``size`` is the difference in the direction that counts; ``deviation`` the pooled one between seeds.

    ``slack`` is what rounding can do to the values.
    """

    difference: float
    size: float
    deviation: float
    error: float
    degrees: int
    bound: float
    p_value: float
    slack: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """A sample, its finite values, and their test: ``None`` where nothing can be computed."""

    sample: Sample
    declared: tuple[float, ...]
    rerun: tuple[float, ...]
    margin: float | None
    test: _Test | None

    @property
    def lost(self) -> int:
        """How many re-runs gave no value."""
        return len(self.sample.rerun) - len(self.rerun)

    @property
    def can_contradict(self) -> bool:
        """Whether the re-runs could contradict the declaration, whatever their values."""
        least = MIN_OTHERS if self.lost else MIN_RERUNS
        return self.margin is not None and len(self.rerun) >= least


def compare(samples: Sequence[Sample], rule: Rule | None = None) -> tuple[MetricVerdict, ...]:
    """Compare each of ``samples`` at one of the rule's looks; the verdicts of all metrics belong together.

    Never raises for a value: what cannot be computed is inconclusive and says why.
    """
    rule = rule or Rule()
    cases = [_case(sample, rule) for sample in samples]
    p_values = [
        case.test.p_value for case in cases if case.test is not None and case.can_contradict
    ]
    level = _holm(p_values, rule.false_inconsistent / rule.looks)
    return tuple(_verdict(case, rule, level) for case in cases)


def overall(verdicts: Iterable[MetricVerdict]) -> Verdict:
    """The verdict over all metrics: consistent only if every one is, inconsistent as soon as one is."""
    words = {each.verdict for each in verdicts}
    if "INCONSISTENT" in words:
        return "INCONSISTENT"
    return "CONSISTENT" if words == {"CONSISTENT"} else "INCONCLUSIVE"


def power(
    runs: int, reruns: int, ratio: float, rule: Rule = ONE_LOOK, *, one_sided: bool = False
) -> float:
    """The chance that a true declaration is found consistent at one of the rule's looks.

    The margin is ``ratio`` standard deviations between seeds; ``runs`` are the provider's, ``reruns`` the
    verifier's, more than two together. Integrates the normal probability over the distribution of the pooled variance
    (chi-squared, by its quantiles).
    """
    # numpy and scipy take a tenth of a second to import.
    import numpy as np  # noqa: PLC0415
    from scipy.special import gammaincinv, ndtr, stdtrit  # noqa: PLC0415

    degrees = runs + reruns - 2
    steps = (np.arange(400) + 0.5) / 400
    deviations = np.sqrt(2 * gammaincinv(degrees / 2, steps) / degrees)
    quantile = float(stdtrit(degrees, 1 - rule.false_consistent / rule.looks))
    room = ratio / math.sqrt(1 / runs + 1 / reruns) - quantile * deviations
    chances = ndtr(room) if one_sided else np.where(room > 0, 2 * ndtr(room) - 1, 0.0)
    return float(chances.mean())


def reruns_needed(
    runs: int, ratio: float, rule: Rule = ONE_LOOK, *, one_sided: bool = False, least: int = 2
) -> int | None:
    """Fewest re-runs, from ``least`` on, that find a true declaration consistent with a chance of 90 %.

    ``None`` for more than 40. Each number is taken with the looks that a verification with so many has; it is the last
    look that has this chance, so all together have more.
    """

    def chance(count: int) -> float:
        own = replace(rule, looks=rule.looks_with(count))
        return power(runs, count, ratio, own, one_sided=one_sided)

    # A re-run more has more power, unless it makes one look more.
    for end in (*(look for look in rule.schedule if look < MOST_RERUNS), MOST_RERUNS):
        counts = range(least, end + 1)
        found = bisect_left(counts, POWER, key=chance)
        if found < len(counts):
            return counts[found]
        least = max(least, end + 1)
    return None


def scatter_more(declared: Iterable[float | None], rerun: Iterable[float | None]) -> float | None:
    """How many times as far the declared runs scatter as the re-runs, if an F test at 0.999 says that they do more.

    The ratio of the standard deviations of the finite values; ``None`` if the test does not say so. Re-runs that are
    all alike have no such ratio. An honest provider's runs do in 1 of 1,000 cases.
    """
    return deviation_ratio(finite_values(declared), finite_values(rerun))


def finite_values(values: Iterable[float | None]) -> tuple[float, ...]:
    """Those of ``values`` that are finite numbers."""
    return tuple(each for each in values if each is not None and math.isfinite(each))


def _case(sample: Sample, rule: Rule) -> _Case:
    declared, rerun = finite_values(sample.declared), finite_values(sample.rerun)
    margin = sample.margin
    usable = margin is not None and math.isfinite(margin) and margin >= 0
    test = None
    if declared and rerun and len(declared) + len(rerun) > 2:
        with suppress(OverflowError):
            test = _tested(sample, declared, rerun, rule)
    return _Case(
        sample=sample,
        declared=declared,
        rerun=rerun,
        margin=margin if usable else None,
        test=test,
    )


def _tested(
    sample: Sample, declared: tuple[float, ...], rerun: tuple[float, ...], rule: Rule
) -> _Test:
    """The t test of the difference, and its bound. Raises :class:`OverflowError`."""
    from scipy.special import stdtr, stdtrit  # noqa: PLC0415  # a tenth of a second

    n, m = len(declared), len(rerun)
    values, exponent = scaled(declared + rerun)
    one, two = values[:n], values[n:]
    difference = math.fsum(one) / n - math.fsum(two) / m
    difference = 0.0 if abs(difference) <= ROUNDING else difference
    signed = {"higher is better": difference, "lower is better": -difference}
    size = signed.get(sample.overstatement or "", abs(difference))
    sides = 1 if sample.overstatement else 2
    deviation, accusing = pooled_deviations(one, two)
    width = math.sqrt(1 / n + 1 / m)
    error = deviation * width
    quantile = float(stdtrit(n + m - 2, 1 - rule.false_consistent / rule.looks))
    if accusing > 0:
        p_value = sides * float(stdtr(n + m - 2, -size / (accusing * width)))
    else:
        p_value = sides * _chance_of_constants(n, m) if size > 0 else 1.0
    return _Test(
        difference=math.ldexp(difference, exponent),
        size=math.ldexp(size, exponent),
        deviation=math.ldexp(deviation, exponent),
        error=math.ldexp(error, exponent),
        degrees=n + m - 2,
        bound=math.ldexp(size + quantile * error, exponent),
        p_value=min(p_value, 1.0),
        slack=math.ldexp(ROUNDING, exponent),
    )


def _chance_of_constants(n: int, m: int) -> float:
    """The largest chance, in one direction, that n equal values meet m other equal ones though their source is one.

    The t statistic is infinite then. But a metric on a coarse scale can repeat a value by chance: pⁿ(1-p)ᵐ at most, at
    p = n/(n+m).
    """
    total = n + m
    return math.exp(n * math.log(n / total) + m * math.log(m / total))


def _holm(p_values: Sequence[float], level: float) -> float:
    """The largest p-value that Holm's step-down procedure rejects at the family-wise ``level``; below 0 for none."""
    largest = -1.0
    for rank, p_value in enumerate(sorted(p_values)):
        if p_value > level / (len(p_values) - rank):
            break
        largest = p_value
    return largest


def _verdict(case: _Case, rule: Rule, level: float) -> MetricVerdict:
    sample, test = case.sample, case.test
    word: Verdict = "INCONCLUSIVE"
    needed = None
    explanation = next(_obstacles(case, rule), "")
    if test is not None and case.margin is not None:
        beyond = test.size > case.margin + test.slack
        if case.can_contradict and beyond and test.p_value <= level:
            word = "INCONSISTENT"
        elif not explanation and test.bound <= case.margin + test.slack:
            word = "CONSISTENT"
        elif not explanation:
            needed = _needed(case, test, case.margin, rule)
        if word == "INCONSISTENT" or not explanation:
            explanation = _explained(case, test, case.margin, word, needed)
    lost = f"{case.lost} of {len(sample.rerun)} trainings gave no value"
    if case.lost and lost not in explanation:
        explanation += f" {lost}."
    return MetricVerdict(
        metric=sample.metric,
        declared=case.declared,
        rerun=case.rerun,
        declared_margin=sample.declared_margin,
        margin=case.margin,
        difference=test.difference if test else None,
        standard_error=test.error if test else None,
        degrees=test.degrees if test else None,
        bound=test.bound if test else None,
        p_value=test.p_value if test else None,
        verdict=word,
        needed=needed,
        explanation=explanation,
    )


def _needed(case: _Case, test: _Test, margin: float, rule: Rule) -> int | None:
    """As many re-runs as would have settled a true declaration, were the seeds to scatter as they did."""
    ratio = margin / test.deviation if test.deviation else math.inf
    one_sided = case.sample.overstatement is not None
    least = len(case.rerun) + 1
    return reruns_needed(len(case.declared), ratio, rule, one_sided=one_sided, least=least)


def _obstacles(case: _Case, rule: Rule) -> Iterator[str]:
    """What keeps the metric from ever being consistent, whatever the values; most telling first."""
    sample, declared, rerun, test = case.sample, case.declared, case.rerun, case.test
    sides = ((sample.declared, declared, "declared runs"), (sample.rerun, rerun, "trainings"))
    for given, values, what in sides:
        if not values:
            without = (
                f"{len(given)} of {len(given)} {what} gave no value" if given else f"No {what}"
            )
            yield f"{without}, so there is nothing to compare."
    if test is None and len(declared) + len(rerun) > 2:
        yield "The values are too large to compute with."
    if test is None:
        yield "One declared value and one re-run do not show how much another seed changes."
    elif case.margin is None:
        yield (
            f"The means differ by {abs(test.difference):.3g}, but no usable tolerance is declared "
            "for this metric, so nothing says how large a difference matters."
        )
    for given, values, what in sides:
        if len(given) > len(values):
            yield (
                f"{len(given) - len(values)} of {len(given)} {what} gave no value: "
                "they may be the bad ones, so the others cannot speak for them."
            )
    if len(declared) < rule.minimum_runs:
        yield _too_few(case, rule)
    if len(rerun) < MIN_RERUNS:
        yield "One re-run alone does not show how much the verifier's own runs differ."


def _too_few(case: _Case, rule: Rule) -> str:
    declared, rerun = case.declared, case.rerun
    lower = sum(each < min(declared) for each in rerun)
    higher = sum(each > max(declared) for each in rerun)
    if case.sample.overstatement:
        count = lower if case.sample.overstatement == "higher is better" else higher
        word = "worse"
    else:
        count, word = max((lower, "lower"), (higher, "higher"))
    seeds = "one seed" if len(declared) == 1 else f"{len(declared)} seeds"
    whole = count == len(rerun) > 1
    return (
        f"Declared by {seeds} only, and {rule.minimum_runs} are the least; "
        f"{f'all {count}' if whole else f'{count} of {len(rerun)}'} of the verifier's are {word}"
        f"{', as the best of many seeds would look' if whole else ''}."
    )


def _explained(case: _Case, test: _Test, margin: float, word: Verdict, needed: int | None) -> str:
    start = (
        f"The declared {_mean(case.declared)} and the re-runs' {_mean(case.rerun)} "
        f"differ by {abs(test.difference):.3g}"
    )
    limit = f"the margin of {margin:.3g}"
    declared_margin = case.sample.declared_margin
    if declared_margin is not None and declared_margin > margin:
        limit += f" (declared {declared_margin:.3g}, cut by the verifier's policy)"
    what = "the overstatement" if case.sample.overstatement else "the difference"
    if word == "CONSISTENT":
        return f"{start}; allowing for chance, {what} is at most {test.bound:.3g}, within {limit}."
    p_value = f"(p = {test.p_value:.2g})"
    if word == "INCONSISTENT":
        return f"{start}: more than {limit}, and more than chance between seeds explains {p_value}."
    if test.size > margin + test.slack:
        reason = f"that is more than {limit}, but chance could have done it {p_value}"
    else:
        reason = f"allowing for chance, {what} may be {test.bound:.3g}, beyond {limit}"
    scatter = f"with runs that scatter by {test.deviation:.3g}"
    hope = f"even {MOST_RERUNS} re-runs would hardly settle it"
    if needed is not None:
        hope = f"{needed} re-runs would settle a true declaration with a chance of 90 %"
    return f"{start}; {reason}; {scatter}, {hope}."


def _mean(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"value {values[0]:.5g} (1 run)"
    return f"mean {math.fsum(each / len(values) for each in values):.5g} ({len(values)} runs)"
