"""The re-run of the declared seed beside the declared run: the same bits, and if not, how far apart and why."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from bundler.case import Case
from bundler.checks.training import given_results
from bundler.devices import Device, device_of
from bundler.environments.model import Runtime
from bundler.equivalence import overall
from bundler.errors import MalformedError
from bundler.policy import cap, effective_margin
from bundler.predictions import compare as compare_predictions
from bundler.records import RunRecord, artefact_location
from bundler.report import (
    Finding,
    Knob,
    MetricVerdict,
    PredictionComparison,
    Rerun,
    TensorComparison,
)
from bundler.reproduction import (
    compare_metrics,
    differing_knobs,
    is_bitwise,
    same_predictions,
    same_training,
)
from bundler.reproduction import judge as judge_bits
from bundler.sandbox import diagnosis
from bundler.storage.hashing import digest_bytes
from bundler.tensors import read as read_tensors
from bundler.trials import TrialResult, compared_artefacts, tensor_hashes, trained

TOO_FAST = 0.1
"""Share of the recorded time below which a re-run needs an explanation. Other machines are faster, not ten times."""

WORTH_TIMING = 10.0
"""Seconds of a recorded run below which its time says more of the machine's load than of the training."""

CONDITIONS = (
    "machine and software of the verifier; whether these are others than the provider's (reproducibility"
    " conditions, ISO 5725-1) is for the verifier to say"
)


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
    tensors, predictions, unlike = result.tensors, result.predictions, result.incomparable
    if result.hashes and not tensors:
        tensors, predictions, unlike = _by_hash(case, result)
    report = replace(
        report,
        verdict=(
            "bitwise" if is_bitwise(metrics, tensors, predictions) and not unlike else "not bitwise"
        ),
        environment=dict(rerun.environment),
        metrics=metrics,
        tensors=tensors,
        predictions=predictions,
        knobs=(*runtime.software, *differing_knobs(declared.environment, rerun.environment)),
    )
    findings = (
        *links,
        *same_training(declared, rerun),
        *_incomparable(declared.id, unlike),
        *given_results(case.evidence),
        *_too_fast(declared, result.seconds),
    )
    return report, findings


def _by_hash(
    case: Case, result: TrialResult
) -> tuple[tuple[TensorComparison, ...], tuple[PredictionComparison, ...], str]:
    """Blind: the output was hashed where it was made, so equal tensors and files can be told, and no distances.

    The last value says why the predictions cannot be compared, if they cannot.
    """
    hashes: dict[str, str] = {}
    shapes: dict[str, dict[str, Any]] = {}
    predictions: list[PredictionComparison] = []
    unlike = ""
    found = dict(result.hashes)
    for path, data in _declared_outputs(case):
        if path in case.spec.outputs.tensors:
            hashes.update(tensor_hashes(data, path))
            shapes.update(read_tensors(data, name=path))
        elif found.pop(path, "") != digest_bytes(data):
            unlike = f"{path} is not the declared file, and blind, only its hash is known; see without --blind"
        elif case.spec.outputs.predictions is not None:
            # Equal bytes; what cannot be read in them is no difference.
            with suppress(MalformedError):
                predictions.append(
                    compare_predictions(data, data, case.spec.outputs.predictions, name=path)
                )
    tensors = tuple(
        TensorComparison(
            tensor=name,
            dtype=shapes[name]["dtype"] if name in shapes else "",
            shape=tuple(shapes[name]["shape"]) if name in shapes else (),
            equal=(equal := hashes.get(name) == found.get(name)),
            equal_fraction=1.0 if equal else None,
            max_absolute_difference=0.0 if equal else None,
        )
        for name in sorted(hashes.keys() | found.keys())
    )
    return tensors, tuple(predictions), unlike


def _declared_outputs(case: Case) -> Iterator[tuple[str, bytes]]:
    known = {artefact.path: artefact for artefact in case.declared.artefacts}
    for path in compared_artefacts(case.spec.outputs):
        if path in known:
            whole = io.BytesIO()  # as large as the declared file is: read() is for texts
            case.evidence.files.copy(artefact_location(case.declared.id, known[path]), whole)
            yield path, whole.getvalue()


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


