"""What a re-run will do, shown before anything runs: with which seeds, for how long, and what it can settle."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count, pairwise
from typing import Final

from bundler.equivalence import Rule, finite_values, reruns_needed
from bundler.policy import Policy, effective_margin
from bundler.policy import rule as rule_of
from bundler.report import Plan, PlannedMetric
from bundler.spec import Tolerance
from bundler.spread import deviation_bound

CENTURY: Final = 100 * 365.25 * 24 * 3600
"""In seconds. Nobody re-runs what is said to have taken longer, so the record is wrong."""


def planned_metrics(
    declared: Mapping[str, Sequence[float | None]],
    tolerances: Iterable[Tolerance],
    policy: Policy,
    looks: int | None = None,
    *,
    blind: bool = False,
) -> tuple[PlannedMetric, ...]:
    """What is known of each metric that has declared values or a tolerance, by name.

    ``declared`` are the final values of the provider's independent runs; ``None`` or not finite: a run without. The
    re-runs needed are for the last look of a verification with so many, as ``rule`` of the policy has them for
    ``looks`` and ``blind``.
    """
    rule = rule_of(policy, looks, blind=blind)
    known = {each.metric: each for each in tolerances}
    return tuple(
        _planned(name, declared.get(name, ()), known.get(name), policy, rule)
        for name in sorted(declared.keys() | known.keys())
    )


def _planned(
    metric: str,
    values: Sequence[float | None],
    tolerance: Tolerance | None,
    policy: Policy,
    rule: Rule,
) -> PlannedMetric:
    finite = finite_values(values)
    deviation = _deviation(finite)
    margin = None if tolerance is None else effective_margin(tolerance, policy)
    needed = None
    hopeful = len(finite) == len(values) >= policy.minimum_runs
    if hopeful and tolerance is not None and margin is not None and deviation is not None:
        ratio = margin / deviation if deviation else math.inf
        one_sided = tolerance.overstatement is not None
        needed = reruns_needed(len(finite), ratio, rule, one_sided=one_sided)
    return PlannedMetric(
        metric=metric,
        runs=len(finite),
        deviation=deviation,
        declared_margin=None if tolerance is None else tolerance.margin,
        margin=margin,
        needed=needed,
    )


def _deviation(finite: Sequence[float]) -> float | None:
    if len(finite) < 2:
        return None
    try:
        return deviation_bound(finite)
    except OverflowError:
        return None


def make_plan(  # noqa: PLR0913  # a plan is a list of facts
    *,
    command: Sequence[str],
    declared_seed: int,
    own_seeds: Sequence[int],
    looks: Sequence[int],
    environment: str,
    device: str,
    engine: str,
    parallel: int,
    isolation: str,
    run_seconds: float | None,
    metrics: Sequence[PlannedMetric],
) -> Plan:
    """The plan, with its times.

    The declared seed and the first look's own seeds are trained together, ``parallel`` at once; each further look's
    when the look before was judged. ``run_seconds`` is what the provider recorded for one run; what can be no duration
    counts as unknown.
    """
    known = run_seconds is not None and 0 <= run_seconds <= CENTURY  # NaN is not
    seconds = run_seconds if known else None
    runs = [1 + looks[0], *(after - before for before, after in pairwise(looks))] if looks else [1]
    batches = [math.ceil(each / max(parallel, 1)) for each in runs]
    return Plan(
        command=tuple(command),
        declared_seed=declared_seed,
        own_seeds=tuple(own_seeds),
        looks=tuple(looks),
        environment=environment,
        device=device,
        engine=engine,
        parallel=parallel,
        isolation=isolation,
        run_seconds=seconds,
        least_seconds=None if seconds is None else seconds * batches[0],
        most_seconds=None if seconds is None else seconds * sum(batches),
        metrics=tuple(metrics),
    )


def choose_seeds(number: int, avoid: Collection[int], random_bytes: bytes) -> tuple[int, ...]:
    """``number`` distinct seeds from 0 to 2³¹ - 1, none of ``avoid``: the same for the same ``random_bytes``.

    They are read from SHA-256 of the bytes and a counter. A provider who cannot know the bytes cannot prepare for the
    seeds; 2³¹ - 1 is the largest that every framework takes.
    """
    chosen: dict[int, None] = {}
    taken = frozenset(avoid)
    for block in count():
        if len(chosen) >= number:
            break
        digest = hashlib.sha256(random_bytes + block.to_bytes(8, "big")).digest()
        seed = int.from_bytes(digest[:4], "big") >> 1
        if seed not in taken:
            chosen[seed] = None
    return tuple(chosen)
