"""``verify-bundle``: the ladder of claims, climbed in order.

integrity → authenticity → completeness, selection, gates → reproduction. Contents are read only after a trusted key has
been found to vouch for them; code is run only after everything else was looked at. The report names every check,
those that did not run included, and why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bundler import SOFTWARE, resources
from bundler.attestation import Statement, open_envelope
from bundler.checks import CHECKS, Evidence, run_check
from bundler.errors import (
    BundlerError,
    EnvironmentNotRecreatableError,
    MalformedError,
    SandboxUnavailableError,
    UsageError,
)
from bundler.evidence import Files, examine_files, finding_of, read_contents
from bundler.manifest import RELEASE_ENVELOPE
from bundler.policy import DEFAULT, Policy
from bundler.progress import Progress, Silence
from bundler.report import (
    CLAIMS,
    REPORT_FORMAT,
    CheckResult,
    Claim,
    ClaimName,
    Finding,
    Report,
    Subject,
    outcome_of,
    status_of,
)
from bundler.rerun import RerunOutcome
from bundler.spec import GateResult, Predecessor
from bundler.storage.hashing import digest_bytes
from bundler.storage.model import Bag
from bundler.trust import Key, unseal

Rerunner = Callable[[Evidence], RerunOutcome]
"""Re-executes the training at the end of everything else: :class:`bundler.rerun.Reexecution`."""

Clock = Callable[[], str]
"""Returns now as RFC 3339 in UTC with milliseconds."""


@dataclass(slots=True)
class _Ladder:
    """What has been seen so far on the way up."""

    results: list[CheckResult] = field(default_factory=list)
    gates: tuple[GateResult, ...] = ()
    outcome: RerunOutcome = field(default_factory=RerunOutcome)
    trouble: BundlerError | OSError | None = None
    evidence: Evidence | None = None
    files: Files | None = None
    signed_by: str | None = None
    envelope_sha256: str | None = None
    refusal: BundlerError | None = None
    earlier: Predecessor | None = None
    policy: Policy = DEFAULT
    evaluation_wanted: bool = False
    missing: str = ""

    def add(self, check: str, claim: ClaimName, title: str, findings: tuple[Finding, ...]) -> None:
        self.results.append(
            CheckResult(
                check=check,
                claim=claim,
                title=title,
                outcome=outcome_of(findings),
                findings=findings,
            )
        )

    def skip(self, check: str, claim: ClaimName, title: str, reason: str) -> None:
        self.results.append(
            CheckResult(check=check, claim=claim, title=title, outcome="skipped", detail=reason)
        )


_Row = tuple[str, ClaimName, str]
_SIGNATURE: _Row = ("signature.trusted", "authenticity", "a trusted key signed the bundle")
_CONTENTS: _Row = (
    "contents.readable",
    "integrity",
    "index and log can be read, and the chain holds",
)
_RERUN: _Row = (
    "training.rerun",
    "reproduction",
    "the specified training gives the declared result",
)
_EVALUATION: _Row = (
    "model.evaluation",
    "reproduction",
    "the shipped model gives the declared metrics on the shipped hold-out",
)


def verify(  # noqa: PLR0913  # the question, and the seams of the world
    open_bag: Callable[[], Bag],
    name: str,
    keys: tuple[Key, ...],
    *,
    clock: Clock,
    rerunner: Rerunner | None = None,
    before: Callable[[Files], None] | None = None,
    earlier: Predecessor | None = None,
    policy: Policy = DEFAULT,
    progress: Progress | None = None,
    evaluation_wanted: bool = False,
) -> Report:
    """Verify the bag that ``open_bag`` opens. Bad input gives findings, never an exception.

    ``keys`` are the trusted public keys; with none, only integrity is examined. ``rerunner`` re-runs the training
    (``None``: not asked for), and ``before`` is called with the files that a trusted key vouches for, before their
    contents are read: blind mode trains there. ``earlier`` is the release before, to hold the log against; ``policy``
    is the verifier's. ``evaluation_wanted``: the evaluation was asked for by name, so without it a claim stays open.
    """
    started = clock()
    ladder = _Ladder(earlier=earlier, policy=policy, evaluation_wanted=evaluation_wanted)
    _climb(ladder, open_bag, keys, rerunner, before, progress or Silence())
    claims = tuple(_open(_claim(claim, ladder.results), ladder.missing) for claim in CLAIMS)
    return Report(
        format=REPORT_FORMAT,
        software=SOFTWARE,
        started_at=started,
        ended_at=clock(),
        subject=_subject(name, ladder),
        trusted_keys=tuple(key.keyid for key in keys),
        claims=claims,
        checks=tuple(ladder.results),
        gates=ladder.gates,
        reruns=(ladder.outcome.rerun,) if ladder.outcome.rerun else (),
        judgement=ladder.outcome.judgement,
        evaluation=ladder.outcome.scored,
        plan=ladder.outcome.plan,
        exit_code=exit_code(claims, ladder.refusal),
    )


def _climb(  # noqa: PLR0913  # as verify
    ladder: _Ladder,
    open_bag: Callable[[], Bag],
    keys: tuple[Key, ...],
    rerunner: Rerunner | None,
    before: Callable[[Files], None] | None,
    progress: Progress,
) -> None:
    try:
        bag = open_bag()
    except MalformedError as error:
        ladder.add("files.readable", "integrity", "the bundle can be opened", (finding_of(error),))
        _skip_rest(ladder, "the bundle cannot be opened")
        return
    ladder.files, results = examine_files(bag, progress)
    ladder.results.extend(results)
    if ladder.files is None:
        _skip_rest(ladder, "the files are not the ones that the manifests name")
        return
    if not keys:
        _skip_rest(
            ladder, "no trusted key was given, so the signer is not established; use --trust"
        )
        return
    statement = _unseal(ladder, bag, keys)
    if statement is None:
        _skip_rest(ladder, "no trusted key vouches for the contents")
        return
    if before is not None and statement.tag_manifest_sha256 == ladder.files.tag_manifest_sha256:
        try:
            before(ladder.files)
        except (BundlerError, OSError) as error:
            ladder.trouble = error
    _examine_contents(ladder, ladder.files, statement, progress)
    _rerun(ladder, rerunner)


def unsealed(bag: Bag, keys: tuple[Key, ...]) -> tuple[Statement, Key, str]:
    """The statement in ``bag``, the trusted key that signed it, and the SHA-256 of the envelope.

    Raises :class:`MalformedError`.
    """
    if RELEASE_ENVELOPE not in {entry.path for entry in bag.entries()}:
        raise MalformedError("signature-missing", f"{RELEASE_ENVELOPE} is not in the bundle")
    with bag.open(RELEASE_ENVELOPE) as file:
        data = file.read()
    envelope = open_envelope(data, name=RELEASE_ENVELOPE)
    return *unseal(envelope, keys, name=RELEASE_ENVELOPE), digest_bytes(data)


def _unseal(ladder: _Ladder, bag: Bag, keys: tuple[Key, ...]) -> Statement | None:
    try:
        statement, key, ladder.envelope_sha256 = unsealed(bag, keys)
    except MalformedError as error:
        ladder.add(*_SIGNATURE, (finding_of(error, RELEASE_ENVELOPE),))
        return None
    ladder.signed_by = key.keyid
    ladder.add(*_SIGNATURE, ())
    return statement


def _examine_contents(
    ladder: _Ladder, files: Files, statement: Statement, progress: Progress
) -> None:
    try:
        contents = read_contents(files)
    except MalformedError as error:
        ladder.add(*_CONTENTS, (finding_of(error),))
        for check in CHECKS:
            ladder.skip(check.id, check.claim, check.title, "the contents cannot be read")
        return
    ladder.add(*_CONTENTS, ())
    evidence = Evidence(
        files=files,
        contents=contents,
        statement=statement,
        schemas=resources.schemas(),
        earlier=ladder.earlier,
        policy=ladder.policy,
    )
    ladder.evidence = evidence
    with progress.step("Checking the evidence", len(CHECKS)) as step:
        for check in CHECKS:
            ladder.add(check.id, check.claim, check.title, run_check(check, evidence))
            step.advance()
    try:
        ladder.gates = evidence.gate_results
    except MalformedError:
        # The check of the gates has said so.
        ladder.gates = ()


def _rerun(ladder: _Ladder, rerunner: Rerunner | None) -> None:
    """Run the code of the bundle only if the bytes are whole and a trusted key signed them."""
    if rerunner is None:
        _skip_rerun(ladder, "not asked for; use --rerun")
        return
    settled = {"integrity", "authenticity"}
    broken = [each.check for each in ladder.results if each.claim in settled and each.findings]
    if ladder.evidence is None or broken:
        _skip_rerun(ladder, "nothing is executed from a bundle that is not intact")
        return
    try:
        if ladder.trouble is not None:
            raise ladder.trouble
        outcome = rerunner(ladder.evidence)
    except (SandboxUnavailableError, EnvironmentNotRecreatableError) as error:
        ladder.refusal = error
        _skip_rerun(ladder, "\n".join(filter(None, (error.message, error.remedy))))
        return
    except UsageError:
        raise
    except MalformedError as error:
        ladder.add(*_RERUN, (finding_of(error),))
        ladder.skip(*_EVALUATION, "the training cannot be repeated as it is specified")
        return
    except (BundlerError, OSError) as error:
        # This machine's trouble, such as a full disk, is no evidence against the provider.
        trouble = replace(
            finding_of(MalformedError("rerun-failed", str(error))), severity="warning"
        )
        ladder.add(*_RERUN, (trouble,))
        ladder.skip(*_EVALUATION, "the machine failed")
        return
    ladder.outcome = outcome
    if outcome.untrained:
        ladder.skip(*_RERUN, outcome.untrained)
    else:
        ladder.add(*_RERUN, outcome.findings)
    if outcome.unscored:
        ladder.skip(*_EVALUATION, outcome.unscored)
        ladder.missing = outcome.unscored if ladder.evaluation_wanted else ""
    else:
        ladder.add(*_EVALUATION, outcome.score_findings)


def _skip_rerun(ladder: _Ladder, reason: str) -> None:
    for row in (_RERUN, _EVALUATION):
        ladder.skip(*row, reason)


def _skip_rest(ladder: _Ladder, reason: str) -> None:
    seen = {result.check for result in ladder.results}
    rest: list[_Row] = [_SIGNATURE, _CONTENTS]
    rest += [(check.id, check.claim, check.title) for check in CHECKS]
    rest += [_RERUN, _EVALUATION]
    for check, claim, title in rest:
        if check not in seen:
            ladder.skip(check, claim, title, reason)


def _claim(name: ClaimName, results: list[CheckResult]) -> Claim:
    """A claim is settled by its checks that ran; it is not met as soon as one of them failed."""
    mine = [result for result in results if result.claim == name]
    ran = [result for result in mine if result.outcome != "skipped"]
    if not ran:
        details = [result.detail for result in mine]
        wanted = [detail for detail in details if not detail.startswith("not asked for")]
        return Claim(name=name, status="not run", summary=(wanted or details)[0])
    findings = [finding for result in ran for finding in result.findings]
    status = status_of(findings)
    skipped = len(mine) - len(ran)
    if name == "reproduction" and status == "met":
        if _RERUN[0] not in {result.check for result in ran}:
            words = "only the shipped model was scored: " + mine[0].detail.partition("\n")[0]
            return Claim(name=name, status="not run", summary=words)
        skipped = 0  # scoring the model again adds to repeating the training, where it can be done
    if skipped and status == "met":
        if name == "integrity":
            words = "the files are those of the manifests; " + next(
                result.detail for result in mine if result.outcome == "skipped"
            )
            return Claim(name=name, status="inconclusive", summary=words)
        return Claim(name=name, status="inconclusive", summary=f"{skipped} checks did not run")
    worst = next((f for f in findings if f.severity == "error"), None) or next(
        (f for f in findings if f.severity == "warning"), None
    )
    passed = f"{len(ran)} check{'s' if len(ran) > 1 else ''} passed"
    summary = f"{worst.subject}: {worst.message}" if worst else passed
    return Claim(name=name, status=status, summary=summary)


def _open(claim: Claim, missing: str) -> Claim:
    """``claim``, open where something was asked for by name and not done: ``missing`` says why."""
    if claim.name != "reproduction" or not missing or claim.status not in {"met", "not run"}:
        return claim
    words = f"the evaluation was asked for and not done: {missing}"
    return Claim(name=claim.name, status="inconclusive", summary=words)


def exit_code(claims: tuple[Claim, ...], refusal: BundlerError | None) -> int:
    """The exit code of a verification (docs/exit-codes.md).

    3 if integrity or authenticity is not met, 1 if another claim is not met, 4 or 5 if the re-run was refused,
    6 if anything that was asked for stays open, 0 otherwise.
    """
    status = {claim.name: claim.status for claim in claims}
    if "not met" in {status["integrity"], status["authenticity"]}:
        return 3
    if "not met" in status.values():
        return 1
    if refusal is not None:
        return refusal.exit_code
    asked = [word for name, word in status.items() if name != "reproduction"]
    if "inconclusive" in status.values() or "not run" in asked:
        return 6
    return 0


def _subject(name: str, ladder: _Ladder) -> Subject:
    contents = ladder.evidence.contents if ladder.evidence else None
    return Subject(
        name=name,
        tag_manifest_sha256=ladder.files.tag_manifest_sha256 if ladder.files else None,
        system=contents.index.system.name if contents else None,
        version=contents.index.system.version if contents else None,
        records=len(contents.records) if contents else None,
        signed_by=ladder.signed_by,
        envelope_sha256=ladder.envelope_sha256,
    )
