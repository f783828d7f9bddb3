"""Selection: does the selected run win by the declared rule, which leaves the hold-out alone?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC

from bundler.checks.model import Evidence, finding
from bundler.facts import roles
from bundler.records import RunRecord, is_date, moment
from bundler.report import Finding
from bundler.selection import better, compete


def selection_criteria(evidence: Evidence) -> Iterator[Finding]:
    """The criteria must not look at the hold-out, and must be dated before the first result."""
    contents = evidence.contents
    spec = contents.index.selection
    used = spec.metrics
    known = roles(contents.index.facts, used)
    gated = {gate.metric for gate in contents.index.gates}
    for metric in used:
        if known[metric] == "hold-out" or metric in gated or _is_hold_out(metric, evidence):
            yield finding(
                "selection-uses-hold-out",
                metric,
                "the criterion looks at the hold-out, so hold-out results are no longer independent",
            )
        elif known[metric] != "validation":
            yield finding(
                "selection-not-validation",
                metric,
                f"the criterion is no validation metric (role {known[metric]}): on which data was it computed?",
                "warning",
            )
    yield from _late(spec.declared_at, contents.records)


def _is_hold_out(metric: str, evidence: Evidence) -> bool:
    """Whether ``metric`` is a hold-out metric under another name: the same values in nearly all runs.

    Three different values at least, so that metrics which are saturated or constant do not look like copies.
    """
    pairs: dict[str, list[tuple[float, float]]] = {}
    for record in evidence.contents.records:
        value = record.value(metric)
        if value is None or record.status != "finished":
            continue
        for other in record.metrics:
            if other.role == "hold-out" and other.name != metric and isinstance(other.last, float):
                pairs.setdefault(other.name, []).append((value, other.last))
    for seen in pairs.values():
        same = [value for value, other in seen if math.isclose(value, other, rel_tol=1e-6)]
        if len(set(same)) >= 3 and len(same) >= 0.8 * len(seen):
            return True
    return False


def _late(declared: str | None, records: Sequence[RunRecord]) -> Iterator[Finding]:
    """A finding if the criteria are dated after the first result, whatever became of the run that gave it."""
    ended = [time for each in records if each.metrics and (time := moment(each.ended_at))]
    said = moment(declared, UTC)
    if declared is None or said is None or not ended or not is_date(declared):
        return
    first = min(ended)
    whole_day = len(declared) <= len("2026-01-01")
    late = said.date() > first.date() if whole_day else said > first
    if late:
        yield finding(
            "selection-criteria-late",
            "selection.declared_at",
            f"the criteria are dated {declared}, after the first result of {first:%Y-%m-%d %H:%M} UTC",
            "warning",
        )


def selection_winner(evidence: Evidence) -> Iterator[Finding]:
    """The selected run must be eligible and win; a better run that does not compete must be explained."""
    contents = evidence.contents
    spec = contents.index.selection
    standings = {each.run: each for each in compete(contents.records, spec, contents.index.facts)}
    chosen = standings.get(spec.run)
    if chosen is None:
        yield finding("selection-run-unknown", spec.run, "the selected run is not in the log")
        return
    if chosen.standing != "candidate" or chosen.value is None:
        yield finding(
            "selection-run-ineligible",
            spec.run,
            f"the selected run may not compete: {chosen.standing} ({chosen.explanation})",
            remedy="Where the tracker does not record how runs end, facts.finished_with can say it.",
        )
        return
    for other in standings.values():
        if other.standing == "no value" and other.value is None:
            yield finding(
                "selection-run-without-value",
                other.run,
                f"satisfies the rule and has {other.explanation}, so nobody can say whether it is better",
                "warning",
                "Exclude it with a reason, or log the value.",
            )
    constrained = 0
    for other in standings.values():
        if other.value is None or not better(other.value, chosen.value, spec):
            continue
        words = (
            f"{spec.metric} {other.value:.6g} is better than {chosen.value:.6g} of the selected run"
        )
        constrained += other.standing == "constraint failed"
        if other.standing == "candidate":
            yield finding("selection-better-run", other.run, words)
        elif other.standing in {"excluded", "outside the rule", "not finished", "no value"}:
            yield finding(
                "selection-better-run-left-out",
                other.run,
                f"{words}, but {other.standing}: {other.explanation}",
                "warning",
                "Judge whether the reason holds.",
            )
    if constrained:
        yield finding(
            "selection-better-run-constrained",
            "selection.constraints",
            f"{constrained} runs with a better {spec.metric} fail a constraint",
            "note",
        )


def selection_exclusions(evidence: Evidence) -> Iterator[Finding]:
    """Each exclusion must name a run of the log, and a reason."""
    known = {record.id for record in evidence.contents.records}
    for exclusion in evidence.contents.index.selection.exclusions:
        if exclusion.run not in known:
            yield finding("selection-exclusion-unknown", exclusion.run, "is not in the log")
        if not exclusion.reason.strip():
            yield finding(
                "selection-exclusion-unexplained", exclusion.run, "is excluded without a reason"
            )
