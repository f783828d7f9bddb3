"""The wire format of Protocol Buffers, read without a schema: a message is a sequence of numbered fields."""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types: an int, eight bytes, bytes of a length that stands before them, four bytes."""


class WireError(ValueError):
    """Bytes that are no message; ``offset`` is the place in the message."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(f"{message} at byte {offset} of a message")
        self.offset = offset


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Yield (number, wire type, value) of each field of the message ``data``, in order.

    The value of a varint is its unsigned number, of all others its bytes, as stored. Raises :class:`WireError`.
    """
    position, end = 0, len(data)
    while position < end:
        start = position
        # Most numbers are of one byte: taking those here is what makes this fast.
        key = data[position]
        if key < 0x80:
            position += 1
        else:
            key, position = _varint(data, position)
        kind = key & 7
        if kind == VARINT:
            number, position = _varint(data, position)
            yield key >> 3, kind, number
            continue
        length = 8 if kind == FIXED64 else 4
        if kind == BYTES:
            if position < end and (length := data[position]) < 0x80:
                position += 1
            elif position + 1 < end and (more := data[position + 1]) < 0x80:
                length = length & 0x7F | more << 7
                position += 2
            else:
                length, position = _varint(data, position)
        elif kind not in {FIXED64, FIXED32}:
            raise WireError(f"wire type {kind}", start)
        if length > end - position:
            raise WireError(f"a field of {length} bytes where {end - position} are left", start)
        yield key >> 3, kind, data[position : position + length]
        position += length


def signed(number: int) -> int:
    """The int64 that the unsigned varint ``number`` stands for."""
    return number - (1 << 64) if number >= 1 << 63 else number


def _varint(data: bytes, position: int) -> tuple[int, int]:
    number = 0
    for index in range(10):
        if position + index >= len(data):
            raise WireError("the end inside a number", position)
        byte = data[position + index]
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if number >= 1 << 64:
                break
            return number, position + index + 1
    raise WireError("a number of more than 64 bits", position)
