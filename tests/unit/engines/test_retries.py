"""What is tried again, and what never is."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.engines.retries import (
    KEEPER_KILLED,
    MAX_ATTEMPTS,
    Lost,
    again,
    infrastructure_failure,
    settled,
)
from bundler.sandbox import process
from bundler.sandbox.model import Ended
from tests.unit.engines.conftest import a_trial
from tests.unit.engines.works import a_result


@pytest.mark.parametrize(
    "end",
    [
        a_result(ended="could not start", exit_code=None, detail="no more processes"),
        a_result(ended="killed", exit_code=None, detail=KEEPER_KILLED),
        Lost(reason="node died"),
    ],
)
def test_a_failure_of_infrastructure_is_tried_three_times_in_all(end):
    assert [again(end, attempts) for attempts in (1, 2, 3)] == [True, True, False]
    assert MAX_ATTEMPTS == 3


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"exit_code": 1},
        {"exit_code": 137},
        {"ended": "killed", "exit_code": 137, "detail": "signal 9 (SIGKILL)"},
        {"ended": "killed", "detail": KEEPER_KILLED + "; the memory limit was reached"},
        {"ended": "timed out", "exit_code": None, "detail": "still running after 5 s"},
        {"ended": "output limit", "exit_code": None},
        {"ended": "log limit", "exit_code": None},
        {"problem": "the training left 0 runs instead of one"},
    ],
)
def test_a_training_that_ran_or_broke_a_limit_is_never_tried_again(changes):
    assert not again(a_result(**changes), 1)


@given(st.sampled_from(get_args(Ended)), st.none() | st.integers(0, 255), st.text(), st.text())
def test_whatever_a_training_says_about_itself_earns_no_second_attempt(ended, code, problem, log):
    result = a_result(ended=ended, exit_code=code, problem=problem, log=(KEEPER_KILLED, log))
    assert again(result, 1) == (ended == "could not start")


def test_the_words_are_those_of_the_sandbox():
    assert f'"{KEEPER_KILLED}"' in Path(process.__file__).read_text()


def test_a_worker_that_stays_lost_gives_a_result_that_says_so():
    result = settled(a_trial(9), Lost(reason="node died"), 3)
    assert (result.seed, result.attempts, result.record) == (9, 3, None)
    assert "node died" in result.problem
    assert "no evidence against the provider" in result.remedy
    assert infrastructure_failure(result)


def test_the_number_of_attempts_is_recorded():
    assert settled(a_trial(), a_result(), 2) == a_result(attempts=2)
