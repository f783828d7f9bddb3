"""MLflow's SQLite store, by direct SQL: 1,000 runs with a million metric points in seconds.

The file is opened so that SQLite writes nothing, no journal and no lock. A store that a server is writing (it has a
journal or write-ahead log beside it) is copied first, with these, and read from the copy.
"""

from __future__ import annotations

import math
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bundler.errors import SourceError
from bundler.importers.mlflow import (
    CLAMPED,
    STATUS,
    Experiment,
    artefact_folder,
    choose,
    dataset,
    parameter_flags,
    split_tags,
    value_flags,
    walk_artefacts,
)
from bundler.importers.model import ArtefactFile, ImportedRun, MetricPoint
from bundler.records import DatasetVersion, FidelityFlag, Source

COLUMNS = {
    "experiments": {"experiment_id", "name"},
    "runs": {
        "run_uuid", "experiment_id", "status", "start_time", "end_time", "lifecycle_stage", "artifact_uri",
    },
    "params": {"run_uuid", "key", "value"},
    "tags": {"run_uuid", "key", "value"},
    "metrics": {"run_uuid", "key", "value", "timestamp", "step", "is_nan"},
}  # fmt: skip
"""The tables and columns that are read. They are checked, not the version of the schema."""

OPTIONAL = {
    "inputs": {"input_uuid", "source_id", "destination_id"},
    "input_tags": {"input_uuid", "name", "value"},
    "datasets": {"dataset_uuid", "name", "digest", "dataset_source", "dataset_profile"},
    "logged_models": {"model_id", "source_run_id", "artifact_location"},
}
"""Tables that older versions of MLflow do not have."""


def is_store(path: Path) -> bool:
    """Whether ``path`` is a SQLite file with MLflow's tables."""
    try:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\0":
                return False
        with SqlStore.opened(path, None):
            return True
    except (OSError, SourceError):
        return False


