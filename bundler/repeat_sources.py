"""What `bundler rerun` left, as sources of bundle.yaml: which stores, so that each run is imported once."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from bundler import importers
from bundler.config import BuildConfig, SourceConfig
from bundler.errors import SourceError, UsageError
from bundler.importers.model import ImportedRun
from bundler.records import Source
from bundler.spec import Outputs


def unreadable(out: Path, outputs: Outputs) -> str:
    """Why what a training left in ``out`` is not the record of one run; empty if it is."""
    try:
        count = len(_opened(out / outputs.location, outputs))
    except (SourceError, UsageError) as error:
        return f"its record cannot be read: {error.message}"
    return "" if count == 1 else f"it left {count} runs in {outputs.location} instead of one"


def _opened(store: Path, outputs: Outputs) -> list[ImportedRun]:
    importer = importers.find(outputs.tracker)
    with importer.open(store, experiment=None, artefacts=None) as session:
        return list(session)


def new_sources(
    config: BuildConfig, base: Path, output: Path, outputs: Outputs, declared: Collection[Source]
) -> tuple[tuple[SourceConfig, ...], dict[Source, str]]:
    """An entry for each folder of ``output`` with a run, earlier failures too; and whose run each is.

    What a source of ``config`` reads already is left out. The store is the location, or a folder above it: a run that
    is known by its folder's name alone, as in DVCLive, needs one that no other run has, ``declared`` ones included.
    Raises :class:`SourceError` where there is none.
    """
    location = PurePosixPath(outputs.location)
    listed = {os.path.realpath(base / each.store) for each in config.sources}
    folders = [
        each
        for each in sorted(output.glob("seed-*/"))
        if not _is_listed(each, location, listed) and not unreadable(each, outputs)
    ]
    for place in (location, *location.parents):
        origins: dict[Source, str] = {}
        try:
            for folder in folders:
                (run,) = _opened(folder / place, outputs)
                origins[run.source] = folder.name
        except (SourceError, ValueError):
            continue
        if len(origins) == len(folders) and origins.keys().isdisjoint(declared):
            return tuple(_entry(each / place, base, outputs) for each in folders), origins
    raise SourceError(
        f"the runs of {outputs.tracker} in {output} cannot be told apart",
        remedy="Give training.outputs.location one folder only, such as runs.",
    )


def _is_listed(folder: Path, location: PurePosixPath, listed: set[str]) -> bool:
    """Whether a source reads ``folder`` already, at whatever depth: it would be imported twice."""
    places = (folder.parent, *(folder / each for each in (location, *location.parents)))
    return not listed.isdisjoint(map(os.path.realpath, places))


def _entry(store: Path, base: Path, outputs: Outputs) -> SourceConfig:
    return SourceConfig(
        tracker=outputs.tracker,
        store=Path(os.path.relpath(store, base)).as_posix(),
        rename=outputs.rename,
        histories=outputs.histories,
    )
