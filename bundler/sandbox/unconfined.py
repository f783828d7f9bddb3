"""No sandbox at all: only for code that the person running the verifier says they trust."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from bundler.errors import SandboxUnavailableError
from bundler.sandbox import process
from bundler.sandbox.bubblewrap import check_target
from bundler.sandbox.model import OUT, Isolation, Job, Limits, OnOutput, Outcome
from bundler.sandbox.removal import remove
from bundler.sandbox.selftest import PARENT_LIMITS


class Unconfined:
    """Runs jobs as the current user; limits are kept, nothing else is.

    There is no mount namespace, so the targets of the mounts and ``/out`` and ``/tmp`` are replaced
    by their host paths in the command and the environment (but not inside the job's own files).
    """

    kind = "none"

    def isolation(self, limits: Limits, *, gpus: bool = False) -> Isolation:
        """Say that nothing isolates; no probe is run, since each would get through."""
        applied = [f"{name} (verifier)" for name in PARENT_LIMITS]
        can = process.rlimits(limits, memory=False)
        rlimited = ("cpu_seconds", "file_bytes") if can else ()
        raised = "; root may raise it" if os.geteuid() == 0 else ""
        applied += [f"{name} (rlimit, each process{raised})" for name in rlimited]
        known = {*PARENT_LIMITS, *rlimited}
        return Isolation(
            kind=self.kind,
            version="",
            user="the verifier's own",
            network=False,
            seccomp=False,
            landlock=False,
            limits_applied=tuple(applied),
            limits_missing=tuple(name for name in Limits.__slots__ if name not in known),
            probes=(),
        )

    def run(self, job: Job, *, on_output: OnOutput | None = None) -> Outcome:
        """See :class:`bundler.sandbox.model.Sandbox`; the devices of ``gpus`` are there anyway."""
        if job.root is not None:
            raise SandboxUnavailableError(
                "none: without a sandbox, no job can have the root file system of an image",
                remedy="Use bubblewrap (--sandbox bubblewrap), which can.",
            )
        job.output.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix="aisdp-unconfined-"))
        try:
            places = {str(check_target(m.target)): m.source.resolve() for m in job.mounts}
            places[str(OUT)] = job.output.resolve()
            if job.workspace is not None:
                places[str(check_target(job.working_directory))] = job.workspace.resolve()
            variables = {
                # Only HOME and TMPDIR are /tmp itself; anything else below it is the host's own.
                name: str(temporary) if value == "/tmp" else _on_host(value, places)  # noqa: S108
                for name, value in process.environment(job).items()
            }
            command = tuple(_on_host(word, places) for word in job.command)
            launch = process.Launch(
                argv=(
                    *process.rlimits(job.limits, memory=False),
                    *process.payload(command, variables),
                ),
                folder=Path(_on_host(str(job.working_directory), places)),
                temporary=temporary,
            )
            return process.supervise(launch, job, None, on_output)
        finally:
            remove(temporary)


def _on_host(text: str, places: dict[str, Path]) -> str:
    """Replace each whole path prefix that names a place inside by its place on the host."""
    longest_first = sorted(places, key=len, reverse=True)
    inside = "|".join(re.escape(place) for place in longest_first)
    pattern = rf"(?:(?<=file://)|(?<![\w./-]))(?:{inside})(?=[/:;,'\"\s]|$)"
    return re.sub(pattern, lambda match: str(places[match.group()]), text)
