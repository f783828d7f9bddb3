"""What every verdict obeys, whatever the values."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import assume, example, given
from hypothesis import strategies as st

from bundler.canonical import serialise
from bundler.codec import to_json
from bundler.equivalence import Rule, Sample, compare, overall, power, scatter_more
from bundler.planning import choose_seeds

values = st.integers(-1000, 1000).map(lambda each: each / 64)
"""Multiples of a power of two, so that shifts and scales are exact and no verdict hangs on rounding."""

sides = st.lists(values, min_size=1, max_size=8).map(tuple)
margins = st.integers(0, 500).map(lambda each: each / 32)
rules = st.builds(
    Rule, looks=st.integers(1, 4), schedule=st.sampled_from([(), (8,), (3, 5, 8), (2, 30, 60)])
)
better = st.sampled_from([None, "higher is better", "lower is better"])
anything = st.one_of(st.none(), st.floats())
"""Every float there is: NaN, infinities, subnormal and largest numbers."""


@st.composite
def samples(draw, overstatement=better):
    return Sample(
        metric="m",
        declared=draw(sides),
        rerun=draw(sides),
        margin=draw(margins),
        overstatement=draw(overstatement),
    )


def judged(sample, rule):
    return compare([sample], rule)[0]


def changed(sample, function, margin=None):
    return replace(
        sample,
        declared=tuple(map(function, sample.declared)),
        rerun=tuple(map(function, sample.rerun)),
        margin=sample.margin if margin is None else margin,
    )


def clear(verdict):
    """Whether no verdict hangs on the last bits: neither bound nor difference is at the margin, nor p at a level."""
    if verdict.bound is None:
        return True
    levels = [0.02 / looks for looks in (1, 2, 3, 4)]
    return (
        abs(verdict.bound - verdict.margin) > 1e-6
        and abs(abs(verdict.difference) - verdict.margin) > 1e-6
        and all(abs(verdict.p_value - level) > 1e-9 for level in levels)
    )


@given(samples(), rules, st.integers(-64, 64))
def test_a_shift_of_all_values_changes_nothing(sample, rule, by):
    first, second = judged(sample, rule), judged(changed(sample, lambda v: v + by), rule)
    assume(clear(first))
    assert first.verdict == second.verdict
    if first.bound is not None:
        assert math.isclose(first.bound, second.bound, rel_tol=1e-9, abs_tol=1e-9)


@given(samples(), rules, st.integers(-900, 900))
def test_a_change_of_unit_changes_nothing(sample, rule, exponent):
    scale = 2.0**exponent
    scaled = changed(sample, lambda value: value * scale, sample.margin * scale)
    first, second = judged(sample, rule), judged(scaled, rule)
    assert first.verdict == second.verdict
    assert first.p_value == second.p_value
    assert first.needed == second.needed


@given(samples(st.none()), rules)
def test_the_two_sided_rule_does_not_know_which_way_is_up(sample, rule):
    first, second = judged(sample, rule), judged(changed(sample, lambda value: -value), rule)
    assert (first.verdict, first.bound, first.p_value) == (
        second.verdict,
        second.bound,
        second.p_value,
    )


@given(samples(), rules)
def test_a_mirror_swaps_the_better_direction(sample, rule):
    swapped = {
        None: None,
        "higher is better": "lower is better",
        "lower is better": "higher is better",
    }
    mirrored = replace(
        changed(sample, lambda value: -value), overstatement=swapped[sample.overstatement]
    )
    assert judged(sample, rule).verdict == judged(mirrored, rule).verdict


@given(samples(), rules, st.randoms())
def test_the_order_of_the_values_is_irrelevant(sample, rule, random):
    shuffled = replace(
        sample,
        declared=tuple(random.sample(sample.declared, len(sample.declared))),
        rerun=tuple(random.sample(sample.rerun, len(sample.rerun))),
    )
    first, second = judged(sample, rule), judged(shuffled, rule)
    assert first.verdict == second.verdict
    assert first.explanation == second.explanation


@given(samples(), rules, margins)
def test_a_wider_margin_never_makes_it_worse(sample, rule, more):
    rank = {"INCONSISTENT": 0, "INCONCLUSIVE": 1, "CONSISTENT": 2}
    first = judged(sample, rule)
    second = judged(replace(sample, margin=sample.margin + more), rule)
    assert rank[first.verdict] <= rank[second.verdict]


@given(samples(), rules, st.integers(1, 6))
def test_more_scatter_never_makes_it_consistent(sample, rule, more):
    """Of the declared runs, around their own mean; what is inconclusive, or not, never becomes consistent."""
    mean = math.fsum(sample.declared) / len(sample.declared)
    wider = replace(
        sample, declared=tuple(mean + (value - mean) * 2**more for value in sample.declared)
    )
    first, second = judged(sample, rule), judged(wider, rule)
    assume(clear(first))
    assert second.verdict != "CONSISTENT" or first.verdict == "CONSISTENT"


@given(samples(), rules)
def test_consistent_needs_three_declared_runs_two_reruns_and_a_bound_within_the_margin(
    sample, rule
):
    verdict = judged(sample, rule)
    if verdict.verdict == "CONSISTENT":
        assert len(sample.declared) >= 3
        assert len(sample.rerun) >= 2
        assert verdict.bound <= verdict.margin + 1e-9
    if verdict.verdict == "INCONSISTENT":
        assert abs(verdict.difference) > verdict.margin
        assert verdict.p_value <= 0.02 / rule.looks
    assert verdict.needed is None or verdict.verdict == "INCONCLUSIVE"


@given(
    st.lists(
        st.builds(
            Sample,
            metric=st.text(max_size=3),
            declared=st.lists(anything, max_size=5).map(tuple),
            rerun=st.lists(anything, max_size=5).map(tuple),
            declared_margin=st.none(),
            margin=anything,
            overstatement=better,
        ),
        max_size=3,
    ),
    rules,
)
@example(
    [Sample(metric="m", declared=(1.7e308, 1.7e308, -1.7e308), rerun=(1.0, 2.0), margin=1.0)],
    Rule(),
)
@example([Sample(metric="m", declared=(5e-324,) * 3, rerun=(0.0, 0.0), margin=0.0)], Rule())
def test_no_value_whatever_breaks_the_comparison_or_its_report(given_samples, rule):
    verdicts = compare(given_samples, rule)
    assert len(verdicts) == len(given_samples)
    # JSON has no NaN: the canonical serialiser would refuse one.
    serialise(to_json(verdicts))
    assert all(each.explanation.endswith(".") for each in verdicts)
    assert "\n" not in "".join(each.explanation for each in verdicts)
    assert overall(verdicts) in {"CONSISTENT", "INCONSISTENT", "INCONCLUSIVE"}


@given(st.lists(anything, max_size=6), st.lists(anything, max_size=6))
@example([1.7e308, -1.7e308, 0.0], [5e-324, 0.0, 1e-300])
def test_the_ratio_of_scatters_is_a_finite_number_above_one_or_none(declared, rerun):
    ratio = scatter_more(declared, rerun)
    assert ratio is None or (math.isfinite(ratio) and ratio > 1)


@given(samples(), rules, st.integers(1, 8), st.integers(0, 4))
def test_a_training_without_a_value_is_never_consistent_and_always_told(sample, rule, lost, kept):
    rerun = (*sample.rerun[:kept], *[math.nan] * lost)
    verdict = judged(replace(sample, rerun=rerun), rule)
    assert verdict.verdict != "CONSISTENT"
    assert verdict.verdict == "INCONCLUSIVE" or len(sample.rerun[:kept]) >= 3
    assert f"{lost} of {len(rerun)} trainings gave no value" in verdict.explanation


@given(samples(), samples(), rules)
def test_another_metric_never_makes_an_accusation_easier(one, other, rule):
    alone = judged(one, rule).verdict
    beside = compare([one, other], rule)[0].verdict
    assert beside == alone or (alone, beside) == ("INCONSISTENT", "INCONCLUSIVE")


@given(
    st.integers(3, 12),
    st.integers(2, 20),
    st.floats(0.1, 10, allow_nan=False),
    st.integers(1, 4),
    st.booleans(),
)
def test_power_grows_with_the_margin_and_shrinks_with_more_looks(n, m, ratio, looks, one_sided):
    here = power(n, m, ratio, Rule(looks=looks), one_sided=one_sided)
    assert 0 <= here <= 1
    assert power(n, m, ratio * 1.1, Rule(looks=looks), one_sided=one_sided) >= here
    assert power(n, m, ratio, Rule(looks=looks + 1), one_sided=one_sided) <= here
    assert power(n, m, ratio, Rule(looks=looks)) <= power(
        n, m, ratio, Rule(looks=looks), one_sided=True
    )


@given(st.integers(0, 50), st.lists(st.integers(0, 2**31 - 1)), st.binary(max_size=40))
def test_seeds_are_always_as_many_distinct_and_new(number, avoid, random_bytes):
    seeds = choose_seeds(number, avoid, random_bytes)
    assert len(seeds) == len(set(seeds)) == number
    assert not set(seeds) & set(avoid)
    assert all(0 <= seed < 2**31 for seed in seeds)
