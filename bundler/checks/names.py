"""Names that were changed on the way in, and metrics that were attached: none may favour the selected run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from bundler.checks.model import Evidence, finding
from bundler.facts import roles
from bundler.gates import deciding_metrics
from bundler.records import RunRecord
from bundler.renaming import GROUPS
from bundler.report import Finding


def changed_names(evidence: Evidence) -> Iterator[Finding]:
    """What a provider renames must be renamed in all runs, and a hold-out metric stays one by any name."""
    yield from _renamed_apart(evidence)
    index = evidence.contents.index
    for metric in sorted(index.selection.metrics):
        before = {
            old
            for record in evidence.contents.records
            for field, old in _renames(record)
            if field == f"metrics.{metric}"
        }
        hidden = [name for name, role in roles(index.facts, before).items() if role == "hold-out"]
        if hidden:
            yield finding(
                "selection-uses-hold-out",
                metric,
                f"was {min(hidden)!r} in the tracker, which is a metric of the hold-out",
            )
    yield from _attached(evidence, {*deciding_metrics(index)})


def _renamed_apart(evidence: Evidence) -> Iterator[Finding]:
    """One thing under several names: runs that are alike would not look alike, and one may not be compared at all."""
    records = evidence.contents.records
    names: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for field, old in _renames(record):
            group, _, new = field.partition(".")
            names[group, old][new].append(record.id)
    deciding = {*deciding_metrics(evidence.contents.index)}
    for (group, old), changed in sorted(names.items()):
        # A metric that decides nothing may be called anything.
        if group == "metrics" and not deciding & {old, *changed}:
            continue
        renamed = {run for runs in changed.values() for run in runs}
        kept = [
            each.id for each in records if each.id not in renamed and old in _names(each, group)
        ]
        if kept:
            changed[old] = kept
        if len(changed) > 1:
            listed = "; ".join(
                f"{new!r} in {len(runs)} ({runs[0]} …)" for new, runs in sorted(changed.items())
            )
            yield finding(
                "renamed-apart",
                f"{group}.{old}",
                f"has several names: {listed[:200]}, so runs that are alike are not compared",
                "warning",
                "Ask for one name in all sources.",
            )


def _attached(evidence: Evidence, metrics: set[str]) -> Iterator[Finding]:
    """A metric that decides must come from the tracker in all runs, or from artefacts in all."""
    finished = [record for record in evidence.contents.records if record.status == "finished"]
    for metric in sorted(metrics):
        having = [record for record in finished if record.metric(metric) is not None]
        attached = [record.id for record in having if _is_attached(record, metric)]
        if attached and len(attached) < len(having):
            yield finding(
                "metric-attached-apart",
                metric,
                f"was read from an artefact in {len(attached)} of {len(having)} runs ({attached[0]} …), in the others"
                " from the tracker",
                "warning",
                "Ask why the tracker does not have it in all runs.",
            )


def _is_attached(record: RunRecord, metric: str) -> bool:
    return any(
        flag.field == f"metrics.{metric}" and flag.flag == "read_from_artefact"
        for flag in record.fidelity
    )


def _renames(record: RunRecord) -> Iterator[tuple[str, str]]:
    """New field and old name of every parameter, tag and metric that was renamed in ``record``."""
    for flag in record.fidelity:
        named = flag.field.partition(".")[0] in GROUPS and flag.detail.startswith("was ")
        if flag.flag == "renamed" and named:
            yield flag.field, flag.detail.removeprefix("was ")


def _names(record: RunRecord, group: str) -> set[str]:
    if group == "metrics":
        return {metric.name for metric in record.metrics}
    return set(record.parameters if group == "parameters" else record.tags)
