"""Strict JSON in, RFC 8785 canonical JSON out.

The standard library accepts duplicate keys, NaN, ``1e400``, UTF-16 and integers of any size. Two readers
of such a text can see two different documents, so a signed one must not contain any of it (I-JSON,
RFC 7493). :func:`parse` refuses them by name; :func:`serialise` is the only writer.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import NoReturn

import rfc8785

from bundler.errors import MalformedError, quoted

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

MAX_DEPTH = 64
"""Deepest nesting accepted and written; the formats of this project need 8."""

MAX_INTEGER = 2**53 - 1
"""Largest integer magnitude that every JSON reader keeps exactly (RFC 7493, section 2.2).

RFC 8785 (section 3.2.2.3) spells a double from there to 10^21 without a fraction, so such digits are read as the
double whose canonical spelling they are, and refused if they are no double's.
"""


def parse(data: bytes, *, name: str = "JSON") -> Json:
    """Return the value of one strict JSON text.

    ``name`` is how messages call the text. Raises :class:`MalformedError` with a code of the form
    ``json-…`` for anything that two readers could understand differently.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError("json-encoding", f"{name}: not UTF-8 at byte {error.start}") from None
    if text.startswith("\ufeff"):
        raise MalformedError("json-encoding", f"{name}: begins with a byte order mark")
    hooks = _Hooks(name)
    try:
        value = json.loads(
            text,
            object_pairs_hook=hooks.object,
            parse_int=hooks.integer,
            parse_float=hooks.number,
            parse_constant=hooks.constant,
        )
    except json.JSONDecodeError as error:
        raise MalformedError(
            "json-syntax", f"{name}: {error.msg} at character {error.pos}"
        ) from None
    except RecursionError:
        raise MalformedError("json-depth", f"{name}: nested deeper than {MAX_DEPTH}") from None
    _check_tree(value, name)
    return value  # type: ignore[no-any-return]  # json.loads is Any; the hooks and _check_tree bound it


def parse_canonical(data: bytes, *, name: str = "JSON") -> Json:
    """Like :func:`parse`, and the bytes must already be the canonical form (RFC 8785) of their value."""
    value = parse(data, name=name)
    if serialise(value) != data:
        raise MalformedError("json-not-canonical", f"{name}: not in canonical form (RFC 8785)")
    return value


def serialise(value: object) -> bytes:
    """Return the canonical form (RFC 8785). Raises :class:`MalformedError` where there is none."""
    _check_tree(value, "value")
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]  # checked by rfc8785 itself
    except rfc8785.CanonicalizationError as error:
        raise MalformedError("json-not-canonical", f"no canonical form: {error}") from None


class _Hooks:
    """The refusals that ``json.loads`` leaves to its hooks."""

    def __init__(self, name: str) -> None:
        self.name = name

    def object(self, pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        value = dict(pairs)
        if len(value) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice = next(key for key, count in counts.items() if count > 1)
            raise MalformedError(
                "json-duplicate-key", f"{self.name}: key {quoted(twice)} stands twice"
            )
        return value

    def integer(self, digits: str) -> int | float:
        # Length first: int() refuses more than 4,300 digits with an error of its own.
        if len(digits) <= 17 and abs(int(digits)) <= MAX_INTEGER:
            return int(digits)
        if len(digits) <= 22 and rfc8785.dumps(float(digits)) == digits.encode():
            return float(digits)
        raise MalformedError(
            "json-integer-range", f"{self.name}: integer beyond 2^53 - 1 that is no exact double"
        )

    def number(self, digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise MalformedError(
                "json-number-range", f"{self.name}: number {digits[:20]} overflows"
            )
        return value

    def constant(self, word: str) -> NoReturn:
        raise MalformedError("json-not-finite", f"{self.name}: {word} is not JSON")


def _check_tree(root: object, name: str) -> None:
    """Refuse lone surrogates and deep nesting, without recursion."""
    stack = [(root, 1)]
    while stack:
        value, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise MalformedError("json-depth", f"{name}: nested deeper than {MAX_DEPTH}")
        if isinstance(value, str):
            _check_text(value, name)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                stack.append((key, depth + 1))
                stack.append((item, depth + 1))
        elif isinstance(value, (list, tuple)):
            stack.extend((item, depth + 1) for item in value)


def _check_text(text: str, name: str) -> None:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise MalformedError("json-surrogate", f"{name}: a string holds a lone surrogate")
