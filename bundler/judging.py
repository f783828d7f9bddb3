"""From what trainings gave to what is said of them: comparisons, the verdict, and the findings."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bundler.case import Case
from bundler.checks.training import given_results
from bundler.devices import Device, device_of
from bundler.environments.model import Runtime
from bundler.equivalence import Sample, compare, overall
from bundler.policy import effective_margin, rule
from bundler.records import Number, RunRecord, Scalar, artefact_location
from bundler.report import (
    Finding,
    Knob,
    MetricVerdict,
    Rerun,
    TensorComparison,
    Trial,
    Verdict,
)
from bundler.reproduction import compare_metrics, differing_knobs, is_bitwise, same_training
from bundler.reproduction import judge as judge_bits
from bundler.sandbox import diagnosis
from bundler.tensors import read as read_tensors
from bundler.trials import TrialResult, tensor_hashes, trained

TOO_FAST = 0.1
"""Share of the recorded time below which a re-run needs an explanation. Other machines are faster, not ten times."""

WORTH_TIMING = 10.0
"""Seconds of a recorded run below which its time says more of the machine's load than of the training."""

CONDITIONS = (
    "machine and software of the verifier; whether these are others than the provider's (reproducibility"
    " conditions, ISO 5725-1) is for the verifier to say"
)


# --- the declared seed ------------------------------------------------------------------------------------------------


def compared(
    case: Case, result: TrialResult, runtime: Runtime
) -> tuple[Rerun, tuple[Finding, ...]]:
    """The re-run of the declared seed beside the declared run, and what is found besides its bits."""
    declared = case.declared
    report = Rerun(
        run=declared.id,
        seed=result.seed,
        verdict="failed",
        exit_code=result.exit_code,
        seconds=result.seconds,
        conditions=CONDITIONS,
        isolation=result.isolation,
        environment={},
        runtime={"mode": runtime.mode, **runtime.facts},
        knobs=runtime.software,
    )
    links = tuple(_links_removed(declared.id, result.links))
    if not trained(result):
        return report, (_failed(declared.id, result, runtime),)
    if result.record is None:
        words = f"its output cannot be read: {result.problem}"
        return report, (*links, warning("rerun-output", declared.id, words, result.remedy))
    rerun = result.record
    roles = {metric.name: metric.role for metric in (*declared.metrics, *rerun.metrics)}
    metrics = compare_metrics(case.points, (point.plain() for point in result.points), roles)
    tensors = result.tensors or _by_hash(case, result)
    report = replace(
        report,
        verdict="bitwise" if is_bitwise(metrics, tensors) else "not bitwise",
        environment=dict(rerun.environment),
        metrics=metrics,
        tensors=tensors,
        predictions=result.predictions,
        knobs=(*runtime.software, *differing_knobs(declared.environment, rerun.environment)),
    )
    findings = (
        *links,
        *same_training(declared, rerun),
        *_incomparable(declared.id, result.incomparable),
        *given_results(case.evidence),
        *_too_fast(declared, result.seconds),
    )
    return report, findings


def _by_hash(case: Case, result: TrialResult) -> tuple[TensorComparison, ...]:
    """Blind: the output was hashed where it was made, so equal tensors can be told, and no distances."""
    declared: dict[str, str] = {}
    known = {artefact.path: artefact for artefact in case.declared.artefacts}
    shapes = {}
    for path in case.spec.outputs.tensors if result.hashes else ():
        location = artefact_location(case.declared.id, known[path]) if path in known else path
        data = case.evidence.files.read(location)
        declared.update(tensor_hashes(data, path))
        shapes.update(read_tensors(data, name=path))
    return tuple(
        TensorComparison(
            tensor=name,
            dtype=shapes[name]["dtype"] if name in shapes else "",
            shape=tuple(shapes[name]["shape"]) if name in shapes else (),
            equal=(equal := declared.get(name) == result.hashes.get(name)),
            equal_fraction=1.0 if equal else None,
            max_absolute_difference=0.0 if equal else None,
        )
        for name in sorted(declared.keys() | result.hashes.keys())
    )


def _links_removed(run: str, count: int) -> Iterator[Finding]:
    if count:
        yield note(
            "rerun-links-removed",
            run,
            f"symbolic links in the output: {count}; they were removed and not followed, so what only a link led to"
            " counts as missing",
        )


def _failed(run: str, result: TrialResult, runtime: Runtime) -> Finding:
    how = f"exit code {result.exit_code}" if result.ended == "exited" else result.ended
    last = result.log[-1] if result.log else "it printed nothing"
    return warning(
        "rerun-failed",
        run,
        f"the training did not finish: {how}; {result.detail or last}",
        " ".join([
            *diagnosis.why_training_fails(list(result.log), Path(runtime.python)),
            "Run again with --keep DIR and read log.txt there. A failure is no evidence against the provider.",
        ]),
    )  # fmt: skip


