"""Scoring the shipped model on the shipped hold-out, in the sandbox and without any training.

The same model on the same data gives the same figures, whatever seed it was trained with. So what comes out is held
against the declared value itself: a model that was swapped, other data or an edited figure shows within seconds.
Decoys are scored as well: figures that stay the same with other weights do not come from the model.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from bundler import canonical, sandbox
from bundler.checks import Evidence
from bundler.checks.evaluation import recorded_artefacts
from bundler.decoy import DECOYS, change_signs, spoil
from bundler.devices import cuda_environment
from bundler.environments.model import Runtime
from bundler.errors import HostileOutputError, MalformedError, quoted
from bundler.gates import deciding_metrics
from bundler.placeholders import artefacts_named, evaluation_problems, expand, problems, values_for
from bundler.policy import Policy, cap, effective_margin
from bundler.progress import Progress
from bundler.records import RunRecord
from bundler.report import Finding, ScoredMetric, ScoredModel, Severity
from bundler.sandbox import diagnosis, gpus
from bundler.sandbox.workplace import workplace
from bundler.session import RerunOptions
from bundler.spec import Evaluation, Index, TrainingSpec
from bundler.staging import BUNDLE, WORKSPACE, stage
from bundler.trials import OUT, PACKAGE, isolation_facts

MAX_RESULTS = 1 << 20
"""Largest file of results that is read, in bytes."""

RELATIVE = 1e-6
ABSOLUTE = 1e-9
"""How close the same model on the same data comes on another machine: the last digits of a mean may differ."""

ROUNDING = 1e-4
"""By how much of itself a figure differs where another processor sums the layers of a model in single precision."""

UNDECLARED = 1e-2
"""By how much of itself a figure without a declared margin may differ before it is another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOutcome:
    """What scoring came to. ``scored`` is ``None`` where nothing was run, for the ``reason`` given."""

    scored: ScoredModel | None = None
    findings: tuple[Finding, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """What is to be run, and what it is held against. ``artefacts``: path in the tracker → path in the bag."""

    spec: TrainingSpec
    evaluation: Evaluation
    declared: RunRecord
    artefacts: Mapping[str, str]


def evaluate(
    evidence: Evidence, runtime: Runtime, options: RerunOptions, progress: Progress
) -> EvaluationOutcome:
    """Score the model of the selected run and compare with its declared metrics.

    Raises :class:`bundler.errors.SandboxUnavailableError` before any code of the bundle runs.
    """
    case = _case(evidence)
    if isinstance(case, str):
        return EvaluationOutcome(reason=case)
    box = sandbox.find(options.confinement, trusted=options.trusted)
    with workplace(None if options.keep is None else options.keep / "evaluation") as place:
        job = _staged(evidence, case, runtime, options, place)
        with progress.step("Scoring the model", None):
            isolation = box.isolation(job.limits, gpus=job.gpus)
            outcome = box.run(job)
        scored = ScoredModel(
            run=case.declared.id,
            exit_code=outcome.exit_code,
            seconds=round(outcome.wall_seconds, 3),
            isolation=isolation_facts(isolation),
        )
        if outcome.ended != "exited" or outcome.exit_code != 0:
            return EvaluationOutcome(
                scored=scored, findings=(_did_not_finish(case, outcome, job.log, runtime),)
            )
        try:
            results = read_results(job.output, case.evaluation.results, options.limits)
        except (HostileOutputError, MalformedError) as error:
            why = diagnosis.why_nothing_was_left(place / WORKSPACE, case.evaluation.results)
            finding = _failed(case, f"its results cannot be read: {error.message}", why)
            return EvaluationOutcome(scored=scored, findings=(finding,))
    index = evidence.contents.index
    found = compare(scored, case.declared, results, index, options.policy)
    if found.scored is None or any(each.severity == "error" for each in found.findings):
        return found
    with progress.step("Scoring decoys", None):
        decoys = _score_decoys(evidence, case, runtime, options, box)
        ignored = tuple(held_against(decoys, results, found.scored, index))
    return replace(found, findings=(*found.findings, *ignored))


def _staged(
    evidence: Evidence, case: _Case, runtime: Runtime, options: RerunOptions, place: Path
) -> sandbox.Job:
    named = artefacts_named(case.evaluation.command)
    stage(evidence.files, case.spec, place, [case.artefacts[path] for path in named])
    return _job(case, runtime, options, place)


def _score_decoys(
    evidence: Evidence, case: _Case, runtime: Runtime, options: RerunOptions, box: sandbox.Sandbox
) -> Iterator[Mapping[str, float]]:
    """The results with other weights in place of the model, decoy by decoy, as they are asked for.

    Empty for one that cannot be scored; the end where none can be made.
    """
    named = artefacts_named(case.evaluation.command)
    weights = {evidence.contents.index.facts.model, *case.spec.outputs.tensors}
    for number in range(DECOYS):
        keep = "decoy" if number == 0 else f"decoy-{number + 1}"
        with workplace(None if options.keep is None else options.keep / keep) as place:
            job = _staged(evidence, case, runtime, options, place)
            copies = [place / BUNDLE / case.artefacts[path] for path in named if path in weights]
            changed = [change_signs(copy, number) or spoil(copy, number) for copy in copies]
            if not any(changed):
                return
            outcome, results = box.run(job), dict[str, float]()
            if outcome.ended == "exited" and outcome.exit_code == 0:
                with suppress(HostileOutputError, MalformedError):
                    results.update(
                        read_results(job.output, case.evaluation.results, options.limits)
                    )
        yield results


def held_against(
    decoys: Iterable[Mapping[str, float]],
    results: Mapping[str, float],
    scored: ScoredModel,
    index: Index,
) -> Iterator[Finding]:
    """Decoys must not give the figures of the model: none that decides, or not all where none of them decides.

    What one decoy has in common with the model can be chance, so two at least have to share it. Further ones are
    scored only as long as there is something left that they could settle.
    """
    compared = [each.metric for each in scored.metrics]
    deciding = [each for each in compared if each in deciding_metrics(index)]
    same, fewest = deciding or compared, 1 if deciding else max(1, len(compared))
    told = 0
    for decoy in decoys:
        if decoy:
            same = [each for each in same if each in decoy and _is_same(decoy[each], results[each])]
            told += 1
        if len(same) < fewest:
            return
    if told > 1:
        yield _finding(
            "evaluation-ignores-model",
            "warning",
            scored.run,
            f"some figures do not depend on the weights of the shipped model: {told} others give the same"
            f" {', '.join(map(quoted, same[:10]))}",
            "Read the code that the evaluation runs: it may write figures that nobody computed. What follows from the"
            " shape of a model, such as the number of its parameters, is the same for other weights as well.",
        )


def _case(evidence: Evidence) -> _Case | str:
    """What to run, or why there is nothing to run: the bundle is not blamed for what it does not offer."""
    spec, model = evidence.contents.training, evidence.contents.index.facts.model
    declared = evidence.contents.record(spec.run) if spec is not None else None
    if spec is None or spec.evaluation is None or declared is None:
        return "the bundle does not say how to score its model (training.evaluation)"
    known = recorded_artefacts(evidence)
    for problem in (*problems(spec), *evaluation_problems(spec, spec.evaluation, known)):
        return f"the evaluation cannot be run: {problem}"
    for path in (*artefacts_named(spec.evaluation.command), model):
        if path is None or known.get(path) not in evidence.files.digests:
            return f"the bytes of {quoted(path or 'the model')} are not in the bundle"
    return _Case(spec=spec, evaluation=spec.evaluation, declared=declared, artefacts=known)


def _job(case: _Case, runtime: Runtime, options: RerunOptions, place: Path) -> sandbox.Job:
    spec, output = case.spec, place / "out"
    with_gpus = options.device == "cuda"
    output.mkdir()
    values = values_for(
        spec,
        python=runtime.python,
        bundle=str(PACKAGE),
        out=str(OUT),
        seed=spec.seed,
        artefacts=case.artefacts,
    )
    return sandbox.Job(
        command=tuple(expand(word, values) for word in case.evaluation.command),
        working_directory=PurePosixPath(values["code"]),
        mounts=(sandbox.Mount(source=place / BUNDLE, target=PACKAGE),),
        output=output,
        workspace=place / WORKSPACE,
        environment={
            **runtime.environment,
            **(cuda_environment() if with_gpus else {}),
            **{name: expand(value, values) for name, value in spec.environment.items()},
        },
        limits=gpus.limits(options.limits) if with_gpus else options.limits,
        log=place / "log.txt",
        interpreter=runtime.interpreter,
        root=runtime.root,
        gpus=with_gpus,
    )


def read_results(output: Path, location: str, limits: sandbox.Limits) -> Mapping[str, float]:
    """The metrics in the file ``location`` below the folder ``output``, which is hostile.

    Raises :class:`HostileOutputError`, or :class:`MalformedError` (``evaluation-results``) for anything but a JSON
    object of finite numbers of at most :data:`MAX_RESULTS` bytes.
    """
    path = output / PurePosixPath(location)
    if path not in sandbox.collect(output, limits=limits).files:
        raise MalformedError("evaluation-results", f"there is no file {location} below {{out}}")
    with path.open("rb") as file:
        data = file.read(MAX_RESULTS + 1)
    if len(data) > MAX_RESULTS:
        raise MalformedError("evaluation-results", f"{location} is larger than {MAX_RESULTS} bytes")
    value = canonical.parse(data, name=location)
    if not isinstance(value, dict):
        raise MalformedError("evaluation-results", f"{location} holds no JSON object")
    results = {}
    for name, number in value.items():
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise MalformedError("evaluation-results", f"{location}: {quoted(name)} is no number")
        results[name] = float(number)
    return results


def compare(
    scored: ScoredModel,
    declared: RunRecord,
    results: Mapping[str, float],
    index: Index,
    policy: Policy,
) -> EvaluationOutcome:
    """Hold ``results`` against the metrics that ``declared`` ended with. Margins are those that ``policy`` grants."""
    metrics: list[ScoredMetric] = []
    findings: list[Finding] = []
    unknown: list[str] = []
    for name in sorted(results):
        value = declared.value(name)
        if value is None:
            unknown.append(name)
            continue
        metrics.append(ScoredMetric(metric=name, declared=value, found=results[name]))
        if not _is_same(results[name], value):
            allowed = _allowed(name, value, index, policy)
            findings.append(_judge(name, (results[name], value), allowed, declared, index))
    findings.extend(_left_out(declared, {each.metric for each in metrics}, index))
    if unknown:
        named = ", ".join(map(quoted, unknown[:3]))
        findings.append(
            _finding(
                "evaluation-unknown-metric",
                "note",
                declared.id,
                f"the run declares no finite final value of {len(unknown)} metrics that the evaluation gives: {named}",
            )
        )
    return EvaluationOutcome(
        scored=replace(scored, metrics=tuple(metrics)), findings=tuple(findings)
    )


def _allowed(metric: str, declared: float, index: Index, policy: Policy) -> float:
    """By how much ``metric`` may differ and still be nearly the same, which another machine or software explains.

    Without a declared margin it is :data:`UNDECLARED`, and never more than the policy would grant to a declared one:
    whoever leaves the margin out gains nothing, and is not accused for the last digits of another processor.
    """
    margins = {
        each.metric: effective_margin(each, policy) for each in index.reproducibility.tolerances
    }
    undeclared = min(cap(metric, policy), UNDECLARED * abs(declared))
    return max(margins.get(metric, undeclared), ROUNDING * abs(declared))


def _judge(
    metric: str, values: tuple[float, float], allowed: float, declared: RunRecord, index: Index
) -> Finding:
    """What is said of a figure that is not the same: how bad that is depends on what rests on it."""
    found, was = values
    nearly, other = _severities(metric, declared, index)
    words = f"the shipped model gives {quoted(metric)} {found:.9g} on the shipped hold-out, declared is {was:.9g}"
    if abs(found - was) <= allowed:
        return _finding(
            "evaluation-approximate",
            nearly,
            declared.id,
            f"{words}: within {allowed:g} of it, and not the same",
            "Score it with the recorded software: without training, the same model gives the same figures.",
        )
    if other == "error":
        return _finding(
            "evaluation-differs",
            other,
            declared.id,
            f"{words}: model, data or figure is not the declared one",
            "Ask the provider for the model and the hold-out that the declared figure is of.",
        )
    return _finding(
        "evaluation-differs",
        other,
        declared.id,
        f"{words}; no selection, gate or tolerance rests on it",
        "A time or a size that the machine sets differs everywhere: the provider can leave it out of the results."
        " Any other figure is of another model or of other data.",
    )


def _severities(metric: str, declared: RunRecord, index: Index) -> tuple[Severity, Severity]:
    """How much it is to be nearly the same, and to be another.

    Without a decision that rests on it, a figure contradicts nothing: it can be how long scoring took.
    """
    judged = {*deciding_metrics(index), *(each.metric for each in index.reproducibility.tolerances)}
    if metric in judged:
        return "warning", "error"
    roles = {each.role for each in declared.metrics if each.name == metric}
    return "note", "warning" if "hold-out" in roles else "note"


def _is_same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def _left_out(declared: RunRecord, given: Collection[str], index: Index) -> Iterator[Finding]:
    """Metrics of the hold-out that selection and gates rest on, and that scoring did not give."""
    roles = {metric.name: metric.role for metric in declared.metrics}
    missing = [
        name
        for name in deciding_metrics(index)
        if roles.get(name) == "hold-out" and name not in given
    ]
    if missing or not given:
        named = ", ".join(map(quoted, missing[:3])) or "any metric that the run declares"
        yield _finding(
            "evaluation-incomplete",
            "warning",
            declared.id,
            f"the evaluation does not give {named}",
            "The provider can let it write every metric of the hold-out, by the names that the run has.",
        )


def _did_not_finish(case: _Case, outcome: sandbox.Outcome, log: Path, runtime: Runtime) -> Finding:
    lines = diagnosis.last_lines(log)
    how = f"exit code {outcome.exit_code}" if outcome.ended == "exited" else outcome.ended
    said = outcome.detail or (lines[-1] if lines else "it printed nothing")
    python = runtime.interpreter or Path(runtime.python)
    why = " ".join(diagnosis.why_training_fails(lines, python))
    return _failed(case, f"it did not finish: {how}; {said}", why)


def _failed(case: _Case, words: str, why: str) -> Finding:
    remedy = (
        "Run again with --keep DIR and read evaluation/log.txt there."
        " A failure is no evidence against the provider."
    )
    return _finding(
        "evaluation-failed",
        "warning",
        case.declared.id,
        f"the model could not be scored: {words}",
        f"{why} {remedy}".lstrip(),
    )


def _finding(
    code: str, severity: Severity, subject: str, message: str, remedy: str = ""
) -> Finding:
    return Finding(code=code, severity=severity, subject=subject, message=message, remedy=remedy)
