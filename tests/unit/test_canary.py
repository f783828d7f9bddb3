"""The canary: when it is worth it, and what a stopped training says."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bundler import canary, sandbox
from bundler.records import MetricPoint
from bundler.report import Knob
from bundler.trials import Point, TrialResult

T0 = 1_760_000_000_000


def declared(seconds=600.0, started="2025-10-09T08:53:20.000Z"):
    return SimpleNamespace(seconds=seconds, started_at=started)


def history(*values, first=30):
    return [
        MetricPoint("loss", step, T0 + 1000 * (first + 10 * step), value)
        for step, value in enumerate(values)
    ]


def result(*values, ended="timed out", exit_code=None, record=True, problem=""):
    return TrialResult(
        seed=42,
        ended=ended,
        exit_code=exit_code,
        seconds=100.0,
        cpu_seconds=None,
        peak_memory_bytes=None,
        detail="",
        log=(),
        isolation={},
        record=record,
        points=tuple(Point.of(point) for point in history(*values)),
        problem=problem,
    )


def test_it_waits_three_times_as_long_as_the_first_points_took():
    assert canary.window(declared(), history(1.0, 0.5)) == 3 * 30 + canary.STARTING


@pytest.mark.parametrize(
    ("run", "points"),
    [
        (declared(seconds=59.0), history(1.0)),
        (declared(seconds=None), history(1.0)),
        (declared(started=None), history(1.0)),
        (declared(), []),
        (declared(), history(1.0, first=100)),  # more than a quarter of the whole run
    ],
    ids=["short", "no duration", "no start", "no points", "late points"],
)
def test_it_is_not_run_where_it_would_gain_nothing(run, points):
    assert canary.window(run, points) is None


def test_a_shortened_training_is_only_read_up_to_where_it_was_stopped():
    from bundler.spec import FactMap, Outputs
    from bundler.trials import Trial

    trial = Trial(
        seed=42, command=("x",), working_directory="/", environment={}, facts=FactMap(), run="r",
        outputs=Outputs(tracker="metrics", location="run"), compare=True,
        limits=sandbox.Limits(wall_seconds=50),
    )  # fmt: skip
    short = canary.shortened(trial, 100.0)
    assert (short.compare, short.histories, short.limits.wall_seconds) == (False, True, 50)
    assert canary.shortened(trial, 10.0).limits.wall_seconds == 10.0


def test_equal_first_points_pass():
    bird = canary.examine(history(1.0, 0.5, math.nan, 0.2), result(1.0, 0.5, math.nan, 9.9), ())
    assert bird.verdict == "passed"
    # The last point of a log that was cut off is not believed.
    assert bird.points == 3


def test_of_a_training_that_ended_every_point_counts():
    whole = result(1.0, 0.5, ended="exited", exit_code=0)
    assert canary.examine(history(1.0, 0.5), whole, ()).points == 2


def test_the_first_difference_is_named_with_what_differs_here():
    knob = Knob(name="cpu.model", declared="A", rerun="B")
    bird = canary.examine(history(1.0, 0.5, 0.2), result(1.0, 0.6, 0.1, 0.1), (knob,))
    assert bird.verdict == "failed"
    assert "loss at step 1 is 0.6, declared was 0.5" in bird.explanation
    assert bird.explanation.endswith("what differs here: cpu.model")
    assert bird.knobs == (knob,)


def test_more_points_than_declared_differ():
    bird = canary.examine(history(1.0), result(1.0, 0.5, 0.2), ())
    assert "the declared run has no such point" in bird.explanation


@pytest.mark.parametrize(
    "stopped", [result(record=None, problem="no store"), result()], ids=["unreadable", "nothing"]
)
def test_without_a_point_nothing_is_said(stopped):
    bird = canary.examine(history(1.0), replace(stopped, detail="killed"), ())
    assert bird.verdict == "not run"
    assert bird.seconds == 100.0
