"""Hugging Face Trainer: ``trainer_state.json``, in a run's folder and in its checkpoints.

The state with the greatest step holds the whole history. What it does not hold: times (all points have the time 0), the
seed and most training arguments (they are in ``training_args.bin``, a pickle, which is never opened). Each is named in
the record's fidelity flags.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bundler.canonical import MAX_INTEGER
from bundler.errors import SourceError, quoted
from bundler.importers import run_folders
from bundler.importers.experiments import Experiment
from bundler.importers.files import too_large, unreadable
from bundler.importers.json_lines import compact
from bundler.importers.model import ArtefactFile, ImportedRun, ImportSession, MetricPoint, Store
from bundler.importers.run_folders import RunFolder, RunFolders
from bundler.importers.values import (
    Flag,
    Flags,
    clean,
    flag_counts,
    flag_steps,
    integer,
    logged_order,
)
from bundler.records import CodeVersion, Scalar, Source, Status

STATE = "trainer_state.json"

MAX_STATE = 256 << 20
"""Most bytes of a state: about a million rows of its history."""

MAX_POINTS = 5_000_000
"""Most points of one run: about 1 GB of memory."""

_CHECKPOINT = re.compile(r"checkpoint-[0-9]{1,15}")
_ARGUMENTS = (
    "eval_steps",
    "logging_steps",
    "max_steps",
    "num_train_epochs",
    "save_steps",
    "train_batch_size",
)
_RESULTS = (
    "best_global_step",
    "best_metric",
    "best_model_checkpoint",
    "epoch",
    "global_step",
    "num_input_tokens_seen",
    "total_flos",
    "trial_name",
)
_REMEDY = f"Give a {STATE}, the folder of a run (output_dir), or a folder whose folders are those of runs."


class TrainerStateImporter:
    """Reads what the Trainer of transformers saves: a file, a run's folder, or a folder of such folders."""

    name = "trainer-state"

    def detect(self, folder: Path) -> tuple[Path, ...]:
        """The folder itself, if a state lies in it, in its checkpoints or one level further down."""
        levels = (STATE, f"checkpoint-*/{STATE}", f"*/{STATE}", f"*/checkpoint-*/{STATE}")
        try:
            return (folder,) if any(True for each in levels for _ in folder.glob(each)) else ()
        except OSError:
            return ()

    def experiments(self, store: Store) -> tuple[str, ...]:
        """The one experiment: the folder's name."""
        found = _found(store, Flags())
        return (_experiment(store, len(found)).name,)

    @contextmanager
    def open(
        self, store: Store, *, experiment: str | None, artefacts: Path | None
    ) -> Iterator[ImportSession]:
        """Open the runs of ``store``; see :class:`bundler.importers.model.Importer`.

        Files in a run's folder are its artefacts, and those in the folder of the same path below ``artefacts``.
        """
        yield _Session(
            run_folders.opened(
                store, _found, _experiment, experiment=experiment, artefacts=artefacts
            )
        )


@dataclass(frozen=True, slots=True)
class _Session:
    """The runs of one folder, read anew each time. No run says when it began."""

    runs: RunFolders

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[ImportedRun]:
        return map(self._read, self.runs.found)

    def _read(self, run: RunFolder) -> ImportedRun:
        flags = self.runs.first_flags()
        state = _latest(run, flags)
        points = tuple(sorted(points_of(state, flags), key=logged_order))
        flag_steps(points, flags)
        flags("seed", "not_recorded", "it is in training_args.bin, a pickle, which is not opened")
        flags("parameters", "incomplete", f"{STATE} has few of the training's arguments")
        return ImportedRun(
            source=Source(
                tracker="trainer-state",
                store="files",
                experiment_id=self.runs.experiment.id,
                experiment=self.runs.experiment.name,
                run_id=run.path,
            ),
            name=self.runs.name(run),
            status=_status(state),
            deleted=False,
            started=None,
            ended=None,
            code=CodeVersion(),
            data=(),
            parameters=_parameters(state),
            tags={name: text for name in _RESULTS if (text := clean(state.get(name))) is not None},
            points=points,
            artefacts=tuple(self.runs.files(run, flags)),
            fidelity=flags.all(),
            environment=_environment(run),
        )


