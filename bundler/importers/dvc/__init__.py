"""DVC: the experiments of a git repository with DVC, read with git and from DVC's cache, without DVC.

A run is an experiment, an entry of the queue that failed or waits, or a commit with results (:mod:`dvc_runs`).

What is not what it seems: the commit of a failed or waiting experiment holds the metrics and outputs of whatever ran
before it, and DVC shows them as its own; they are left out here. Values of ``params.yaml`` may have been changed after
the run; those of ``dvc.lock`` are the run's. ``dvc exp save``, and DVCLive after an exception as well, commit whatever
lies in the working tree as an experiment and make the lock fit it. So a run is ``finished`` only where its lock fits
all that git has of it, and it was not merely saved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from bundler.data_hashes import kind_of
from bundler.datasets import DataDigest, DataStore, Pointer
from bundler.errors import SourceError, quoted
from bundler.importers.collected import temporary_folder, written
from bundler.importers.dvc import metrics as dvc_metrics
from bundler.importers.dvc import runs as dvc_runs
from bundler.importers.dvc.git import Blob, Commit, Objects, Repository
from bundler.importers.dvc.origins import Before, upwards
from bundler.importers.dvc.pipeline import Pipeline, pipeline_of
from bundler.importers.dvc.results import MAX_BLOB, Results
from bundler.importers.dvc.runs import Found
from bundler.importers.dvc.trees import CommitTree, Tree, WorkingTree
from bundler.importers.experiments import Experiment, choose
from bundler.importers.files import too_large
from bundler.importers.model import ArtefactFile, ImportedRun, ImportSession, Store
from bundler.importers.run_folders import require_folder
from bundler.importers.values import Flags, clean
from bundler.records import CodeVersion, DatasetVersion, Source, Status, without_credentials

_REMEDY = "Give the folder of the git repository that holds .dvc."
_NO_COMMIT = "0" * 40
_REMEMBERED = 10_000
"""So many verdicts on data are kept: most runs have the same data."""


class DvcImporter:
    """Reads the experiments of a DVC repository."""

    name = "dvc"

    def detect(self, folder: Path) -> tuple[Path, ...]:
        """The folder itself if DVC was set up in it."""
        try:
            return (folder,) if (folder / ".dvc" / "config").is_file() else ()
        except OSError:
            return ()

    def experiments(self, store: Store) -> tuple[str, ...]:
        """All runs are one experiment: what DVC calls so is a run."""
        return (_experiment(_runs(_opened(store))).name,)

    @contextmanager
    def open(
        self, store: Store, *, experiment: str | None, artefacts: Path | None
    ) -> Iterator[ImportSession]:
        """Open the repository; ``artefacts`` is DVC's cache, where it is not ``.dvc/cache``.

        See :class:`bundler.importers.model.Importer`.
        """
        place = _opened(store)
        found = _runs(place)
        chosen = choose([_experiment(found)], experiment, store)
        with (
            temporary_folder("aisdp-dvc-") as folder,
            place.repository.objects() as objects,
        ):
            data = DataStore(place.folder, artefacts)
            reader = _Reader(place, objects, data, chosen, folder, found)
            starts = [(reader.start(each) or 0, each.id, each) for each in found]
            starts.sort(key=lambda each: each[:2])
            yield _Session(reader, [each for _, _, each in starts])


@dataclass(frozen=True, slots=True)
class _Session:
    """The runs of one repository, read anew each time."""

    reader: _Reader
    runs: list[Found]

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[ImportedRun]:
        return (self.reader.read(each) for each in self.runs)


@dataclass(frozen=True, slots=True)
class _Place:
    folder: Path
    repository: Repository


@dataclass
class _Reader:
    """Reads one run after the other."""

    place: _Place
    objects: Objects
    data: DataStore
    experiment: Experiment
    temporary: Path
    runs: list[Found]
    earlier: dict[str, Mapping[str, Blob]] = field(default_factory=dict)
    known: dict[tuple[str, str | None, bool], DataDigest] = field(default_factory=dict)

    def start(self, found: Found) -> int | None:
        """When a run logged its first value, where that is known."""
        return self._results(found, Flags()).start() if found.ran else None

    def read(self, found: Found) -> ImportedRun:
        """The run. Raises :class:`SourceError`."""
        flag = Flags()
        results = self._results(found, flag)
        commit = self.objects.commit(found.commit) if found.commit else None
        try:
            points = results.points() if found.ran else ()
        except dvc_metrics.TooManyPointsError as error:
            raise too_large(self.place.folder, str(error)) from None
        parameters = results.parameters(ran=found.ran)
        commands = [*results.pipeline.commands.values()]
        entry_point = commands[0] if len(commands) == 1 else None
        code = self._code(found, commit, results, entry_point)
        started, last = dvc_metrics.span(points)
        _flag_limits(found, results, started, flag)
        return ImportedRun(
            source=Source(
                tracker="dvc",
                store="git",
                experiment_id=self.experiment.id,
                experiment=self.experiment.name,
                run_id=found.id,
            ),
            name=found.name,
            status=_status(found, results),
            deleted=False,
            started=started,
            ended=_ended(found, commit, last, flag),
            code=code,
            data=tuple(self._data(found, results, flag)),
            parameters=parameters,
            tags=_tags(found, commit, results.pipeline),
            points=points,
            artefacts=tuple(self._artefacts(found, results)),
            fidelity=flag.all(),
        )

    def _artefacts(self, found: Found, results: Results) -> Iterator[ArtefactFile]:
        if found.ran:
            yield from results.artefacts(partial(self._extract, results.tree))

    def _results(self, found: Found, flag: Flags) -> Results:
        tree: Tree
        if found.kind == "workspace":
            tree = WorkingTree(self.place.repository, self.place.folder, _NO_COMMIT)
        else:
            tree = CommitTree(self.place.repository, self.objects, found.commit)
        pipeline = pipeline_of(tree.files, tree.read, flag)
        before = self._before(found, tree)
        results = Results(tree, pipeline, self._find, before, lambda: self._added, flag)
        if found.ran:
            results.gather()
        return results

    def _before(self, found: Found, tree: Tree) -> Before:
        """What was there before a run: HEAD for the working tree, else the parents of its commit."""
        if not found.commit:
            return Before(tree)
        workspace = found.kind == "workspace"
        parents = (found.commit,) if workspace else self.objects.commit(found.commit).parents
        if not all(each in self.earlier for each in parents):
            repository = self.place.repository
            if not all(map(repository.has, parents)):
                return Before(tree, None)
            # Most runs start from the commit that the one before them started from: no others are kept.
            self.earlier = {
                each: repository.files(each) if repository.has_folder(each) else {}
                for each in parents
            }
        return Before(tree, [self.earlier[each] for each in parents])

    @cached_property
    def _added(self) -> set[str]:
        """The ``*.dvc`` files that came with the results of any run."""
        commits = [each.commit for each in self.runs if each.kind in {"experiment", "commit"}]
        return self.place.repository.added(commits, ":(glob)**/*.dvc")

    def _find(self, pointer: Pointer) -> DataDigest:
        key = (pointer.path, pointer.md5, pointer.legacy)
        if key not in self.known:
            if len(self.known) >= _REMEMBERED:
                self.known.clear()
            self.known[key] = self.data.find(pointer)
        return self.known[key]

    def _extract(self, tree: Tree, path: str) -> Path:
        """A copy of a file that is in git only, each blob once."""
        blob = tree.files[path]
        place = self.temporary / (blob.id or hashlib.sha256(path.encode()).hexdigest())
        if not blob.id or not place.exists():
            try:
                data = tree.read(path, MAX_BLOB)
            except ValueError as error:
                raise too_large(Path(path), str(error)) from None
            written(place, data)
        return place

    def _code(
        self, found: Found, commit: Commit | None, results: Results, entry_point: str | None
    ) -> CodeVersion:
        """The code: of an experiment DVC commits all tracked files as they were, of other runs nobody can say."""
        differs = results.code_differs() if found.ran else None
        dirty = True if differs or found.kind == "workspace" else None
        if differs is False and found.kind == "experiment" and not results.saved:
            dirty = False
        repository = self.place.repository
        url = repository.remote()
        return CodeVersion(
            repository=clean(without_credentials(url)) if url else None,
            commit=commit.id if commit else None,
            branch=clean(repository.branch()) if found.kind == "workspace" else None,
            dirty=dirty,
            entry_point=entry_point,
            tree=commit.tree if commit and found.kind != "workspace" else None,
        )

    def _data(self, found: Found, results: Results, flag: Flags) -> Iterator[DatasetVersion]:
        """What stages read that is neither in git nor made by a stage; without stages, see :mod:`dvc.origins`."""
        pipeline = results.pipeline
        tracked = {each.path: each for each in pipeline.tracked()}
        for pointer in _data_pointers(found, results):
            added = tracked.get(pointer.path)
            if found.ran and added and added.md5 and pointer.md5 != added.md5:
                flag("data", "stale", f"{clean(pointer.path)} is another one now: {added.md5}")
            digest = self._find(pointer)
            name = clean(pointer.path) or ""
            word = {"absent": "missing", "mismatch": "digest_mismatch", "legacy": "legacy_md5"}
            if digest.state != "verified":
                detail = f"{name}: {digest.detail}" if digest.detail else name
                flag("data", word[digest.state], detail)
            kept = digest.state in {"verified", "legacy"}
            source = clean(pointer.source or (added.source if added else None))
            yield DatasetVersion(
                name=name,
                source=without_credentials(source) if source and "://" in source else source,
                sha256=digest.sha256 if kept else None,
                tracker_digest=f"md5:{pointer.md5}" if pointer.md5 else clean(pointer.label),
            )


def _data_pointers(found: Found, results: Results) -> list[Pointer]:
    pipeline = results.pipeline
    if found.ran and pipeline.is_locked:
        made = {each.path for each in pipeline.of_stages("out")}
        return [
            each
            for each in pipeline.of_stages("dep")
            if not results.in_git(each.path) and made.isdisjoint(upwards(each.path))
        ]
    if pipeline.has_stages:
        models = {*pipeline.models.values()}
        around = {above for each in pipeline.declared for above in upwards(each)}
        wanted = [
            each
            for each in pipeline.tracked()
            if each.path not in models
            and (each.path in around or not pipeline.declared.isdisjoint(upwards(each.path)))
        ]
        return sorted(wanted, key=lambda each: each.path)
    if results.tracked.data:
        results.flag("data", "not_declared", "no stage says what was read: all that DVC tracks")
    return results.tracked.data


def _opened(store: Store) -> _Place:
    folder = require_folder(store, "a DVC repository", _REMEDY)
    if not any(kind_of(folder / each) for each in (".dvc", "dvc.yaml", "dvc.lock")):
        raise SourceError(
            f"{quoted(str(folder), 200)} holds neither .dvc nor dvc.yaml", remedy=_REMEDY
        )
    return _Place(folder, Repository(folder))


def _runs(place: _Place) -> list[Found]:
    head = place.repository.head()
    working = WorkingTree(place.repository, place.folder, head or _NO_COMMIT)
    metrics = pipeline_of(working.files, working.read, Flags()).metrics
    return dvc_runs.find(place.repository, working, metrics)


def _experiment(runs: list[Found]) -> Experiment:
    return Experiment(id="dvc", name="dvc", runs=len(runs), deleted=False)


def _flag_limits(found: Found, results: Results, started: int | None, flag: Flags) -> None:
    """Flag what the run as a whole is not."""
    if found.doubt:
        flag("run", *found.doubt)
    if not found.ran:
        flag("run", "no_results", "what its commit holds is left from before; DVC keeps no more")
    elif results.saved:
        flag("run", "saved_not_run", "a saved working tree: its parts may be of several runs")
    if started is not None:
        flag("run", "times_of_values", "the start is the time of the first value")


def _status(found: Found, results: Results) -> Status:
    if found.kind == "failed":
        return "failed"
    if found.kind == "queued":
        return "scheduled"
    return "finished" if results.consistent and not results.saved else "unknown"


def _ended(found: Found, commit: Commit | None, last: int | None, flag: Flags) -> int | None:
    """An experiment is committed when it has run; the time of another commit says only that it had run by then.

    ``last``: when the last value was logged. A commit has whole seconds, so it may seem to come before that.
    """
    if commit is None or commit.time is None or found.kind not in {"experiment", "commit"}:
        return last
    if found.kind == "commit":
        flag("run", "time_of_commit", "the run had ended by then")
    return last if last and 0 < last - commit.time < 1000 else commit.time


def _tags(found: Found, commit: Commit | None, pipeline: Pipeline) -> dict[str, str]:
    tags: dict[str, str] = {"dvc.kind": found.kind}
    if found.baseline:
        tags["dvc.baseline"] = found.baseline
    if commit is not None and found.kind == "commit":
        tags["dvc.subject"] = clean(commit.subject) or ""
    tags |= {f"dvc.model.{name}": clean(path) or "" for name, path in pipeline.models.items()}
    if found.ran:
        tags |= {f"dvc.stage.{name}": command for name, command in pipeline.commands.items()}
    return tags
