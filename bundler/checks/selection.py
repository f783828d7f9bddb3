"""Selection: does the selected run win by the declared rule, which leaves the hold-out alone?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from bundler import requirements
from bundler.checks.model import Evidence, finding
from bundler.facts import roles
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
        if known[metric] == "hold-out" or metric in gated:
            yield finding(
                "selection-uses-hold-out",
                metric,
                "the criterion looks at the hold-out, so hold-out results are no longer independent",
            )
    ended = [
        each.ended_at for each in contents.records if each.status == "finished" and each.ended_at
    ]
    declared = spec.declared_at
    if (
        declared is not None
        and ended
        and requirements.is_date(declared)
        and datetime.fromisoformat(declared).date().isoformat() > min(ended)[:10]
    ):
        yield finding(
            "selection-criteria-late",
            "selection.declared_at",
            f"the criteria are dated {spec.declared_at}, after the first result of {min(ended)[:10]}",
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
        if other.value is None or not better(other.value, chosen.value, spec):
            continue
        words = (
            f"{spec.metric} {other.value:.6g} is better than {chosen.value:.6g} of the selected run"
        )
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
