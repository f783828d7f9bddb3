"""Between frozen dataclasses and JSON values, driven by the type hints alone.

Unknown keys, missing keys and wrong types are errors that name the place (``gates[0].threshold``); a
dataclass is therefore the whole description of what its text may hold. JSON has one kind of number:
a field of type ``float`` takes ``1`` as well as ``1.0``.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from bundler.errors import MalformedError, quoted

T = TypeVar("T")


def to_json(value: object) -> Any:
    """Return ``value`` as JSON: dataclasses become objects, tuples arrays, mappings objects."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[T], value: object, *, place: str = "") -> T:
    """Return ``value`` as an instance of the dataclass ``kind``.

    Raises :class:`MalformedError` (code ``structure``) that names the offending place.
    """
    result: T = _convert(kind, value, place)
    return result


def _convert(hint: Any, value: object, place: str) -> Any:
    origin = get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return _convert_object(hint, value, place)
    if origin in (Union, types.UnionType):
        return _convert_union(hint, value, place)
    if origin is Literal:
        if value in get_args(hint) and not isinstance(value, bool):
            return value
        raise _mismatch(place, "one of " + ", ".join(map(str, get_args(hint))), value)
    if origin is tuple:
        if not isinstance(value, list):
            raise _mismatch(place, "a list", value)
        item = get_args(hint)[0]
        return tuple(_convert(item, each, f"{place}[{i}]") for i, each in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        key, item = get_args(hint)
        return _convert_mapping(key, item, value, place)
    return _convert_scalar(hint, value, place)


def _convert_object(kind: Any, value: object, place: str) -> Any:
    if not isinstance(value, dict):
        raise _mismatch(place, "an object", value)
    fields, hints = _described(kind)
    for key in value:
        if key not in hints:
            known = ", ".join(fields)
            raise MalformedError(
                "structure", f"{_join(place, str(key))}: unknown; known are: {known}"
            )
    arguments = {}
    for name, field in fields.items():
        if name in value:
            arguments[name] = _convert(hints[name], value[name], _join(place, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise MalformedError("structure", f"{_join(place, name)}: missing")
    return kind(**arguments)


@cache
def _described(kind: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = get_type_hints(kind)
    return fields, {name: hints[name] for name in fields}


def _convert_union(hint: Any, value: object, place: str) -> Any:
    options = get_args(hint)
    if value is None and type(None) in options:
        return None
    concrete = [option for option in options if option is not type(None)]
    # The exact scalar type first, so that true stays true and 1 stays 1 in `bool | int | float`.
    for option in concrete:
        if option is type(value):
            return value
    for option in concrete[:-1]:
        with suppress(MalformedError):
            return _convert(option, value, place)
    return _convert(concrete[-1], value, place)


def _convert_mapping(key: Any, item: Any, value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _mismatch(place, "an object", value)
    return {
        _convert(key, name, f"{place}, key"): _convert(item, each, _join(place, str(name)))
        for name, each in value.items()
    }


def _convert_scalar(hint: Any, value: object, place: str) -> Any:
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return _convert_float(value, place)
    if isinstance(value, bool) is not (hint is bool) or not isinstance(value, hint):
        words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        raise _mismatch(place, words[hint], value)
    return value


def _convert_float(value: float, place: str) -> float:
    """YAML has infinities, NaN and integers beyond every double; JSON has none of them."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _mismatch(place, "a finite number", value)
    return number


def _join(place: str, name: str) -> str:
    name = name if name.isprintable() and len(name) <= 60 else quoted(name)
    return f"{place}.{name}" if place else name


def _mismatch(place: str, wanted: str, value: object) -> MalformedError:
    return MalformedError(
        "structure", f"{place or 'document'}: expected {wanted}, found {quoted(value)}"
    )
