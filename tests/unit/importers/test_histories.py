"""Histories among the artefacts of a run, chosen by the name of the file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.errors import SourceError
from bundler.history import write_points
from bundler.importers import histories
from bundler.importers.histories import read_history
from bundler.importers.model import MetricPoint
from tests.unit.importers.support import state, write

FUZZ = settings(deadline=None)

FIXTURES = Path(__file__).parents[2] / "fixtures"
EVENTS = next((FIXTURES / "tensorboard" / "logs" / "finished").glob("events*"))
STATE = FIXTURES / "trainer-state" / "runs" / "finished" / "trainer_state.json"
POINTS = [
    MetricPoint("a", 1, 0, 0.5),
    MetricPoint("a", 1, 1760000000000, math.inf),
    MetricPoint("größe, ✓", 3, 0, -0.0),
]


def test_each_kind_is_read_and_nothing_changes():
    before = state(FIXTURES / "tensorboard")
    events, of_trainer = read_history(EVENTS), read_history(STATE)
    assert {point.metric for point in events.points} == {
        "train_loss",
        "val_loss",
        "precise",
        "modern",
    }
    assert {"loss", "eval_loss", "epoch"} <= {point.metric for point in of_trainer.points}
    assert {point.timestamp for point in of_trainer.points} == {0}
    assert {each.flag for each in of_trainer.flags} >= {"no_time"}
    assert {each.flag for each in events.flags} >= {"float32", "skipped"}
    assert repr(read_history(EVENTS)) == repr(events)
    assert state(FIXTURES / "tensorboard") == before


def test_our_own_format_comes_back_sorted(tmp_path):
    file = write(tmp_path / "metrics.csv", write_points(reversed(POINTS)))
    history = read_history(file)
    assert list(history.points) == POINTS
    assert [each.flag for each in history.flags] == ["duplicate_step"]


@FUZZ
@given(
    st.lists(
        st.builds(
            MetricPoint,
            st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
            st.integers(-(2**53), 2**53),
            st.integers(0, 2**53),
            st.floats(),
        ),
        max_size=9,
    )
)
def test_any_points_in_our_own_format_survive(tmp_path_factory, points):
    file = tmp_path_factory.mktemp("own") / "metrics.csv"
    file.write_bytes(write_points(points))
    in_order = sorted(points, key=lambda each: (each.metric, each.timestamp, each.step))
    assert repr(read_history(file).points) == repr(tuple(in_order))


@pytest.mark.parametrize("name", ["trainer_state.json", "metrics.csv", "events.out.tfevents.1.h"])
@FUZZ
@given(data=st.binary(max_size=200))
def test_damaged_files_are_refused(tmp_path_factory, name, data):
    file = tmp_path_factory.mktemp("damaged") / name
    file.write_bytes(data)
    try:
        read_history(file)
    except SourceError as error:
        message = error.message + error.remedy
        message.encode()
        if not message.isprintable():
            pytest.fail(message)


@pytest.mark.parametrize("name", ["trainer_state.json", "metrics.csv", "events.out.tfevents.1.h"])
def test_a_file_that_is_not_there_is_refused(tmp_path, name):
    with pytest.raises(SourceError, match="cannot be read"):
        read_history(tmp_path / name)


def test_any_other_file_is_refused(tmp_path):
    with pytest.raises(SourceError, match="is no metric history") as error:
        read_history(write(tmp_path / "model.bin", ""))
    assert "trainer_state.json" in error.value.remedy


def test_bounds_hold(tmp_path, monkeypatch):
    file = write(tmp_path / "metrics.csv", write_points(POINTS))
    monkeypatch.setattr(histories, "MAX_POINTS", 2)
    with pytest.raises(SourceError, match="more than 2 metric points"):
        read_history(file)
    monkeypatch.setattr(histories, "MAX_HISTORY", 8)
    with pytest.raises(SourceError, match="more than 8 bytes"):
        read_history(file)
