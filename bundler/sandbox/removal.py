"""Removing what a job left: any depth, any modes, and never an error."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    """A folder on the way down: its name in the one above, which folder it is, what is left to enter."""

    name: str
    identity: tuple[int, int]
    folders: list[str] = field(default_factory=list)


def remove(folder: Path) -> None:
    """Remove ``folder`` and what lies below it as far as possible, following no link; never raises OSError.

    No job may run any more. However deep the tree is, two folders are open at a time and Python's
    stack does not grow; folders that their owner may not enter are opened up first.
    """
    with suppress(OSError):
        _empty(_open(str(folder)))
    with suppress(OSError):
        folder.rmdir()


def _empty(fd: int) -> None:
    """Remove everything in the folder ``fd``, and close it."""
    try:
        levels = [_level(fd, "")]
        while levels:
            level = levels[-1]
            if level.folders:
                with suppress(OSError):
                    name = level.folders.pop()
                    fd = _step(fd, name)
                    levels.append(_level(fd, name))
                continue
            levels.pop()
            if levels:
                fd = _step(fd, "..")
                if _identity(fd) != levels[-1].identity:
                    return  # it was moved elsewhere meanwhile, where nothing is ours
                with suppress(OSError):
                    os.rmdir(level.name, dir_fd=fd)
    finally:
        os.close(fd)


def _level(fd: int, name: str) -> _Level:
    """Remove all but the folders in ``fd``."""
    level = _Level(name=name, identity=_identity(fd))
    names = []
    with suppress(OSError):
        names = os.listdir(fd)
    for each in names:
        try:
            os.unlink(each, dir_fd=fd)
        except OSError:  # a folder; anything else cannot be entered either
            level.folders.append(each)
    return level


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _step(fd: int, name: str) -> int:
    """Go from the folder ``fd`` to ``name`` in it."""
    there = _open(name, fd)
    os.close(fd)
    return there


def _open(name: str, above: int | None = None) -> int:
    """Open the folder ``name`` so that it can be listed and emptied."""
    try:
        fd = os.open(name, os.O_RDONLY | _FOLDER, dir_fd=above)
    except PermissionError:
        handle = os.open(name, os.O_PATH | _FOLDER, dir_fd=above)
        try:
            # The one way to change a mode that follows no link and needs no right to read.
            Path(f"/proc/self/fd/{handle}").chmod(stat.S_IRWXU)
        finally:
            os.close(handle)
        fd = os.open(name, os.O_RDONLY | _FOLDER, dir_fd=above)
    with suppress(OSError):
        if os.fstat(fd).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.fchmod(fd, stat.S_IRWXU)
    return fd
