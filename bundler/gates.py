"""The validation gates over the records: which runs count, which hold-out, which verdict."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence

from bundler import predictions
from bundler.equivalence import Better
from bundler.errors import MalformedError, quoted
from bundler.records import RunRecord, artefact_location
from bundler.scoring import Measured
from bundler.selection import repetitions, same_configuration
from bundler.spec import (
    Condition,
    FactMap,
    Gate,
    GateResult,
    Index,
    Predictions,
    Sampling,
    Tolerance,
)
from bundler.statistics import evaluate

HOLD_OUT = frozenset({"holdout", "heldout", "test", "testing", "evaluation", "eval"})
"""Words for the role of data that took no part in training or selection: without signs between, in lower case."""

FinalValue = Callable[[RunRecord, str], float | None]
Measure = Callable[[Sampling], Measured]


def measured(sampling: Sampling, run: RunRecord | None, read: Callable[[str], bytes]) -> Measured:
    """What the predictions of ``run`` give for a gate. ``read`` gives the bytes of a file of the bag.

    Raises :class:`MalformedError`: what ``read`` raises, ``predictions-missing``, ``predictions-syntax`` or
    ``predictions-undefined``.
    """
    path = sampling.predictions.path if sampling.predictions else ""
    artefact = next((each for each in run.artefacts if each.path == path), None) if run else None
    if run is None or artefact is None or artefact.sha256 is None:
        raise MalformedError(
            "predictions-missing", f"the selected run has no artefact {quoted(path)} with its bytes"
        )
    return predictions.measured(read(artefact_location(run.id, artefact)), sampling, name=path)


def predictions_of(gates: Iterable[Gate]) -> Predictions | None:
    """The predictions that ``gates`` rest on, if it is one file with one set of columns."""
    named = {
        gate.sampling.predictions
        for gate in gates
        if gate.sampling is not None and gate.sampling.predictions is not None
    }
    return named.pop() if len(named) == 1 else None


def nothing_measured(_: Sampling) -> Measured:
    """The measure of who has no files."""
    raise MalformedError("predictions-missing", "the predictions are not at hand")


def judge(  # noqa: PLR0913  # the evidence, and how a verifier reads it
    gates: Sequence[Gate],
    selected: str,
    records: Sequence[RunRecord],
    facts: FactMap,
    final: FinalValue = RunRecord.value,
    measure: Measure = nothing_measured,
) -> tuple[GateResult, ...]:
    """Judge every gate over all repetitions of run ``selected``; none of them can be left out.

    A repetition that did not finish, and whose seed no other run finished, counts as one without a value. ``final``
    gives the last value of a metric of a run; a verifier reads it from the raw history. ``measure`` gives what the
    predictions of ``selected`` show, and raises :class:`MalformedError` where they show nothing.
    """
    runs = repetitions(selected, records, facts)
    unfinished = seeds_without_result(selected, records, facts)
    results = []
    for gate in gates:
        found = [final(run, gate.metric) for run in runs]
        values = [value for value in found if value is not None and math.isfinite(value)]
        rows = holdout_rows(gate, runs)
        missing = len(found) - len(values) + len(unfinished)
        results.append(evaluate(gate, values, rows, missing, _shown(gate, measure)))
    return tuple(results)


def seeds_without_result(
    selected: str, records: Sequence[RunRecord], facts: FactMap
) -> set[int | None]:
    """The seeds of repetitions of run ``selected`` that did not finish, and that no other run finished."""
    finished = {run.seed for run in repetitions(selected, records, facts)}
    return {run.seed for run in same_configuration(selected, records, facts)} - finished


def deciding_metrics(index: Index) -> tuple[str, ...]:
    """The metrics that the selection and the gates rest on, each once: the selection's first."""
    return tuple(dict.fromkeys((*index.selection.metrics, *(gate.metric for gate in index.gates))))


def _shown(gate: Gate, measure: Measure) -> Measured | str:
    """What the predictions of the gate show, or words that say why there is nothing; no words where it has none."""
    if gate.sampling is None or gate.sampling.kind != "predictions":
        return ""
    try:
        return measure(gate.sampling)
    except MalformedError as error:
        return error.message


def is_hold_out(role: str) -> bool:
    """Whether ``role`` is a word for a hold-out, such as ``test`` or ``Hold-out``; a pool of any size has some name."""
    return re.sub(r"[\s_-]+", "", role.lower()).removesuffix("set").removesuffix("data") in HOLD_OUT


def holdout_rows(gate: Gate, runs: Sequence[RunRecord]) -> int | None:
    """Rows of the hold-out as the runs recorded them, never as the gate claims them.

    ``None`` unless every run recorded exactly one data set of that role, and all the same number; and for data that
    are no hold-out. Where the runs recorded other hold-outs as well, the smallest counts: which of them the metric is
    of is the provider's word. Predictions show it, so theirs is the one that is named.
    """
    if gate.sampling is None or not is_hold_out(gate.sampling.dataset_role):
        return None
    role = gate.sampling.dataset_role
    recorded = {tuple(data.rows for data in run.data if data.role == role) for run in runs}
    rows = recorded.pop() if len(recorded) == 1 else ()
    if len(rows) != 1 or rows[0] is None or gate.sampling.kind == "predictions":
        return rows[0] if len(rows) == 1 else None
    others = (data.rows for run in runs for data in run.data if is_hold_out(data.role or ""))
    return min(each for each in (rows[0], *others) if each is not None)


def better_sides(metric: str, index: Index) -> frozenset[Better]:
    """Which values of ``metric`` are better, as its gates, the selection and the constraints of the selection say."""
    higher: Better = "higher is better"
    lower: Better = "lower is better"
    conditions: list[Gate | Condition] = [*index.gates, *index.selection.constraints]
    sides = {
        higher if each.comparator == ">=" else lower for each in conditions if each.metric == metric
    }
    if index.selection.metric == metric:
        sides.add(higher if index.selection.direction == "maximise" else lower)
    return frozenset(sides)


def overstatement_of(tolerance: Tolerance, index: Index) -> Better | None:
    """The side on which a declared value counts against the provider, ``None`` for both.

    It is the declared one where gates and selection say the same. With the other one, any inflated value would pass.
    """
    declared = tolerance.overstatement
    return declared if better_sides(tolerance.metric, index) == {declared} else None
