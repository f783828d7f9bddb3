"""What of a commit came with its run, and what lay there before: DVC commits the whole tree with each experiment.

A ``*.dvc`` file says that DVC tracks something, not whether the run read or wrote it: DVCLive makes one for everything
that it logs. So it counts as data only where something shows that. With stages, that is a dependency of one. Without
any (a script with DVCLive), its pointer must be unchanged since the commit before the run, must never have been added
by a commit that brought a run's results, and must be neither below a folder of DVCLive nor among ``artifacts`` of
``dvc.yaml`` (those of the type ``dataset`` may be). What stays doubtful is flagged ``data_not_proven``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bundler.data_pointers import Pointer
from bundler.importers.dvc.git import Blob
from bundler.importers.dvc.pipeline import Pipeline
from bundler.importers.dvc.trees import Tree
from bundler.importers.values import Flag, clean

_LIVE = re.compile(r"(?:(.*)/)?(?:metrics\.json|plots/metrics/.+)")
_PARAMETERS = re.compile(r"(?:(.*)/)?params\.yaml")


@dataclass(frozen=True, slots=True)
class Before:
    """The files of the commits that a run's tree came from: none for the first one, ``None`` where git lacks them."""

    tree: Tree
    parents: Sequence[Mapping[str, Blob]] | None = ()

    @property
    def is_known(self) -> bool:
        """Whether git has what was there before."""
        return self.parents is not None

    def has(self, path: str) -> bool:
        """Whether a file of this path was there."""
        return any(path in files for files in self.parents or ())

    def changed(self, path: str) -> bool:
        """Whether a file is another one than before, or new."""
        earlier = {files[path].id for files in self.parents or () if path in files}
        return not earlier or self.tree.id_of(path) not in earlier


@dataclass(frozen=True, slots=True)
class LiveFolders:
    """The folders that DVCLive wrote, those of the run (``own``) and those of earlier ones (``left``)."""

    own: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()

    def is_left(self, path: str) -> bool:
        """Whether a file or folder is that of an earlier run."""
        return self._owner(path) in self.left

    def holds(self, path: str) -> bool:
        """Whether it lies in any folder of DVCLive; the root of the repository holds everything, and says nothing."""
        return self._owner(path) not in {None, "."}

    def _owner(self, path: str) -> str | None:
        """The innermost folder of DVCLive around ``path``; the root has no more than DVCLive's own files."""
        for folder in upwards(path):
            if folder in self.own or folder in self.left:
                return folder
        found = _LIVE.fullmatch(path)
        return "." if found and not found[1] else None


def live_folders(folders: set[str], before: Before, pipeline: Pipeline, flag: Flag) -> LiveFolders:
    """Tell apart the folders of DVCLive in a tree: a run's own are those that a stage wrote or its commit changed.

    Where none is, any of them may be the run's, so all are taken.
    """
    if len(folders) < 2:
        return LiveFolders(own=frozenset(folders))
    outs = {each.path for each in pipeline.of_stages("out")}
    around = {above for each in outs for above in upwards(each)}
    made = {
        folder for folder in folders if not outs.isdisjoint(upwards(folder)) or folder in around
    }
    own = made | (_changed(_LIVE, folders, before) or _changed(_PARAMETERS, folders, before))
    if not own or not before.is_known:
        flag("metrics", "not_of_one_run", f"{len(folders)} folders of DVCLive, none shows whose")
        return LiveFolders(own=frozenset(folders))
    for folder in sorted(folders - own):
        detail = f"{clean(folder)} is as it was before the run: left out"
        flag("metrics", "of_another_run", detail)
    return LiveFolders(own=frozenset(own), left=frozenset(folders - own))


def _changed(pattern: re.Pattern[str], folders: set[str], before: Before) -> set[str]:
    matches = ((path, pattern.fullmatch(path)) for path in before.tree.files)
    of_folders = ((path, m[1] or ".") for path, m in matches if m and (m[1] or ".") in folders)
    return {folder for path, folder in of_folders if before.changed(path)}


@dataclass(slots=True)
class Tracked:
    """What the ``*.dvc`` files of a run's tree are to it: ``data`` that it may have read, ``outputs`` of its own."""

    data: list[Pointer] = field(default_factory=list)
    outputs: list[Pointer] = field(default_factory=list)


def tracked(
    pipeline: Pipeline, before: Before, live: LiveFolders, added: Callable[[], set[str]], flag: Flag
) -> Tracked:
    """Sort the ``*.dvc`` files of a tree; ``added`` gives those that came with the results of any run."""
    found = Tracked()
    models = {*pipeline.models.values()}
    for pointer in sorted(pipeline.tracked(), key=lambda each: each.path):
        path, is_new = pointer.path, before.changed(pointer.place)
        if live.is_left(path):
            continue
        if path in models or path in pipeline.artifacts or live.holds(path):
            found.outputs.append(pointer)
            if before.is_known and not is_new:
                detail = f"{clean(path)} is as it was before the run: it may be of an earlier one"
                flag("artefacts", "unchanged", detail)
        elif not pipeline.has_stages:  # else they say what is read and written
            came = not before.has(pointer.place) or pointer.place in added()
            reason = _doubt(before, came=came, is_new=is_new)
            if reason is None:
                found.data.append(pointer)
                continue
            detail = f"{clean(path)}: {reason}; `dvc add` and commit data before the training"
            flag("data", "data_not_proven", detail)
            if came and is_new and before.is_known:
                found.outputs.append(pointer)
    return found


def _doubt(before: Before, *, came: bool, is_new: bool) -> str | None:
    """Why a file that DVC tracks may be no data that the run read, if no stage tells."""
    if not before.is_known:
        return "the commit before the run is not there"
    if came:
        return "it came with a run's results, so it may be an output"
    return "it was changed with the run's results" if is_new else None


def upwards(path: str) -> Iterator[str]:
    """``path`` and each folder above it, but the root."""
    yield path
    while "/" in path and (path := path.rpartition("/")[0]):
        yield path
