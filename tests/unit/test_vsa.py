"""The signed verdict: PASSED only if everything that was examined is met."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest

from bundler import canonical, vsa
from bundler.errors import UsageError
from bundler.report import CLAIMS, Claim, Report, Rerun, Subject

SUBJECT = Subject(name="bag", tag_manifest_sha256="a" * 64, envelope_sha256="e" * 64)


def report(exit_code: int = 0, **statuses: str) -> Report:
    return Report(
        format="urn:aisdp-bundler:report:1",
        software="aisdp-bundler 9.9.9",
        started_at="2026-01-01T00:00:00.000Z",
        ended_at="2026-01-01T00:00:01.000Z",
        subject=SUBJECT,
        trusted_keys=(),
        claims=tuple(
            Claim(name=name, status=statuses.get(name, "met"), summary="")  # type: ignore[arg-type]
            for name in CLAIMS
        ),
        checks=(),
        gates=(),
        reruns=(),
        judgement=None,
        evaluation=None,
        plan=None,
        exit_code=exit_code,
    )


def predicate(of: Report) -> dict:
    return json.loads(vsa.payload(of, b"report", "k" * 64))["predicate"]


def test_the_verdict_is_an_in_toto_statement_about_the_tag_manifest():
    statement = canonical.parse_canonical(vsa.payload(report(), b"report", "k" * 64))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/verification_summary/v1"
    assert statement["subject"] == [
        {"name": "tagmanifest-sha256.txt", "digest": {"sha256": "a" * 64}}
    ]


def test_the_predicate_has_what_slsa_asks_for():
    said = predicate(report())
    assert said["verifier"] == {
        "id": "urn:aisdp-bundler:verifier:sha256:" + "k" * 64,
        "version": {"aisdp-bundler": "9.9.9"},
    }
    assert said["timeVerified"] == "2026-01-01T00:00:01.000Z"
    assert said["resourceUri"] == "urn:aisdp-bundler:bundle:sha256:" + "a" * 64
    assert said["policy"] == {"uri": vsa.POLICY}
    assert said["slsaVersion"] == "1.0"
    assert said["inputAttestations"] == [
        {"uri": "signatures/release.dsse.json", "digest": {"sha256": "e" * 64}}
    ]
    assert said["aisdp"]["report"]["sha256"] == hashlib.sha256(b"report").hexdigest()
    assert said["aisdp"]["isolation"] == []


def test_a_re_run_is_another_policy_and_names_what_confined_it():
    ran = Rerun(
        run="r",
        seed=1,
        verdict="bitwise",
        exit_code=0,
        seconds=1.0,
        conditions="",
        isolation={"kind": "none"},
        environment={},
    )
    said = predicate(dataclasses.replace(report(), reruns=(ran,)))
    assert said["policy"] == {"uri": vsa.POLICY_RERUN}
    assert said["aisdp"]["isolation"] == ["none"]


def test_without_a_signature_there_is_no_input_attestation():
    unsigned = dataclasses.replace(SUBJECT, envelope_sha256=None)
    assert predicate(dataclasses.replace(report(6), subject=unsigned))["inputAttestations"] == []


@pytest.mark.parametrize(
    ("exit_code", "result"), [(0, "PASSED"), *((code, "FAILED") for code in (1, 3, 4, 5, 6, 70))]
)
def test_only_exit_code_0_has_passed(exit_code, result):
    assert predicate(report(exit_code))["verificationResult"] == result


def test_only_claims_that_are_met_are_levels():
    said = predicate(report(6, gates="not met", selection="inconclusive", reproduction="not run"))
    assert said["verifiedLevels"] == ["AISDP_INTEGRITY", "AISDP_AUTHENTICITY", "AISDP_COMPLETENESS"]


def test_there_is_no_verdict_about_a_bundle_without_identity():
    unknown = dataclasses.replace(report(3), subject=Subject(name="x", tag_manifest_sha256=None))
    with pytest.raises(UsageError, match="could be identified"):
        vsa.payload(unknown, b"", "k" * 64)
