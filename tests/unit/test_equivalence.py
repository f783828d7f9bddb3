"""The verdict: its words for every kind of sample, and its error rates by seeded simulation.

The simulation is of the shipped rule: a vectorised copy of it is held against ``compare`` on hundreds of samples.
Every figure in docs/verdict.md is read from there and checked here.
"""

from __future__ import annotations

import itertools
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import fdtri, stdtr, stdtrit

from bundler.equivalence import (
    Rule,
    Sample,
    _chance_of_constants,
    _holm,
    compare,
    overall,
    power,
    reruns_needed,
    scatter_more,
)
from bundler.spread import deviation_bound, one_draw

DOCS = Path(__file__).parents[2] / "docs" / "verdict.md"
LOOKS = (3, 5, 8)
FIVE = (0.80, 0.82, 0.78, 0.81, 0.79)
HIGHER = "higher is better"


def sample(declared=FIVE, rerun=FIVE, margin=0.1, **more) -> Sample:
    return Sample(
        metric=more.pop("metric", "auc"), declared=declared, rerun=rerun, margin=margin, **more
    )


def judged(declared=FIVE, rerun=FIVE, margin=0.1, looks=3, **more):
    return compare([sample(declared, rerun, margin, **more)], Rule(looks=looks))[0]


def moved(values, by):
    return tuple(each + by for each in values)


# --- the words ----------------------------------------------------------------------------------------------------


def test_the_same_result_within_the_margin_is_consistent():
    result = judged(rerun=moved(FIVE, 0.001))
    assert result.verdict == "CONSISTENT"
    assert result.difference == pytest.approx(-0.001)
    assert result.bound <= result.margin
    assert "mean 0.8 (5 runs)" in result.explanation
    assert "within the margin of 0.1" in result.explanation


def test_the_textbook_formula_of_the_bound():
    """Both variances 0.00025, n = m = 5: SE = √(0.00025·2/5) = 0.01; t(1 - .05/3; 8) = 2.5660 (printed: 2.306 to 2.896)."""
    result = judged(rerun=moved(FIVE, -0.03))
    assert result.standard_error == pytest.approx(0.01)
    assert result.degrees == 8
    assert result.bound == pytest.approx(0.03 + float(stdtrit(8, 1 - 0.05 / 3)) * 0.01)
    assert result.p_value == pytest.approx(2 * float(stdtr(8, -3.0)))


def test_a_difference_beyond_the_margin_and_chance_is_inconsistent():
    result = judged(rerun=moved(FIVE, -0.2))
    assert result.verdict == "INCONSISTENT"
    assert result.needed is None
    assert "more than the margin of 0.1, and more than chance" in result.explanation


def test_a_significant_difference_within_the_margin_is_not_inconsistent():
    result = judged(rerun=moved(FIVE, -0.08))
    assert result.p_value < 0.001
    assert result.verdict == "INCONCLUSIVE"
    assert "the difference may be 0.106, beyond the margin" in result.explanation


def test_a_difference_beyond_the_margin_that_chance_explains_is_inconclusive():
    result = judged((0.7, 0.8, 0.9), (0.6, 0.7, 0.5), margin=0.1)
    assert result.verdict == "INCONCLUSIVE"
    assert "chance could have done it" in result.explanation
    assert "even 40 re-runs would hardly settle it" in result.explanation


def test_inconclusive_says_how_many_reruns_would_settle_it():
    result = judged(FIVE, FIVE[:3], margin=0.034, overstatement=HIGHER)
    assert result.verdict == "INCONCLUSIVE"
    assert result.needed == 13
    assert "differ by 0;" in result.explanation
    assert f"{result.needed} re-runs would settle a true declaration" in result.explanation


def test_a_cut_margin_is_named_with_the_declared_one():
    result = judged(margin=0.05, declared_margin=0.5)
    assert "margin of 0.05 (declared 0.5, cut by the verifier's policy)" in result.explanation


@pytest.mark.parametrize(("better", "sign"), [(HIGHER, 1), ("lower is better", -1)])
def test_with_overstatement_only_a_better_declaration_counts_against_it(better, sign):
    modest = judged(rerun=moved(FIVE, 0.5 * sign), overstatement=better)
    boasting = judged(rerun=moved(FIVE, -0.5 * sign), overstatement=better)
    assert modest.verdict == "CONSISTENT"
    assert modest.bound < 0
    assert boasting.verdict == "INCONSISTENT"
    assert judged(rerun=moved(FIVE, 0.5 * sign)).verdict == "INCONSISTENT"


def test_two_sided_tests_share_the_error_between_both_directions():
    two = judged(rerun=moved(FIVE, -0.03))
    one = judged(rerun=moved(FIVE, -0.03), overstatement=HIGHER)
    assert two.p_value == pytest.approx(2 * one.p_value)
    assert two.bound == pytest.approx(one.bound)


def test_one_look_is_less_strict_than_each_of_three():
    assert judged(looks=1).bound < judged(looks=3).bound


# --- what is missing or extreme -----------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["declared", "rerun"])
def test_a_run_without_a_value_is_never_consistent(missing, side):
    values = {"declared": FIVE, "rerun": FIVE, side: (*FIVE, missing)}
    result = judged(**values)
    assert result.verdict == "INCONCLUSIVE"
    assert "1 of 6" in result.explanation
    assert all(map(math.isfinite, result.declared + result.rerun))
    values[side] = (*moved(FIVE, 0.5), missing)
    assert judged(**values).verdict == "INCONSISTENT"


