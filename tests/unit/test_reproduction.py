from __future__ import annotations

import math
from dataclasses import replace

import pytest

from bundler import reproduction
from bundler.records import DatasetVersion, MetricPoint
from bundler.report import Knob, TensorComparison
from bundler.reproduction import differing_knobs, is_bitwise, judge, same_training
from tests.property.strategies_records import DIGEST, record


def points(*values, metric="auc"):
    return [MetricPoint(metric, step, step * 10, value) for step, value in enumerate(values)]


def tensor(name="w", *, equal=True, largest=0.0):
    return TensorComparison(
        tensor=name,
        dtype="F32",
        shape=(2,),
        equal=equal,
        equal_fraction=None,
        max_absolute_difference=largest,
    )


SAME = (tensor("a"), tensor("b"))
OTHER = (tensor("a"), tensor("b", equal=False, largest=0.25))


def compare_metrics(declared, rerun, role="hold-out"):
    roles = dict.fromkeys(("auc", "a", "b", "fake"), role)
    return reproduction.compare_metrics(declared, rerun, roles)


def codes(metrics, tensors, knobs=(), decisive=("auc",)):
    findings = judge("r", metrics, tensors, tuple(knobs), decisive)
    return [(f.code, f.severity) for f in findings if f.severity != "note"]


# --- metrics ------------------------------------------------------------------------------------------------------


def test_equal_histories_whatever_the_time():
    later = [point._replace(timestamp=99) for point in points(0.1, 0.2)]
    (found,) = compare_metrics(points(0.1, 0.2), later)
    assert (found.points_differing, found.first_differing_step) == (0, None)
    assert (found.declared, found.rerun) == (0.2, 0.2)


def test_one_point_differs_by_one_bit():
    (found,) = compare_metrics(points(0.1, 0.3, 0.5), points(0.1, math.nextafter(0.3, 1), 0.5))
    assert (found.points_differing, found.first_differing_step) == (1, 1)


def test_nan_is_equal_to_nan_and_zero_not_to_minus_zero():
    (found,) = compare_metrics(points(math.nan, 0.0), points(-math.nan, -0.0))
    assert (found.points_differing, found.first_differing_step) == (1, 1)
    (found,) = compare_metrics(points(math.nan), points(math.nan))
    assert (found.declared, found.rerun, found.points_differing) == ("NaN", "NaN", 0)


def test_a_longer_history_and_other_steps_differ():
    (found,) = compare_metrics(points(0.1), points(0.1, 0.2, 0.3))
    assert (found.points_declared, found.points_rerun, found.points_differing) == (1, 3, 2)
    assert found.first_differing_step == 1
    moved = [point._replace(step=point.step + 5) for point in points(0.1)]
    assert compare_metrics(points(0.1), moved)[0].points_differing == 1


def test_missing_metrics_on_either_side():
    first, second = compare_metrics(points(0.1, metric="a"), points(0.1, metric="b"))
    assert (first.metric, first.declared, first.rerun, first.points_differing) == (
        "a",
        0.1,
        None,
        1,
    )
    assert (second.metric, second.declared, second.rerun, second.points_differing) == (
        "b",
        None,
        0.1,
        1,
    )


# --- verdict --------------------------------------------------------------------------------------------------------


def test_bitwise_needs_everything_equal_and_something_to_compare():
    equal = compare_metrics(points(0.1), points(0.1))
    other = compare_metrics(points(0.1), points(0.2))
    assert is_bitwise(equal, SAME)
    assert not is_bitwise(other, SAME)
    assert not is_bitwise(equal, OTHER)
    assert not is_bitwise((), SAME)
    assert not is_bitwise(equal, ())
    assert codes(equal, SAME) == []


def test_other_tensors_are_no_contradiction():
    metrics = compare_metrics(points(0.9), points(0.5))
    (finding,) = judge("r", metrics, OTHER, (Knob(name="threads", declared=1, rerun=2),), ())
    assert (finding.code, finding.severity) == ("rerun-not-bitwise", "warning")
    assert finding.message == (
        "not bitwise on this machine: tensor b differs first by at most 0.25; 1 of 1 metrics differ, first auc at"
        " step 0; knobs that differ: threads"
    )


