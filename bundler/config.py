"""``bundle.yaml``: what the provider writes. Read strictly, so that a typo is an error and not a silence."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from bundler import codec
from bundler.errors import MalformedError, UsageError
from bundler.spec import FactMap, Gate, ReproducibilitySpec, SelectionSpec, System

MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """A tracker store. Paths are relative to bundle.yaml; ``artefacts`` is the artefact server's folder."""

    tracker: str
    store: str
    experiment: str | None = None
    artefacts: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputsConfig:
    """Where the training leaves its record, below the output folder, and which artefacts hold tensors."""

    tracker: str
    location: str
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How to repeat the training. ``code`` is a folder of a git repository; ``inputs`` are files that it reads."""

    code: str
    command: tuple[str, ...]
    outputs: OutputsConfig
    inputs: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    lock: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildConfig:
    """The whole of ``bundle.yaml``."""

    version: Literal[1]
    system: System
    sources: tuple[SourceConfig, ...]
    facts: FactMap
    selection: SelectionSpec
    reproducibility: ReproducibilitySpec
    gates: tuple[Gate, ...] = ()
    training: TrainingConfig | None = None
    embed: Literal["selected", "all", "none"] = "selected"


def load(path: Path) -> BuildConfig:
    """Read ``bundle.yaml``. Raises :class:`UsageError` that names the line or the key."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}",
            remedy="Run `bundler init` in the training repository to write one.",
        ) from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} is larger than {MAX_BYTES >> 20} MiB")
    try:
        return codec.from_json(BuildConfig, parse_yaml(data))
    except MalformedError as error:
        raise UsageError(
            f"{path}: {error.message}", remedy="docs/bundle-yaml.md describes every key."
        ) from None


def parse_yaml(data: bytes) -> Any:
    """Return the JSON value of a YAML text. Raises :class:`MalformedError` (``yaml-…``).

    Tags, anchors and duplicate keys are refused: they make one text mean different things to different readers, or
    explode. Dates become ISO 8601 text.
    """
    try:
        return _to_json(yaml.load(data, Loader=_StrictLoader))  # noqa: S506  # a SafeLoader, see below
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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
