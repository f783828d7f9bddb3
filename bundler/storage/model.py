"""What a bag is to the rest of the program: names, sizes and bytes, nothing else."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from bundler.manifest import collisions, path_problem
from bundler.report import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The largest bundle that is read at all. Sizes are bytes."""

    files: int = 1_000_000
    total: int = 1 << 40
    depth: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file of the bag: its path and its size in bytes."""

    path: str
    size: int


class Bag(Protocol):
    """A bundle as received. Nothing in it is trusted."""

    @property
    def name(self) -> str:
        """The last part of the path, for people."""

    def entries(self) -> tuple[Entry, ...]:
        """All regular files with an acceptable name, sorted by path."""

    def problems(self) -> tuple[Finding, ...]:
        """Everything in the bag that is not such a file."""

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open a file of the bag for reading.

        Raises :class:`bundler.errors.MalformedError` (``file-changed``, ``file-unreadable``), for an :class:`OSError`
        of reading as well: the block does nothing but read.
        """


class MemoryBag:
    """A bag made of bytes: the twin in memory of the other kinds, for tests."""

    def __init__(self, files: Mapping[str, bytes], name: str = "bundle") -> None:
        self._files = dict(files)
        self.name = name

    def entries(self) -> tuple[Entry, ...]:
        """All files, sorted by path."""
        return tuple(Entry(path=path, size=len(self._files[path])) for path in sorted(self._files))

    def problems(self) -> tuple[Finding, ...]:
        """Names that a bag may not hold."""
        return name_problems(list(self._files))

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open a file."""
        return nullcontext(io.BytesIO(self._files[path]))


def name_problems(paths: list[str]) -> tuple[Finding, ...]:
    """Findings about unsafe names and names that collide without upper/lower case."""
    findings = [
        Finding(code="path-unsafe", severity="error", subject=shown(path), message=problem)
        for path in paths
        if (problem := path_problem(path)) is not None
    ]
    findings += [
        Finding(
            code="path-collision",
            severity="error",
            subject=shown(second),
            message=f"cannot lie beside {shown(first)} on every file system",
        )
        for first, second in collisions(paths)
    ]
    return tuple(findings)


def shown(name: str) -> str:
    """``name`` so that it cannot steer a terminal: anything but printable ASCII is escaped, and it is cut."""
    text = ascii(name)[1:-1]
    return text if len(text) <= 120 else text[:117] + "..."
