"""Plain files, for trainings without any tracker: metrics in JSON, JSON lines or CSV, parameters beside them.

A run is a folder with ``metrics.jsonl`` or ``metrics.csv`` (a line a step), ``metrics.json`` (final values, or lists of
values) and, if there are parameters, ``params.json`` or ``params.yaml``. Everything in it is an artefact.

Also a re-run's output is read by this module, so its maker may want to exhaust or mislead it: everything is bounded,
links are not followed, and a file that is not what its name says is an error.

Nothing in such files says whether the training ended, so the status is always ``unknown``; ``facts.finished_with`` can
say it. The times are those of the first and of the last value, where the lines have a ``timestamp``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import SourceError, quoted
from bundler.importers import run_folders
from bundler.importers.dvc import metrics as dvc_metrics
from bundler.importers.dvc.values import MAX_FILE, parsed, scalar
from bundler.importers.experiments import Experiment
from bundler.importers.files import too_large, unreadable
from bundler.importers.metrics_file import rows
from bundler.importers.model import ImportedRun, ImportSession, MetricPoint, Store
from bundler.importers.run_folders import RunFolder, RunFolders
from bundler.importers.values import Flags
from bundler.records import CodeVersion, Scalar, Source

LINES, TABLE, SUMMARY = "metrics.jsonl", "metrics.csv", "metrics.json"
PARAMETERS = ("params.json", "params.yaml")

MAX_RUNS = 100_000

_TELLS = frozenset({LINES, TABLE, SUMMARY, *PARAMETERS})
_REMEDY = f"Give the folder of a run, with {SUMMARY}, {LINES} or {TABLE} in it, or a folder of such folders."


class MetricsFileImporter:
    """Reads what a script wrote itself: a run's folder, or a folder in which each run has one."""

    name = "metrics"

    def detect(self, folder: Path) -> tuple[Path, ...]:
        """The folder itself or those in it with a line a step. A lone ``metrics.json`` may be DVCLive's, or DVC's."""
        try:
            places = (folder, *sorted(each for each in folder.iterdir() if each.is_dir()))
            return tuple(each for each in places if _has_lines(each))
        except OSError:
            return ()

    def experiments(self, store: Store) -> tuple[str, ...]:
        """The one experiment: the folder's name."""
        return (_experiment(store, len(_found(store, Flags()))).name,)

    @contextmanager
    def open(
        self, store: Store, *, experiment: str | None, artefacts: Path | None
    ) -> Iterator[ImportSession]:
        """Open the runs of ``store``; see :class:`bundler.importers.model.Importer`.

        Files in the folder of the same path below ``artefacts`` belong to the run as well.
        """
        opened = run_folders.opened(
            store, _found, _experiment, experiment=experiment, artefacts=artefacts
        )
        starts = {run.path: dvc_metrics.span(_points(run, Flags()))[0] or 0 for run in opened.found}
        opened.found.sort(key=lambda run: (starts[run.path], run.path))
        yield _Session(opened)


@dataclass(frozen=True, slots=True)
class _Session:
    """The runs of one folder, read anew each time."""

    runs: RunFolders

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[ImportedRun]:
        return map(self._read, self.runs.found)

    def _read(self, run: RunFolder) -> ImportedRun:
        flags = self.runs.first_flags()
        points = _points(run, flags)
        started, ended = dvc_metrics.span(points)
        if started is not None:
            flags("run", "times_of_values", "start and end are those of the first and last value")
        return ImportedRun(
            source=Source(
                tracker="metrics",
                store="files",
                experiment_id=self.runs.experiment.id,
                experiment=self.runs.experiment.name,
                run_id=run.path,
            ),
            name=self.runs.name(run),
            status="unknown",
            deleted=False,
            started=started,
            ended=ended,
            code=CodeVersion(),
            data=(),
            parameters=_parameters(run, flags),
            tags={},
            points=points,
            artefacts=tuple(self.runs.files(run, flags)),
            fidelity=flags.all(),
        )


def _has_lines(folder: Path) -> bool:
    return any((folder / each).is_file() for each in (LINES, TABLE))


