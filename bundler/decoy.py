"""Models that cannot be the one that was declared: the same tensors, with the signs of half of their numbers changed.

Scoring one must not give the declared figures. By chance it can: two models that both say yes to everything have the
same recall. Figures that stay the same with each of several decoys come from elsewhere. Nothing is unpickled: the
bytes of a copy are edited in place.
"""

from __future__ import annotations

import hashlib
import re
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

from bundler import canonical
from bundler.errors import MalformedError

MAX_HEADER = 100_000_000
"""Largest header that the safetensors library reads, in bytes."""

CHUNK = 1 << 20
"""Numbers whose signs are changed at a time."""

_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
"""Bytes of the floating-point types. They are little-endian: the sign is the highest bit of the last byte."""

_VARIANCE = re.compile(r"(^|[._/])(running_|moving_)?var(iance)?(:0)?$")
"""Variances of batch normalisation: a negative one has no square root, and a decoy of NaN says nothing."""

_SIGNS = bytes(each & 0x80 for each in range(256))


DECOYS = 3
"""How many there are: one, its contrary, and one that owes nothing to either."""


def change_signs(path: Path, number: int = 0) -> bool:
    """Make ``path`` the decoy ``number``; ``False`` where it is no safetensors file, or nothing in it can be changed.

    Which signs follows from the name of the tensor and is otherwise as good as random: with all of them changed, a
    product of two factors, or two layers without biases, would stay what it is. An odd number changes the signs that
    the one before left alone: where that decoy says yes to everything, a linear model says no, and so does the last
    layer of most others. A product of two factors says the same again, so the next number has signs of its own.
    """
    data_start, tensors = _tensors(path)
    changed = False
    with path.open("r+b") as file:
        for name, dtype, begin, end in tensors:
            size = _SIZES.get(dtype)
            if size is None or (end - begin) % size or _VARIANCE.search(name):
                continue
            for start in range(begin, end, CHUNK * size):
                file.seek(data_start + start)
                numbers = bytearray(file.read(min(CHUNK * size, end - start)))
                signs = numbers[size - 1 :: size]
                turned = _turned(signs, f"{number // 2} {start} {name}", contrary=number % 2 == 1)
                numbers[size - 1 :: size] = turned
                file.seek(data_start + start)
                file.write(numbers)
                changed = changed or turned != signs
    return changed


def spoil(path: Path, number: int) -> bool:
    """Make ``path``, of any format, bytes that are no model: code that reads it fails, or gives other figures."""
    size = path.stat().st_size
    with path.open("wb") as file:
        for start in range(0, size, CHUNK):
            file.write(bytes([85 * number]) * min(CHUNK, size - start))
    return size > 0


def _turned(signs: bytearray, key: str, *, contrary: bool) -> bytes:
    """The bytes ``signs`` with the highest bit of about half of them changed, or of all the others if ``contrary``.

    The first changes and the last, if that is another one, does not: neither half leaves the model as it is.
    """
    mask = bytearray(hashlib.shake_256(key.encode()).digest(len(signs)).translate(_SIGNS))
    mask[-1] = 0
    mask[0] = 0x80
    both = int.from_bytes(signs, "big") ^ int.from_bytes(mask, "big")
    if contrary:
        both ^= int.from_bytes(b"\x80" * len(signs), "big")
    return both.to_bytes(len(signs), "big")


def _tensors(path: Path) -> tuple[int, list[tuple[str, str, int, int]]]:
    """Where the numbers start, and name, type, begin and end of each tensor; none where the file is not safetensors."""
    length = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        size = struct.unpack("<Q", first)[0] if len(first) == 8 else length
        if size > min(MAX_HEADER, length - 8):
            return 0, []
        try:
            header = canonical.parse(file.read(size), name=path.name)
        except MalformedError:
            return 0, []
    listed = header.items() if isinstance(header, dict) else ()
    tensors = [_tensor(name, value) for name, value in listed if name != "__metadata__"]
    known = sorted((each for each in tensors if each is not None), key=lambda each: each[2:])
    # As the library demands: nothing left out, nothing twice, so that no part is edited more than once.
    ends = [(0, 0), *(each[2:] for each in known), (length - 8 - size,) * 2]
    if len(known) < len(tensors) or any(left[1] != right[0] for left, right in pairwise(ends)):
        return 0, []
    return 8 + size, known


def _tensor(name: str, value: Any) -> tuple[str, str, int, int] | None:
    match value:
        case {"dtype": str(dtype), "data_offsets": [int(begin), int(end)]} if 0 <= begin <= end:
            return name, dtype, begin, end
        case _:
            return None
