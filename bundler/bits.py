"""What the declared seed's bits say of the declaration, in the light of what other seeds gave.

Other bits need an explanation where they were promised. Whatever explains them, the results that selection and gates
rest on may not be further off than their margins and chance allow; and the scatter that stands for chance is that of
the verifier's own seeds, which no provider can invent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from bundler.case import Case
from bundler.comparing import note, warning
from bundler.devices import Device, device_of
from bundler.equivalence import overall
from bundler.facts import CAPTURE_FORMAT
from bundler.policy import cap, effective_margin
from bundler.records import Number, RunRecord, Scalar
from bundler.report import Finding, Knob, MetricVerdict, Rerun, TensorComparison
from bundler.reproduction import judge as judge_bits
from bundler.reproduction import same_predictions
from bundler.spread import one_draw

TOO_FAST = 0.1
"""Share of the recorded time below which a re-run needs an explanation. Other machines are faster, not ten times."""

WORTH_TIMING = 10.0
"""Seconds of a recorded run below which its time says more of the machine's load than of the training."""

Values = Mapping[str, tuple[float, ...]]
"""Of each metric that decides, what the verifier's own seeds gave."""


def bit_findings(
    case: Case, rerun: Rerun, metrics: Sequence[MetricVerdict], own: Values, device: Device
) -> Iterator[Finding]:
    """Findings about the declared seed's bits, in the light of ``metrics`` and ``own``: what other seeds gave.

    Other bits are explained where the declaration promises none, or where a fact that decides about bits is known to
    differ between the machines, such as the ``device``; then the statistical rule decides.
    """
    if rerun.verdict == "failed":
        return
    run = case.declared.id
    consistent = bool(metrics) and overall(metrics) == "CONSISTENT"
    promised = case.evidence.contents.index.reproducibility.level == "bitwise"
    other_device = (
        device_of(case.declared.environment) not in {device, "unknown"}
        and device_of(rerun.environment) != "unknown"
    )
    explained = not promised or other_device or any(explaining(case.declared, rerun))
    yield from _too_fast(case.declared, rerun.seconds, consistent=consistent)
    yield from _other_predictions(run, rerun)
    if rerun.verdict == "not bitwise":
        finals = [(each.metric, each.declared, each.rerun) for each in rerun.metrics]
        yield from far_off(case, finals, own, explained=explained)
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


def _too_fast(declared: RunRecord, seconds: float, *, consistent: bool) -> Iterator[Finding]:
    """A run that needs a small part of the recorded time may have had its result at hand.

    Not if other seeds agree, which nobody knew before: a run that was stopped and resumed has a long record, too.
    """
    recorded = declared.seconds
    if recorded is None or recorded < WORTH_TIMING or seconds >= TOO_FAST * recorded:
        return
    words = f"the re-run took {seconds:.1f} s, the recorded run {recorded:.1f} s"
    if consistent:
        yield note("rerun-too-fast", declared.id, words)
    else:
        yield warning(
            "rerun-too-fast",
            declared.id,
            f"{words}: was anything trained?",
            "Read the code, and look at what other seeds give.",
        )