def _found(store: Store, flags: Flags) -> list[RunFolder]:
    folder = run_folders.require_folder(store, "metrics files", _REMEDY)
    found = run_folders.find(folder, _TELLS.__contains__, _outermost, flags)
    if not found or len(found) > MAX_RUNS:
        number = (
            f"more than {MAX_RUNS:,} runs" if found else f"no {SUMMARY}, no {LINES} and no {TABLE}"
        )
        raise SourceError(f"{quoted(str(folder), 200)} holds {number}", remedy=_REMEDY)
    return found


def _outermost(path: str, found: Iterable[str]) -> str:
    """The run's folder, for a folder in it: what lies below a run is the run's."""
    if run_folders.ROOT in found:
        return run_folders.ROOT
    parts = path.split("/")
    above = ("/".join(parts[:count]) for count in range(1, len(parts)))
    return next((each for each in above if each in found), path)


def _experiment(store: Store, runs: int) -> Experiment:
    name = Path(store).resolve().name or "runs"
    return Experiment(id=name, name=name, runs=runs, deleted=False)


def _points(run: RunFolder, flags: Flags) -> tuple[MetricPoint, ...]:
    """All points of ``run``. Raises :class:`SourceError` that names the file and the place in it."""
    series: list[MetricPoint] = []
    for name, read in ((LINES, rows.of_lines), (TABLE, rows.of_table)):
        file = _own(run, name)
        if file is not None:
            with _named(file), _opened(file, rows.MAX_SERIES) as stream:
                series += _new(read(stream, name, flags), series, name, flags)
    last: tuple[dvc_metrics.Value, ...] = ()
    file = _own(run, SUMMARY)
    if file is not None:
        with _named(file):
            summary = rows.of_summary(_bytes(file, rows.MAX_SUMMARY), flags)
            series += _new(summary.points, series, SUMMARY, flags)
            last = summary.last
    elif not series:
        flags("metrics", "missing", "no metrics file, or one without values")
    if series and not any(point.timestamp for point in series):
        flags("metrics", "no_time", "no line has a timestamp; all points have the time 0")
    with _named(file or Path(run.path)):
        return dvc_metrics.joined(series, last, flags)


def _new(
    points: Iterable[MetricPoint], known: Iterable[MetricPoint], name: str, flags: Flags
) -> list[MetricPoint]:
    """Those of ``points`` whose metric no earlier file has; the others are flagged."""
    taken = {point.metric for point in known}
    left_out, new = set(), []
    for point in points:
        if point.metric in taken:
            left_out.add(point.metric)
        else:
            new.append(point)
        if len(new) > dvc_metrics.MAX_POINTS:
            raise ValueError(f"more than {dvc_metrics.MAX_POINTS:,} metric points")
    for metric in sorted(left_out):
        flags(f"metrics.{metric}", "history_not_taken", name)
    return new


def _parameters(run: RunFolder, flags: Flags) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    for name in PARAMETERS:
        file = _own(run, name)
        if file is None:
            continue
        with _named(file):
            value = parsed(_bytes(file, MAX_FILE), name)
            if value is not None and not isinstance(value, dict):
                raise ValueError("not a mapping of names to values")
            for key, item in dvc_metrics.parameters(value or {}, flags).items():
                if key in found:
                    flags(f"parameters.{key}", "name_conflict", f"{PARAMETERS[0]} has it, too")
                else:
                    found[key] = scalar(item)
    return found


def _own(run: RunFolder, name: str) -> Path | None:
    """The file ``name`` directly in the folder of ``run``."""
    return next((each.file for each in run.told if each.path == name), None)


def _bytes(file: Path, limit: int) -> bytes:
    with _opened(file, limit) as stream:
        return stream.read(limit)


@contextmanager
def _opened(file: Path, limit: int) -> Iterator[rows.Stream]:
    try:
        with file.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size > limit:
                raise too_large(file, f"{limit:,} bytes")
            yield stream
    except OSError as error:
        raise unreadable(file, error) from None


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """A problem with what ``file`` holds becomes an error that names it."""
    try:
        yield
    except ValueError as error:
        raise SourceError(
            f"{quoted(str(file), 200)} cannot be read as metrics or parameters: {error}",
            remedy="Use an intact copy, or leave the run's folder out of the store.",
        ) from None
