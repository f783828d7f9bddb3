"""Items of W&B's messages: a name, which may be nested, and a value as JSON text or in a typed field.

History, summary and config all consist of them. A run has millions, so most are taken by a short way: the bytes before
a value (length, name, tag) are the same each time a metric is logged, and were read field by field the first time.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from itertools import islice
from typing import Any, cast

from bundler.importers import protobuf
from bundler.importers.protobuf import WireError

Name = tuple[str, ...]
"""A name with the names that it is nested in."""

Sink = tuple[Callable[[bytes], None], Callable[[int], None]]
"""Takes the JSON text of a value, and the row that it stands in."""

MAX_KNOWN = 100_000
"""Most beginnings of items that are remembered; the others are worked out each time."""

MAX_DEPTH = 64
"""Deepest nesting of a value."""

TEXT = b'""'
"""What stands for a text in a typed field, which is never a number, whatever it says."""

_VALUE = b"\x82\x01"
"""Tag of ``value_json``: field 16, of bytes."""


class _Beginnings(dict[bytes, tuple[Sink, int, int]]):
    """By the bytes before a value: who takes it, its length, and that with the length's own byte.

    They are the tag of an item, its length and the fields of its name. What is not known is worked out; for anything
    else, and for an item of 128 bytes or more, there is a ``KeyError``.
    """

    def __init__(self, sink: Callable[[Name], Sink]) -> None:
        super().__init__()
        self._sink = sink
        self._names: dict[bytes, Sink] = {}

    def __missing__(self, head: bytes) -> tuple[Sink, int, int]:
        if head[:1] != b"\n" or len(head) < 2 or head[1] >= 0x80:
            raise KeyError(head)
        name = head[2:]
        # After the name come the tag of the value (two bytes), its length (one) and the value, to the item's end.
        length = head[1] - len(name) - 3
        if length < 0:
            raise KeyError(head)
        sink = self._names.get(name)
        if sink is None:
            sink = self._sink(_name(name))
        found = sink, length, length + 1
        if len(self) < MAX_KNOWN:
            self._names[name] = sink
            self[head] = found
        return found


class ItemReader:
    """Hands the values of a message's items (its field 1) to who takes them; ``sink`` is asked for each name."""

    def __init__(self, sink: Callable[[Name], Sink]) -> None:
        self._sink = sink
        self._known = _Beginnings(sink)

    def read(self, data: bytes, row: int) -> tuple[int, bytes]:
        """Hand over what the short way knows; return how many those were, and the bytes after them."""
        known = self._known
        pieces = data.split(_VALUE)
        head = pieces[0]
        count = 0
        try:
            for piece in islice(pieces, 1, None):
                (take_text, take_row), length, stop = known[head]
                # The length of the item was part of its beginning, so its value must be this long.
                if piece[0] != length or len(piece) < stop:
                    break
                take_text(piece[1:stop])
                take_row(row)
                head = piece[stop:]
                count += 1
        except LookupError:
            pass  # a beginning that is not known, or nothing after the tag
        rest = head if count + 1 == len(pieces) else _VALUE.join([head, *pieces[count + 1 :]])
        return count, rest

    def slow(self, item: bytes, row: int) -> None:
        """Hand over one item, read field by field. Raises :class:`WireError`."""
        name, text = read_item(item)
        take_text, take_row = self._sink(name)
        take_text(text)
        take_row(row)


def read_item(item: bytes) -> tuple[Name, bytes]:
    """Name and JSON text of an item; a typed value wins over the text beside it. Raises :class:`WireError`."""
    key, nested = b"", []
    text, typed = b"", None
    for number, kind, value in protobuf.fields(item):
        if isinstance(value, int):
            typed = _typed_number(number, value) or typed
        elif number == 1 and kind == protobuf.BYTES:
            key = value
        elif number == 2 and kind == protobuf.BYTES:
            nested.append(value)
        elif number == 16 and kind == protobuf.BYTES:
            text = value
        else:
            typed = _typed_bytes(number, kind, value) or typed
    name = tuple(_decoded(each) for each in ([key] if key else nested))
    if len(name) > MAX_DEPTH:
        raise WireError(f"a name nested deeper than {MAX_DEPTH}", 0)
    return name, text if typed is None else typed


def _name(fields: bytes) -> Name:
    """The name that ``fields`` say, or a ``KeyError`` where they say anything else."""
    if len(fields) > 2 and fields[0] in {0x0A, 0x12} and fields[1] == len(fields) - 2 < 0x80:
        return (_decoded(fields[2:]),)  # a single one, as most are
    key, nested = b"", []
    try:
        for number, kind, value in protobuf.fields(fields):
            if kind != protobuf.BYTES or number not in {1, 2}:
                raise KeyError(fields)
            if number == 1:
                key = cast(bytes, value)
            else:
                nested.append(cast(bytes, value))
    except WireError:
        raise KeyError(fields) from None
    if len(nested) > MAX_DEPTH:
        raise KeyError(fields)
    return tuple(_decoded(each) for each in ([key] if key else nested))


def _typed_number(number: int, value: int) -> bytes | None:
    if number == 3:
        return b"null"
    if number == 4:
        return b"true" if value else b"false"
    if number == 5:
        return str((value >> 1) ^ -(value & 1)).encode()
    return None


def _typed_bytes(number: int, kind: int, value: bytes) -> bytes | None:
    if number == 6 and kind == protobuf.FIXED64:
        return json.dumps(struct.unpack("<d", value)[0]).encode()
    if number == 7:
        return TEXT
    return value if number == 8 else None


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def parsed(text: bytes) -> Any:
    """The value of the JSON ``text``. Raises :class:`WireError` for what is none, too deep, or of 4,300 digits."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a value that is no JSON ({type(error).__name__})", 0) from None
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH:
        _require_shallow(value)
    return value


def _require_shallow(value: Any) -> None:
    """What is deeper may be read, and not written again. Not by recursion, of which it would exhaust the stack."""
    waiting = [(value, 0)]
    while waiting:
        each, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise WireError(f"a value nested deeper than {MAX_DEPTH}", 0)
        if isinstance(each, dict | list):
            inner = each.values() if isinstance(each, dict) else each
            waiting += [(item, depth + 1) for item in inner if isinstance(item, dict | list)]


def numbers(texts: list[bytes]) -> list[int | float] | None:
    """The numbers of many JSON texts at once; ``None`` if one of them is no number."""
    try:
        found = json.loads(b"[" + b",".join(texts) + b"]")
    except (ValueError, RecursionError):
        return None
    # As many as there are texts, none of them a list: no text can have held two or a part of one.
    if len(found) != len(texts) or not set(map(type, found)) <= {int, float}:
        return None
    return found  # type: ignore[no-any-return]  # looked at above


def leaves(name: Name, value: Any) -> list[tuple[Name, Any]]:
    """What is not an object in ``value``, with its name; an empty object is kept."""
    found: list[tuple[Name, Any]] = []
    waiting = [(name, value)]
    while waiting:
        path, each = waiting.pop()
        if isinstance(each, dict) and each:
            if len(path) > MAX_DEPTH:
                raise WireError(f"a value nested deeper than {MAX_DEPTH}", 0)
            waiting += [((*path, key), item) for key, item in reversed(each.items())]
        else:
            found.append((path, each))
    return found
