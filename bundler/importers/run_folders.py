"""Trees of folders in which each folder with certain files is a run: what belongs to which run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bundler.errors import SourceError, quoted
from bundler.importers.files import NOT_THERE, unreadable, walk
from bundler.importers.model import ArtefactFile, Store
from bundler.importers.values import Flags

ROOT = "."
"""Id of a run whose folder is the store itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """A run: ``path`` relative to the store, its files (paths relative to its folder), those that ``told`` of it."""

    path: str
    files: tuple[ArtefactFile, ...]
    told: tuple[ArtefactFile, ...]


def find(
    store: Path,
    tells: Callable[[str], bool],
    owner: Callable[[str, Iterable[str]], str],
    flags: Flags,
) -> list[RunFolder]:
    """All runs below ``store``, by path. ``tells`` says of a file's name whether its folder is that of a run.

    ``owner`` may name another folder for it, given the path of its folder and all such paths. A file belongs to the
    nearest run above it. Raises :class:`SourceError`.
    """
    files = list(walk(store, "", flags))
    found = {_parent(each.path) for each in files if tells(PurePosixPath(each.path).name)}
    owners = {path: owner(path, found) for path in found}
    held: dict[str, list[ArtefactFile]] = {path: [] for path in owners.values()}
    told: dict[str, list[ArtefactFile]] = {path: [] for path in owners.values()}
    for each in files:
        run = _nearest(each.path, held)
        if run is None:
            continue
        inside = each.path if run == ROOT else each.path[len(run) + 1 :]
        mine = ArtefactFile(path=inside, file=each.file)
        held[run].append(mine)
        if tells(PurePosixPath(inside).name):
            told[run].append(mine)
    return [
        RunFolder(
            path=path,
            files=tuple(held[path]),
            told=tuple(told[path]),
        )
        for path in sorted(held)
    ]


def require_folder(store: Store, what: str, remedy: str) -> Path:
    """``store``, which must be a folder. Raises :class:`SourceError`."""
    try:
        if isinstance(store, Path) and store.is_dir():
            return store
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise unreadable(Path(store), error) from None
    raise SourceError(f"no folder of {what} at {quoted(str(store), 200)}", remedy=remedy)


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or ROOT


def _nearest(path: str, runs: Iterable[str]) -> str | None:
    """The run whose folder is the nearest above ``path``."""
    while path != ROOT:
        path = _parent(path)
        if path in runs:
            return path
    return None
