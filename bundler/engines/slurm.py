"""A SLURM cluster as an engine, through submitit: package and results lie on the file system that its nodes share."""

from __future__ import annotations

import math
import os
import re
import secrets
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundler.engines import package, worker
from bundler.engines.model import EngineOptions, OnLog, SlurmOptions, Work
from bundler.engines.pool import Pool
from bundler.engines.retries import Lost
from bundler.errors import BundlerError, OutputError, UsageError, quoted
from bundler.sandbox import keeper
from bundler.sandbox.removal import remove
from bundler.sandbox.workplace import make
from bundler.spec import Resources
from bundler.trials import Trial, TrialResult

try:
    import submitit
except ImportError:
    raise UsageError(
        "the engine slurm needs the package submitit, which is not installed",
        remedy="pip install 'aisdp-bundler[slurm]'",
    ) from None

_LOOK = 1.0  # seconds between looks at a job
_SETTLE = 10  # looks, after the end of a job, for a result that the shared file system shows late
_JOB_STATE = re.compile(r"(?:^| )JobState=([A-Z_]+)")
_GOING_ON = (
    "PENDING",
    "CONFIGURING",
    "RUNNING",
    "SUSPENDED",
    "RESIZING",
    "SIGNALING",
    "STAGE_OUT",
    "COMPLETING",
    "UNKNOWN",  # the controller does not answer just now
)
_CHUNK = 16 << 10
_MARGIN_MINUTES = 5
"""What SLURM allows beyond the trial's own limit, for start and read-back: it shall be the sandbox that ends a job."""

_DEFAULT_PARALLEL = 8
"""Jobs in the queue at once; SLURM itself decides when each starts."""


class SlurmEngine(Pool):
    """Runs each trial as a job of its own.

    Raises :class:`UsageError` without a shared folder or where there is no SLURM, and :class:`OutputError` if that
    folder cannot be written.
    """

    def __init__(
        self,
        options: EngineOptions,
        staged: Path,
        resources: Resources,
        on_log: OnLog | None,
        work: Work,
    ) -> None:
        if options.slurm is None:
            raise UsageError(
                "SLURM needs a folder that all its nodes share",
                remedy="Give one with --slurm-folder DIR.",
            )
        self._options = options.slurm
        self._work, self._on_log = work, on_log
        self._ending = threading.Event()
        self._submitting = threading.Lock()
        self._folder = options.slurm.folder / f"aisdp-engine-{secrets.token_hex(16)}"
        try:
            self._folder.mkdir(parents=True, mode=0o700)
            self._executor = _executor(self._folder / "jobs", options.slurm)
            self._archive = self._folder / "package.tar"
            self._sha256 = package.pack(staged, self._archive)
            most = options.parallel or _DEFAULT_PARALLEL
            super().__init__("slurm", most, self._run, self._ending)
        except BaseException as error:
            remove(self._folder)
            if not isinstance(error, OSError):
                raise
            raise OutputError(
                f"cannot write {options.slurm.folder}: {error}",
                remedy="Choose a folder on the shared file system with --slurm-folder DIR.",
            ) from None

    def close(self) -> None:
        """Cancel what still runs and remove what lies in the shared folder."""
        super().close()
        remove(self._folder)

    def _run(self, trial: Trial) -> TrialResult | Lost:
        log = self._folder / f"{secrets.token_hex(8)}.log"
        log.touch(mode=0o600)
        asked = worker.request(trial, self._sha256).decode()
        try:
            job = self._submit(trial, _Job(asked, str(self._archive), str(log), self._work))
        except (OSError, RuntimeError, submitit.core.utils.FailedSubmissionError) as error:
            return Lost(reason=f"SLURM did not take the job: {error}")
        with log.open("rb") as tail:
            while (state := self._state(job)) in _GOING_ON:
                self._tell(trial, tail)
                if self._ending.wait(_LOOK):
                    _cancel(job)
                    return Lost(reason="stopped")
            self._tell(trial, tail)
        log.unlink()
        return self._end(trial, job, state)

    def _submit(self, trial: Trial, call: Callable[[], str]) -> Any:
        need, limits = trial.resources, trial.limits
        memory = max(need.memory_bytes or 0, limits.memory_bytes)
        asked: dict[str, Any] = {
            "timeout_min": math.ceil(limits.wall_seconds / 60) + _MARGIN_MINUTES,
            "cpus_per_task": need.cpus,
            "gpus_per_node": need.gpus,
            "mem_gb": math.ceil(memory / (1 << 30)) + 1,  # and our own worker
        }
        with self._submitting:  # the executor's parameters are for the next job
            self._executor.update_parameters(**asked)
            return self._executor.submit(call)

    def _tell(self, trial: Trial, log: Any) -> None:
        """Hand on what was added to the log, the end of it where much was."""
        size = os.fstat(log.fileno()).st_size
        log.seek(max(log.tell(), size - _CHUNK))
        chunk = log.read(_CHUNK)
        if chunk and self._on_log:
            self._on_log(trial.seed, chunk)

    def _state(self, job: Any) -> str:
        """The state of a job in SLURM's words; a result that is there decides, and it may be there a little later."""
        if _has_result(job):
            return "COMPLETED"
        state = job.state if self._options.cluster == "local" else _state(job.job_id)
        if state not in _GOING_ON:
            for _ in range(_SETTLE):
                if _has_result(job) or self._ending.wait(_LOOK):
                    break
        return str(state)

    def _end(self, trial: Trial, job: Any, state: str) -> TrialResult | Lost:
        if not job.paths.result_pickle.exists():
            return _without_result(trial, job.job_id, state)
        try:
            where, said = str(job.result()).split("\n", 1)
        except submitit.core.utils.FailedJobError as error:
            if "UncompletedJobError" in str(error):  # how submitit's own signal handler says it
                return Lost(reason=f"job {job.job_id} was preempted")
            raise BundlerError(
                f"a worker of the SLURM cluster failed: {quoted(_last_of_trace(str(error)), 300)}",
                remedy="Install the same version of aisdp-bundler on all machines of the cluster.",
            ) from None
        return worker.settle(said.encode(), f"job {job.job_id} ({where})")


