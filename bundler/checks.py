"""The closed list of checks on what a bundle says. An installed package cannot add to it or take from it.

Each check is a pure function from the evidence to findings. What a finding's code means, and the test vector that
provokes it, is in docs/findings.md. Checks on files come before these (:mod:`bundler.evidence`), the re-run after.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from bundler import canonical, chain, codec, requirements
from bundler.attestation import Statement
from bundler.errors import MalformedError
from bundler.evidence import Contents, Files
from bundler.facts import roles
from bundler.gates import judge
from bundler.history import read_points, summarise
from bundler.instructions import verify_instructions
from bundler.lockfiles import parse_requirements
from bundler.manifest import INDEX, RECORDS, TAG_MANIFEST, bag_info
from bundler.placeholders import expand, values_for
from bundler.records import RunRecord, artefact_location, history_location
from bundler.report import ClaimName, Finding, Severity
from bundler.selection import better, compete
from bundler.spec import BUNDLE_SCHEMAS, Predecessor, TrainingSpec


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


def _finding(
    code: str, subject: str, message: str, severity: Severity = "error", remedy: str = ""
) -> Finding:
    return Finding(code=code, severity=severity, subject=subject, message=message, remedy=remedy)


# --- authenticity and integrity: the signed statement against the bag ---------------------------------------------


def statement_subject(evidence: Evidence) -> Iterator[Finding]:
    """The statement must be about this very tag manifest."""
    if evidence.statement.tag_manifest_sha256 != evidence.files.tag_manifest_sha256:
        yield _finding(
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
            yield _finding(
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
        yield _finding("bag-info", "bag-info.txt", "does not describe this payload")
    # An assessor copies its lines into a shell, so they must not be the provider's own.
    if evidence.files.read("VERIFY.md") != verify_instructions():
        yield _finding(
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
            yield _finding(
                "log-size", RECORDS, f"has {actual.size} records, {name} says {said.size}"
            )
        elif said != actual:
            yield _finding("log-checkpoint", RECORDS, f"is not the log that {name} names")


def log_continuity(evidence: Evidence) -> Iterator[Finding]:
    """The log must begin with the very lines of the release before: nothing is rewritten between releases."""
    lines, declared = evidence.contents.lines, evidence.contents.index.previous
    for name, earlier in (("the index", declared), ("the earlier bundle given", evidence.earlier)):
        if earlier is not None and chain.checkpoint(lines[: earlier.log.size]) != earlier.log:
            yield _finding(
                "log-fork",
                RECORDS,
                f"does not begin with the log of release {earlier.version} as {name} has it",
            )
    if evidence.earlier is not None and declared != evidence.earlier:
        yield _finding(
            "log-predecessor", INDEX, "does not name the earlier bundle given as the one before it"
        )


# --- completeness -------------------------------------------------------------------------------------------------


def schema_files(evidence: Evidence) -> Iterator[Finding]:
    """The schemas in the bag must be the ones that this program knows, byte for byte."""
    for name in BUNDLE_SCHEMAS:
        data = evidence.schemas[name]
        path = f"schema/{name}"
        if path not in evidence.files:
            yield _finding("schema-missing", path, "is not in the bundle")
        elif evidence.files.read(path) != data:
            yield _finding("schema-changed", path, "is not the schema of that name and version")


def schema_conformance(evidence: Evidence) -> Iterator[Finding]:
    """Index, records and training specification must satisfy their JSON Schemas."""
    index = evidence.contents.index
    yield from _violations(evidence, "bundle-1.schema.json", codec.to_json(index), INDEX)
    for number, record in enumerate(evidence.contents.log, start=1):
        place = f"{RECORDS}, line {number}"
        yield from _violations(evidence, "run-record-1.schema.json", codec.to_json(record), place)
    if evidence.contents.training is not None:
        value = codec.to_json(evidence.contents.training)
        yield from _violations(
            evidence, "training-spec-1.schema.json", value, index.training_spec or ""
        )


def _violations(evidence: Evidence, schema: str, value: Any, place: str) -> Iterator[Finding]:
    for error in _validator(evidence.schemas[schema]).iter_errors(value):
        path = "".join(f"[{part!r}]" for part in error.absolute_path)
        yield _finding("schema-violation", place, f"{path or 'document'}: {error.message[:200]}")


@cache
def _validator(schema: bytes) -> Any:
    """The validator for a schema, built once: it costs more than many validations."""
    # jsonschema takes a tenth of a second to import.
    from jsonschema import Draft202012Validator  # noqa: PLC0415

    return Draft202012Validator(canonical.parse(schema, name="schema"))  # type: ignore[arg-type]  # an object


def record_amendments(evidence: Evidence) -> Iterator[Finding]:
    """A run that stands in several lines is shown: the later line replaces the earlier one.

    What a run was made from and gave is settled when it has finished; a later line that says otherwise needs a reason.
    """
    seen: dict[str, RunRecord] = {}
    for number, record in enumerate(evidence.contents.log, start=1):
        earlier = seen.get(record.id)
        seen[record.id] = record
        if earlier is None:
            continue
        yield _finding(
            "log-amended",
            record.id,
            f"line {number} replaces an earlier record of this run",
            "note",
        )
        if earlier.status == "finished" and _result(earlier) != _result(record):
            yield _finding(
                "log-result-amended",
                record.id,
                f"line {number} gives a finished run other parameters, data, seed or results than before",
                "warning",
                "Ask the provider why a finished run changed.",
            )


def _result(record: RunRecord) -> tuple[Any, ...]:
    """What cannot change once a run has finished. Roles of metrics are the provider's words for them."""
    metrics = {(each.name, each.points, each.last, each.last_step) for each in record.metrics}
    data = {(each.role, each.sha256, each.rows) for each in record.data}
    return record.status, record.seed, dict(record.parameters), data, metrics


