"""MLflow's file store: ``mlruns/EXPERIMENT/RUN`` with one file a parameter, tag and metric."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bundler.errors import MalformedError, SourceError
from bundler.importers.mlflow import (
    CLAMPED,
    STATUS,
    Experiment,
    choose,
    dataset,
    parameter_flags,
    split_tags,
    value_flags,
    walk_artefacts,
)
from bundler.importers.model import ArtefactFile, ImportedRun, MetricPoint
from bundler.records import DatasetVersion, FidelityFlag, Source
from bundler.strict_yaml import parse_yaml

META = "meta.yaml"


def is_store(path: Path) -> bool:
    """Whether ``path`` is a folder with an experiment's ``meta.yaml`` one level below."""
    return path.is_dir() and any(
        "experiment_id" in _meta(file.parent) for file in sorted(path.glob(f"*/{META}"))
    )


class FileStore:
    """One store, read anew at each question."""

    def __init__(self, store: Path, artefacts: Path | None) -> None:
        self._store = store
        self._artefacts = artefacts
        self._folders: dict[str, Path] = {}

    @classmethod
    @contextmanager
    def opened(cls, store: Path, artefacts: Path | None) -> Iterator[FileStore]:
        """Open the folder ``store``. Raises :class:`SourceError`, also for what goes wrong while reading."""
        try:
            reader = cls(store, artefacts)
            if not reader.experiments():
                raise SourceError(
                    f"{store} holds no MLflow experiment",
                    remedy="Give the folder mlruns itself: the one whose folders hold meta.yaml.",
                )
            yield reader
        except OSError as error:
            raise SourceError(
                f"{error.filename or store} cannot be read: {error.strerror or error}",
                remedy="Check path and permissions.",
            ) from None

    @classmethod
    @contextmanager
    def session(
        cls, store: Path, experiment: str | None, artefacts: Path | None
    ) -> Iterator[_Session]:
        """Open one experiment."""
        with cls.opened(store, artefacts) as reader:
            yield _Session(reader, choose(reader.experiments(), experiment, store))

    def experiments(self) -> list[Experiment]:
        """All experiments, those in the bin included, those with most runs first."""
        found = []
        for root in (self._store, self._store / ".trash"):
            for folder in _folders(root):
                meta = _meta(folder)
                if "experiment_id" not in meta or "run_id" in meta:
                    continue
                identity = str(meta["experiment_id"])
                self._folders[identity] = folder
                found.append(
                    Experiment(
                        id=identity,
                        name=str(meta.get("name")),
                        runs=len(self.run_folders(identity)),
                    )
                )
        return sorted(found, key=lambda each: (-each.runs, each.id))

    def run_folders(self, experiment: str) -> list[Path]:
        """The folders of the runs of an experiment."""
        folder = self._folders[experiment]
        return [
            path
            for path in _folders(folder)
            if (path / "metrics").is_dir() or "run_id" in _meta(path)
        ]

    def runs(self, experiment: Experiment) -> Iterator[ImportedRun]:
        """All runs, by start time and id."""
        pairs = [(path, _meta(path)) for path in self.run_folders(experiment.id)]
        pairs.sort(key=lambda pair: (_integer(pair[1].get("start_time")) or 0, pair[0].name))
        for folder, meta in pairs:
            yield self._run(experiment, folder, meta)

    def _run(self, experiment: Experiment, folder: Path, meta: dict[str, Any]) -> ImportedRun:
        flags: list[FidelityFlag] = []
        if not meta:
            flags.append(FidelityFlag(field="run", flag="unreadable", detail=META))
        parameters = _values(folder / "params")
        tags = _values(folder / "tags")
        code, others = split_tags(tags)
        points, replaced = _points(folder / "metrics", flags)
        flags += [*parameter_flags(parameters), *value_flags(points, replaced)]
        status = meta.get("status")
        return ImportedRun(
            source=Source(
                tracker="mlflow",
                store="files",
                experiment_id=experiment.id,
                experiment=experiment.name,
                run_id=folder.name,
            ),
            name=tags.get("mlflow.runName") or meta.get("run_name"),
            status=STATUS.get(status, "unknown") if isinstance(status, (int, str)) else "unknown",
            deleted=meta.get("lifecycle_stage") == "deleted",
            started=_integer(meta.get("start_time")),
            ended=_integer(meta.get("end_time")),
            code=code,
            data=tuple(self._datasets(experiment, folder)),
            parameters=parameters,
            tags=others,
            points=points,
            artefacts=tuple(self._files(experiment, folder, flags)),
            fidelity=tuple(flags),
        )

    def _datasets(self, experiment: Experiment, run: Path) -> Iterator[DatasetVersion]:
        found = []
        for folder in _folders(run / "inputs"):
            meta = _meta(folder)
            # The field that names the data set has changed between versions; one of them is its folder.
            for key in ("source_id", "destination_id"):
                described = _meta(self._folders[experiment.id] / "datasets" / _plain(meta.get(key)))
                if described:
                    break
            tags = meta.get("tags")
            found.append(
                dataset(
                    name=described.get("name", folder.name),
                    digest=described.get("digest"),
                    source=described.get("source"),
                    profile=described.get("profile"),
                    role=tags.get("mlflow.data.context") if isinstance(tags, dict) else None,
                )
            )
        yield from sorted(found, key=lambda each: (each.role or "", each.name))

    def _files(
        self, experiment: Experiment, run: Path, flags: list[FidelityFlag]
    ) -> Iterator[ArtefactFile]:
        """The run's own artefacts, which lie in its folder or that of the artefact server, and its logged models."""
        folder = run / "artifacts"
        if not folder.is_dir() and self._artefacts is not None:
            folder = self._artefacts / experiment.id / run.name / "artifacts"
        if folder.is_dir():
            yield from walk_artefacts(folder, "", flags)
        for model in _folders(self._folders[experiment.id] / "models"):
            meta = _meta(model)
            if meta.get("source_run_id") == run.name and (model / "artifacts").is_dir():
                yield from walk_artefacts(model / "artifacts", f"models/{model.name}/", flags)


