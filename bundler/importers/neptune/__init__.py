"""Neptune: exports of neptune-exporter (parquet), and folders of runs that were logged offline.

The hosted service ended in March 2026, so nothing is asked of it. What Neptune does to values: its clients drop NaN,
infinities, lists, ``None`` and integers of more than 32 bits; steps are decimals; a run that was killed looks like one
that ended well. Each is named in the record's fidelity flags.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import SourceError, quoted
from bundler.importers import run_folders
from bundler.importers.experiments import Experiment, choose, ordered
from bundler.importers.model import ImportedRun, ImportSession, Store
from bundler.importers.neptune import offline as neptune_offline
from bundler.importers.neptune import parquet as neptune_parquet
from bundler.importers.neptune.offline import OfflineRun, Places
from bundler.importers.neptune.parquet import ExportedRun, PartReader
from bundler.importers.values import clean
from bundler.records import Source

OFFLINE = "offline"
"""Name of the experiment that offline runs are in: their logs name no project."""

_REMEDY = (
    "Give the folder of an export of neptune-exporter (that with the folders data and files), or a folder .neptune"
    " with runs that were logged offline."
)


class NeptuneImporter:
    """Reads exports of neptune-exporter and offline folders of Neptune's client."""

    name = "neptune"

    def detect(self, folder: Path) -> tuple[Path, ...]:
        """The folder ``.neptune`` with offline logs, and the folder itself or ``exports`` with parts of an export."""
        try:
            logs = any(True for _ in (folder / ".neptune").glob("*/*/data-*.log"))
            found = [folder / ".neptune"] if logs else []
            for each in (folder, folder / "exports"):
                parts = (*each.glob("data/*/*part_*.parquet"), *each.glob("*/*_part_*.parquet"))
                if any(neptune_parquet.is_part(part.name) for part in parts):
                    found.append(each)
        except OSError:
            return ()
        return tuple(found)

    def experiments(self, store: Store) -> tuple[str, ...]:
        """Names of the projects in ``store``, those with most runs first."""
        with PartReader() as reader:
            return tuple(each.name for each in _experiments(_found(store, reader)))

    @contextmanager
    def open(
        self, store: Store, *, experiment: str | None, artefacts: Path | None
    ) -> Iterator[ImportSession]:
        """Open the project ``experiment``; see :class:`bundler.importers.model.Importer`.

        ``artefacts`` is the folder ``files`` of an export (default: that in the store, beside ``data``), or where files
        of offline runs lie that Neptune's client did not copy into ``.neptune`` (default: nowhere).
        """
        with PartReader() as reader:
            found = _found(store, reader)
            chosen = choose(_experiments(found), experiment, store)
            yield _Session(Path(store), chosen, found, artefacts, reader)


@dataclass(frozen=True, slots=True)
class _Session:
    """The runs of one project, read anew each time."""

    store: Path
    experiment: Experiment
    found: list[ExportedRun] | list[OfflineRun]
    artefacts: Path | None
    reader: PartReader

    def __len__(self) -> int:
        return self.experiment.runs

    def __iter__(self) -> Iterator[ImportedRun]:
        runs: list[ExportedRun | OfflineRun] = list(self.found)
        for run in sorted(runs, key=lambda each: (each.started or 0, each.run)):
            if _project(run) == self.experiment.id:
                yield self._read(run)

    def _read(self, run: ExportedRun | OfflineRun) -> ImportedRun:
        if isinstance(run, ExportedRun):
            attributes = neptune_parquet.read(run, self.store, self.artefacts, self.reader)
        else:
            places = Places(store=self.store, given=self.artefacts)
            attributes = neptune_offline.read(run, places)
        source = Source(
            tracker="neptune",
            store="export" if isinstance(run, ExportedRun) else "offline",
            experiment_id=clean(self.experiment.id) or "",
            experiment=clean(self.experiment.name) or "",
            run_id=clean(run.run) or "",
        )
        return attributes.run(source)


def _found(store: Store, reader: PartReader) -> list[ExportedRun] | list[OfflineRun]:
    folder = run_folders.require_folder(store, "Neptune", _REMEDY)
    exported = neptune_parquet.find(folder, reader)
    offline = neptune_offline.find(folder)
    if exported and offline:
        raise SourceError(
            f"{quoted(str(folder), 200)} holds an export and offline logs",
            remedy="Give each as a source of its own.",
        )
    if not exported and not offline:
        raise SourceError(f"{quoted(str(folder), 200)} holds no run of Neptune", remedy=_REMEDY)
    return exported or offline


def _experiments(found: list[ExportedRun] | list[OfflineRun]) -> list[Experiment]:
    counts: dict[str, int] = {}
    for run in found:
        project = _project(run)
        counts[project] = counts.get(project, 0) + 1
    return ordered(
        Experiment(id=each, name=each, runs=count, deleted=False) for each, count in counts.items()
    )


def _project(run: ExportedRun | OfflineRun) -> str:
    return run.project if isinstance(run, ExportedRun) else OFFLINE