@pytest.mark.parametrize(
    ("declared", "rerun", "words"),
    [
        ((), FIVE, "No declared runs, so there is nothing to compare."),
        (FIVE, (), "No trainings, so there is nothing to compare."),
        ((None, math.nan), FIVE, "2 of 2 declared runs gave no value, so there is nothing"),
        (FIVE, (None,) * 20, "20 of 20 trainings gave no value, so there is nothing"),
        ((), (), "No declared runs"),
        ((0.9,), (0.8,), "One declared value and one re-run"),
        ((1.7e308, 1.7e308, 1.6e308), (-1.7e308, -1.7e308), "too large"),
    ],
)
def test_what_cannot_be_computed_is_inconclusive_and_says_why(declared, rerun, words):
    result = judged(declared, rerun)
    assert result.verdict == "INCONCLUSIVE"
    assert result.explanation.startswith(words) or words in result.explanation
    assert (result.difference, result.p_value, result.bound, result.needed) == (None,) * 4


def test_trainings_that_crashed_are_named_and_what_is_left_is_never_consistent():
    """A training can end itself where the result is bad: the survivors agree with anything."""
    left = judged(rerun=(*FIVE[:4], *[math.nan] * 6, *FIVE, *FIVE), margin=10.0)
    assert left.verdict == "INCONCLUSIVE"
    assert left.explanation.startswith("6 of 20 trainings gave no value: they may be the bad ones")
    assert left.needed is None
    against = judged(rerun=(*moved(FIVE, -0.5)[:3], None, math.inf))
    assert against.verdict == "INCONSISTENT"
    assert against.explanation.endswith("explains (p = 1.8e-08). 2 of 5 trainings gave no value.")
    without_margin = judged(rerun=(*FIVE, None), margin=None)
    assert "no usable tolerance" in without_margin.explanation
    assert without_margin.explanation.endswith(" 1 of 6 trainings gave no value.")


def test_fewer_than_three_trainings_contradict_nothing_where_others_gave_no_value():
    far = moved(FIVE, -0.5)
    assert judged(rerun=(*far[:2], math.nan)).verdict == "INCONCLUSIVE"
    assert judged(rerun=(*far[:3], math.nan)).verdict == "INCONSISTENT"
    assert judged(rerun=far[:2]).verdict == "INCONSISTENT"
    # Nor do they take a share of the error: p = 0.006 passes as the only test, not as one of two.
    alone = sample(rerun=moved(FIVE, -0.037), margin=0.01)
    silent = sample(metric="silent", rerun=(0.7, 0.7, math.nan))
    other = sample(metric="other", rerun=FIVE)
    assert compare([alone])[0].p_value == pytest.approx(0.006, abs=2e-4)
    assert compare([alone, other])[0].verdict == "INCONCLUSIVE"
    assert compare([alone, silent])[0].verdict == compare([alone])[0].verdict == "INCONSISTENT"


@pytest.mark.parametrize("margin", [None, math.nan, math.inf, -0.1])
def test_without_a_usable_margin_nothing_is_settled(margin):
    result = judged(rerun=moved(FIVE, -0.2), margin=margin)
    assert (result.verdict, result.margin) == ("INCONCLUSIVE", None)
    assert "differ by 0.2, but no usable tolerance" in result.explanation


def test_huge_and_tiny_values_are_compared_like_any_others():
    for scale in (1e300, 1e-300):
        declared = tuple(each * scale for each in FIVE)
        other = tuple(each * scale for each in moved(FIVE, -0.2))
        assert judged(declared, declared, 0.1 * scale).verdict == "CONSISTENT"
        assert judged(declared, other, 0.1 * scale).verdict == "INCONSISTENT"


def test_one_rerun_alone_settles_nothing():
    result = judged(rerun=(0.8,), margin=10.0)
    assert result.verdict == "INCONCLUSIVE"
    assert "One re-run alone" in result.explanation
    collapsed = judged(rerun=(0.1,))
    assert collapsed.verdict == "INCONCLUSIVE"
    assert collapsed.p_value < 1e-5
    assert judged(rerun=(0.1, 0.11)).verdict == "INCONSISTENT"


@pytest.mark.parametrize("declared", [(0.8,), (0.8, 0.81)])
def test_fewer_than_three_declared_runs_are_never_consistent(declared):
    result = judged(declared, FIVE, margin=10.0)
    assert result.verdict == "INCONCLUSIVE"
    assert "and 3 are the least" in result.explanation
    assert judged(declared, moved(FIVE, -0.5)).verdict == "INCONSISTENT"


def test_a_policy_can_ask_for_more_declared_runs():
    assert compare([sample()], Rule(minimum_runs=6))[0].verdict == "INCONCLUSIVE"


def test_one_declared_value_is_judged_by_the_verifiers_own_spread():
    """A prediction interval: SE = s·√(1 + 1/m), m - 1 degrees of freedom."""
    result = judged((0.9,), FIVE)
    assert result.standard_error == pytest.approx(math.sqrt(0.00025 * (1 + 1 / 5)))
    assert result.degrees == 4


def test_the_best_of_many_seeds_reported_as_one_is_named():
    """The best of 20, and eight seeds of the verifier's own."""
    rng = np.random.default_rng(21)
    best = float(rng.normal(0.8, 0.01, 20).max())
    result = judged(
        (best,), tuple(rng.normal(0.8, 0.01, 8).tolist()), overstatement=HIGHER, looks=1
    )
    assert result.verdict == "INCONCLUSIVE"
    assert result.explanation == (
        "Declared by one seed only, and 3 are the least; all 8 of the verifier's are worse, "
        "as the best of many seeds would look."
    )


