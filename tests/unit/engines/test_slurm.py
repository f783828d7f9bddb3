"""The SLURM engine with submitit's own local cluster: real processes, a real shared folder, no sbatch.

What only SLURM itself does (preemption, its time limit) is told by its words for the state of a job.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bundler.engines import EngineOptions, SlurmOptions, open_engine
from bundler.engines import pool as pool_module
from bundler.engines.retries import Lost, infrastructure_failure
from bundler.errors import BundlerError, OutputError, SandboxUnavailableError, UsageError
from bundler.spec import Resources
from bundler.trials import TrialResult
from tests.unit.engines import works
from tests.unit.engines.conftest import LIMITS, a_trial

submitit = pytest.importorskip("submitit", reason="the extra slurm is not installed")


@pytest.fixture
def shared(tmp_path, monkeypatch):
    monkeypatch.setattr(pool_module, "PAUSE", 0.0)
    monkeypatch.setattr("bundler.engines.slurm._LOOK", 0.1)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))  # for the works of these tests
    (tmp_path / "nodes-own").mkdir()
    monkeypatch.setenv(
        "TMPDIR", str(tmp_path / "nodes-own")
    )  # a killed worker leaves its folder there
    return tmp_path / "shared"


def local(shared, **changes):
    options = EngineOptions(
        kind="slurm", limits=LIMITS, slurm=SlurmOptions(folder=shared, cluster="local")
    )
    return replace(options, **changes)


@pytest.mark.slow
def test_each_training_is_a_job_of_its_own_and_its_log_comes_back(shared, staged, confined):
    heard: queue.SimpleQueue = queue.SimpleQueue()
    with open_engine(
        local(shared, parallel=2), staged, Resources(), on_log=lambda *said: heard.put(said)
    ) as engine:
        assert (engine.name, engine.parallel) == ("slurm", 2)
        results = [f.result() for f in [engine.submit(a_trial(seed)) for seed in (1, 2, 3)]]
    for seed, result in zip((1, 2, 3), results, strict=True):
        assert (result.seed, result.exit_code, result.problem) == (seed, 0, "")
        assert result.record.parameters["seed"] == seed
        assert result.where.startswith("job ")
    said = [heard.get() for _ in range(heard.qsize())]
    assert {seed for seed, chunk in said if b"score" in chunk} == {1, 2, 3}
    assert list(shared.iterdir()) == []


@pytest.mark.slow
def test_of_a_long_log_the_end_comes_back(shared, staged):
    heard = []
    with open_engine(
        local(shared),
        staged,
        Resources(),
        on_log=lambda *said: heard.append(said),
        work=works.chatters,
    ) as engine:
        engine.submit(a_trial(4)).result()
    assert heard[-1][1].endswith(b"the end\n")
    assert all(len(chunk) <= 16 << 10 for _, chunk in heard)


@pytest.mark.slow
def test_errors_of_a_worker_are_the_same_errors_here(shared, staged):
    with open_engine(local(shared), staged, Resources(), work=works.refuses) as engine:
        future = engine.submit(a_trial())
        with pytest.raises(SandboxUnavailableError, match="nothing works here"):
            future.result()
    with open_engine(local(shared), staged, Resources(), work=works.runs_out_of_memory) as engine:
        future = engine.submit(a_trial())
        with pytest.raises(BundlerError, match="could not be handled: MemoryError"):
            future.result()


@pytest.mark.slow
def test_a_worker_that_cannot_even_answer_is_a_clear_error(shared, staged):
    """As where the package is not installed: the function that a job is to run cannot be loaded there."""
    with open_engine(local(shared), staged, Resources(), work=works.Unloadable()) as engine:
        future = engine.submit(a_trial())
        with pytest.raises(BundlerError, match="a worker of the SLURM cluster failed") as caught:
            future.result()
    assert "same version" in caught.value.remedy


def test_an_engine_that_cannot_be_opened_leaves_nothing(shared, staged, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bundler.engines.package.pack", full)
    with (
        pytest.raises(OutputError, match="No space left"),
        open_engine(local(shared), staged, Resources()),
    ):
        pass
    assert list(shared.iterdir()) == []


@pytest.mark.slow
def test_a_job_whose_process_is_killed_is_submitted_again(shared, staged, tmp_path):
    (tmp_path / "notes").mkdir()
    trial = a_trial(4, environment={"NOTES": str(tmp_path / "notes")})
    with open_engine(
        local(shared), staged, Resources(), work=works.kills_its_worker_once
    ) as engine:
        result = engine.submit(trial).result()
    assert (result.attempts, result.exit_code) == (2, 0)


@pytest.mark.slow
def test_close_ends_what_runs(shared, staged, tmp_path):
    (tmp_path / "notes").mkdir()
    trial = a_trial(environment={"NOTES": str(tmp_path / "notes")})
    with open_engine(local(shared), staged, Resources(), work=works.sleeps) as engine:
        engine.submit(trial)
        while not (noted := list((tmp_path / "notes").iterdir())) or not noted[0].read_text():
            time.sleep(0.05)
        worker = int(noted[0].read_text())
    for _ in range(600):
        try:
            state = Path(f"/proc/{worker}/stat").read_bytes().rpartition(b") ")[2][:1]
        except FileNotFoundError:
            return
        if state == b"Z":  # dead, and not yet asked for by whoever started it
            return
        time.sleep(0.05)
    pytest.fail("the worker still runs")


@pytest.mark.slow
def test_a_preempted_job_is_submitted_again_by_us_and_not_by_submitit(shared, staged, tmp_path):
    """The signal that SLURM sends before it takes a node away, sent to the worker of the first attempt."""
    (tmp_path / "notes").mkdir()
    trial = a_trial(environment={"NOTES": str(tmp_path / "notes")})
    with open_engine(local(shared), staged, Resources(), work=sleeps_once) as engine:
        future = engine.submit(trial)
        while not (noted := list((tmp_path / "notes").iterdir())) or not noted[0].read_text():
            time.sleep(0.05)
        os.kill(int(noted[0].read_text()), signal.SIGUSR2)
        assert future.result().attempts == 2


def sleeps_once(trial, staged, place, on_output):
    if works.note(trial, str(os.getpid())) == 1:
        time.sleep(600)
    return works.a_result(trial.seed)


@pytest.mark.parametrize(
    "state", ["NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "CANCELLED by 0", "FAILED"]
)
def test_a_job_that_slurm_lost_is_tried_again(state):
    from bundler.engines.slurm import _without_result

    assert _without_result(a_trial(), "42", state) == Lost(
        reason=f"job 42 of SLURM gave no result: {state}"
    )


@pytest.mark.parametrize(
    ("state", "ended"), [("TIMEOUT", "timed out"), ("OUT_OF_MEMORY", "killed")]
)
def test_a_limit_of_slurm_is_a_limit_and_not_tried_again(state, ended):
    from bundler.engines.slurm import _without_result

    result = _without_result(a_trial(), "42", state)
    assert isinstance(result, TrialResult)
    assert result.ended == ended
    assert state in result.problem
    assert not infrastructure_failure(result)


def test_without_slurm_it_says_so_and_leaves_nothing(shared, staged, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    options = local(shared, slurm=SlurmOptions(folder=shared))
    with (
        pytest.raises(UsageError, match="there is no SLURM here"),
        open_engine(options, staged, Resources()),
    ):
        pass
    assert list(shared.iterdir()) == []


def test_what_sbatch_is_told(shared, staged, tmp_path, monkeypatch):
    """With stand-ins for srun and sbatch: the second keeps its script and refuses."""
    tools = tmp_path / "tools"
    tools.mkdir()
    kept = tmp_path / "script"
    (tools / "srun").write_text("#!/bin/sh\n")
    (tools / "sbatch").write_text(f'#!/bin/sh\n/bin/cat "$1" > {kept}\nexit 1\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    slurm = SlurmOptions(folder=shared, partition="long", account="audit")
    with open_engine(local(shared, slurm=slurm), staged, Resources()) as engine:
        result = engine.submit(
            a_trial(
                resources=Resources(cpus=3, gpus=1, memory_bytes=5 << 30),
                limits=replace(LIMITS, wall_seconds=601, memory_bytes=2 << 30),
            )
        ).result()
    assert "SLURM did not take the job" in result.problem
    assert result.attempts == 3
    script = kept.read_text()
    for line in (
        "--cpus-per-task=3",
        "--gpus-per-node=1",
        "--mem=6GB",
        "--time=16",
        "--partition=long",
        "--account=audit",
        "--no-requeue",
    ):
        assert f"#SBATCH {line}\n" in script, script


def test_without_a_shared_folder_it_is_refused(staged, tmp_path):
    with (
        pytest.raises(UsageError, match="a folder that all its nodes share"),
        open_engine(EngineOptions(kind="slurm"), staged, Resources()),
    ):
        pass
    (tmp_path / "file").touch()
    options = EngineOptions(kind="slurm", slurm=SlurmOptions(folder=tmp_path / "file/below"))
    with (
        pytest.raises(OutputError, match="cannot write"),
        open_engine(options, staged, Resources()),
    ):
        pass


def test_without_the_extra_the_remedy_is_named():
    hidden = "import sys; sys.modules['submitit'] = None; import bundler.engines.slurm"
    ended = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True)
    assert "the engine slurm needs the package submitit" in ended.stderr


def stand_in(tmp_path, monkeypatch, script):
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.parametrize(
    ("script", "state"),
    [
        # As slurmctld 22.05 says it.
        ('echo "JobId=7 JobName=aisdp-rerun Priority=1 JobState=RUNNING Reason=None"', "RUNNING"),
        ('echo "JobId=7 JobState=NODE_FAIL Reason=NodeDown"', "NODE_FAIL"),
        ("echo nothing", "UNKNOWN"),
        ('echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1', "FORGOTTEN"),
        ('echo "Unable to contact slurm controller" >&2; exit 1', "UNKNOWN"),
    ],
)
def test_the_controller_is_asked_for_the_state_of_a_job(tmp_path, monkeypatch, script, state):
    from bundler.engines.slurm import _state

    stand_in(tmp_path, monkeypatch, script)
    assert _state("7") == state
    (tmp_path / "scontrol").unlink()
    assert _state("7") == "UNKNOWN"


def test_what_runs_on_the_node(staged, tmp_path, monkeypatch):
    """The function of a job in this process: its log, its GPUs, and nothing left behind."""
    from bundler.engines import package, worker
    from bundler.engines.slurm import _Job

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr("bundler.engines.machine._devices", lambda dev: 4)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sha256 = package.pack(staged, tmp_path / "package.tar")
    asked = worker.request(a_trial(), sha256).decode()
    job = _Job(asked, str(tmp_path / "package.tar"), str(tmp_path / "log"), works.tells_its_gpus)
    where, said = job().split("\n", 1)
    result = worker.settle(said.encode(), where)
    assert result.log == ("3",)
    assert (tmp_path / "log").read_bytes() == b"seed 7\n"
    assert not list(tmp_path.glob("aisdp-engine-*"))
    assert job.checkpoint() is None
