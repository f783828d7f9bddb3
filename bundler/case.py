"""What was declared, as far as re-runs are held against it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from bundler.checks import Evidence
from bundler.gates import (
    better_sides,
    deciding_metrics,
    overstatement_of,
    seeds_without_result,
)
from bundler.history import read_points
from bundler.planning import planned_metrics
from bundler.policy import Policy
from bundler.records import MetricPoint, RunRecord
from bundler.report import PlannedMetric
from bundler.selection import repetitions
from bundler.spec import Tolerance, TrainingSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What was declared, as far as re-runs are held against it.

    ``points`` is the history of the selected run. ``values`` has for each judged metric the final values of the
    independent runs of the selected configuration, from the raw histories; NaN where a run has none, or for a seed that
    none of them finished.
    """

    evidence: Evidence
    spec: TrainingSpec
    declared: RunRecord
    points: tuple[MetricPoint, ...]
    values: Mapping[str, tuple[float, ...]]
    policy: Policy

    @property
    def tolerances(self) -> tuple[Tolerance, ...]:
        """What was declared to be the same result; one-sided only as far as gates and selection bear it out."""
        index = self.evidence.contents.index
        return tuple(
            replace(each, overstatement=overstatement_of(each, index))
            for each in index.reproducibility.tolerances
        )

    @property
    def seeds(self) -> set[int]:
        """All seeds that the provider has used."""
        return {run.seed for run in self.evidence.contents.records if run.seed is not None}

    @property
    def shipped_model(self) -> str | None:
        """The path of the selected run's model, as the provider names it."""
        return self.evidence.contents.index.facts.model

    @property
    def decisive(self) -> tuple[str, ...]:
        """The metrics that the selection and the gates rest on."""
        return deciding_metrics(self.evidence.contents.index)

    def better(self, metric: str) -> str | None:
        """Which values of ``metric`` are better, where gates and selection agree on it."""
        sides = better_sides(metric, self.evidence.contents.index)
        return next(iter(sides)) if len(sides) == 1 else None

    def planned(self, *, blind: bool) -> tuple[PlannedMetric, ...]:
        """What is known of each judged metric before anything runs."""
        return planned_metrics(self.values, self.tolerances, self.policy, blind=blind)


def case_of(evidence: Evidence, spec: TrainingSpec, declared: RunRecord, policy: Policy) -> Case:
    """Open what was declared. Judged are the metrics of tolerances and gates."""
    index = evidence.contents.index
    records = evidence.contents.records
    finals = [_finals(evidence, run) for run in repetitions(declared.id, records, index.facts)]
    finals += [{} for _ in seeds_without_result(declared.id, records, index.facts)]
    judged = dict.fromkeys(
        [
            *(each.metric for each in index.reproducibility.tolerances),
            *(gate.metric for gate in index.gates),
        ]
    )

    def of_all(metric: str) -> tuple[float, ...]:
        return tuple(each.get(metric, math.nan) for each in finals)

    return Case(
        evidence=evidence,
        spec=spec,
        declared=declared,
        points=tuple(_points(evidence, declared)),
        values={metric: of_all(metric) for metric in judged},
        policy=policy,
    )


def _points(evidence: Evidence, run: RunRecord) -> Iterator[MetricPoint]:
    if run.history is not None:
        path = run.history.path
        yield from read_points(evidence.files.read(path), name=path)


def _finals(evidence: Evidence, run: RunRecord) -> dict[str, float]:
    return {point.metric: point.value for point in _points(evidence, run)}
