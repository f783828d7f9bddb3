"""This machine as an engine: real sandboxed trainings, really stopped."""

from __future__ import annotations

import os
import queue
import threading
import time
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bundler.engines import EngineOptions, open_engine
from bundler.engines import machine as machine_module
from bundler.engines.local import LocalEngine
from bundler.engines.machine import Machine
from bundler.errors import (
    BundlerError,
    EnvironmentNotRecreatableError,
    OutputError,
    SandboxUnavailableError,
    UsageError,
)
from bundler.spec import Resources
from tests.unit.engines import works
from tests.unit.engines.conftest import LIMITS, a_trial
from tests.unit.engines.works import a_result

LOCAL = EngineOptions(limits=LIMITS)


def has(monkeypatch, **what):
    there = Machine(**({"cores": 8, "memory_bytes": 64 << 30, "gpus": (), "devices": 0} | what))
    monkeypatch.setattr(machine_module, "this_machine", lambda: there)


def test_trainings_run_in_the_sandbox_each_with_its_own_copy_of_the_code(staged, confined):
    before = sorted(staged.rglob("*"))
    heard: queue.SimpleQueue = queue.SimpleQueue()
    with open_engine(LOCAL, staged, Resources(), on_log=lambda *said: heard.put(said)) as engine:
        assert engine.name == "local"
        results = [f.result() for f in [engine.submit(a_trial(seed)) for seed in (1, 2, 3)]]
    for seed, result in zip((1, 2, 3), results, strict=True):
        assert (result.seed, result.exit_code, result.problem) == (seed, 0, "")
        assert (result.attempts, result.where) == (1, "this machine")
        assert result.record.parameters["seed"] == seed
        assert result.isolation["kind"] in ("bubblewrap", "sandlock")
    assert sorted(staged.rglob("*")) == before
    said = [heard.get() for _ in range(heard.qsize())]
    assert {seed for seed, chunk in said if b"score" in chunk} == {1, 2, 3}


def test_what_a_trial_leaves_is_kept_where_it_is_wanted_and_nothing_is_overwritten(
    staged, tmp_path
):
    options = replace(LOCAL, keep=tmp_path / "kept")
    for _ in range(2):
        with open_engine(options, staged, Resources(), work=works.echo) as engine:
            engine.submit(a_trial(5)).result()
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == ["seed-5", "seed-5-2"]
    assert (tmp_path / "kept/seed-5-2/left-behind").exists()


def test_without_keep_nothing_is_left(staged):
    with open_engine(LOCAL, staged, Resources(), work=works.echo) as engine:
        place = Path(engine.submit(a_trial()).result().log[-1])
    assert not place.exists()


def test_a_place_that_cannot_be_made_is_no_result_of_the_training(staged, tmp_path, monkeypatch):
    monkeypatch.setattr("bundler.engines.pool.PAUSE", 0.0)
    (tmp_path / "file").touch()
    options = replace(LOCAL, keep=tmp_path / "file")
    with open_engine(options, staged, Resources(), work=works.echo) as engine:
        result = engine.submit(a_trial()).result()
    assert result.attempts == 3
    assert "no folder for the training" in result.problem


def test_errors_come_out_of_the_future(staged):
    with open_engine(LOCAL, staged, Resources(), work=works.refuses) as engine:
        future = engine.submit(a_trial())
        with pytest.raises(SandboxUnavailableError):
            future.result()
    with open_engine(LOCAL, staged, Resources(), work=works.breaks) as engine:
        future = engine.submit(a_trial())
        with pytest.raises(OutputError, match="No space left"):
            future.result()


def test_an_error_that_nobody_thought_of_is_an_error_with_a_remedy(staged):
    with open_engine(LOCAL, staged, Resources(), work=works.runs_out_of_memory) as engine:
        future = engine.submit(a_trial())
        with pytest.raises(BundlerError, match="could not be handled: MemoryError"):
            future.result()


@pytest.mark.parametrize("kind", ["local", "ray", "slurm"])
@pytest.mark.parametrize(
    "resources",
    [Resources(cpus=-1), Resources(cpus=0), Resources(gpus=-5), Resources(memory_bytes=-7)],
)
def test_a_need_that_no_machine_can_meet_is_the_bundle_s_fault(staged, kind, resources):
    options = EngineOptions(kind=kind, limits=LIMITS)
    with (
        pytest.raises(EnvironmentNotRecreatableError, match="the bundle declares") as caught,
        open_engine(options, staged, resources, work=works.echo),
    ):
        pass
    assert "ask the provider" in caught.value.remedy


