from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bundler.errors import MalformedError
from bundler.gates import (
    holdout_rows,
    is_hold_out,
    judge,
    measured,
    overstatement_of,
    predictions_of,
)
from bundler.records import Artefact, DatasetVersion
from bundler.scoring import Measured
from bundler.spec import Condition, FactMap, Gate, Predictions, Sampling, Tolerance
from tests.property.strategies_records import DIGEST, record

FACTS = FactMap()


def gate(**changes) -> Gate:
    sampling = Sampling(kind="proportion", dataset_role="holdout")
    values = {"threshold": 0.7, "comparator": ">=", "sampling": sampling} | changes
    return Gate(name="acc", category="performance", metric="holdout_accuracy", **values)


def run(run_id, seed, value, **changes):
    metrics = {} if value is None else {"holdout_accuracy": value}
    return record(run_id, seed, metrics=metrics, **changes)


HONEST = [run("a", 42, 0.80), run("b", 1, 0.81), run("c", 2, 0.79), run("d", 3, 0.80)]


def verdict(records, **changes):
    (result,) = judge([gate(**changes)], "a", records, FACTS)
    return result


def test_all_repetitions_count():
    result = verdict(HONEST)
    assert (result.verdict, result.runs) == ("met", 4)
    assert result.estimate == pytest.approx(0.8)


def test_a_bad_repetition_cannot_be_left_out():
    assert verdict([*HONEST, run("e", 4, 0.2)]).verdict == "not met"


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_nor_by_not_logging_its_metric(value):
    result = verdict([*HONEST, run("e", 4, value)])
    assert result.verdict == "inconclusive"
    assert "1 of 5 repetitions have no finite value" in result.explanation


def test_the_same_seed_again_adds_nothing():
    again = [run(f"again-{i}", 42, 0.80) for i in range(50)]
    assert verdict([*HONEST, *again]).runs == 4


def test_an_unknown_run_has_no_repetitions():
    (result,) = judge([gate()], "unknown", HONEST, FACTS)
    assert (result.verdict, result.runs) == ("inconclusive", 0)


def test_a_verifier_reads_values_its_own_way():
    (result,) = judge([gate()], "a", HONEST, FACTS, lambda record, metric: 0.1)
    assert result.verdict == "not met"
    (result,) = judge([gate()], "a", HONEST, FACTS, lambda record, metric: math.nan)
    assert (result.verdict, result.estimate) == ("inconclusive", None)


def rows_of(*rows):
    return tuple(DatasetVersion(name="d", role="holdout", sha256=DIGEST, rows=n) for n in rows)


def test_rows_come_from_the_records():
    assert holdout_rows(gate(), HONEST) == 400
    assert holdout_rows(gate(sampling=None), HONEST) is None
    other = Sampling(kind="proportion", dataset_role="holdout_2")
    assert holdout_rows(gate(sampling=other), HONEST) is None
    assert holdout_rows(gate(), []) is None


@pytest.mark.parametrize(
    "role",
    [
        "holdout",
        "Hold-out",
        "hold_out",
        "hold out",
        "test",
        "TEST",
        "testing",
        "test set",
        "evaluation",
        "eval",
    ],
)
def test_words_for_a_hold_out(role):
    assert is_hold_out(role)
    data = (DatasetVersion(name="d", role=role, sha256=DIGEST, rows=300),)
    sampling = Sampling(kind="proportion", dataset_role=role)
    assert holdout_rows(gate(sampling=sampling), [run("a", 42, 0.8, data=data)]) == 300


@pytest.mark.parametrize(
    "role",
    [
        "pool",
        "training",
        "train",
        "validation",
        "val",
        "dev",
        "tuning",
        "holdout_2",
        "tested",
        "set",
        "",
        "unlabelled",
    ],
)
def test_a_pool_of_any_size_is_no_hold_out(role):
    """Any number can be logged under any name, and a million rows leave no variance."""
    data = (*rows_of(400), DatasetVersion(name="p", role=role, sha256=DIGEST, rows=10**6))
    runs = [run("a", 42, 0.80, data=data), run("b", 1, 0.81, data=data)]
    sampling = Sampling(kind="proportion", dataset_role=role)
    assert not is_hold_out(role)
    assert holdout_rows(gate(sampling=sampling), runs) is None
    assert verdict(runs, sampling=sampling).verdict == "inconclusive"


