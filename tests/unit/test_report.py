from __future__ import annotations

import pytest

from bundler.report import (
    CLAIMS,
    REPORT_FORMAT,
    CheckResult,
    Claim,
    Finding,
    Report,
    Subject,
    outcome_of,
    status_of,
)


def finding(severity):
    return Finding(code="c", severity=severity, subject="s", message="m")


@pytest.mark.parametrize(
    ("severities", "status", "outcome"),
    [
        ((), "met", "passed"),
        (("note", "note"), "met", "passed"),
        (("note", "warning"), "inconclusive", "inconclusive"),
        (("warning", "error", "note"), "not met", "failed"),
    ],
)
def test_the_worst_finding_decides(severities, status, outcome):
    findings = [finding(each) for each in severities]
    assert status_of(findings) == status
    assert outcome_of(iter(findings)) == outcome


def test_findings_and_claims_of_a_report():
    check = CheckResult(
        check="x", claim="gates", title="t", outcome="failed", findings=(finding("error"),)
    )
    report = Report(
        format=REPORT_FORMAT,
        software="s",
        started_at="a",
        ended_at="b",
        subject=Subject(name="n", tag_manifest_sha256=None),
        trusted_keys=(),
        claims=tuple(Claim(name=name, status="met", summary="") for name in CLAIMS),
        checks=(check, check),
        gates=(),
        reruns=(),
        judgement=None,
        evaluation=None,
        plan=None,
        exit_code=0,
    )
    assert [each.code for each in report.findings()] == ["c", "c"]
    assert report.claim("gates").name == "gates"