def record_histories(evidence: Evidence) -> Iterator[Finding]:
    """Each record's summary must follow from the raw history, and each history must belong to a record."""
    claimed = set()
    for record in evidence.contents.records:
        path = history_location(record.id)
        claimed.add(path)
        yield from _history_findings(evidence, record, path)
    for path in evidence.files.below("data/runs"):
        if path not in claimed:
            yield _finding("history-orphan", path, "belongs to no run of the log")


def _history_findings(evidence: Evidence, record: RunRecord, path: str) -> Iterator[Finding]:
    if record.history is None:
        if record.metrics:
            yield _finding("history-missing", record.id, "metrics are summarised without a history")
        return
    if (record.history.path, record.history.sha256) != (path, evidence.files.digests.get(path)):
        yield _finding("history-digest", record.id, "the metric history is not the recorded one")
        return
    points = list(read_points(evidence.files.read(path), name=path))
    known = roles(evidence.contents.index.facts, {point.metric for point in points})
    if summarise(points, known) != record.metrics:
        yield _finding(
            "history-summary",
            record.id,
            "the summary of the metrics does not follow from the history",
        )


def record_artefacts(evidence: Evidence) -> Iterator[Finding]:
    """Embedded artefacts must have the recorded bytes; those not embedded are named as not supplied."""
    claimed = set()
    absent = 0
    for record in evidence.contents.records:
        for artefact in record.artefacts:
            location = artefact_location(record.id, artefact)
            if location not in evidence.files:
                absent += 1
                continue
            claimed.add(location)
            if evidence.files.digests[location] != artefact.sha256:
                yield _finding(
                    "artefact-digest", location, f"is not artefact {artefact.path} of the run"
                )
    for path in evidence.files.below("data/artefacts"):
        if path not in claimed:
            yield _finding("artefact-orphan", path, "belongs to no run of the log")
    if absent:
        yield _finding(
            "artefact-not-supplied",
            "log",
            f"{absent} artefacts are recorded by digest and not in the bundle",
            "note",
        )


