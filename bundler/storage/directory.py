"""A bag that is a folder. It is walked by descriptors; links are never followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from bundler.errors import MalformedError
from bundler.report import Finding
from bundler.storage.model import Entry, Limits, name_problems, shown

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK, so that a FIFO put in a file's place between walk and open cannot hang the reader.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_Identity = tuple[int, int, int, int, int]


class DirectoryBag:
    """A bag below the folder ``root``, walked once when it is opened."""

    def __init__(self, root: Path, limits: Limits) -> None:
        self.name = root.resolve().name
        self._root = root
        self._limits = limits
        self._identities: dict[str, _Identity] = {}
        self._problems: list[Finding] = []
        # Everything with a name, whatever its kind; and the bytes in it.
        self._seen = self._size = 0
        try:
            descriptor = os.open(root, _FOLDER)
            try:
                self._walk(descriptor, "", 1)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise MalformedError("bundle-unreadable", f"{root}: {error.strerror}") from None
        self._problems += name_problems(list(self._identities))

    def entries(self) -> tuple[Entry, ...]:
        """All regular files, sorted by path."""
        return tuple(
            Entry(path=path, size=identity[2])
            for path, identity in sorted(self._identities.items())
        )

    def problems(self) -> tuple[Finding, ...]:
        """Links, devices, empty folders, unsafe names."""
        return tuple(self._problems)

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """Open the file that the walk saw, and see on closing that it is still the same."""
        with self._open_folder_of(path) as (folder, leaf):
            try:
                descriptor = os.open(leaf, _FILE, dir_fd=folder)
            except OSError as error:
                raise MalformedError("file-unreadable", f"{path}: {error.strerror}") from None
        with os.fdopen(descriptor, "rb") as file:
            self._check_unchanged(path, descriptor)
            try:
                yield file
            except OSError as error:
                raise MalformedError("file-unreadable", f"{path}: {error.strerror}") from None
            self._check_unchanged(path, descriptor)

    @contextmanager
    def _open_folder_of(self, path: str) -> Iterator[tuple[int, str]]:
        """Descend part by part, so that a folder swapped for a link is refused as well."""
        *folders, leaf = path.split("/")
        with ExitStack() as opened:

            def enter(part: str, inside: int | None = None) -> int:
                try:
                    descriptor = os.open(part, _FOLDER, dir_fd=inside)
                except OSError as error:
                    raise MalformedError("file-changed", f"{path}: {error.strerror}") from None
                opened.callback(os.close, descriptor)
                return descriptor

            folder = enter(str(self._root))
            for part in folders:
                folder = enter(part, folder)
            yield folder, leaf

    def _check_unchanged(self, path: str, descriptor: int) -> None:
        if _identity(os.fstat(descriptor)) != self._identities[path]:
            raise MalformedError("file-changed", f"{path}: changed while it was being read")

    def _walk(self, folder: int, prefix: str, depth: int) -> None:
        if depth > self._limits.depth:
            self._problem("path-depth", prefix, f"folders nested deeper than {self._limits.depth}")
            return
        names = sorted(os.listdir(folder))
        if not names:
            self._problem("folder-empty", prefix or ".", "a bag holds no empty folders")
        self._seen += len(names)
        if self._seen > self._limits.files:
            raise MalformedError("bundle-too-large", f"more than {self._limits.files} files")
        for name in names:
            try:
                self._visit(folder, prefix + name, name, depth)
            except OSError as error:
                self._problem("file-unreadable", prefix + name, error.strerror or str(error))

    def _visit(self, folder: int, path: str, name: str, depth: int) -> None:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            inner = os.open(name, _FOLDER, dir_fd=folder)
            try:
                self._walk(inner, path + "/", depth + 1)
            finally:
                os.close(inner)
        elif stat.S_ISLNK(status.st_mode):
            self._problem("file-symlink", path, "is a symbolic link")
        elif not stat.S_ISREG(status.st_mode):
            self._problem("file-special", path, "is a FIFO, socket or device")
        elif status.st_nlink > 1:
            self._problem("file-hardlink", path, f"has {status.st_nlink} names (hard links)")
        else:
            self._identities[path] = _identity(status)
            self._size += status.st_size
            if self._size > self._limits.total:
                raise MalformedError("bundle-too-large", f"more than {self._limits.total} bytes")

    def _problem(self, code: str, path: str, message: str) -> None:
        self._problems.append(
            Finding(code=code, severity="error", subject=shown(path), message=message)
        )


def _identity(status: os.stat_result) -> _Identity:
    # The time of change as well: that of modification can be set back by whoever owns the file.
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
