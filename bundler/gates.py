"""The validation gates over the records: which runs count, which hold-out, which verdict."""

from __future__ import annotations

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
        values = [value for value in found if value is not None]
        results.append(evaluate(gate, values, holdout_rows(gate, selected, runs)))
    return tuple(results)


def holdout_rows(gate: Gate, selected: str, runs: Sequence[RunRecord]) -> int | None:
    """Rows of the hold-out as the selected run recorded them, never as the gate claims them."""
    if gate.sampling is None:
        return None
    role = gate.sampling.dataset_role
    chosen = next((run for run in runs if run.id == selected), None)
    rows = [data.rows for data in chosen.data if data.role == role] if chosen else []
    return rows[0] if len(rows) == 1 else None
