"""Taking runs in: every run of every source becomes files in the bag and one record that names them."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bundler import importers
from bundler.config import BuildConfig, SourceConfig
from bundler.errors import SourceError, UsageError
from bundler.facts import MAX_ENVIRONMENT_BYTES, record_of, renamed, with_histories
from bundler.history import write_points
from bundler.importers.experiment_log import ExperimentLogImporter
from bundler.importers.model import ArtefactFile, ImportedRun, Importer
from bundler.importers.wandb import WandbImporter
from bundler.manifest import ResourceDescriptor
from bundler.progress import Progress
from bundler.records import (
    RUN_ID,
    Artefact,
    FidelityFlag,
    RunRecord,
    artefact_location,
    history_location,
    without_credentials,
)
from bundler.redaction import Found, redact, summary
from bundler.spec import Redaction
from bundler.storage.hashing import copy_and_digest, digest_bytes, digest_file
from bundler.storage.writer import write_file


class Intake:
    """Reads the sources of ``config`` into the folder ``bag``, one run in memory at a time."""

    def __init__(self, config: BuildConfig, base: Path, bag: Path) -> None:
        self._config = config
        self._base = base
        self._bag = bag
        self._taken: set[str] = set()
        self._origins: set[tuple[str, str, str, str]] = set()
        # Locations in the bag, in lower case.
        self._embedded: set[str] = set()
        self._redacted: dict[str, frozenset[Found]] = {}

    @property
    def redactions(self) -> tuple[Redaction, ...]:
        """What was taken out of the records so far."""
        return summary(self._redacted.values())

    def redacted(self, run_id: str) -> frozenset[str]:
        """The fields of which something was taken out in the record of ``run_id``."""
        return frozenset(field for _, field in self._redacted[run_id])

    def records(self, progress: Progress) -> Iterator[RunRecord]:
        """Yield the record of every run, source by source, in order of (start time, id)."""
        for source in self._config.sources:
            yield from self._read(source, progress)

    def _read(self, source: SourceConfig, progress: Progress) -> Iterator[RunRecord]:
        importer = importer_of(source)
        artefacts = self._base / source.artefacts if source.artefacts else None
        store = importers.located(self._base, source.store)
        with importer.open(store, experiment=source.experiment, artefacts=artefacts) as session:
            # After the store: where that is wrong as well, it is the first thing to say.
            if artefacts is not None:
                _require_folder(artefacts)
            with progress.step(f"Importing runs from {_shown(source)}", len(session)) as step:
                for run in session:
                    present = with_histories(_without_absent(run), source.histories)
                    yield self._take(renamed(present, source.rename))
                    step.advance()

    def _take(self, run: ImportedRun) -> RunRecord:
        run_id = self._safe_id(run)
        record = record_of(
            run,
            self._config.facts,
            run_id=run_id,
            history=self._write_history(run, run_id),
            artefacts=tuple(self._artefact(each, run, run_id) for each in run.artefacts),
            environment=self._environment(run),
        )
        record, found = redact(record, self._config.keep_personal_data)
        self._redacted[run_id] = found
        return record

    def _safe_id(self, run: ImportedRun) -> str:
        """The tracker's id where it can name a folder and is not taken; else one derived from it."""
        wanted = run.source.run_id
        source = run.source
        origin = (source.tracker, source.experiment_id, source.experiment, source.run_id)
        if origin in self._origins:
            raise SourceError(
                f"run {wanted} is imported twice",
                remedy="List each source only once. Where runs are known by their folders (TensorBoard, DVCLive, the"
                " Trainer), two sources need folders of different names.",
            )
        self._origins.add(origin)
        if not RUN_ID.fullmatch(wanted) or wanted.lower() in self._taken:
            text = "\0".join(origin).encode("utf-8", "backslashreplace")
            wanted = "run-" + hashlib.sha256(text).hexdigest()[:24]
        self._taken.add(wanted.lower())
        return wanted

    def _write_history(self, run: ImportedRun, run_id: str) -> ResourceDescriptor | None:
        if not run.points:
            return None
        try:
            data = write_points(run.points)
        except UnicodeEncodeError:
            raise SourceError(
                f"run {run_id}: the name of a metric is not valid text",
                remedy="Rename it in the tracker, or import a copy without it.",
            ) from None
        path = history_location(run_id)
        write_file(self._bag, path, data)
        return ResourceDescriptor(path=path, sha256=digest_bytes(data), size=len(data))

    def _artefact(self, artefact: ArtefactFile, run: ImportedRun, run_id: str) -> Artefact:
        if artefact.file is None:
            return Artefact(path=artefact.path, sha256=None, size=None)
        try:
            with artefact.file.open("rb") as file:
                digest = digest_file(file)
                taken = Artefact(path=artefact.path, sha256=digest, size=file.tell())
        except OSError as error:
            raise _unreadable(artefact, error) from None
        # The uncommitted changes are part of the code version, whichever run they belong to.
        if self._embeds(run, run_id) or artefact.path == run.code.patch:
            self._embed(artefact.file, taken, artefact_location(run_id, taken))
        return taken

    def _embed(self, source: Path, taken: Artefact, location: str) -> None:
        """Copy the bytes to ``location``, unless another artefact lies there (a name may differ by case alone)."""
        if location.lower() in self._embedded:
            return
        self._embedded.add(location.lower())
        target = self._bag / location
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as file, target.open("wb") as copy:
            if copy_and_digest(file, copy) != taken.sha256:
                raise SourceError(
                    f"artefact {taken.path} changed while it was being read",
                    remedy="Stop what writes into it, and build again.",
                )

    def _embeds(self, run: ImportedRun, run_id: str) -> bool:
        if self._config.embed == "selected":
            # As `selection.run` may name it; a name that several runs have is refused later.
            return self._config.selection.run in {run_id, run.source.run_id, run.name}
        return self._config.embed == "all"

    def _environment(self, run: ImportedRun) -> bytes | None:
        wanted = (self._config.facts.environment or "").removeprefix("artefacts.")
        for artefact in run.artefacts:
            if artefact.path == wanted and artefact.file is not None:
                try:
                    with artefact.file.open("rb") as file:
                        return file.read(MAX_ENVIRONMENT_BYTES)
                except OSError as error:
                    raise _unreadable(artefact, error) from None
        return None


