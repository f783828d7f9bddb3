"""The file of MLflow's SQLite store: opened so that SQLite writes nothing beside it, no journal and no lock.

A store whose last changes still are in a write-ahead log (a server has it open) is copied first, with the log, and
read from the copy.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from bundler.errors import SourceError, quoted
from bundler.importers.files import unreadable

MAGIC = b"SQLite format 3\0"


@contextmanager
def connected(store: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection to the file ``store``. Raises :class:`SourceError` for what is none or is half written."""
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
        f"{shown(store)} cannot be read as a SQLite database: {_words(error)}",
        remedy="Check it with `sqlite3 FILE 'PRAGMA integrity_check'` and use an intact copy.",
    )


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


def _words(error: Exception) -> str:
    """SQLite's message in one line that cannot steer a terminal: it may quote what is in the file."""
    return "damaged names" if isinstance(error, UnicodeError) else ascii(str(error))[1:-1][:200]
