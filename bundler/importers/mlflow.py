"""MLflow: tracking stores in a SQLite file and in a folder (file store), read without MLflow.

What MLflow does to values, and what is done about it here: NaN is stored as 0.0 beside a flag and comes back as NaN;
infinities are stored as the largest double and come back as infinities; parameters are text; a data set's digest covers
its first 10,000 rows and is kept as a label only. Each is named in the record's fidelity flags.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from bundler.errors import SourceError
from bundler.importers.model import ArtefactFile, ImportSession, MetricPoint
from bundler.records import CodeVersion, DatasetVersion, FidelityFlag, Status

CLAMPED = 1.797e308
"""MLflow's stand-in for infinity is the largest double; no real metric comes near this."""

PARAMETER_LIMIT = 6000
"""Characters after which MLflow cuts a parameter."""

STATUS: dict[object, Status] = {
    "RUNNING": "running",
    "SCHEDULED": "scheduled",
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "killed",
    1: "running",
    2: "scheduled",
    3: "finished",
    4: "failed",
    5: "killed",
}

_MOVED = {
    "mlflow.source.git.repoURL",
    "mlflow.source.git.commit",
    "mlflow.source.git.branch",
    "mlflow.source.name",
    "mlflow.runName",
}
"""Tags that have a place of their own in a record."""


class MlflowImporter:
    """Reads MLflow stores: a SQLite file, or a folder that holds ``meta.yaml`` of experiments."""

    name = "mlflow"

    def detect(self, folder: Path) -> tuple[Path, ...]:
        """SQLite files with MLflow's tables and folders in the form of its file store."""
        from bundler.importers import mlflow_files, mlflow_sql  # noqa: PLC0415  # they import this module

        found = [path for path in sorted(folder.iterdir()) if mlflow_sql.is_store(path)]
        folders = [folder / "mlruns", folder]
        found += [path for path in folders if mlflow_files.is_store(path)]
        return tuple(found)

    def experiments(self, store: Path) -> tuple[str, ...]:
        """Names of the experiments in ``store``, those with most runs first."""
        with _reader(store).opened(store, None) as reader:
            return tuple(each.name for each in reader.experiments())

    def open(
        self, store: Path, *, experiment: str | None, artefacts: Path | None
    ) -> AbstractContextManager[ImportSession]:
        """Open ``experiment``, by name or id, read-only; see :class:`bundler.importers.model.Importer`."""
        session: AbstractContextManager[ImportSession]
        session = _reader(store).session(store, experiment, artefacts)
        return session


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """An experiment of a store and how many runs it has."""

    id: str
    name: str
    runs: int


def _reader(store: Path) -> Any:
    from bundler.importers import mlflow_files, mlflow_sql  # noqa: PLC0415  # they import this module

    if store.is_dir():
        return mlflow_files.FileStore
    if store.is_file():
        return mlflow_sql.SqlStore
    raise SourceError(
        f"no MLflow store at {store}",
        remedy="Give the path of the SQLite file (mlflow.db) or of the folder mlruns.",
    )


def choose(experiments: Iterable[Experiment], wanted: str | None, store: Path) -> Experiment:
    """The experiment called ``wanted`` (name or id), or the only one that has runs."""
    known = list(experiments)
    matching = [each for each in known if wanted in {each.name, each.id}]
    if wanted is None:
        matching = [each for each in known if each.runs] or known
    if len(matching) != 1:
        names = ", ".join(f"{each.name} ({each.runs} runs)" for each in known) or "none"
        problem = f"no experiment {wanted!r}" if wanted is not None else "several experiments"
        raise SourceError(f"{store} has {problem}", remedy=f"Name one of: {names}.")
    return matching[0]


def split_tags(tags: Mapping[str, str]) -> tuple[CodeVersion, dict[str, str]]:
    """The code version that MLflow keeps in tags, and the other tags. A missing dirty tag does not mean clean."""
    code = CodeVersion(
        repository=tags.get("mlflow.source.git.repoURL"),
        commit=tags.get("mlflow.source.git.commit"),
        branch=tags.get("mlflow.source.git.branch"),
        entry_point=tags.get("mlflow.source.name"),
    )
    return code, {name: value for name, value in tags.items() if name not in _MOVED}


