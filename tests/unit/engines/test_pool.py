"""What all engines share, with attempts that the test decides."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest

from bundler.engines import pool as pool_module
from bundler.engines.pool import Pool
from bundler.engines.retries import Lost
from bundler.errors import BundlerError, SandboxUnavailableError
from tests.unit.engines.conftest import a_trial
from tests.unit.engines.works import a_result


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    monkeypatch.setattr(pool_module, "PAUSE", 0.0)


def one_after_the_other(*ends):
    left = list(ends)
    return lambda trial: left.pop(0)


def outcome(*ends):
    pool = Pool("local", 1, one_after_the_other(*ends), threading.Event())
    try:
        return pool.submit(a_trial()).result()
    finally:
        pool.close()


def test_a_lost_worker_is_replaced_and_the_attempts_are_told():
    assert outcome(Lost(reason="a"), Lost(reason="b"), a_result()) == a_result(attempts=3)


def test_after_three_attempts_the_loss_is_the_result():
    result = outcome(Lost(reason="a"), Lost(reason="b"), Lost(reason="c"))
    assert result.attempts == 3
    assert result.problem == "the training could not be run: c"


def test_a_failed_training_is_a_result_at_once():
    assert outcome(a_result(exit_code=1)) == a_result(exit_code=1)


def test_an_error_that_no_worker_can_help_comes_out_of_the_future():
    def attempt(trial):
        raise SandboxUnavailableError("nothing works")

    pool = Pool("local", 1, attempt, threading.Event())
    with pytest.raises(SandboxUnavailableError, match="nothing works"):
        pool.submit(a_trial()).result()
    pool.close()


@pytest.mark.parametrize(
    "error",
    [MemoryError(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), RecursionError("too deep")],
)
def test_an_error_that_nobody_thought_of_comes_out_of_the_future_with_a_remedy(error, capfd):
    def attempt(trial):
        raise error

    pool = Pool("local", 1, attempt, threading.Event())
    with pytest.raises(
        BundlerError, match=f"could not be handled: {type(error).__name__}"
    ) as caught:
        pool.submit(a_trial()).result()
    pool.close()
    assert "no evidence against the provider" in caught.value.remedy
    assert capfd.readouterr() == ("", "")


def test_even_what_is_no_ordinary_error_settles_the_future():
    def attempt(trial):
        raise SystemExit(3)

    pool = Pool("local", 1, attempt, threading.Event())
    with pytest.raises(SystemExit):
        pool.submit(a_trial()).result()
    pool.close()


def test_close_cancels_what_waits_and_drops_what_runs():
    ending, started = threading.Event(), threading.Event()

    def attempt(trial):
        started.set()
        ending.wait()
        return a_result()

    pool = Pool("local", 1, attempt, ending)
    running, waiting = pool.submit(a_trial(1)), pool.submit(a_trial(2))
    started.wait()
    pool.close()
    assert waiting.cancelled()
    with pytest.raises(CancelledError):
        running.result()


def test_close_ends_the_pause_before_another_attempt(monkeypatch):
    monkeypatch.setattr(pool_module, "PAUSE", 3600.0)
    lost, ending = threading.Event(), threading.Event()

    def attempt(trial):
        lost.set()
        return Lost(reason="node died")

    pool = Pool("local", 1, attempt, ending)
    future = pool.submit(a_trial())
    lost.wait()
    pool.close()
    with pytest.raises(CancelledError):
        future.result()


def test_no_more_run_at_once_than_there_is_room_for():
    running, most, lock = [0], [0], threading.Lock()
    both = threading.Barrier(2)

    def attempt(trial):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        both.wait()  # so that two really are there at the same time
        with lock:
            running[0] -= 1
        return a_result()

    pool = Pool("local", 2, attempt, threading.Event())
    for future in [pool.submit(a_trial(i)) for i in range(8)]:
        future.result()
    pool.close()
    assert most == [2]
