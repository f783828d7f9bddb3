"""Weights & Biases: what it writes to the disk of the training (``wandb/``), read without wandb; and its server.

What W&B does to values, and what is done about it here: NaN in a configuration becomes null; a later record of the run
repeats the configuration with 1.0 as 1 (the float is kept); what is logged to an earlier step is dropped (only a
warning in the console output may tell); logs to one step are one row. Each is named in the record's fidelity flags,
where it can be known. System metrics are none of the model's and are left out.

A run without a record of its end was killed or still runs: its status is unknown. Any exit code but 0 is a failure.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bundler.errors import SourceError, quoted
from bundler.importers.experiments import Experiment, choose, ordered
from bundler.importers.files import unreadable
from bundler.importers.model import ImportedRun, ImportSession, Store
from bundler.importers.values import clean
from bundler.importers.wandb import staging
from bundler.importers.wandb.datastore import HEADER
from bundler.importers.wandb.merge import Part, merged
from bundler.importers.wandb.online import OnlineProject
from bundler.importers.wandb.run import Identity, identity
from bundler.records import Source

ADDRESS = "wandb://"
UNNAMED = "uncategorized"
"""What W&B calls the project of runs that name none."""

_LATEST = "latest-run"
_FOLDER = re.compile(r"(?:offline-)?run-(?P<stamp>[0-9]{8}_[0-9]{6})-(?P<id>.+)", re.DOTALL)


class WandbImporter:
    """Reads a record log (``*.wandb``), the folder of a run, the folder ``wandb``, or ``wandb://ENTITY/PROJECT``."""

    name = "wandb"

    def __init__(self, *, search_home: bool = False) -> None:
        """``search_home``: look for artefacts in W&B's data folder of this user too, as only their own runs allow."""
        self._search_home = search_home

    def detect(self, folder: Path) -> tuple[Path, ...]:
        """The folder ``wandb`` in ``folder``, or ``folder`` itself, if there are runs in it."""
        try:
            return tuple(
                each
                for each in (folder / "wandb", folder)
                if (each == folder or not each.is_symlink()) and (_logs_in(each) or _named(each))
            )
        except (OSError, SourceError):
            return ()

    def experiments(self, store: Store) -> tuple[str, ...]:
        """Names of the projects in ``store``, those with most runs first."""
        if isinstance(store, str):
            return _online(store).experiments()
        return tuple(each.name for each in _Runs(store).experiments())

    @contextmanager
    def open(
        self, store: Store, *, experiment: str | None, artefacts: Path | None
    ) -> Iterator[ImportSession]:
        """Open a project read-only; see :class:`bundler.importers.model.Importer`.

        ``artefacts`` may be W&B's staging folder or a folder with the files of artefacts: what is found there, or
        beside the store (:mod:`bundler.importers.wandb.staging`), counts if it has the MD5 that the manifest names.
        """
        if isinstance(store, str):
            with _online(store).opened(experiment) as session:
                yield session
            return
        runs = _Runs(store)
        places = staging.places(store, artefacts, os.environ if self._search_home else None)
        yield _Session(runs, choose(runs.experiments(), experiment, store), places)


@dataclass(frozen=True, slots=True)
class _Session:
    """The runs of one project, read anew each time."""

    runs: _Runs
    experiment: Experiment
    places: staging.Places

    def __len__(self) -> int:
        return self.experiment.runs

    def __iter__(self) -> Iterator[ImportedRun]:
        project = self.experiment.name
        for run_id, parts in self.runs.of(project):
            source = Source(
                tracker="wandb",
                store="files",
                experiment_id=project,
                experiment=project,
                run_id=run_id,
            )
            yield merged(parts, self.places, source)


