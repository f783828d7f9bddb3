"""What every importer gives: the run as its tracker holds it, before the facts are named.

A tracker knows parameters, tags, metrics, files. Which of them is *the seed* or *the environment* is declared in
``bundle.yaml`` and applied by :mod:`bundler.facts`, the same way for all trackers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bundler.records import (
    CodeVersion,
    DatasetVersion,
    FidelityFlag,
    MetricPoint,
    Scalar,
    Source,
    Status,
)

__all__ = ["ArtefactFile", "ImportSession", "ImportedRun", "Importer", "MetricPoint", "Store"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtefactFile:
    """A file that the run left: its path as the tracker names it, and where its bytes lie (``None``: missing)."""

    path: str
    file: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedRun:
    """One run as the tracker holds it. Times are milliseconds since 1970-01-01 UTC.

    ``points`` are sorted by (metric, timestamp, step, order of logging). ``environment`` is what the tracker itself
    recorded of hardware and software, on one level of names; an artefact that the provider names comes on top of it.
    """

    source: Source
    name: str | None
    status: Status
    deleted: bool
    started: int | None
    ended: int | None
    code: CodeVersion
    data: tuple[DatasetVersion, ...]
    parameters: Mapping[str, Scalar]
    tags: Mapping[str, str]
    points: tuple[MetricPoint, ...]
    artefacts: tuple[ArtefactFile, ...]
    fidelity: tuple[FidelityFlag, ...]
    environment: Mapping[str, Scalar] = field(default_factory=dict)


Store = Path | str
"""Where runs are: a file or folder, or an address (``https://…``, ``postgresql://…``) as text."""


class ImportSession(Protocol):
    """An open, read-only view of one experiment."""

    def __len__(self) -> int:
        """Number of runs, deleted and failed ones included."""

    def __iter__(self) -> Iterator[ImportedRun]:
        """All runs, ordered by (start time, run id), one in memory at a time."""


class Importer(Protocol):
    """Reads one tracker. Registered under its name in the entry-point group ``bundler.importers``."""

    name: str

    def detect(self, folder: Path) -> tuple[Path, ...]:
        """Stores of this tracker in ``folder`` (not below), for ``bundler init``."""

    def experiments(self, store: Store) -> tuple[str, ...]:
        """Names of the experiments in ``store``, those with most runs first."""

    def open(
        self, store: Store, *, experiment: str | None, artefacts: Path | None
    ) -> AbstractContextManager[ImportSession]:
        """Open ``experiment`` (``None``: the only one) of ``store`` read-only.

        ``artefacts`` is the folder with the runs' files, where the tracker keeps them elsewhere (an artefact server).
        Raises :class:`bundler.errors.SourceError` with what to do about it. The files that the session's runs name
        are there until it is closed.
        """