@dataclass(frozen=True)
class _Job:
    """The fixed function of a job. Submitit pickles it by name, with the request as JSON text, for our own worker."""

    asked: str
    archive: str
    log: str
    work: Work

    def __call__(self) -> str:
        """Run the trial; returns where, a line feed, and the answer."""
        place = Path(tempfile.mkdtemp(prefix="aisdp-engine-"))
        try:
            said = worker.serve(
                self.asked.encode(),
                place / "session",
                self._fetch,
                self._on_given_gpus,
                self._tell,
                stops=(submitit.core.utils.UncompletedJobError,),  # preempted
            )
        finally:
            remove(place)
        return f"{socket.gethostname()}\n{said.decode()}"

    def checkpoint(self, *_: object) -> None:
        """Tell submitit not to put a preempted job into the queue again by itself: attempts are counted."""

    def _fetch(self) -> package.Source:
        return Path(self.archive).open("rb")

    def _tell(self, chunk: bytes) -> None:
        """Add to the log that the other side reads; that it cannot, is no reason to end a training."""
        with suppress(OSError), Path(self.log).open("ab") as log:
            log.write(chunk)

    def _on_given_gpus(
        self, trial: Trial, staged: Path, place: Path, on_output: Any
    ) -> TrialResult:
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        ids = tuple(word for word in given.split(",") if word)
        return self.work(worker.given_gpus(trial, ids), staged, place, on_output)


def _executor(folder: Path, options: SlurmOptions) -> Any:
    make(folder)
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=options.cluster)
    except RuntimeError as error:
        raise UsageError(
            f"there is no SLURM here: {error}",
            remedy="Run on a login node of the cluster, or use --engine local.",
        ) from None
    asked: dict[str, Any] = {"name": "aisdp-rerun"}
    if options.cluster == "slurm":
        asked["slurm_additional_parameters"] = {"no_requeue": True}  # attempts are counted
    chosen = {"slurm_partition": options.partition, "slurm_account": options.account}
    asked |= {name: value for name, value in chosen.items() if value is not None}
    executor.update_parameters(**asked)
    return executor


def _last_of_trace(message: str) -> str:
    """The last line of the traceback that submitit puts between two rules."""
    lines = [line for line in message.splitlines() if line.strip()]
    rules = [i for i, line in enumerate(lines) if not line.strip("-")]
    return lines[rules[-1] - 1 if rules else -1]


def _cancel(job: Any) -> None:
    with suppress(OSError):
        job.cancel(check=False)
    # On this machine submitit asks with SIGINT, which whoever was started in the background of a shell ignores.
    process = getattr(job, "_process", None)
    if process is not None:
        keeper.sweep(process.pid)  # its task first, which would go on without it
        process.kill()


def _has_result(job: Any) -> bool:
    # A network file system looks at a folder anew that is changed from here.
    with suppress(OSError):
        job.paths.folder.chmod(job.paths.folder.stat().st_mode)
    return bool(job.paths.result_pickle.exists())


def _state(job: str) -> str:
    """Ask the controller, which also knows it where SLURM has no accounting, and forgets it minutes after its end."""
    try:
        asked = subprocess.run(
            ["scontrol", "--oneliner", "show", "job", job],  # noqa: S607  # where the cluster has it
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError:
        return "UNKNOWN"
    if asked.returncode != 0:
        return "FORGOTTEN" if "Invalid job id" in asked.stderr else "UNKNOWN"
    found = _JOB_STATE.search(asked.stdout)
    return found[1] if found else "UNKNOWN"


def _without_result(trial: Trial, job: str, state: str) -> TrialResult | Lost:
    """A job that SLURM ended. Its time and memory are limits, which are no reason to try again."""
    ends: dict[str, Any] = {"TIMEOUT": "timed out", "OUT_OF_MEMORY": "killed"}
    for name, ended in ends.items():
        if state.startswith(name):
            return TrialResult(
                seed=trial.seed,
                ended=ended,
                exit_code=None,
                seconds=trial.limits.wall_seconds if ended == "timed out" else 0.0,
                cpu_seconds=None,
                peak_memory_bytes=None,
                detail=f"SLURM ended job {job}: {state}",
                log=(),
                isolation={},
                problem=f"the training broke a limit of SLURM: {state}",
            )
    return Lost(reason=f"job {job} of SLURM gave no result: {state}")