@pytest.mark.parametrize(
    ("declared", "rerun", "better", "words"),
    [
        ((0.8,), (0.7, 0.9, 0.7), None, "2 of 3 of the verifier's are lower."),
        ((0.8,), (0.9, 0.9, 0.7), None, "2 of 3 of the verifier's are higher."),
        ((0.8,), (0.9, 0.9, 0.7), HIGHER, "1 of 3 of the verifier's are worse."),
        ((0.8, 0.7), (0.9, 0.91), "lower is better", "all 2 of the verifier's are worse, as"),
    ],
)
def test_it_says_how_many_are_worse(declared, rerun, better, words):
    assert words in judged(declared, rerun, margin=10.0, overstatement=better).explanation


def test_the_best_of_twenty_looks_like_a_single_run_and_is_never_consistent():
    rng = np.random.default_rng(7)
    best = rng.standard_normal((300, 20)).max(axis=1)
    own = rng.standard_normal((300, 8))
    words = [
        judged((float(b),), tuple(row.tolist()), 2.0, looks=1, overstatement=HIGHER).verdict
        for b, row in zip(best, own, strict=True)
    ]
    assert "CONSISTENT" not in words
    # So it cannot be shown to be wrong either, mostly: hence three declared runs.
    assert words.count("INCONCLUSIVE") > 200


# --- metrics that do not vary -------------------------------------------------------------------------------------


def test_a_metric_that_never_varies_and_agrees_is_consistent():
    result = judged((0.9,) * 3, (0.9,) * 3, margin=0.0)
    assert (result.verdict, result.bound, result.p_value) == ("CONSISTENT", 0.0, 1.0)


def test_a_metric_that_never_varies_and_differs_needs_enough_runs_to_rule_out_chance():
    few = judged((0.9,) * 3, (0.8,) * 3, margin=0.05)
    many = judged((0.9,) * 3, (0.8,) * 8, margin=0.05)
    assert (few.verdict, many.verdict) == ("INCONCLUSIVE", "INCONSISTENT")
    assert few.p_value == pytest.approx(2 / 64)
    assert "chance could have done it" in few.explanation


def test_rounding_decides_nothing():
    # 0.8 - 0.7 > 0.1 in floating-point arithmetic.
    assert judged((0.8,) * 5, (0.7,) * 8, margin=0.1).verdict == "CONSISTENT"
    wobbling = (0.9, 0.9 + 1e-16, 0.9 - 1e-16)
    result = judged(wobbling, (0.8,) * 3, margin=0.05)
    assert (result.standard_error, result.verdict) == (0.0, "INCONCLUSIVE")


def test_settling_what_never_varied_takes_one_more_rerun():
    result = judged((0.9,) * 3, (0.85,) * 3, margin=0.01, overstatement="lower is better")
    assert result.verdict == "CONSISTENT"
    assert judged((0.9,) * 3, (0.85,) * 3, margin=0.01).needed == 4


@pytest.mark.parametrize(("n", "m"), list(itertools.product((2, 3, 5), (2, 3, 5, 8))))
def test_the_chance_of_two_different_constants_is_no_larger_for_any_coarse_metric(n, m):
    rng = np.random.default_rng(n * 10 + m)
    for values in (2, 3, 5):
        shares = rng.dirichlet(np.full(values, 0.5), 4000)
        chance = shares.__pow__(n).sum(1) * (shares**m).sum(1) - (shares ** (n + m)).sum(1)
        assert chance.max() <= 2 * _chance_of_constants(n, m) + 1e-12


def test_invented_runs_that_hardly_differ_are_taken_for_as_varied_as_the_reruns_make_plausible():
    tight = judged((0.9, 0.9, 0.9, 0.9, 0.9), (0.78, 0.92, 0.85), margin=0.2)
    assert tight.standard_error > math.sqrt(
        (2 * np.var([0.78, 0.92, 0.85], ddof=1)) / 6 * (1 / 5 + 1 / 3)
    )
    # A declared spread that is larger is believed: it only makes the bound wider.
    wide = judged((0.5, 0.7, 0.9, 1.1, 1.3), (0.9, 0.9, 0.9), margin=0.2)
    assert wide.standard_error == pytest.approx(math.sqrt(4 * 0.1 / 6 * (1 / 5 + 1 / 3)))


def test_invented_runs_that_scatter_wildly_do_not_hide_a_difference():
    """The bound is as wide as they are, the accusation is not: F(0.99; 4, 4) = 15.98 times the re-runs' variance."""
    wild = (0.5, 0.7, 0.9, 1.1, 1.3)
    result = judged(wild, moved(FIVE, -0.3), margin=0.1)
    cut = math.sqrt((4 * 15.977 * 0.00025 + 4 * 0.00025) / 8 * 2 / 5)
    assert result.standard_error == pytest.approx(math.sqrt((4 * 0.1 + 4 * 0.00025) / 8 * 2 / 5))
    assert result.p_value == pytest.approx(2 * float(stdtr(8, -0.4 / cut)), rel=1e-3)
    assert result.verdict == "INCONSISTENT"
    # Not from few re-runs, and not from re-runs that are all alike: a coarse metric repeats a value by chance.
    for rerun in (moved(FIVE, -0.3)[:4], (0.5,) * 8):
        kept = judged(wild, rerun, margin=0.1)
        error = kept.standard_error
        assert kept.p_value == pytest.approx(
            2 * float(stdtr(kept.degrees, -abs(kept.difference) / error))
        )


