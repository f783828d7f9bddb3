"""Parameter and metric files as DVC reads them: YAML 1.2, JSON and TOML. A Python file is never run.

PyYAML reads YAML 1.1, where ``1e-5`` is text, ``yes`` is true, ``010`` is eight and ``1:30`` is ninety. DVC reads 1.2.
Anchors are allowed, since people use them in parameters, but what they may add up to is bounded.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

import yaml

from bundler.canonical import MAX_INTEGER
from bundler.importers import json_lines
from bundler.importers.values import clean
from bundler.records import Scalar

MAX_FILE = 8 << 20
"""Most bytes of a file of parameters, of metrics or of the pipeline."""

MAX_VALUES = 100_000
"""Most values of one file, those in lists and those that anchors repeat included."""

MAX_NESTING = 64

_SMALL = 16 << 10

_MERGED = 16
"""Most mappings that one ``<<`` merges."""

_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def parsed(data: bytes, path: str) -> Any:
    """The value of the file at ``path``. Raises :class:`ValueError`, in text that can be shown.

    It is not to be changed: runs have most of their files in common, so small ones are parsed once.
    """
    suffix = PurePosixPath(path).suffix.lower()
    return _small(data, suffix) if len(data) <= _SMALL else _parsed(data, suffix)


@lru_cache(maxsize=256)
def _small(data: bytes, suffix: str) -> Any:
    return _parsed(data, suffix)


def _parsed(data: bytes, suffix: str) -> Any:
    if suffix == ".py":
        raise ValueError("Python is not run")
    try:
        if suffix == ".json":
            return json_lines.parsed(data)
        if suffix == ".toml":
            return tomllib.loads(data.decode())
        return yaml.load(data, Loader=_Loader)  # noqa: S506  # a SafeLoader, see below
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        words = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ValueError(f"{place}{ascii(words)[1:-1][:200]}") from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        # PyYAML and tomllib let through what int(), float() and datetime() raise.
        raise ValueError(ascii(str(error))[1:-1][:200]) from None


def flat(value: Any, separator: str = ".") -> Iterator[tuple[str, Any]]:
    """Nested mappings as one level of names, in their order. Raises :class:`ValueError` for too many or too deep."""
    count = 0
    waiting: list[Iterator[tuple[str, Any]]] = [iter([("", value)])]
    while waiting:
        for name, item in waiting[-1]:
            count += _size(item) if isinstance(item, list) else 1
            if count > MAX_VALUES:
                raise ValueError(f"more than {MAX_VALUES:,} values")
            if isinstance(item, dict) and item:
                if len(waiting) > MAX_NESTING:
                    raise ValueError("nested too deep")
                waiting.append(_named(item, f"{name}{separator}" if name else ""))
                break
            if not isinstance(item, dict):
                yield name, item
        else:
            waiting.pop()


def scalar(value: Any) -> Scalar:
    """A parameter: a list becomes JSON text, a date ISO 8601, other things text."""
    if isinstance(value, str):
        return clean(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list):
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str
        )
        return clean(text)
    return clean(value.isoformat() if hasattr(value, "isoformat") else value)


def number(value: Any) -> float | None:
    """A metric, ``None`` for what is none. NaN and infinity may be words: JSON has none for them."""
    if isinstance(value, str):
        return _WORDS.get(value.lower().removeprefix("+"))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def is_exact(value: Any) -> bool:
    """Whether a number of a metric file is a double as it stands there."""
    return not isinstance(value, int) or abs(value) <= MAX_INTEGER


def mapping(value: Any) -> Mapping[str, Any]:
    """``value`` if it maps names to values, else nothing."""
    return value if isinstance(value, dict) else {}


def _named(item: dict[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    return ((f"{prefix}{clean(key)}", each) for key, each in item.items())


def _size(value: list[Any]) -> int:
    """Number of values in a list, ``MAX_VALUES`` + 1 for more. Raises :class:`ValueError` for one that is too deep."""
    count, waiting = 0, [(value, 1)]
    while waiting and count <= MAX_VALUES:
        item, depth = waiting.pop()
        if depth > MAX_NESTING:
            raise ValueError("nested too deep")
        count += 1
        inside = item.values() if isinstance(item, dict) else item
        if isinstance(item, dict | list):
            waiting += [(each, depth + 1) for each in inside]
    return count


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core types, without tags of the file's own."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML is untyped here
        if getattr(event, "tag", None):
            raise yaml.constructor.ConstructorError(
                None, None, "tags are not read", event.start_mark
            )
        return super().compose_node(parent, index)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, value in node.value:
            merges = key.tag == "tag:yaml.org,2002:merge" and isinstance(value, yaml.SequenceNode)
            if merges and len(value.value) > _MERGED:
                raise yaml.constructor.ConstructorError(
                    None, None, f"more than {_MERGED} mappings merged", key.start_mark
                )
        super().flatten_mapping(node)
        if len(node.value) > MAX_VALUES:
            raise yaml.constructor.ConstructorError(
                None, None, f"more than {MAX_VALUES:,} values", node.start_mark
            )

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(keys) > len(set(keys)):
            raise yaml.constructor.ConstructorError(None, None, "a key twice", node.start_mark)
        return node


def _integer(_: yaml.SafeLoader, node: yaml.ScalarNode) -> int | str:
    text = node.value.replace("_", "")
    sign, digits = (-1, text[1:]) if text[0] == "-" else (1, text.removeprefix("+"))
    base = {"0x": 16, "0o": 8, "0b": 2}.get(digits[:2], 10)
    # Not int() for any length: it refuses more than 4,300 digits.
    return sign * int(digits, base) if len(digits) <= 1000 else str(node.value)


def _real(_: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = node.value.replace("_", "").lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_REAL = (
    r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_TYPES = [
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)", list("-+0123456789")),
    ("float", _REAL, list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
]
_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in _TYPES:
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), _first
    )
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _real)
