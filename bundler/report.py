"""What a verifier says: findings, the claims they bear on, and the report that holds them all.

A claim is *not met* if any of its findings is an error (the evidence contradicts it), *inconclusive* if any
is a warning (the evidence cannot settle it), and *met* otherwise. Notes inform and change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from bundler.records import MetricRole, Number, Scalar
from bundler.spec import GateResult

REPORT_FORMAT: Final = "urn:aisdp-bundler:report:1"

Severity = Literal["error", "warning", "note"]
ClaimName = Literal[
    "integrity", "authenticity", "completeness", "selection", "gates", "reproduction"
]
ClaimStatus = Literal["met", "not met", "inconclusive", "not run"]

CLAIMS: tuple[ClaimName, ...] = (
    "integrity",
    "authenticity",
    "completeness",
    "selection",
    "gates",
    "reproduction",
)
"""The ladder, in the order in which it is climbed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a check saw. ``code`` is never renamed; ``subject`` is what it is about."""

    code: str
    severity: Severity
    subject: str
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """A check of the closed list: whether it ran, and what it found. ``detail`` says why it did not run."""

    check: str
    claim: ClaimName
    title: str
    outcome: Literal["passed", "failed", "inconclusive", "skipped"]
    detail: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A rung of the ladder and where the evidence leaves it."""

    name: ClaimName
    status: ClaimStatus
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricComparison:
    """A metric as declared and as re-run; ``points_differing`` counts the points of the history that differ."""

    metric: str
    role: MetricRole
    declared: Number | None
    rerun: Number | None
    points_declared: int
    points_rerun: int
    points_differing: int
    first_differing_step: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorComparison:
    """A tensor as declared and as re-run. ``equal_fraction`` is that of its elements, where shapes agree.

    The distance in units in the last place is for floats of one type: median and 99th percentile over all elements.
    ``relative_l2`` is ‖re-run - declared‖ / ‖declared‖. What cannot be computed, or is not finite, is ``None``.
    """

    tensor: str
    dtype: str
    shape: tuple[int, ...]
    equal: bool
    equal_fraction: float | None
    max_absolute_difference: float | None
    ulp_median: int | None = None
    ulp_p99: int | None = None
    relative_l2: float | None = None
    cosine: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionComparison:
    """Per-example predictions as declared and as re-run, example by example.

    ``agreement`` is the share of examples with the same decision, or, where labels are numbers (``numeric``), with the
    same score but for rounding; the difference of logits is for probabilities. ``relative_difference`` is the largest
    one over the largest score, or 1.
    """

    artefact: str
    examples: int
    agreement: float
    max_absolute_difference: float | None
    max_logit_difference: float | None
    relative_difference: float | None = None
    numeric: bool = False

    @property
    def alike(self) -> str:
        """What ``agreement`` is the share of, as the end of a sentence about examples."""
        return "the same score but for rounding" if self.numeric else "the same decision"


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """A fact of the environment that decides about bits and differs between training and re-run."""

    name: str
    declared: Scalar
    rerun: Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """One re-execution of the training: under which conditions, how it ended, how it compares.

    ``conditions`` are reproducibility conditions (another lab) in the sense of ISO 5725-1 unless said otherwise.
    ``isolation`` is what really confined the code, as the sandbox reported it; ``runtime`` the software that it ran
    with: mode ``current``, ``locked`` or ``image``, device, and what identifies them.
    """

    run: str
    seed: int
    verdict: Literal["bitwise", "not bitwise", "failed"]
    exit_code: int | None
    seconds: float
    conditions: str
    isolation: Mapping[str, Scalar | tuple[str, ...]]
    environment: Mapping[str, Scalar]
    runtime: Mapping[str, Scalar] = field(default_factory=dict)
    metrics: tuple[MetricComparison, ...] = ()
    tensors: tuple[TensorComparison, ...] = ()
    predictions: tuple[PredictionComparison, ...] = ()
    knobs: tuple[Knob, ...] = ()


