"""MLflow's file store: ``mlruns/EXPERIMENT/RUN`` with one file a parameter, tag and metric."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bundler.errors import MalformedError, SourceError, quoted
from bundler.importers.experiments import Experiment, ordered
from bundler.importers.files import too_large, unreadable, walk
from bundler.importers.mlflow import metrics
from bundler.importers.mlflow import values as mlflow_values
from bundler.importers.mlflow.artefacts import Places
from bundler.importers.mlflow.changes import state_of
from bundler.importers.model import ArtefactFile, ImportedRun
from bundler.importers.values import Flags, clean, flag_steps, readable_name, text
from bundler.records import DatasetVersion, Source
from bundler.strict_yaml import parse_yaml

_Model = tuple[Path, object]
"""The folder of a logged model, and where its ``meta.yaml`` says its files are."""

_START = re.compile(rb"^start_time: (-?[0-9]{1,15})\r?$", re.MULTILINE)
"""How MLflow writes the start of a run. Any other way is left to the YAML parser."""

META = "meta.yaml"
BIN = ".trash"

# A re-run's output is read by this module: its maker may want to exhaust the reader.
MAX_META = 1 << 20
"""Most bytes of a ``meta.yaml``; MLflow keeps data set schemas of up to 1 MB."""

MAX_TEXT = 64 << 20
"""Most bytes of all parameters and tags of one run."""

_RESERVED = {"tags", "datasets", "traces", "models"}
"""Folders of an experiment that are no runs; ``models`` beside the experiments is the model registry."""

_FIELD = {"params": "parameters", "tags": "tags", "metrics": "metrics"}
"""What the record calls what lies in a run's folders."""


def is_store(path: Path) -> bool:
    """Whether ``path`` is a folder with an experiment's ``meta.yaml`` one level below."""
    try:
        return any(_describes_experiment(_meta(each)) for each in _folders(path, top=True))
    except (OSError, SourceError):
        return False