def _incomparable(run: str, why: str) -> Iterator[Finding]:
    if why:
        yield warning(
            "rerun-predictions-differ",
            run,
            f"the predictions cannot be held against the declared ones: {why}",
            "They should be of the same examples with the same labels: look at the data that was read.",
        )


def _too_fast(declared: RunRecord, seconds: float) -> Iterator[Finding]:
    """A run that needs a small part of the recorded time may have had its result at hand."""
    recorded = declared.seconds
    if recorded is not None and recorded >= WORTH_TIMING and seconds < TOO_FAST * recorded:
        yield warning(
            "rerun-too-fast",
            declared.id,
            f"the re-run took {seconds:.1f} s, the recorded run {recorded:.1f} s: was anything trained?",
            "Read the code, and look at what other seeds give.",
        )


# --- the verifier's own seeds -----------------------------------------------------------------------------------------


def trial_of(result: TrialResult) -> Trial:
    """What the report says of a training with one of the verifier's seeds."""
    whole = trained(result) and result.record is not None
    failed = result.ended == "exited"
    return Trial(
        seed=result.seed,
        ended="trained" if whole else "failed" if failed else "infrastructure",
        exit_code=result.exit_code,
        seconds=result.seconds,
        attempts=result.attempts,
        where=result.where,
        resumed=result.resumed,
        detail="" if whole else result.problem or result.detail or (result.log or ("",))[-1],
        metrics={} if result.record is None else {m.name: m.last for m in result.record.metrics},
    )


def metric_verdicts(
    case: Case, results: Sequence[TrialResult], looks: int
) -> tuple[MetricVerdict, ...]:
    """The statistical rule over the trainings that ran; infrastructure that failed says nothing."""
    trials = [trial_of(result) for result in results]
    ours = [trial.metrics for trial in trials if trial.ended != "infrastructure"]
    tolerances = {each.metric: each for each in case.tolerances}
    samples = []
    for metric, values in case.values.items():
        declared = tolerances.get(metric)
        samples.append(
            Sample(
                metric=metric,
                declared=values,
                rerun=tuple(_plain(each.get(metric)) for each in ours),
                declared_margin=None if declared is None else declared.margin,
                margin=None if declared is None else effective_margin(declared, case.policy),
                overstatement=None if declared is None else declared.overstatement,
            )
        )
    return compare(samples, rule(case.policy, looks))


def _plain(value: Number | None) -> float:
    return math.nan if value is None else float(value)


def own_findings(
    case: Case,
    results: Sequence[TrialResult],
    metrics: Sequence[MetricVerdict],
) -> Iterator[Finding]:
    """What the trainings with the verifier's seeds say about the declaration."""
    run = case.declared.id
    trials = [trial_of(result) for result in results]
    lost = [trial for trial in trials if trial.ended != "trained"]
    if lost:
        yield warning(
            "rerun-trials-lost",
            run,
            f"{len(lost)} of {len(trials)} trainings with the verifier's seeds gave no result; seed {lost[0].seed}:"
            f" {lost[0].ended}, {lost[0].detail}",
            "Run again with --keep DIR and read the logs there.",
        )
    yield from _other_training(case, results)
    for each in metrics:
        if each.verdict == "INCONSISTENT":
            yield Finding(
                code="rerun-inconsistent",
                severity="error",
                subject=each.metric,
                message=each.explanation,
            )
    open_ones = [each for each in metrics if each.verdict == "INCONCLUSIVE"]
    if open_ones:
        more = f" (and {len(open_ones) - 1} more metrics)" if len(open_ones) > 1 else ""
        yield warning(
            "rerun-inconclusive",
            open_ones[0].metric,
            f"{open_ones[0].explanation}{more}",
            _what_settles(open_ones),
        )
    for each in metrics:
        if None not in {each.margin, each.declared_margin} and each.margin != each.declared_margin:
            yield note(
                "rerun-margin-capped",
                each.metric,
                f"the declared margin {each.declared_margin:g} is more than the verifier's policy allows;"
                f" {each.margin:g} was used",
            )


def _what_settles(open_ones: Sequence[MetricVerdict]) -> str:
    if any(each.margin is None for each in open_ones):
        return "The provider can declare a tolerance for each metric of a gate."
    if any(each.needed is None for each in open_ones):
        return (
            "More trainings than anybody would make: ask the provider for more repeated runs of the selected"
            " configuration."
        )
    needed = max(each.needed or 0 for each in open_ones)
    return f"{needed} trainings with own seeds have a chance of 90 % to settle it: --runs {needed}."


