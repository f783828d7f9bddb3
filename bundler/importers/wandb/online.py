"""W&B's server through its SDK, where that is installed (extra ``wandb``): complete histories only.

``scan_history`` without keys gives every row; ``history`` gives 500 of them and is never asked. Files are listed with
their MD5 and not fetched: what is on a server can change.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from bundler.errors import SourceError, quoted
from bundler.importers.experiments import Experiment, choose
from bundler.importers.model import ArtefactFile, ImportedRun
from bundler.importers.protobuf import WireError
from bundler.importers.values import Flags, clean
from bundler.importers.wandb import folder as wandb_folder
from bundler.importers.wandb.artefacts import md5_of
from bundler.importers.wandb.history import History
from bundler.importers.wandb.run import parameters
from bundler.importers.wandb.summary import summary_numbers, with_summary
from bundler.records import CodeVersion, Source, Status, moment

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
            yield run


def _imported(run: Any, run_id: str, project: Experiment) -> ImportedRun:
    flag = Flags()
    started = _time(run.created_at)
    history = _history(run, run_id)
    _, time = history.last(started)
    points = history.points(started, flag)
    summary = dict(summary_numbers(_mapping(run.summary)))
    points = with_summary(points, summary, history, started, flag)
    status = _STATUS.get(run.state, "unknown")
    metadata = dict(_mapping(run.metadata))
    git = _mapping(metadata.get("git"))
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
        data=(),
        parameters={
            clean(name) or "": clean(value) if isinstance(value, str) else value
            for name, value in parameters(dict(_mapping(run.config)))
        },
        tags=_tags(run),
        points=points,
        artefacts=tuple(_files(run, flag)),
        fidelity=flag.all(),
        environment=wandb_folder.environment(metadata),
    )


def _history(run: Any, run_id: str) -> History:
    """All rows of the history. Raises :class:`SourceError` if they end before the last step."""
    history = History(Path(run_id))
    last = -1
    for row in run.scan_history():
        last = max(last, history.add_row(row))
    if last < run.lastHistoryStep:
        raise SourceError(
            f"the history of run {quoted(run_id)} ends at step {last}, not at {run.lastHistoryStep}",
            remedy="Wait until W&B has taken in all of it, or import the folder wandb of the training.",
        )
    return history


def _files(run: Any, flag: Flags) -> Iterator[ArtefactFile]:
    for file in sorted(run.files(), key=lambda each: str(each.name)):
        name = clean(file.name) or ""
        flag("artefacts", "md5_only", f"{name}: md5 {md5_of(file.md5)}")
        yield ArtefactFile(path=name, file=None)


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