class _Runs:
    """All runs of a store, with what tells them apart. Only that is kept."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._parts: dict[tuple[str | None, str], list[Part]] = {}
        try:
            found = _parts(store)
        except OSError as error:
            raise unreadable(store, error) from None
        if not found:
            raise SourceError(
                f"no runs of Weights & Biases at {quoted(str(store), 200)}",
                remedy="Give the folder wandb, the folder of a run in it, or a file run-ID.wandb.",
            )
        owners: dict[tuple[str, str], Part] = {}
        for part in found:
            known = identity(part.log) if part.log is not None else None
            self._add(part, known, owners)
        self._adopt()
        for (_, run_id), parts in self._parts.items():
            _refuse_copies(run_id, parts)

    def _add(self, part: Part, known: Identity | None, owners: dict[tuple[str, str], Part]) -> None:
        if known is None:
            self._parts.setdefault((None, _id_of(part)), []).append(part)
            return
        project, run_id = clean(known.project) or UNNAMED, clean(known.run_id) or _id_of(part)
        key = (project, run_id)
        others = self._parts.setdefault(key, [])
        part = replace(part, started=known.started, owner=known.entity)
        same = [each for each in others if known.started and each.started == known.started]
        if same:
            raise _both(part, same[0], f"the same start of run {quoted(run_id)}")
        if part.owner:
            # The first that names an owner counts: one before it may name none.
            first = owners.setdefault(key, part)
            if first.owner != part.owner:
                raise _both(part, first, f"runs of different owners called run {quoted(run_id)}")
        others.append(part)

    def _adopt(self) -> None:
        """A log that is cut off before it names its project belongs to the run of its id, where there is one."""
        homes: dict[str, list[tuple[str | None, str]]] = {}
        for project, run_id in self._parts:
            if project is not None:
                homes.setdefault(run_id, []).append((project, run_id))
        for key in [key for key in self._parts if key[0] is None]:
            if len(homes.get(key[1], ())) == 1:
                self._parts[homes[key[1]][0]] += self._parts.pop(key)

    def experiments(self) -> list[Experiment]:
        """All projects. A run that does not tell its project counts in each: leaving it out would be silent."""
        homeless = sum(project is None for project, _ in self._parts)
        counts: dict[str, int] = {}
        for project, _ in self._parts:
            if project is not None:
                counts[project] = counts.get(project, homeless) + 1
        counts = counts or {UNNAMED: homeless}
        return ordered(
            Experiment(id=name, name=name, runs=count, deleted=False)
            for name, count in counts.items()
        )

    def of(self, project: str) -> list[tuple[str, list[Part]]]:
        """Ids and parts of the runs of ``project``, by start time and id."""
        found = [
            (run_id, _in_order(parts))
            for (home, run_id), parts in self._parts.items()
            if home in {project, None}
        ]
        return sorted(found, key=lambda run: (_start(run[1]), run[0]))


def _refuse_copies(run_id: str, parts: list[Part]) -> None:
    """A log that is there twice would count twice. The start tells most copies; not every log has one."""
    seen: dict[str, Part] = {}
    logs = [(part, part.log) for part in parts if part.log is not None]
    for part, log in logs if len(logs) > 1 else ():
        try:
            if log.stat().st_size <= len(HEADER):
                continue  # Nothing was written: all such are alike.
            with log.open("rb") as file:
                digest = hashlib.file_digest(file, hashlib.sha256).hexdigest()
        except OSError as error:
            raise unreadable(log, error) from None
        if seen.setdefault(digest, part) is not part:
            raise _both(part, seen[digest], f"the same log of run {quoted(run_id)}")


def _both(part: Part, other: Part, what: str) -> SourceError:
    return SourceError(
        f"{quoted(str(part.log), 200)} and {quoted(str(other.log), 200)} hold {what}",
        remedy="Move one of them out of the store.",
    )


def _start(parts: list[Part]) -> int:
    return next((part.started for part in parts if part.started), 0)


def _in_order(parts: list[Part]) -> list[Part]:
    """By their start; where one does not tell it, by the local time in the names of their folders."""
    stamps = {part: _FOLDER.fullmatch(part.folder.name) for part in parts if part.folder}
    if all(part.started for part in parts) or len(stamps) < len(parts) or None in stamps.values():
        return sorted(parts, key=lambda part: (part.started or 0, str(part.log)))
    return sorted(
        parts, key=lambda part: (str((stamps[part] or {"stamp": ""})["stamp"]), str(part.log))
    )


def _parts(store: Path) -> list[Part]:
    if not store.is_dir():
        if not store.exists():
            return []
        beside = store.parent if _FOLDER.fullmatch(store.parent.name) else None
        return [Part(log=store, folder=beside)]
    inner = store / "wandb"
    _unlinked([inner])
    logs, folders = _logs_in(store), _run_folders(store)
    folders = [each for each in folders if each != inner]  # A log there lies beside runs.
    loose = [*logs, *_logs_in(inner)]
    folders += _run_folders(inner)
    # The folder is that of one run if it is called so, or holds a log and nothing else that is a run.
    is_run = len(logs) == 1 and (
        bool(_FOLDER.fullmatch(store.name)) or (loose, folders) == (logs, [])
    )
    found = [Part(log=log, folder=store if is_run and log in logs else None) for log in loose]
    for folder in folders:
        logs = _logs_in(folder)
        if not logs:
            found.append(Part(log=None, folder=folder))
        # More than one is nothing that W&B does: the folder's files are listed once.
        found += [Part(log=log, folder=None if index else folder) for index, log in enumerate(logs)]
    return found


def _logs_in(folder: Path) -> list[Path]:
    """Record logs in ``folder``, sorted."""
    if not folder.is_dir():
        return []
    return _unlinked(path for path in folder.iterdir() if path.suffix == ".wandb")


def _named(folder: Path) -> bool:
    """Whether something in ``folder`` is called as the folder of a run is, renamed or not."""
    return folder.is_dir() and any(_FOLDER.search(path.name) for path in folder.iterdir())


def _run_folders(folder: Path) -> list[Path]:
    """Folders of runs in ``folder``: called so, or with a log, whatever they are called.

    Raises :class:`SourceError` for one behind a link, but for W&B's own link ``latest-run``.
    """
    if not folder.is_dir():
        return []
    # What a run saved itself is none, where `folder` is that of a run.
    own = {"files"} if _logs_in(folder) else set()
    inner = [
        path
        for path in folder.iterdir()
        if path.name not in own
        and not (path.name == _LATEST and path.is_symlink())
        and path.is_dir()
    ]
    return _unlinked(path for path in inner if _FOLDER.fullmatch(path.name) or _holds_log(path))


def _holds_log(folder: Path) -> bool:
    try:
        return any(path.suffix == ".wandb" for path in folder.iterdir())
    except OSError:
        if folder.is_symlink():
            return False
        raise


def _unlinked(paths: Iterable[Path]) -> list[Path]:
    """``paths``, sorted. Raises :class:`SourceError` for a link: it could lead anywhere, and none is left out."""
    found = sorted(paths)
    for path in found:
        if path.is_symlink():
            raise SourceError(
                f"{quoted(str(path), 200)} is a link",
                remedy="Replace it by a copy of what it leads to, or remove it.",
            )
    return found


def _id_of(part: Part) -> str:
    """The id of a run whose log does not tell it, from the name of the log or of the folder."""
    if part.log is not None and part.log.name.startswith("run-"):
        return clean(part.log.name.removeprefix("run-").removesuffix(".wandb")) or ""
    found = _FOLDER.fullmatch(part.folder.name) if part.folder is not None else None
    return (clean(found["id"]) if found else None) or (clean(part.label) or "")


def _online(store: str) -> OnlineProject:
    if not store.startswith(ADDRESS):
        raise SourceError(
            f"no W&B project has the address {quoted(store, 200)}",
            remedy="Give wandb://ENTITY/PROJECT, or the folder wandb of the training.",
        )
    return OnlineProject(store)
