"""Files of predictions: what is read, what is refused, and how two of them are compared."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler import predictions
from bundler.errors import MalformedError
from bundler.predictions import compare, measured, read, statistic
from bundler.spec import Predictions, Sampling

COLUMNS = Predictions(path="p.csv", label="y_true", score="probability", key="row")
PLAIN = Predictions(path="p.csv", label="y_true", score="probability")
FILE = b"row,y_true,probability\n7,0,0.25\n8,1,0.75\n9,1,0.5\n"
EXAMPLE = Path(__file__).parents[2] / "example_bundle/credit_scoring"


def refusal(data, columns=COLUMNS) -> str:
    with pytest.raises(MalformedError) as caught:
        read(data, columns, name="p.csv")
    assert caught.value.code == "predictions-syntax"
    assert caught.value.message.startswith("p.csv")
    return caught.value.message


# --- reading --------------------------------------------------------------------------------------------------------


def test_labels_scores_and_keys_are_read_by_the_names_of_their_columns():
    found = read(FILE, COLUMNS, name="p.csv")
    assert found.labels.tolist() == [0, 1, 1]
    assert found.scores.tolist() == [0.25, 0.75, 0.5]
    assert (found.keys, found.threshold, len(found)) == (("7", "8", "9"), 0.5, 3)
    assert read(FILE, PLAIN, name="p.csv").keys is None


def test_other_columns_quotes_and_line_ends_do_not_matter():
    data = b'note,"probability",y_true\r\n"a, ""b""",1e-3,1.0\r\n,.5,+0\r\n'
    found = read(data, PLAIN, name="p.csv")
    assert (found.labels.tolist(), found.scores.tolist()) == ([1, 0], [0.001, 0.5])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 columns are called 'y_true'"),
        (b"row,y_true,probability\n", "has no examples"),
        (b"row,y_true\n1,1\n", "0 columns are called 'probability'"),
        (b"row,y_true,probability,y_true\n1,1,1,1\n", "2 columns are called 'y_true'"),
        (b"y_true,probability\n1,1\n", "0 columns are called 'row'"),
        (FILE + b"7,1,0.5\n", "a key in column 'row' stands twice"),
        (FILE + b"10,1\n", "line 5: 2 fields, the header has 3"),
        (FILE + b"\n", "line 5: 0 fields"),
        (FILE + b"10,1,nan\n", "line 5: 'nan' is not a finite number"),
        (FILE + b"10,1,inf\n", "'inf' is not a finite number"),
        (FILE + b"10,1,1e999\n", "'1e999' is not a finite number"),
        (FILE + b"10,1,1_0\n", "'1_0' is not a finite number"),
        (FILE + b"10,1, 1\n", "' 1' is not a finite number"),
        (FILE + b"10,1,\n", "'' is not a finite number"),
        (FILE + b"10,good,0.5\n", "'good' is not a finite number"),
        (FILE + "10,1,\u0661\n".encode(), "is not a finite number"),
        (FILE + b"10,1,\x1b[2J\n", r"'\x1b[2J' is not a finite number"),
        (FILE + b'10,1,"0.5\n', "unexpected end of data"),
        (FILE + b"10,1,\xff\n", "can't decode"),
        (b"\xef\xbb\xbf" + FILE[4:], "columns are called"),
        (FILE + b"10,1," + b"1" * 200_000 + b"\n", "field larger than field limit"),
    ],
)
def test_what_is_no_file_of_predictions(data, words):
    assert words in refusal(data)


def test_one_column_cannot_be_truth_and_prediction():
    twice = Predictions(path="p.csv", label="y_true", score="y_true")
    assert "not different columns" in refusal(FILE, twice)


def test_there_is_a_largest_file(monkeypatch):
    monkeypatch.setattr(predictions, "MAX_ROWS", 2)
    assert "line 4: more than 2 examples" in refusal(FILE)
    monkeypatch.setattr(predictions, "MAX_BYTES", 10)
    assert "larger than" in refusal(FILE)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60), st.integers(0, len(FILE)))
def test_hostile_bytes_are_read_or_refused(data, position):
    for text in (data, FILE[:position] + data + FILE[position:]):
        code = "predictions-syntax"
        try:
            read(text, COLUMNS, name="p.csv")
        except MalformedError as error:
            code = error.code if "\n" not in error.message else "more than a line"
        assert code == "predictions-syntax"


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_what_repr_writes_is_read_to_the_last_bit(scores):
    lines = "".join(f"{i},0,{score!r}\n" for i, score in enumerate(scores))
    found = read(b"row,y_true,probability\n" + lines.encode(), COLUMNS, name="p.csv")
    assert found.scores.tolist() == scores


def test_the_metrics_of_the_example_follow_from_its_predictions():
    """Of every run whose predictions were logged, what scikit-learn computed at its training."""
    columns = Predictions(
        path="holdout_predictions.csv",
        label="y_true",
        score="probability",
        key="row",
        threshold=0.3,
    )
    with closing(sqlite3.connect(f"file:{EXAMPLE / 'mlflow.db'}?mode=ro", uri=True)) as store:
        query = "SELECT run_uuid, key, value FROM latest_metrics WHERE key LIKE 'holdout_%'"
        logged = {(run, key): value for run, key, value in store.execute(query)}
    files = sorted(EXAMPLE.glob("mlartifacts/1/*/artifacts/holdout_predictions.csv"))
    assert len(files) > 5
    for path in files:
        found = read(path.read_bytes(), columns, name=path.name)
        for name in ("auc", "brier", "accuracy", "balanced_accuracy"):
            declared = logged[path.parts[-3], f"holdout_{name}"]
            assert statistic(name, found) == pytest.approx(declared, rel=1e-9)