def read_state(file: Path) -> dict[str, Any]:
    """The object in a ``trainer_state.json``. Raises :class:`SourceError` for anything else.

    The Trainer writes NaN and infinities as bare words, which are not JSON.
    """
    state = _json(file, MAX_STATE)
    if not isinstance(state, dict) or not isinstance(state.get("log_history"), list):
        raise _damaged(file, "no log_history")
    return state


def points_of(state: Mapping[str, Any], flag: Flag) -> Iterator[MetricPoint]:
    """All points in the order of logging, named as the Trainer names them; ``epoch`` once a step. Time is 0."""
    odd: Counter[str] = Counter()
    rounded: dict[str, bool] = {}
    count = 0
    for step, name, value in _values(state["log_history"], flag):
        number = _number(value)
        if number is None:
            odd[name] += 1
            continue
        rounded[name] = rounded.get(name, True) and _is_rounded(name, number)
        count += 1
        if count > MAX_POINTS:
            raise SourceError(
                f"{STATE} holds more than {MAX_POINTS:,} metric points", remedy="Log less often."
            )
        yield MetricPoint(name, step, 0, number)
    if count:
        flag("metrics", "no_time", "the Trainer records no times; all points have the time 0")
    flag_counts("not_a_number", odd, flag)
    for name in sorted(name for name, every in rounded.items() if every):
        flag(f"metrics.{name}", "rounded", "to 4 decimals or fewer")


def _values(history: list[Any], flag: Flag) -> Iterator[tuple[int, str, object]]:
    """Step, name and value of all that was logged."""
    epochs: set[tuple[int, str]] = set()
    left_out = 0
    for entry in history:
        step = integer(entry.get("step")) if isinstance(entry, dict) else None
        if step is None or abs(step) > MAX_INTEGER:
            left_out += 1
            continue
        for key, value in entry.items():
            if key == "epoch":
                if (step, repr(value)) in epochs:
                    continue  # of the rows for training and for evaluation at one step
                epochs.add((step, repr(value)))
            if key != "step":
                yield step, clean(key) or "", value
    if left_out:
        flag("metrics", "no_step", f"{left_out} rows of log_history are left out")


def _number(value: object) -> float | None:
    # No integer is too large for a double: _integer sees to that.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None  # type: ignore[arg-type]


def _is_rounded(name: str, number: float) -> bool:
    """Whether ``number`` has no more decimals than the Trainer leaves to numbers of this kind."""
    if name != "loss" and not name.endswith(("_runtime", "_per_second")):
        return False
    return not math.isfinite(number) or round(number, 4) == number


def _latest(run: RunFolder, flags: Flags) -> dict[str, Any]:
    """The state with the greatest step, the run's own before a checkpoint's. The others should be its beginning."""
    best: dict[str, Any] = {}
    known: list[tuple[str, int, str]] = []
    for each in sorted(run.told, key=lambda each: (each.path.count("/"), each.path)):
        if each.file is None:
            continue
        state = read_state(each.file)
        known.append((each.path, len(state["log_history"]), _digest(state["log_history"])))
        if not best or _step(state) > _step(best):
            best = state
    for path, rows, digest in known:
        if _digest(best["log_history"][:rows]) != digest:
            flags("metrics", "overwritten", f"{path} has another history than the latest state")
    return best


def _digest(history: list[Any]) -> str:
    # As text, because NaN is no NaN's equal.
    return hashlib.sha256(json.dumps(history, sort_keys=True).encode()).hexdigest()


def _step(state: Mapping[str, Any]) -> int:
    return integer(state.get("global_step")) or 0


