"""The evidence in a bag, step by step: bytes that match their manifests, then contents that parse.

:func:`examine_files` holds every byte of the bag against the manifests. Only the :class:`Files` it returns can be
read, and each read is held against the digest again, so that a file swapped in between is noticed.
:func:`read_contents` parses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from bundler import canonical, chain, codec
from bundler.errors import MalformedError
from bundler.lockfiles import Lock
from bundler.lockfiles import parse as parse_lock
from bundler.manifest import (
    DECLARATION,
    INDEX,
    PAYLOAD_MANIFEST,
    RECORDS,
    SCHEMA_FOLDER,
    SIGNATURES,
    TAG_FILES,
    TAG_MANIFEST,
    parse_manifest,
)
from bundler.progress import Progress, Silence
from bundler.records import RunRecord
from bundler.report import CheckResult, Finding, outcome_of
from bundler.spec import Index, Predecessor, TrainingSpec
from bundler.storage.hashing import copy_and_digest, digest_all, digest_bytes
from bundler.storage.model import Bag, shown

MAX_TEXT = 1 << 30
"""Largest file of our own formats that is read into memory, in bytes."""

MAX_SIGNATURE = 1 << 20
"""Largest file in ``signatures/``, in bytes: those are read before anybody vouches for them."""


class Files:
    """The files of a bag whose every byte was held against the manifests."""

    def __init__(self, bag: Bag, digests: dict[str, str]) -> None:
        self._bag = bag
        self.digests = digests
        self.sizes = {entry.path: entry.size for entry in bag.entries()}
        self.tag_manifest_sha256 = digests[TAG_MANIFEST]
        self.opened: set[str] = set()
        """What was read since it was hashed."""

    def __contains__(self, path: str) -> bool:
        return path in self.digests

    def below(self, folder: str) -> list[str]:
        """Paths of the files below ``folder``, sorted."""
        return [path for path in sorted(self.digests) if path.startswith(folder + "/")]

    def read(self, path: str) -> bytes:
        """The bytes of ``path``. Raises :class:`MalformedError` (``file-missing``, ``file-changed``)."""
        if path not in self.digests:
            raise MalformedError("file-missing", f"{path} is not in the bundle")
        if self.sizes[path] > MAX_TEXT:
            raise MalformedError("file-too-large", f"{path} is larger than {MAX_TEXT >> 20} MiB")
        self.opened.add(path)
        with self._bag.open(path) as file:
            data = file.read()
        if digest_bytes(data) != self.digests[path]:
            raise MalformedError("file-changed", f"{path} changed since it was hashed")
        return data

    def copy(self, path: str, target: BinaryIO) -> None:
        """Copy ``path``, of any size, into ``target``. Raises like :meth:`read`, after the bytes were written."""
        if path not in self.digests:
            raise MalformedError("file-missing", f"{path} is not in the bundle")
        self.opened.add(path)
        with self._bag.open(path) as file:
            digest = copy_and_digest(file, target)
        if digest != self.digests[path]:
            raise MalformedError("file-changed", f"{path} changed since it was hashed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What the bundle says. ``log`` is every line's record, ``records`` the latest of each run."""

    index: Index
    lines: tuple[bytes, ...]
    log: tuple[RunRecord, ...]
    records: tuple[RunRecord, ...]
    training: TrainingSpec | None

    def record(self, run: str) -> RunRecord | None:
        """The latest record of ``run``."""
        return next((record for record in self.records if record.id == run), None)


def examine_files(bag: Bag, progress: Progress) -> tuple[Files | None, tuple[CheckResult, ...]]:
    """Check kinds, names, manifests, the exact file set and every digest. No :class:`Files` if one check fails."""
    examination = _Examination(bag, progress)
    steps = (
        ("files.kinds", "only regular files with plain names", examination.kinds),
        ("files.declaration", "bagit.txt is that of a BagIt 1.0 bag", examination.declaration),
        ("files.manifests", "the manifests are in canonical form", examination.manifests),
        ("files.set", "exactly the files that the manifests name", examination.file_set),
        ("files.digests", "every file has the SHA-256 that its manifest says", examination.digest),
    )
    results: list[CheckResult] = []
    for check, title, step in steps:
        findings = tuple(_collect(step()))
        results.append(
            CheckResult(
                check=check,
                claim="integrity",
                title=title,
                outcome=outcome_of(findings),
                findings=findings,
            )
        )
        if findings and check == "files.manifests":
            break
    if any(result.findings for result in results):
        return None, tuple(results)
    return Files(bag, examination.digests), tuple(results)


def intact_files(bag: Bag) -> Files:
    """The files of ``bag``. Raises :class:`MalformedError` with the first finding unless every check passes."""
    files, results = examine_files(bag, Silence())
    if files is None:
        finding = next(finding for result in results for finding in result.findings)
        raise MalformedError(finding.code, f"{finding.subject}: {finding.message}")
    return files


