"""MLflow's SQL store, by direct SQL: 1,000 runs with a million metric points in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bundler.errors import SourceError, quoted
from bundler.importers.experiments import Experiment, ordered
from bundler.importers.files import walk
from bundler.importers.mlflow import database
from bundler.importers.mlflow import values as mlflow_values
from bundler.importers.mlflow.artefacts import Places
from bundler.importers.mlflow.database import Database
from bundler.importers.model import ArtefactFile, ImportedRun, MetricPoint
from bundler.importers.values import Flags, flag_steps
from bundler.records import DatasetVersion, Source

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
    "inputs": {"input_uuid", "source_type", "source_id", "destination_id"},
    "input_tags": {"input_uuid", "name", "value"},
    "datasets": {"dataset_uuid", "name", "digest", "dataset_source", "dataset_profile"},
    "logged_models": {"model_id", "source_run_id", "artifact_location"},
}
"""Tables that older versions of MLflow do not have."""

_LOOKUPS = {
    "runs": "run_uuid",
    "params": "run_uuid",
    "tags": "run_uuid",
    "metrics": "run_uuid",
    "inputs": "destination_id",
    "input_tags": "input_uuid",
    "datasets": "dataset_uuid",
    "logged_models": "source_run_id",
}
"""By which column each table is asked, once a run."""


class _Row(NamedTuple):
    run_id: str
    name: str | None
    status: str
    started: int | None
    ended: int | None
    stage: str
    uri: str | None


def is_store(path: Path) -> bool:
    """Whether ``path`` is a SQLite file with MLflow's tables."""
    try:
        if not path.is_file():
            return False
        with opened(path):
            return True
    except (OSError, SourceError):
        return False


@contextmanager
def opened(store: Path) -> Iterator[SqlStore]:
    """Open the SQLite file ``store``. Raises :class:`SourceError`."""
    with database.opened(store) as file:
        yield SqlStore(file)