def test_a_declared_scatter_that_no_chance_explains_is_told_as_a_ratio():
    wild = tuple(0.8 + 10 * (each - 0.8) for each in FIVE)
    assert scatter_more(wild, (*FIVE, *FIVE)) == pytest.approx(
        10 * np.std(FIVE, ddof=1) / np.std((*FIVE, *FIVE), ddof=1)
    )
    assert scatter_more(wild, (*FIVE, None, math.nan)) == pytest.approx(10)
    for declared, rerun in (
        (FIVE, wild),
        (FIVE, FIVE),
        (wild, FIVE[:2]),
        (wild, (0.8,) * 8),
        (wild, (0.8,)),
        ((0.8, None), FIVE),
        ((), ()),
        ((1.7e308, -1.7e308, 0.0), (1e-300, 2e-300, 3e-300)),
    ):
        assert scatter_more(declared, rerun) is None


def test_an_honest_scatter_is_told_in_one_of_a_thousand_cases():
    rng = np.random.default_rng(31)
    told = [
        scatter_more(one, two) is not None
        for one, two in zip(
            rng.standard_normal((10_000, 5)).tolist(),
            rng.standard_normal((10_000, 8)).tolist(),
            strict=True,
        )
    ]
    assert 1 <= sum(told) <= 25


# --- several metrics ----------------------------------------------------------------------------------------------


def test_holm_by_hand():
    """Holm 1979: 0.01, 0.04, 0.03, 0.005 at 0.05 reject the two smallest: 0.005 ≤ .0125, 0.01 ≤ .0167, 0.03 > .025."""
    assert _holm([0.01, 0.04, 0.03, 0.005], 0.05) == 0.01
    assert _holm([0.02], 0.02) == 0.02
    assert _holm([0.5, 0.6], 0.05) < 0
    assert _holm([], 0.05) < 0


def test_overall_is_consistent_only_if_every_metric_is():
    good = sample(metric="a")
    vague = sample(metric="b", margin=None)
    bad = sample(metric="c", rerun=moved(FIVE, -0.5))
    assert overall(compare([good, good])) == "CONSISTENT"
    assert overall(compare([good, vague])) == "INCONCLUSIVE"
    assert overall(compare([good, vague, bad])) == "INCONSISTENT"
    assert overall(()) == "INCONCLUSIVE"


def test_metrics_without_a_margin_do_not_dilute_the_correction():
    bad = sample(metric="c", rerun=moved(FIVE, -0.12))
    vague = [sample(metric=f"v{i}", margin=None) for i in range(10**4)]
    assert compare([bad, *vague])[0].verdict == compare([bad])[0].verdict == "INCONSISTENT"


# --- planning figures ---------------------------------------------------------------------------------------------


def table(heading: str) -> list[list[str]]:
    """The rows of the table that follows ``heading`` in docs/verdict.md, without its head."""
    text = DOCS.read_text().split(heading, 1)[1]
    lines = list(
        itertools.takewhile(
            lambda line: line.startswith("|"),
            itertools.dropwhile(lambda line: not line.startswith("|"), text.splitlines()),
        )
    )
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_power_against_simulation():
    rng = np.random.default_rng(3)
    for n, m, ratio, looks, one_sided in (
        (5, 9, 2.0, 1, False),
        (3, 8, 2.0, 3, True),
        (10, 5, 1.5, 2, False),
    ):
        one, two = rng.standard_normal((100_000, n)), rng.standard_normal((100_000, m))
        rule = Rule(looks=looks)
        difference = one.mean(1) - two.mean(1)
        pooled = ((n - 1) * one.var(1, ddof=1) + (m - 1) * two.var(1, ddof=1)) / (n + m - 2)
        bound = (difference if one_sided else abs(difference)) + stdtrit(
            n + m - 2, 1 - 0.05 / looks
        ) * np.sqrt(pooled * (1 / n + 1 / m))
        expected = (bound <= ratio).mean()
        assert power(n, m, ratio, rule, one_sided=one_sided) == pytest.approx(expected, abs=0.006)


def test_the_reruns_needed_for_a_chance_of_90_percent_as_documented():
    rows = table("### How many re-runs are needed")
    assert len(rows) >= 8
    for runs, ratio, single, three, one_sided in rows:
        found = [
            reruns_needed(int(runs), float(ratio)),
            reruns_needed(int(runs), float(ratio), Rule(schedule=LOOKS)),
            reruns_needed(int(runs), float(ratio), Rule(schedule=LOOKS), one_sided=True),
        ]
        assert ["more than 40" if each is None else str(each) for each in found] == [
            single,
            three,
            one_sided,
        ]


@pytest.mark.parametrize("schedule", [(), LOOKS, (2, 4, 6, 30), (8,), (50,), tuple(range(2, 60))])
@pytest.mark.parametrize("ratio", [1.7, 2.0, 2.3, 2.6, 3.2])
def test_the_number_needed_is_the_first_with_the_chance_at_the_looks_that_it_gives(schedule, ratio):
    for n, least in ((3, 2), (5, 2), (5, 6), (10, 9), (10, 41)):
        rule = Rule(schedule=schedule, looks=2)
        looks = {
            runs: len([look for look in schedule if look < runs]) + 1 if schedule else 2
            for runs in range(least, 41)
        }
        chances = [(runs, power(n, runs, ratio, Rule(looks=looks[runs]))) for runs in looks]
        expected = next((runs for runs, chance in chances if chance >= 0.9), None)
        assert reruns_needed(n, ratio, rule, least=least) == expected


