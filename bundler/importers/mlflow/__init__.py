"""MLflow: a tracking server over REST, and stores in a database or a folder (file store), read without MLflow.

What MLflow does to values, and what is done about it here: its SQL store writes NaN as 0.0 beside a flag and infinities
as the largest double, and they come back as NaN and infinities; parameters are text; a data set's digest covers
its first 10,000 rows and is kept as a label only. Each is named in the record's fidelity flags.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from bundler.errors import SourceError, quoted
from bundler.importers.experiments import Experiment, choose
from bundler.importers.files import unreadable
from bundler.importers.mlflow import files as mlflow_files
from bundler.importers.mlflow import sql as mlflow_sql
from bundler.importers.mlflow.artefacts import Places
from bundler.importers.mlflow.files import FileStore
from bundler.importers.mlflow.sql import SqlStore
from bundler.importers.model import ImportedRun, ImportSession, Store
from bundler.records import without_credentials

_SUFFIXES = (".db", ".sqlite")


class _Reader(Protocol):
    """One open store of any kind."""

    def experiments(self) -> list[Experiment]:
        """All experiments, deleted ones included, those with most runs first."""

    def candidates(self, wanted: str | None) -> list[Experiment]:
        """Those among which ``wanted`` is to be chosen; a store may leave out those that it cannot be."""

    def runs(self, experiment: Experiment, places: Places) -> Iterator[ImportedRun]:
        """All runs of ``experiment``, by start time and id."""

    def check(self) -> None:
        """Raise :class:`SourceError` if what was read may be half of one state and half of another."""


class MlflowImporter:
    """Reads MLflow stores.

    A SQLite file, a folder that holds ``meta.yaml`` of experiments, the address of a tracking server
    (``https://…``), or the SQLAlchemy URL of a database (``postgresql://…``).
    """

    name = "mlflow"

    def detect(self, folder: Path) -> tuple[Path, ...]:
        """SQLite files (``*.db``, ``*.sqlite*``) with MLflow's tables and folders in the form of its file store."""
        try:
            files = sorted(path for path in folder.iterdir() if path.suffix.startswith(_SUFFIXES))
        except OSError:
            return ()
        found = [path for path in files if mlflow_sql.is_store(path)]
        found += [each for each in (folder / "mlruns", folder) if mlflow_files.is_store(each)]
        return tuple(found)

    def experiments(self, store: Store) -> tuple[str, ...]:
        """Names of the experiments in ``store``, those with most runs first."""
        with _opened(_local(store)) as reader:
            return tuple(each.name for each in reader.experiments())

    @contextmanager
    def open(
        self,
        store: Store,
        *,
        experiment: str | None,
        artefacts: Path | None,
        confined: bool = True,
    ) -> Iterator[ImportSession]:
        """Open ``experiment``, by name or id, read-only; see :class:`bundler.importers.model.Importer`.

        ``confined``: artefacts outside the folder of the store and ``artefacts`` are unreachable, so that a store that
        somebody else made cannot point at the reader's own files.
        """
        store = _local(store)
        beside = store.parent if isinstance(store, Path) else None
        places = Places(beside=beside, given=artefacts, confined=confined)
        with _opened(store) as reader:
            known = reader.candidates(experiment)
            yield _Session(reader, choose(known, experiment, _shown(store)), places)
            reader.check()


@dataclass(frozen=True, slots=True)
class _Session:
    """The runs of one experiment, read anew each time."""

    reader: _Reader
    experiment: Experiment
    places: Places

    def __len__(self) -> int:
        return self.experiment.runs

    def __iter__(self) -> Iterator[ImportedRun]:
        return self.reader.runs(self.experiment, self.places)


@contextmanager
def _opened(store: Store) -> Iterator[_Reader]:
    if isinstance(store, Path):
        if _is_folder(store):
            yield FileStore(store)
        else:
            with mlflow_sql.opened(store) as tables:
                yield tables
    elif store.lower().startswith(("http://", "https://")):
        # A verifier never comes here, and does not load what speaks to servers.
        from bundler.importers.mlflow import rest as mlflow_rest  # noqa: PLC0415

        with mlflow_rest.opened(store, os.environ) as server:
            yield server
    else:
        from bundler.importers.mlflow import alchemy as mlflow_alchemy  # noqa: PLC0415

        with mlflow_alchemy.opened(store) as tables_:
            yield SqlStore(tables_)


def _local(store: Store) -> Store:
    """``store``, as a path where it is a file or folder by another name: SQLite needs no extra, nor a folder."""
    if isinstance(store, Path):
        return store
    scheme, found, rest = store.partition("://")
    if not found:
        return Path(store)
    if scheme.lower().partition("+")[0] == "sqlite":
        return _sqlite_file(rest)
    if scheme.lower() == "file":
        return Path(unquote(urlsplit(store).path))
    return store


def _sqlite_file(rest: str) -> Path:
    """The file of an address ``sqlite://REST``. Raises :class:`SourceError` for all but a full path."""
    file = Path(unquote(rest.removeprefix("/")))
    if not rest.startswith("/") or "?" in rest or not file.is_absolute():
        raise SourceError(
            # Without the address: it may hold a password.
            "the address of the SQLite store does not name a file by its full path alone",
            remedy="Give the path itself (mlflow.db): it is relative to the file that names it, an address would be to"
            " the folder of who runs this.",
        )
    return file


def _shown(store: Store) -> Store:
    """How a message names ``store``: an address may hold a password."""
    return store if isinstance(store, Path) else without_credentials(store)


def _is_folder(store: Path) -> bool:
    """Whether ``store`` is a folder (``False``: a file). Raises :class:`SourceError` where it is neither."""
    try:
        if store.is_dir():
            return True
        if store.is_file():
            return False
    except OSError as error:
        raise unreadable(store, error) from None
    raise SourceError(
        f"no MLflow store at {quoted(str(store), 200)}",
        remedy="Give the path of the SQLite file (mlflow.db) or of the folder mlruns, or the address of the server.",
    )
