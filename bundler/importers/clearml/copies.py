"""A session's folder beside the zip file that ClearML made of it: whether the two say the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundler.errors import SourceError, quoted
from bundler.importers.clearml import store as clearml_store
from bundler.importers.clearml import values as clearml_values
from bundler.importers.clearml.store import MAX_EVENTS, METRICS, TASK, Files
from bundler.importers.values import Flag

_FINAL = {"finished", "failed", "killed"}


def compare(task: Mapping[str, Any], files: Files, copy: Path, folder: Path, flag: Flag) -> None:
    """Hold the session with ``task`` and ``files`` against its zip file ``copy``, and flag what that says less.

    ClearML makes the zip file when the task ends, and what is written later is not in it. Raises :class:`SourceError`
    for anything else than less: one of the two is not what ClearML wrote, and nobody can tell which.
    """
    with clearml_store.opened(copy, "archive", folder) as theirs:
        status = clearml_values.status_of(task.get("status"))
        other = clearml_values.status_of(
            clearml_store.read_task(copy, "archive", theirs).get("status")
        )
        if status != other:
            if {status, other} <= _FINAL:
                raise _contradiction(copy, f"the task is {status}, and {other} in the zip file")
            flag("run", "copies_differ", f"{TASK}: {status}, and {other} in the zip file")
        size, digest = _digest(theirs, None)
        ours, beginning = _digest(files, size)
        if ours < size or beginning != digest:
            raise _contradiction(
                copy, f"{METRICS} of the folder does not go on from that of the zip file"
            )
        if ours > size:
            flag(
                "run",
                "copies_differ",
                f"{METRICS}: the zip file lacks the last {ours - size:,} bytes",
            )


def _digest(files: Files, most: int | None) -> tuple[int, bytes]:
    """How many bytes of metrics there are, and the SHA-256 of the first ``most`` of them (``None``: of all)."""
    size, digest = 0, hashlib.sha256()
    for piece in files.chunks(METRICS, limit=MAX_EVENTS) if METRICS in files else ():
        digest.update(piece if most is None else piece[: max(most - size, 0)])
        size += len(piece)
    return size, digest.digest()


def _contradiction(copy: Path, problem: str) -> SourceError:
    return SourceError(
        f"{quoted(str(copy), 200)} and the folder beside it contradict each other: {problem}",
        remedy="Find out which of the two ClearML wrote, and move the other one out of the folder.",
    )
