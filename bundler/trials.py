"""One training in a sandbox, from its command to what it left: the unit of work of every engine.

A :class:`Trial` and its :class:`TrialResult` are JSON, so that any worker on any machine can be given one and send the
other back. What goes in are copies of files whose digests were checked (:mod:`bundler.staging`); what comes out is
treated as hostile: regular files only, bounded, parsed by the built-in importers, never unpickled.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from bundler import codec, importers, sandbox
from bundler.errors import HostileOutputError, MalformedError, SourceError, UsageError
from bundler.facts import MAX_ENVIRONMENT_BYTES, record_of, renamed, with_histories
from bundler.importers.model import ImportedRun
from bundler.predictions import MAX_BYTES
from bundler.predictions import compare as compare_predictions
from bundler.records import MetricPoint, Number, RunRecord, Scalar
from bundler.records import number as spelled
from bundler.redaction import redact
from bundler.report import PredictionComparison, TensorComparison
from bundler.sandbox import diagnosis, gpus
from bundler.sandbox.model import Ended, OnOutput
from bundler.spec import FactMap, Outputs, Resources
from bundler.staging import BUNDLE, DECLARED, WORKSPACE
from bundler.tensors import compare as compare_tensors
from bundler.tensors import read as read_tensors

PACKAGE = PurePosixPath("/bundle")
OUT = PurePosixPath("/out")
"""Where a job finds the staged package, and where it leaves its output."""

MAX_POINTS = 1_000_000
MAX_METRICS = 10_000
"""Most metric points, and names, that are taken from one re-run: they all go through memory and into the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One training to be run.

    ``command`` and ``environment`` have no placeholders left. ``run`` is the declared run that it repeats.
    ``histories`` asks for every metric point, and ``compare`` for a comparison of its output with the declared bytes in
    the staged package: both only for the declared seed, whose tensors are hashed as well. ``sizes`` are the bytes that
    the declared artefacts have. ``interpreter`` and ``root`` are paths on the worker; the sandbox is found there, too.
    """

    seed: int
    command: tuple[str, ...]
    working_directory: str
    environment: Mapping[str, str]
    outputs: Outputs
    facts: FactMap
    run: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    compare: bool = False
    histories: bool = False
    limits: sandbox.Limits = field(default_factory=sandbox.Limits)
    confinement: Literal["auto", "bubblewrap", "sandlock", "none"] = "auto"
    trusted: bool = False
    interpreter: str | None = None
    root: str | None = None
    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A metric point of a re-run."""

    metric: str
    step: int
    timestamp: int
    value: Number

    @classmethod
    def of(cls, point: MetricPoint) -> Point:
        """The same point, as JSON can carry it."""
        return cls(
            metric=point.metric,
            step=point.step,
            timestamp=point.timestamp,
            value=spelled(point.value),
        )

    def plain(self) -> MetricPoint:
        """The same point, with a float."""
        return MetricPoint(self.metric, self.step, self.timestamp, float(self.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """How a training ended, and what it left.

    ``record`` is the re-run's own record, redacted as declared ones are; ``None`` with a ``problem`` (and its
    ``remedy``) where the training did not finish or its output cannot be read. ``log`` are its last lines. ``links``
    counts symbolic links that were removed from the output. ``hashes`` are those of the single tensors.
    ``incomparable`` says why the predictions could not be compared. Blind, there is nothing to compare them with yet:
    the file is ``kept`` (base64), because its hash alone would call the last bit of a score another result.
    ``resumed``: taken over from an interrupted verification.
    """

    seed: int
    ended: Ended
    exit_code: int | None
    seconds: float
    cpu_seconds: float | None
    peak_memory_bytes: int | None
    detail: str
    log: tuple[str, ...]
    isolation: Mapping[str, Scalar | tuple[str, ...]]
    links: int = 0
    record: RunRecord | None = None
    points: tuple[Point, ...] = ()
    tensors: tuple[TensorComparison, ...] = ()
    predictions: tuple[PredictionComparison, ...] = ()
    incomparable: str = ""
    kept: str | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    remedy: str = ""
    attempts: int = 1
    where: str = ""
    resumed: bool = False


def run_trial(
    trial: Trial, staged: Path, place: Path, on_output: OnOutput | None = None
) -> TrialResult:
    """Run ``trial`` with the staged package ``staged`` and read back what it left.

    ``place`` is an empty folder of the caller; the job's output is left there in ``out``, its log in ``log.txt``.
    ``on_output`` sees each chunk of the log. Raises :class:`bundler.errors.SandboxUnavailableError` before any code
    runs.
    """
    box = sandbox.find(trial.confinement, trusted=trial.trusted)
    with_gpus = trial.resources.gpus > 0
    limits = gpus.limits(trial.limits) if with_gpus else trial.limits
    isolation = box.isolation(limits, gpus=with_gpus)
    workspace = place / WORKSPACE
    shutil.copytree(staged / WORKSPACE, workspace)
    job = sandbox.Job(
        command=trial.command,
        working_directory=PurePosixPath(trial.working_directory),
        mounts=(sandbox.Mount(source=staged / BUNDLE, target=PACKAGE),),
        output=place / "out",
        workspace=workspace,
        environment=trial.environment,
        limits=limits,
        log=place / "log.txt",
        interpreter=None if trial.interpreter is None else Path(trial.interpreter),
        root=None if trial.root is None else Path(trial.root),
        gpus=with_gpus,
    )
    job.output.mkdir()
    outcome = box.run(job, on_output=on_output)
    log = tuple(diagnosis.last_lines(job.log))
    result = TrialResult(
        seed=trial.seed,
        ended=outcome.ended,
        exit_code=outcome.exit_code,
        seconds=round(outcome.wall_seconds, 3),
        cpu_seconds=outcome.cpu_seconds,
        peak_memory_bytes=outcome.peak_memory_bytes,
        detail=outcome.detail,
        log=log[-LOG_LINES:],
        isolation=isolation_facts(isolation),
    )
    return _read_back(trial, result, staged, place)


LOG_LINES = 8


def isolation_facts(isolation: sandbox.Isolation) -> dict[str, Scalar | tuple[str, ...]]:
    """What confined the code, with each probe as one line."""
    facts = codec.to_json(isolation)
    facts["limits_applied"] = isolation.limits_applied
    facts["limits_missing"] = isolation.limits_missing
    facts["probes"] = tuple(
        f"{probe.name}: {'blocked' if probe.blocked else 'open'}" for probe in isolation.probes
    )
    return dict(facts)


def trained(result: TrialResult) -> bool:
    """Whether the training ran to its end, whatever it left."""
    return result.ended == "exited" and result.exit_code == 0


def _read_back(trial: Trial, result: TrialResult, staged: Path, place: Path) -> TrialResult:
    """Add to ``result`` what can be read of the output; of a training that was stopped, what it had logged by then."""
    try:
        links = sandbox.collect(place / "out", limits=trial.limits).links
        result = replace(result, links=links)
        imported = _imported(trial.outputs, place / "out")
        result = replace(result, record=_record(trial, imported))
        if trial.histories:
            result = replace(result, points=tuple(map(Point.of, imported.points)))
        if trained(result) and trial.histories:
            result = _outputs(trial, result, imported, staged / DECLARED)
    except (HostileOutputError, SourceError, UsageError, MalformedError, MemoryError) as error:
        words = getattr(error, "message", "it needs more memory than there is")
        return replace(
            result,
            record=None,
            problem=words.replace(str(place / "out"), str(OUT)),
            remedy=diagnosis.why_nothing_was_left(place / WORKSPACE, trial.outputs.location),
        )
    return result


def _imported(outputs: Outputs, out: Path) -> ImportedRun:
    importer = importers.find(outputs.tracker, built_in_only=True)
    store = out / PurePosixPath(outputs.location)
    if out.resolve() not in store.resolve().parents:
        raise MalformedError("rerun-output", "outputs.location leaves the output folder")
    with importer.open(store, experiment=None, artefacts=None) as session:
        runs = list(session)
    if len(runs) != 1:
        raise SourceError(f"the training left {len(runs)} runs instead of one")
    run = renamed(with_histories(runs[0], outputs.histories), outputs.rename)
    names = len({point.metric for point in run.points})
    if len(run.points) > MAX_POINTS or names > MAX_METRICS:
        raise SourceError(
            f"the training logged {len(run.points)} points of {names} metrics; {MAX_POINTS} of {MAX_METRICS} are read"
        )
    return run


def _record(trial: Trial, imported: ImportedRun) -> RunRecord:
    """The record of the re-run, redacted as declared ones are: what is left can be compared."""
    record = record_of(
        imported,
        trial.facts,
        run_id=trial.run,
        history=None,
        artefacts=(),
        environment=_artefact(imported, trial.facts.environment),
    )
    return redact(record)[0]


def _outputs(
    trial: Trial, result: TrialResult, imported: ImportedRun, declared: Path
) -> TrialResult:
    """Hash the tensors that the training left and, where asked for, compare tensors and predictions."""
    hashes: dict[str, str] = {}
    unlike, kept = "", None
    tensors: list[TensorComparison] = []
    predictions: list[PredictionComparison] = []
    for number, path in enumerate(compared_artefacts(trial.outputs)):
        left = (declared / str(number)).read_bytes() if trial.compare else None
        # Output is hostile: nothing much larger than what was declared is read into memory.
        limit = trial.sizes.get(path, 0) + MAX_ENVIRONMENT_BYTES
        right = _artefact(imported, path, limit=limit)
        if right is None:
            raise SourceError(f"the training left no artefact {path}")
        if len(right) == limit:
            raise SourceError(f"artefact {path} is far larger than the declared one")
        if path in trial.outputs.tensors:
            hashes.update(tensor_hashes(right, path))
            if left is not None:
                tensors += compare_tensors(left, right, name=path)
        elif left is None:
            hashes[path] = hashlib.sha256(right).hexdigest()
            kept = _kept(right)
        elif trial.outputs.predictions is not None:
            try:
                found = compare_predictions(left, right, trial.outputs.predictions, name=path)
            except MalformedError as error:
                # Of other examples than declared, say: weights and metrics can still be compared.
                unlike = error.message
            else:
                predictions.append(found)
    return replace(
        result,
        hashes=hashes,
        tensors=tuple(tensors),
        predictions=tuple(predictions),
        incomparable=unlike,
        kept=kept,
    )


def _kept(data: bytes) -> str | None:
    """``data`` as JSON can carry it; not what is larger than predictions may be."""
    return base64.b64encode(data).decode() if len(data) <= MAX_BYTES else None


def kept_predictions(result: TrialResult, path: str) -> bytes:
    """The file of predictions that a blind trial kept. Raises :class:`MalformedError` if it was too large."""
    if result.kept is None:
        raise MalformedError("predictions-syntax", f"{path} was too large to be kept")
    return base64.b64decode(result.kept)


def tensor_hashes(data: bytes, name: str) -> Iterator[tuple[str, str]]:
    """The SHA-256 of each tensor in ``data`` over its type, shape and bytes."""
    for tensor, content in sorted(read_tensors(data, name=name).items()):
        digest = hashlib.sha256(f"{content['dtype']} {list(content['shape'])} ".encode())
        digest.update(content["data"])
        yield f"{name}: {tensor}", digest.hexdigest()


def compared_artefacts(outputs: Outputs) -> tuple[str, ...]:
    """The artefacts that are compared with the declared ones, in the order of the staged package."""
    predictions = () if outputs.predictions is None else (outputs.predictions.path,)
    return tuple(dict.fromkeys([*outputs.tensors, *predictions]))


def _artefact(
    imported: ImportedRun, path: str | None, limit: int = MAX_ENVIRONMENT_BYTES
) -> bytes | None:
    wanted = (path or "").removeprefix("artefacts.")
    for artefact in imported.artefacts:
        if artefact.path != wanted or artefact.file is None:
            continue
        # What was a link there is gone.
        with suppress(FileNotFoundError), artefact.file.open("rb") as file:
            return file.read(limit)
    return None
