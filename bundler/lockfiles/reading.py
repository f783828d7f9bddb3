"""TOML, YAML and the shapes in them, read within bounds: a lock file can come from somebody who wants to mislead."""

from __future__ import annotations

import re
import tomllib
from typing import Any, NoReturn

import yaml

from bundler.errors import MalformedError, quoted
from bundler.lockfiles.model import normalise

MAX_BYTES = 32 << 20
"""Largest lock file; the largest that were seen have some megabytes."""

MAX_PACKAGES = 100_000
MAX_STEPS = 5_000_000
"""Most relations between packages that are followed."""

MAX_DEPTH = 32

_MAX_DOTS = 100_000_000
"""Most work on dotted keys, as the sum over all lines of the number of dots squared: tomllib's effort for a key grows
with the square of its parts. Real locks stay below a tenth of it."""

_MAX_HEADER_DOTS = 64
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def unreadable(name: str, problem: str, *, remedy: str = "") -> NoReturn:
    """Raise the :class:`MalformedError` (``lock-unreadable``) of the lock file ``name``."""
    raise MalformedError(
        "lock-unreadable",
        f"{name}: {problem}",
        remedy=remedy or "Write the file anew with the tool that made it.",
    )


def decoded(data: bytes, name: str) -> str:
    """The text of ``data``, which must be UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        unreadable(name, f"not UTF-8 at byte {error.start}")


def parse_toml(data: bytes, name: str) -> dict[str, Any]:
    """The table that a TOML text holds."""
    text = decoded(data, name)
    effort = 0
    for number, line in enumerate(text.split("\n"), start=1):
        dots = line.count(".")
        effort += dots * dots
        if effort > _MAX_DOTS or (dots > _MAX_HEADER_DOTS and line.lstrip().startswith("[")):
            unreadable(name, f"line {number}: a key of too many parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        unreadable(name, "nested too deeply")
    except ValueError as error:
        # Not only TOML's own: numbers of 5,000 digits and impossible dates are errors of Python.
        unreadable(name, " ".join(str(error).split())[:200])


def parse_yaml(data: bytes, name: str) -> Any:
    """The value of a YAML text, with every scalar as the text that stands there.

    Version 3.10 stays "3.10" so, and a lock of 2 MB takes a tenth of the time that
    :func:`bundler.strict_yaml.parse_yaml` needs. What that refuses is refused here too: anchors, tags, duplicate keys.
    """
    decoded(data, name)
    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    builder = _Builder(name)
    try:
        for event in yaml.parse(data, Loader=loader):
            builder.take(event)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark is not None else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        unreadable(name, f"{place}{problem[:200]}")
    return builder.root


class _Builder:
    """Builds plain data from YAML's events, without recursion."""

    def __init__(self, name: str) -> None:
        self.root: Any = None
        self._name = name
        self._open: list[Any] = []
        self._keys: list[str | None] = []
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._refuse(event, "a second document")
        elif isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            self._refuse(event, "anchors and aliases are not allowed")
        elif getattr(event, "tag", None):
            self._refuse(event, "tags are not allowed")
        elif isinstance(event, yaml.ScalarEvent):
            self._value(event, event.value)
        elif isinstance(event, yaml.CollectionStartEvent):
            value: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
            self._value(event, value)
            self._open.append(value)
            self._keys.append(None)
            if len(self._open) > MAX_DEPTH:
                self._refuse(event, "nested too deeply")
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
            self._keys.pop()

    def _value(self, event: yaml.Event, value: Any) -> None:
        if not self._open:
            self.root = value
        elif isinstance(self._open[-1], list):
            self._open[-1].append(value)
        elif self._keys[-1] is None:
            if not isinstance(value, str):
                self._refuse(event, "a key is not a plain word")
            if value == "<<" or value in self._open[-1]:
                self._refuse(event, f"key {quoted(value)} stands twice or merges")
            self._keys[-1] = value
        else:
            self._open[-1][self._keys[-1]] = value
            self._keys[-1] = None

    def _refuse(self, event: yaml.Event, problem: str) -> NoReturn:
        unreadable(self._name, f"line {_line(event)}: {problem}")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 0


class Reader:
    """Takes shapes out of plain data; what has another shape is refused with its place."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._steps = 0

    def table(self, value: object, place: str) -> dict[str, Any]:
        """``value`` if it is a table; nothing is an empty one."""
        if value is None or value == "":
            return {}
        if not isinstance(value, dict):
            unreadable(self.name, f"{place} is no table")
        return value

    def items(self, value: object, place: str) -> list[Any]:
        """``value`` if it is a list; nothing is an empty one."""
        if value is None or value == "":
            return []
        if not isinstance(value, list):
            unreadable(self.name, f"{place} is no list")
        return value

    def tables(self, value: object, place: str) -> list[dict[str, Any]]:
        """``value`` if it is a list of tables."""
        return [
            self.table(each, f"{place}[{number}]")
            for number, each in enumerate(self.items(value, place))
        ]

    def packages(self, value: object, place: str) -> list[dict[str, Any]]:
        """The list of packages of a lock, bounded."""
        found = self.tables(value, place)
        if len(found) > MAX_PACKAGES:
            unreadable(self.name, f"more than {MAX_PACKAGES:,} packages")
        return found

    def package_name(self, value: object, place: str) -> str:
        """The normalised name of a package."""
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            unreadable(self.name, f"{place}: {quoted(value)} is no name of a package")
        return normalise(value)

    def step(self, count: int = 1) -> None:
        """Count relations that are followed; a file of a few megabytes can spell billions."""
        self._steps += count
        if self._steps > MAX_STEPS:
            unreadable(self.name, f"more than {MAX_STEPS:,} relations between packages")
