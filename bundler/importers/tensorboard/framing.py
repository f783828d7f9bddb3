"""TFRecord files: length, masked CRC-32C of the length, data, masked CRC-32C of the data, one after the other.

Both checksums of every record are verified. Two tables of 65,536 numbers take four bytes in two look-ups: the fastest
that pure Python has found for this checksum.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import BinaryIO

from bundler.errors import SourceError, quoted
from bundler.importers.files import too_large, unreadable

MAX_RECORD = 256 << 20
"""Most bytes of one record; a graph or an image takes a few million."""

_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_POLYNOMIAL = 0x82F63B78
_ONES = 0xFFFFFFFF


@dataclass(slots=True)
class Tail:
    """Where a file stops inside a record: the record's ``offset``, or ``None``."""

    offset: int | None = None


def records(file: Path, tail: Tail) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, data) of each record of ``file``. A record that is cut is told in ``tail``.

    Raises :class:`SourceError` with the offset for a checksum that does not match.
    """
    try:
        with file.open("rb") as stream:
            yield from _records(file, stream, tail)
    except OSError as error:
        raise unreadable(file, error) from None


def _records(file: Path, stream: BinaryIO, tail: Tail) -> Iterator[tuple[int, bytes]]:
    size = os.fstat(stream.fileno()).st_size
    offset = 0
    while header := stream.read(_HEADER.size):
        if len(header) < _HEADER.size:
            tail.offset = offset
            return
        length, checksum = _HEADER.unpack(header)
        if _masked_length(header[:8]) != checksum:
            raise damaged(file, offset, "the checksum of the length does not match")
        if length > size - offset - _HEADER.size - _CRC.size:
            tail.offset = offset
            return
        if length > MAX_RECORD:
            raise too_large(file, f"{MAX_RECORD:,} bytes in the record at byte {offset}")
        data = stream.read(length + _CRC.size)
        if len(data) < length + _CRC.size:
            tail.offset = offset  # cut while it was being read
            return
        data, (checksum,) = data[:length], _CRC.unpack_from(data, length)
        if masked_crc32c(data) != checksum:
            raise damaged(file, offset, "the checksum of the data does not match")
        yield offset, data
        offset += _HEADER.size + length + _CRC.size


def damaged(file: Path, offset: int, problem: str) -> SourceError:
    """A record that no writer has written like this."""
    return SourceError(
        f"{quoted(str(file), 200)}, record at byte {offset}: {problem}",
        remedy="Use an intact copy of the file, or move it out of the folder.",
    )


def masked_crc32c(data: bytes) -> int:
    """The checksum of ``data`` as TFRecord stores it."""
    checksum = crc32c(data)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & _ONES


_masked_length = lru_cache(4096)(masked_crc32c)
"""Most records of a file have one of a few lengths."""


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of ``data``."""
    low, high, byte = _tables()
    whole = len(data) & ~3
    state = _ONES
    for (word,) in struct.iter_unpack("<I", memoryview(data)[:whole]):
        state ^= word
        state = low[state & 0xFFFF] ^ high[state >> 16]
    for each in data[whole:]:
        state = byte[(state ^ each) & 0xFF] ^ state >> 8
    return state ^ _ONES


@cache
def _tables() -> tuple[list[int], list[int], list[int]]:
    """What four zero bytes after them make of the lower and the upper half of a state, and one byte of its lowest."""
    return (
        _table([_after(1 << bit, 32) for bit in range(16)]),
        _table([_after(1 << bit, 32) for bit in range(16, 32)]),
        _table([_after(1 << bit, 8) for bit in range(8)]),
    )


def _table(basis: list[int]) -> list[int]:
    """All sums of the ``basis``: the checksum is linear."""
    table = [0]
    for vector in basis:
        table += [vector ^ each for each in table]
    return table


def _after(state: int, bits: int) -> int:
    for _ in range(bits):
        state = state >> 1 ^ (_POLYNOMIAL if state & 1 else 0)
    return state
