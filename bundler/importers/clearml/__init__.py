"""ClearML: offline sessions and exported tasks, read without ClearML.

What ClearML does to values, and what is done about it here: NaN and infinities are written as 0.0, so that every zero
is in doubt; a value without an iteration comes with the smallest integer for one, and gets step 0; parameters are text
beside a type, and are cast back. An offline session keeps no status and no times; an export has neither metrics nor
artefacts. Each is named in the record's fidelity flags. The hash of an artefact is a real SHA-256 and is held against
the bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import SourceError, quoted
from bundler.importers.clearml import run as clearml_run
from bundler.importers.clearml import store as clearml_store
from bundler.importers.clearml.store import Place
from bundler.importers.collected import temporary_folder
from bundler.importers.experiments import Experiment, choose, ordered
from bundler.importers.model import ImportedRun, ImportSession, Store


class ClearmlImporter:
    """Reads ClearML's offline sessions (folders, zip files) and exported tasks (JSON), or a folder of these."""

    name = "clearml"

    def detect(self, folder: Path) -> tuple[Path, ...]:
        """``folder``, where it is or holds an offline session."""
        return (folder,) if clearml_store.detected(folder) else ()

    def experiments(self, store: Store) -> tuple[str, ...]:
        """Names of the projects in ``store``, those with most tasks first."""
        return tuple(each.name for each in _experiments(clearml_store.places(_local(store))))

    @contextmanager
    def open(
        self, store: Store, *, experiment: str | None, artefacts: Path | None
    ) -> Iterator[ImportSession]:
        """Open the project ``experiment``; see :class:`bundler.importers.model.Importer`.

        Files that are in a zip file, and patches, are written into a temporary folder of the session.
        """
        found = clearml_store.places(_local(store))
        chosen = choose(_experiments(found), experiment, store)
        with temporary_folder("aisdp-clearml-") as folder:
            places = tuple(each for each in found if each.project == chosen.id)
            yield _Session(places=places, folder=folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """The tasks of one project, read anew each time."""

    places: tuple[Place, ...]
    folder: Path

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[ImportedRun]:
        for number, place in enumerate(self.places):
            yield clearml_run.read(place, self.folder / str(number))


def _experiments(places: list[Place]) -> list[Experiment]:
    counts = Counter(place.project for place in places)
    return ordered(
        Experiment(id=name, name=name, runs=count, deleted=False) for name, count in counts.items()
    )


def _local(store: Store) -> Path:
    if isinstance(store, Path):
        return store
    raise SourceError(
        f"ClearML is not read from an address ({quoted(store, 200)})",
        remedy="Give an offline session (Task.set_offline), or JSON files of Task.export_task().",
    )