# The queries name each column with its table: ``key`` alone is a word of MySQL's own.
class SqlStore:
    """One open store."""

    def __init__(self, tables: Database) -> None:
        self._tables = tables
        columns = {name: tables.columns(name) for name in (*COLUMNS, *OPTIONAL)}
        for table, wanted in COLUMNS.items():
            missing = wanted - columns[table].keys()
            if missing:
                raise SourceError(
                    f"{tables.shown} is no MLflow store that can be read: table {table} lacks"
                    f" {', '.join(sorted(missing))}",
                    remedy="Give MLflow's database; if it is an old one, upgrade a copy of it with"
                    " `mlflow db upgrade`.",
                )
        self._optional = {
            name for name, wanted in OPTIONAL.items() if wanted <= columns[name].keys()
        }
        self._limit = _limit(columns["params"]["value"])
        self._named = "r.name" if "name" in columns["runs"] else "NULL"
        self._staged = (
            "e.lifecycle_stage" if "lifecycle_stage" in columns["experiments"] else "NULL"
        )
        self._keys: dict[str, object] = {}

    def check(self) -> None:
        """Refuse a store that is not what it was when it was opened."""
        self._tables.check()

    def experiments(self) -> list[Experiment]:
        """All experiments, deleted ones included, those with most runs first."""
        query = (
            f"SELECT e.experiment_id, e.name, {self._staged}, (SELECT count(*) FROM runs r"  # noqa: S608  # a fixed name
            " WHERE r.experiment_id = e.experiment_id) FROM experiments e"
        )
        rows = list(self._tables.rows(query))
        # A number in most databases, and compared as what it is.
        self._keys = {str(key): key for key, *_ in rows}
        return ordered(
            Experiment(id=str(key), name=str(name), runs=count, deleted=stage == "deleted")
            for key, name, stage, count in rows
        )

    def candidates(self, wanted: str | None) -> list[Experiment]:
        """All experiments: counting their runs costs little here."""
        return self.experiments()

    def runs(self, experiment: Experiment, places: Places) -> Iterator[ImportedRun]:
        """All runs of ``experiment``, one in memory at a time."""
        self._tables.prepare(
            {
                table: column
                for table, column in _LOOKUPS.items()
                if table in COLUMNS or table in self._optional
            }
        )
        for run_id in self._order(experiment):
            try:
                run = self._run(experiment, self._row(run_id), places)
            except (TypeError, ValueError, OverflowError) as error:
                raise self._wrong(f"run {quoted(run_id)}: {error}") from None
            except OSError as error:
                raise SourceError(
                    f"the files of run {quoted(run_id)} of {self._tables.shown} cannot be looked for:"
                    f" {error.strerror or error}",
                    remedy="Check path and permissions.",
                ) from None
            yield run

    def _order(self, experiment: Experiment) -> list[str]:
        """Ids of the runs of ``experiment`` by start and id; runs without a start come first."""
        found = []
        query = "SELECT r.run_uuid, r.start_time FROM runs r WHERE r.experiment_id = :experiment"
        for run_id, start in self._tables.rows(query, experiment=self._keys[experiment.id]):
            if not isinstance(run_id, str) or "\\" in run_id:
                # A backslash stands for bytes that are not UTF-8: nothing would be found under this id.
                raise self._wrong(f"run id {quoted(run_id)}")
            moment = mlflow_values.in_range(start)
            found.append((moment is not None, moment or 0, run_id))
        return [run_id for _, _, run_id in sorted(found)]

    def _row(self, run_id: str) -> _Row:
        query = (
            f"SELECT r.run_uuid, {self._named}, r.status, r.start_time, r.end_time, r.lifecycle_stage,"  # noqa: S608  # a fixed name
            " r.artifact_uri FROM runs r WHERE r.run_uuid = :run"
        )
        self._tables.mangled()
        rows = list(self._tables.rows(query, run=run_id))
        if len(rows) != 1:
            self.check()
            raise ValueError(f"{len(rows)} rows instead of one")
        return _Row._make(rows[0])

    def _run(self, experiment: Experiment, row: _Row, places: Places) -> ImportedRun:
        flags = Flags()
        parameters = self._pairs("params", row.run_id)
        tags = self._pairs("tags", row.run_id)
        code, others = mlflow_values.split_tags(tags)
        points = self._points(row.run_id, flags)
        mlflow_values.flag_texts(parameters, others, flags, self._limit)
        data = self._datasets(row.run_id)
        files = tuple(self._files(row, places, flags))
        mangled = self._tables.mangled()
        if mangled:
            flags("run", "not_utf8", f"{mangled} texts")
        return ImportedRun(
            source=Source(
                tracker="mlflow",
                store=self._tables.kind,
                experiment_id=experiment.id,
                experiment=experiment.name,
                run_id=row.run_id,
            ),
            name=tags.get("mlflow.runName") or row.name,
            status=mlflow_values.status_of(row.status),
            deleted=experiment.deleted or row.stage == "deleted",
            started=mlflow_values.moment("start_time", _whole(row.started), flags),
            ended=mlflow_values.moment("end_time", _whole(row.ended), flags),
            code=code,
            data=data,
            parameters=parameters,
            tags=others,
            points=points,
            artefacts=files,
            fidelity=flags.all(),
        )

    def _pairs(self, table: str, run_id: str) -> dict[str, str]:
        query = f"SELECT t.key, t.value FROM {table} t WHERE t.run_uuid = :run"  # noqa: S608  # fixed names
        pairs = {}
        left = database.MAX_TEXT
        for key, value in self._tables.rows(query, run=run_id):
            text = "" if value is None else _word(value)
            left -= len(text)
            if left < 0:
                raise database.exhausting(self._tables.shown)
            name = _word(key)
            if name in pairs:
                # One of the two would be lost.
                raise ValueError(f"{quoted(name)} twice in table {table}")
            pairs[name] = text
        return dict(sorted(pairs.items()))

    def _points(self, run_id: str, flags: Flags) -> tuple[MetricPoint, ...]:
        """The run's points in order of (metric, timestamp, step, logging)."""
        rows = self._tables.rows(
            "SELECT m.key, m.step, m.timestamp, m.value, m.is_nan FROM metrics m"  # noqa: S608  # a fixed text
            f" WHERE m.run_uuid = :run{self._tables.as_logged}",
            stream=True,
            run=run_id,
        )
        points = mlflow_values.stored_points(rows, flags)
        if not self._tables.as_logged:
            mlflow_values.by_value(points, flags)
        flag_steps(points, flags)
        return tuple(points)

    def _datasets(self, run_id: str) -> tuple[DatasetVersion, ...]:
        if not {"inputs", "input_tags", "datasets"} <= self._optional:
            return ()
        rows = self._tables.rows(
            "SELECT coalesce(d.name, i.source_id), d.digest, d.dataset_source, d.dataset_profile, t.value"
            " FROM inputs i LEFT JOIN datasets d ON d.dataset_uuid = i.source_id"
            " LEFT JOIN input_tags t ON t.input_uuid = i.input_uuid AND t.name = 'mlflow.data.context'"
            " WHERE i.destination_id = :run AND i.source_type = 'DATASET'",
            run=run_id,
        )
        return mlflow_values.sorted_datasets(
            mlflow_values.dataset(
                name=name, digest=digest, source=source, profile=profile, role=role
            )
            for name, digest, source, profile, role in rows
        )

    def _files(self, row: _Row, places: Places, flags: Flags) -> Iterator[ArtefactFile]:
        locations = [("", row.uri)]
        if "logged_models" in self._optional:
            query = (
                "SELECT l.model_id, l.artifact_location FROM logged_models l"
                " WHERE l.source_run_id = :run"
            )
            models = self._tables.rows(query, run=row.run_id)
            named = sorted((str(name), uri) for name, uri in models)
            locations += [(f"models/{model}/", uri) for model, uri in named]
        for prefix, uri in locations:
            folder, problem = places.find(uri) if uri else (None, "")
            if folder is not None:
                yield from walk(folder, prefix, flags)
            elif problem:
                flags("artefacts", "artefacts_unreachable", f"{prefix}{problem}")

    def _wrong(self, problem: str) -> SourceError:
        return SourceError(
            f"{self._tables.shown} holds a value of the wrong type: {problem}",
            remedy=self._tables.advice,
        )


def _limit(declared: str) -> int:
    """After how many characters a parameter is cut: MLflow's limit, or that of an older schema (``VARCHAR(250)``)."""
    digits = "".join(character for character in declared if character in "0123456789")[:9]
    return min(int(digits or mlflow_values.PARAMETER_LIMIT), mlflow_values.PARAMETER_LIMIT)


def _word(value: object) -> str:
    """``value`` as text; a number may stand for one. Raises :class:`TypeError`."""
    if isinstance(value, str | int | float):
        return str(value)
    raise TypeError(f"{quoted(value)} is not text")


def _whole(value: object) -> int | None:
    """``value`` if it is an integer or missing. Raises :class:`TypeError`."""
    if value is None or isinstance(value, int):
        return value
    raise TypeError(f"{quoted(value)} is not a whole number")
