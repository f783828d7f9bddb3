"""DVCLive: a folder with ``metrics.json``, ``params.yaml`` and ``plots/metrics``, or a folder that holds several.

Also a re-run's output is read by this module, so its maker may want to exhaust or mislead it: everything is bounded,
links are not followed, and a file that DVCLive would not have written is an error.

DVCLive does not record whether the training ended or crashed (``metrics.json`` is written at each step, and at the end
of a ``with`` block that an exception leaves as well), so the status is always ``unknown``. It records no start either:
the times are those of the first and of the last logged value, where ``timestamp=True`` kept them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundler.data_hashes import kind_of
from bundler.errors import SourceError, quoted
from bundler.importers.dvc import metrics as dvc_metrics
from bundler.importers.dvc.values import MAX_FILE, parsed, scalar
from bundler.importers.experiments import Experiment, choose
from bundler.importers.files import below, unreadable, walk
from bundler.importers.model import ArtefactFile, ImportedRun, ImportSession, MetricPoint, Store
from bundler.importers.run_folders import ROOT, require_folder
from bundler.importers.values import Flags, readable_name
from bundler.records import CodeVersion, Scalar, Source

_REMEDY = "Give DVCLive's folder (dvclive), or the folder that holds several of them."
_PARAMETERS = "params.yaml"
_REPORTS = ("report.html", "report.md", "report.ipynb", "dvc.yaml")
"""Made from the rest."""

MAX_RUNS = 100_000


class DvcliveImporter:
    """Reads what DVCLive writes, without DVC and git; :mod:`bundler.importers.dvc` reads the experiments."""

    name = "dvclive"

    def detect(self, folder: Path) -> tuple[Path, ...]:
        """The folder itself or the folders in it that DVCLive wrote."""
        try:
            if _has_metrics(folder):
                return (folder,)
            return tuple(sorted(each for each in folder.iterdir() if _has_metrics(each)))
        except (OSError, SourceError):
            return ()

    def experiments(self, store: Store) -> tuple[str, ...]:
        """DVCLive has no experiments: all runs are one, with the name of the folder."""
        return (_experiment(_runs(store)).name,)

    @contextmanager
    def open(
        self, store: Store, *, experiment: str | None, artefacts: Path | None
    ) -> Iterator[ImportSession]:
        """Open the folder; see :class:`bundler.importers.model.Importer`."""
        runs = _runs(store)
        chosen = choose([_experiment(runs)], experiment, store)
        starts = [(dvc_metrics.span(_logged(each, Flags()))[0] or 0, each.id) for each in runs]
        by_id = {each.id: each for each in runs}
        yield _Session(chosen, [by_id[identity] for _, identity in sorted(starts)])


@dataclass(frozen=True, slots=True)
class _Run:
    id: str
    folder: Path


@dataclass(frozen=True, slots=True)
class _Session:
    """The runs of one folder, read anew each time."""

    experiment: Experiment
    runs: list[_Run]

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[ImportedRun]:
        return (_read(each, self.experiment) for each in self.runs)


def _experiment(runs: list[_Run]) -> Experiment:
    folder = runs[0].folder if runs[0].id == ROOT else runs[0].folder.parent
    name = readable_name(folder.resolve().name, Flags(), "run")
    return Experiment(id=ROOT, name=name or ROOT, runs=len(runs), deleted=False)


def _runs(store: Store) -> list[_Run]:
    """All runs of ``store``. Raises :class:`SourceError` if there are none."""
    folder = require_folder(store, "DVCLive", _REMEDY)
    try:
        if _has_metrics(folder):
            return [_Run(ROOT, folder)]
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise unreadable(folder, error) from None
    found = [each for each in entries if not each.is_symlink() and _is_run(each)]
    _refuse_linked(entries)
    if not found and _is_run(folder):
        return [_Run(ROOT, folder)]
    if not found or len(found) > MAX_RUNS:
        number = f"more than {MAX_RUNS:,} runs" if found else "no metrics.json and no plots/metrics"
        raise SourceError(f"{quoted(str(folder), 200)} holds {number}", remedy=_REMEDY)
    return [_Run(readable_name(each.name, Flags(), "run"), each) for each in found]


def _refuse_linked(entries: list[Path]) -> None:
    """A link to a run that lies elsewhere, or to nothing: the run would be left out. One beside it is read itself."""
    for each in entries:
        if each.is_symlink():
            target = Path(os.path.realpath(each))
            beside = target.parent == Path(os.path.realpath(each.parent))
            if not kind_of(target) or (_is_run(target) and not beside):
                raise SourceError(
                    f"{quoted(str(each), 200)} is a link to a run or to nothing",
                    remedy="Put the run's folder itself there, or remove the link.",
                )


def _has_metrics(folder: Path) -> bool:
    return any(kind_of(folder / each) for each in (dvc_metrics.SUMMARY, dvc_metrics.FOLDER))


def _is_run(folder: Path) -> bool:
    """Whether DVCLive wrote anything there: a run that crashed early has no metrics."""
    return _has_metrics(folder) or any(kind_of(folder / each) for each in (_PARAMETERS, *_REPORTS))


def _read(run: _Run, experiment: Experiment) -> ImportedRun:
    flag = Flags()
    try:
        points = dvc_metrics.joined(_logged(run, flag), _last(run, flag), flag)
    except dvc_metrics.TooManyPointsError as error:
        raise _damaged(run.folder, str(error)) from None
    started, ended = dvc_metrics.span(points)
    if started is not None:
        flag("run", "times_of_values", "start and end are those of the first and last value")
    name = readable_name(run.folder.resolve().name, flag, "run")
    return ImportedRun(
        source=Source(
            tracker="dvclive",
            store="files",
            experiment_id=experiment.id,
            experiment=experiment.name,
            run_id=run.id,
        ),
        name=name,
        status="unknown",
        deleted=False,
        started=started,
        ended=ended,
        code=CodeVersion(),
        data=(),
        parameters=_parameters(run, flag),
        tags={},
        points=points,
        artefacts=tuple(_artefacts(run, flag)),
        fidelity=flag.all(),
    )


def _parameters(run: _Run, flag: Flags) -> dict[str, Scalar]:
    file = run.folder / _PARAMETERS
    if not _is_there(file):
        return {}
    try:
        value = parsed(_bytes(file), _PARAMETERS)
        if value is not None and not isinstance(value, dict):
            raise ValueError("not a mapping of names to values")  # noqa: TRY301  # as a broken file
        found = dvc_metrics.parameters(value or {}, flag)
        return {name: scalar(item) for name, item in found.items()}
    except ValueError as error:
        raise _damaged(file, str(error)) from None


def _last(run: _Run, flag: Flags) -> Iterator[dvc_metrics.Value]:
    file = run.folder / dvc_metrics.SUMMARY
    if not _is_there(file):
        flag("metrics", "missing", dvc_metrics.SUMMARY)
        return
    try:
        value: Any = parsed(_bytes(file), dvc_metrics.SUMMARY)
        if not isinstance(value, dict):
            raise ValueError("not an object")  # noqa: TRY301, TRY004  # as a broken file
        yield from dvc_metrics.last_values(value, "/", flag)
    except ValueError as error:
        raise _damaged(file, str(error)) from None


def _logged(run: _Run, flag: Flags) -> Iterator[MetricPoint]:
    """Points of all series of a run, metric by metric."""
    known: dict[str, Path] = {}
    folder = below(run.folder, "plots/metrics", flag)
    for each in walk(folder, "", flag) if folder is not None else ():
        metric = dvc_metrics.series_name(each.path)
        if metric is None or each.file is None:
            continue
        if metric in known:
            raise _damaged(each.file, f"a second series of {quoted(metric)}")
        known[metric] = each.file
        try:
            place = dvc_metrics.FOLDER + each.path
            yield from dvc_metrics.series(metric, _lines(each.file), flag, place)
        except ValueError as error:
            raise _damaged(each.file, str(error)) from None


def _artefacts(run: _Run, flag: Flags) -> Iterator[ArtefactFile]:
    """Other files of the folder: images, models, plots."""
    for each in walk(run.folder, "", flag):
        told = each.path in {dvc_metrics.SUMMARY, _PARAMETERS, *_REPORTS}
        if not told and not each.path.startswith(dvc_metrics.FOLDER):
            yield each


def _is_there(file: Path) -> bool:
    mode = kind_of(file)
    if mode and not stat.S_ISREG(mode):
        # Opening a pipe would wait for whoever writes into it.
        raise _damaged(file, "a link" if stat.S_ISLNK(mode) else "no regular file")
    return bool(mode)


def _bytes(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size > MAX_FILE:
                raise _damaged(file, f"more than {MAX_FILE:,} bytes")
            return stream.read(MAX_FILE)
    except OSError as error:
        raise unreadable(file, error) from None


def _lines(file: Path) -> Iterator[bytes]:
    """Rows with their ends. Raises :class:`SourceError`, or :class:`ValueError` for a row without end."""
    try:
        with file.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size > dvc_metrics.MAX_SERIES:
                raise _damaged(file, f"more than {dvc_metrics.MAX_SERIES:,} bytes")
            yield from dvc_metrics.lines_of(stream)
    except OSError as error:
        raise unreadable(file, error) from None


def _damaged(file: Path, problem: str) -> SourceError:
    return SourceError(
        f"{quoted(str(file), 200)} is not as DVCLive writes it: {problem}",
        remedy="Use an intact copy, or leave the run's folder out of the store.",
    )
