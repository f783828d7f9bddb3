"""Sandlock (PyPI): Landlock and seccomp, for machines that block user namespaces. Weaker.

There is no network namespace (connections are refused one by one), no pid namespace, no mount
namespace: file names outside the mounts may be listed though not opened, and as root the job keeps
uid 0, without capabilities. It needs Linux 6.12 (Landlock ABI 6).
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from bundler.errors import SandboxUnavailableError
from bundler.sandbox import cgroups, interpreter, process, selftest
from bundler.sandbox.bubblewrap import check_target
from bundler.sandbox.model import OUT, Isolation, Job, Limits, OnOutput, Outcome
from bundler.sandbox.removal import remove

_READABLE = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache",
             "/etc/alternatives", "/proc", "/dev/null", "/dev/zero", "/dev/urandom",
             "/dev/random")  # fmt: skip
_REMEDY = "Install it: pip install aisdp-bundler[sandlock] (needs Linux 6.12 with Landlock)."


class Sandlock:
    """Runs jobs with sandlock; raises :class:`SandboxUnavailableError` where it does not work."""

    kind = "sandlock"

    def __init__(self) -> None:
        spec = importlib.util.find_spec("sandlock")
        if spec is None or spec.origin is None:
            raise SandboxUnavailableError("sandlock: it is not installed", remedy=_REMEDY)
        try:
            library = importlib.import_module("sandlock")
            have, need = library.landlock_abi_version(), library.min_landlock_abi()
        except Exception as error:
            raise SandboxUnavailableError(
                f"sandlock: it cannot be loaded: {error}", remedy=_REMEDY
            ) from error
        if have < need:
            raise SandboxUnavailableError(
                f"sandlock: the kernel offers Landlock ABI {max(have, 0)}, {need} is needed",
                remedy="Use Linux 6.12 or later with landlock among the active security modules.",
            )
        self.version = str(library.__version__)
        self._site = str(Path(spec.origin).parent.parent)
        root = os.geteuid() == 0
        self._setpriv = shutil.which("setpriv") if root else None
        if root and self._setpriv is None:
            raise SandboxUnavailableError(
                "sandlock: setpriv is not on PATH, so root's capabilities cannot be dropped",
                remedy="Install util-linux, or verify as an ordinary user.",
            )
        group = cgroups.create(1 << 30, 64)
        self._mechanism = f"cgroup v{group.version}" if "memory" in group.folders else "sandlock"
        group.remove()

    def isolation(self, limits: Limits, *, gpus: bool = False) -> Isolation:
        """See :class:`bundler.sandbox.model.Sandbox`."""
        _check(image=False, gpus=gpus)
        elsewhere = {"memory_bytes": self._mechanism, "processes": "sandlock"}
        found = selftest.measure(self.kind, self.run, limits, elsewhere=elsewhere)
        uid = os.geteuid()
        return Isolation(
            kind=self.kind,
            version=self.version,
            user="uid 0 (root, without capabilities)" if uid == 0 else f"uid {uid}",
            network=False,  # connections are refused, but it is the host's network stack
            seccomp=found.seccomp,
            landlock=True,  # sandlock refuses to start without it, and the canary was unreadable
            limits_applied=found.applied,
            limits_missing=found.missing,
            probes=found.probes,
        )

    def run(self, job: Job, *, on_output: OnOutput | None = None) -> Outcome:
        """See :class:`bundler.sandbox.model.Sandbox`."""
        _check(image=job.root is not None, gpus=job.gpus)
        job.output.mkdir(parents=True, exist_ok=True)
        group = cgroups.create(job.limits.memory_bytes, job.limits.processes)
        # No tmpfs without a mount namespace: a real folder, which the watch measures like /out.
        temporary = Path(tempfile.mkdtemp(prefix="aisdp-sandbox-"))
        try:
            exposed = next(filter(os.path.lexists, _writable(job, temporary)), None)
            if exposed is not None:
                return process.could_not_start(
                    f"this machine has {exposed}, which sandlock would open to the job; use bubblewrap"
                )
            if self._mechanism != "sandlock" and "memory" not in group.folders:
                return process.could_not_start("the cgroup for the job could not be made")
            launch = process.Launch(
                argv=_command(job),
                prefix=self._prefix(),
                site=self._site,
                options=_options(job, temporary, own_memory=self._mechanism == "sandlock"),
                temporary=temporary,
            )
            return process.supervise(launch, job, group, on_output)
        finally:
            group.remove()
            remove(temporary)

    def _prefix(self) -> tuple[str, ...]:
        if self._setpriv is None:
            return ()
        return (self._setpriv, "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")


def _check(*, image: bool, gpus: bool) -> None:
    what = "the root file system of an image" if image else "a GPU" if gpus else ""
    if what:
        raise SandboxUnavailableError(
            f"sandlock: it cannot give a job {what}",
            remedy="Use bubblewrap (--sandbox bubblewrap), which can.",
        )


SCRATCH = "/scratch"
"""Where a job has its temporary folder.

