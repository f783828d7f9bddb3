"""Which ends of a trial are nobody's result: infrastructure failed under it, so it may be tried again.

A training that ran to an end is never repeated, whatever it gave, and neither is one that broke a limit: to try until
it fits would be to choose the result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bundler.errors import BundlerError, quoted
from bundler.trials import Trial, TrialResult

MAX_ATTEMPTS = 3

KEEPER_KILLED = "the process that watches over the job was killed"
"""What :mod:`bundler.sandbox.process` says of a job whose keeper died, if no limit was reached at the same time."""

_LOST = "the worker was lost: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """No result came back: a worker, its node or its disk failed; ``reason`` is for people."""

    reason: str


def infrastructure_failure(result: TrialResult) -> bool:
    """Whether ``result`` says nothing about the training, because what it ran on failed."""
    if result.ended == "could not start":
        return True
    return result.ended == "killed" and (
        result.detail == KEEPER_KILLED or result.detail.startswith(_LOST)
    )


def again(end: TrialResult | Lost, attempts: int) -> bool:
    """Whether to try once more after ``attempts`` attempts, the last of which ended so."""
    failed = isinstance(end, Lost) or infrastructure_failure(end)
    return failed and attempts < MAX_ATTEMPTS


def settled(trial: Trial, end: TrialResult | Lost, attempts: int) -> TrialResult:
    """The result of ``trial`` after its last attempt."""
    if isinstance(end, TrialResult):
        return replace(end, attempts=attempts)
    return TrialResult(
        seed=trial.seed,
        ended="killed",
        exit_code=None,
        seconds=0.0,
        cpu_seconds=None,
        peak_memory_bytes=None,
        detail=_LOST + end.reason,
        log=(),
        isolation={},
        problem=f"the training could not be run: {end.reason}",
        remedy="Infrastructure failed; this is no evidence against the provider. Run the verification again.",
        attempts=attempts,
    )


def unforeseen(error: Exception) -> BundlerError:
    """What whoever waits for a trial is told of an ``error`` that nobody thought of, such as MemoryError."""
    return BundlerError(
        f"the training could not be handled: {type(error).__name__}: {quoted(str(error), 300)}",
        remedy="This is no evidence against the provider. Run the verification again; if it fails again, report it.",
    )
