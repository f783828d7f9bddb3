"""What an engine is: it runs trials somewhere, several at once, and says how each ended."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from bundler.sandbox import Limits
from bundler.trials import Trial, TrialResult

Kind = Literal["local", "ray", "slurm"]

OnLog = Callable[[int, bytes], None]
"""Is told the seed of a trial and the next chunk of its log; may be called from any thread."""

Work = Callable[[Trial, Path, Path, Callable[[bytes], None] | None], TrialResult]
"""The fixed worker function, :func:`bundler.trials.run_trial`. The project's tests give others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmOptions:
    """How to reach a SLURM cluster: ``folder`` is on a file system that its nodes share with this machine.

    ``cluster`` is ``local`` for separate processes on this machine, with which the same path can be tried.
    """

    folder: Path
    partition: str | None = None
    account: str | None = None
    cluster: Literal["slurm", "local"] = "slurm"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Where to run trials, and how many at once.

    ``parallel`` is the most that run at once (``None``: as many as there is room for). ``limits`` are those of each
    trial. ``keep`` is where the folder of each trial is kept (``local`` only). ``ray_address`` is ``HOST:PORT`` of the
    Ray cluster, without which there is no engine ``ray``.
    """

    kind: Kind = "local"
    parallel: int | None = None
    limits: Limits = field(default_factory=Limits)
    keep: Path | None = None
    ray_address: str | None = None
    slurm: SlurmOptions | None = None


class Engine(Protocol):
    """Runs trials; shaped like :class:`concurrent.futures.Executor`."""

    @property
    def name(self) -> Kind:
        """``local``, ``ray`` or ``slurm``."""

    @property
    def parallel(self) -> int:
        """How many trials run at once."""

    def submit(self, trial: Trial) -> Future[TrialResult]:
        """Start ``trial`` as soon as there is room.

        The future gives the result of a training that ran, however it ended. Infrastructure that failed under it (a
        lost worker, a sandbox that could not start) is tried again; where that does not help, the result says so. It
        raises only what no worker can do anything about: a :class:`bundler.errors.BundlerError` such as
        :class:`bundler.errors.SandboxUnavailableError`, whatever went wrong in a worker, and
        :class:`concurrent.futures.CancelledError` for what :meth:`close` stopped.
        """

    def close(self) -> None:
        """Stop what still runs and give everything back."""