def dataset(
    *, name: object, digest: object, source: object, profile: object, role: object
) -> DatasetVersion:
    """A data set input. ``source`` and ``profile`` are JSON in text, as MLflow stores them."""
    rows = _loads(profile).get("num_rows")
    origin = _loads(source)
    where = origin.get("uri") or origin.get("path") or origin.get("url")
    return DatasetVersion(
        name=str(name),
        role=None if role is None else str(role),
        source=None if where is None else str(where),
        tracker_digest=None if digest is None else str(digest),
        rows=rows if isinstance(rows, int) and not isinstance(rows, bool) and rows >= 0 else None,
    )


def _loads(text: object) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        value = json.loads(str(text))
        if isinstance(value, dict):
            return value
    return {}


def value_flags(
    points: Iterable[MetricPoint], replaced: Mapping[str, int]
) -> Iterator[FidelityFlag]:
    """Flags for what MLflow did to metric values. ``replaced`` counts the NaNs of each metric."""
    clamped: dict[str, int] = {}
    seen: dict[str, set[tuple[int, int]]] = {}
    repeated: dict[str, int] = {}
    for metric, step, timestamp, value in points:
        if value in {float("inf"), float("-inf")}:
            clamped[metric] = clamped.get(metric, 0) + 1
        place = (step, timestamp)
        places = seen.setdefault(metric, set())
        if place in places:
            repeated[metric] = repeated.get(metric, 0) + 1
        places.add(place)
    for flag, counts in (
        ("nan_replaced", replaced),
        ("inf_clamped", clamped),
        ("duplicate_step", repeated),
    ):
        for metric, count in sorted(counts.items()):
            yield FidelityFlag(field=f"metrics.{metric}", flag=flag, detail=f"{count} points")


def parameter_flags(parameters: Mapping[str, str]) -> Iterator[FidelityFlag]:
    """Flags for parameters: MLflow keeps them as text, and cuts long ones."""
    if parameters:
        yield FidelityFlag(field="parameters", flag="type_lost", detail="MLflow keeps text only")
    for name, value in sorted(parameters.items()):
        if len(value) >= PARAMETER_LIMIT:
            yield FidelityFlag(
                field=f"parameters.{name}", flag="truncated", detail=f"{len(value)} characters"
            )


def artefact_folder(
    uri: str, store_folder: Path, artefacts: Path | None
) -> tuple[Path | None, str]:
    """Where the files behind ``uri`` lie, or ``None`` and the reason.

    An artefact server's ``mlflow-artifacts:/EXP/RUN/artifacts`` lies below ``artefacts`` (default: ``mlartifacts``
    beside the store). An absolute path of another machine is looked for by its last parts beside the store.
    """
    parts = urlsplit(uri)
    if parts.scheme == "mlflow-artifacts":
        root = artefacts or store_folder / "mlartifacts"
        return _inside(root, unquote(parts.path).strip("/")), "no folder of the artefact server"
    if parts.scheme not in {"", "file"} and not re.match(r"[A-Za-z]:[\\/]", uri):
        return None, f"{parts.scheme}: is not on this machine"
    path = Path(unquote(parts.path) if parts.scheme == "file" else uri)
    if not path.is_absolute():
        path = store_folder / path
    if path.is_dir():
        return path, ""
    tail = "/".join(path.parts[-3:])
    roots = [store_folder, store_folder / "mlruns", store_folder / "mlartifacts"]
    for root in [artefacts, *roots] if artefacts else roots:
        moved = _inside(root, tail)
        if moved is not None:
            return moved, ""
    return None, "the folder is not on this machine"


def _inside(root: Path, tail: str) -> Path | None:
    if ".." in Path(tail).parts:
        return None
    folder = root / tail
    return folder if folder.is_dir() else None


def walk_artefacts(folder: Path, prefix: str, flags: list[FidelityFlag]) -> Iterator[ArtefactFile]:
    """All regular files below ``folder``, sorted by path. Links are not followed, but flagged."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        flags.append(
            FidelityFlag(field="artefacts", flag="unreadable", detail=f"{prefix}: {error.strerror}")
        )
        return
    for entry in entries:
        path = f"{prefix}{_text(entry.name)}"
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            yield from walk_artefacts(Path(entry.path), f"{path}/", flags)
        elif stat.S_ISREG(mode):
            yield ArtefactFile(path=path, file=Path(entry.path))
        else:
            kind = "symlink_skipped" if stat.S_ISLNK(mode) else "special_skipped"
            flags.append(FidelityFlag(field="artefacts", flag=kind, detail=path))


def _text(name: str) -> str:
    """A file name that is not UTF-8, as text that says so."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
