"""The validation gates over the records: which runs count, which hold-out, which verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bundler.records import RunRecord
from bundler.selection import repetitions
from bundler.spec import FactMap, Gate, GateResult
from bundler.statistics import evaluate

FinalValue = Callable[[RunRecord, str], float | None]


def judge(
    gates: Sequence[Gate],
    selected: str,
    records: Sequence[RunRecord],
    facts: FactMap,
    final: FinalValue = RunRecord.value,
) -> tuple[GateResult, ...]:
    """Judge every gate over all repetitions of run ``selected``; none of them can be left out.

    ``final`` gives the last value of a metric of a run; a verifier reads it from the raw history.
    """
    runs = repetitions(selected, records, facts)
    results = []
    for gate in gates:
        found = [final(run, gate.metric) for run in runs]
        values = [value for value in found if value is not None and math.isfinite(value)]
        rows = holdout_rows(gate, runs)
        results.append(evaluate(gate, values, rows, missing=len(found) - len(values)))
    return tuple(results)


def holdout_rows(gate: Gate, runs: Sequence[RunRecord]) -> int | None:
    """Rows of the hold-out as the runs recorded them, never as the gate claims them.

    ``None`` unless every run recorded exactly one data set of that role, and all the same number.
    """
    if gate.sampling is None:
        return None
    role = gate.sampling.dataset_role
    recorded = {tuple(data.rows for data in run.data if data.role == role) for run in runs}
    rows = recorded.pop() if len(recorded) == 1 else ()
    return rows[0] if len(rows) == 1 else None
