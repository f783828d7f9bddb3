"""One task of ClearML as a run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from bundler.importers.clearml import copies
from bundler.importers.clearml import metrics as clearml_metrics
from bundler.importers.clearml import store as clearml_store
from bundler.importers.clearml import values as clearml_values
from bundler.importers.clearml.files import Artefacts
from bundler.importers.clearml.metrics import Scalars
from bundler.importers.clearml.store import LOG, METRICS, TASK, Files, Place
from bundler.importers.json_lines import an_object
from bundler.importers.model import ImportedRun
from bundler.importers.values import Flags, clean
from bundler.records import Source, Status


def read(place: Place, folder: Path) -> ImportedRun:
    """The task at ``place``; files that are none there are written into ``folder``. Raises :class:`SourceError`."""
    flags = Flags()
    with ExitStack() as stack:
        files = None
        if place.kind != "export":
            files = stack.enter_context(
                clearml_store.opened(place.path, place.kind, folder / "members", flags)
            )
        task = clearml_store.read_task(place.path, place.kind, files)
        if files is not None and place.copy is not None:
            copies.compare(task, files, place.copy, folder, flags)
        try:
            return _run(place, task, files, folder, flags)
        except ValueError as error:
            member = None if files is None else TASK
            raise clearml_store.damaged(place.path, member, str(error)) from None


def _run(
    place: Place, task: Mapping[str, Any], files: Files | None, folder: Path, flags: Flags
) -> ImportedRun:
    parameters = clearml_values.parameters(task, flags)
    scalars = _scalars(place, files, flags)
    artefacts = Artefacts(task, files, flags)
    patch = artefacts.read(folder)
    script = an_object(task.get("script") or {}, "script")
    started, ended = _times(place, task, files, scalars, flags)
    return ImportedRun(
        source=Source(
            tracker="clearml",
            store="export" if files is None else "offline",
            experiment_id=place.project,
            experiment=place.project,
            run_id=place.id,
        ),
        name=clean(task.get("name")),
        status=_status(task, files),
        deleted=place.deleted,
        started=started,
        ended=ended,
        code=replace(clearml_values.code(script), dirty=patch.dirty, patch=patch.path),
        data=clearml_values.data(task),
        parameters=parameters,
        tags=clearml_values.tags(task),
        points=scalars.points,
        artefacts=artefacts.all(),
        fidelity=flags.all(),
        environment=clearml_values.environment(task),
    )


def _status(task: Mapping[str, Any], files: Files | None) -> Status:
    """An offline session keeps no status: what stands there is that of a task that has not begun."""
    said = clearml_values.status_of(task.get("status"))
    return "unknown" if files is not None and said == "scheduled" else said


def _scalars(place: Place, files: Files | None, flags: Flags) -> Scalars:
    if files is None:
        flags("metrics", "not_exported", "Task.export_task() leaves them out")
    elif METRICS not in files:
        flags(
            "metrics",
            "missing",
            f"the session has no {METRICS}: none were reported, or they were lost",
        )
    else:
        try:
            found = clearml_store.events(place.path, files, METRICS, flags)
            return clearml_metrics.read(found, place.id, flags)
        except clearml_metrics.EventError as error:
            raise clearml_store.damaged(place.path, METRICS, str(error)) from None
    return Scalars(points=(), last=None)


def _times(
    place: Place, task: Mapping[str, Any], files: Files | None, scalars: Scalars, flags: Flags
) -> tuple[int | None, int | None]:
    """Start and end. An offline session keeps none: those of its first and last event stand for them."""
    started, ended = (clearml_values.moment(task.get(name)) for name in ("started", "completed"))
    if files is None or started is not None:
        return started, ended
    printed = clearml_store.events(place.path, files, LOG, flags) if LOG in files else ()
    times = [scalars.last, *(clearml_store.event_time(event) for _, event in printed)]
    last = max((each for each in times if each is not None), default=None)
    if place.start is not None:
        flags("run", "time_derived", "start and end are the times of the first and the last event")
    return place.start, last
