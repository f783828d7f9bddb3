"""W&B's server through its SDK, where that is installed (extra ``wandb``).

``scan_history`` without keys gives every row; ``history`` gives 500 of them and is never asked. Files are listed with
their MD5 and not fetched: what is on a server can change. Rows that are missing in a history are flagged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from bundler.errors import SourceError, quoted
from bundler.importers.collected import CollectedFiles
from bundler.importers.experiments import Experiment, choose
from bundler.importers.model import ArtefactFile, ImportedRun
from bundler.importers.protobuf import WireError
from bundler.importers.values import Flags, clean, integer
from bundler.importers.wandb import folder as wandb_folder
from bundler.importers.wandb.artefacts import (
    Entry,
    LoggedArtefact,
    datasets,
    keep_files,
    md5_of,
)
from bundler.importers.wandb.history import NAMES_MERGED, History
from bundler.importers.wandb.run import MAX_ENTRIES, named_parameters
from bundler.importers.wandb.summary import by_name, summary_numbers, with_summary
from bundler.records import CodeVersion, DatasetVersion, Source, Status, moment

Errors = tuple[type[Exception], ...]

_STATUS: dict[str, Status] = {
    "finished": "finished",
    "failed": "failed",
    "crashed": "failed",
    "killed": "killed",
    "preempted": "killed",
    "preempting": "running",
    "running": "running",
    "pending": "scheduled",
}


UNEXPECTED: Errors = (TypeError, AttributeError, LookupError, ArithmeticError, ValueError)
"""What comes of an SDK or a server whose answers have another form."""


def connect() -> tuple[Any, Errors]:
    """W&B's API and the errors that it raises. The only place that knows the SDK; tests put another in its place."""
    try:
        wandb = import_module("wandb")
    except ImportError:
        raise SourceError(
            "reading from W&B's server needs its SDK",
            remedy="Install aisdp-bundler[wandb], or give the folder wandb of the training.",
        ) from None
    errors: Errors = (wandb.errors.Error, OSError, ValueError)
    try:
        return wandb.Api(), errors
    except errors as error:
        raise _refused("W&B", error) from None


def _refused(what: str, error: BaseException) -> SourceError:
    return SourceError(
        f"{quoted(what, 200)} cannot be read: {quoted(str(error), 300)}",
        remedy="Set WANDB_API_KEY to a key that may read the project (and WANDB_BASE_URL for a server of your own).",
    )


def _unexpected(what: str, error: BaseException) -> SourceError:
    problem = f"{type(error).__name__}: {error}"
    return SourceError(
        f"{quoted(what, 200)} cannot be read: its SDK gives something else than expected"
        f" ({quoted(problem, 300)[1:-1]})",
        remedy="Install another version of wandb, or import the folder wandb of the training.",
    )


class OnlineProject:
    """A project on a server, ``wandb://ENTITY/PROJECT``."""

    def __init__(self, address: str) -> None:
        found = re.fullmatch(r"wandb://([^/?#]+)/([^/?#]+)/?", address)
        if found is None:
            raise SourceError(
                f"{quoted(address, 200)} is no address of a W&B project",
                remedy="Give wandb://ENTITY/PROJECT.",
            )
        self._address = address
        self._path, self._project = f"{found[1]}/{found[2]}", found[2]

    def experiments(self) -> tuple[str, ...]:
        """The project itself."""
        return (self._project,)

    @contextmanager
    def opened(self, experiment: str | None) -> Iterator[OnlineSession]:
        """All runs of the project."""
        api, errors = connect()
        try:
            listed = [(_time(run.created_at) or 0, str(run.id)) for run in api.runs(self._path)]
        except errors as error:
            raise _refused(self._address, error) from None
        except UNEXPECTED as error:
            raise _unexpected(self._address, error) from None
        known = Experiment(id=self._path, name=self._project, runs=len(listed), deleted=False)
        choose([known], experiment, self._address)
        yield OnlineSession(api, errors, known, [run_id for _, run_id in sorted(listed)])


class OnlineSession:
    """The runs of a project, fetched one by one."""

    def __init__(
        self,
        api: Any,
        errors: Errors,
        project: Experiment,
        ids: list[str],
    ) -> None:
        self._api, self._project, self._ids = api, project, ids
        self._errors: Errors = (*errors, WireError)

    def __len__(self) -> int:
        """Number of runs."""
        return len(self._ids)

    def __iter__(self) -> Iterator[ImportedRun]:
        """All runs, by the time when they were made and id."""
        for run_id in self._ids:
            path = f"{self._project.id}/{run_id}"
            try:
                run = _imported(self._api.run(path), run_id, self._project)
            except self._errors as error:
                raise _refused(f"wandb://{path}", error) from None
            except UNEXPECTED as error:
                raise _unexpected(f"wandb://{path}", error) from None
            yield run


def _imported(run: Any, run_id: str, project: Experiment) -> ImportedRun:
    flag = Flags()
    started = _time(run.created_at)
    history = _history(run, run_id, flag)
    _, time = history.last(started)
    points = history.points(started, flag)
    summary, merged = by_name(summary_numbers(_mapping(run.summary)))
    for name in merged:
        flag(f"metrics.{name}", "names_merged", NAMES_MERGED)
    points = with_summary(points, summary, history, started, flag)
    status = _STATUS.get(run.state, "unknown")
    metadata = dict(_mapping(run.metadata))
    git = _mapping(metadata.get("git"))
    artefacts, data = _artefacts(run, flag)
    return ImportedRun(
        source=Source(
            tracker="wandb",
            store="server",
            experiment_id=project.id,
            experiment=project.name,
            run_id=run_id,
        ),
        name=clean(run.name),
        status=status,
        deleted=False,
        started=started,
        ended=time if status in {"finished", "failed", "killed"} else None,
        code=CodeVersion(
            repository=clean(git.get("remote")),
            commit=clean(run.commit or git.get("commit")),
            entry_point=clean(metadata.get("codePath") or metadata.get("program")),
        ),
        data=data,
        parameters=named_parameters(_mapping(run.config), flag),
        tags=_tags(run),
        points=points,
        artefacts=artefacts,
        fidelity=flag.all(),
        environment=wandb_folder.environment(metadata),
    )


