"""What a check is and what it looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from bundler.attestation import Statement
from bundler.evidence import Contents, Files
from bundler.report import ClaimName, Finding, Severity
from bundler.spec import Predecessor


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What checks look at: files with known digests, parsed contents, the statement that a trusted key signed.

    ``schemas`` maps the file name of each schema of this program to its bytes. ``earlier`` is the release before, if
    the verifier has it.
    """

    files: Files
    contents: Contents
    statement: Statement
    schemas: Mapping[str, bytes]
    earlier: Predecessor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A named question about the evidence. ``claim`` is the rung of the ladder that it bears on."""

    id: str
    claim: ClaimName
    title: str
    run: Callable[[Evidence], Iterator[Finding]]


def finding(
    code: str, subject: str, message: str, severity: Severity = "error", remedy: str = ""
) -> Finding:
    """A finding, an error unless said otherwise."""
    return Finding(code=code, severity=severity, subject=subject, message=message, remedy=remedy)