def test_an_inconclusive_verdict_asks_for_as_many_as_have_the_chance_with_one_look_more():
    rerun = moved(FIVE, -0.01)
    seen = compare([sample(FIVE, rerun, 0.033)], Rule(schedule=LOOKS))[0]
    ratio = 0.033 / (seen.standard_error / math.sqrt(2 / 5))
    assert seen.needed == reruns_needed(5, ratio, Rule(looks=4), least=9)
    assert seen.needed > reruns_needed(5, ratio, Rule(looks=3), least=9)
    assert f"{seen.needed} re-runs would settle" in seen.explanation
    blind = compare([sample(FIVE, rerun, 0.028)], Rule(looks=1))[0]
    ratio = 0.028 / (blind.standard_error / math.sqrt(2 / 5))
    assert blind.needed == reruns_needed(5, ratio, Rule(looks=1), least=6)
    assert blind.needed is not None


def test_the_design_figures_of_a_single_look():
    five = [reruns_needed(5, ratio) for ratio in (1.5, 2.0, 2.5, 3.0)]
    assert five == [None, 9, 4, 3]
    assert [reruns_needed(10, ratio) for ratio in (1.5, 2.0)] == [11, 5]
    assert [reruns_needed(3, ratio) for ratio in (2.5, 3.0)] == [7, 4]
    # 42 are needed with three declared runs at two deviations.
    assert power(3, 41, 2.0) < 0.9 <= power(3, 42, 2.0)


@pytest.mark.parametrize(("n", "factor"), [(3, 4.4), (5, 2.4), (10, 1.7)])
def test_the_upper_bound_of_the_deviation(n, factor):
    values = [math.sqrt(n - 1), *[0.0] * (n - 1)]
    assert deviation_bound(values) / np.std(values, ddof=1) == pytest.approx(factor, abs=0.06)


def test_the_upper_bound_holds_in_95_of_100():
    draws = np.random.default_rng(4).standard_normal((4000, 5)).tolist()
    assert np.mean([deviation_bound(each) >= 1 for each in draws]) == pytest.approx(0.95, abs=0.012)


# --- error rates --------------------------------------------------------------------------------------------------


def rule_of(declared, rerun, margin, looks=3, *, one_sided=False):
    """The shipped rule for one metric, vectorised over rows: (difference, bound, p, consistent, size > margin)."""
    n, m = declared.shape[1], rerun.shape[1]
    difference = declared.mean(1) - rerun.mean(1)
    size = difference if one_sided else abs(difference)
    second = rerun.var(1, ddof=1)
    first = np.maximum(declared.var(1, ddof=1), second / fdtri(m - 1, n - 1, 0.9))
    error = np.sqrt(((n - 1) * first + (m - 1) * second) / (n + m - 2) * (1 / n + 1 / m))
    bound = size + stdtrit(n + m - 2, 1 - 0.05 / looks) * error
    capped = np.minimum(first, second * fdtri(n - 1, m - 1, 0.99)) if m >= 5 else first
    accusing = np.sqrt(((n - 1) * capped + (m - 1) * second) / (n + m - 2) * (1 / n + 1 / m))
    p_value = (1 if one_sided else 2) * stdtr(n + m - 2, -size / accusing)
    return difference, bound, p_value, bound <= margin, size > margin


def sequential(declared, rerun, margin, looks=LOOKS, *, one_sided=False):
    """Verdict a row after all looks: 1 consistent, 2 inconsistent, 0 inconclusive."""
    verdict = np.zeros(len(declared), int)
    for look in looks:
        _, _, p_value, consistent, beyond = rule_of(
            declared, rerun[:, :look], margin, len(looks), one_sided=one_sided
        )
        inconsistent = (p_value <= 0.02 / len(looks)) & beyond
        now = np.where(consistent, 1, np.where(inconsistent, 2, 0))
        verdict = np.where(verdict == 0, now, verdict)
    return verdict


def shares(verdict):
    return [100 * float(np.mean(verdict == word)) for word in (1, 2, 0)]


def really(declared, rerun, margin, looks=LOOKS, **more):
    """The same through ``compare``, as a verifier goes about it."""
    for look in looks:
        verdict = judged(tuple(declared), tuple(rerun[:look]), margin, len(looks), **more).verdict
        if verdict != "INCONCLUSIVE":
            return {"CONSISTENT": 1, "INCONSISTENT": 2}[verdict]
    return 0


@pytest.mark.parametrize("one_sided", [True, False])
def test_the_vectorised_rule_is_the_shipped_one(one_sided):
    rng = np.random.default_rng(11)
    words = set()
    for trial in range(300):
        n, m = int(rng.integers(3, 11)), int(rng.integers(2, 9))
        inflation, spread = (
            rng.choice([0.0, 1.0, 2.0, 4.0, 12.0]),
            rng.choice([0.05, 0.5, 1.0, 8.0]),
        )
        declared = rng.standard_normal((1, n)) * spread + inflation
        rerun = rng.standard_normal((1, m))
        difference, bound, p_value, consistent, beyond = rule_of(
            declared, rerun, 2.0, one_sided=one_sided
        )
        real = judged(
            tuple(declared[0].tolist()),
            tuple(rerun[0].tolist()),
            2.0,
            overstatement=HIGHER if one_sided else None,
        )
        assert real.difference == pytest.approx(difference[0], rel=1e-9, abs=1e-12), trial
        assert real.bound == pytest.approx(bound[0], rel=1e-9)
        assert real.p_value == pytest.approx(min(p_value[0], 1), rel=1e-7)
        expected = "INCONCLUSIVE"
        if consistent[0]:
            expected = "CONSISTENT"
        elif beyond[0] and p_value[0] <= 0.02 / 3:
            expected = "INCONSISTENT"
        assert real.verdict == expected
        words.add(expected)
    assert len(words) == 3


