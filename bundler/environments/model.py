"""The software that a re-run uses: words, no machinery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bundler.records import Scalar
from bundler.report import Knob

Mode = Literal["current", "locked", "image"]
"""``current``: the verifier's own, compared package by package; ``locked``: recreated from the bundle's hashed list of
packages; ``image``: the root file system of a container image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The software that a job runs with.

    ``python`` is the interpreter by the path that it has inside the sandbox. ``interpreter`` is its path on this
    machine, where the sandbox shows its prefixes; ``root`` is the unpacked root file system of an image instead, and
    ``environment`` the variables that the image sets; those of the training specification come after them. ``software``
    says what differs from the bundle's list of packages; ``facts`` identify the software in the report.
    """

    mode: Mode
    python: str
    interpreter: Path | None
    root: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    software: tuple[Knob, ...] = ()
    facts: Mapping[str, Scalar] = field(default_factory=dict)
