"""MLflow's SQLite store, by direct SQL: 1,000 runs with a million metric points in seconds."""

from __future__ import annotations

import math
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bundler.errors import SourceError, quoted
from bundler.importers import mlflow_database as database
from bundler.importers import mlflow_values
from bundler.importers.experiments import Experiment, ordered
from bundler.importers.files import walk
from bundler.importers.mlflow_artefacts import Places
from bundler.importers.model import ArtefactFile, ImportedRun, MetricPoint
from bundler.importers.values import Flags, flag_counts, flag_steps, text
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

# A re-run's output may be read by this module: its maker may want to exhaust the reader.
MAX_ROWS = 5_000_000
"""Most rows of one answer, for instance the metric points of one run: more than 1 GB of memory."""

MAX_TEXT = 1 << 28
"""Most bytes of text in one answer. A column's default value can make much of a small file."""

MAX_LENGTH = 1 << 26
"""Most bytes of one value or row; MLflow keeps data set profiles of up to 16 MB."""

_STEP = 100_000
_SECONDS_OF_STEPS = 5_000
"""SQLite does about this many hundred thousand steps in a few seconds; a reader of an honest store needs fewer."""

_LOOKUPS = {
    "params": "run_uuid",
    "tags": "run_uuid",
    "metrics": "run_uuid",
    "inputs": "destination_id",
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
    """Open the file ``store``. Raises :class:`SourceError`.

    Only what happens in here is translated: an error of the caller, such as a full disk, stays what it is.
    """
    with ExitStack() as stack:
        try:
            before = database.identity(store)
            reader = SqlStore(stack.enter_context(database.connected(store)), store, before)
        except (sqlite3.Error, OSError) as error:
            raise database.unreadable_database(store, error) from None
        yield reader


class SqlStore:
    """One open store."""

    def __init__(self, connection: sqlite3.Connection, store: Path, before: object) -> None:
        self._connection = connection
        self._store = store
        self._before = before
        self._mangled = 0
        self._text_left = MAX_TEXT
        self._steps_left = 0
        self._most_steps = _SECONDS_OF_STEPS + store.stat().st_size // 1000
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_LENGTH)
        connection.set_progress_handler(self._is_spent, _STEP)
        connection.isolation_level = None
        connection.text_factory = self._text
        connection.execute("PRAGMA trusted_schema=OFF")
        for table, wanted in COLUMNS.items():
            missing = wanted - self._columns(table).keys()
            if missing:
                raise SourceError(
                    f"{database.shown(store)} is no MLflow store that can be read: table {table} lacks"
                    f" {', '.join(sorted(missing))}",
                    remedy="Give MLflow's database; if it is an old one, upgrade a copy of it with"
                    " `mlflow db upgrade sqlite:///COPY`.",
                )
        self._optional = {
            name for name, wanted in OPTIONAL.items() if wanted <= self._columns(name).keys()
        }
        self._limit = _limit(self._columns("params")["value"])
        self._named = "name" if "name" in self._columns("runs") else "NULL"
        self._staged = (
            "lifecycle_stage" if "lifecycle_stage" in self._columns("experiments") else "NULL"
        )

    def check(self) -> None:
        """Refuse a store that is not what it was when it was opened: half of what was read would be old."""
        if database.identity(self._store) != self._before:
            raise SourceError(
                f"{database.shown(self._store)} changed while it was being read",
                remedy="Stop what writes into it, or import a copy.",
            ) from None

    def experiments(self) -> list[Experiment]:
        """All experiments, deleted ones included, those with most runs first."""
        query = (
            f"SELECT experiment_id, name, {self._staged},"  # noqa: S608  # a fixed name
            " (SELECT count(*) FROM runs r WHERE r.experiment_id = e.experiment_id) FROM experiments e"
        )
        rows = self._rows(query)
        return ordered(
            Experiment(id=str(key), name=str(name), runs=count, deleted=stage == "deleted")
            for key, name, stage, count in rows
        )

    def runs(self, experiment: Experiment, places: Places) -> Iterator[ImportedRun]:
        """All runs of ``experiment``, one in memory at a time."""
        rows = self._rows(
            f"SELECT run_uuid, {self._named}, status, start_time, end_time, lifecycle_stage, artifact_uri"  # noqa: S608  # a fixed name
            " FROM runs WHERE CAST(experiment_id AS TEXT) = ? ORDER BY start_time, run_uuid",
            experiment.id,
        )
        self._index()
        self._mangled = 0
        for row in map(_Row._make, rows):
            if not isinstance(row.run_id, str) or "\\" in row.run_id:
                # A backslash stands for bytes that are not UTF-8: nothing would be found under this id.
                raise _wrong(self._store, f"run id {quoted(row.run_id)}")
            try:
                run = self._run(experiment, row, places)
            except (TypeError, ValueError, OverflowError) as error:
                raise _wrong(self._store, f"run {quoted(row.run_id)}: {error}") from None
            except OSError as error:
                raise database.unreadable_database(self._store, error) from None
            yield run

    def _run(self, experiment: Experiment, row: _Row, places: Places) -> ImportedRun:
        flags = Flags()
        parameters = self._pairs("params", row.run_id)
        tags = self._pairs("tags", row.run_id)
        code, others = mlflow_values.split_tags(tags)
        points = self._points(row.run_id, flags)
        flag_steps(points, flags)
        mlflow_values.flag_texts(parameters, others, flags, self._limit)
        data = self._datasets(row.run_id)
        files = tuple(self._files(row, places, flags))
        if self._mangled:
            flags("run", "not_utf8", f"{self._mangled} texts")
            self._mangled = 0
        return ImportedRun(
            source=Source(
                tracker="mlflow",
                store="sqlite",
                experiment_id=experiment.id,
                experiment=experiment.name,
                run_id=row.run_id,
            ),
            name=tags.get("mlflow.runName") or row.name,
            status=mlflow_values.status_of(row.status),
            deleted=experiment.deleted or row.stage == "deleted",
            started=_whole(row.started),
            ended=_whole(row.ended),
            code=code,
            data=data,
            parameters=parameters,
            tags=others,
            points=points,
            artefacts=files,
            fidelity=flags.all(),
        )

    def _pairs(self, table: str, run_id: str) -> dict[str, str]:
        query = f"SELECT key, value FROM {table} WHERE run_uuid = ? ORDER BY key"  # noqa: S608  # fixed names
        return {
            _word(key): "" if value is None else _word(value)
            for key, value in self._rows(query, run_id)
        }

    def _points(self, run_id: str, flags: Flags) -> tuple[MetricPoint, ...]:
        """The run's points in order of (metric, timestamp, step, logging)."""
        rows = self._rows(
            "SELECT key, step, timestamp, value, is_nan FROM metrics WHERE run_uuid = ?"
            " ORDER BY key, timestamp, step, rowid",
            run_id,
        )
        points = []
        replaced: Counter[str] = Counter()
        clamped: Counter[str] = Counter()
        largest = sys.float_info.max
        for name, step, timestamp, stored, is_nan in rows:
            key, value = name, stored
            # What SQLite does not hold as a number is not made into one, and half a step is none.
            if type(key) is not str or type(step) is not int or type(timestamp) is not int:
                raise TypeError(f"a point of metric {quoted(name)}")
            if is_nan:
                replaced[key] += 1
                value = math.nan  # MLflow stores 0.0
            elif not -largest < value < largest:
                clamped[key] += 1
                value = math.copysign(math.inf, value)
            points.append(MetricPoint(key, step, timestamp, float(value)))
        flag_counts("nan_replaced", replaced, flags)
        flag_counts("inf_clamped", clamped, flags)
        return tuple(points)

    def _datasets(self, run_id: str) -> tuple[DatasetVersion, ...]:
        if not {"inputs", "input_tags", "datasets"} <= self._optional:
            return ()
        rows = self._rows(
            "SELECT coalesce(d.name, i.source_id), d.digest, d.dataset_source, d.dataset_profile, t.value"
            " FROM inputs i LEFT JOIN datasets d ON d.dataset_uuid = i.source_id"
            " LEFT JOIN input_tags t ON t.input_uuid = i.input_uuid AND t.name = 'mlflow.data.context'"
            " WHERE i.destination_id = ? AND i.source_type = 'DATASET'",
            run_id,
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
            query = "SELECT model_id, artifact_location FROM logged_models WHERE source_run_id = ?"
            models = sorted((str(name), uri) for name, uri in self._rows(query, row.run_id))
            locations += [(f"models/{model}/", uri) for model, uri in models]
        for prefix, uri in locations:
            folder, problem = places.find(uri) if uri else (None, "")
            if folder is not None:
                yield from walk(folder, prefix, flags)
            elif problem:
                flags("artefacts", "artefacts_unreachable", f"{prefix}{problem}")

    def _index(self) -> None:
        """Copy tables that cannot be asked by run (old stores) into temporary ones: the import stays linear."""
        for table, column in _LOOKUPS.items():
            leading = self._rows(
                "SELECT i.name FROM pragma_index_list(?) l, pragma_index_info(l.name) i WHERE i.seqno = 0",
                table,
            )
            if (column,) not in leading and (table in COLUMNS or table in self._optional):
                self._rows(f"CREATE TEMP TABLE IF NOT EXISTS {table} AS SELECT * FROM main.{table}")  # noqa: S608  # fixed names
                self._rows(f"CREATE INDEX IF NOT EXISTS temp.by_{table} ON {table} ({column})")

    def _columns(self, table: str) -> dict[str, str]:
        """Names and declared types; none if ``table`` is no plain table: a view can be an endless computation."""
        plain = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ? AND sql NOT LIKE 'CREATE VIRTUAL%'"
        if not self._rows(plain, table):
            return {}
        return dict(self._rows("SELECT name, type FROM pragma_table_info(?)", table))

    def _rows(self, query: str, *values: str) -> list[Any]:
        self._text_left = MAX_TEXT
        self._steps_left = self._most_steps
        try:
            rows = self._connection.execute(query, values).fetchmany(MAX_ROWS + 1)
        except (sqlite3.Error, UnicodeError) as error:
            # UnicodeError: a damaged name in SQLite's own message.
            self.check()
            if self._steps_left < 0:
                raise _exhausting(self._store) from None
            raise database.unreadable_database(self._store, error) from None
        if len(rows) > MAX_ROWS:
            raise _exhausting(self._store)
        return rows

    def _is_spent(self) -> bool:
        """Called by SQLite now and then; ``True`` ends the query. Damaged pages can lead in circles."""
        self._steps_left -= 1
        return self._steps_left < 0

    def _text(self, data: bytes) -> str:
        """A text that is not UTF-8 must not end the import; it is counted and flagged."""
        self._text_left -= len(data)
        if self._text_left < 0:
            raise _exhausting(self._store)
        try:
            return data.decode()
        except UnicodeDecodeError:
            self._mangled += 1
            return text(data)


def _limit(declared: str) -> int:
    """After how many characters a parameter is cut: MLflow's limit, or that of an older schema (``VARCHAR(250)``)."""
    digits = "".join(character for character in declared if character in "0123456789")[:9]
    return min(int(digits or mlflow_values.PARAMETER_LIMIT), mlflow_values.PARAMETER_LIMIT)


def _wrong(store: Path, problem: str) -> SourceError:
    return SourceError(
        f"{database.shown(store)} holds a value of the wrong type: {problem}",
        remedy="Check it with `sqlite3 FILE 'PRAGMA integrity_check'` and use an intact copy.",
    )


def _exhausting(store: Path) -> SourceError:
    return SourceError(
        f"{database.shown(store)} takes more memory or time to read than any store that MLflow wrote",
        remedy="Check it with `sqlite3 FILE 'PRAGMA integrity_check'` and look at what has written it.",
    )


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