DRAWS = 200_000


def draws(n, seed=5, count=DRAWS):
    rng = np.random.default_rng([n, seed])
    return rng.standard_normal((count, n)), rng.standard_normal((count, max(LOOKS)))


def close(found, printed: str, printed_draws=DRAWS):
    """Within half a unit of the last digit printed, and four standard errors of both simulations."""
    unit = 0.1 if "." in printed else 1.0
    share = min(max(found / 100, 1e-4), 1 - 1e-4)
    error = 100 * math.sqrt(share * (1 - share) * (1 / DRAWS + 1 / printed_draws))
    return abs(found - float(printed)) <= unit / 2 + 4 * error


def standard_error(share):
    """Of a simulated share, in per cent."""
    return 100 * math.sqrt(share * (1 - share) / DRAWS)


DESIGN = {
    (3, 2): ("73/0.3/27", "26/7/67", "3/45/52", "0/88/12"),
    (5, 2): ("87/0.2/13", "35/7/58", "4/56/41", "0/97/4"),
    (5, 3): ("99.6/0/0.4", "87/0.2/13", "35/10/55", "3/62/35"),
}
"""The operating characteristics that the rule was designed with: one-sided, three looks, 100,000 draws."""


@pytest.mark.parametrize(("n", "margin"), DESIGN)
def test_the_simulation_reproduces_the_designs_operating_characteristics(n, margin):
    declared, rerun = draws(n)
    for inflation, printed in enumerate(DESIGN[n, margin]):
        found = shares(sequential(declared + inflation, rerun, margin, one_sided=True))
        for each, words in zip(found, printed.split("/"), strict=True):
            assert close(each, words, 100_000), (inflation, found, printed)


@pytest.mark.parametrize(
    ("heading", "one_sided"),
    [("### Only overstatement counts", True), ("### Both directions count", False)],
)
def test_the_documented_error_rates(heading, one_sided):
    rows = table(heading)
    assert [row[0] for row in rows] == ["0", "1σ", "2σ", "3σ"]
    for n, margin, column in ((3, 2, 1), (5, 2, 2), (5, 3, 3)):
        declared, rerun = draws(n)
        for inflation, row in enumerate(rows):
            found = shares(sequential(declared + inflation, rerun, margin, one_sided=one_sided))
            for each, printed in zip(found, row[column].split(" / "), strict=True):
                assert close(each, printed), (inflation, found, row[column])


@pytest.mark.parametrize("one_sided", [True, False])
def test_of_200_honest_providers_at_most_two_are_called_inconsistent(one_sided):
    """Five runs, a margin of two deviations, looks at 3, 5 and 8 through the shipped rule."""
    more = {"overstatement": HIGHER} if one_sided else {}
    declared, rerun = (each[:200].tolist() for each in draws(5, seed=200))
    words = [really(*pair, 2.0, **more) for pair in zip(declared, rerun, strict=True)]
    assert words.count(2) <= 2
    assert words.count(1) > 100
    inflated = [[value + 3 for value in values] for values in declared]
    words = [really(*pair, 2.0, **more) for pair in zip(inflated, rerun, strict=True)]
    assert words.count(1) <= 2
    assert words.count(2) > 150


@pytest.mark.parametrize("one_sided", [True, False])
def test_the_bars_with_many_more_providers(one_sided):
    for n in (3, 5, 10):
        declared, rerun = draws(n, seed=6)
        honest = shares(sequential(declared, rerun, 2.0, one_sided=one_sided))
        inflated = shares(sequential(declared + 3, rerun, 2.0, one_sided=one_sided))
        assert honest[1] <= 1
        assert inflated[0] <= 1


@pytest.mark.parametrize("one_sided", [True, False])
@pytest.mark.parametrize("looks", [LOOKS, (2,), (5,), (8,), (2, 4, 6, 8)])
def test_with_no_margin_at_all_the_false_inconsistent_rate_is_still_two_percent(looks, one_sided):
    """The worst case of an honest provider: a margin of zero, so that significance alone decides."""
    most = {1: 2.04}.get(len(looks), 1.7)
    for n in (2, 5, 20):
        declared, rerun = draws(n, seed=8)
        found = shares(sequential(declared, rerun, 0.0, looks, one_sided=one_sided))
        assert 0.5 < found[1] <= most + 4 * standard_error(0.02)


@pytest.mark.parametrize("looks", [LOOKS, (8,)])
def test_at_a_true_difference_of_the_margin_at_most_five_percent_are_consistent(looks):
    most = 5.0 + 4 * standard_error(0.05)
    for n in (3, 5, 10):
        declared, rerun = draws(n, seed=9)
        for margin in (1.0, 2.0, 3.0):
            assert shares(sequential(declared + margin, rerun, margin, looks))[0] <= most


