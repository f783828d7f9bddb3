"""Selection: does the selected run win by the declared rule, which leaves the hold-out alone?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from bundler import requirements
from bundler.checks.model import Evidence, finding
from bundler.facts import roles
from bundler.records import RunRecord
from bundler.report import Finding
from bundler.selection import better, compete


def selection_criteria(evidence: Evidence) -> Iterator[Finding]:
    """The criteria must not look at the hold-out, and must be dated before the first result."""
    contents = evidence.contents
    spec = contents.index.selection
    used = [spec.metric, *(condition.metric for condition in spec.constraints)]
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
    """Whether ``metric`` is a hold-out metric under another name: the same values in three or more runs."""
    pairs: dict[str, list[bool]] = {}
    for record in evidence.contents.records:
        value = record.value(metric)
        if value is None or record.status != "finished":
            continue
        for other in record.metrics:
            if other.role == "hold-out" and other.name != metric:
                pairs.setdefault(other.name, []).append(other.last == value)
    return any(len(same) >= 3 and all(same) for same in pairs.values())


def _late(declared: str | None, records: Sequence[RunRecord]) -> Iterator[Finding]:
    """A finding if the criteria are dated after the first result, whatever became of the run that gave it."""
    ended = [each.ended_at for each in records if each.metrics and each.ended_at]
    if declared is None or not ended or not requirements.is_date(declared):
        return
    first = datetime.fromisoformat(min(ended))
    moment = datetime.fromisoformat(declared)
    if len(declared) <= len("2026-01-01"):
        late = moment.date() > first.date()
    else:
        late = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) > first
    if late:
        yield finding(
            "selection-criteria-late",
            "selection.declared_at",
            f"the criteria are dated {declared}, after the first result of {min(ended)}",
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
