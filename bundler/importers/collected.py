"""The files of a run, each at a path of its own: trackers let two files have one name, and names be anything.

Those that are not files of the store are written into a temporary folder; what the system says about that is no fault
of the store.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bundler.errors import SourceError, quoted
from bundler.importers.model import ArtefactFile
from bundler.importers.values import Flag, clean

MAX_FILES = 100_000
_LONGEST = 200
"""Most characters of one part of a path."""


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder that is removed at the end. Raises :class:`SourceError` where there is no place for one."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix))
        except OSError as error:
            raise unkept(error) from None
        yield Path(folder)


def written(file: Path, data: bytes) -> Path:
    """Write ``data`` to ``file`` in a temporary folder, with the folders that it needs. Raises :class:`SourceError`."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    except OSError as error:
        raise unkept(error) from None
    return file


def unkept(error: OSError) -> SourceError:
    """What to do where the temporary folder takes nothing, or no more."""
    problem = quoted(str(error.strerror or error), 200)[1:-1]
    return SourceError(
        f"files of the runs cannot be written to the temporary folder: {problem}",
        remedy="Make room there, or name another folder (TMPDIR).",
    )


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