class FileStore:
    """One store, read anew at each question."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._folders: dict[str, Path] = {}
        self._states: dict[Path, bytes] = {}

    def experiments(self) -> list[Experiment]:
        """All experiments, those in the bin included, those with most runs first."""
        try:
            found = [
                each
                for root in (self._store, self._store / BIN)
                for folder in _folders(root, top=root == self._store)
                if folder.name not in {BIN, "models"} and (each := self._experiment(folder))
            ]
        except OSError as error:
            raise unreadable(self._store, error) from None
        if not found:
            raise SourceError(
                f"{quoted(str(self._store), 200)} holds no MLflow experiment",
                remedy="Give the folder mlruns itself: the one whose folders hold meta.yaml.",
            )
        return ordered(found)

    def _experiment(self, folder: Path) -> Experiment | None:
        runs = len(_run_folders(folder))
        meta = _meta(folder)
        if "run_id" in (meta or {}) or not ((folder / META).exists() or _holds_runs(folder)):
            return None
        identity = (meta or {}).get("experiment_id")
        if meta is None or not isinstance(identity, str | int):
            # Leaving it out in silence would leave out its runs.
            raise SourceError(
                f"{quoted(str(folder / META), 200)} does not describe an experiment",
                remedy="Restore the file, or move the folder out of the store.",
            )
        identity = clean(identity) or ""
        if self._folders.setdefault(identity, folder) != folder:
            raise SourceError(
                f"{quoted(str(self._store), 200)} holds experiment {quoted(identity)} twice",
                remedy=f"Move one of the folders {quoted(self._folders[identity].name)} and"
                f" {quoted(folder.name)} out of the store.",
            )
        return Experiment(
            id=identity,
            name=clean(meta.get("name")) or "",
            runs=runs,
            deleted=meta.get("lifecycle_stage") == "deleted" or folder.parent.name == BIN,
        )

    def candidates(self, wanted: str | None) -> list[Experiment]:
        """All experiments: counting their runs costs little here."""
        return self.experiments()

    def runs(self, experiment: Experiment, places: Places) -> Iterator[ImportedRun]:
        """All runs, by start time and id."""
        folder = self._folders[experiment.id]
        state = self._states.get(folder) or state_of(folder)
        try:
            # No more than this of all runs is in memory at a time.
            order = sorted((*_start(path), path.name) for path in _run_folders(folder))
            produced: dict[str, list[_Model]] = {}
            for path in _folders(folder / "models"):
                meta = _meta(path) or {}
                model = path, meta.get("artifact_location")
                produced.setdefault(str(meta.get("source_run_id")), []).append(model)
            datasets = _Datasets(_folders(folder / "datasets"))
        except OSError as error:
            raise unreadable(folder, error) from None
        self._states[folder] = state
        if len(order) != experiment.runs:
            raise self._changed()
        for _, _, name in order:
            path = folder / name
            try:
                reader = _Run(experiment, path, _meta(path), places)
                run = reader.read(datasets, produced.get(name, []))
            except OSError as error:
                raise unreadable(path, error) from None
            yield run

    def check(self) -> None:
        """Refuse a store whose runs, or what they logged, are not what they were when they were first read."""
        for folder, state in self._states.items():
            if state_of(folder) != state:
                raise self._changed()

    def _changed(self) -> SourceError:
        return SourceError(
            f"{quoted(str(self._store), 200)} changed while it was being read",
            remedy="Stop what writes into it, or import a copy.",
        )


class _Datasets:
    """The data sets of an experiment, each read once: many runs share them."""

    def __init__(self, folders: list[Path]) -> None:
        self._folders = {folder.name: folder for folder in folders}
        self._known: dict[str, dict[str, Any]] = {}

    def find(self, identity: str) -> dict[str, Any]:
        """The description of a data set; nothing if there is none. A path is no identity."""
        if identity in self._folders and identity not in self._known:
            self._known[identity] = _meta(self._folders[identity]) or {}
        return self._known.get(identity, {})


class _Run:
    """Reads one run's folder."""

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        meta: dict[str, Any] | None,
        places: Places,
    ) -> None:
        self._experiment = experiment
        self._folder = folder
        self._meta = meta or {}
        self._places = places
        self._flag = Flags()
        self._read = 0
        if meta is None:
            self._flag("run", "unreadable", META)

    def read(self, datasets: _Datasets, models: list[_Model]) -> ImportedRun:
        """The run, its data sets described in ``datasets`` and its ``models`` included."""
        meta = self._meta
        run_id = readable_name(self._folder.name, self._flag, "run")
        if str(meta.get("run_id", meta.get("run_uuid", run_id))) != run_id:
            self._flag("run", "id_mismatch", "meta.yaml names another run")
        parameters = self._values("params")
        tags = self._values("tags")
        code, others = mlflow_values.split_tags(tags)
        points = tuple(metrics.points(self._folder, self._named("metrics"), self._flag))
        flag_steps(points, self._flag)
        mlflow_values.flag_texts(parameters, others, self._flag)
        name = tags.get("mlflow.runName") or meta.get("run_name")
        return ImportedRun(
            source=Source(
                tracker="mlflow",
                store="files",
                experiment_id=self._experiment.id,
                experiment=self._experiment.name,
                run_id=run_id,
            ),
            name=clean(name),
            status=mlflow_values.status_of(meta.get("status")),
            deleted=self._experiment.deleted or meta.get("lifecycle_stage") == "deleted",
            started=mlflow_values.moment("start_time", meta.get("start_time"), self._flag),
            ended=mlflow_values.moment("end_time", meta.get("end_time"), self._flag),
            code=code,
            data=mlflow_values.sorted_datasets(self._datasets(datasets)),
            parameters=parameters,
            tags=others,
            points=points,
            artefacts=tuple(self._files(models)),
            fidelity=self._flag.all(),
        )

    def _values(self, group: str) -> dict[str, str]:
        """One file a name."""
        field = _FIELD[group]
        return {name: self._text(f"{field}.{name}", file) for name, file in self._named(group)}

    def _text(self, field: str, file: Path) -> str:
        data = _bytes(file, MAX_TEXT)
        self._read += len(data)
        if self._read > MAX_TEXT:
            raise too_large(self._folder, f"{MAX_TEXT:,} bytes of parameters and tags")
        try:
            return data.decode()
        except UnicodeDecodeError:
            self._flag(field, "not_utf8", "")
            return text(data)

    def _named(self, group: str) -> list[tuple[str, Path]]:
        """Files of ``group`` by name; a slash in a name is a folder. What cannot be read is flagged."""

        def flag(_: str, flag: str, detail: str) -> None:
            self._flag(_FIELD[group], flag, detail)

        files = walk(self._folder / group, "", flag)
        return [(each.path, each.file) for each in files if each.file is not None]

    def _datasets(self, described: _Datasets) -> Iterator[DatasetVersion]:
        for folder in _folders(self._folder / "inputs"):
            meta = _meta(folder)
            if meta is None:
                self._flag("data", "unreadable", f"inputs/{folder.name}/{META}")
                continue
            if meta.get("source_type") != "DATASET":
                continue  # a model that the run started from
            identity = str(meta.get("source_id"))
            dataset = described.find(identity)
            if not dataset:
                self._flag("data", "unreadable", f"datasets/{identity}")
            tags = meta.get("tags")
            yield mlflow_values.dataset(
                name=dataset.get("name", identity),
                digest=dataset.get("digest"),
                source=dataset.get("source"),
                profile=dataset.get("profile"),
                role=tags.get("mlflow.data.context") if isinstance(tags, dict) else None,
            )

    def _files(self, models: list[_Model]) -> Iterator[ArtefactFile]:
        """The run's own artefacts and its logged models.

        They lie in its folder; MLflow makes that folder even if the artefacts go to a server or elsewhere.
        """
        places = [("", self._folder, self._meta.get("artifact_uri"))]
        places += [(f"models/{model.name}/", model, uri) for model, uri in models]
        for prefix, folder, uri in places:
            found: Path | None = folder / "artifacts"
            if isinstance(uri, str) and not _holds(uri, folder / "artifacts"):
                elsewhere, problem = self._places.find(uri)
                # A server may keep them here all the same.
                found = elsewhere or (found if _is_filled(folder / "artifacts") else None)
                if found is None and problem:
                    self._flag("artefacts", "artefacts_unreachable", f"{prefix}{problem}")
            if found is not None:
                yield from walk(found, prefix, self._flag)


