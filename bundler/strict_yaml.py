"""YAML as plain data: no tags, no anchors, no duplicate keys, nothing that two readers could take differently."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import date, datetime
from typing import Any

import yaml

from bundler.errors import MalformedError


def parse_yaml(data: bytes) -> Any:
    """Return the JSON value of a YAML text. Raises :class:`MalformedError` (``yaml-…``).

    Tags, anchors and duplicate keys are refused: they make one text mean different things to different readers, or
    explode. Dates become ISO 8601 text.
    """
    try:
        return _to_json(yaml.load(data, Loader=_StrictLoader))  # noqa: S506  # a SafeLoader, see below
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # Not only YAML's own: 2026-02-30 and a number of 5,000 digits are errors of Python.
        raise MalformedError("yaml-syntax", _one_line(error)) from None
    except RecursionError:
        raise MalformedError("yaml-syntax", "nested too deeply") from None


class _StrictLoader(yaml.SafeLoader):
    """YAML without aliases, tags and duplicate keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML is untyped here
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.constructor.ConstructorError(
                None, None, "anchors and aliases are not allowed", event.start_mark
            )
        if getattr(event, "tag", None):
            raise yaml.constructor.ConstructorError(
                None, None, "tags are not allowed", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002  # PyYAML's signature
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is not a plain word", key.start_mark
                )
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, "merge keys (<<) are not allowed", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _to_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    return value


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return place + " ".join(str(problem).split())
