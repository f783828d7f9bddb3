"""The validation gates over the records: which runs count, which hold-out, which verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bundler.records import RunRecord
from bundler.selection import repetitions, same_configuration
from bundler.spec import FactMap, Gate, GateResult
from bundler.statistics import evaluate

NOT_HOLD_OUT = frozenset({"training", "train", "validation", "valid", "val", "dev", "tuning"})
"""Words for the role of data that took part in training or selection."""

FinalValue = Callable[[RunRecord, str], float | None]


def judge(
    gates: Sequence[Gate],
    selected: str,
    records: Sequence[RunRecord],
    facts: FactMap,
    final: FinalValue = RunRecord.value,
) -> tuple[GateResult, ...]:
    """Judge every gate over all repetitions of run ``selected``; none of them can be left out.

    A repetition that did not finish, and whose seed no other run finished, counts as one without a value. ``final``
    gives the last value of a metric of a run; a verifier reads it from the raw history.
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
        results.append(
            evaluate(gate, values, rows, missing=len(found) - len(values) + len(unfinished))
        )
    return tuple(results)


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
