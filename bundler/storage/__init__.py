"""Bags on disk: reading them as hostile, writing them so that nothing half-made looks whole."""

from __future__ import annotations

import stat
from pathlib import Path

from bundler.errors import MalformedError
from bundler.storage.archive import ArchiveBag
from bundler.storage.directory import DirectoryBag
from bundler.storage.model import Bag, Entry, Limits, MemoryBag

__all__ = ["ArchiveBag", "Bag", "DirectoryBag", "Entry", "Limits", "MemoryBag", "open_bag"]


def open_bag(path: Path, limits: Limits | None = None) -> Bag:
    """Open the bundle at ``path``, a folder or one tar file.

    Raises :class:`MalformedError`: ``bundle-missing``, ``bundle-unreadable``, ``bundle-symlink``, ``bundle-kind``, or
    what the kind of bag demands.
    """
    limits = limits or Limits()
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise MalformedError(
            "bundle-missing", f"{path} does not exist", remedy="Check the path."
        ) from None
    except OSError as error:
        raise MalformedError("bundle-unreadable", f"{path}: {error.strerror}") from None
    if stat.S_ISLNK(mode):
        raise MalformedError(
            "bundle-symlink", f"{path} is a symbolic link", remedy="Name its target."
        )
    if stat.S_ISDIR(mode):
        return DirectoryBag(path, limits)
    if stat.S_ISREG(mode):
        return ArchiveBag(path, limits)
    raise MalformedError("bundle-kind", f"{path} is neither a folder nor a file")
