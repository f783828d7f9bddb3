"""The plan that is shown before anything runs: times, seeds, and what the declaration can settle."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from bundler import codec
from bundler.equivalence import Rule, deviation_bound, reruns_needed
from bundler.planning import choose_seeds, make_plan, planned_metrics
from bundler.policy import DEFAULT
from bundler.report import Plan
from bundler.spec import Tolerance

FIVE = (0.912, 0.908, 0.915, 0.910, 0.911)
AUC = Tolerance(metric="auc", margin=0.016)


def planned(values=FIVE, tolerance=AUC, policy=DEFAULT, **more):
    return planned_metrics({"auc": values}, [tolerance], policy, **more)[0]


def test_it_plans_with_the_upper_bound_of_the_spread_and_the_last_look():
    metric = planned()
    ratio = 0.016 / deviation_bound(FIVE)
    assert metric.runs == 5
    assert metric.deviation == pytest.approx(deviation_bound(FIVE))
    assert metric.needed == reruns_needed(5, ratio, Rule(looks=3))
    assert metric.needed is not None
    assert planned(looks=1).needed < metric.needed


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
        (2, (3, 5, 8), 30.0, 60.0),
        (3, (3, 5, 8), 20.0, 40.0),
        (100, (3, 5, 8), 20.0, 40.0),
        (4, (8,), 30.0, 30.0),
        (0, (3,), 40.0, 40.0),
        (1, (), 10.0, 10.0),
    ],
)
def test_times_count_the_declared_seed_and_each_looks_own_seeds(parallel, looks, least, most):
    made = plan(parallel=parallel, looks=looks)
    assert (made.least_seconds, made.most_seconds) == (least, most)


@pytest.mark.parametrize("seconds", [None, math.nan, math.inf, -1.0])
def test_an_unknown_duration_gives_unknown_times(seconds):
    made = plan(run_seconds=seconds)
    assert (made.run_seconds, made.least_seconds, made.most_seconds) == (None, None, None)


def test_a_plan_survives_json():
    made = plan()
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