def evidence_gaps(evidence: Evidence) -> Iterator[Finding]:
    """What is asked for and not shown, recomputed; a gap that the bundle does not admit is named as that too."""
    contents = evidence.contents
    admitted = {(gap.code, gap.level) for gap in contents.index.gaps}
    for gap in requirements.gaps(_declared(evidence)):
        if (gap.code, gap.level) not in admitted:
            yield _finding(
                "gap-not-admitted",
                gap.subject,
                f"the bundle does not admit: {gap.message}",
                "error",
            )
    for gap in contents.index.gaps:
        yield _finding(
            f"gap-{gap.level}",
            gap.subject,
            f"{gap.message} ({gap.point})",
            "error" if gap.level == "required" else "note",
            gap.remedy,
        )


def _declared(evidence: Evidence) -> requirements.Declared:
    contents, index = evidence.contents, evidence.contents.index
    lock = contents.training.lock if contents.training else None
    listed = None
    if lock is not None and lock in evidence.files:
        listed = parse_requirements(evidence.files.read(lock).decode("utf-8", "replace"))
    return requirements.Declared(
        system=index.system,
        selection=index.selection,
        reproducibility=index.reproducibility,
        gates=index.gates,
        facts=index.facts,
        records=contents.records,
        has_training_spec=contents.training is not None,
        code_files=len(evidence.files.below(contents.training.code)) if contents.training else 0,
        lock_present=listed is not None and listed.lists_any,
        lock_hashed=listed is not None and listed.hashed,
    )


def training_specification(evidence: Evidence) -> Iterator[Finding]:
    """What a re-run will execute must be the training of the selected run, on the data that the run recorded."""
    training = evidence.contents.training
    if training is None:
        return
    run = evidence.contents.record(training.run)
    if run is None or training.run != evidence.contents.index.selection.run:
        yield _finding("training-run", training.run, "is not the selected run")
        return
    if training.seed != run.seed:
        yield _finding(
            "training-seed", run.id, f"seed {training.seed} is not the recorded {run.seed}"
        )
    if dict(training.parameters) != dict(run.parameters):
        yield _finding("training-parameters", run.id, "the parameters are not the recorded ones")
    # Raises where a placeholder means nothing; run_check makes a finding of it.
    values = values_for(training, python="", bundle="", out="", seed=training.seed)
    for text in (*training.command, *training.environment.values()):
        expand(text, values)
    recorded = {data.sha256 for data in run.data if data.sha256}
    shipped = set()
    for item in training.inputs:
        shipped.add(item.sha256)
        if evidence.files.digests.get(item.path) != item.sha256:
            yield _finding("training-input", item.path, "is not the declared input, or not there")
    if recorded and not recorded & shipped:
        yield _finding(
            "training-data",
            run.id,
            "no shipped input has the SHA-256 of the data that the run recorded",
        )
    yield from _training_outputs(evidence, training, run)


def _training_outputs(
    evidence: Evidence, training: TrainingSpec, run: RunRecord
) -> Iterator[Finding]:
    """Equal bits say something only if they are the model's, and if the training was not handed them."""
    model = evidence.contents.index.facts.model
    if training.outputs.tensors and model is not None and model not in training.outputs.tensors:
        yield _finding(
            "training-tensors-not-model",
            model,
            "the tensors to be compared are not those of the model of this release",
            "warning",
        )
    compared = {*training.outputs.tensors, model}
    results = {each.sha256 for each in run.artefacts if each.path in compared and each.sha256}
    given = [*evidence.files.below(training.code), *(item.path for item in training.inputs)]
    for path in given:
        if evidence.files.digests.get(path) in results:
            yield _finding(
                "training-given-result",
                path,
                "the training is given the very file that it is to produce",
                "warning",
                "Take it out of code and inputs: copying it would look like reproducing it.",
            )


# --- selection ----------------------------------------------------------------------------------------------------