def _collect(findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings, a :class:`MalformedError` on the way being the last of them."""
    try:
        yield from findings
    except MalformedError as error:
        yield finding_of(error)


def finding_of(error: MalformedError, subject: str = "bundle") -> Finding:
    """The finding that says what ``error`` says."""
    return Finding(
        code=error.code,
        severity="error",
        subject=subject,
        message=error.message,
        remedy=error.remedy,
    )


class _Examination:
    """State of one pass over the files of a bag."""

    def __init__(self, bag: Bag, progress: Progress) -> None:
        self._bag = bag
        self._progress = progress
        self._sizes = {entry.path: entry.size for entry in bag.entries()}
        self._payload: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._parsed: dict[str, str] = {}
        self.digests: dict[str, str] = {}

    def kinds(self) -> Iterator[Finding]:
        yield from self._bag.problems()

    def declaration(self) -> Iterator[Finding]:
        if self._read("bagit.txt") != DECLARATION:
            yield _error(
                "bag-declaration", "bagit.txt", "is not the declaration of a BagIt 1.0 bag"
            )

    def manifests(self) -> Iterator[Finding]:
        self._tags = self._manifest(TAG_MANIFEST)
        self._payload = self._manifest(PAYLOAD_MANIFEST)
        for path in self._payload:
            if not path.startswith("data/"):
                yield _error("manifest-scope", path, "is in the payload manifest, but not in data/")
        for path in self._tags:
            if path not in TAG_FILES and not path.startswith(SCHEMA_FOLDER):
                yield _error("manifest-scope", path, "must not be in the tag manifest")

    def file_set(self) -> Iterator[Finding]:
        named = self._payload.keys() | self._tags.keys() | {TAG_MANIFEST}
        for path in sorted(named - self._sizes.keys()):
            yield _error("file-missing", path, "is named in a manifest and not there")
        for path in sorted(self._sizes.keys() - named - SIGNATURES):
            yield _error("file-extra", shown(path), "is in the bag and in no manifest")
        for path in sorted({PAYLOAD_MANIFEST, "bagit.txt", "bag-info.txt"} - self._tags.keys()):
            yield _error("file-missing", path, "is not covered by the tag manifest")
        for path in sorted(SIGNATURES & self._sizes.keys()):
            if self._sizes[path] > MAX_SIGNATURE:
                yield _error("file-too-large", path, f"is larger than {MAX_SIGNATURE >> 20} MiB")

    def digest(self) -> Iterator[Finding]:
        expected = self._payload | self._tags
        present = [path for path in sorted(expected) if path in self._sizes]
        total = sum(self._sizes[path] for path in present)
        with self._progress.step("Hashing files", total, unit="B") as step:
            self.digests = digest_all(present, self._bag.open, on_bytes=step.advance)
        # Of the manifests, the bytes that were parsed count, not a second reading of the file.
        self.digests.update(self._parsed)
        for path in present:
            if self.digests[path] != expected[path]:
                yield _error("file-digest", path, "is not the file that the manifest names")

    def _manifest(self, path: str) -> dict[str, str]:
        data = self._read(path)
        self._parsed[path] = digest_bytes(data)
        return parse_manifest(data, name=path)

    def _read(self, path: str) -> bytes:
        if path not in self._sizes:
            raise MalformedError("file-missing", f"{path} is not in the bundle")
        if self._sizes[path] > MAX_TEXT:
            raise MalformedError("file-too-large", f"{path} is larger than {MAX_TEXT >> 20} MiB")
        with self._bag.open(path) as file:
            return file.read()


def read_contents(files: Files) -> Contents:
    """Parse index, log and training specification. Raises :class:`MalformedError` at the first fault.

    The chain of the log is checked on the way: a record out of its place cannot be read.
    """
    index = codec.from_json(
        Index, canonical.parse_canonical(files.read(INDEX), name=INDEX), place=INDEX
    )
    lines = tuple(chain.split(files.read(RECORDS)))
    log = tuple(
        codec.from_json(RunRecord, run, place=f"{RECORDS}, line {number}")
        for number, run in enumerate(chain.walk(lines), start=1)
    )
    training = None
    if index.training_spec is not None:
        value = canonical.parse_canonical(files.read(index.training_spec), name=index.training_spec)
        training = codec.from_json(TrainingSpec, value, place=index.training_spec)
    return Contents(index=index, lines=lines, log=log, records=latest(log), training=training)


def predecessor(files: Files, contents: Contents) -> Predecessor:
    """How the next release names this bundle."""
    return Predecessor(
        version=contents.index.system.version,
        tag_manifest_sha256=files.tag_manifest_sha256,
        log=chain.checkpoint(contents.lines),
    )


def latest(log: tuple[RunRecord, ...]) -> tuple[RunRecord, ...]:
    """The last record of each run: a later line about a run replaces what earlier ones say."""
    return tuple({record.id: record for record in log}.values())


def _error(code: str, subject: str, message: str) -> Finding:
    return Finding(code=code, severity="error", subject=subject, message=message)


def lock_of(files: Files, contents: Contents) -> Lock | None:
    """The lock of the training; one that is not there or cannot be read shows nothing."""
    path = contents.training.lock if contents.training else None
    if path is None or path not in files:
        return None
    try:
        return parse_lock(path, files.read(path))
    except MalformedError:
        return None