def _describes_experiment(meta: dict[str, Any] | None) -> bool:
    return "experiment_id" in (meta or {}) and "run_id" not in (meta or {})


def _holds_runs(folder: Path) -> bool:
    """Whether a folder without ``meta.yaml`` was an experiment."""
    return any("run_id" in (_meta(each) or {}) for each in _run_folders(folder))


def _folders(root: Path, *, top: bool = False) -> list[Path]:
    """Folders in ``root``, sorted. Raises :class:`SourceError` for a link that MLflow would follow.

    It could lead anywhere, and leaving it out in silence would leave out what it leads to. ``top`` is the store
    itself, which the user has named.
    """
    if root.is_symlink() and not top and root.exists():
        raise _link(root)
    if not root.is_dir():
        return []
    found = []
    for entry in os.scandir(root):
        if entry.is_dir(follow_symlinks=False):
            found.append(Path(entry.path))
        elif entry.is_symlink() and (Path(entry.path) / META).exists():
            raise _link(Path(entry.path))
    return sorted(found)


def _run_folders(experiment: Path) -> list[Path]:
    """What is, or was, a run: MLflow makes all of these folders with it. A store in a database has only artefacts."""
    return [
        path
        for path in _folders(experiment)
        if path.name not in _RESERVED
        and ((path / META).exists() or any((path / each).is_dir() for each in _FIELD))
    ]


def _meta(folder: Path) -> dict[str, Any] | None:
    """The folder's ``meta.yaml``, or ``None`` where it is missing, broken or a link."""
    file = folder / META
    if file.is_symlink() or not file.is_file():
        return None
    try:
        value = parse_yaml(_bytes(file, MAX_META))
    except (MalformedError, ValueError, TypeError, LookupError, ArithmeticError):
        return None  # PyYAML lets through what int() and datetime() raise
    return value if isinstance(value, dict) else None


def _start(run: Path) -> tuple[bool, int]:
    """The start of a run, for the order; runs without one come first, as in SQL.

    The whole description is read again with the run: YAML takes long, and all of them would be too much for memory.
    """
    file = run / META
    if not file.is_symlink() and file.is_file():
        lines = _START.findall(_bytes(file, MAX_META))
        if len(lines) == 1:
            start = mlflow_values.in_range(int(lines[0]))
            return start is not None, start or 0
    start = mlflow_values.moment("", (_meta(run) or {}).get("start_time"), lambda *_: None)
    return start is not None, start or 0


def _holds(uri: str, own: Path) -> bool:
    """Whether ``uri`` is the folder ``own``, be it where the store was before it was moved here."""
    elsewhere = re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", uri) and not uri.startswith("file:")
    return not elsewhere and re.split(r"[\\/]", uri)[-3:] == list(own.parts[-3:])


def _is_filled(folder: Path) -> bool:
    return folder.is_symlink() or (folder.is_dir() and any(folder.iterdir()))


def _link(path: Path) -> SourceError:
    return SourceError(
        f"{quoted(str(path), 200)} is a link",
        remedy="Replace it by a copy of what it leads to, or remove it.",
    )


def _bytes(file: Path, limit: int) -> bytes:
    """What ``file`` holds. Raises :class:`SourceError` for more than ``limit`` bytes."""
    with file.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size > limit:
            raise too_large(file, f"{limit:,} bytes")
        return stream.read(limit)
