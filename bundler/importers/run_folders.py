"""Trees of folders in which each folder with certain files is a run: what belongs to which run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bundler.errors import SourceError, quoted
from bundler.importers.experiments import Experiment, choose
from bundler.importers.files import NOT_THERE, below, unreadable, walk
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


@dataclass(frozen=True, slots=True)
class RunFolders:
    """The runs of one folder, which is the one ``experiment``; ``flags`` are those of looking for them."""

    experiment: Experiment
    found: list[RunFolder]
    artefacts: Path | None
    flags: Flags

    def __len__(self) -> int:
        return len(self.found)

    def name(self, run: RunFolder) -> str:
        """The name of ``run``: its path, or that of the store if it is the store itself."""
        return self.experiment.name if run.path == ROOT else run.path

    def first_flags(self) -> Flags:
        """Flags that each run has, to which it adds its own."""
        flags = Flags()
        for each in self.flags.all():
            flags(each.field, each.flag, each.detail)
        return flags

    def files(self, run: RunFolder, flags: Flags) -> Iterator[ArtefactFile]:
        """Files in the folder of ``run``, and those in the folder of the same path below ``artefacts``."""
        own = {each.path for each in run.files}
        yield from run.files
        beside = self.artefacts and below(self.artefacts, run.path, flags)
        if beside is not None:
            for each in walk(beside, "", flags):
                if each.path not in own:
                    yield each


def opened(
    store: Store,
    find_runs: Callable[[Store, Flags], list[RunFolder]],
    named: Callable[[Store, int], Experiment],
    *,
    experiment: str | None,
    artefacts: Path | None,
) -> RunFolders:
    """The runs that ``find_runs`` finds in ``store``, if their experiment, as it is ``named``, is the one asked for."""
    flags = Flags()
    found = find_runs(store, flags)
    chosen = choose([named(store, len(found))], experiment, store)
    return RunFolders(chosen, found, artefacts, flags)


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
