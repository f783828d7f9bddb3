"""JSON in trackers' files, one value a line or one a file: what the standard library lets through is refused here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from bundler.errors import quoted


class ShapeError(ValueError):
    """A JSON value that is not of the shape that it should have."""


class Line(NamedTuple):
    """One line: its number from 1, its bytes without the end, and whether it has an end. The last one may be cut."""

    number: int
    data: bytes
    ended: bool


def lines(chunks: Iterable[bytes], longest: int) -> Iterator[Line]:
    """Lines of a text that comes in pieces. Raises :class:`ValueError` for one of more than ``longest`` bytes."""
    number, rest = 1, b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for data in whole:
            yield Line(number, data, ended=True)
            number += 1
        if len(rest) > longest:
            raise ValueError(f"line {number} has more than {longest:,} bytes")
    if rest:
        yield Line(number, rest, ended=False)


def parsed(data: bytes) -> Any:
    """The JSON value in ``data``. Raises :class:`ValueError`, in text that can be shown.

    NaN and infinity are let through as trackers write them; a name twice in one object, a number that is no double,
    and nesting deeper than the interpreter goes are not.
    """
    try:
        return json.loads(data.decode(), object_pairs_hook=_object, parse_float=_number)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON at character {error.pos}: {error.msg}") from None
    except RecursionError:
        raise ValueError("nested too deep") from None


def an_object(value: object, what: str) -> dict[str, Any]:
    """``value`` if it is an object. Raises :class:`ShapeError` that says ``what`` is none."""
    if not isinstance(value, dict):
        raise ShapeError(f"{what} is no object")
    return value


def a_list(value: object, what: str) -> list[Any]:
    """``value`` if it is a list, the empty one for null. Raises :class:`ShapeError` that says ``what`` is none."""
    if value is not None and not isinstance(value, list):
        raise ShapeError(f"{what} is no list")
    return value or []


def a_text(value: object, what: str) -> str:
    """``value`` if it is text. Raises :class:`ShapeError` that says ``what`` is none."""
    if not isinstance(value, str):
        raise ShapeError(f"{what} is no text")
    return value


def compact(value: object) -> str:
    """``value`` as JSON text without spaces, names sorted. What JSON has no words for is spelled as Python does."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError(f"the name {quoted(_first_twice(pairs))} twice in one object")
    return value


def _first_twice(pairs: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            return name
        seen.add(name)
    raise AssertionError("all names differ")


def _number(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"the number {quoted(digits)} is too large")
    return value