@pytest.mark.parametrize(
    ("resources", "limit", "parallel", "expected"),
    [
        (Resources(cpus=2), 1 << 30, None, 4),
        (Resources(cpus=2), 1 << 30, 3, 3),
        (Resources(cpus=2), 1 << 30, 100, 4),
        (Resources(cpus=100), 1 << 30, None, 1),
        # What a trial may use counts, whatever the bundle says that it needs: all limits together fit.
        (Resources(memory_bytes=None), 8 << 30, None, 2),
        (Resources(memory_bytes=1), 8 << 30, None, 2),
        (Resources(memory_bytes=1 << 30), 8 << 30, None, 2),
        (Resources(memory_bytes=1 << 40), 8 << 30, None, 2),
    ],
)
def test_as_many_run_at_once_as_there_is_room_for(
    staged, monkeypatch, resources, limit, parallel, expected
):
    has(monkeypatch, memory_bytes=16 << 30)
    options = EngineOptions(parallel=parallel, limits=replace(LIMITS, memory_bytes=limit))
    with open_engine(options, staged, resources, work=works.echo) as engine:
        assert engine.parallel == expected


def test_no_two_trials_have_the_same_gpu_at_once(staged, monkeypatch):
    has(monkeypatch, gpus=("0", "1"), devices=2)
    both = threading.Barrier(2)

    def work(trial, staged, place, on_output):
        both.wait()
        return a_result(trial.seed, log=(trial.environment["CUDA_VISIBLE_DEVICES"],))

    with open_engine(LOCAL, staged, Resources(gpus=1), work=work) as engine:
        futures = [engine.submit(a_trial(i, resources=Resources(gpus=1))) for i in range(2)]
        assert sorted(f.result().log[0] for f in futures) == ["0", "1"]


def test_zero_trainings_at_a_time_is_refused(staged):
    with (
        pytest.raises(UsageError, match="at least one"),
        open_engine(EngineOptions(parallel=0), staged, Resources()),
    ):
        pass


@pytest.mark.parametrize("kind", ["ray", "slurm"])
def test_folders_on_other_machines_cannot_be_kept(staged, tmp_path, kind):
    options = EngineOptions(kind=kind, keep=tmp_path / "kept")
    with (
        pytest.raises(UsageError, match="on other machines"),
        open_engine(options, staged, Resources()),
    ):
        pass


def keepers():
    """The sandbox's own processes below this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                parent = int((entry / "stat").read_bytes().rpartition(b") ")[2].split()[1])
            except OSError:
                continue
            if b"keeper.py" in command and parent == os.getpid():
                found.append(int(entry.name))
    return found


SILENT = "import time; time.sleep(600)"


def test_close_stops_at_once_what_prints_nothing(staged, confined):
    """A training of ten minutes that is silent: were it not killed, this test would time out with it."""
    limits = replace(LIMITS, wall_seconds=600)
    trial = a_trial(command=(a_trial().command[0], "-I", "-S", "-c", SILENT), limits=limits)
    begun = time.monotonic()
    with open_engine(replace(LOCAL, parallel=1), staged, Resources()) as engine:
        running, waiting = engine.submit(trial), engine.submit(trial)
        while not any(
            SILENT.encode() in Path(f"/proc/{p}/cmdline").read_bytes() for p in keepers()
        ):
            time.sleep(0.01)
    assert time.monotonic() - begun < 300
    assert waiting.cancelled()
    with pytest.raises(CancelledError):
        running.result()
    assert keepers() == []


def test_a_training_that_is_about_to_start_when_all_is_stopped_never_starts(staged, monkeypatch):
    """The moment between the making of its folder and its start."""
    started = threading.Event()
    engine = LocalEngine(LOCAL, staged, Resources(), None, lambda *_: started.set())

    @contextmanager
    def closed_meanwhile(keep):
        engine._ending.set()
        yield staged

    monkeypatch.setattr("bundler.engines.local.workplace", closed_meanwhile)
    future = engine.submit(a_trial())
    with pytest.raises(CancelledError):
        future.result()
    engine.close()
    assert not started.is_set()


def test_an_interruption_stops_what_runs(staged, confined):
    trial = a_trial(
        command=(a_trial().command[0], "-I", "-S", "-c", "print('up', flush=True);" + SILENT)
    )
    up = threading.Event()
    with (
        pytest.raises(KeyboardInterrupt),
        open_engine(LOCAL, staged, Resources(), on_log=lambda seed, chunk: up.set()) as engine,
    ):
        running = engine.submit(trial)
        up.wait()
        raise KeyboardInterrupt
    with pytest.raises(CancelledError):
        running.result()
    assert keepers() == []
