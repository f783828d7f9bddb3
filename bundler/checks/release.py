"""Integrity and authenticity of contents: the signed statement against the bag, and the log against itself."""

from __future__ import annotations

from collections.abc import Iterator

from bundler import chain
from bundler.checks.model import Evidence, finding
from bundler.instructions import verify_instructions
from bundler.manifest import INDEX, RECORDS, TAG_MANIFEST, bag_info
from bundler.report import Finding


def statement_subject(evidence: Evidence) -> Iterator[Finding]:
    """The statement must be about this very tag manifest."""
    if evidence.statement.tag_manifest_sha256 != evidence.files.tag_manifest_sha256:
        yield finding(
            "statement-subject",
            TAG_MANIFEST,
            "the signed statement is about another bundle, or files were changed and listed anew",
        )


def statement_release(evidence: Evidence) -> Iterator[Finding]:
    """Name, version, time and predecessor must be those of the index."""
    release, index = evidence.statement.release, evidence.contents.index
    pairs: tuple[tuple[str, object, object], ...] = (
        ("system", release.system, index.system.name),
        ("version", release.version, index.system.version),
        ("created", release.created, index.created),
        ("previous", release.previous, index.previous),
    )
    for name, signed, said in pairs:
        if signed != said:
            yield finding(
                "statement-release",
                INDEX,
                f"{name} differs between the signed statement and the index",
            )


def bag_information(evidence: Evidence) -> Iterator[Finding]:
    """``bag-info.txt`` must say what follows from the payload, Payload-Oxum included."""
    index = evidence.contents.index
    payload = evidence.files.below("data")
    size = sum(evidence.files.sizes[path] for path in payload)
    expected = bag_info(index.software, index.created, files=len(payload), size=size)
    if evidence.files.read("bag-info.txt") != expected:
        yield finding("bag-info", "bag-info.txt", "does not describe this payload")
    # An assessor copies its lines into a shell, so they must not be the provider's own.
    if evidence.files.read("VERIFY.md") != verify_instructions():
        yield finding(
            "instructions-changed", "VERIFY.md", "is not the text of this format's version"
        )


def log_checkpoint(evidence: Evidence) -> Iterator[Finding]:
    """Size, head and Merkle root of the log must be those that were signed: a cut tail shows here."""
    actual = chain.checkpoint(evidence.contents.lines)
    for name, said in (
        ("the signed statement", evidence.statement.release.log),
        ("the index", evidence.contents.index.log),
    ):
        if said.size != actual.size:
            yield finding(
                "log-size", RECORDS, f"has {actual.size} records, {name} says {said.size}"
            )
        elif said != actual:
            yield finding("log-checkpoint", RECORDS, f"is not the log that {name} names")


def log_continuity(evidence: Evidence) -> Iterator[Finding]:
    """The log must begin with the very lines of the release before: nothing is rewritten between releases."""
    lines, declared = evidence.contents.lines, evidence.contents.index.previous
    for name, earlier in (("the index", declared), ("the earlier bundle given", evidence.earlier)):
        if earlier is not None and chain.checkpoint(lines[: earlier.log.size]) != earlier.log:
            yield finding(
                "log-fork",
                RECORDS,
                f"does not begin with the log of release {earlier.version} as {name} has it",
            )
    if evidence.earlier is not None and declared != evidence.earlier:
        yield finding(
            "log-predecessor", INDEX, "does not name the earlier bundle given as the one before it"
        )