def _shown(source: SourceConfig) -> str:
    """The store as a terminal or a log may show it: an address can hold a password."""
    return without_credentials(source.store)


def importer_of(source: SourceConfig) -> Importer:
    """The importer that reads ``source``. Raises :class:`UsageError`."""
    importer = importers.find(source.tracker)
    if isinstance(importer, WandbImporter):
        # The provider's own home, where W&B keeps the bytes of artefacts until it uploads them.
        return WandbImporter(search_home=True)
    if source.columns is None:
        return importer
    if not isinstance(importer, ExperimentLogImporter):
        raise UsageError(
            f"sources.columns: {source.tracker} has no columns to be described",
            remedy="Only experiment-log has; leave the key out.",
        )
    return importer.mapped(source.columns)


def _require_folder(folder: Path) -> None:
    """Refuse a configured folder that is not there: all artefacts would be missing, and nobody would know why."""
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
        problem = "is not a folder"
    except OSError as error:
        is_folder, problem = False, f"cannot be read: {error.strerror}"
    if not is_folder:
        raise SourceError(
            f"sources.artefacts: {folder} {problem}",
            remedy="Give the folder behind the tracker's artefact server, or leave the key out if there is none.",
        )


def _without_absent(run: ImportedRun) -> ImportedRun:
    """``run`` with a flag for each file that is named and not there, or is a pipe or a device: those are not opened."""
    artefacts, flags = [], []
    for artefact in run.artefacts:
        flag = _absence(artefact)
        if flag is not None:
            flags.append(FidelityFlag(field="artefacts", flag=flag, detail=artefact.path))
        artefacts.append(artefact if flag is None else replace(artefact, file=None))
    return replace(run, artefacts=tuple(artefacts), fidelity=(*run.fidelity, *flags))


def _absence(artefact: ArtefactFile) -> str | None:
    """The flag for a file that there is nothing to read from. What cannot be read is not absent."""
    if artefact.file is None:
        return None
    try:
        mode = artefact.file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except OSError as error:
        raise _unreadable(artefact, error) from None
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "special_skipped"


def _unreadable(artefact: ArtefactFile, error: OSError) -> SourceError:
    return SourceError(
        f"artefact {artefact.file} cannot be read: {error.strerror}",
        remedy="Make the file readable (chmod u+r) for the user who builds, or remove it: an artefact that is missing"
        " is a gap, not an error.",
    )
