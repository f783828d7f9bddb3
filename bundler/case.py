"""What was declared, as far as re-runs are held against it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from bundler.checks import Evidence
from bundler.equivalence import finite_values
from bundler.gates import better_sides, overstatement_of
from bundler.history import read_points
from bundler.planning import planned_metrics
from bundler.policy import Policy
from bundler.records import MetricPoint, RunRecord
from bundler.report import PlannedMetric
from bundler.selection import repetitions
from bundler.spec import Tolerance, TrainingSpec
from bundler.statistics import sample_variance


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What was declared, as far as re-runs are held against it.

    ``points`` is the history of the selected run. ``values`` has for each judged metric the final values of the
    independent runs of the selected configuration, from the raw histories; NaN where a run has none. ``others`` has
    those of the metrics that the selection rests on and nothing judges.
    """

    evidence: Evidence
    spec: TrainingSpec
    declared: RunRecord
    points: tuple[MetricPoint, ...]
    runs: tuple[RunRecord, ...]
    values: Mapping[str, tuple[float, ...]]
    others: Mapping[str, tuple[float, ...]]
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
    def decisive(self) -> set[str]:
        """The metrics that the selection and the gates rest on."""
        index = self.evidence.contents.index
        return {
            index.selection.metric,
            *(condition.metric for condition in index.selection.constraints),
            *(gate.metric for gate in index.gates),
        }

    def scatter(self, metric: str) -> float:
        """The standard deviation of ``metric`` between the declared runs; 0 where it is not known."""
        values = finite_values(self.others.get(metric, self.values.get(metric, ())))
        return math.sqrt(sample_variance(values)) if len(values) > 1 else 0.0

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
    runs = repetitions(declared.id, evidence.contents.records, index.facts)
    finals = [_finals(evidence, run) for run in runs]
    judged = dict.fromkeys(
        [
            *(each.metric for each in index.reproducibility.tolerances),
            *(gate.metric for gate in index.gates),
        ]
    )
    unjudged = {
        index.selection.metric,
        *(condition.metric for condition in index.selection.constraints),
    } - judged.keys()

    def of_all(metric: str) -> tuple[float, ...]:
        return tuple(each.get(metric, math.nan) for each in finals)

    return Case(
        evidence=evidence,
        spec=spec,
        declared=declared,
        points=tuple(_points(evidence, declared)),
        runs=runs,
        values={metric: of_all(metric) for metric in judged},
        others={metric: of_all(metric) for metric in sorted(unjudged)},
        policy=policy,
    )


def _points(evidence: Evidence, run: RunRecord) -> Iterator[MetricPoint]:
    if run.history is not None:
        path = run.history.path
        yield from read_points(evidence.files.read(path), name=path)


def _finals(evidence: Evidence, run: RunRecord) -> dict[str, float]:
    return {point.metric: point.value for point in _points(evidence, run)}
