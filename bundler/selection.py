"""Why this run: the competition recomputed from the records, for every run of the log.

The provider declares a rule (:class:`bundler.spec.SelectionSpec`); who competes and who wins follows from the rule and
the records alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bundler.records import RunRecord, Scalar
from bundler.spec import Condition, FactMap, SelectionSpec

Standing = Literal[
    "candidate",
    "repetition",
    "not finished",
    "excluded",
    "outside the rule",
    "constraint failed",
    "no value",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A run in the competition: its standing, its value of the selection metric, and words for the standing."""

    run: str
    standing: Standing
    value: float | None
    explanation: str = ""


def configuration(record: RunRecord, facts: FactMap) -> tuple[tuple[str, Scalar], ...]:
    """What makes two runs repetitions of each other: all parameters but the seed."""
    group, _, seed = facts.seed.partition(".")
    left_out = seed if group == "parameters" else None
    return tuple(sorted((k, v) for k, v in record.parameters.items() if k != left_out))


def repetitions(run: str, records: Sequence[RunRecord], facts: FactMap) -> tuple[RunRecord, ...]:
    """The finished runs with configuration and data of ``run``, one a seed, itself included, in order of the log.

    A second run with the same seed is no independent repetition: the one that started first counts, ``run`` before
    all others. A run without a seed, or on other data, is none at all.
    """
    alike = same_configuration(run, records, facts)
    by_seed: dict[int | None, RunRecord] = {each.seed: each for each in alike if each.id == run}
    for record in sorted(alike, key=lambda each: (each.started_at or "", each.id)):
        if record.status == "finished" and record.seed is not None:
            by_seed.setdefault(record.seed, record)
    kept = {record.id for record in by_seed.values()}
    return tuple(record for record in records if record.id in kept)


def same_configuration(
    run: str, records: Sequence[RunRecord], facts: FactMap
) -> tuple[RunRecord, ...]:
    """All runs with configuration and data of ``run``, whatever became of them, itself included."""
    chosen = next((record for record in records if record.id == run), None)
    if chosen is None:
        return ()
    wanted = (configuration(chosen, facts), _data(chosen))
    return tuple(each for each in records if (configuration(each, facts), _data(each)) == wanted)


def _data(record: RunRecord) -> frozenset[tuple[str | None, str | None]]:
    return frozenset((each.role, each.sha256) for each in record.data)


def compete(
    records: Sequence[RunRecord], spec: SelectionSpec, facts: FactMap
) -> tuple[Candidate, ...]:
    """Return the standing of every run, candidates first and best first, then the others in order of the log."""
    repeated = {record.id for record in repetitions(spec.run, records, facts)} - {spec.run}
    reasons = {exclusion.run: exclusion.reason for exclusion in spec.exclusions}
    standings = [_stand(record, spec, reasons, repeated) for record in records]
    candidates = [each for each in standings if each.standing == "candidate"]
    sign = -1.0 if spec.direction == "maximise" else 1.0
    candidates.sort(key=lambda each: (sign * (each.value or 0.0), each.run != spec.run))
    return (*candidates, *(each for each in standings if each.standing != "candidate"))


def better(value: float, than: float, spec: SelectionSpec) -> bool:
    """Whether ``value`` beats ``than`` under the declared direction."""
    return value > than if spec.direction == "maximise" else value < than


def _stand(
    record: RunRecord, spec: SelectionSpec, reasons: dict[str, str], repeated: set[str]
) -> Candidate:
    value = record.value(spec.metric)

    def standing(word: Standing, explanation: str = "") -> Candidate:
        return Candidate(run=record.id, standing=word, value=value, explanation=explanation)

    if record.status != "finished":
        return standing("not finished", f"status {record.status}")
    if record.id in reasons:
        return standing("excluded", reasons[record.id])
    outside = [
        f"{fact} is {record.fact(fact)!r}"
        for fact, allowed in sorted(spec.eligible.items())
        if record.fact(fact) not in allowed
    ]
    if outside:
        same = record.id in repeated
        return standing("repetition" if same else "outside the rule", "; ".join(outside))
    needed = (spec.metric, *(condition.metric for condition in spec.constraints))
    missing = [metric for metric in needed if record.value(metric) is None]
    if missing:
        return standing("no value", f"no finite value of {', '.join(missing)}")
    failed = [_broken(condition, record) for condition in spec.constraints]
    if any(failed):
        return standing("constraint failed", "; ".join(filter(None, failed)))
    return standing("candidate")


def _broken(condition: Condition, record: RunRecord) -> str:
    """In words how ``record`` fails ``condition``; empty if it does not."""
    held = record.value(condition.metric)
    if held is None or condition.holds(held):
        return ""
    return (
        f"{condition.metric} is {held:.6g}, wanted {condition.comparator} {condition.threshold:g}"
    )