def test_of_several_hold_outs_the_smallest_counts():
    data = (*rows_of(400), DatasetVersion(name="t", role="test", sha256=DIGEST, rows=10**6))
    unknown = DatasetVersion(name="e", role="eval", sha256=DIGEST, rows=None)
    runs = [run("a", 42, 0.80, data=(*data, unknown)), run("b", 1, 0.81, data=(*data, unknown))]
    test = Sampling(kind="proportion", dataset_role="test")
    assert holdout_rows(gate(sampling=test), runs) == 400
    assert holdout_rows(gate(), runs) == 400
    # Predictions show which one they are of.
    assert holdout_rows(gate(sampling=replace(PREDICTED, dataset_role="test")), runs) == 10**6
    assert holdout_rows(gate(sampling=replace(test, dataset_role="eval")), runs) is None


@pytest.mark.parametrize("data", [(), rows_of(None), rows_of(400, 400)])
def test_rows_unknown_or_ambiguous(data):
    records = [record("a", 42, metrics={"holdout_accuracy": 0.8}, data=data)]
    assert holdout_rows(gate(), records) is None


def test_rows_on_which_the_repetitions_disagree():
    """All are scored on one hold-out; a larger one that only the selected run claims must not narrow the bound."""
    records = [run("a", 42, 0.80, data=rows_of(10**9)), *HONEST[1:]]
    assert holdout_rows(gate(), records) is None
    # The records of other data are no repetitions at all where their digests differ too.
    assert verdict(records).verdict == "inconclusive"


def test_a_declared_size_cannot_inflate_the_sample():
    """Neither positives nor groups may exceed the recorded rows."""
    too_many = Sampling(kind="auc", dataset_role="holdout", positives=5000)
    assert verdict(HONEST, sampling=too_many).verdict == "inconclusive"
    groups = Sampling(kind="difference", dataset_role="holdout", groups=(4000, 4000))
    assert verdict(HONEST, sampling=groups).verdict == "inconclusive"


# --- predictions ------------------------------------------------------------------------------------------------------

PREDICTED = Sampling(
    kind="predictions",
    dataset_role="holdout",
    predictions=Predictions(path="p.csv", label="y", score="p"),
    statistic="accuracy",
)
FILE = b"y,p\n" + b"1,0.9\n" * 320 + b"1,0.1\n" * 80


def verdict_with(measure):
    (result,) = judge([gate(sampling=PREDICTED)], "a", HONEST, FACTS, measure=measure)
    return result


def refusal(run, read, sampling=PREDICTED) -> tuple[str, str]:
    with pytest.raises(MalformedError) as caught:
        measured(sampling, run, read)
    return caught.value.code, caught.value.message


def with_artefact(path="p.csv", digest=DIGEST):
    return run("a", 42, 0.8, artefacts=(Artefact(path=path, sha256=digest, size=9),))


def test_the_predictions_of_the_selected_run_show_the_variance():
    asked = []

    def read(path):
        asked.append(path)
        return FILE

    found = measured(PREDICTED, with_artefact(), read)
    assert asked == ["data/artefacts/a/p.csv"]
    assert (found.rows, found.value, found.effective) == (400, 0.8, 400)
    assert verdict_with(lambda sampling: found) == verdict(HONEST)


def test_without_predictions_a_gate_is_inconclusive_and_says_why():
    result = verdict_with(lambda sampling: measured(sampling, run("a", 42, 0.8), FILE.strip))
    assert (result.verdict, result.holdout_variance) == ("inconclusive", None)
    assert "no artefact 'p.csv' with its bytes" in result.explanation
    (result,) = judge([gate(sampling=PREDICTED)], "a", HONEST, FACTS)
    assert "not at hand" in result.explanation