def test_over_five_metrics_at_most_two_percent_of_the_honest_are_called_inconsistent():
    """Independent metrics and margins of zero are the worst case; correlated ones share their chance."""
    for correlation in (0.0, 0.7):
        verdict = np.zeros(40_000, int)
        rng = np.random.default_rng(12)
        shared = [rng.standard_normal((40_000, size)) for size in (5, 8)]
        sides = []
        for _ in range(5):
            sides.append(
                [
                    math.sqrt(correlation) * common
                    + math.sqrt(1 - correlation) * rng.standard_normal(common.shape)
                    for common in shared
                ]
            )
        for look in LOOKS:
            p_values = np.sort([rule_of(one, two[:, :look], 0.0)[2] for one, two in sides], axis=0)
            # Holm rejects something exactly if it rejects the smallest.
            verdict = np.maximum(verdict, p_values[0] <= 0.02 / 3 / 5)
        assert 0.2 < 100 * verdict.mean() <= 2.0


def test_five_metrics_through_the_shipped_rule():
    rng = np.random.default_rng(13)
    wrong = 0
    for _ in range(200):
        declared, rerun = rng.standard_normal((5, 5)), rng.standard_normal((5, 8))
        for look in LOOKS:
            verdicts = compare(
                [
                    sample(tuple(one), tuple(two[:look]), 2.0, metric=f"m{i}")
                    for i, (one, two) in enumerate(
                        zip(declared.tolist(), rerun.tolist(), strict=True)
                    )
                ]
            )
            if overall(verdicts) != "INCONCLUSIVE":
                wrong += overall(verdicts) == "INCONSISTENT"
                break
    assert wrong <= 2


def test_a_noisy_provider_cannot_buy_acceptance():
    """All runs scatter more, the margin stays: honest or inflated, never more are found consistent."""
    declared, rerun = draws(5, seed=10)
    for inflation in (0.0, 1.0, 2.0):
        accepted = [
            shares(sequential(declared * noise + inflation, rerun * noise, 2.0))[0]
            for noise in (0.5, 1.0, 1.5, 2.0, 4.0)
        ]
        if inflation < 2:
            assert accepted == sorted(accepted, reverse=True)
        assert accepted[-1] < 1
        # At the margin itself, the noise can do nothing beyond the five percent.
        assert inflation < 2 or max(accepted) <= 5


def test_a_provider_alone_who_scatters_more_gains_nothing():
    declared, rerun = draws(5, seed=14)
    centre = declared.mean(1, keepdims=True)
    accepted = [
        (sequential((declared - centre) * noise + centre, rerun, 2.0, (8,)) == 1).sum()
        for noise in (0.01, 0.3, 1.0, 2.0, 4.0)
    ]
    assert accepted == sorted(accepted, reverse=True)


def test_the_documented_gain_from_inventing_runs_that_hardly_differ():
    """A provider inflates the mean to the very margin and writes n values that are all the same."""
    rows = table("### Invented runs")
    assert [row[0] for row in rows] == ["3", "5", "10", "40"]
    for runs, believed, guarded, at_three in rows:
        n = int(runs)
        _, rerun = draws(n, seed=15)
        invented = np.full((len(rerun), n), 2.0) + 1e-9 * np.arange(n)
        # What would be if the declared spread were believed: the pooled variance without its lower limit.
        naive = np.zeros(len(rerun), bool)
        for look in LOOKS:
            two = rerun[:, :look]
            pooled = (look - 1) * two.var(1, ddof=1) / (n + look - 2)
            quantile = stdtrit(n + look - 2, 1 - 0.05 / 3)
            bound = abs(2.0 - two.mean(1)) + quantile * np.sqrt(pooled * (1 / n + 1 / look))
            naive |= bound <= 2.0
        assert close(100 * naive.mean(), believed)
        assert close(shares(sequential(invented, rerun, 2.0))[0], guarded)
        assert close(shares(sequential(invented + 1.0, rerun, 2.0))[0], at_three)


def test_the_documented_gain_from_inventing_runs_that_scatter_wildly():
    """The mean inflated by 3 or 6 deviations, the declared runs with a multiple of the re-runs' deviation."""
    rows = table("### Invented scatter")
    assert len(rows) >= 4
    for runs, inflation, spread, believed, limited in rows:
        declared, rerun = draws(int(runs), seed=16)
        declared = float(spread) * declared + float(inflation)
        # What would be if the declared spread were believed: the accusation by the error of the bound.
        words = np.zeros(len(rerun), int)
        for look in LOOKS:
            difference, bound, _, consistent, beyond = rule_of(declared, rerun[:, :look], 2.0)
            degrees = declared.shape[1] + look - 2
            error = (bound - abs(difference)) / stdtrit(degrees, 1 - 0.05 / 3)
            significant = 2 * stdtr(degrees, -abs(difference) / error) <= 0.02 / 3
            now = np.where(consistent, 1, np.where(significant & beyond, 2, 0))
            words = np.where(words == 0, now, words)
        assert close(shares(words)[1], believed), (runs, spread, shares(words))
        found = shares(sequential(declared, rerun, 2.0))
        assert close(found[1], limited), (runs, spread, found)


def repeated(n, inflation, times, stop):
    """Verifications of the same declared runs, each with seeds of its own, until one of them is in ``stop``."""
    rng = np.random.default_rng([n, 17])
    declared = rng.standard_normal((DRAWS, n)) + inflation
    words, ever = np.zeros(DRAWS, int), np.zeros(DRAWS, bool)
    again = np.arange(DRAWS)
    for _ in range(times):
        rerun = rng.standard_normal((len(again), max(LOOKS)))
        words[again] = sequential(declared[again], rerun, 2.0)
        ever |= words == 2
        again = again[~np.isin(words[again], stop)]
    return 100 * (words == 1).mean(), 100 * ever.mean()


