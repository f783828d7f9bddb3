"""Gates: recomputed from the raw histories of all repetitions, and the bundle's own summary held against that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bundler.checks.model import Evidence, finding
from bundler.evidence import Contents
from bundler.facts import roles
from bundler.records import MetricSummary, RunRecord
from bundler.report import Finding
from bundler.selection import repetitions, same_configuration

MIN_CONFIDENCE = 0.95
"""Lowest one-sided confidence at which a gate that is met settles anything."""


def gate_verdicts(evidence: Evidence) -> Iterator[Finding]:
    """Every gate, recomputed from the raw histories of all repetitions of the selected run."""
    index = evidence.contents.index
    for gate, result in zip(index.gates, evidence.gate_results, strict=True):
        if result.verdict == "not met":
            yield finding("gate-not-met", gate.name, f"{gate.metric}: {result.explanation}")
        elif result.verdict == "inconclusive":
            yield finding(
                "gate-inconclusive", gate.name, f"{gate.metric}: {result.explanation}", "warning"
            )


def gate_declarations(evidence: Evidence) -> Iterator[Finding]:
    """A gate must be about the hold-out, at a confidence that means something."""
    index = evidence.contents.index
    known = roles(index.facts, {gate.metric for gate in index.gates})
    for gate in index.gates:
        if known[gate.metric] != "hold-out":
            yield finding(
                "gate-not-hold-out",
                gate.name,
                f"{gate.metric} is no hold-out metric (role {known[gate.metric]})",
            )
        if gate.confidence < MIN_CONFIDENCE:
            yield finding(
                "gate-confidence-low",
                gate.name,
                f"confidence {gate.confidence:g} is below {MIN_CONFIDENCE:g}: the bound is near the mean",
                "warning",
            )


def gate_repetitions(evidence: Evidence) -> Iterator[Finding]:
    """No repetition may be disguised as another configuration, and one seed must give one result."""
    contents = evidence.contents
    selected, facts = contents.index.selection.run, contents.index.facts
    chosen = contents.record(selected)
    if chosen is None or not contents.index.gates:
        return
    alike = same_configuration(selected, contents.records, facts)
    for gate in contents.index.gates:
        by_seed: dict[int | None, set[float]] = {}
        for record in alike:
            value = record.value(gate.metric)
            if record.status == "finished" and value is not None:
                by_seed.setdefault(record.seed, set()).add(value)
        for seed, values in by_seed.items():
            if len(values) > 1:
                yield finding(
                    "gate-seed-repeated",
                    gate.metric,
                    f"runs of the selected configuration with seed {seed} gave {len(values)} different"
                    " values; only the selected or first one counts",
                    "warning",
                )
    yield from _copied(repetitions(selected, contents.records, facts))
    yield from _disguised(contents, chosen)


def _copied(runs: Sequence[RunRecord]) -> Iterator[Finding]:
    """Two seeds that gave the same in every metric are one result told twice."""
    first: dict[tuple[MetricSummary, ...], RunRecord] = {}
    for run in runs:
        earlier = first.setdefault(run.metrics, run)
        if earlier is not run and run.metrics:
            yield finding(
                "gate-repetition-copied",
                run.id,
                f"has exactly the metrics of run {earlier.id} although the seed is another: a copy, or the seed"
                " is not used",
                "warning",
            )


def _disguised(contents: Contents, chosen: RunRecord) -> Iterator[Finding]:
    """Runs that differ from ``chosen`` only in the seed and in parameters that the specified command does not use."""
    if contents.training is None:
        return
    words = " ".join((*contents.training.command, *contents.training.environment.values()))
    used = {name for name in chosen.parameters if f"{{parameter.{name}}}" in words}
    seed = contents.index.facts.seed.partition(".")[2]
    for record in contents.records:
        names = chosen.parameters.keys() | record.parameters.keys()
        differing = {
            name for name in names if chosen.parameters.get(name) != record.parameters.get(name)
        } - {seed}
        if used and differing and not differing & used and record.seed != chosen.seed:
            yield finding(
                "gate-repetition-left-out",
                record.id,
                "differs from the selected configuration only in parameters that the specified command"
                f" does not use ({', '.join(sorted(differing)[:3])}), so it did not count as a repetition",
                "warning",
            )


def gate_summary(evidence: Evidence) -> Iterator[Finding]:
    """The bundle's own summary must be what the runs give."""
    index = evidence.contents.index
    results = evidence.gate_results
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
