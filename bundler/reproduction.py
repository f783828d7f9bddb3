"""Declared against re-run: the same bits or not, and what differs.

Two runs of one specification are compared metric by metric over the whole history and tensor by tensor. Only *all
equal* is called bitwise (STATISTICS rule 0). Anything else is, by itself, no contradiction: other hardware or thread
counts change bits in honest training. It is a contradiction where the same bits of the model are declared with other
results, or where the re-run trained something else than declared.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping

from bundler.predictions import ROUNDING
from bundler.records import MetricPoint, MetricRole, RunRecord, Scalar, number
from bundler.report import (
    Finding,
    Knob,
    MetricComparison,
    PredictionComparison,
    TensorComparison,
)


def compare_metrics(
    declared: Iterable[MetricPoint],
    rerun: Iterable[MetricPoint],
    role_of: Mapping[str, MetricRole],
) -> tuple[MetricComparison, ...]:
    """Compare two histories point by point; timestamps are not compared. ``role_of`` gives the role of a metric."""
    left, right = by_metric(declared), by_metric(rerun)
    return tuple(
        _compare(name, role_of.get(name, "other"), left.get(name, []), right.get(name, []))
        for name in sorted(left.keys() | right.keys())
    )


def by_metric(points: Iterable[MetricPoint]) -> dict[str, list[tuple[int, float]]]:
    """Step and value of each point, by its metric and in the order given."""
    groups: dict[str, list[tuple[int, float]]] = {}
    for point in points:
        groups.setdefault(point.metric, []).append((point.step, point.value))
    return groups


def _compare(
    name: str, role: MetricRole, left: list[tuple[int, float]], right: list[tuple[int, float]]
) -> MetricComparison:
    differing = [
        step
        for (step, value), (other_step, other) in zip(left, right, strict=False)
        if step != other_step or bits(value) != bits(other)
    ]
    longer = max(left, right, key=len)
    differing += [step for step, _ in longer[min(len(left), len(right)) :]]
    return MetricComparison(
        metric=name,
        role=role,
        declared=number(left[-1][1]) if left else None,
        rerun=number(right[-1][1]) if right else None,
        points_declared=len(left),
        points_rerun=len(right),
        points_differing=len(differing),
        first_differing_step=min(differing, default=None),
    )


def bits(value: float) -> bytes:
    """The bits that a value is compared by."""
    # All NaNs are one value here: trackers do not keep their payloads.
    return b"NaN" if math.isnan(value) else struct.pack("<d", value)


def differing_knobs(
    declared: Mapping[str, Scalar], rerun: Mapping[str, Scalar]
) -> tuple[Knob, ...]:
    """The recorded facts of the environment that are not the same, but for those that are never the same.

    What a side says that it could not find out (``not_recorded.``) is not known to differ.
    """
    return tuple(
        Knob(name=name, declared=declared.get(name), rerun=rerun.get(name))
        for name in sorted(declared.keys() | rerun.keys())
        if declared.get(name) != rerun.get(name)
        and not _of_the_moment(name)
        and not {f"not_recorded.{name}"} & {*declared, *rerun}
    )


def knobs_here(declared: Mapping[str, Scalar], here: Mapping[str, Scalar]) -> tuple[Knob, ...]:
    """The facts of a machine that was asked from outside of the training: what it does not know is left open."""
    return differing_knobs({name: declared.get(name) for name in here}, here)


def _of_the_moment(name: str) -> bool:
    """Whether a fact says when, where and by whom something ran (as `bundler capture` calls them), not how."""
    return name in {"captured_at", "command", "host", "user", "prefix"} or name.startswith(
        ("code.", "not_recorded.")
    )


def is_bitwise(
    metrics: Iterable[MetricComparison],
    tensors: Iterable[TensorComparison],
    predictions: Iterable[PredictionComparison] = (),
) -> bool:
    """Whether there is something to compare and all of it is equal: a history and at least one tensor.

    Metrics that are declared to be of validation or hold-out count; others, among which are durations, only where there
    are none of those: the weights tell of the training.
    """
    metrics, tensors = tuple(metrics), tuple(tensors)
    counted = [each for each in metrics if each.role in {"validation", "hold-out"}] or metrics
    return (
        bool(counted and tensors)
        and all(each.points_differing == 0 for each in counted)
        and all(each.equal for each in tensors)
        and all(map(same_predictions, predictions))
    )


def same_predictions(compared: PredictionComparison) -> bool:
    """Whether two files of predictions are the same but for rounding, which can turn a decision at the threshold."""
    largest = compared.relative_difference
    return largest is not None and largest <= ROUNDING


_INSIDE = re.compile(r"""(^|[^\w.-])/(out|bundle)(/|$|[\s"',:\]])|/aisdp-rerun-""")


def _of_the_sandbox(value: Scalar) -> bool:
    """Whether a parameter is a path that only the re-run has: where it finds its inputs and leaves its output."""
    return isinstance(value, str) and _INSIDE.search(value) is not None


_OF_THE_MACHINE = re.compile(
    r"(^|[._-])(n_?jobs|(num_)?workers|(n_?|num_?|thread_?)?threads?|thread_count|n?proc\w*|(world|local)_size|device|gpus?"
    r"|host(name)?|logging_dir|output_dir|log_dir)$",
    re.IGNORECASE,
)
"""Parameters that a script may take from the machine that it finds. A false one is a false record all the same."""


def same_training(declared: RunRecord, rerun: RunRecord) -> Iterator[Finding]:
    """Findings where the re-run trained with other parameters, another seed or other data than declared."""
    for name in sorted(declared.parameters.keys() | rerun.parameters.keys()):
        left, right = declared.parameters.get(name), rerun.parameters.get(name)
        if left != right and not _of_the_sandbox(right):
            yield Finding(
                code="rerun-parameters-differ",
                severity="warning" if _OF_THE_MACHINE.search(name) else "error",
                subject=declared.id,
                message=f"parameter {name} is declared as {left!r}, the specified training used {right!r}",
            )
    if declared.seed != rerun.seed:
        yield Finding(
            code="rerun-seed-differs",
            severity="error",
            subject=declared.id,
            message=f"seed {declared.seed} is declared, the specified training used {rerun.seed}",
        )
    # Not the tracker's own digest: it is a label that changes with the versions of libraries.
    left_data = {(each.role, each.sha256, each.rows) for each in declared.data}
    right_data = {(each.role, each.sha256, each.rows) for each in rerun.data}
    if left_data != right_data:
        yield Finding(
            code="rerun-data-differs",
            severity="error",
            subject=declared.id,
            message="the specified training read other data than the declared run",
        )


def judge(
    run: str,
    metrics: tuple[MetricComparison, ...],
    tensors: tuple[TensorComparison, ...],
    knobs: tuple[Knob, ...],
    decisive: Collection[str],
) -> Iterator[Finding]:
    """Findings of one comparison; for BITWISE only the note on what it does not show.

    ``decisive`` names the metrics that selection and gates rest on. Others, such as durations, contradict nothing.
    """
    if is_bitwise(metrics, tensors):
        yield Finding(
            code="rerun-bitwise-scope",
            severity="note",
            subject=run,
            message="the shipped command gave the same bits; code that carries its result inside would, too:"
            " read it, or train with another seed",
        )
        return
    if tensors and all(each.equal for each in tensors):
        yield from _contradictions(run, metrics, decisive)
    if not tensors:
        yield Finding(
            code="rerun-no-tensors",
            severity="warning",
            subject=run,
            message="no weights in safetensors format were declared and left, so no bits can be compared",
            remedy="Declare outputs.tensors in the training specification.",
        )
    yield Finding(
        code="rerun-not-bitwise",
        severity="warning",
        subject=run,
        message="not bitwise on this machine: " + _first_difference(metrics, tensors, knobs),
    )


def _contradictions(
    run: str, metrics: tuple[MetricComparison, ...], decisive: Collection[str]
) -> Iterator[Finding]:
    """The same weights, bit for bit, cannot come with other results, whatever tolerance was declared."""
    for each in metrics:
        left, right = each.declared, each.rerun
        if each.metric not in decisive or left is None or right is None or left == right:
            continue
        if isinstance(left, float) and isinstance(right, float):
            # Scoring on another machine may change the last digits of a mean, and no more.
            apart = abs(left - right) > 1e-6 * max(1.0, abs(left))
        else:
            apart = True
        if apart:
            yield Finding(
                code="rerun-metric-contradicts",
                severity="error",
                subject=run,
                message=f"the re-run gave the declared weights bit for bit, but {each.metric} {right!r},"
                f" declared was {left!r}",
            )


def _first_difference(
    metrics: tuple[MetricComparison, ...],
    tensors: tuple[TensorComparison, ...],
    knobs: tuple[Knob, ...],
) -> str:
    parts = []
    tensor = next((each for each in tensors if not each.equal), None)
    if tensor is not None:
        distance = (
            f" by at most {tensor.max_absolute_difference:.3g}"
            if tensor.max_absolute_difference is not None
            else ""
        )
        parts.append(f"tensor {tensor.tensor} differs first{distance}")
    changed = [each for each in metrics if each.points_differing]
    if changed:
        first = min(changed, key=lambda each: (each.first_differing_step or 0, each.metric))
        parts.append(
            f"{len(changed)} of {len(metrics)} metrics differ, first {first.metric} at step"
            f" {first.first_differing_step}"
        )
    if knobs:
        parts.append("knobs that differ: " + ", ".join(each.name for each in knobs[:6]))
    else:
        parts.append("no recorded knob differs")
    return "; ".join(parts)
