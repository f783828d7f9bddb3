"""Trainings of the provider's own, one process a seed: begun, watched, stopped, and found again after an interruption.

In the output folder, ``seed-N`` is what ``{out}`` stands for and belongs to the training alone; ``seed-N.log`` is what
it printed, ``seed-N.json`` how it ended. The last one is written when all is done: a folder without it was interrupted.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bundler import canonical, codec
from bundler.errors import MalformedError, OutputError, UsageError, quoted
from bundler.sandbox.diagnosis import last_lines

POLL = 0.1
"""Seconds between two looks at the processes."""

GRACE = 5.0
"""Seconds that a training has to end by itself once it is told to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A command for one seed, to be run in ``folder``; ``identity`` is the same for all runs of one training."""

    seed: int
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    identity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How a training ended. ``problem`` is empty for one that finished and left its record; times are seconds."""

    seed: int
    exit_code: int
    seconds: float
    problem: str
    identity: str


class Watcher(Protocol):
    """Is told how the runs are going."""

    def begun(self, seed: int) -> None:
        """A run begins."""

    def said(self, seed: int, line: str) -> None:
        """The last line that it printed, in ASCII."""

    def ended(self, attempt: Attempt) -> None:
        """It ended."""


@dataclass(slots=True)
class _Running:
    training: Training
    process: subprocess.Popen[bytes]
    began: float = field(default_factory=time.monotonic)


class Repeated:
    """The runs of one output folder. ``problem_of`` says why what a training left in its folder is no record."""

    def __init__(
        self, output: Path, trainings: Sequence[Training], problem_of: Callable[[Path], str]
    ) -> None:
        self._output = output
        self._problem_of = problem_of
        self._trainings = trainings
        found = (self._finished(each) for each in trainings)
        self.finished = tuple(each for each in found if each is not None)

    def run(self, watcher: Watcher, parallel: int = 1) -> tuple[Attempt, ...]:
        """Run what is not finished, ``parallel`` at once; a failure does not stop the others. All attempts by seed.

        Raises :class:`UsageError` if the command is no program or a run is still going on from an earlier call, and
        :class:`OutputError`. Whatever is raised, no process is left behind.
        """
        done = {each.seed: each for each in self.finished}
        waiting = [each for each in self._trainings if each.seed not in done]
        running: list[_Running] = []
        self._prepare()
        try:
            while waiting or running:
                while waiting and len(running) < parallel:
                    running.append(self._begin(waiting.pop(0)))
                    watcher.begun(running[-1].training.seed)
                time.sleep(POLL)
                for each in [*running]:
                    seed = each.training.seed
                    if each.process.poll() is None:
                        watcher.said(seed, "".join(last_lines(self._place(seed, ".log"))[-1:]))
                        continue
                    running.remove(each)
                    done[seed] = self._end(each)
                    watcher.ended(done[seed])
        finally:
            _stop(running)
        return tuple(done[each.seed] for each in self._trainings)

    def _place(self, seed: int, suffix: str = "") -> Path:
        return self._output / f"seed-{seed}{suffix}"

    def _prepare(self) -> None:
        try:
            self._output.mkdir(parents=True, exist_ok=True)
            # Inside a repository, results must not make the working tree dirty: the runs would record that.
            (self._output / ".gitignore").write_text("*\n")
        except OSError as error:
            raise _unwritable(self._output, error) from None

    def _finished(self, training: Training) -> Attempt | None:
        """The attempt that finished earlier. Raises :class:`UsageError` if it was one of another training."""
        file = self._place(training.seed, ".json")
        try:
            attempt = codec.from_json(Attempt, canonical.parse(file.read_bytes(), name=file.name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, MalformedError) as error:
            raise UsageError(
                f"{file} cannot be read: {quoted(str(error), 200)}",
                remedy="Choose another folder (-o).",
            ) from None
        if attempt.identity != training.identity:
            raise UsageError(
                f"{file} is of another training: bundle.yaml or the code changed since",
                remedy="Choose another folder (-o).",
            )
        return None if attempt.problem else attempt

    def _begin(self, training: Training) -> _Running:
        out, log = self._place(training.seed), self._place(training.seed, ".log")
        try:
            self._set_aside(training.seed)
            out.mkdir()
            with log.open("wb") as file:
                # Held by the training itself, too: it may outlive us, and must not meet a second one.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                process = _started(training, file.fileno())
        except OSError as error:
            raise _unwritable(log, error) from None
        return _Running(training, process)

    def _set_aside(self, seed: int) -> None:
        """What an earlier attempt left is kept under another name: all runs count."""
        log = self._place(seed, ".log")
        if log.exists():
            with log.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UsageError(
                        f"the run of seed {seed} in {self._output} is still going on",
                        remedy="Wait for it, or stop its process.",
                    ) from None
        number = 1
        while any(self._place(seed, f"-earlier-{number}{each}").exists() for each in _SUFFIXES):
            number += 1
        for suffix in _SUFFIXES:
            with suppress(FileNotFoundError):
                self._place(seed, suffix).rename(self._place(seed, f"-earlier-{number}{suffix}"))

    def _end(self, run: _Running) -> Attempt:
        seed, code = run.training.seed, run.process.returncode
        problem = ""
        if code != 0:
            how = f"exit code {code}" if code > 0 else f"killed by {_signal_name(-code)}"
            line = "".join(last_lines(self._place(seed, ".log"))[-1:])
            problem = f"the training failed: {how}; {line or 'it printed nothing'}"
        else:
            problem = self._problem_of(self._place(seed))
        attempt = Attempt(
            seed=seed,
            exit_code=code,
            seconds=round(time.monotonic() - run.began, 3),
            problem=problem,
            identity=run.training.identity,
        )
        file, partial = self._place(seed, ".json"), self._place(seed, ".json.partial")
        try:
            partial.write_bytes(canonical.serialise(codec.to_json(attempt)) + b"\n")
            partial.replace(file)
        except OSError as error:
            raise _unwritable(file, error) from None
        return attempt


_SUFFIXES = ("", ".log", ".json")


def _started(training: Training, log: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # the provider's own command; no shell
            training.command,
            cwd=training.folder,
            env={**os.environ, **training.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # A group of its own, so that all of its processes can be stopped.
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"the training cannot be started: {quoted(training.command[0], 200)}: {reason}",
            remedy="Check training.command, and give --python the interpreter of the training.",
        ) from None


def _stop(running: Sequence[_Running]) -> None:
    """End what is still running, with all processes that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for each in running:
            with suppress(ProcessLookupError):
                os.killpg(each.process.pid, number)
        for each in running:
            with suppress(subprocess.TimeoutExpired):
                each.process.wait(GRACE)


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _unwritable(place: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {error.filename or place}: {error.strerror}",
        remedy="Check free space and permissions, or choose another folder (-o).",
    )