def _other_predictions(run: str, rerun: Rerun) -> Iterator[Finding]:
    """The same weights, bit for bit, cannot come with other predictions; nor almost the same with far other ones."""
    if not rerun.tensors:
        return
    same = all(each.equal for each in rerun.tensors)
    near = all(map(_is_near, rerun.tensors))
    for each in rerun.predictions:
        words = (
            f"other predictions than {each.artefact} holds: {100 * each.agreement:.3g} % of the examples have"
            f" {each.alike}, scores differ by up to {each.max_absolute_difference}"
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


def model_findings(case: Case, rerun: Rerun, *, scored: bool) -> Iterator[Finding]:
    """Whether anything ties the model that is shipped to the figures: its bits, weights next to them, or its score.

    Without that, any file could lie in its place, however well trainings agree.
    """
    near = rerun.tensors and all(each.equal or _is_near(each) for each in rerun.tensors)
    compared = case.shipped_model in case.spec.outputs.tensors
    if rerun.verdict == "failed" or scored or (near and compared) or not case.shipped_model:
        return
    why = "it is not among the tensors compared"
    if compared:
        unknown = any(not each.equal and each.relative_l2 is None for each in rerun.tensors)
        distance = ", how far off is not known (blind)" if unknown else ""
        why = f"the re-run gave other weights{distance}"
    yield warning(
        "model-unproven",
        case.declared.id,
        f"nothing ties the shipped model to the declared figures: {why}, and it was not scored",
        "The provider can say how to score it (training.evaluation); where the bundle does, use --evaluate.",
    )


def _is_near(tensor: TensorComparison) -> bool:
    few = tensor.ulp_median is not None and tensor.ulp_median <= ULPS.get(tensor.dtype, 0)
    return tensor.relative_l2 is not None and tensor.relative_l2 < NEARLY and few


NEARLY = 1e-4
"""Relative distance of weights between which only numerics lie, in two trainings that stayed together."""

ULPS = {"F64": 1 << 43, "F32": 1 << 14, "F16": 2, "BF16": 1}
"""By how many units in the last place half of its numbers may differ then: one large number hides no others."""

FAR = 0.01
"""Relative difference of scores that such weights do not explain."""


def far_off(
    case: Case,
    finals: Iterable[tuple[str, Number | None, Number | None]],
    own: Values,
    *,
    explained: bool,
    runs: int = 0,
) -> Iterator[Finding]:
    """Name those of ``finals`` (metric, declared, re-run) that decide and are further off than margin and chance allow.

    With other numerics the same seed is one more draw. So where other bits are ``explained``, a metric may be off by
    what two draws hardly differ by, as the verifier's ``own`` seeds scatter (so many ``runs``, once all are made): it
    is never the provider's runs that say how wide chance is. Then only a declared value that is better counts.
    """
    tolerances = {each.metric: each for each in case.tolerances}
    for metric, declared, rerun in finals:
        if metric not in case.decisive or declared == rerun:
            continue
        tolerance = tolerances.get(metric)
        chance = one_draw(own.get(metric, ()), runs) if explained else None
        if tolerance is not None:
            allowed = max(effective_margin(tolerance, case.policy), chance or 0.0)
        else:
            allowed = cap(metric, case.policy) if chance is None else chance
        off = math.inf
        if isinstance(declared, float) and isinstance(rerun, float):
            signed = {"higher is better": declared - rerun, "lower is better": rerun - declared}
            side = case.better(metric) if explained else None
            off = signed.get(side or "", abs(declared - rerun))
        if off > allowed:
            yield warning(
                "rerun-decisive-differs",
                metric,
                f"the declared seed gave {rerun!r} instead of {declared!r}: more than {allowed:.3g} apart",
                "Other numerics change the last digits, or make it one more draw: look at what else differs.",
            )


DECIDES = re.compile(
    r"package |(^|[._ ])(python|implementation|architecture|machine|platform|kernel|libc|glibc|cpu|gpu|cuda|cudnn|nccl"
    r"|driver|device|accelerator|threads?|num_threads|torch|tensorflow|jax|numpy|blas|openblas|mkl|onednn|mkldnn|simd|isa"
    r"|processor|os|num_gpus|fp16|bf16|capability|determinis\w+|tf32|precision|amp|dtype|compile|world_size|num_workers|versions?|packages|hash_seed)"
    r"($|[._ ])|_(capability|threads|model|version)$",
    re.IGNORECASE,
)
"""Names of facts that change bits: software, processor, threads, numerics. A build id of one's own does not."""

_SEED = re.compile(r"(^|[._])seeds?($|[._])", re.IGNORECASE)
"""Another seed changes bits as well, and is what the declared run may not have had: it excuses nothing."""


def explaining(declared: RunRecord, rerun: Rerun) -> Iterator[Knob]:
    """The differing facts that can explain other bits.

    A fact that only one side recorded is not known to differ, and a provider could invent it. But a variable that
    `bundler capture` did not see was not set, and a package that is not in the list is not installed.
    """
    captured = all(map(_is_captured, (declared.environment, rerun.environment)))
    for knob in rerun.knobs:
        unset = captured and _SETTING.fullmatch(knob.name) is not None
        known = unset or knob.name.startswith(("package ", "environment "))
        decides = DECIDES.search(knob.name) and not _SEED.search(knob.name)
        if decides and (known or None not in {knob.declared, knob.rerun}):
            yield knob


def _is_captured(environment: Mapping[str, Scalar]) -> bool:
    return environment.get("format") == CAPTURE_FORMAT


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
