"""Re-executing the training of a bundle in a sandbox, and reading back what it left.

Nothing of the bundle runs outside the sandbox. What goes in are copies of files whose digests were checked; what comes
out is treated as hostile: regular files only, bounded, parsed by the built-in importers, never unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from bundler import codec, environment, importers, sandbox
from bundler.checks import Evidence
from bundler.checks.training import given_results
from bundler.errors import HostileOutputError, MalformedError, SourceError, UsageError
from bundler.facts import MAX_ENVIRONMENT_BYTES, record_of, renamed, with_histories
from bundler.history import read_points
from bundler.importers.model import ImportedRun
from bundler.lockfiles import parse as parse_lock
from bundler.placeholders import expand, problems, values_for
from bundler.progress import Progress
from bundler.records import MetricPoint, RunRecord, Scalar, artefact_location
from bundler.redaction import redact
from bundler.report import Finding, Knob, MetricComparison, Rerun, TensorComparison
from bundler.reproduction import compare_metrics, differing_knobs, is_bitwise, judge, same_training
from bundler.sandbox import diagnosis
from bundler.sandbox.workplace import make, new_file, workplace
from bundler.spec import TrainingSpec
from bundler.tensors import compare as compare_tensors

TOO_FAST = 0.1
"""Share of the recorded time below which a re-run needs an explanation. Other machines are faster, not ten times."""

BUNDLE = "/bundle"
OUT = "/out"
WORKSPACE = "code"
CONDITIONS = (
    "machine and software of the verifier; whether these are others than the provider's (reproducibility"
    " conditions, ISO 5725-1) is for the verifier to say"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunOptions:
    """How to re-run: with which interpreter and its packages, in which sandbox; ``keep``: where to keep the output."""

    python: Path
    confinement: Literal["auto", "bubblewrap", "sandlock", "none"] = "auto"
    trusted: bool = False
    keep: Path | None = None
    limits: sandbox.Limits = field(default_factory=sandbox.Limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunOutcome:
    """What a re-run came to: the comparison, and the findings about it. ``rerun`` is ``None`` if nothing ran."""

    rerun: Rerun | None
    findings: tuple[Finding, ...]


def rerun_training(
    evidence: Evidence,
    options: RerunOptions,
    progress: Progress,
) -> RerunOutcome:
    """Re-run the training of the selected run and compare.

    Raises :class:`bundler.errors.SandboxUnavailableError` and
    :class:`bundler.errors.EnvironmentNotRecreatableError`; both before any code of the bundle runs.
    """
    spec = evidence.contents.training
    declared = evidence.contents.record(spec.run) if spec is not None else None
    if spec is None or declared is None:
        return RerunOutcome(
            rerun=None,
            findings=(
                _warning(
                    "rerun-no-specification", "bundle", "the bundle does not say how to train"
                ),
            ),
        )
    unrunnable = next(problems(spec), None)
    if unrunnable is not None:
        raise MalformedError("training-unrunnable", unrunnable)
    box = sandbox.find(options.confinement, trusted=options.trusted)
    knobs = _software(evidence, spec, options.python)
    with workplace(options.keep) as place:
        _stage(evidence, spec, place)
        job = _job(spec, options, place)
        with progress.step("Testing the sandbox", None):
            isolation = box.isolation(options.limits)
        with progress.step(f"Re-running the training, seed {spec.seed}", None):
            outcome = box.run(job)
        execution = _Execution(
            spec=spec, declared=declared, isolation=isolation, outcome=outcome, software=knobs
        )
        if outcome.ended != "exited" or outcome.exit_code != 0:
            return _failed(execution, job.log, options.python)
        return _compare(evidence, execution, place / "out", options.limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Execution:
    spec: TrainingSpec
    declared: RunRecord
    isolation: sandbox.Isolation
    outcome: sandbox.Outcome
    software: tuple[Knob, ...]

    def report(
        self,
        verdict: Literal["bitwise", "not bitwise", "failed"],
        *,
        environment: dict[str, Scalar] | None = None,
        metrics: tuple[MetricComparison, ...] = (),
        tensors: tuple[TensorComparison, ...] = (),
        knobs: tuple[Knob, ...] = (),
    ) -> Rerun:
        return Rerun(
            run=self.declared.id,
            seed=self.spec.seed,
            verdict=verdict,
            exit_code=self.outcome.exit_code,
            seconds=round(self.outcome.wall_seconds, 3),
            conditions=CONDITIONS,
            isolation=_isolation_facts(self.isolation),
            environment=environment or {},
            metrics=metrics,
            tensors=tensors,
            knobs=(*self.software, *knobs),
        )


def _isolation_facts(isolation: sandbox.Isolation) -> dict[str, Scalar | tuple[str, ...]]:
    """What confined the code, with each probe as one line."""
    facts = codec.to_json(isolation)
    facts["limits_applied"] = isolation.limits_applied
    facts["limits_missing"] = isolation.limits_missing
    facts["probes"] = tuple(
        f"{probe.name}: {'blocked' if probe.blocked else 'open'}" for probe in isolation.probes
    )
    return dict(facts)


def _software(evidence: Evidence, spec: TrainingSpec, python: Path) -> tuple[Knob, ...]:
    if spec.lock is None:
        return ()
    declared = parse_lock(spec.lock, evidence.files.read(spec.lock))
    return environment.differences(
        declared.versions,
        environment.installed(python),
        python=python,
        conditional={*declared.conditional, *declared.conda},
        lock=spec.lock,
    )


def _stage(evidence: Evidence, spec: TrainingSpec, place: Path) -> None:
    """Copy code and inputs, each read held against its digest: what runs is what was verified.

    ``bundle`` is to be read only. The training works in ``code``, a copy that it may write to, as
    many do beside their script; it is thrown away, and what it holds then is not looked at.
    """
    code = evidence.files.below(spec.code)
    if not code:  # and so no path of the specification is believed that no manifest has
        raise MalformedError("training-unrunnable", f"there are no files below {spec.code!a}")
    bundle, workspace = place / "bundle", place / WORKSPACE
    for folder in (bundle, workspace):
        make(folder)
    programs = _programs(spec, code)
    for name in dict.fromkeys([*code, *(item.path for item in spec.inputs)]):
        _copy(evidence, name, bundle, name, programs)
    for name in code:
        inside = PurePosixPath(name).relative_to(spec.code).as_posix()
        _copy(evidence, name, workspace, inside, programs)


def _programs(spec: TrainingSpec, code: Iterable[str]) -> set[str]:
    """Those of the files ``code`` that are executable in git."""
    listed: dict[str, set[str]] = {}
    for tree in spec.code_trees:
        names = (entry.path for entry in tree.entries if entry.mode == "100755")
        listed.setdefault(tree.at, set()).update(names)
    found = set()
    for name in code:
        inside = PurePosixPath(name).relative_to(spec.code)
        # A listing is of the whole code or of a folder in it: a submodule.
        for folder in inside.parents:
            at = "" if folder == PurePosixPath() else folder.as_posix()
            if inside.relative_to(folder).as_posix() in listed.get(at, ()):
                found.add(name)
    return found


def _copy(evidence: Evidence, name: str, folder: Path, inside: str, programs: set[str]) -> None:
    with new_file(folder, inside, program=name in programs) as copy:
        evidence.files.copy(name, copy)


def _job(spec: TrainingSpec, options: RerunOptions, place: Path) -> sandbox.Job:
    out = place / "out"
    out.mkdir()
    values = values_for(spec, python=str(options.python), bundle=BUNDLE, out=OUT, seed=spec.seed)
    return sandbox.Job(
        command=tuple(expand(word, values) for word in spec.command),
        working_directory=PurePosixPath(values["code"]),
        mounts=(sandbox.Mount(source=place / "bundle", target=PurePosixPath(BUNDLE)),),
        output=out,
        workspace=place / WORKSPACE,
        environment={name: expand(value, values) for name, value in spec.environment.items()},
        limits=options.limits,
        log=place / "log.txt",
        interpreter=options.python,
    )


def _failed(execution: _Execution, log: Path, python: Path) -> RerunOutcome:
    outcome, lines = execution.outcome, diagnosis.last_lines(log)
    tail = lines[-1] if lines else ""
    how = f"exit code {outcome.exit_code}" if outcome.ended == "exited" else outcome.ended
    words = f"the training did not finish: {how}; {outcome.detail or tail or 'it printed nothing'}"
    finding = _warning(
        "rerun-failed",
        execution.declared.id,
        words,
        " ".join([
            *diagnosis.why_training_fails(lines, python),
            "Run again with --keep DIR and read log.txt there. A failure is no evidence against the provider.",
        ]),
    )  # fmt: skip
    return RerunOutcome(rerun=execution.report("failed"), findings=(finding,))


def _compare(
    evidence: Evidence, execution: _Execution, out: Path, limits: sandbox.Limits
) -> RerunOutcome:
    spec, declared = execution.spec, execution.declared
    links: tuple[Finding, ...] = ()
    try:
        links = tuple(_links_removed(declared.id, sandbox.collect(out, limits=limits).links))
        imported = _read_back(spec, out)
        record = record_of(
            imported,
            evidence.contents.index.facts,
            run_id=declared.id,
            history=None,
            artefacts=(),
            environment=_artefact(imported, evidence.contents.index.facts.environment),
        )
        # As the declared record was, in whole or in part: what is left can be compared.
        (rerun, _), (declared, _) = redact(record), redact(declared)
        tensors = tuple(_tensors(evidence, execution, imported))
    except (HostileOutputError, SourceError, UsageError, MalformedError) as error:
        finding = _warning(
            "rerun-output",
            declared.id,
            f"its output cannot be read: {error.message}",
            diagnosis.why_nothing_was_left(out.parent / WORKSPACE, spec.outputs.location),
        )
        return RerunOutcome(rerun=execution.report("failed"), findings=(*links, finding))
    known = {metric.name: metric.role for metric in (*declared.metrics, *rerun.metrics)}
    metrics = compare_metrics(_declared_points(evidence, declared), imported.points, known)
    knobs = differing_knobs(declared.environment, rerun.environment)
    bitwise = is_bitwise(metrics, tensors)
    findings = (
        *links,
        *same_training(declared, rerun),
        *given_results(evidence),
        *_too_fast(execution),
        *(
            _with_settings(finding, knobs)
            for finding in judge(
                declared.id, metrics, tensors, (*execution.software, *knobs), _decisive(evidence)
            )
        ),
    )
    report = execution.report(
        "bitwise" if bitwise else "not bitwise",
        environment=dict(rerun.environment),
        metrics=metrics,
        tensors=tensors,
        knobs=knobs,
    )
    return RerunOutcome(rerun=report, findings=findings)


def _links_removed(run: str, count: int) -> Iterator[Finding]:
    if count:
        yield Finding(
            code="rerun-links-removed",
            severity="note",
            subject=run,
            message=f"symbolic links in the output: {count}; they were removed and not followed, so what only a"
            " link led to counts as missing",
        )


_SETTING = re.compile(r"(?:determinism|threads)\.([A-Z][A-Z0-9_]*)")
"""How `bundler capture` names an environment variable; its other facts are lower case."""


def _with_settings(finding: Finding, knobs: tuple[Knob, ...]) -> Finding:
    """Where the environment variables of training differed, say what can set them."""
    named = [
        (match[1], knob.declared) for knob in knobs if (match := _SETTING.fullmatch(knob.name))
    ]
    if finding.code != "rerun-not-bitwise" or not named:
        return finding
    wanted = ", ".join(
        f"{name} ({'not set' if value is None else ascii(value)[:60]} in the declared run)"
        for name, value in named[:6]
    )
    return replace(
        finding,
        remedy=f"The provider can set environment variables in training.environment of bundle.yaml: {wanted}.",
    )


def _decisive(evidence: Evidence) -> set[str]:
    """The metrics that the selection and the gates rest on."""
    index = evidence.contents.index
    return {
        index.selection.metric,
        *(condition.metric for condition in index.selection.constraints),
        *(gate.metric for gate in index.gates),
    }


def _too_fast(execution: _Execution) -> Iterator[Finding]:
    """A run that needs a small part of the recorded time may have had its result at hand."""
    declared, seconds = execution.declared, execution.outcome.wall_seconds
    recorded = declared.seconds
    if recorded is not None and seconds < TOO_FAST * recorded:
        yield _warning(
            "rerun-too-fast",
            declared.id,
            f"the re-run took {seconds:.1f} s, the recorded run {recorded:.1f} s: was anything trained?",
            "Read the code, and train with another seed.",
        )


def _read_back(spec: TrainingSpec, out: Path) -> ImportedRun:
    importer = importers.find(spec.outputs.tracker, built_in_only=True)
    store = out / PurePosixPath(spec.outputs.location)
    if out not in store.resolve().parents:
        raise MalformedError("rerun-output", "outputs.location leaves the output folder")
    with importer.open(store, experiment=None, artefacts=None) as session:
        runs = list(session)
    if len(runs) != 1:
        raise SourceError(f"the training left {len(runs)} runs instead of one")
    return renamed(with_histories(runs[0], spec.outputs.histories), spec.outputs.rename)


def _tensors(
    evidence: Evidence, execution: _Execution, imported: ImportedRun
) -> Iterator[TensorComparison]:
    declared = {artefact.path: artefact for artefact in execution.declared.artefacts}
    for path in execution.spec.outputs.tensors:
        location = (
            artefact_location(execution.declared.id, declared[path]) if path in declared else path
        )
        left = evidence.files.read(location)
        # Output is hostile: nothing much larger than what was declared is read into memory.
        limit = len(left) + MAX_ENVIRONMENT_BYTES
        right = _artefact(imported, path, limit=limit)
        if right is None:
            raise SourceError(f"the training left no artefact {path}")
        if len(right) == limit:
            raise SourceError(f"artefact {path} is far larger than the declared one")
        yield from compare_tensors(left, right, name=path)


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


def _declared_points(evidence: Evidence, declared: RunRecord) -> Iterator[MetricPoint]:
    if declared.history is not None:
        yield from read_points(
            evidence.files.read(declared.history.path), name=declared.history.path
        )


def _warning(code: str, subject: str, message: str, remedy: str = "") -> Finding:
    return Finding(code=code, severity="warning", subject=subject, message=message, remedy=remedy)