def bit_findings(
    case: Case, rerun: Rerun, metrics: Sequence[MetricVerdict], device: Device
) -> Iterator[Finding]:
    """Findings about the declared seed's bits, in the light of what other seeds gave.

    Other bits are explained where the declaration promises none, or where a fact that decides about bits differs
    between the machines, such as the ``device``; then the statistical rule decides. It does not excuse results that are
    off by more than their margins.
    """
    if rerun.verdict == "failed":
        return
    run = case.declared.id
    consistent = bool(metrics) and overall(metrics) == "CONSISTENT"
    promised = case.evidence.contents.index.reproducibility.level == "bitwise"
    other_device = device_of(case.declared.environment) not in {device, "unknown"}
    explained = not promised or any(map(decides_about_bits, rerun.knobs)) or other_device
    yield from _other_predictions(run, rerun)
    if rerun.verdict == "not bitwise":
        yield from _far_off(case, rerun, metrics, explained=explained)
        if other_device:
            yield note(
                "rerun-other-device",
                run,
                f"the declared run did not train on {device}, so no bits can be expected: the statistical rule decides",
            )
    for finding in judge_bits(run, rerun.metrics, rerun.tensors, rerun.knobs, case.decisive):
        if rerun.verdict == "not bitwise" and finding.code == "rerun-bitwise-scope":
            continue  # the weights are the declared ones, and something else is not
        if finding.code == "rerun-bitwise-scope" and consistent:
            continue  # other seeds were trained, and so was the model
        if finding.severity == "warning" and consistent and explained:
            yield replace(finding, severity="note")
        else:
            yield _with_settings(finding, rerun.knobs)


def _other_predictions(run: str, rerun: Rerun) -> Iterator[Finding]:
    """The same weights, bit for bit, cannot come with other predictions; nor almost the same with far other ones."""
    if not rerun.tensors:
        return
    same = all(each.equal for each in rerun.tensors)
    near = all(each.relative_l2 is not None and each.relative_l2 < NEARLY for each in rerun.tensors)
    for each in rerun.predictions:
        words = (
            f"other predictions than {each.artefact} holds: {100 * each.agreement:.3g} % of the decisions are the"
            f" same, scores differ by up to {each.max_absolute_difference}"
        )
        if same and not same_predictions(each):
            yield Finding(
                code="rerun-predictions-contradict",
                severity="error",
                subject=run,
                message=f"the re-run gave the declared weights bit for bit, but {words}",
            )
        elif near and (each.relative_difference is None or each.relative_difference > FAR):
            yield warning(
                "rerun-predictions-far",
                run,
                f"the re-run gave the declared weights but for rounding, and {words}",
                "Weights so alike score alike: look at how the declared predictions were made.",
            )


NEARLY = 1e-4
"""Relative distance of weights between which only numerics lie, in two trainings that stayed together."""

FAR = 0.01
"""Relative difference of scores that such weights do not explain."""


def _far_off(
    case: Case, rerun: Rerun, metrics: Sequence[MetricVerdict], *, explained: bool
) -> Iterator[Finding]:
    """The declared seed's own results, where selection or gates rest on them, are off by more than numerics make.

    With other numerics the same seed is one more draw. So where other bits are explained, a metric that own seeds have
    settled needs no further word, and one that they do not judge may be off by what its repetitions scatter.
    """
    settled = (
        {each.metric for each in metrics if each.verdict == "CONSISTENT"} if explained else set()
    )
    tolerances = {each.metric: each for each in case.tolerances}
    for each in rerun.metrics:
        if each.metric not in case.decisive - settled or each.declared == each.rerun:
            continue
        tolerance = tolerances.get(each.metric)
        allowed = cap(each.metric, case.policy)
        if tolerance is not None:
            allowed = effective_margin(tolerance, case.policy)
        elif explained:
            allowed = max(allowed, SCATTER * case.scatter(each.metric))
        if not isinstance(each.declared, float) or not isinstance(each.rerun, float):
            off = math.inf
        else:
            off = abs(each.declared - each.rerun)
            if case.better(each.metric) == "higher is better" and explained:
                off = each.declared - each.rerun
            elif case.better(each.metric) == "lower is better" and explained:
                off = each.rerun - each.declared
        if off > allowed:
            yield warning(
                "rerun-decisive-differs",
                each.metric,
                f"the declared seed gave {each.rerun!r} instead of {each.declared!r}: more than {allowed:.3g} apart",
                "Other numerics change the last digits, seldom more: look at what else differs.",
            )


SCATTER = 4.0
"""Standard deviations between seeds that one draw is hardly off by."""


DECIDES = re.compile(
    r"package |(^|[._ ])(python|implementation|architecture|machine|platform|kernel|libc|glibc|cpu|gpu|cuda|cudnn|nccl"
    r"|driver|device|accelerator|threads?|num_threads|torch|tensorflow|jax|numpy|blas|openblas|mkl|onednn|mkldnn|simd|isa"
    r"|processor|os|num_gpus|fp16|bf16|capability|determinis\w+|tf32|precision|amp|dtype|compile|world_size|num_workers|versions?|packages|hash_seed)"
    r"($|[._ ])|_(capability|threads|model|version)$",
    re.IGNORECASE,
)
"""Names of facts that change bits: software, processor, threads, numerics. A build id of one's own does not."""


def decides_about_bits(knob: Knob) -> bool:
    """Whether a fact of that name can explain other bits."""
    return DECIDES.search(knob.name) is not None


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
