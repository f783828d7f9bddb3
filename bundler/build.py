"""``build-bundle``: from tracker stores and ``bundle.yaml`` to a signed bundle.

The order is the order of trust: files first, then the records that name them, then the index, then the manifests over
everything, then the signature over the manifests. Each later thing is a function of the earlier ones, so identical
inputs give identical bytes. The bundle appears under its name only when it is whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bundler import SOFTWARE, canonical, chain, codec, gaps, privacy, requirements, resources
from bundler.attestation import Release, Statement, statement_bytes
from bundler.checks import CHECKS, Evidence, run_check
from bundler.config import BuildConfig, ImageConfig
from bundler.errors import GapsError, MalformedError, SourceError, UsageError
from bundler.evidence import Files, latest, read_contents
from bundler.facts import timestamp
from bundler.gates import judge, measured
from bundler.images import identify, of_reference
from bundler.instructions import verify_instructions
from bundler.intake import Intake
from bundler.manifest import (
    DECLARATION,
    INDEX,
    PAYLOAD_MANIFEST,
    RECORDS,
    RELEASE_ENVELOPE,
    TAG_MANIFEST,
    bag_info,
    collisions,
    format_manifest,
)
from bundler.previous import Previous, open_previous
from bundler.progress import Progress, Silence
from bundler.records import RunRecord
from bundler.redaction import clean_text
from bundler.report import Finding
from bundler.signers import Signer, sign_payload
from bundler.spec import (
    BUNDLE_FORMAT,
    BUNDLE_SCHEMAS,
    Gap,
    ImageIdentity,
    Index,
    Redaction,
    SelectionSpec,
)
from bundler.storage import open_bag
from bundler.storage.hashing import digest_all, digest_bytes
from bundler.storage.writer import staged, write_archive, write_file
from bundler.training import Shipped, ship_training


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a build came to. ``tag_manifest_sha256`` identifies the bundle; ``size`` is in bytes.

    ``findings`` are the errors and warnings that a verifier will have about the contents, gaps apart. ``runs`` counts
    runs, of which the log may hold several lines.
    """

    path: Path
    tag_manifest_sha256: str
    index: Index
    runs: int
    files: int
    size: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to build. ``base`` is the folder that the paths of ``config`` are relative to."""

    config: BuildConfig
    base: Path
    target: Path
    signer: Signer
    as_tar: bool = False
    strict: bool = False
    previous: Path | None = None


def build(request: Request, progress: Progress | None = None) -> Built:
    """Build the bundle that ``request`` describes.

    Raises :class:`bundler.errors.SourceError`, :class:`UsageError`, :class:`GapsError` (strict) or
    :class:`bundler.errors.OutputError`; in every case nothing is left at the target.
    """
    progress = progress or Silence()
    previous = open_previous(request.previous) if request.previous else None
    if previous is not None:
        _refuse_other_system(previous, request.config.system.name)
    with staged(request.target) as result:
        folder = result.with_name(f"{result.name}.folder") if request.as_tar else result
        folder.mkdir()
        built = _fill(folder, request, previous, progress)
        if request.as_tar:
            write_archive(folder, result)
    return built


def _fill(bag: Path, request: Request, previous: Previous | None, progress: Progress) -> Built:
    """Write all files of the bundle into the folder ``bag``."""
    config = request.config
    intake = Intake(config, request.base, bag)
    records = tuple(intake.records(progress))
    selected = selected_run(config.selection.run, records)
    selection = replace(config.selection, run=selected.id)
    config = replace(config, selection=selection)
    redacted = intake.redacted(selected.id)
    _refuse_redacted_rule(config.selection, intake.redactions)
    images = tuple(_identity(each, request.base) for each in config.images)
    shipped = ship_training(config, request.base, bag, selected, images, redacted)
    lines: list[bytes] = []
    added: Iterable[RunRecord] = records
    if previous is not None:
        lines = list(previous.contents.lines)
        added = previous.changed(records)
        previous.carry_over(bag)
        records = latest((*previous.contents.log, *records))
    lines = _append(lines, added)
    index = Index(
        format=BUNDLE_FORMAT,
        created=_created(records),
        software=SOFTWARE,
        system=config.system,
        selection=selection,
        reproducibility=config.reproducibility,
        gates=config.gates,
        gate_results=judge(
            config.gates,
            selected.id,
            records,
            config.facts,
            measure=lambda sampling: measured(sampling, selected, partial(_read, bag)),
        ),
        facts=config.facts,
        log=chain.checkpoint(lines),
        previous=previous.predecessor if previous else None,
        training_spec=shipped.spec,
        gaps=_gaps(
            config, records, shipped, images, tuple(privacy.gaps(bag, config.keep_personal_data))
        ),
        redactions=intake.redactions,
        images=images,
    )
    write_file(bag, RECORDS, chain.join(lines))
    write_file(bag, INDEX, canonical.serialise(codec.to_json(index)))
    statement, digests = _seal(bag, request, index, progress)
    findings = _examine(bag, digests, statement, progress)
    if request.strict:
        _refuse_errors(findings)
    payload = [path for path in digests if path.startswith("data/")]
    return Built(
        path=request.target,
        tag_manifest_sha256=statement.tag_manifest_sha256,
        index=index,
        runs=len(records),
        files=len(payload),
        size=sum((bag / path).stat().st_size for path in payload),
        findings=tuple(each for each in findings if not each.code.startswith("gap-")),
    )


def _read(bag: Path, path: str) -> bytes:
    """The bytes of a file of the bag. Raises :class:`MalformedError` (``file-missing``) as a verifier does."""
    try:
        return (bag / path).read_bytes()
    except OSError:
        raise MalformedError("file-missing", f"{path} is not in the bundle") from None


def _examine(
    bag: Path, digests: dict[str, str], statement: Statement, progress: Progress
) -> tuple[Finding, ...]:
    """What a verifier will find in the contents: better known before the release than after it."""
    files = Files(open_bag(bag), digests)
    evidence = Evidence(
        files=files,
        contents=read_contents(files),
        statement=statement,
        schemas=resources.schemas(),
    )
    with progress.step("Checking as a verifier will", len(CHECKS)) as step:
        findings: list[Finding] = []
        for check in CHECKS:
            findings += run_check(check, evidence)
            step.advance()
    return tuple(finding for finding in findings if finding.severity != "note")


def _identity(image: ImageConfig, base: Path) -> ImageIdentity:
    """The identity of an image: from its bytes where they are given, else as far as its name says."""
    if image.path is None:
        return of_reference(image.reference or "")
    return identify(base / image.path, reference=image.reference, platform=image.platform)


def _refuse_redacted_rule(selection: SelectionSpec, redactions: Iterable[Redaction]) -> None:
    """A rule about what was taken out of the records could be held by nobody."""
    taken = {each.field: each.kind for each in redactions}
    for path in selection.eligible:
        if path in taken:
            raise UsageError(
                f"selection.eligible: {path} was taken out of the records as personal data",
                remedy=f"Choose another fact, or keep it: keep_personal_data: [{taken[path]}].",
            )


def _refuse_other_system(previous: Previous, name: str) -> None:
    earlier = previous.contents.index.system.name
    if earlier != name:
        raise UsageError(
            f"the previous bundle is about the system {earlier!r}, bundle.yaml is about {name!r}",
            remedy="One log of runs belongs to one system: keep system.name, or leave out --previous.",
        )


def _append(lines: list[bytes], records: Iterable[RunRecord]) -> list[bytes]:
    """Add a line for each of ``records`` to the log."""
    current = ""

    def values() -> Iterator[object]:
        nonlocal current
        for record in records:
            current = record.id
            yield codec.to_json(record)

    try:
        return chain.append(lines, values())
    except MalformedError as error:
        raise SourceError(
            f"run {current} holds a value that a record cannot carry: {error.message}",
            remedy="Correct it in the tracker, such as a step beyond 2^53.",
        ) from None


def selected_run(wanted: str, records: tuple[RunRecord, ...]) -> RunRecord:
    """The run whose id, in the bundle or in the tracker, is ``wanted``; else the only one of that name."""
    found = [each for each in records if wanted in {each.id, each.source.run_id}]
    # A name may have lost an address or a home folder.
    found = found or [each for each in records if each.name in {wanted, clean_text(wanted, ())}]
    if len(found) != 1:
        how = "none" if not found else f"{len(found)}"
        known = ", ".join(f"{each.source.run_id} ({each.name})" for each in records[:5])
        raise UsageError(
            f"selection.run {wanted!r} means {how} of the {len(records)} imported runs",
            remedy=f"Use the tracker's run id, such as {known}{', …' if len(records) > 5 else ''}.",
        )
    return found[0]


def _seal(
    bag: Path, request: Request, index: Index, progress: Progress
) -> tuple[Statement, dict[str, str]]:
    """Write tag files and manifests over what lies in ``bag``, and sign the tag manifest.

    Return the statement that was signed, and the digest of every file but the signature.
    """
    payload = _digests(bag, "data", progress)
    for one, other in collisions(list(payload)):
        raise UsageError(
            f"{one} and {other} differ only by upper and lower case, which not every disk keeps apart",
            remedy="Rename one of them.",
        )
    size = sum((bag / path).stat().st_size for path in payload)
    write_file(bag, "bagit.txt", DECLARATION)
    write_file(
        bag, "bag-info.txt", bag_info(index.software, index.created, files=len(payload), size=size)
    )
    write_file(bag, "VERIFY.md", verify_instructions())
    schemas = resources.schemas()
    for name in BUNDLE_SCHEMAS:
        write_file(bag, f"schema/{name}", schemas[name])
    write_file(bag, PAYLOAD_MANIFEST, format_manifest(payload))
    tags = {
        path: digest
        for path, digest in _digests(bag, ".", Silence()).items()
        if path not in payload
    }
    tag_manifest = format_manifest(tags)
    write_file(bag, TAG_MANIFEST, tag_manifest)
    statement = Statement(
        tag_manifest_sha256=digest_bytes(tag_manifest),
        release=Release(
            system=index.system.name,
            version=index.system.version,
            created=index.created,
            log=index.log,
            previous=index.previous,
        ),
    )
    # The signature last: without it, nothing in the folder passes for a bundle.
    write_file(bag, RELEASE_ENVELOPE, sign_payload(statement_bytes(statement), request.signer))
    return statement, payload | tags | {TAG_MANIFEST: statement.tag_manifest_sha256}


def _digests(bag: Path, folder: str, progress: Progress) -> dict[str, str]:
    files = sorted(file for file in (bag / folder).rglob("*") if file.is_file())
    paths = [file.relative_to(bag).as_posix() for file in files]
    total = sum(file.stat().st_size for file in files)
    with progress.step("Hashing files", total, unit="B") as step:
        return digest_all(paths, lambda path: (bag / path).open("rb"), on_bytes=step.advance)


def _created(records: tuple[RunRecord, ...]) -> str:
    """The time of the newest evidence, or SOURCE_DATE_EPOCH: a clock would make each build another bundle."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is not None:
        moment = None
        if epoch.isascii() and epoch.isdecimal() and len(epoch) < 16:
            moment = timestamp(int(epoch) * 1000)
        if moment is None:
            raise UsageError(
                f"SOURCE_DATE_EPOCH is {epoch[:40]!r}, not a number of seconds since 1970",
                remedy="Unset it: a bundle is dated by its newest evidence.",
            )
        return moment
    times = [time for each in records for time in (each.started_at, each.ended_at) if time]
    return max(times, default="1970-01-01T00:00:00.000Z")


