"""Gates: recomputed from the raw histories of all repetitions, and the bundle's own summary held against that."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from bundler.checks.model import Evidence, finding
from bundler.errors import MalformedError
from bundler.evidence import Contents
from bundler.facts import roles
from bundler.gates import holdout_rows
from bundler.records import RunRecord
from bundler.report import Finding
from bundler.selection import repetitions, same_configuration
from bundler.spec import Gate, Sampling

EXACT = 1e-6
"""Largest relative difference between a metric and what the predictions give: that of sums in single precision."""


def gate_verdicts(evidence: Evidence) -> Iterator[Finding]:
    """Every gate, recomputed from the raw histories of all repetitions of the selected run."""
    index = evidence.contents.index
    if not index.gates:
        yield finding("gates-none", "bundle", "no gate is declared, so none was met", "warning")
    for gate, result in zip(index.gates, evidence.gate_results, strict=True):
        if result.verdict == "not met":
            yield finding("gate-not-met", gate.name, f"{gate.metric}: {result.explanation}")
        elif result.verdict == "inconclusive":
            yield finding(
                "gate-inconclusive",
                gate.name,
                f"{gate.metric}: {result.explanation}",
                "warning",
                "More repetitions narrow the interval; of the hold-out, sampling and the number of rows must be known"
                " (facts.data_rows, docs/statistics.md).",
            )
        if gate.sampling is not None and gate.sampling.kind == "predictions":
            yield from _predicted(evidence, gate, gate.sampling)


def _predicted(evidence: Evidence, gate: Gate, sampling: Sampling) -> Iterator[Finding]:
    """The metric of the selected run must be what its own predictions give, over the rows that it recorded."""
    contents = evidence.contents
    selected, facts = contents.index.selection.run, contents.index.facts
    try:
        found = evidence.measured(sampling)
    except MalformedError as error:
        yield finding(
            "predictions-unreadable",
            gate.name,
            f"{gate.metric} cannot be computed from the predictions: {error.message}",
            "warning",
            "The bundle must hold the predictions of the selected run, with the declared columns.",
        )
        return
    chosen = contents.record(selected)
    declared = evidence.final(chosen, gate.metric) if chosen else None
    if declared is None or not math.isclose(declared, found.value, rel_tol=EXACT, abs_tol=1e-9):
        yield finding(
            "predictions-contradict",
            gate.name,
            f"{gate.metric} of the selected run is {'not there' if declared is None else f'{declared:.9g}'}, its"
            f" predictions give {found.value:.9g} as {sampling.statistic}",
            remedy="The metric was edited, or it is another one: rounded, of other rows, of another threshold.",
        )
    rows = holdout_rows(gate, repetitions(selected, contents.records, facts))
    if rows is not None and rows != found.rows:
        yield finding(
            "predictions-rows",
            gate.name,
            f"the predictions are of {found.rows} examples, the hold-out has {rows} by the records",
            "warning",
            "Predictions are needed for every row of the hold-out.",
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
        if gate.confidence < evidence.policy.confidence:
            yield finding(
                "gate-confidence-low",
                gate.name,
                f"confidence {gate.confidence:g} is below {evidence.policy.confidence:g}: the bound is near the mean",
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
    margins = {each.metric: each.margin for each in contents.index.reproducibility.tolerances}
    for metric in sorted({gate.metric for gate in contents.index.gates}):
        # Runs that did not finish as well: a value that they gave is a result.
        by_seed: dict[int | None, list[float]] = {}
        for record in alike:
            value = record.value(metric)
            if value is not None:
                by_seed.setdefault(record.seed, []).append(value)
        for seed, values in by_seed.items():
            if max(values) - min(values) > margins.get(metric, 1e-6):
                yield finding(
                    "gate-seed-repeated",
                    metric,
                    f"{len(values)} runs of the selected configuration with seed {seed} differ by more than the"
                    " declared tolerance; only the selected or first one counts",
                    "warning",
                    "Ask the provider why the others do not count.",
                )
    yield from _copied(repetitions(selected, contents.records, facts), facts.model)
    yield from _disguised(contents, chosen)


def _copied(runs: Sequence[RunRecord], model: str | None) -> Iterator[Finding]:
    """Two seeds that gave the same history and model are one result told twice."""
    first: dict[object, RunRecord] = {}
    for run in runs:
        weights = next((each.sha256 for each in run.artefacts if each.path == model), None)
        earlier = first.setdefault((run.metrics, weights), run)
        if earlier is not run and any(each.points > 1 for each in run.metrics):
            yield finding(
                "gate-repetition-copied",
                run.id,
                f"has exactly the metrics and model of run {earlier.id} although the seed is another: a copy, or"
                " the seed is not used",
                "warning",
            )


def _disguised(contents: Contents, chosen: RunRecord) -> Iterator[Finding]:
    """Runs like ``chosen`` but for a parameter that it does not have, or another description of the same data."""
    group, _, name = contents.index.facts.seed.partition(".")
    seed = {name} if group == "parameters" else set()
    gated = {gate.metric for gate in contents.index.gates}
    own = {(each.role, each.sha256) for each in chosen.data}
    digests = {each.sha256 for each in chosen.data if each.sha256}
    for record in contents.records:
        names = chosen.parameters.keys() | record.parameters.keys()
        differing = {
            name for name in names if chosen.parameters.get(name) != record.parameters.get(name)
        } - seed
        added = differing and not differing & chosen.parameters.keys()
        described = {(each.role, each.sha256) for each in record.data}
        relabelled = (
            not differing and described != own and digests & {sha256 for _, sha256 in described}
        )
        if (added or relabelled) and any(record.value(metric) is not None for metric in gated):
            what = f"parameters that it has besides ({', '.join(sorted(differing)[:3])})"
            yield finding(
                "gate-repetition-left-out",
                record.id,
                f"is like the selected run but for {what if added else 'how its data are described'}, so it does"
                " not count as a repetition",
                "warning",
                "Ask the provider why it is none.",
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
