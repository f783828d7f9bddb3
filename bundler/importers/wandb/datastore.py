"""The record log that W&B writes (``run-ID.wandb``): frames with checksums in blocks of 32 KiB, as in LevelDB.

Seven bytes of header, then fragments: CRC-32 (zlib's, plain, over type and data; LevelDB has a masked CRC-32C), length
(16 bits), type (whole, first, middle, last), data. No fragment crosses the end of a block.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bundler.errors import SourceError, quoted
from bundler.importers.files import unreadable

HEADER = b":W&B\xe1\xbe\x00"
"""Magic word, check number of W&B, and version 0 of the format: the same from wandb 0.17 to 0.31."""

MAX_RECORD = 128 << 20
"""Most bytes of one record. The largest are manifests of artefacts, which W&B writes elsewhere if they are large."""

_BLOCK = 1 << 15
_CHUNK = 32 * _BLOCK
_FRAGMENT = struct.Struct("<IHB")
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_SEEDS = tuple(zlib.crc32(bytes([kind])) for kind in range(256))
"""The CRC of each type alone: what the CRC of the data goes on from."""


class RecordLog:
    """One file, read anew at each call of :meth:`records`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.truncated: int | None = None
        """Offset from which on the file is cut off, once all records are read; ``None`` if it ends with a record."""

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) of each record.

        A file that ends in the middle, as that of a killed run does, gives what is whole, and says so in
        :attr:`truncated`. Raises :class:`SourceError` with file and offset for anything that was written otherwise.
        """
        self.truncated = None
        try:
            with open(self.path, "rb", opener=_regular) as file:  # Path.open takes no opener
                yield from self._read(file)
        except OSError as error:
            raise unreadable(self.path, error) from None

    def _read(self, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        """Join the fragments of each record."""
        parts: list[bytes] = []
        first = 0
        for offset, kind, body in self._chunks(file):
            if kind == _WHOLE and not parts:
                yield offset, body
                continue
            if kind == _WHOLE or (kind == _FIRST) == bool(parts):
                raise damaged(self.path, offset, "a fragment out of order")
            first = first if parts else offset
            parts.append(body)
            if len(parts) * _BLOCK > MAX_RECORD:
                raise damaged(self.path, first, f"a record of more than {MAX_RECORD:,} bytes")
            if kind == _LAST:
                yield first, b"".join(parts)
                parts = []
        if parts:
            self.truncated = first

    def _chunks(self, file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
        """Yield (offset, type, data) of all fragments."""
        base, position = 0, len(HEADER)
        data = file.read(_CHUNK)
        if data[:position] != HEADER[: len(data)]:
            raise damaged(self.path, 0, "it does not begin as a record log of W&B does")
        if len(data) < position:
            self.truncated = 0
        while data and self.truncated is None:
            yield from self._fragments(file, data, position, base)
            base, position = base + len(data), 0
            # Only the last chunk is short; more may be written meanwhile.
            data = file.read(_CHUNK) if len(data) == _CHUNK else b""

    def _fragments(
        self, file: BinaryIO, data: bytes, position: int, base: int
    ) -> Iterator[tuple[int, int, bytes]]:
        """Yield (offset, type, data) of the fragments of whole blocks; the last block of a file may be short."""
        end = len(data)
        unpack, crc32 = _FRAGMENT.unpack_from, zlib.crc32
        while position < end:
            left = _BLOCK - position % _BLOCK
            if left < 7:
                if data[position : position + left].strip(b"\0"):
                    raise damaged(self.path, base + position, "the end of a block is not empty")
                position += left
                continue
            if end - position < 7:
                self.truncated = base + position
                return
            checksum, length, kind = unpack(data, position)
            stop = position + 7 + length
            body = data[position + 7 : stop]
            if crc32(body, _SEEDS[kind]) != checksum or not _WHOLE <= kind <= _LAST or stop > end:
                self._judge(file, data, position, base)
                return
            if length > left - 7:
                raise damaged(self.path, base + position, "a fragment crosses the end of its block")
            yield base + position, kind, body
            position = stop

    def _judge(self, file: BinaryIO, data: bytes, position: int, base: int) -> None:
        """Tell a file that was cut off from one that was changed: raise :class:`SourceError` for the latter."""
        offset = base + position
        checksum, length, kind = _FRAGMENT.unpack_from(data, position)
        rest = data[position:]
        if not rest.strip(b"\0") and not any(
            piece.strip(b"\0") for piece in iter(lambda: file.read(_CHUNK), b"")
        ):
            # A file system that had given the file its length, and was not given its content.
            self.truncated = offset
            return
        fits = length <= _BLOCK - position % _BLOCK - 7
        if not (fits and _WHOLE <= kind <= _LAST and position + 7 + length > len(data)):
            raise damaged(self.path, offset, "the checksum of a record does not match")
        # Too short for its length: cut off, unless it is whole with a smaller one.
        found = _SEEDS[kind]
        for index in range(7, len(rest) + 1):
            if found == checksum:
                raise damaged(self.path, offset, "the length of a record was changed")
            found = zlib.crc32(rest[index : index + 1], found)
        self.truncated = offset


def _regular(path: str, flags: int) -> int:
    """Open a file without waiting for who writes a pipe; anything but a file is refused."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "not a file", path)
    return descriptor


def damaged(path: Path, offset: int | None, problem: str) -> SourceError:
    """A record log that W&B has not written like this; without ``offset``, ``problem`` names the place."""
    place = "" if offset is None else f" at byte {offset:,}"
    return SourceError(
        f"{quoted(str(path), 200)} is damaged{place}: {problem}",
        remedy="Use an intact copy of the run's folder, or move it out of the store and say so in the bundle.",
    )
