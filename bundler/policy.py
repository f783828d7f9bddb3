"""The verifier's policy file: what margins, error rates, isolation and environments a verifier accepts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

from bundler import codec
from bundler.equivalence import MIN_DECLARED, Rule
from bundler.errors import MalformedError, UsageError
from bundler.records import Scalar
from bundler.spec import Tolerance
from bundler.strict_yaml import parse_yaml

MAX_BYTES: Final = 1 << 20
MOST_RUNS: Final = 1000
REMEDY: Final = "docs/policy.md describes every key."

IsolationKind = Literal["bubblewrap", "sandlock", "none"]
EnvironmentMode = Literal["current", "locked", "image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a verifier decides before any bundle is seen.

    ``margins`` caps the declared margin of metrics, by name or pattern (``*`` and ``?``); ``default_margin`` those of
    all others. Error rates are for all ``looks`` (numbers of re-runs) together. ``minimum_runs`` are declared ones;
    ``confidence`` is the lowest of a gate.
    """

    version: Literal[1]
    margins: Mapping[str, float] = field(default_factory=dict)
    default_margin: float = 0.05
    false_consistent: float = 0.05
    false_inconsistent: float = 0.02
    looks: tuple[int, ...] = (3, 5, 8)
    minimum_runs: int = MIN_DECLARED
    confidence: float = 0.95
    isolation: tuple[IsolationKind, ...] = ("bubblewrap", "sandlock", "none")
    environments: tuple[EnvironmentMode, ...] = ("current", "locked", "image")


DEFAULT: Final = Policy(version=1)


def load(path: Path) -> Policy:
    """Read a policy file. Raises :class:`UsageError` that names the line or the key."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", remedy=REMEDY) from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} is larger than {MAX_BYTES >> 20} MiB", remedy=REMEDY)
    try:
        policy = codec.from_json(Policy, parse_yaml(data))
    except MalformedError as error:
        raise UsageError(f"{path}: {error.message}", remedy=REMEDY) from None
    problem = next(_problems(policy), None)
    if problem is not None:
        raise UsageError(f"{path}: {problem}", remedy=REMEDY)
    return policy


def cap(metric: str, policy: Policy) -> float:
    """The largest margin that the policy grants ``metric``: by its exact name, or the longest pattern that matches.

    Of several as long, the smallest cap.
    """
    if metric in policy.margins:
        return policy.margins[metric]
    matching = [
        (-len(pattern), limit)
        for pattern, limit in policy.margins.items()
        if fnmatchcase(metric, pattern)
    ]
    return min(matching)[1] if matching else policy.default_margin


def effective_margin(tolerance: Tolerance, policy: Policy) -> float:
    """The margin that counts: the declared one, or the policy's cap if that is lower."""
    return min(tolerance.margin, cap(tolerance.metric, policy))


def rule(policy: Policy, looks: int | None = None, *, blind: bool = False) -> Rule:
    """The rule of the verdict for ``looks`` looks (default: the policy's).

    Blind there is one look, at however many re-runs; otherwise more re-runs are also judged at the policy's looks.
    """
    return Rule(
        false_consistent=policy.false_consistent,
        false_inconsistent=policy.false_inconsistent,
        looks=1 if blind else looks or len(policy.looks),
        minimum_runs=policy.minimum_runs,
        schedule=() if blind else policy.looks,
    )


def facts(policy: Policy) -> Mapping[str, Scalar | tuple[str, ...]]:
    """The policy as the report shows it."""
    return {
        "version": policy.version,
        "margins": tuple(f"{name}: {limit:g}" for name, limit in sorted(policy.margins.items())),
        "default_margin": policy.default_margin,
        "false_consistent": policy.false_consistent,
        "false_inconsistent": policy.false_inconsistent,
        "looks": tuple(map(str, policy.looks)),
        "minimum_runs": policy.minimum_runs,
        "confidence": policy.confidence,
        "isolation": policy.isolation,
        "environments": policy.environments,
    }


def _problems(policy: Policy) -> Iterator[str]:
    """What the types allow and would be no policy: in words, with the key."""
    caps = {f"margins.{name}": limit for name, limit in policy.margins.items()}
    for place, limit in {**caps, "default_margin": policy.default_margin}.items():
        if limit < 0:
            yield f"{place}: {limit:g} is negative"
    for name in ("false_consistent", "false_inconsistent"):
        rate = getattr(policy, name)
        if not 0 < rate <= 0.2:
            yield f"{name}: {rate:g} is not between 0 and 0.2"
    yield from _look_problems(policy.looks)
    if not MIN_DECLARED <= policy.minimum_runs <= MOST_RUNS:
        yield (
            f"minimum_runs: {policy.minimum_runs} is not between {MIN_DECLARED} and {MOST_RUNS}; "
            "the best of many seeds, reported as one, cannot be told from fewer"
        )
    if not 0.5 < policy.confidence < 1:
        yield f"confidence: {policy.confidence:g} is not between 0.5 and 1"
    for name in ("isolation", "environments"):
        if not getattr(policy, name):
            yield f"{name}: nothing is allowed, so nothing could be re-run"


def _look_problems(looks: tuple[int, ...]) -> Iterator[str]:
    if not looks or looks[0] < 2 or any(before >= after for before, after in pairwise(looks)):
        yield "looks: expected increasing numbers of re-runs, from 2 on"
    elif looks[-1] > MOST_RUNS:
        yield f"looks: more than {MOST_RUNS} re-runs"
