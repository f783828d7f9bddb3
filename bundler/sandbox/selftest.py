"""The self-test: tempt the sandbox from both sides and believe only what was measured."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from bundler.errors import SandboxUnavailableError
from bundler.sandbox import interpreter, probe, process
from bundler.sandbox.gpus import devices
from bundler.sandbox.model import Job, Limits, Mount, OnOutput, Outcome, Probe
from bundler.sandbox.removal import remove

# RFC 5737, TEST-NET-1: routed nowhere, so that a leak would reach nobody.
_OUTSIDE = "192.0.2.1"
PARENT_LIMITS = ("wall_seconds", "output_bytes", "output_files", "log_bytes")
_UNWRITABLE = (
    *("/", "/usr", "/etc", "/dev", "/var/tmp"),  # noqa: S108
    *("/bundle", "/bundle/data", "/bundle/data/inputs", "/bundle/data/code/.."),
)
_HARMLESS = ("LC_CTYPE",)  # set by Python itself; it carries nothing of the verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the probe found: its attempts, the limits in force and the seccomp mode."""

    probes: tuple[Probe, ...]
    applied: tuple[str, ...]
    missing: tuple[str, ...]
    seccomp: bool


def measure(
    kind: str,
    run: Callable[..., Outcome],
    limits: Limits,
    *,
    elsewhere: dict[str, str],
    gpus: bool = False,
) -> Measured:
    """Run the probe through ``run``, with the devices of ``gpus`` if the job shall have them, and judge it.

    ``elsewhere`` maps limits to the mechanism (a cgroup, the sandbox's supervisor) that enforces
    them where the probe cannot see it. Raises :class:`SandboxUnavailableError`.
    """
    text = bytearray()
    with _temptations(limits) as (job, plan):
        source = Path(probe.__file__).read_text("utf-8")
        python = str(job.interpreter)
        command = (python, "-I", "-S", "-c", source, json.dumps(plan))
        on_output: OnOutput = text.extend
        outcome = run(replace(job, command=command, gpus=gpus), on_output=on_output)
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if outcome.ended != "exited" or outcome.exit_code != 0 or found is None:
        heard = text.decode("utf-8", "replace").strip()[-500:]
        raise SandboxUnavailableError(
            f"{kind}: the self-test {outcome.ended}: {outcome.detail or heard or 'no answer'}",
            remedy="Check that the limits leave room for a Python interpreter.",
        )
    probes = tuple(Probe(**entry) for entry in found["probes"])
    failed = [p for p in probes if p.name in probe.REQUIRED and not p.blocked]
    if failed:
        names = "; ".join(f"{p.name} ({p.detail})" for p in failed)
        raise SandboxUnavailableError(
            f"{kind}: the self-test got through the sandbox: {names}",
            remedy="Do not run untrusted code here; use another sandbox or a throw-away machine.",
        )
    applied, missing = _limits(limits, found, elsewhere)
    seccomp = found["status"]["Seccomp"] == "2"
    return Measured(probes=probes, applied=applied, missing=missing, seccomp=seccomp)


def _limits(
    limits: Limits, found: dict[str, Any], elsewhere: dict[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    applied = dict.fromkeys(PARENT_LIMITS, "verifier")
    for name, value in found["rlimits"].items():
        if value == getattr(limits, name) and (name != "processes" or found["processes"]):
            applied[name] = "rlimit, each process" if name != "processes" else "rlimit"
    for name, mechanism in elsewhere.items():
        applied[name] = ", ".join(filter(None, [mechanism, applied.get(name, "")]))
    names = [name for name in Limits.__slots__ if name in applied]
    missing = tuple(name for name in Limits.__slots__ if name not in applied)
    return tuple(f"{name} ({applied[name]})" for name in names), missing


@contextmanager
def _temptations(limits: Limits) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Put up listeners and a canary, and describe them and the job that goes for them."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(_world_readable_folder()))
        # As in a re-run: a bundle that is only to be read, and within it the working folder.
        for name in (
            "out",
            "code",
            "bundle",
            "bundle/data",
            "bundle/data/code",
            "bundle/data/inputs",
        ):
            (folder / name).mkdir()
            (folder / name).chmod(0o755)
        (folder / "canary").write_text(secrets.token_hex())
        (folder / "canary").chmod(0o644)
        lures = [
            _lure(stack, place) for place in dict.fromkeys(_SHARED) if os.access(place, os.W_OK)
        ]
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        name = f"aisdp-{secrets.token_hex(8)}"
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind("\0" + name)
        abstract.listen()
        job = Job(
            command=(),
            working_directory=PurePosixPath("/bundle/data/code"),
            mounts=(Mount(source=folder / "bundle", target=PurePosixPath("/bundle")),),
            output=folder / "out",
            workspace=folder / "code",
            limits=replace(
                limits,
                wall_seconds=30.0,
                log_bytes=1 << 20,
                output_files=max(10, limits.output_files),
            ),
            log=folder / "log",
            interpreter=Path(sys.executable),
        )
        home = Path.home()
        plan = {
            "outside": _OUTSIDE,
            "port": listener.getsockname()[1],
            "abstract": name,
            "canary": str(folder / "canary"),
            "home": str(home),
            "given": _given(home),
            "variables": [*process.environment(job), *_HARMLESS],
            "unwritable": [*_UNWRITABLE, str(home), str(folder), str(folder / "bundle/data/code")],
            "temporary": lures,
            "devices": [str(path) for path in devices()],
            "pid": os.getpid(),
            "start": _start_time(),
        }
        yield job, plan


_SHARED = ("/tmp", "/dev/shm", tempfile.gettempdir())  # noqa: S108
"""Where this machine and a sandbox both have a folder, each its own."""


def _lure(stack: ExitStack, place: str) -> str:
    """A file in ``place`` that anybody may change, in a folder that is removed afterwards."""
    folder = tempfile.mkdtemp(prefix="aisdp-lure-", dir=place)
    stack.callback(remove, Path(folder))
    Path(folder).chmod(0o777)
    lure = Path(folder, "file")
    lure.write_text("x")
    lure.chmod(0o666)
    return str(lure)


@contextmanager
def _world_readable_folder() -> Iterator[str]:
    # Not /tmp, which each sandbox replaces: the canary shall lie where only confinement hides it.
    place = "/var/tmp" if os.access("/var/tmp", os.W_OK) else None  # noqa: S108
    folder = tempfile.mkdtemp(prefix="aisdp-selftest-", dir=place)
    try:
        # The job may be another user; only the sandbox, not the file mode, must keep it out.
        Path(folder).chmod(0o755)
        yield folder
    finally:
        remove(Path(folder))


def _given(home: Path) -> list[str]:
    """The names in ``home`` on the way to the interpreter, which the job does get to see."""
    shown = interpreter.prefixes(Path(sys.executable))
    return sorted({p.relative_to(home).parts[0] for p in shown if p.is_relative_to(home)})


def _start_time() -> int:
    return int(Path("/proc/self/stat").read_bytes().rpartition(b") ")[2].split()[19])
