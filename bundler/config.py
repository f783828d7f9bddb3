"""``bundle.yaml``: what the provider writes. Read strictly, so that a typo is an error and not a silence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bundler import codec
from bundler.errors import MalformedError, UsageError
from bundler.spec import FactMap, Gate, ReproducibilitySpec, SelectionSpec, System
from bundler.strict_yaml import parse_yaml

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