class _Session:
    """The runs of one experiment."""

    def __init__(self, store: FileStore, experiment: Experiment) -> None:
        self._store = store
        self._experiment = experiment

    def __len__(self) -> int:
        return self._experiment.runs

    def __iter__(self) -> Iterator[ImportedRun]:
        return self._store.runs(self._experiment)


def _folders(root: Path) -> list[Path]:
    """Folders in ``root``, sorted; links are not followed."""
    if not root.is_dir():
        return []
    return sorted(
        Path(each.path) for each in os.scandir(root) if each.is_dir(follow_symlinks=False)
    )


def _meta(folder: Path) -> dict[str, Any]:
    """The folder's ``meta.yaml``, or nothing where it is missing or broken."""
    file = folder / META
    try:
        value = parse_yaml(file.read_bytes()) if file.is_file() else None
    except MalformedError:
        return {}
    return value if isinstance(value, dict) else {}


def _values(folder: Path) -> dict[str, str]:
    """One file a name; a slash in a name is a folder."""
    return {
        name: file.read_bytes().decode("utf-8", "backslashreplace") for name, file in _named(folder)
    }


def _named(folder: Path, prefix: str = "") -> Iterator[tuple[str, Path]]:
    if not folder.is_dir():
        return
    for entry in sorted(os.scandir(folder), key=lambda each: each.name):
        name = prefix + entry.name.encode("utf-8", "surrogateescape").decode(
            "utf-8", "backslashreplace"
        )
        if entry.is_dir(follow_symlinks=False):
            yield from _named(Path(entry.path), name + "/")
        elif entry.is_file(follow_symlinks=False):
            yield name, Path(entry.path)


def _points(
    folder: Path, flags: list[FidelityFlag]
) -> tuple[tuple[MetricPoint, ...], dict[str, int]]:
    points: list[MetricPoint] = []
    for name, file in _named(folder):
        rows = file.read_bytes().decode("utf-8", "backslashreplace").splitlines()
        mine = []
        for number, row in enumerate(rows, start=1):
            point = _point(name, row)
            if point is not None:
                mine.append(point)
            elif row.strip():
                flags.append(
                    FidelityFlag(
                        field=f"metrics.{name}",
                        flag="truncated",
                        detail=f"line {number} is no point",
                    )
                )
        points += sorted(mine, key=lambda each: (each.timestamp, each.step))
    # The file store writes NaN as such: nothing was replaced.
    return tuple(sorted(points, key=lambda each: each.metric)), {}


def _point(metric: str, row: str) -> MetricPoint | None:
    """A row ``timestamp value step``; the step is missing in old stores."""
    parts = row.split()
    try:
        timestamp, value = int(parts[0]), float(parts[1])
        step = int(parts[2]) if len(parts) > 2 else 0
    except (ValueError, IndexError):
        return None
    if not math.isnan(value) and not -CLAMPED < value < CLAMPED:
        value = math.copysign(math.inf, value)
    return MetricPoint(metric, step, timestamp, value)


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _plain(value: object) -> str:
    """A folder name, never a path."""
    text = str(value)
    return text if "/" not in text and text not in {".", ".."} else "-"
