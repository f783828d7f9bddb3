"""This machine as an engine: threads, each with one sandboxed process."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from bundler.engines import machine
from bundler.engines.model import EngineOptions, OnLog, Work
from bundler.engines.pool import Pool
from bundler.engines.retries import Lost
from bundler.errors import OutputError
from bundler.sandbox import keeper
from bundler.sandbox.workplace import workplace
from bundler.spec import Resources
from bundler.trials import Trial, TrialResult


class LocalEngine(Pool):
    """Runs as many trials at once as cores, memory and GPUs allow, each in a folder of its own."""

    def __init__(
        self,
        options: EngineOptions,
        staged: Path,
        resources: Resources,
        on_log: OnLog | None,
        work: Work,
    ) -> None:
        here = machine.this_machine()
        # What it may use counts, not what the provider says that it needs: no trial shall be killed for its neighbour.
        need = replace(resources, memory_bytes=options.limits.memory_bytes)
        room = here.room(need)
        self._devices = here.devices
        self._free_gpus: queue.SimpleQueue[tuple[str, ...]] = queue.SimpleQueue()
        for i in range(room):
            self._free_gpus.put(here.gpus[i * need.gpus : (i + 1) * need.gpus])
        self._staged, self._keep, self._on_log, self._work = staged, options.keep, on_log, work
        self._places: set[Path] = set()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        super().__init__("local", min(room, options.parallel or room), self._run, self._ending)

    def close(self) -> None:
        """Kill what still runs and wait until it is gone."""
        self._ending.set()
        killer = threading.Thread(target=self._kill, daemon=True)
        killer.start()
        super().close()
        killer.join()

    def _run(self, trial: Trial) -> TrialResult | Lost:
        with ExitStack() as stack:
            given = stack.enter_context(self._gpus(trial))
            try:
                place = stack.enter_context(workplace(self._kept(trial)))
            except OSError as error:
                return Lost(reason=f"no folder for the training: {error}")
            try:
                end = self._in(place, given)
            except OSError as error:
                raise OutputError(
                    f"the training with seed {trial.seed} could not be handled: {error}",
                    remedy="Check free space and permissions, then run it again.",
                ) from None
            return end if isinstance(end, Lost) else replace(end, where="this machine")

    def _in(self, place: Path, trial: Trial) -> TrialResult | Lost:
        on_log = self._on_log
        on_output = (lambda chunk: on_log(trial.seed, chunk)) if on_log else None
        with self._lock:
            if self._ending.is_set():  # too late for those who end all jobs to see this one
                return Lost(reason="stopped")
            self._places.add(place)
        try:
            return self._work(trial, self._staged, place, on_output)
        finally:
            with self._lock:
                self._places.discard(place)

    @contextmanager
    def _gpus(self, trial: Trial) -> Iterator[Trial]:
        """The trial with GPUs that no other trial has meanwhile."""
        given = self._free_gpus.get()
        try:
            yield machine.with_gpus(trial, given, self._devices)
        finally:
            self._free_gpus.put(given)

    def _kept(self, trial: Trial) -> Path | None:
        """Where to keep what a trial leaves; an earlier attempt or verification may have left something there."""
        if self._keep is None:
            return None
        names = (f"seed-{trial.seed}" + (f"-{i}" if i > 1 else "") for i in range(1, 1000))
        return next(self._keep / name for name in names if not os.path.lexists(self._keep / name))

    def _kill(self) -> None:
        """End all jobs, also those that print nothing; a trial that was just about to start its job has none yet."""
        while True:
            with self._lock:
                places = set(self._places)
            if not places:
                return
            for pid in _keepers(places):
                with suppress(OSError):
                    keeper.sweep(pid, seconds=1.0)
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


def _keepers(places: set[Path]) -> Iterator[int]:
    """Our child processes that watch over a job in one of ``places``: only their command lines name these."""
    names = [os.fsencode(place) for place in places]
    for entry in os.listdir("/proc"):
        with suppress(OSError, ValueError):
            pid = int(entry)
            state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if int(state[1]) == os.getpid() and any(name in command for name in names):
                yield pid