def selection_criteria(evidence: Evidence) -> Iterator[Finding]:
    """The criteria must not look at the hold-out, and must be dated before the first result."""
    contents = evidence.contents
    spec = contents.index.selection
    used = [spec.metric, *(condition.metric for condition in spec.constraints)]
    known = roles(contents.index.facts, used)
    gated = {gate.metric for gate in contents.index.gates}
    for metric in used:
        if known[metric] == "hold-out" or metric in gated:
            yield _finding(
                "selection-uses-hold-out",
                metric,
                "the criterion looks at the hold-out, so hold-out results are no longer independent",
            )
    ended = [
        each.ended_at for each in contents.records if each.status == "finished" and each.ended_at
    ]
    declared = spec.declared_at
    if (
        declared is not None
        and ended
        and requirements.is_date(declared)
        and datetime.fromisoformat(declared).date().isoformat() > min(ended)[:10]
    ):
        yield _finding(
            "selection-criteria-late",
            "selection.declared_at",
            f"the criteria are dated {spec.declared_at}, after the first result of {min(ended)[:10]}",
            "warning",
        )


def selection_winner(evidence: Evidence) -> Iterator[Finding]:
    """The selected run must be eligible and win; a better run that does not compete must be explained."""
    contents = evidence.contents
    spec = contents.index.selection
    standings = {each.run: each for each in compete(contents.records, spec, contents.index.facts)}
    chosen = standings.get(spec.run)
    if chosen is None:
        yield _finding("selection-run-unknown", spec.run, "the selected run is not in the log")
        return
    if chosen.standing != "candidate" or chosen.value is None:
        yield _finding(
            "selection-run-ineligible",
            spec.run,
            f"the selected run may not compete: {chosen.standing} ({chosen.explanation})",
        )
        return
    for other in standings.values():
        if other.value is None or not better(other.value, chosen.value, spec):
            continue
        words = (
            f"{spec.metric} {other.value:.6g} is better than {chosen.value:.6g} of the selected run"
        )
        if other.standing == "candidate":
            yield _finding("selection-better-run", other.run, words)
        elif other.standing in {"excluded", "outside the rule", "not finished", "no value"}:
            yield _finding(
                "selection-better-run-left-out",
                other.run,
                f"{words}, but {other.standing}: {other.explanation}",
                "warning",
                "Judge whether the reason holds.",
            )


def selection_exclusions(evidence: Evidence) -> Iterator[Finding]:
    """Each exclusion must name a run of the log, and a reason."""
    known = {record.id for record in evidence.contents.records}
    for exclusion in evidence.contents.index.selection.exclusions:
        if exclusion.run not in known:
            yield _finding("selection-exclusion-unknown", exclusion.run, "is not in the log")
        if not exclusion.reason.strip():
            yield _finding(
                "selection-exclusion-unexplained", exclusion.run, "is excluded without a reason"
            )


# --- gates --------------------------------------------------------------------------------------------------------


def gate_verdicts(evidence: Evidence) -> Iterator[Finding]:
    """Every gate, recomputed from the raw histories of all repetitions of the selected run."""
    index = evidence.contents.index
    for gate, result in zip(index.gates, recompute_gates(evidence), strict=True):
        if result.verdict == "not met":
            yield _finding("gate-not-met", gate.name, f"{gate.metric}: {result.explanation}")
        elif result.verdict == "inconclusive":
            yield _finding(
                "gate-inconclusive", gate.name, f"{gate.metric}: {result.explanation}", "warning"
            )


def gate_summary(evidence: Evidence) -> Iterator[Finding]:
    """The bundle's own summary must be what the runs give."""
    index = evidence.contents.index
    results = recompute_gates(evidence)
    said = {result.gate: result for result in index.gate_results}
    for result in results:
        if not _same(said.get(result.gate), result):
            yield _finding(
                "gate-summary", result.gate, "the bundle's own summary is not what the runs give"
            )
    if len(index.gate_results) != len(results) or len({gate.name for gate in index.gates}) != len(
        results
    ):
        yield _finding("gate-summary", "gates", "gates and their summary do not correspond")