def _other_training(case: Case, results: Sequence[TrialResult]) -> Iterator[Finding]:
    """Trainings that were not what was declared, or that the seed made no difference to."""
    declared = case.declared
    records = [(result.seed, result.record) for result in results if result.record is not None]
    seen: set[str] = set()
    for seed, record in records:
        same_seed = replace(record, seed=declared.seed, parameters=_with_seed(case, record))
        for finding in same_training(declared, same_seed):
            if finding.code not in seen:
                seen.add(finding.code)
                yield finding
        if record.seed != seed and "rerun-seed-ignored" not in seen:
            seen.add("rerun-seed-ignored")
            yield warning(
                "rerun-seed-ignored",
                declared.id,
                f"the training was given seed {seed} and recorded {record.seed}",
                "Ask the provider where the seed goes; with one seed only, nothing can be said of others.",
            )
    finals = [
        tuple(_plain(record.value(metric)) for metric in case.values) for _, record in records
    ]
    whole = [each for each in finals if all(map(math.isfinite, each))]
    if len(whole) > 1 and len({*whole}) == 1 and case.values:
        varied = any(len({*values}) > 1 for values in case.values.values())
        words = "all trainings with the verifier's seeds gave the same results, whatever the seed"
        if varied:
            yield warning(
                "rerun-seed-without-effect",
                declared.id,
                f"{words}, while the declared runs differ between seeds: is anything trained?",
                "Read the code: it may carry its result inside.",
            )
        else:
            yield note(
                "rerun-seed-without-effect", declared.id, f"{words}; so did the declared runs"
            )


def _with_seed(case: Case, record: RunRecord) -> dict[str, Scalar]:
    """The parameters of ``record``, with the declared value where the seed stands."""
    group, _, name = case.evidence.contents.index.facts.seed.partition(".")
    parameters = dict(record.parameters)
    if group == "parameters" and name in parameters and name in case.declared.parameters:
        parameters[name] = case.declared.parameters[name]
    return parameters


# --- the verdict ------------------------------------------------------------------------------------------------------


def overall_verdict(rerun: Rerun, metrics: Sequence[MetricVerdict]) -> tuple[Verdict, str]:
    """The word for the whole re-execution, and the sentence that explains it."""
    own = overall(metrics) if metrics else None
    runs = max((len(each.rerun) for each in metrics), default=0)
    trained_by_us = f"{runs} trainings with the verifier's own seeds"
    bits = f"seed {rerun.seed} gave the declared bits" if rerun.verdict == "bitwise" else ""
    if own == "INCONSISTENT":
        worst = next(each for each in metrics if each.verdict == "INCONSISTENT")
        words = f"{trained_by_us} contradict {worst.metric}"
        return "INCONSISTENT", f"{words}, although {bits}" if bits else words
    rest = {
        None: "no other seed was tried",
        "CONSISTENT": f"{trained_by_us} agree with the declaration",
    }.get(own, f"{trained_by_us} do not settle whether other seeds agree")
    if bits:
        return "BITWISE", f"{bits}; {rest}"
    return ("CONSISTENT" if own == "CONSISTENT" else "INCONCLUSIVE"), rest


def bit_findings(
    case: Case, rerun: Rerun, metrics: Sequence[MetricVerdict], device: Device
) -> Iterator[Finding]:
    """Findings about the bits of the declared seed, in the light of what other seeds gave.

    Other bits are explained where the declaration promises none, or where something recorded differs between the
    machines, such as the ``device``; then the statistical rule decides.
    """
    if rerun.verdict == "failed":
        return
    consistent = bool(metrics) and overall(metrics) == "CONSISTENT"
    promised = case.evidence.contents.index.reproducibility.level == "bitwise"
    other_device = device_of(case.declared.environment) not in {device, "unknown"}
    explained = not promised or bool(rerun.knobs) or other_device
    if other_device and rerun.verdict == "not bitwise":
        yield note(
            "rerun-other-device",
            case.declared.id,
            f"the declared run did not train on {device}, so no bits can be expected: the statistical rule decides",
        )
    for finding in judge_bits(
        case.declared.id, rerun.metrics, rerun.tensors, rerun.knobs, case.decisive
    ):
        if finding.code == "rerun-bitwise-scope" and consistent:
            continue  # other seeds were trained, and so was the model
        if finding.severity == "warning" and consistent and explained:
            yield replace(finding, severity="note")
        else:
            yield _with_settings(finding, rerun.knobs)


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


def warning(code: str, subject: str, message: str, remedy: str = "") -> Finding:
    """A finding that leaves the claim open."""
    return Finding(code=code, severity="warning", subject=subject, message=message, remedy=remedy)


def note(code: str, subject: str, message: str) -> Finding:
    """A finding that informs and changes nothing."""
    return Finding(code=code, severity="note", subject=subject, message=message)