# --- measuring ------------------------------------------------------------------------------------------------------


def test_a_gate_is_told_statistic_rows_and_variance():
    sampling = Sampling(
        kind="predictions", dataset_role="h", predictions=PLAIN, statistic="accuracy"
    )
    found = measured(FILE, sampling, name="p.csv")
    assert (found.rows, found.value, found.effective) == (3, 1.0, 3.0)


@pytest.mark.parametrize(("columns", "name"), [(None, "auc"), (PLAIN, None)])
def test_a_gate_that_does_not_say_what_of_is_refused(columns, name):
    sampling = Sampling(kind="predictions", dataset_role="h", predictions=columns, statistic=name)
    with pytest.raises(MalformedError, match="names no predictions, or no statistic") as caught:
        measured(FILE, sampling, name="p.csv")
    assert caught.value.code == "predictions-undefined"


# --- comparing ------------------------------------------------------------------------------------------------------


def difference(data, columns=COLUMNS) -> str:
    with pytest.raises(MalformedError) as caught:
        compare(FILE, data, columns, name="p.csv")
    assert caught.value.code == "predictions-examples"
    return caught.value.message


def test_the_same_predictions():
    found = compare(FILE, FILE, COLUMNS, name="p.csv")
    assert (found.artefact, found.examples, found.agreement) == ("p.csv", 3, 1.0)
    assert (found.max_absolute_difference, found.max_logit_difference) == (0.0, 0.0)


def test_decisions_scores_and_logits():
    other = b"row,y_true,probability\n7,0,0.5\n8,1,0.75\n9,1,0.6\n"
    found = compare(FILE, other, COLUMNS, name="p.csv")
    assert found.agreement == pytest.approx(2 / 3)
    assert found.max_absolute_difference == 0.25
    assert found.max_logit_difference == pytest.approx(math.log(3))


def test_a_key_joins_lines_in_another_order():
    lines = FILE.splitlines(keepends=True)
    other = b"".join([lines[0], lines[3], lines[1], lines[2]])
    assert compare(FILE, other, COLUMNS, name="p.csv").max_absolute_difference == 0.0
    # Without a key, the order is all that there is.
    assert "in another order" in difference(other, PLAIN)


@pytest.mark.parametrize(
    "other",
    [
        FILE + b"10,1,0.5\n",
        FILE.replace(b"9,", b"10,"),
        FILE.replace(b"7,0", b"7,1"),
        FILE.splitlines(keepends=True)[0] + b"7,0,0.25\n",
    ],
)
def test_other_examples_or_labels_are_not_compared(other):
    assert "other examples" in difference(other)


@pytest.mark.parametrize("extreme", [b"0.0", b"1.0", b"-3", b"17"])
def test_there_are_logits_of_probabilities_alone(extreme):
    other = FILE.replace(b"0.25", extreme)
    assert compare(FILE, other, COLUMNS, name="p.csv").max_logit_difference is None


def test_of_numbers_the_same_decision_is_the_same_number_but_for_rounding():
    data = FILE.replace(b"7,0", b"7,3.5")
    for score, agreement in ((b"0.75001", 2 / 3), (b"0.7500000000001", 1.0)):
        found = compare(data, data.replace(b"0.75", score), COLUMNS, name="p.csv")
        assert (found.agreement, found.numeric) == (pytest.approx(agreement), True)
    # What rounding is goes by the size of the scores.
    tiny = data.replace(b"0.", b"0.00000000")
    other = tiny.replace(b"0000075", b"0000076")
    assert compare(tiny, other, COLUMNS, name="p.csv").agreement == pytest.approx(2 / 3)


def test_a_difference_beyond_all_numbers_is_none():
    data, other = (FILE.replace(b"0.25", each) for each in (b"1.7e308", b"-1.7e308"))
    assert compare(data, other, COLUMNS, name="p.csv").max_absolute_difference is None


@settings(deadline=None, max_examples=50)
@given(st.permutations(range(6)), st.lists(st.floats(0.01, 0.99), min_size=12, max_size=12))
def test_the_order_of_keyed_lines_changes_nothing(order, scores):
    header = b"row,y_true,probability\n"
    lines = [[f"{i},{i % 2},{scores[i + k]!r}\n".encode() for i in range(6)] for k in (0, 6)]
    straight = compare(header + b"".join(lines[0]), header + b"".join(lines[1]), COLUMNS, name="p")
    mixed = header + b"".join(lines[1][i] for i in order)
    assert compare(header + b"".join(lines[0]), mixed, COLUMNS, name="p") == straight
    apart = np.abs(np.array(scores[:6]) - np.array(scores[6:])).max()
    assert straight.max_absolute_difference == apart