Verdict = Literal["BITWISE", "CONSISTENT", "INCONSISTENT", "INCONCLUSIVE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricVerdict:
    """One metric of the provider's and of the verifier's independent runs, compared (docs/verdict.md).

    ``difference`` is declared minus re-run. ``bound`` is the confidence bound of its size, held against ``margin``, the
    declared one or the lower one that the verifier's policy allows; ``p_value`` is that of no difference. ``needed`` is
    the number of re-runs with a chance of 90 % to settle it, ``None`` where it is settled or more than 40.
    """

    metric: str
    declared: tuple[float, ...]
    rerun: tuple[float, ...]
    declared_margin: float | None
    margin: float | None
    difference: float | None
    standard_error: float | None
    degrees: int | None
    bound: float | None
    p_value: float | None
    verdict: Verdict
    needed: int | None
    explanation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One training with a seed that the verifier chose. ``attempts`` counts starts; ``where`` is the worker.

    ``ended`` is ``trained``, ``failed`` (of itself: exit code, unreadable output) or ``infrastructure`` (limits, a lost
    worker). ``resumed``: the result was there from an interrupted verification.
    """

    seed: int
    ended: Literal["trained", "failed", "infrastructure"]
    exit_code: int | None
    seconds: float
    attempts: int
    where: str
    resumed: bool
    detail: str
    metrics: Mapping[str, Number]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedMetric:
    """What is known before anything runs: the declared runs, the spread to plan with, and the re-runs needed.

    ``deviation`` is the 95 % upper bound of the standard deviation between seeds.
    """

    metric: str
    runs: int
    deviation: float | None
    declared_margin: float | None
    margin: float | None
    needed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be executed. Times are seconds of all runs together, after the recorded durations; ``None``: unknown.

    ``least_seconds`` is for a verdict at the first look, ``most_seconds`` for one at the last.
    """

    command: tuple[str, ...]
    declared_seed: int
    own_seeds: tuple[int, ...]
    looks: tuple[int, ...]
    environment: str
    device: str
    engine: str
    parallel: int
    isolation: str
    run_seconds: float | None
    least_seconds: float | None
    most_seconds: float | None
    metrics: tuple[PlannedMetric, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """The first steps of the declared run, repeated: can this machine give its bits at all?

    ``points`` of the histories were compared. ``not run`` where a whole run is as quick, or the records have no times.
    """

    verdict: Literal["passed", "failed", "not run"]
    seconds: float
    points: int
    explanation: str
    knobs: tuple[Knob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """In blind mode: the SHA-256 of the verifier's own results, made before the declared values were opened.

    ``opened`` are the files of the payload that had been read by then, besides for their digests.
    """

    sha256: str
    committed_at: str
    opened: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The statistical verdict over the verifier's own seeds, and everything that it rests on."""

    verdict: Verdict
    explanation: str
    plan: Plan
    policy: Mapping[str, Scalar | tuple[str, ...]]
    canary: Canary
    trials: tuple[Trial, ...] = ()
    metrics: tuple[MetricVerdict, ...] = ()
    commitment: Commitment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredMetric:
    """A metric as declared, and as the shipped model gives it on the shipped hold-out."""

    metric: str
    declared: Number | None
    found: Number | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredModel:
    """The shipped model, loaded and scored in the sandbox without any training."""

    run: str
    exit_code: int | None
    seconds: float
    isolation: Mapping[str, Scalar | tuple[str, ...]]
    metrics: tuple[ScoredMetric, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Which bundle was verified. ``tag_manifest_sha256`` identifies it; names are the provider's words.

    ``envelope_sha256`` is the digest of the release envelope that was verified.
    """

    name: str
    tag_manifest_sha256: str | None
    system: str | None = None
    version: str | None = None
    records: int | None = None
    signed_by: str | None = None
    envelope_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that one verification saw, did and left out. ``plan`` is there where nothing else was asked for."""

    format: Literal["urn:aisdp-bundler:report:1"]
    software: str
    started_at: str
    ended_at: str
    subject: Subject
    trusted_keys: tuple[str, ...]
    claims: tuple[Claim, ...]
    checks: tuple[CheckResult, ...]
    gates: tuple[GateResult, ...]
    reruns: tuple[Rerun, ...]
    judgement: Judgement | None
    evaluation: ScoredModel | None
    plan: Plan | None
    exit_code: int

    def findings(self) -> tuple[Finding, ...]:
        """All findings, in the order of the checks."""
        return tuple(finding for check in self.checks for finding in check.findings)

    def claim(self, name: ClaimName) -> Claim:
        """The claim called ``name``."""
        return next(claim for claim in self.claims if claim.name == name)


def outcome_of(
    findings: Iterable[Finding],
) -> Literal["passed", "failed", "inconclusive"]:
    """How a check ended that ran and gave ``findings``."""
    words: dict[ClaimStatus, Literal["passed", "failed", "inconclusive"]] = {
        "met": "passed",
        "not met": "failed",
        "inconclusive": "inconclusive",
    }
    return words[status_of(findings)]


def status_of(findings: Iterable[Finding]) -> ClaimStatus:
    """The status of a claim that was examined and gave ``findings``."""
    severities = {finding.severity for finding in findings}
    if "error" in severities:
        return "not met"
    return "inconclusive" if "warning" in severities else "met"
