"""The verifier's verdict as a SLSA Verification Summary Attestation v1, to be signed and kept beside the bundle.

It says what was verified, by whom, when, and which claims were met. The report that explains it is named by its digest.
"""

from __future__ import annotations

import hashlib

from bundler import canonical
from bundler.attestation import in_toto_statement
from bundler.errors import UsageError
from bundler.manifest import TAG_MANIFEST
from bundler.report import Report

VSA_TYPE = "https://slsa.dev/verification_summary/v1"
VERIFIER = "urn:aisdp-bundler:verifier:1"
POLICY = "urn:aisdp-bundler:policy:ladder:1"


def payload(report: Report, report_bytes: bytes) -> bytes:
    """Return the in-toto statement over the bundle of ``report``, in canonical JSON.

    ``verificationResult`` is PASSED only for exit code 0; an inconclusive verification is FAILED, because SLSA knows no
    third word; ``verifiedLevels`` lists the claims that were met. Raises :class:`UsageError` for a report about a
    bundle that could not be identified: there is nothing to attest then.
    """
    digest = report.subject.tag_manifest_sha256
    if digest is None:
        raise UsageError("a verdict needs a bundle whose files could be identified")
    predicate = {
        "verifier": {"id": VERIFIER, "version": {"aisdp-bundler": report.software.split()[-1]}},
        "timeVerified": report.ended_at,
        "resourceUri": f"urn:aisdp-bundler:bundle:sha256:{digest}",
        "policy": {"uri": POLICY},
        "inputAttestations": [
            {
                "uri": "urn:aisdp-bundler:report:1",
                "digest": {"sha256": hashlib.sha256(report_bytes).hexdigest()},
            }
        ],
        "verificationResult": "PASSED" if report.exit_code == 0 else "FAILED",
        "verifiedLevels": [
            f"AISDP_{claim.name.upper()}" for claim in report.claims if claim.status == "met"
        ],
        "slsaVersion": "1.0",
    }
    return canonical.serialise(in_toto_statement(TAG_MANIFEST, digest, VSA_TYPE, predicate))
