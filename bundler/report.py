"""What a verifier says: findings, the claims they bear on, and the report that holds them all.

A claim is *not met* if any of its findings is an error (the evidence contradicts it), *inconclusive* if any
is a warning (the evidence cannot settle it), and *met* otherwise. Notes inform and change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
    """A tensor as declared and as re-run. ``equal_fraction`` is that of its elements, where shapes agree."""

    tensor: str
    dtype: str
    shape: tuple[int, ...]
    equal: bool
    equal_fraction: float | None
    max_absolute_difference: float | None


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
    ``isolation`` is what really confined the code, as the sandbox reported it.
    """

    run: str
    seed: int
    verdict: Literal["bitwise", "not bitwise", "failed"]
    exit_code: int | None
    seconds: float
    conditions: str
    isolation: Mapping[str, Scalar | tuple[str, ...]]
    environment: Mapping[str, Scalar]
    metrics: tuple[MetricComparison, ...] = ()
    tensors: tuple[TensorComparison, ...] = ()
    knobs: tuple[Knob, ...] = ()


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
    """Everything that one verification saw, did and left out."""

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
