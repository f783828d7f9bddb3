"""Comet: the archives that ``OfflineExperiment`` writes, read without Comet.

What Comet does to values, and what is done about it here: NaN and infinities are words, and come back as numbers; a
metric without a step gets that of the metric before; names and values are cut at a length; lists and nested names are
kept. Its own measurements (``sys.*``) and counters (``curr_step``) are left out. Each is named in the record's fidelity
flags. A run that was killed leaves an empty archive: it is a run. One that was resumed leaves several: they are put
together; two archives that both begin a run are refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import SourceError, quoted
from bundler.importers.collected import temporary_folder
from bundler.importers.comet import archive as comet_archive
from bundler.importers.comet import run as comet_run
from bundler.importers.comet.archive import FOLDER, Run
from bundler.importers.experiments import Experiment, choose, ordered
from bundler.importers.model import ImportedRun, ImportSession, Store


class CometImporter:
    """Reads Comet's offline archives: one zip file, or a folder of them."""

    name = "comet"

    def detect(self, folder: Path) -> tuple[Path, ...]:
        """``folder`` or its ``.cometml-runs``, where they hold archives of Comet."""
        return tuple(each for each in (folder / FOLDER, folder) if _holds_archives(each))

    def experiments(self, store: Store) -> tuple[str, ...]:
        """Projects in ``store``, those with most runs first: by name, or ``workspace/name`` where two have one name."""
        found = _experiments(comet_archive.runs(_local(store)))
        names = Counter(each.name for each in found)
        return tuple(each.name if names[each.name] == 1 else each.id for each in found)

    @contextmanager
    def open(
        self, store: Store, *, experiment: str | None, artefacts: Path | None
    ) -> Iterator[ImportSession]:
        """Open the project ``experiment`` (name, or ``workspace/name``); see :class:`bundler.importers.model.Importer`.

        The runs' files are in their archives; they are taken out into a temporary folder of the session.
        """
        found = comet_archive.runs(_local(store))
        chosen = choose(_experiments(found), experiment, store)
        with temporary_folder("aisdp-comet-") as folder:
            yield _Session(
                runs=tuple(run for run in found if run.experiment_id == chosen.id),
                folder=folder,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """The runs of one project, read anew each time."""

    runs: tuple[Run, ...]
    folder: Path

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[ImportedRun]:
        return (comet_run.read(run, self.folder) for run in self.runs)


def _experiments(runs: list[Run]) -> list[Experiment]:
    counts = Counter(run.experiment_id for run in runs)
    names = {run.experiment_id: run.project for run in runs}
    return ordered(
        Experiment(id=each, name=names[each], runs=count, deleted=False)
        for each, count in counts.items()
    )


def _local(store: Store) -> Path:
    if isinstance(store, Path):
        return store
    raise SourceError(
        f"Comet is not read from an address ({quoted(store, 200)})",
        remedy="Give the zip files that OfflineExperiment writes, or their folder.",
    )


def _holds_archives(folder: Path) -> bool:
    try:
        return any(map(comet_archive.is_archive, sorted(folder.glob("*.zip"))))
    except OSError:
        return False