def _history(run: Any, run_id: str, flag: Flags) -> History:
    """All rows of the history. Raises :class:`SourceError` if they end before the last step."""
    history = History(Path(run_id))
    last, steps = -1, set()
    rows = 0
    for row in run.scan_history():
        step = history.add_row(row)
        last, rows = max(last, step), rows + 1
        steps.add(step)
    _flag_missing_rows(run, rows, steps, flag)
    if last < run.lastHistoryStep:
        raise SourceError(
            f"the history of run {quoted(run_id)} ends at step {last}, not at {run.lastHistoryStep}",
            remedy="Wait until W&B has taken in all of it, or import the folder wandb of the training.",
        )
    return history


def _flag_missing_rows(run: Any, rows: int, steps: set[int], flag: Flags) -> None:
    """Hold the rows against W&B's own count, where the SDK has it; else against their steps, which may have gaps."""
    count = getattr(run, "historyLineCount", None)
    if isinstance(count, int):
        if rows < count:
            flag("metrics", "history_incomplete", f"{rows} of {count} rows that W&B counts")
        return
    absent = max(steps, default=-1) + 1 - sum(step >= 0 for step in steps)
    if absent:
        detail = f"no rows for {absent} steps before the last: never logged, or lost"
        flag("metrics", "history_incomplete", detail)


def _artefacts(
    run: Any, flag: Flags
) -> tuple[tuple[ArtefactFile, ...], tuple[DatasetVersion, ...]]:
    """The files of the run and of the artefacts that it logged, by name only, and its data sets."""
    kept = CollectedFiles(flag)
    for file in sorted(run.files(), key=lambda each: str(each.name)):
        path = kept.keep(clean(file.name) or "", None)
        flag("artefacts", "md5_only", f"{path}: md5 {md5_of(file.md5)}")
    logged = [_logged(each, flag) for each in _listed(run, "logged_artifacts", flag)]
    keep_files(logged, (), kept, flag)
    used = [_used(each) for each in _listed(run, "used_artifacts", flag)]
    return kept.all(), (*datasets(logged, (), {}), *used)


def _listed(run: Any, what: str, flag: Flags) -> list[Any]:
    ask = getattr(run, what, None)
    if not callable(ask):
        flag("artefacts", "not_imported", f"this SDK does not tell {what}")
        return []
    found = list(islice(ask(), MAX_ENTRIES + 1))
    if len(found) > MAX_ENTRIES:
        raise ValueError(f"more than {MAX_ENTRIES:,} artefacts in one run")
    return found


def _named(artefact: Any) -> tuple[str, str | None]:
    """Name and version of an artefact, ``NAME:VERSION``."""
    name = str(clean(getattr(artefact, "name", artefact)))
    base, _, version = name.rpartition(":")
    return (base, version) if base else (name, None)


def _manifest_digest(artefact: Any) -> str:
    digest = getattr(artefact, "digest", None)
    return str(clean(digest)) if isinstance(digest, str) else ""


def _logged(artefact: Any, flag: Flags) -> LoggedArtefact:
    """An artefact with the entries of its manifest, where the SDK has one."""
    name, version = _named(artefact)
    found = LoggedArtefact(
        kind=str(clean(getattr(artefact, "type", ""))),
        name=name,
        digest=_manifest_digest(artefact),
    )
    entries = getattr(getattr(artefact, "manifest", None), "entries", None)
    if not isinstance(entries, Mapping) or len(entries) > MAX_ENTRIES:
        told = f"{name}:{version or ''}: md5 of the manifest {found.digest or None}"
        flag("artefacts", "not_imported", f"{told}; its files are not listed")
        return found
    for path, entry in entries.items():
        found.entries.append(
            Entry(
                path=str(clean(path)),
                digest=str(clean(getattr(entry, "digest", None) or "")),
                reference=str(clean(getattr(entry, "ref", None) or "")),
                size=integer(getattr(entry, "size", None)) or 0,
                local="",
            )
        )
    return found


def _used(artefact: Any) -> DatasetVersion:
    name, version = _named(artefact)
    digest = _manifest_digest(artefact)
    return DatasetVersion(
        name=name,
        role="input",
        version=version,
        tracker_digest=f"manifest-md5:{digest}" if digest else None,
    )


def _tags(run: Any) -> dict[str, str]:
    values = {"group": run.group, "job_type": run.job_type, "notes": run.notes}
    values["tags"] = ", ".join(str(each) for each in run.tags or ())
    return {name: str(clean(value)) for name, value in values.items() if value}


def _mapping(value: Any) -> Mapping[str, Any]:
    """``value`` if it maps names; W&B's summary is a class of its own with a plain dictionary in it."""
    value = getattr(value, "_json_dict", value)
    return value if isinstance(value, Mapping) else {}


def _time(text: str | None) -> int | None:
    when = moment(text, UTC)
    return int((when - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000) if when else None
