"""What a sandboxed job is, what it may use and what really confined it: words, no machinery."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

Ended = Literal["exited", "killed", "timed out", "output limit", "log limit", "could not start"]
Preference = Literal["auto", "bubblewrap", "sandlock", "none"]
OnOutput = Callable[[bytes], None]

OUT = PurePosixPath("/out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that one job may use; which of them a machine can enforce, :class:`Isolation` says.

    ``wall_seconds`` is elapsed time and ``cpu_seconds`` the CPU time of any single process, both in
    seconds. ``memory_bytes`` is for the job as a whole where a cgroup can be made, otherwise for
    each process. ``processes`` counts processes *and threads*. ``file_bytes`` is the size of one
    file, ``output_bytes`` and ``output_files`` are totals over ``/out`` and what the job adds to its
    workspace (folders count as files; ``output_bytes`` is also the size of ``/tmp``), ``log_bytes``
    caps stdout and stderr together.
    """

    wall_seconds: float = 6 * 3600.0
    cpu_seconds: int = 24 * 3600
    memory_bytes: int = 8 << 30
    processes: int = 512
    file_bytes: int = 4 << 30
    output_bytes: int = 4 << 30
    output_files: int = 10_000
    log_bytes: int = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """Host path ``source`` (folder or file) shown read-only at ``target`` inside.

    A verifier that runs as root drops to uid 65534 for the job, so ``source`` must then be readable
    by everybody (``chmod -R a+rX``); the folders *above* it need not be.
    """

    source: Path
    target: PurePosixPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One untrusted command.

    ``output`` is a host folder, writable inside at ``/out``; it should be empty. ``workspace`` is a
    throw-away host folder, writable inside at ``working_directory`` in place of what a mount has
    there; what it holds at the start is not charged to the limits. The job's user owns both while it
    runs. ``log`` is written by the parent, never by the job. ``environment`` is all the job gets
    besides HOME, TMPDIR, PATH, LANG, USER, LOGNAME and PYTHONDONTWRITEBYTECODE, each of which it may
    override. ``interpreter`` is a Python executable whose prefixes (a virtual environment and its
    base) are shown read-only at their own paths; ``None`` when ``command`` needs only ``/usr``.
    ``root`` is an unpacked root file system that is shown, read-only, instead of this machine's programs and libraries;
    where a mount, ``/out`` or ``/tmp`` has a name that it has too, it is hidden. ``gpus`` shows the NVIDIA devices of
    this machine, whose driver then is within reach of the job. Both need bubblewrap.
    """

    command: tuple[str, ...]
    working_directory: PurePosixPath
    mounts: tuple[Mount, ...]
    output: Path
    workspace: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    log: Path
    interpreter: Path | None = None
    root: Path | None = None
    gpus: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One attempt, made inside the sandbox, at something that must fail there."""

    name: str
    blocked: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What really confined a job, as measured by the self-test; it goes into the signed verdict.

    ``network`` is true when the network is isolated. ``limits_applied`` names fields of
    :class:`Limits`, each with its mechanism in brackets; ``limits_missing`` names the fields that
    nothing enforces on this machine. ``probes`` is empty only for kind ``none``, which confines
    nothing.
    """

    kind: str
    version: str
    user: str
    network: bool
    seccomp: bool
    landlock: bool
    limits_applied: tuple[str, ...]
    limits_missing: tuple[str, ...]
    probes: tuple[Probe, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job ended; anything but ``exited`` with code 0 makes a verification inconclusive.

    ``exit_code`` is 128 + the signal when ``ended`` is ``killed``, and ``None`` when the parent
    ended the job or it never started. ``cpu_seconds`` is for the whole process tree,
    ``peak_memory_bytes`` the largest resident set of any one process of it, ``detail`` for people.
    """

    exit_code: int | None
    ended: Ended
    wall_seconds: float
    cpu_seconds: float | None
    peak_memory_bytes: int | None
    detail: str = ""


class Sandbox(Protocol):
    """A way to run a job confined."""

    @property
    def kind(self) -> str:
        """``bubblewrap``, ``sandlock`` or ``none``."""

    def isolation(self, limits: Limits, *, gpus: bool = False) -> Isolation:
        """Run the self-test inside the sandbox, with the devices of ``gpus`` if the job has them, and say what applied.

        It runs with this machine's interpreter, also for a job in an image: what an image would say of itself is worth
        nothing, and all but the content of ``/`` is the same. Raises
        :class:`bundler.errors.SandboxUnavailableError` naming each required probe that was not blocked.
        """

    def run(self, job: Job, *, on_output: OnOutput | None = None) -> Outcome:
        """Run ``job`` to its end and return how it ended; ``on_output`` sees each chunk of its log.

        An exception from ``on_output`` kills the job and propagates. Raises
        :class:`bundler.errors.UsageError` for a job that cannot be meant (relative mount targets), and
        :class:`bundler.errors.SandboxUnavailableError` for one that needs another kind of sandbox.
        """