def test_the_documented_gain_from_repeating_a_verification_until_it_suits():
    rows = table("### Repeated verifications")
    assert [row[:2] for row in rows] == [[n, by] for n in "35" for by in ("0", "1σ", "2σ", "3σ")]
    for runs, inflation, *cells in rows:
        n, by = int(runs), float(inflation.strip("σ"))
        found = [
            figure
            for times, stop in ((1, (1, 2)), (5, (1, 2)), (5, (1,)))
            for figure in repeated(n, by, times, stop)
        ]
        printed = [each for cell in cells for each in cell.split(" / ")]
        assert len(printed) == 6
        for each, words in zip(found, printed, strict=True):
            assert close(each, words), (runs, inflation, found, printed)


def test_the_documented_failures_of_simpler_rules():
    """Rejected though honest, and accepted though inflated by 1, 2 and 3 deviations."""
    rows = table("## Why no simpler rule")
    assert len(rows) == 4
    for counts, *cells in rows:
        n, m = map(int, re.findall(r"\d+", counts))
        rng = np.random.default_rng([n, m])
        one, two = rng.standard_normal((DRAWS, n)), rng.standard_normal((DRAWS, m))
        s, distance = one.std(1, ddof=1), one.mean(1) - two.mean(1)
        t = stdtrit(n - 1, 0.975)
        limits = [t * s / math.sqrt(n), t * s * math.sqrt(1 / m + 1 / n)]
        accepts = [lambda d, limit=limit: abs(d) <= limit for limit in limits]
        if m > 1:
            a, b = s**2 / n, two.var(1, ddof=1) / m
            freedom = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1))
            accepts.append(
                lambda d, a=a, b=b, f=freedom: 2 * stdtr(f, -abs(d) / np.sqrt(a + b)) > 0.05
            )
        for cell, accept in zip(cells, accepts, strict=False):
            reject, *accepted = re.findall(r"\d+", cell)
            assert close(100 - 100 * accept(distance).mean(), reject, 100_000), (counts, cell)
            for inflation, printed in enumerate(accepted, 1):
                found = 100 * accept(distance + inflation).mean()
                assert close(found, printed, 100_000), (counts, cell, found)


def test_the_worked_example_of_the_documentation():
    text = DOCS.read_text()
    declared, rerun = (
        tuple(float(each) for each in re.findall(r"0\.\d+", re.search(words, text)[0]))
        for words in (r"Declared \(five seeds\)[^M]*", r"Re-run \(five seeds[^M]*")
    )
    result = compare([sample(declared, rerun, 0.01)], Rule())[0]
    assert result.verdict == "CONSISTENT"
    assert result.explanation in text.replace("\n> ", " ")
    assert f"**{result.bound:.4f}**" in text
    assert f"{result.standard_error:.5f}" in text


# --- single draws, and values that are far from normal ------------------------------------------------------------


@pytest.mark.parametrize("runs", [3, 5, 8])
def test_two_draws_lie_further_apart_than_chance_in_five_of_a_thousand_cases(runs):
    draws = np.random.default_rng(runs).standard_normal((20_000, runs + 2)).tolist()
    apart = sum(abs(one - other) > one_draw(seeds) for one, other, *seeds in draws)
    assert apart / len(draws) == pytest.approx(0.005, abs=4 * math.sqrt(0.005 / len(draws)))


def test_the_limit_of_a_single_draw_is_the_one_of_the_page_and_none_where_nothing_is_known():
    text = " ".join(DOCS.read_text().split())
    for runs in (3, 8):
        shown = re.search(
            rf"{'the limit is' if runs == 3 else 'eight know more .'} ?([\d.]+) s", text
        )
        factor = math.sqrt(2) * stdtrit(runs - 1, 0.9975)
        assert float(shown[1]) == pytest.approx(factor, rel=0.01)
        spread = np.std(FIVE[:3], ddof=1)
        assert one_draw(FIVE[:3], runs) == pytest.approx(factor * spread)
    assert one_draw(FIVE[:2]) is None
    assert one_draw((0.8, 0.8, 0.8)) is None
    assert one_draw((1e308, -1e308, 1e308)) == sys.float_info.max
    huge = [value * 1e300 for value in FIVE]
    assert one_draw(huge) == pytest.approx(1e300 * one_draw(FIVE))


def test_a_metric_of_two_values_is_the_worst_case_of_the_page():
    """Exactly: every count of ones on either side, weighed by its binomial probability."""
    n, m = 10, 8
    accused = [
        (ones, others)
        for ones in range(n + 1)
        for others in range(m + 1)
        if judged(
            (1.0,) * ones + (0.0,) * (n - ones),
            (1.0,) * others + (0.0,) * (m - others),
            0.0,
            looks=1,
        ).verdict
        == "INCONSISTENT"
    ]

    def chance(p):
        return sum(
            math.comb(n, a) * math.comb(m, b) * p ** (a + b) * (1 - p) ** (n + m - a - b)
            for a, b in accused
        )

    worst = max(chance(p / 200) for p in range(1, 200))
    shown = re.search(
        r"with a margin of 0 and one look, ([\d.]+) instead", " ".join(DOCS.read_text().split())
    )
    assert 100 * worst == pytest.approx(float(shown[1]), abs=0.05)
