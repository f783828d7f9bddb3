"""Whether an experiment of MLflow's file store is what it was: one digest over its files' sizes and times of change."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path

_MODELS = "models"
_UNREAD = {"traces"}


def state_of(experiment: Path) -> bytes:
    """A digest of what is read of ``experiment``: descriptions, parameters, tags and metrics of all its runs.

    It costs one look at each file, opens none, and keeps nothing. Artefacts are not in it: they are read, and held
    against their digests, later than this. What cannot be looked at is left to who reads it.
    """
    digest = blake2b(digest_size=16)
    waiting: list[tuple[str, tuple[str, ...]]] = [(os.fspath(experiment), ())]
    while waiting:
        folder, names = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda each: each.name)
            for entry in entries:
                inner = (*names, entry.name)
                is_folder = entry.is_dir(follow_symlinks=False)
                if is_folder and _is_unread(inner):
                    continue
                digest.update(os.fsencode(entry.path) + b"\0")
                if is_folder:
                    waiting.append((entry.path, inner))
                else:
                    found = entry.stat(follow_symlinks=False)
                    state = found.st_ino, found.st_size, found.st_mtime_ns
                    digest.update(repr(state).encode())
        except OSError as error:
            digest.update(repr(error.errno).encode())
    return digest.digest()


def _is_unread(names: tuple[str, ...]) -> bool:
    """Whether the folder ``names`` of an experiment holds artefacts, or what no run has."""
    if len(names) == 1:
        return names[0] in _UNREAD
    depth = 3 if names[0] == _MODELS else 2
    return len(names) == depth and names[-1] == "artifacts"