@pytest.mark.parametrize(
    "chosen", [None, run("a", 42, 0.8), with_artefact("q.csv"), with_artefact(digest=None)]
)
def test_predictions_that_are_not_in_the_bundle(chosen):
    code, message = refusal(chosen, lambda path: FILE)
    assert (code, "'p.csv'" in message) == ("predictions-missing", True)


def test_predictions_that_cannot_be_read():
    assert refusal(with_artefact(), lambda path: b"y,p\n1,x\n")[0] == "predictions-syntax"
    one_class = Sampling(
        kind="predictions",
        dataset_role="holdout",
        predictions=PREDICTED.predictions,
        statistic="auc",
    )
    assert refusal(with_artefact(), lambda path: FILE, one_class)[0] == "predictions-undefined"
    nothing = Sampling(kind="predictions", dataset_role="holdout")
    assert refusal(with_artefact(), lambda path: FILE, nothing)[0] == "predictions-missing"


@pytest.mark.parametrize("rows", [399, 401, 10**9])
def test_more_or_fewer_predictions_than_recorded_rows_settle_nothing(rows):
    found = Measured(rows=rows, value=0.8, variance=1e-9, degrees=rows - 1, effective=rows)
    result = verdict_with(lambda sampling: found)
    assert result.verdict == "inconclusive"
    assert f"of {rows} examples, the runs recorded 400" in result.explanation


def test_other_kinds_of_sampling_read_no_predictions():
    def refuse(sampling):
        raise AssertionError

    assert judge([gate()], "a", HONEST, FACTS, measure=refuse) == judge(
        [gate()], "a", HONEST, FACTS
    )


def test_the_predictions_of_the_gates_are_those_of_one_file():
    other = replace(PREDICTED, statistic="brier")
    assert predictions_of([]) is None
    assert predictions_of([gate(), gate(sampling=None)]) is None
    assert (
        predictions_of([gate(sampling=PREDICTED), gate(sampling=other), gate()])
        == PREDICTED.predictions
    )
    elsewhere = replace(PREDICTED, predictions=replace(PREDICTED.predictions, path="q.csv"))
    assert predictions_of([gate(sampling=PREDICTED), gate(sampling=elsewhere)]) is None


# --- the side that flatters -------------------------------------------------------------------------------------------

HIGHER, LOWER = "higher is better", "lower is better"


@pytest.mark.parametrize(
    ("declared", "comparators", "direction", "effective"),
    [
        (HIGHER, [">="], None, HIGHER),
        (LOWER, ["<="], None, LOWER),
        (HIGHER, [], "maximise", HIGHER),
        (LOWER, [], "minimise", LOWER),
        (HIGHER, [">=", ">="], "maximise", HIGHER),
        (LOWER, [">="], None, None),
        (HIGHER, ["<="], None, None),
        (LOWER, [], "maximise", None),
        (HIGHER, [], "minimise", None),
        (LOWER, ["<=", ">="], None, None),
        (LOWER, ["<="], "maximise", None),
        (HIGHER, [], None, None),
        (None, [">="], "maximise", None),
    ],
)
def test_a_tolerance_is_one_sided_only_as_gates_and_selection_say(
    declared, comparators, direction, effective
):
    selection = SimpleNamespace(
        metric="m" if direction else "another", direction=direction or "maximise", constraints=()
    )
    gates = [replace(gate(comparator=each), metric="m") for each in comparators]
    index = SimpleNamespace(selection=selection, gates=[*gates, gate(comparator=">=")])
    tolerance = Tolerance(metric="m", margin=0.01, overstatement=declared)
    assert overstatement_of(tolerance, index) == effective
    constraints = [Condition(metric="m", comparator=each, threshold=0.5) for each in comparators]
    selection.constraints = constraints
    index = SimpleNamespace(selection=selection, gates=())
    assert overstatement_of(tolerance, index) == effective
