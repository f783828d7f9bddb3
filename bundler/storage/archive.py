"""A bag that is one file: uncompressed ustar (POSIX.1-1988) in its one deterministic form.

Each header is rebuilt from the name and size that it gives and compared whole. So there is no room for links,
modes, owners, extensions or a second reading.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from bundler.errors import MalformedError
from bundler.report import Finding
from bundler.storage.model import Entry, Limits, name_problems, shown

BLOCK = tarfile.BLOCKSIZE
END = b"\0" * (2 * BLOCK)

MAX_MEMBER = 8**11 - 1
"""Largest file that a ustar header can describe: 8 GiB - 1."""


def member_header(path: str, size: int) -> bytes:
    """Return the 512 header bytes of a member: mode 0644, no owner, time 0.

    Raises :class:`MalformedError` (``archive-member``) for a name or size that ustar cannot carry.
    """
    member = tarfile.TarInfo(path)
    member.size = size
    member.mode = 0o644
    try:
        return member.tobuf(tarfile.USTAR_FORMAT, encoding="ascii", errors="strict")
    except (ValueError, UnicodeError) as error:
        raise MalformedError("archive-member", f"{path}: {error}") from None


class ArchiveBag:
    """A bag inside the tar file ``path``."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.name = path.name.removesuffix(".tar")
        self._path = path
        self._limits = limits
        # path → (offset of the first byte, size)
        self._members: dict[str, tuple[int, int]] = {}
        try:
            with _open(path) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise MalformedError("bundle-kind", f"{path} is neither a folder nor a file")
                self._identity = _identity(file)
                self._scan(file, status.st_size)
        except OSError as error:
            raise MalformedError("bundle-unreadable", f"{path}: {error.strerror}") from None

    def entries(self) -> tuple[Entry, ...]:
        """All members, sorted by path."""
        return tuple(Entry(path=path, size=size) for path, (_, size) in self._members.items())

    def problems(self) -> tuple[Finding, ...]:
        """Unsafe names. Anything else that is wrong with an archive makes it unreadable."""
        return name_problems(list(self._members))

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """Open a member."""
        offset, size = self._members[path]
        try:
            with _open(self._path) as file:
                self._check_unchanged(file)
                file.seek(offset)
                # BufferedReader and BytesIO are BinaryIO in all that is used here; typeshed keeps them apart.
                yield cast(BinaryIO, io.BufferedReader(_Window(file, size), 1 << 18))
                self._check_unchanged(file)
        except OSError as error:
            raise MalformedError("file-unreadable", f"{self._path}: {error.strerror}") from None

    def _check_unchanged(self, file: BinaryIO) -> None:
        if _identity(file) != self._identity:
            raise MalformedError("file-changed", f"{self._path}: changed while it was being read")

    def _scan(self, file: BinaryIO, length: int) -> None:
        offset = total = 0
        while True:
            header = file.read(BLOCK)
            if header == END[:BLOCK]:
                break
            path, size = self._read_header(header, offset)
            offset += BLOCK
            self._members[path] = (offset, size)
            total += size
            if len(self._members) > self._limits.files or total > self._limits.total:
                raise MalformedError("bundle-too-large", f"{self._path}: more than the limit")
            padding = -size % BLOCK
            offset += size + padding
            if offset > length:
                raise MalformedError("archive-truncated", f"{self._path}: {shown(path)} is cut off")
            file.seek(offset - padding)
            if file.read(padding).strip(b"\0"):
                raise MalformedError("archive-padding", f"{self._path}: bytes behind {shown(path)}")
        if file.read(BLOCK + 1) != END[BLOCK:]:
            raise MalformedError(
                "archive-trailing", f"{self._path}: bytes after the end of the archive"
            )

    def _read_header(self, header: bytes, offset: int) -> tuple[str, int]:
        try:
            member = tarfile.TarInfo.frombuf(header, "ascii", "strict")
            genuine = member_header(member.name, member.size) == header
        except (tarfile.HeaderError, UnicodeError, MalformedError):
            genuine = False
        if not genuine:
            raise MalformedError(
                "archive-member",
                f"{self._path}: byte {offset} does not begin a plain ustar member"
                " (a bundle is a folder, or an uncompressed tar that build-bundle --tar wrote)",
            )
        last = next(reversed(self._members), "")
        if member.name <= last:
            raise MalformedError(
                "archive-order",
                f"{self._path}: {shown(member.name)} after {shown(last)}: twice or not sorted",
            )
        return member.name, member.size


class _Window(io.RawIOBase):
    """The next ``size`` bytes of a file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)[: self._left]  # type: ignore[arg-type]  # typeshed's Buffer is 3.12+
        count = self._file.readinto(view)  # type: ignore[attr-defined]  # BinaryIO lacks readinto
        self._left -= count
        return int(count)


def _open(path: Path) -> BinaryIO:
    # O_NONBLOCK, so that a FIFO put in the file's place cannot hang the reader.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.fdopen(descriptor, "rb")


def _identity(file: BinaryIO) -> tuple[int, int, int, int, int]:
    status = os.fstat(file.fileno())
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
