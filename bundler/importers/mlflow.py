"""MLflow: tracking stores in a SQLite file and in a folder (file store), read without MLflow.

What MLflow does to values, and what is done about it here: its SQL store writes NaN as 0.0 beside a flag and infinities
as the largest double, and they come back as NaN and infinities; parameters are text; a data set's digest covers
its first 10,000 rows and is kept as a label only. Each is named in the record's fidelity flags.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import SourceError, quoted
from bundler.importers import mlflow_files, mlflow_sql
from bundler.importers.experiments import Experiment, choose
from bundler.importers.files import unreadable
from bundler.importers.mlflow_artefacts import Places
from bundler.importers.mlflow_files import FileStore
from bundler.importers.mlflow_sql import SqlStore
from bundler.importers.model import ImportedRun, ImportSession

_SUFFIXES = (".db", ".sqlite")


class MlflowImporter:
    """Reads MLflow stores: a SQLite file, or a folder that holds ``meta.yaml`` of experiments."""

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

    def experiments(self, store: Path) -> tuple[str, ...]:
        """Names of the experiments in ``store``, those with most runs first."""
        with _opened(store) as reader:
            return tuple(each.name for each in reader.experiments())

    @contextmanager
    def open(
        self,
        store: Path,
        *,
        experiment: str | None,
        artefacts: Path | None,
        confined: bool = True,
    ) -> Iterator[ImportSession]:
        """Open ``experiment``, by name or id, read-only; see :class:`bundler.importers.model.Importer`.

        ``confined``: artefacts outside the folder of the store and ``artefacts`` are unreachable, so that a store that
        somebody else made cannot point at the reader's own files.
        """
        places = Places(beside=store.parent, given=artefacts, confined=confined)
        with _opened(store) as reader:
            yield _Session(reader, choose(reader.experiments(), experiment, store), places)
            reader.check()


@dataclass(frozen=True, slots=True)
class _Session:
    """The runs of one experiment, read anew each time."""

    reader: FileStore | SqlStore
    experiment: Experiment
    places: Places

    def __len__(self) -> int:
        return self.experiment.runs

    def __iter__(self) -> Iterator[ImportedRun]:
        return self.reader.runs(self.experiment, self.places)


def _opened(store: Path) -> AbstractContextManager[FileStore | SqlStore]:
    return nullcontext(FileStore(store)) if _is_folder(store) else mlflow_sql.opened(store)


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
        remedy="Give the path of the SQLite file (mlflow.db) or of the folder mlruns.",
    )
