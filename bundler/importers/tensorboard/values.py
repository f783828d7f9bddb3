"""The values in TensorBoard's messages: tensors with one number, hyperparameters, arguments of a training."""

from __future__ import annotations

import struct
from typing import Any

from bundler.importers import json_lines, protobuf
from bundler.importers.protobuf import BYTES, FIXED64, VARINT, WireError
from bundler.importers.values import clean, text
from bundler.records import Scalar

MAX_NESTING = 16
"""Deepest nesting of a hyperparameter."""

MAX_ARGUMENTS = 1 << 20
"""Most bytes of the text with the arguments of a training."""

FLOAT, _DOUBLE = 1, 2
_FORMS = {FLOAT: ("<f", 5), _DOUBLE: ("<d", 6)}
"""Form and field of the values of a tensor's data types; writers turn all other scalars into these."""


def arguments(tensor: bytes) -> tuple[dict[str, Scalar], set[str]]:
    """The arguments of a training, from a tensor with the text that the Trainer of transformers makes of them.

    Nested ones on one level, lists as compact JSON; nothing, if the text is no such object. Also the names that several
    of them come to have on one level: the first of them is kept.
    """
    content = b"".join(parts(tensor, 8)[:1])
    try:
        value = json_lines.parsed(content) if len(content) <= MAX_ARGUMENTS else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or "output_dir" not in value:
        return {}, set()
    found: dict[str, Scalar] = {}
    merged: set[str] = set()
    waiting = list(reversed(value.items()))
    while waiting:
        name, item = waiting.pop()
        if isinstance(item, dict) and item:
            waiting += [(f"{name}.{key}", inner) for key, inner in reversed(item.items())]
            continue
        shown = clean(name) or ""
        if shown in found:
            merged.add(shown)
        elif isinstance(item, list | dict):
            found[shown] = clean(json_lines.compact(item))
        else:
            found[shown] = clean(item) if isinstance(item, str) else item
    return found, merged


def scalar(tensor: bytes) -> tuple[int, float] | None:
    """Data type and value of a tensor with one 32-bit or 64-bit float; ``None`` for any other."""
    dtype = next(iter(numbers(tensor, 1)), 0)
    if dtype not in _FORMS or not _is_single(parts(tensor, 2)):
        return None
    form, number_of_values = _FORMS[dtype]
    stored = parts(tensor, 4) or [
        value if isinstance(value, bytes) else b""
        for number, _, value in protobuf.fields(tensor)
        if number == number_of_values
    ]
    content = b"".join(stored)
    return (dtype, unpacked(form, content)) if len(content) == struct.calcsize(form) else None


def _is_single(shapes: list[bytes]) -> bool:
    """Whether all dimensions are 1, or there is none."""
    dimensions = [dimension for shape in shapes for dimension in parts(shape, 2)]
    return all(numbers(dimension, 1) == [1] for dimension in dimensions)


def json_value(data: bytes, depth: int) -> Any:
    """What a ``google.protobuf.Value`` says."""
    if depth > MAX_NESTING:
        raise WireError(f"a hyperparameter nested deeper than {MAX_NESTING}", 0)
    found: Any = None
    for number, kind, value in protobuf.fields(data):
        if number == 2 and kind == FIXED64:
            found = unpacked("<d", value)
        elif number == 4 and kind == VARINT:
            found = bool(value)
        elif kind == BYTES and isinstance(value, bytes):
            if number == 3:
                found = text(value)
            elif number == 5:
                entries = [(parts(each, 1), parts(each, 2)) for each in parts(value, 1)]
                found = {
                    text(b"".join(key)): json_value(b"".join(item), depth + 1)
                    for key, item in entries
                }
            elif number == 6:
                found = [json_value(each, depth + 1) for each in parts(value, 1)]
    return found


def last(data: bytes) -> dict[int, int | bytes]:
    """The fields of a message; of several with one number the last, as Protocol Buffers have it."""
    return {number: value for number, _, value in protobuf.fields(data)}


def parts(data: bytes, wanted: int) -> list[bytes]:
    """The values of field ``wanted`` that are bytes or messages."""
    return [
        value
        for number, kind, value in protobuf.fields(data)
        if number == wanted and kind == BYTES and isinstance(value, bytes)
    ]


def numbers(data: bytes, wanted: int) -> list[int]:
    """The values of field ``wanted`` that are varints."""
    return [
        protobuf.signed(value)
        for number, _, value in protobuf.fields(data)
        if number == wanted and isinstance(value, int)
    ]


def double(data: bytes, wanted: int) -> float | None:
    """The value of field ``wanted``, a 64-bit float."""
    held = last(data)
    return unpacked("<d", held[wanted]) if wanted in held else None


def number_of(value: int | bytes) -> int:
    """A field's value that should be a number. Raises :class:`WireError`."""
    if isinstance(value, bytes):
        raise WireError("bytes for a number", 0)
    return protobuf.signed(value)


def bytes_of(value: int | bytes) -> bytes:
    """A field's value that should be bytes. Raises :class:`WireError`."""
    if isinstance(value, int):
        raise WireError("a number for bytes", 0)
    return value


def unpacked(form: str, value: int | bytes) -> float:
    """A field's value as the number of this form. Raises :class:`struct.error`."""
    number: float = struct.unpack(form, bytes_of(value))[0]
    return number
