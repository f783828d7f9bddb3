"""Gates: recomputed from the raw histories of all repetitions, and the bundle's own summary held against that."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from bundler.checks.model import Evidence, finding
from bundler.errors import MalformedError, quoted
from bundler.evidence import Contents
from bundler.facts import roles
from bundler.gates import better_sides, holdout_rows, is_hold_out
from bundler.policy import effective_margin
from bundler.predictions import read
from bundler.records import RunRecord, artefact_location
from bundler.report import Finding
from bundler.selection import other_code, repetitions, same_but_for_code, same_configuration
from bundler.spec import Gate, Index, Predictions, Sampling

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
            yield from _compared(evidence, gate, gate.sampling)
    yield from _as_many_as_predicted(evidence)


def _predicted(evidence: Evidence, gate: Gate, sampling: Sampling) -> Iterator[Finding]:
    """The metric of the selected run must be what its own predictions give, over the rows that it recorded."""
    contents = evidence.contents
    selected = contents.index.selection.run
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
    yield from _rows(evidence, gate, found.rows)


def _rows(evidence: Evidence, gate: Gate, predicted: int) -> Iterator[Finding]:
    """There is a prediction for each row that the runs recorded, and the variance of the gate is that of as many."""
    contents = evidence.contents
    index = contents.index
    rows = holdout_rows(gate, repetitions(index.selection.run, contents.records, index.facts))
    if rows is not None and rows != predicted:
        yield finding(
            "predictions-rows",
            gate.name,
            f"the predictions are of {predicted} examples, the hold-out has {rows} by the records",
            "warning",
            "Predictions are needed for every row of the hold-out.",
        )


def _as_many_as_predicted(evidence: Evidence) -> Iterator[Finding]:
    """Rows that a run only claims are given away by the predictions that it left, which a re-run compares."""
    contents = evidence.contents
    columns = contents.training.outputs.predictions if contents.training else None
    run = contents.record(contents.index.selection.run)
    sampled = [(gate, gate.sampling) for gate in contents.index.gates if gate.sampling is not None]
    # A gate that rests on predictions says it itself.
    told = {sampling.dataset_role for _, sampling in sampled if sampling.kind == "predictions"}
    others = [gate for gate, sampling in sampled if sampling.dataset_role not in told]
    if not others or columns is None or run is None:
        return
    places = [
        artefact_location(run.id, each) for each in run.artefacts if each.path == columns.path
    ]
    if not places or places[0] not in evidence.files:
        return
    try:
        examples = read(evidence.files.read(places[0]), columns, name=columns.path)
    except MalformedError:
        return  # a re-run that compares them says why it cannot
    for gate in others:
        yield from _rows(evidence, gate, len(examples))


def _compared(evidence: Evidence, gate: Gate, sampling: Sampling) -> Iterator[Finding]:
    """Predictions that were made up show in a re-run alone, if it compares this file by these columns."""
    training = evidence.contents.training
    told = training.outputs.predictions if training is not None else None
    if _columns(told) != _columns(sampling.predictions):
        yield finding(
            "predictions-not-compared",
            gate.name,
            "nothing compares the predictions that the gate rests on with a re-run: training.outputs.predictions is"
            f" {'not given' if told is None else 'another file or other columns'}",
            "warning",
            "The provider can write the same path, label and score under training.outputs.predictions.",
        )


def _columns(predictions: Predictions | None) -> tuple[str, str, str] | None:
    return (predictions.path, predictions.label, predictions.score) if predictions else None


def gate_declarations(evidence: Evidence) -> Iterator[Finding]:
    """A gate is about the hold-out, at a confidence that means something, and a tolerance excuses no inflation."""
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
        if gate.sampling is not None and not is_hold_out(gate.sampling.dataset_role):
            yield finding(
                "gate-not-holdout-role",
                gate.name,
                f"the rows of the hold-out are those of the data set {quoted(gate.sampling.dataset_role)}, which is no"
                " word for a hold-out",
                "warning",
                "Record the data that the metric is of with the role holdout, test or evaluation.",
            )
    yield from _tolerance_directions(index)


def _tolerance_directions(index: Index) -> Iterator[Finding]:
    """Where only overstatement counts, it must be the side that flatters."""
    for tolerance in index.reproducibility.tolerances:
        sides = better_sides(tolerance.metric, index)
        if tolerance.overstatement is None or sides == {tolerance.overstatement}:
            continue
        if sides:
            yield finding(
                "tolerance-direction",
                tolerance.metric,
                f"the tolerance says {tolerance.overstatement}, gates or selection say otherwise: any declared value"
                " that is too good would pass",
                remedy="It is judged two-sided. The provider must correct or leave out overstatement.",
            )
        else:
            yield finding(
                "tolerance-direction-unknown",
                tolerance.metric,
                f"the tolerance says {tolerance.overstatement}, and neither gates nor selection show it: it is judged"
                " two-sided",
                "warning",
                "The provider can leave out overstatement.",
            )


def gate_repetitions(evidence: Evidence) -> Iterator[Finding]:
    """No repetition may be disguised as another configuration, and one seed must give one result."""
    contents = evidence.contents
    selected, facts = contents.index.selection.run, contents.index.facts
    chosen = contents.record(selected)
    if chosen is None or not contents.index.gates:
        return
    alike = same_configuration(selected, contents.records, facts)
    margins = {
        each.metric: effective_margin(each, evidence.policy)
        for each in contents.index.reproducibility.tolerances
    }
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
                    " margin that counts; only the selected or first one counts",
                    "warning",
                    "Ask the provider why the others do not count.",
                )
    yield from _copied(repetitions(selected, contents.records, facts), facts.model)
    yield from _of_other_code(chosen, same_but_for_code(chosen, contents.records, facts))
    yield from _disguised(contents, chosen)


def _of_other_code(chosen: RunRecord, alike: Sequence[RunRecord]) -> Iterator[Finding]:
    """No run is left out in silence: a bad one could be, by another commit in its record."""
    for record in alike:
        why = other_code(chosen, record)
        if why:
            yield finding(
                "gate-repetition-other-code",
                record.id,
                f"is like the selected run, but {why}: it does not count as a repetition",
                "note",
            )


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