class SqlStore:
    """One open store."""

    def __init__(self, connection: sqlite3.Connection, store: Path, artefacts: Path | None) -> None:
        self._connection = connection
        self._store = store
        self._artefacts = artefacts
        self._optional = {
            name for name, wanted in OPTIONAL.items() if wanted <= self._columns(name)
        }
        for table, wanted in COLUMNS.items():
            missing = wanted - self._columns(table)
            if missing:
                raise SourceError(
                    f"{store} is no MLflow store that can be read: table {table} lacks"
                    f" {', '.join(sorted(missing))}",
                    remedy="Upgrade a copy of the store with `mlflow db upgrade sqlite:///COPY`.",
                )

    @classmethod
    @contextmanager
    def opened(cls, store: Path, artefacts: Path | None) -> Iterator[SqlStore]:
        """Open the file ``store``. Raises :class:`SourceError`, also for what goes wrong while reading."""
        try:
            with _readable(store) as file:
                uri = f"file:{quote(str(file.resolve()))}?mode=ro&immutable=1"
                connection = sqlite3.connect(uri, uri=True)
                try:
                    # A text column that is not UTF-8 must not end the import.
                    connection.text_factory = lambda data: data.decode("utf-8", "backslashreplace")
                    yield cls(connection, store, artefacts)
                finally:
                    connection.close()
        except sqlite3.Error as error:
            raise SourceError(
                f"{store} cannot be read as a SQLite database: {error}",
                remedy="Check it with `sqlite3 FILE 'PRAGMA integrity_check'` and use an intact copy.",
            ) from None
        except OSError as error:
            raise SourceError(
                f"{store} cannot be read: {error.strerror or error}",
                remedy="Check path and permissions.",
            ) from None

    @classmethod
    @contextmanager
    def session(
        cls, store: Path, experiment: str | None, artefacts: Path | None
    ) -> Iterator[_Session]:
        """Open one experiment. A store that changes meanwhile is refused: half of it would be old."""
        with cls.opened(store, artefacts) as reader:
            before = _identity(store)
            yield _Session(reader, choose(reader.experiments(), experiment, store))
            if _identity(store) != before:
                raise SourceError(
                    f"{store} changed while it was being read",
                    remedy="Stop what writes into it, or import a copy.",
                )

    def experiments(self) -> list[Experiment]:
        """All experiments, deleted ones included, those with most runs first."""
        rows = self._connection.execute(
            "SELECT e.experiment_id, e.name, count(r.run_uuid) FROM experiments e"
            " LEFT JOIN runs r ON r.experiment_id = e.experiment_id"
            " GROUP BY e.experiment_id ORDER BY 3 DESC, e.experiment_id"
        )
        return [Experiment(id=str(key), name=str(name), runs=count) for key, name, count in rows]

    def count(self, experiment: Experiment) -> int:
        """Number of runs of ``experiment``."""
        query = "SELECT count(*) FROM runs WHERE CAST(experiment_id AS TEXT) = ?"
        return int(self._connection.execute(query, (experiment.id,)).fetchone()[0])

    def runs(self, experiment: Experiment) -> Iterator[ImportedRun]:
        """All runs of ``experiment``, one in memory at a time."""
        rows = self._connection.execute(
            "SELECT run_uuid, status, start_time, end_time, lifecycle_stage, artifact_uri FROM runs"
            " WHERE CAST(experiment_id AS TEXT) = ? ORDER BY start_time, run_uuid",
            (experiment.id,),
        ).fetchall()
        for row in rows:
            try:
                yield self._run(experiment, *row)
            except (TypeError, ValueError, OverflowError) as error:
                raise SourceError(
                    f"{self._store}: run {row[0]} holds a value of the wrong type: {error}",
                    remedy="Check the store with `sqlite3 FILE 'PRAGMA integrity_check'`.",
                ) from None

    def _run(  # noqa: PLR0913  # the columns of a row
        self,
        experiment: Experiment,
        run_id: str,
        status: str,
        started: int | None,
        ended: int | None,
        stage: str,
        uri: str | None,
    ) -> ImportedRun:
        parameters = self._pairs("params", run_id)
        tags = self._pairs("tags", run_id)
        code, others = split_tags(tags)
        points, replaced = self._points(run_id)
        flags = [*parameter_flags(parameters), *value_flags(points, replaced)]
        artefacts = tuple(self._files(run_id, uri, flags))
        return ImportedRun(
            source=Source(
                tracker="mlflow",
                store="sqlite",
                experiment_id=experiment.id,
                experiment=experiment.name,
                run_id=str(run_id),
            ),
            name=tags.get("mlflow.runName"),
            status=STATUS.get(status, "unknown"),
            deleted=stage == "deleted",
            started=None if started is None else int(started),
            ended=None if ended is None else int(ended),
            code=code,
            data=tuple(self._datasets(run_id)),
            parameters=parameters,
            tags=others,
            points=points,
            artefacts=artefacts,
            fidelity=tuple(flags),
        )

    def _pairs(self, table: str, run_id: str) -> dict[str, str]:
        query = f"SELECT key, value FROM {table} WHERE run_uuid = ? ORDER BY key"  # noqa: S608  # fixed names
        return {str(key): str(value) for key, value in self._connection.execute(query, (run_id,))}

    def _points(self, run_id: str) -> tuple[tuple[MetricPoint, ...], dict[str, int]]:
        """The run's points in order of (metric, timestamp, step, logging), and the number of NaNs of each metric."""
        rows = self._connection.execute(
            "SELECT key, step, timestamp, value, is_nan FROM metrics WHERE run_uuid = ?"
            " ORDER BY key, timestamp, step, rowid",
            (run_id,),
        )
        points = []
        replaced: dict[str, int] = {}
        for key, step, timestamp, value, is_nan in rows:
            if is_nan:
                replaced[key] = replaced.get(key, 0) + 1
                value = math.nan  # noqa: PLW2901  # MLflow stores 0.0
            elif not -CLAMPED < value < CLAMPED:
                value = math.copysign(math.inf, value)  # noqa: PLW2901
            points.append(MetricPoint(str(key), int(step), int(timestamp), float(value)))
        return tuple(points), replaced

    def _datasets(self, run_id: str) -> Iterator[DatasetVersion]:
        if not {"inputs", "input_tags", "datasets"} <= self._optional:
            return
        rows = self._connection.execute(
            "SELECT d.name, d.digest, d.dataset_source, d.dataset_profile, t.value FROM inputs i"
            " JOIN datasets d ON d.dataset_uuid = i.source_id"
            " LEFT JOIN input_tags t ON t.input_uuid = i.input_uuid AND t.name = 'mlflow.data.context'"
            " WHERE i.destination_id = ? ORDER BY t.value, d.name, d.digest",
            (run_id,),
        )
        for name, digest, source, profile, role in rows:
            yield dataset(name=name, digest=digest, source=source, profile=profile, role=role)

    def _files(
        self, run_id: str, uri: str | None, flags: list[FidelityFlag]
    ) -> Iterator[ArtefactFile]:
        places = [("", uri)] if uri else []
        if "logged_models" in self._optional:
            models = self._connection.execute(
                "SELECT model_id, artifact_location FROM logged_models WHERE source_run_id = ? ORDER BY model_id",
                (run_id,),
            )
            places += [(f"models/{model}/", location) for model, location in models if location]
        for prefix, location in places:
            folder, reason = artefact_folder(location, self._store.parent, self._artefacts)
            if folder is not None:
                yield from walk_artefacts(folder, prefix, flags)
            elif reason != "no folder of the artefact server":
                flags.append(
                    FidelityFlag(field="artefacts", flag="artefacts_unreachable", detail=reason)
                )

    def _columns(self, table: str) -> set[str]:
        return {row[1] for row in self._connection.execute(f"PRAGMA table_info({table})")}


class _Session:
    """The runs of one experiment."""

    def __init__(self, store: SqlStore, experiment: Experiment) -> None:
        self._store = store
        self._experiment = experiment

    def __len__(self) -> int:
        return self._store.count(self._experiment)

    def __iter__(self) -> Iterator[ImportedRun]:
        return self._store.runs(self._experiment)


@contextmanager
def _readable(store: Path) -> Iterator[Path]:
    """The file itself; a copy, together with its journals, if there are any: SQLite then works on the copy."""
    journals = [Path(f"{store}{suffix}") for suffix in ("-wal", "-journal")]
    live = [path for path in journals if path.exists() and path.stat().st_size > 0]
    if not live:
        yield store
        return
    with tempfile.TemporaryDirectory(prefix="aisdp-mlflow-") as folder:
        for path in (store, *live):
            shutil.copyfile(path, Path(folder) / path.name)
        copy = Path(folder) / store.name
        # Opening it once for writing plays the journal back into the copy.
        connection = sqlite3.connect(copy)
        connection.execute("PRAGMA journal_mode=DELETE").fetchall()
        connection.close()
        yield copy


def _identity(store: Path) -> Any:
    status = store.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
