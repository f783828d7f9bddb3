"""The verifier's verdict as a SLSA Verification Summary Attestation v1, to be signed and kept beside the bundle.

It says what was verified, by whom, when, and which claims were met. The report that explains it is named by its digest.
"""

from __future__ import annotations

import hashlib

from bundler import canonical
from bundler.attestation import in_toto_statement
from bundler.errors import UsageError
from bundler.manifest import RELEASE_ENVELOPE, TAG_MANIFEST
from bundler.report import Report

VSA_TYPE = "https://slsa.dev/verification_summary/v1"
POLICY = "urn:aisdp-bundler:policy:ladder:1"
POLICY_RERUN = "urn:aisdp-bundler:policy:ladder-with-rerun:1"
"""The policy that was applied: everything but the re-run, or the re-run as well."""


def payload(report: Report, report_bytes: bytes, keyid: str) -> bytes:
    """Return the in-toto statement over the bundle of ``report``, in canonical JSON.

    ``verificationResult`` is PASSED only for exit code 0; an inconclusive verification is FAILED, because SLSA knows no
    third word; ``verifiedLevels`` lists the claims that were met. ``keyid`` is that of the verifier's key, by which the
    verifier is identified. The member ``aisdp`` is ours: report, trusted keys, and what confined a re-run.

    Raises :class:`UsageError` for a report about a bundle that could not be identified: there is nothing to attest.
    """
    digest = report.subject.tag_manifest_sha256
    if digest is None:
        raise UsageError("a verdict needs a bundle whose files could be identified")
    predicate = {
        "verifier": {
            "id": f"urn:aisdp-bundler:verifier:sha256:{keyid}",
            "version": {"aisdp-bundler": report.software.split()[-1]},
        },
        "timeVerified": report.ended_at,
        "resourceUri": f"urn:aisdp-bundler:bundle:sha256:{digest}",
        "policy": {"uri": POLICY_RERUN if report.reruns else POLICY},
        "inputAttestations": [
            {"uri": RELEASE_ENVELOPE, "digest": {"sha256": report.subject.envelope_sha256}}
        ]
        if report.subject.envelope_sha256
        else [],
        "verificationResult": "PASSED" if report.exit_code == 0 else "FAILED",
        "verifiedLevels": [
            f"AISDP_{claim.name.upper()}" for claim in report.claims if claim.status == "met"
        ],
        "slsaVersion": "1.0",
        "aisdp": {
            "report": {"sha256": hashlib.sha256(report_bytes).hexdigest()},
            "trustedKeys": list(report.trusted_keys),
            "isolation": [str(rerun.isolation["kind"]) for rerun in report.reruns],
        },
    }
    return canonical.serialise(in_toto_statement(TAG_MANIFEST, digest, VSA_TYPE, predicate))
