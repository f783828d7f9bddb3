"""The files of a run, each at a path of its own: trackers let two files have one name, and names be anything."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bundler.errors import quoted
from bundler.importers.model import ArtefactFile
from bundler.importers.values import Flag, clean

MAX_FILES = 100_000
_LONGEST = 200
"""Most characters of one part of a path."""


class CollectedFiles:
    """Files by the path that they have in the record."""

    def __init__(self, flag: Flag) -> None:
        self._flag = flag
        self._files: dict[str, Path | None] = {}
        self._copies: Counter[str] = Counter()

    def all(self) -> tuple[ArtefactFile, ...]:
        """All files by path."""
        return tuple(
            ArtefactFile(path=path, file=self._files[path]) for path in sorted(self._files)
        )

    def keep(self, name: str, file: Path | None, *, replace: bool = False) -> str:
        """Put ``file`` (``None``: it is not here) at the path that ``name`` spells, and return that.

        What could lead elsewhere or cannot be shown is taken out of it. A second file of one path gets a number, or
        takes its place (``replace``). Each is flagged. Raises :class:`ValueError` for more files than a run has.
        """
        wanted = _plain(name)
        if wanted != name:
            self._flag("artefacts", "renamed", f"{quoted(name, 200)}: {wanted}")
        path = wanted
        if path in self._files and replace:
            self._flag("artefacts", "overwritten", path)
        elif path in self._files:
            while path in self._files:
                self._copies[wanted] += 1
                path = f"{wanted}.{self._copies[wanted] + 1}"
            self._flag("artefacts", "same_name", f"{wanted}: {path}")
        if len(self._files) == MAX_FILES:
            raise ValueError(f"more than {MAX_FILES:,} files in one run")
        self._files[path] = file
        return path


def _plain(name: str) -> str:
    parts = [
        "".join(each if each.isprintable() else "_" for each in part)[:_LONGEST]
        for part in (clean(name) or "").replace("\\", "/").split("/")
    ]
    return "/".join(part for part in parts if part not in {"", ".", ".."}) or "unnamed"
