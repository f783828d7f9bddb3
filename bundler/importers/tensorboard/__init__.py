"""TensorBoard: a folder of event files (``events.out.tfevents.*``), read without TensorFlow.

Each folder with event files is a run, as in TensorBoard. Two things differ from what TensorBoard shows: points that it
hides after a restart are kept, and the folder that ``add_hparams`` of PyTorch and tensorboardX makes below a run (named
by the time) belongs to that run. What the format does to values: most writers store 32-bit floats, and all numbers
among the hyperparameters are doubles. Both are named in the record's fidelity flags.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import SourceError, quoted
from bundler.importers import run_folders
from bundler.importers.experiments import Experiment
from bundler.importers.model import ArtefactFile, ImportedRun, ImportSession, Store
from bundler.importers.run_folders import RunFolder, RunFolders
from bundler.importers.tensorboard.events import Events, is_event_file, milliseconds
from bundler.importers.tensorboard.framing import Tail, records
from bundler.importers.values import Flags, flag_steps, logged_order
from bundler.records import CodeVersion, Source, Status

_WRITTEN_BY_ADD_HPARAMS = re.compile(r"[0-9]{9,}\.[0-9]+")
_REMEDY = (
    "Give the folder of the log (logdir): the one that holds the runs' folders or event files."
)


class TensorboardImporter:
    """Reads a log folder of TensorBoard: each folder with event files is a run."""

    name = "tensorboard"

    def detect(self, folder: Path) -> tuple[Path, ...]:
        """The folders ``runs``, ``logs`` and ``lightning_logs`` with event files one or two levels below, or itself."""
        named = [folder / name for name in ("lightning_logs", "logs", "runs")]
        try:
            if any(is_event_file(each.name) for each in folder.iterdir()):
                return (folder,)
            return tuple(each for each in named if _holds_events(each))
        except OSError:
            return ()

    def experiments(self, store: Store) -> tuple[str, ...]:
        """The one experiment: the folder's name."""
        _found(store, Flags())
        return (_experiment(store, 0).name,)

    @contextmanager
    def open(
        self, store: Store, *, experiment: str | None, artefacts: Path | None
    ) -> Iterator[ImportSession]:
        """Open the log folder; see :class:`bundler.importers.model.Importer`.

        Files in a run's folder are its artefacts, and those in the folder of the same path below ``artefacts``.
        """
        yield _Session(
            run_folders.opened(
                store, _found, _experiment, experiment=experiment, artefacts=artefacts
            )
        )


@dataclass(frozen=True, slots=True)
class _Session:
    """The runs of one log folder, read anew each time."""

    runs: RunFolders

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[ImportedRun]:
        for run in sorted(self.runs.found, key=lambda each: (_started(each), each.path)):
            yield self._read(run)

    def _read(self, run: RunFolder) -> ImportedRun:
        flags = self.runs.first_flags()
        events = Events()
        for _, file in _ordered(run):
            if file.file is not None:
                events.add(file.file, file.path, flags)
        events.flag(flags)
        points = tuple(sorted(events.points, key=logged_order))
        flag_steps(points, flags)
        started = _started(run) or None
        ended = _ended(events)
        if started is not None:
            of_events = "start" if events.session_ended is not None else "start and end"
            flags("run", "time_of_events", f"{of_events}: of its first and last event")
        return ImportedRun(
            source=Source(
                tracker="tensorboard",
                store="event files",
                experiment_id=self.runs.experiment.id,
                experiment=self.runs.experiment.name,
                run_id=run.path,
            ),
            name=self.runs.name(run),
            status=_status(events, flags),
            deleted=False,
            started=started,
            ended=ended,
            code=CodeVersion(),
            data=(),
            parameters=events.parameters,
            tags={},
            points=points,
            artefacts=tuple(self.runs.files(run, flags)),
            fidelity=flags.all(),
        )


def _found(store: Store, flags: Flags) -> list[RunFolder]:
    folder = run_folders.require_folder(store, "event files", _REMEDY)
    found = run_folders.find(folder, is_event_file, _owner, flags)
    if not found:
        raise SourceError(f"{quoted(str(folder), 200)} holds no event file", remedy=_REMEDY)
    return found


def _experiment(store: Store, runs: int) -> Experiment:
    name = Path(store).resolve().name or "logs"
    return Experiment(id=name, name=name, runs=runs, deleted=False)


def _owner(path: str, runs: Iterable[str]) -> str:
    """The run above, for a folder that ``add_hparams`` made."""
    parent, _, name = path.rpartition("/")
    parent = parent or run_folders.ROOT
    return parent if _WRITTEN_BY_ADD_HPARAMS.fullmatch(name) and parent in runs else path


def _ordered(run: RunFolder) -> list[tuple[float, ArtefactFile]]:
    """The event files by the time of their first event, and by path."""
    return sorted(
        ((_first_time(each), each) for each in run.told), key=lambda pair: (pair[0], pair[1].path)
    )


def _first_time(file: ArtefactFile) -> float:
    """The time of the first event, in seconds; 0 if there is none or it says none."""
    events = Events()
    if file.file is not None:
        for _, data in records(file.file, Tail()):
            events.take(file.file, 0, data)
            break
    return events.first or 0.0


def _started(run: RunFolder) -> int:
    times = [time for time, _ in _ordered(run) if time]
    return milliseconds(min(times, default=0.0)) or 0


def _ended(events: Events) -> int | None:
    """When the session says that it ended, else the time of the last event."""
    ended = None if events.session_ended is None else milliseconds(events.session_ended)
    return ended if ended is not None or events.last is None else milliseconds(events.last)


def _status(events: Events, flags: Flags) -> Status:
    """What the hyperparameters' plug-in says of the session, if it said so after the last point.

    Some integrations write "success" before they begin.
    """
    if events.session_status != "unknown" and events.written_early:
        flags("status", "written_early", f"{events.session_status}, before the last point")
        return "unknown"
    return events.session_status


def _holds_events(folder: Path) -> bool:
    """Whether event files lie in ``folder`` or one or two levels below it."""
    levels = ("*tfevents*", "*/*tfevents*", "*/*/*tfevents*")
    return folder.is_dir() and any(True for each in levels for _ in folder.glob(each))
