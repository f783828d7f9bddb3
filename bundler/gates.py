"""The validation gates over the records: which runs count, which hold-out, which verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bundler import predictions
from bundler.errors import MalformedError, quoted
from bundler.records import RunRecord, artefact_location
from bundler.scoring import Measured
from bundler.selection import repetitions, same_configuration
from bundler.spec import FactMap, Gate, GateResult, Sampling
from bundler.statistics import evaluate

NOT_HOLD_OUT = frozenset({"training", "train", "validation", "valid", "val", "dev", "tuning"})
"""Words for the role of data that took part in training or selection."""

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
    finished = {run.seed for run in runs}
    unfinished = {
        run.seed for run in same_configuration(selected, records, facts) if run.seed not in finished
    }
    results = []
    for gate in gates:
        found = [final(run, gate.metric) for run in runs]
        values = [value for value in found if value is not None and math.isfinite(value)]
        rows = holdout_rows(gate, runs)
        missing = len(found) - len(values) + len(unfinished)
        results.append(evaluate(gate, values, rows, missing, _shown(gate, measure)))
    return tuple(results)


def _shown(gate: Gate, measure: Measure) -> Measured | str:
    """What the predictions of the gate show, or words that say why there is nothing; no words where it has none."""
    if gate.sampling is None or gate.sampling.kind != "predictions":
        return ""
    try:
        return measure(gate.sampling)
    except MalformedError as error:
        return error.message


def holdout_rows(gate: Gate, runs: Sequence[RunRecord]) -> int | None:
    """Rows of the hold-out as the runs recorded them, never as the gate claims them.

    ``None`` unless every run recorded exactly one data set of that role, and all the same number; and for the data
    of training and validation, which are no hold-out.
    """
    if gate.sampling is None or gate.sampling.dataset_role.lower() in NOT_HOLD_OUT:
        return None
    role = gate.sampling.dataset_role
    recorded = {tuple(data.rows for data in run.data if data.role == role) for run in runs}
    rows = recorded.pop() if len(recorded) == 1 else ()
    return rows[0] if len(rows) == 1 else None