def _same(said: Any, found: Any) -> bool:
    """Equal up to the last digits of floating point, which differ between machines."""
    if said is None:
        return False
    numbers = ("estimate", "bound", "seed_variance", "holdout_variance")
    for name in numbers:
        left, right = getattr(said, name), getattr(found, name)
        if (left is None) != (right is None):
            return False
        if left is not None and abs(left - right) > 1e-9 * max(1.0, abs(left)):
            return False
    return bool(said.verdict == found.verdict and said.runs == found.runs)


def recompute_gates(evidence: Evidence) -> tuple[Any, ...]:
    """The gates' results from the raw histories; nothing of the records' summaries is used."""

    def final(record: RunRecord, metric: str) -> float | None:
        if record.history is None:
            return None
        path = record.history.path
        last = None
        for point in read_points(evidence.files.read(path), name=path):
            if point.metric == metric:
                last = point.value
        return last if last is not None and math.isfinite(last) else None

    index, records = evidence.contents.index, evidence.contents.records
    return judge(index.gates, index.selection.run, records, index.facts, final)


CHECKS: tuple[Check, ...] = (
    Check(
        id="statement.subject",
        claim="authenticity",
        title="the signed statement is about these files",
        run=statement_subject,
    ),
    Check(
        id="statement.release",
        claim="authenticity",
        title="the signed statement names this release",
        run=statement_release,
    ),
    Check(
        id="files.bag-info",
        claim="integrity",
        title="bag-info.txt and VERIFY.md are what the format makes of the payload",
        run=bag_information,
    ),
    Check(
        id="log.checkpoint",
        claim="integrity",
        title="the log is as long and ends as signed",
        run=log_checkpoint,
    ),
    Check(
        id="log.continuity",
        claim="integrity",
        title="the log continues that of the release before",
        run=log_continuity,
    ),
    Check(
        id="schema.files",
        claim="completeness",
        title="the schemas are the known ones",
        run=schema_files,
    ),
    Check(
        id="schema.conformance",
        claim="completeness",
        title="everything satisfies its schema",
        run=schema_conformance,
    ),
    Check(
        id="records.amendments",
        claim="completeness",
        title="replaced records are shown",
        run=record_amendments,
    ),
    Check(
        id="records.histories",
        claim="completeness",
        title="summaries follow from the raw metric histories",
        run=record_histories,
    ),
    Check(
        id="records.artefacts",
        claim="completeness",
        title="artefacts have the recorded bytes",
        run=record_artefacts,
    ),
    Check(
        id="evidence.gaps",
        claim="completeness",
        title="every required fact of every run is shown",
        run=evidence_gaps,
    ),
    Check(
        id="training.specification",
        claim="completeness",
        title="the training specification is that of the selected run",
        run=training_specification,
    ),
    Check(
        id="selection.criteria",
        claim="selection",
        title="the criteria leave the hold-out alone and came first",
        run=selection_criteria,
    ),
    Check(
        id="selection.winner",
        claim="selection",
        title="the selected run wins among all eligible runs",
        run=selection_winner,
    ),
    Check(
        id="selection.exclusions",
        claim="selection",
        title="excluded runs are in the log, with reasons",
        run=selection_exclusions,
    ),
    Check(
        id="gates.verdicts",
        claim="gates",
        title="the pessimistic bound of every gate meets its threshold",
        run=gate_verdicts,
    ),
    Check(
        id="gates.summary",
        claim="gates",
        title="the bundle's own summary is what the runs give",
        run=gate_summary,
    ),
)
"""All checks on contents, in the order in which they run and are reported."""


def run_check(check: Check, evidence: Evidence) -> tuple[Finding, ...]:
    """All findings of ``check``; bytes that cannot be read are a finding as well."""
    findings: list[Finding] = []
    try:
        findings.extend(check.run(evidence))
    except MalformedError as error:
        findings.append(_finding(error.code, "bundle", error.message))
    return tuple(findings)