def _status(state: Mapping[str, Any]) -> Status:
    """Finished, if it made all its steps or summed up its training at the end; otherwise nothing is known."""
    history = state["log_history"]
    summed_up = any(isinstance(entry, dict) and "train_runtime" in entry for entry in history)
    all_steps = integer(state.get("max_steps")) or 0
    return "finished" if summed_up or 0 < all_steps <= _step(state) else "unknown"


def _parameters(state: Mapping[str, Any]) -> dict[str, Scalar]:
    """The training's arguments that the state has, and those of a trial of a hyperparameter search."""
    trial = state.get("trial_params")
    named = {name: state[name] for name in _ARGUMENTS if state.get(name) is not None}
    named |= trial if isinstance(trial, dict) else {}
    return {clean(name) or "": _scalar(value) for name, value in sorted(named.items())}


def _scalar(value: object) -> Scalar:
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, str):
        return clean(value)
    return clean(compact(value))


def _environment(run: RunFolder) -> dict[str, Scalar]:
    """The version of transformers, which stands in the model's configuration."""
    configurations = [each for each in run.files if PurePosixPath(each.path).name == "config.json"]
    for each in configurations[:1]:
        try:
            value = _json(each.file, 1 << 20) if each.file else None
        except SourceError:
            continue  # it is an artefact like any other
        version = value.get("transformers_version") if isinstance(value, dict) else None
        if isinstance(version, str):
            return {"packages.transformers": clean(version)}
    return {}


def _found(store: Store, flags: Flags) -> list[RunFolder]:
    with suppress(OSError):  # what cannot be looked at is no folder either, and that is said
        if isinstance(store, Path) and store.is_file():
            return [_alone(store)]
    folder = run_folders.require_folder(store, "the Trainer", _REMEDY)
    found = run_folders.find(folder, STATE.__eq__, _owner, flags)
    if not found:
        raise SourceError(f"{quoted(str(folder), 200)} holds no {STATE}", remedy=_REMEDY)
    return found


def _alone(file: Path) -> RunFolder:
    """The run of a state that was given by itself."""
    mine = ArtefactFile(path=file.name, file=file)
    return RunFolder(path=run_folders.ROOT, files=(mine,), told=(mine,))


def _owner(path: str, _: Iterable[str]) -> str:
    """The run's folder, for that of a checkpoint."""
    parent, _, name = path.rpartition("/")
    return (parent or run_folders.ROOT) if _CHECKPOINT.fullmatch(name) else path


def _experiment(store: Store, runs: int) -> Experiment:
    place = Path(store).resolve()
    name = (place.parent if place.name == STATE else place).name or "runs"
    return Experiment(id=name, name=name, runs=runs, deleted=False)


def _json(file: Path, limit: int) -> Any:
    """The value in a JSON file that may hold NaN and infinities as words. Raises :class:`SourceError`."""
    try:
        with file.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size > limit:
                raise too_large(file, f"{limit:,} bytes")
            data = stream.read(limit)
    except OSError as error:
        raise unreadable(file, error) from None
    try:
        # Not json.loads(bytes): that would guess the encoding.
        return json.loads(
            data.decode(), object_pairs_hook=_object, parse_int=_integer, parse_float=_double
        )
    except json.JSONDecodeError as error:
        raise _damaged(file, f"{error.msg} at character {error.pos}") from None
    except RecursionError:
        raise _damaged(file, "nested too deeply") from None
    except ValueError as error:  # not UTF-8 as well
        raise _damaged(file, str(error)) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


def _integer(digits: str) -> int | float:
    """An integer; one of more digits than any that is meant becomes the double that it is nearest to."""
    return int(digits) if len(digits) <= 20 else _double(digits)


def _double(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"the number {quoted(digits, 40)} is too large")
    return value


def _damaged(file: Path, problem: str) -> SourceError:
    return SourceError(
        f"{quoted(str(file), 200)} is no state of the Trainer: {problem}",
        remedy="Use an intact copy of the file, or move it out of the folder.",
    )
