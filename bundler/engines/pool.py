"""What all engines share: threads that wait for trials, tries after failures of infrastructure, and an end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

from bundler.engines import retries
from bundler.engines.model import Kind
from bundler.engines.retries import Lost
from bundler.errors import BundlerError
from bundler.trials import Trial, TrialResult

Attempt = Callable[[Trial], TrialResult | Lost]

PAUSE = 1.0
"""Seconds before another attempt: a lost node may still be on the list of those that live."""


class Pool:
    """An engine made of ``attempt``, which runs a trial once and waits for its end.

    ``attempt`` is called from ``parallel`` threads. After ``stopping`` is set it returns soon; what it gives then is of
    no interest.
    """

    def __init__(
        self, name: Kind, parallel: int, attempt: Attempt, stopping: threading.Event
    ) -> None:
        self.name = name
        self.parallel = parallel
        self._attempt = attempt
        self._stopping = stopping
        self._threads = ThreadPoolExecutor(parallel, thread_name_prefix=f"trial-{name}")

    def submit(self, trial: Trial) -> Future[TrialResult]:
        """See :class:`bundler.engines.model.Engine`."""
        return self._threads.submit(self._until_settled, trial)

    def close(self) -> None:
        """See :class:`bundler.engines.model.Engine`; may be called more than once."""
        self._stopping.set()
        self._threads.shutdown(cancel_futures=True)

    def _until_settled(self, trial: Trial) -> TrialResult:
        attempts = 0
        while True:
            attempts += 1
            end = self._tried(trial)
            if self._stopping.is_set():
                raise CancelledError  # it was stopped, or nobody waits for it any more
            if not retries.again(end, attempts):
                return retries.settled(trial, end, attempts)
            if self._stopping.wait(PAUSE * attempts):
                raise CancelledError

    def _tried(self, trial: Trial) -> TrialResult | Lost:
        """One attempt. What goes wrong in it is an error with a remedy, which costs the re-run and not the report."""
        try:
            return self._attempt(trial)
        except (BundlerError, CancelledError):
            raise
        except Exception as error:
            raise retries.unforeseen(error) from error
