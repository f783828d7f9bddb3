"""Gates: recomputed from the raw histories of all repetitions, and the bundle's own summary held against that."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from bundler.checks.model import Evidence, finding
from bundler.gates import judge
from bundler.history import read_points
from bundler.records import RunRecord
from bundler.report import Finding


def gate_verdicts(evidence: Evidence) -> Iterator[Finding]:
    """Every gate, recomputed from the raw histories of all repetitions of the selected run."""
    index = evidence.contents.index
    for gate, result in zip(index.gates, recompute_gates(evidence), strict=True):
        if result.verdict == "not met":
            yield finding("gate-not-met", gate.name, f"{gate.metric}: {result.explanation}")
        elif result.verdict == "inconclusive":
            yield finding(
                "gate-inconclusive", gate.name, f"{gate.metric}: {result.explanation}", "warning"
            )


def gate_summary(evidence: Evidence) -> Iterator[Finding]:
    """The bundle's own summary must be what the runs give."""
    index = evidence.contents.index
    results = recompute_gates(evidence)
    said = {result.gate: result for result in index.gate_results}
    for result in results:
        if not _same(said.get(result.gate), result):
            yield finding(
                "gate-summary", result.gate, "the bundle's own summary is not what the runs give"
            )
    if len(index.gate_results) != len(results) or len({gate.name for gate in index.gates}) != len(
        results
    ):
        yield finding("gate-summary", "gates", "gates and their summary do not correspond")


def _same(said: Any, found: Any) -> bool:
    """Equal up to the last digits of floating point, which differ between machines."""
    if said is None:
        return False
    numbers = ("estimate", "bound", "seed_variance", "holdout_variance")
    for name in numbers:
        left, right = getattr(said, name), getattr(found, name)
        if (left is None) != (right is None):
            return False
        if left is not None and abs(left - right) > 1e-9 * max(1.0, abs(left)):
            return False
    return bool(said.verdict == found.verdict and said.runs == found.runs)


def recompute_gates(evidence: Evidence) -> tuple[Any, ...]:
    """The gates' results from the raw histories; nothing of the records' summaries is used."""

    def final(record: RunRecord, metric: str) -> float | None:
        if record.history is None:
            return None
        path = record.history.path
        last = None
        for point in read_points(evidence.files.read(path), name=path):
            if point.metric == metric:
                last = point.value
        return last if last is not None and math.isfinite(last) else None

    index, records = evidence.contents.index, evidence.contents.records
    return judge(index.gates, index.selection.run, records, index.facts, final)