def test_the_difference_of_a_tensor_may_be_unknown():
    metrics = compare_metrics(points(0.9), points(0.9))
    (finding,) = judge("r", metrics, (tensor(equal=False, largest=None),), (), ())
    assert finding.message.endswith("tensor w differs first; no recorded knob differs")


def test_the_same_weights_with_another_result_contradict():
    metrics = compare_metrics(points(0.9), points(0.8))
    assert codes(metrics, SAME) == [
        ("rerun-metric-contradicts", "error"),
        ("rerun-not-bitwise", "warning"),
    ]


def test_a_metric_that_nothing_rests_on_such_as_a_duration_contradicts_nothing():
    metrics = compare_metrics(points(0.9), points(0.8))
    assert codes(metrics, SAME, decisive=()) == [("rerun-not-bitwise", "warning")]


def test_bitwise_says_what_it_does_not_show():
    metrics = compare_metrics(points(0.9), points(0.9))
    (note,) = judge("r", metrics, SAME, (), ())
    assert (note.code, note.severity) == ("rerun-bitwise-scope", "note")


def test_the_last_digit_is_no_contradiction():
    metrics = compare_metrics(points(0.9), points(0.9 + 1e-9))
    assert codes(metrics, SAME) == [("rerun-not-bitwise", "warning")]
    metrics = compare_metrics(points(0.9, 0.5), points(0.1, 0.5))
    assert codes(metrics, SAME) == [("rerun-not-bitwise", "warning")]


@pytest.mark.parametrize(
    ("declared", "found"),
    [(0.9, math.nan), (math.nan, 0.9), (math.inf, -math.inf), (1.0, math.inf)],
)
def test_nan_or_infinity_against_a_number_contradicts(declared, found):
    metrics = compare_metrics(points(declared), points(found))
    assert codes(metrics, SAME)[0] == ("rerun-metric-contradicts", "error")


def test_a_metric_that_is_missing_is_not_bitwise():
    metrics = compare_metrics([*points(0.9), *points(0.5, metric="fake")], points(0.9))
    assert codes(metrics, SAME) == [("rerun-not-bitwise", "warning")]


def test_without_tensors_there_are_no_bits():
    metrics = compare_metrics(points(0.9), points(0.9))
    assert codes(metrics, ()) == [("rerun-no-tensors", "warning"), ("rerun-not-bitwise", "warning")]


# --- the same training ------------------------------------------------------------------------------------------------


def test_the_same_training():
    assert list(same_training(record(), record())) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"parameters": {"rate": "0.02"}}, "rerun-parameters-differ"),
        ({"parameters": {"extra": "1"}}, "rerun-parameters-differ"),
        ({"data": ()}, "rerun-data-differs"),
        (
            {"data": (DatasetVersion(name="d", role="training", sha256="e" * 64, rows=600),)},
            "rerun-data-differs",
        ),
    ],
)
def test_another_training(changes, code):
    found = list(same_training(record(), record(**changes)))
    assert [(each.code, each.severity) for each in found] == [(code, "error")]


def test_another_seed():
    (found,) = same_training(record(), replace(record(), seed=43))
    assert found.code == "rerun-seed-differs"


def test_the_label_of_the_tracker_is_no_identity():
    data = tuple(
        DatasetVersion(name="other", role=role, sha256=DIGEST, rows=rows, tracker_digest="x")
        for role, rows in (("holdout", 400), ("training", 600))
    )
    assert list(same_training(record(), record(data=data))) == []


def test_knobs():
    declared = {"threads": 1, "cpu": "a", "same": "x", "gone": True}
    found = {"threads": 2, "cpu": "a", "same": "x", "new": None, "added": 1.5}
    assert differing_knobs(declared, found) == (
        Knob(name="added", declared=None, rerun=1.5),
        Knob(name="gone", declared=True, rerun=None),
        Knob(name="threads", declared=1, rerun=2),
    )
