"""Why this run: the competition recomputed from the records, for every run of the log.

The provider declares a rule (:class:`bundler.spec.SelectionSpec`); who competes and who wins follows from the rule and
the records alone. So does which runs are repetitions of each other: same code, data and parameters, another seed.
"""

from __future__ import annotations

import re
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
    """The finished runs with configuration, data and code of ``run``, one a seed, itself included, in order of the log.

    A second run with the same seed is no independent repetition: the one that started first counts, ``run`` before
    all others. A run without a seed, on other data or of other code is none at all.
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
    """All runs with configuration, data and code of ``run``, whatever became of them, itself included."""
    chosen = next((record for record in records if record.id == run), None)
    if chosen is None:
        return ()
    alike = same_but_for_code(chosen, records, facts)
    return tuple(each for each in alike if not other_code(chosen, each))


def same_but_for_code(
    chosen: RunRecord, records: Sequence[RunRecord], facts: FactMap
) -> tuple[RunRecord, ...]:
    """All runs with configuration and data of ``chosen``, those of other code as well."""
    wanted = (configuration(chosen, facts), _data(chosen))
    return tuple(each for each in records if (configuration(each, facts), _data(each)) == wanted)


def other_code(chosen: RunRecord, other: RunRecord) -> str:
    """In words how the records say that ``other`` ran other code than ``chosen``; empty if they do not say so.

    A commit that changed no file is the same code, which only the git trees show. A clean and a dirty run differ; two
    dirty ones may be alike. What a record leaves open is no difference: it is a gap of that run.
    """
    (commit, tree), (its_commit, its_tree) = code_version(chosen), code_version(other)
    if tree != its_tree if tree and its_tree else not _same_commit(commit, its_commit):
        return f"of commit {its_commit[:12]!a} instead of {commit[:12]!a}"
    if {chosen.code.dirty, other.code.dirty} == {True, False}:
        return f"{'with' if other.code.dirty else 'without'} uncommitted changes"
    return ""


def code_version(record: RunRecord) -> tuple[str, str]:
    """Commit and tree of the code of a run, each empty where it is not known.

    DVC commits each run with its own parameters and results; the code is that of the commit from which it started.
    """
    if record.source.tracker == "dvc":
        return record.tags.get("dvc.baseline", ""), ""
    return (record.code.commit or "").lower(), record.code.tree or ""


def _same_commit(one: str, other: str) -> bool:
    """Whether two records may name one commit: one of them can be unknown, or be cut to seven digits or more."""
    short, long = sorted((one, other), key=len)
    cut = re.fullmatch(r"[0-9a-f]{7,}", short) is not None
    return not short or short == long or (cut and long.startswith(short))


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
