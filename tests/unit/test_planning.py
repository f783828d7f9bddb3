"""The plan that is shown before anything runs: times, seeds, and what the declaration can settle."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from bundler import canonical, codec
from bundler.equivalence import POWER, Rule, power, reruns_needed
from bundler.planning import choose_seeds, make_plan, planned_metrics
from bundler.policy import DEFAULT, rule
from bundler.report import Plan
from bundler.spec import Tolerance
from bundler.spread import deviation_bound

FIVE = (0.912, 0.908, 0.915, 0.910, 0.911)
AUC = Tolerance(metric="auc", margin=0.016)


def planned(values=FIVE, tolerance=AUC, policy=DEFAULT, **more):
    return planned_metrics({"auc": values}, [tolerance], policy, **more)[0]


def test_it_plans_with_the_upper_bound_of_the_spread_and_the_last_look():
    metric = planned()
    ratio = 0.016 / deviation_bound(FIVE)
    assert metric.runs == 5
    assert metric.deviation == pytest.approx(deviation_bound(FIVE))
    assert metric.needed == reruns_needed(5, ratio, rule(DEFAULT))
    assert metric.needed is not None
    assert planned(blind=True).needed == reruns_needed(5, ratio) < metric.needed


@pytest.mark.parametrize("margin", [0.012, 0.013, 0.014, 0.016, 0.02, 0.05])
@pytest.mark.parametrize("side", [None, "higher is better"])
def test_so_many_reruns_have_the_chance_with_the_looks_that_they_get(margin, side):
    """``--runs N`` is judged at 3, 5 and 8, as far as they are fewer than N, and at N."""
    needed = planned(tolerance=replace(AUC, margin=margin, overstatement=side)).needed
    chances = {
        runs: power(
            5,
            runs,
            margin / deviation_bound(FIVE),
            Rule(looks=len([look for look in (3, 5, 8) if look < runs]) + 1),
            one_sided=side is not None,
        )
        for runs in range(2, 41)
    }
    assert needed == next((runs for runs, chance in chances.items() if chance >= POWER), None)


def test_the_looks_of_this_verification_do_not_change_how_many_reruns_another_needs():
    assert planned(looks=1).needed == planned(looks=4).needed == planned().needed


def test_only_overstatement_needs_fewer_reruns():
    one = planned(tolerance=replace(AUC, overstatement="higher is better"))
    assert one.needed < planned().needed


def test_a_margin_is_cut_by_the_policy():
    metric = planned(tolerance=replace(AUC, margin=0.5))
    assert (metric.declared_margin, metric.margin) == (0.5, 0.05)


def test_every_declared_metric_and_every_tolerance_is_planned_by_name():
    metrics = planned_metrics(
        {"f1": FIVE, "auc": FIVE}, [AUC, Tolerance(metric="brier", margin=0.01)], DEFAULT
    )
    assert [each.metric for each in metrics] == ["auc", "brier", "f1"]
    brier, f1 = metrics[1], metrics[2]
    assert (brier.runs, brier.deviation, brier.needed, brier.margin) == (0, None, None, 0.01)
    assert (f1.runs, f1.margin, f1.declared_margin, f1.needed) == (5, None, None, None)


@pytest.mark.parametrize(
    "values",
    [(), (0.9,), (0.9, 0.91), (*FIVE, None), (*FIVE, math.nan), (1.7e308, -1.7e308, 1.7e308)],
)
def test_what_can_never_be_consistent_needs_no_number_of_reruns(values):
    assert planned(values).needed is None


def test_metrics_that_do_not_vary_need_the_fewest():
    metric = planned((0.9, 0.9, 0.9))
    assert (metric.deviation, metric.needed) == (0.0, 2)


def plan(**changes) -> Plan:
    arguments = {
        "command": ["python", "train.py", "--seed=7"],
        "declared_seed": 7,
        "own_seeds": [11, 12, 13, 14, 15, 16, 17, 18],
        "looks": (3, 5, 8),
        "environment": "locked",
        "device": "cpu",
        "engine": "local",
        "parallel": 1,
        "isolation": "bubblewrap",
        "run_seconds": 10.0,
        "metrics": [planned()],
    }
    return make_plan(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("parallel", "looks", "least", "most"),
    [
        (1, (3, 5, 8), 40.0, 90.0),
        (2, (3, 5, 8), 20.0, 50.0),
        (3, (3, 5, 8), 20.0, 40.0),
        (4, (3, 5, 8), 10.0, 30.0),
        (100, (3, 5, 8), 10.0, 30.0),
        (4, (8,), 30.0, 30.0),
        (9, (8,), 10.0, 10.0),
        (0, (3,), 40.0, 40.0),
        (1, (), 10.0, 10.0),
        (8, (), 10.0, 10.0),
    ],
)
def test_the_declared_seed_is_trained_with_the_first_looks_own_seeds_and_each_look_waits(
    parallel, looks, least, most
):
    made = plan(parallel=parallel, looks=looks)
    assert (made.least_seconds, made.most_seconds) == (least, most)


@pytest.mark.parametrize("seconds", [None, math.nan, math.inf, -math.inf, -1.0, 1e308, 1e10])
def test_an_unknown_duration_gives_unknown_times(seconds):
    made = plan(run_seconds=seconds)
    assert (made.run_seconds, made.least_seconds, made.most_seconds) == (None, None, None)


@pytest.mark.parametrize("seconds", [0.0, 1.0, 3e9, 1e308, math.nan])
def test_a_plan_survives_json(seconds):
    made = plan(run_seconds=seconds, looks=(3, 1000))
    assert b"inf" not in canonical.serialise(codec.to_json(made)).lower()
    assert codec.from_json(Plan, codec.to_json(made)) == made


def test_seeds_are_distinct_in_range_and_none_of_those_to_avoid():
    seeds = choose_seeds(1000, (), b"chance")
    assert len(set(seeds)) == 1000
    assert all(0 <= seed < 2**31 for seed in seeds)
    again = choose_seeds(1000, seeds[:500], b"chance")
    assert again[:500] == seeds[500:]
    assert not set(again) & set(seeds[:500])


def test_seeds_depend_on_nothing_but_the_bytes():
    assert choose_seeds(3, (), b"a") == choose_seeds(3, [], b"a")
    assert choose_seeds(3, (), b"a") == choose_seeds(8, (), b"a")[:3]
    assert choose_seeds(3, (), b"a") != choose_seeds(3, (), b"b")
    assert choose_seeds(0, (), b"a") == ()
    # A vector: SHA-256 of b"a" and eight zero bytes begins with this seed, shifted right by one bit.
    assert choose_seeds(1, (), b"a") == (678879537,)
