"""The file of MLflow's SQLite store: opened so that SQLite writes nothing beside it, no journal and no lock.

A store whose last changes still are in a write-ahead log (a server has it open) is copied first, with the log, and
read from the copy.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from bundler.errors import SourceError, quoted
from bundler.importers.files import unreadable
from bundler.importers.values import text

MAGIC = b"SQLite format 3\0"

# A re-run's output may be read by this module: its maker may want to exhaust the reader.
MAX_ROWS = 5_000_000
"""Most rows of one answer, for instance the metric points of one run: more than 1 GB of memory."""

MAX_TEXT = 1 << 28
"""Most bytes of texts and blobs in one answer."""

MAX_DEFAULTS = 200
"""Most characters of the default values of a table's columns; MLflow's are short. Long ones make much of a small file:
rows that were there before a column do not hold its default, and all have it."""

MAX_LENGTH = 1 << 26
"""Most bytes of one value or row; MLflow keeps data set profiles of up to 16 MB."""

AT_ONCE = 10_000
"""So many rows are taken from a database server in one go."""

_STEP = 100_000
_SECONDS_OF_STEPS = 5_000
"""SQLite does about this many hundred thousand steps in a few seconds; a reader of an honest store needs fewer."""

_BYTES_OF_STEPS = 5_000
"""So many bytes of a store allow for so many steps more: 20 a byte. Reading all of it once takes less than one."""


class Database(Protocol):
    """What holds MLflow's tables. All errors of a database come out as :class:`SourceError`."""

    kind: str
    """What a record calls the store."""
    shown: str
    """How a message names it."""
    advice: str
    """What to do about a value that cannot be."""
    as_logged: str
    """The end of a query for points that gives them in their order; empty where the order of logging is not kept."""

    def columns(self, table: str) -> Mapping[str, str]:
        """Names and declared types of a table's columns; none if there is no such table."""

    def rows(self, query: str, *, stream: bool = False, **values: object) -> Iterator[Any]:
        """The rows of ``query``, with ``values`` for its ``:names``; ``stream``: there may be very many.

        One query at a time: all rows are taken before the next query is asked.
        """

    def prepare(self, lookups: Mapping[str, str]) -> None:
        """Make ready for asking each table of ``lookups`` by its column, once a run."""

    def mangled(self) -> int:
        """How many texts were no UTF-8 since this was asked last; they were escaped."""

    def check(self) -> None:
        """Raise :class:`SourceError` if the store is not what it was when it was opened."""


class SqliteFile:
    """A SQLite file, open for reading."""

    kind = "sqlite"
    advice = "Check it with `sqlite3 FILE 'PRAGMA integrity_check'` and use an intact copy."
    as_logged = " ORDER BY m.key, m.timestamp, m.step, m.rowid"

    def __init__(self, connection: sqlite3.Connection, store: Path, before: object) -> None:
        connection.text_factory = self._text
        connection.isolation_level = None
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_LENGTH)
        connection.set_progress_handler(self._is_spent, _STEP)
        self.shown = shown(store)
        self._connection = connection
        self._store = store
        self._before = before
        self._mangled = 0
        self._text_left = MAX_TEXT
        # For all that is asked, not for each question: many runs can each take long.
        self._steps_left = _SECONDS_OF_STEPS + store.stat().st_size // _BYTES_OF_STEPS
        connection.execute("PRAGMA trusted_schema=OFF")

    def check(self) -> None:
        """Refuse a store that is not what it was when it was opened: half of what was read would be old."""
        if identity(self._store) != self._before:
            raise SourceError(
                f"{self.shown} changed while it was being read",
                remedy="Stop what writes into it, or import a copy.",
            ) from None

    def columns(self, table: str) -> dict[str, str]:
        """None if ``table`` is no plain table: a view can be an endless computation.

        Generated columns, which could make much of nothing, are not among them.
        """
        plain = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :table AND sql NOT LIKE 'CREATE VIRTUAL%'"
        if not list(self.rows(plain, table=table)):
            return {}
        query = "SELECT name, type, length(dflt_value) FROM pragma_table_info(:table)"
        found = list(self.rows(query, table=table))
        if sum(length or 0 for _, _, length in found) > MAX_DEFAULTS:
            raise exhausting(self.shown)
        return {name: type_ for name, type_, _ in found}

    def prepare(self, lookups: Mapping[str, str]) -> None:
        """Copy tables that cannot be asked by run (old stores) into temporary ones: the import stays linear.

        Whether one can is SQLite's own plan for it: there are indexes of some rows only, or in another order.
        """
        for table, column in lookups.items():
            question = f"SELECT * FROM {table} WHERE {column} = :value"  # noqa: S608  # fixed names
            plan = list(self.rows(f"EXPLAIN QUERY PLAN {question}", value=""))
            if not all(str(detail).startswith("SEARCH ") for *_, detail in plan):
                for step in (
                    f"CREATE TEMP TABLE IF NOT EXISTS {table} AS SELECT * FROM main.{table}",  # noqa: S608  # fixed names
                    f"CREATE INDEX IF NOT EXISTS temp.by_{table} ON {table} ({column})",
                ):
                    list(self.rows(step))

    def rows(self, query: str, *, stream: bool = False, **values: object) -> Iterator[Any]:
        """See :class:`Database`. Ends a query when all of them took longer than any of an honest store.

        Rows are taken one at a time: a single one can be large.
        """
        self._text_left = MAX_TEXT
        try:
            for count, row in enumerate(self._connection.execute(query, values), start=1):
                if not stream:
                    # Texts were counted when they were made. Points hold no blob, and none of them is kept.
                    self._text_left -= sum(len(each) for each in row if isinstance(each, bytes))
                if count > MAX_ROWS or self._text_left < 0:
                    raise exhausting(self.shown)
                yield row
        except (sqlite3.Error, UnicodeError) as error:
            # UnicodeError: a damaged name in SQLite's own message.
            self.check()
            if self._steps_left < 0:
                raise exhausting(self.shown) from None
            raise unreadable_database(self._store, error) from None

    def mangled(self) -> int:
        """See :class:`Database`."""
        count, self._mangled = self._mangled, 0
        return count

    def _is_spent(self) -> bool:
        """Called by SQLite now and then; ``True`` ends the query. Damaged pages can lead in circles."""
        self._steps_left -= 1
        return self._steps_left < 0

    def _text(self, data: bytes) -> str:
        """A text that is not UTF-8 must not end the import; it is counted and flagged."""
        self._text_left -= len(data)
        if self._text_left < 0:
            raise exhausting(self.shown)
        try:
            return data.decode()
        except UnicodeDecodeError:
            self._mangled += 1
            return text(data)


