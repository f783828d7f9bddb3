"""Starting a keeper, watching what its job does to us, and ending it: shared by all sandboxes."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundler.sandbox import cgroups, keeper
from bundler.sandbox.model import OUT, Ended, Job, Limits, OnOutput, Outcome
from bundler.sandbox.output import Size, excess, size

TICK = 0.05
# Output is measured again after this many times what measuring took: at most a tenth of a core.
_MEASURE_PAUSE = 10
_GRACE = 10.0
Helper = Callable[[str], tuple[str, ...]]
"""How to start one of the verifier's own programs where it is needed: its argv by its name."""

_Places = dict[str, tuple[tuple[Path, ...], Size]]
_ENVIRONMENT = {
    "HOME": "/tmp",  # noqa: S108 - the sandbox's own tmpfs
    "TMPDIR": "/tmp",  # noqa: S108
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "USER": "sandbox",
    "LOGNAME": "sandbox",
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start a job; ``marked`` is explained in the keeper, ``site`` selects sandlock."""

    argv: tuple[str, ...]
    folder: Path = Path("/")
    fds: tuple[int, ...] = ()
    marked: bool = False
    prefix: tuple[str, ...] = ()
    site: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    temporary: Path | None = None


def of_this_machine(name: str) -> tuple[str, ...]:
    """How to start one of the verifier's own programs where ``/usr`` is this machine's; prlimit may be missing."""
    program = shutil.which(name, path="/usr/bin:/bin") if name == "prlimit" else f"/usr/bin/{name}"
    return (program,) if program else ()


def environment(job: Job) -> dict[str, str]:
    """The complete environment of ``job``; nothing of the verifier's own."""
    return _ENVIRONMENT | dict(job.environment)


def payload(
    command: tuple[str, ...], variables: Mapping[str, str], helper: Helper = of_this_machine
) -> tuple[str, ...]:
    """The end of every argv: become ``command`` with exactly ``variables``.

    Nothing before it sees them. With ``LD_PRELOAD`` a variable is foreign code, and that must find
    all limits in force (docs/adr/0006).
    """
    # env would take a program with "=" in its name for one more variable.
    odd = any("=" in word for word in command[:1])
    run = (*helper("nice"), "-n", "0", "--") if odd else ()
    given = (f"{name}={value}" for name, value in variables.items())
    return (*helper("env"), "-i", "--", *given, *run, *command)


def unfit(job: Job) -> str:
    """Why no process can be given the command and the environment of ``job``; empty if one can."""
    if not job.command or not job.command[0]:
        return "the command is empty"
    for name in job.environment:
        if not name or "=" in name:
            return f"{name!r} cannot be the name of an environment variable"
    named = {f"the value of {name!r}": value for name, value in job.environment.items()}
    named |= {f"the name {name!r}": name for name in job.environment}
    named |= {f"word {i} of the command": word for i, word in enumerate(job.command)}
    named["the working folder"] = str(job.working_directory)
    for what, text in named.items():
        if "\0" in text:
            return f"{what} holds a NUL character"
        try:
            text.encode()
        except UnicodeEncodeError:
            return f"{what} is no Unicode text"
    return ""


def prlimit(wanted: Mapping[str, int], helper: Helper = of_this_machine) -> tuple[str, ...]:
    """The command prefix that sets resource limits; empty where there is no prlimit."""
    program = helper("prlimit")
    if not program:
        return ()
    return (*program, *(f"--{name}={value}:{value}" for name, value in wanted.items()), "--")


def rlimits(limits: Limits, *, memory: bool) -> tuple[str, ...]:
    """The prefix for the limits of each single process."""
    wanted = {"cpu": limits.cpu_seconds, "fsize": limits.file_bytes, "core": 0}
    return prlimit(wanted | ({"as": limits.memory_bytes} if memory else {}))


def could_not_start(detail: str) -> Outcome:
    """The outcome of a job that never ran."""
    return Outcome(
        exit_code=None,
        ended="could not start",
        wall_seconds=0.0,
        cpu_seconds=None,
        peak_memory_bytes=None,
        detail=detail,
    )


def supervise(
    launch: Launch, job: Job, group: cgroups.Cgroup | None, on_output: OnOutput | None
) -> Outcome:
    """Run ``launch`` under a keeper until it ends or breaks a limit and all of it is dead."""
    if problem := unfit(job):
        return could_not_start(problem)
    try:
        places = _places(job, launch.temporary)
    except OSError as error:
        return could_not_start(f"the working folder cannot be measured: {error}")
    begun = time.monotonic()
    reading, writing = os.pipe()
    # Above the keeper's START_FD, which would overwrite it.
    report_in, report_out = map(keeper.away_from_start_fd, os.pipe())
    try:
        process = _start(launch, group, writing, report_out)
    except OSError as error:
        _close(reading, writing, report_in, report_out)
        return could_not_start(str(error))
    _close(writing, report_out)
    watch = _Watch(process, job, places, on_output, begun)
    try:
        report = watch.until_end(reading, report_in)
    finally:
        _end(process, group)
        _close(reading, report_in)
    return _outcome(watch, report, group, time.monotonic() - begun)


def _start(
    launch: Launch, group: cgroups.Cgroup | None, log: int, report: int
) -> subprocess.Popen[bytes]:
    spec = {
        "argv": launch.argv,
        "cwd": str(launch.folder),
        "fds": launch.fds,
        "marked": launch.marked,
        "site": launch.site,
        "options": dict(launch.options),
        "cgroup": [str(path) for path in group.joins] if group else [],
        "report": report,
        "parent": os.getpid(),
    }
    return subprocess.Popen(
        [*launch.prefix, sys.executable, "-I", "-S", keeper.__file__, json.dumps(spec)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={},
        cwd="/",
        pass_fds=(*launch.fds, report),
        start_new_session=True,
    )


def _close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


def _end(process: subprocess.Popen[bytes], group: cgroups.Cgroup | None) -> None:
    """Leave nothing alive, whatever happened to us: first the job, then its keeper.

    Should the keeper have been killed, what it kept is no descendant of ours any more; the cgroup
    still knows it.
    """
    if process.poll() is None:
        keeper.sweep(process.pid)
        process.kill()
    process.wait()
    if group:
        group.kill()


class _Watch:
    """One running job: its log, its clock and the size of its output."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        job: Job,
        places: _Places,
        on_output: OnOutput | None,
        begun: float,
    ) -> None:
        self.ended: Ended | None = None
        self.detail = ""
        self.tail = b""
        self._process = process
        self._job = job
        self._places = places
        self._on_output = on_output
        self._deadline = begun + job.limits.wall_seconds
        self._logged = 0
        self._next_measure = 0.0
        self._give_up: float | None = None
        # Deleted files that are still open are in no folder; only the file system's total shows
        # them. Half of what is free now, at most a GiB, stays free.
        self._reserve = min(1 << 30, _free(job.output) // 2)

    def until_end(self, reading: int, report_in: int) -> dict[str, Any]:
        """Return the keeper's report, or {} if it died without one."""
        report = b""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        log = os.open(self._job.log, flags, 0o644)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(reading, selectors.EVENT_READ)
                selector.register(report_in, selectors.EVENT_READ)
                while True:
                    for key, _ in selector.select(TICK):
                        if key.fd == reading:
                            if not self._drain(reading, log):
                                selector.unregister(reading)
                            continue
                        chunk = os.read(report_in, 65536)
                        report += chunk
                        if not chunk:
                            self._drain_rest(reading, log)
                            return dict(json.loads(report)) if report else {}
                    self._check()
        finally:
            os.close(log)

    def _drain(self, reading: int, log: int) -> bool:
        chunk = os.read(reading, 65536)
        kept = chunk[: max(0, self._job.limits.log_bytes - self._logged)]
        self._logged += len(chunk)
        if kept:
            os.write(log, kept)
            self.tail = (self.tail + kept)[-2000:]
            if self._on_output:
                self._on_output(kept)
        if self._logged > self._job.limits.log_bytes:
            self._stop("log limit", f"more than {self._job.limits.log_bytes} bytes of output text")
        return bool(chunk)

    def _drain_rest(self, reading: int, log: int) -> None:
        os.set_blocking(reading, False)
        with contextlib.suppress(BlockingIOError):
            while self._drain(reading, log):
                pass

    def _check(self) -> None:
        now = time.monotonic()
        if self.ended:
            self._insist(now)
            return
        limits = self._job.limits
        if now > self._deadline:
            self._stop("timed out", f"still running after {limits.wall_seconds:g} s")
        elif now > self._next_measure:
            problem = self.measure()
            if not problem and _free(self._job.output) < self._reserve:
                problem = "the file system of the output is almost full"
            if problem:
                self._stop("output limit", problem)
            self._next_measure = now + _MEASURE_PAUSE * (time.monotonic() - now)

    def measure(self) -> str:
        """Say where the job left more than it may, and what, or ""."""
        limits = self._job.limits
        for place, (folders, given) in self._places.items():
            problem = excess(
                *folders, max_bytes=limits.output_bytes, max_files=limits.output_files, given=given
            )
            if problem:
                return f"{place}: {problem}"
        return ""

    def _stop(self, ended: Ended, detail: str) -> None:
        if self.ended is None:
            self.ended, self.detail = ended, detail
            self._give_up = time.monotonic() + _GRACE
            keeper.sweep(self._process.pid)

    def _insist(self, now: float) -> None:
        """Sweep again (the keeper may only now have started the job) and at last end the keeper."""
        keeper.sweep(self._process.pid)
        if self._give_up is not None and now > self._give_up:
            self._process.kill()


def _places(job: Job, temporary: Path | None) -> _Places:
    """What to measure under one limit: by its name inside, the folders and what they hold already."""
    places: _Places
    if job.workspace is None:
        places = {str(OUT): ((job.output,), Size())}
    else:
        # One after the other each could be within its limit; only their total is the job's disk.
        name = f"{OUT} and {job.working_directory}"
        places = {name: ((job.output, job.workspace), size(job.workspace))}
    return places | ({"/tmp": ((temporary,), Size())} if temporary else {})  # noqa: S108


def _free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _outcome(
    watch: _Watch, report: dict[str, Any], group: cgroups.Cgroup | None, wall: float
) -> Outcome:
    code = report.get("code")
    ended, detail = watch.ended, watch.detail
    if ended is not None:
        code = None
    elif not report:
        ended, detail = "killed", "the process that watches over the job was killed"
    elif not report["started"]:
        code, ended = None, "could not start"
        detail = report["error"] or watch.tail.decode("utf-8", "replace").strip() or "no message"
    elif code is not None and code > 128:
        ended, detail = "killed", _signal_name(code - 128)
    elif problem := watch.measure():  # done after the last look at it, with the job's last breath
        code, ended, detail = None, "output limit", problem
    else:
        ended = "exited"
    if group and group.out_of_memory():
        detail = "; ".join(filter(None, [detail, "the memory limit was reached"]))
    cpu = group.cpu_seconds() if group else None
    return Outcome(
        exit_code=code,
        ended=ended,
        wall_seconds=wall,
        cpu_seconds=report.get("cpu") if cpu is None else cpu,
        peak_memory_bytes=report.get("memory"),
        detail=detail,
    )


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"exit status {128 + number}"