Sandlock 0.9 lets a job rename, unlink, truncate, link and the like at the *host's* path of each writable folder that it
shows in another place. So none is shown at a path that this machine has: no /tmp, and no /dev/shm either.
"""


def _command(job: Job) -> tuple[str, ...]:
    variables = {
        name: SCRATCH if value == "/tmp" else value  # noqa: S108
        for name, value in process.environment(job).items()
    }
    # The working folder exists only in sandlock's view of paths, so a shell inside goes there.
    go = ("/bin/sh", "-c", 'cd -- "$0" && exec "$@"', str(job.working_directory))
    return (
        *go,
        *process.rlimits(job.limits, memory=False),
        *process.payload(job.command, variables),
    )


def _shown(job: Job) -> dict[str, str]:
    """Map what is shown read-only to its source, leaving out the place of the workspace."""
    hole = job.working_directory if job.workspace is not None else None
    shown: dict[str, str] = {}
    for mount in job.mounts:
        shown |= _around(hole, check_target(mount.target), mount.source.resolve())
    return shown


def _around(hole: PurePosixPath | None, target: PurePosixPath, source: Path) -> dict[str, str]:
    # Sandlock lets nobody write below a read-only mount, whatever is mounted there: so what lies
    # beside the hole is shown piece by piece, and the folders above it have no listing.
    if hole is None or not hole.is_relative_to(target):
        return {str(target): str(source)}
    pieces: dict[str, str] = {}
    for entry in sorted(source.iterdir()) if hole != target else ():
        pieces |= _around(hole, target / entry.name, entry)
    return pieces


def _writable(job: Job, temporary: Path) -> dict[str, str]:
    """What the job may write to: the path that it has inside, and the folder on this machine."""
    writable = {str(OUT): str(job.output.resolve()), SCRATCH: str(temporary / "tmp")}
    if job.workspace is not None:
        writable[str(check_target(job.working_directory))] = str(job.workspace.resolve())
    return writable


def _options(job: Job, temporary: Path, *, own_memory: bool) -> dict[str, Any]:
    shown = _shown(job)
    prefixes = interpreter.prefixes(job.interpreter) if job.interpreter else {}
    python = {str(path): str(source) for path, source in prefixes.items() if path != source}
    readable = [*_READABLE, *shown, *map(str, prefixes)]
    (temporary / "tmp").mkdir()
    writable = _writable(job, temporary)
    return {
        "chroot": "/",
        "cwd": "/",
        "fs_mount": writable,
        "fs_mount_ro": shown | python,
        "fs_readable": [path for path in readable if path in shown or Path(path).exists()],
        "fs_writable": [*writable, "/dev/null"],
        "clean_env": True,
        "max_processes": job.limits.processes,
        "max_memory": job.limits.memory_bytes if own_memory else None,
        "no_coredump": True,
    }
