"""The canary: the declared run's first steps, repeated, say in seconds whether this machine can give its bits at all.

Where numerics differ, training differs from the first step on, so a few points of the history settle what the whole run
would. A canary that fails is no evidence against the provider: it names what differs, and the statistical rule decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from bundler.records import MetricPoint, RunRecord, moment
from bundler.report import Canary, Knob
from bundler.reproduction import bits, by_metric
from bundler.trials import Trial, TrialResult, trained

WORTH_IT = 60.0
"""Seconds of a whole run below which it is its own canary."""

SHARE = 0.25
"""Largest share of a whole run that a canary may take."""

LONGEST = 900.0
"""Seconds that a canary may take at most: the times are the provider's words."""

STARTING = 10.0
"""Seconds that starting another Python, and reading the data there, may take longer than it did."""


def window(declared: RunRecord, points: Iterable[MetricPoint]) -> float | None:
    """Seconds after which the first logged points can be expected; ``None`` where a canary is not worth it.

    Three times what the declared run needed for them, for a slower machine.
    """
    started, whole = moment(declared.started_at), declared.seconds
    first = min((point.timestamp for point in points), default=None)
    if started is None or whole is None or first is None or whole < WORTH_IT:
        return None
    needed = 3 * max(0.0, first / 1000 - started.timestamp()) + STARTING
    return needed if needed <= min(SHARE * whole, LONGEST) else None


def shortened(trial: Trial, seconds: float) -> Trial:
    """``trial``, stopped after ``seconds``, to be read up to there."""
    limits = replace(trial.limits, wall_seconds=min(seconds, trial.limits.wall_seconds))
    return replace(trial, compare=False, histories=True, limits=limits)


def not_run(reason: str) -> Canary:
    """A canary that had no reason to be run."""
    return Canary(verdict="not run", seconds=0.0, points=0, explanation=reason)


def examine(
    declared: Sequence[MetricPoint], result: TrialResult, knobs: tuple[Knob, ...]
) -> Canary:
    """Compare what the stopped training had logged with the beginning of the ``declared`` histories."""
    found = [point.plain() for point in result.points]
    if result.record is None or not found:
        why = result.problem or result.detail or "nothing was logged"
        return replace(not_run(f"no point could be compared: {why}"), seconds=result.seconds)
    left, right = by_metric(declared), by_metric(found)
    count, different = 0, []
    for metric, values in right.items():
        if not trained(result) and len(values) > 1:
            # The last line of a log may be cut where the training was stopped.
            values.pop()
        for place, (step, value) in enumerate(values):
            count += 1
            expected = left.get(metric, [])[place : place + 1]
            if [(step, bits(value))] != [(at, bits(was)) for at, was in expected]:
                different.append((step, metric, value, expected))
                break
    if not different:
        words = f"the first {count} logged values are the declared ones, bit for bit"
        return Canary(verdict="passed", seconds=result.seconds, points=count, explanation=words)
    step, metric, value, expected = min(different, key=lambda each: each[:2])
    was = f"declared was {expected[0][1]!r}" if expected else "the declared run has no such point"
    named = ", ".join(knob.name for knob in knobs[:6]) or "no recorded fact"
    words = f"{metric} at step {step} is {value!r}, {was}; what differs here: {named}"
    return Canary(
        verdict="failed", seconds=result.seconds, points=count, explanation=words, knobs=knobs
    )