def _gaps(
    config: BuildConfig,
    records: tuple[RunRecord, ...],
    shipped: Shipped,
    images: tuple[ImageIdentity, ...],
    taken_in: tuple[Gap, ...],
) -> tuple[Gap, ...]:
    declared = requirements.Declared(
        system=config.system,
        selection=config.selection,
        reproducibility=config.reproducibility,
        gates=config.gates,
        facts=config.facts,
        records=records,
        has_training_spec=shipped.spec is not None,
        code_files=shipped.code_files,
        lock=shipped.lock,
        images=images,
    )
    found = (*gaps.gaps(declared), *shipped.gaps, *taken_in)
    return tuple(sorted(found, key=lambda gap: gap.level != "required"))


def _refuse_errors(findings: tuple[Finding, ...]) -> None:
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    listing = "\n".join(
        f"  - {each.subject}: {each.message}. {each.remedy}".rstrip() for each in errors
    )
    missing = sum(each.code == "gap-required" for each in errors)
    what = "piece of required evidence is" if missing == 1 else "pieces of required evidence are"
    raise GapsError(
        f"{missing} {what} missing, and a verifier would find {len(errors) - missing} more faults:\n{listing}"
        if missing
        else f"a verifier would not accept the bundle:\n{listing}",
        remedy="Nothing was built. Mend that, or build without --strict: it is then shown.",
    )