@contextmanager
def opened(store: Path) -> Iterator[SqliteFile]:
    """Open the file ``store``. Raises :class:`SourceError` for what is none or is half written.

    Only what happens in here is translated: an error of the caller, such as a full disk, stays what it is.
    """
    with ExitStack() as stack:
        try:
            before = identity(store)
            found = SqliteFile(stack.enter_context(_connected(store)), store, before)
        except (sqlite3.Error, OSError) as error:
            raise unreadable_database(store, error) from None
        yield found


@contextmanager
def _connected(store: Path) -> Iterator[sqlite3.Connection]:
    with _readable(store) as file:
        # Bytes, because a file name need not be UTF-8; immutable, because nothing may be created beside it.
        uri = f"file:{quote(os.fsencode(file))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            yield connection


def identity(store: Path) -> object:
    """What changes when something writes into the store."""
    file = store.resolve()
    found = [file, _beside(file, "-wal"), _beside(file, "-journal")]
    states = [each.stat() if each.exists() else None for each in found]
    return [state and (state.st_ino, state.st_size, state.st_mtime_ns) for state in states]


def shown(store: Path) -> str:
    """How a message names the store."""
    return quoted(str(store), 200)


def unreadable_database(store: Path, error: Exception) -> SourceError:
    """What an error of the system or of SQLite means."""
    if isinstance(error, OSError):
        return unreadable(store, error)
    return SourceError(
        f"{shown(store)} cannot be read as a SQLite database: {words(error)}",
        remedy=SqliteFile.advice,
    )


def exhausting(shown: str) -> SourceError:
    """A bound that no store that MLflow wrote comes near."""
    return SourceError(
        f"{shown} takes more memory or time to read than any store that MLflow wrote",
        remedy="Check it (`sqlite3 FILE 'PRAGMA integrity_check'`) and look at what has written it.",
    )


def words(error: Exception) -> str:
    """A database's message in one line that cannot steer a terminal: it may quote what is in the database."""
    return "damaged names" if isinstance(error, UnicodeError) else ascii(str(error))[1:-1][:200]


@contextmanager
def _readable(store: Path) -> Iterator[Path]:
    """The file itself, or a copy with the changes of its write-ahead log. Raises :class:`SourceError`."""
    file = store.resolve()
    with file.open("rb") as opening:
        magic = opening.read(len(MAGIC))
    if magic != MAGIC:
        raise SourceError(
            f"{shown(store)} is {'no SQLite database' if magic else 'empty'}",
            remedy="Give the file that MLflow's backend store URI names (sqlite:///FILE).",
        )
    if _is_hot(_beside(file, "-journal")):
        # Finishing its transaction would write; and a forged journal can make SQLite delete files.
        raise SourceError(
            f"{shown(store)} is being written, or the program that wrote into it broke off",
            remedy="Stop what writes into it; if nothing does, open it once with `sqlite3 FILE .tables`.",
        )
    log = _beside(file, "-wal")
    if not log.is_file() or not log.stat().st_size:
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="aisdp-mlflow-") as folder:
        copy = Path(folder) / "store.db"
        shutil.copyfile(file, copy)
        shutil.copyfile(log, _beside(copy, "-wal"))
        with closing(sqlite3.connect(copy)) as connection:
            # Writes the changes in the log into the copy.
            connection.execute("PRAGMA journal_mode=DELETE").fetchall()
        yield copy


def _is_hot(journal: Path) -> bool:
    """Whether a rollback journal holds a transaction: a finished one is removed, emptied or zeroed."""
    if not journal.is_file():
        return False
    with journal.open("rb") as file:
        return any(file.read(8))


def _beside(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)
