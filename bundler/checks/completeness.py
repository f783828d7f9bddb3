"""Completeness: schemas, raw histories, artefacts, the required facts, the training specification."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from bundler import canonical, codec, gaps, requirements
from bundler.checks.model import Evidence, finding
from bundler.facts import roles, seed_of
from bundler.history import read_points, summarise
from bundler.manifest import INDEX, RECORDS
from bundler.records import RunRecord, artefact_location, history_location, moment
from bundler.redaction import redact
from bundler.report import Finding
from bundler.spec import BUNDLE_SCHEMAS, Gap


def schema_files(evidence: Evidence) -> Iterator[Finding]:
    """The schemas in the bag must be the ones that this program knows, byte for byte."""
    for name in BUNDLE_SCHEMAS:
        data = evidence.schemas[name]
        path = f"schema/{name}"
        if path not in evidence.files:
            yield finding("schema-missing", path, "is not in the bundle")
        elif evidence.files.read(path) != data:
            yield finding("schema-changed", path, "is not the schema of that name and version")


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
        wheels = evidence.contents.training.wheels
        if wheels is not None:
            listed = canonical.parse_canonical(evidence.files.read(wheels), name=wheels)
            yield from _violations(evidence, "wheels-1.schema.json", listed, wheels)


def _violations(evidence: Evidence, schema: str, value: Any, place: str) -> Iterator[Finding]:
    for error in _validator(evidence.schemas[schema]).iter_errors(value):
        path = "".join(f"[{part!r}]" for part in error.absolute_path)
        yield finding("schema-violation", place, f"{path or 'document'}: {error.message[:200]}")


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
        yield finding(
            "log-amended",
            record.id,
            f"line {number} replaces an earlier record of this run",
            "note",
        )
        if earlier.status == "finished" and _changed(earlier, record):
            yield finding(
                "log-result-amended",
                record.id,
                f"line {number} gives a finished run other parameters, data, seed or results than before",
                "warning",
                "Ask the provider why a finished run changed.",
            )


def _changed(earlier: RunRecord, later: RunRecord) -> bool:
    """Whether ``later`` gives a known fact of a finished run another value. A fact that becomes known is no change."""
    # A release may take out what the one before kept.
    (earlier, _), (later, _) = redact(earlier), redact(later)
    if earlier.seed is not None and later.seed != earlier.seed:
        return True
    known = {(each.role, each.sha256) for each in earlier.data if each.sha256 is not None}
    if not known <= {(each.role, each.sha256) for each in later.data}:
        return True
    # Roles of metrics are the provider's words for them.
    results = (
        (each.status, dict(each.parameters), [(m.name, m.points, m.last) for m in each.metrics])
        for each in (earlier, later)
    )
    return next(results) != next(results)


def record_consistency(evidence: Evidence) -> Iterator[Finding]:
    """Facts of a record must not contradict each other, nor declarations name what no run has."""
    contents = evidence.contents
    index = contents.index
    for record in contents.records:
        started, ended = moment(record.started_at), moment(record.ended_at)
        if (started is None, ended is None) != (record.started_at is None, record.ended_at is None):
            yield finding("record-times", record.id, "a time is none that the calendar has")
        elif started and ended and ended < started:
            yield finding("record-times", record.id, "ended before it started")
        fact = record.fact(index.facts.seed)
        if record.seed is not None and seed_of(fact) != record.seed:
            # A run of an earlier release may keep its seed where an earlier fact map said.
            yield finding(
                "record-seed",
                record.id,
                f"seed {record.seed} is not what {index.facts.seed} says",
                "warning" if fact is None else "error",
            )
    chosen = contents.record(index.selection.run)
    if chosen is not None and chosen.deleted:
        yield finding(
            "selection-run-deleted",
            chosen.id,
            "the selected run was deleted in the tracker",
            "warning",
            "Ask why.",
        )
    known = {metric.name for record in contents.records for metric in record.metrics}
    for tolerance in index.reproducibility.tolerances:
        if tolerance.metric not in known:
            yield finding(
                "tolerance-unknown-metric", tolerance.metric, "no run has a metric of this name"
            )
    for gate in index.gates:
        if gate.metric not in known:
            yield finding("gate-unknown-metric", gate.metric, "no run has a metric of this name")


def record_histories(evidence: Evidence) -> Iterator[Finding]:
    """Each record's summary must follow from the raw history, and each history must belong to a record."""
    claimed = set()
    for record in evidence.contents.records:
        path = history_location(record.id)
        claimed.add(path)
        yield from _history_findings(evidence, record, path)
    for path in evidence.files.below("data/runs"):
        if path not in claimed:
            yield finding("history-orphan", path, "belongs to no run of the log")


def _history_findings(evidence: Evidence, record: RunRecord, path: str) -> Iterator[Finding]:
    if record.history is None:
        if record.metrics:
            yield finding("history-missing", record.id, "metrics are summarised without a history")
        return
    if (record.history.path, record.history.sha256) != (path, evidence.files.digests.get(path)):
        yield finding("history-digest", record.id, "the metric history is not the recorded one")
        return
    points = list(read_points(evidence.files.read(path), name=path))
    known = roles(evidence.contents.index.facts, {point.metric for point in points})
    expected = summarise(points, known)
    if expected == record.metrics:
        return
    unnamed = [
        tuple(replace(each, role="other") for each in group) for group in (expected, record.metrics)
    ]
    if unnamed[0] == unnamed[1] and record in _earlier_log(evidence):
        yield finding(
            "history-roles",
            record.id,
            "its metrics have the roles of an earlier release's fact map",
            "note",
        )
        return
    yield finding(
        "history-summary",
        record.id,
        "the summary of the metrics does not follow from the history",
    )


def _earlier_log(evidence: Evidence) -> tuple[RunRecord, ...]:
    """The records that the release before signed already."""
    previous = evidence.contents.index.previous
    return evidence.contents.log[: previous.log.size] if previous is not None else ()


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
                yield finding(
                    "artefact-digest", location, f"is not artefact {artefact.path} of the run"
                )
    for path in evidence.files.below("data/artefacts"):
        if path not in claimed:
            yield finding("artefact-orphan", path, "belongs to no run of the log")
    if absent:
        yield finding(
            "artefact-not-supplied",
            "log",
            f"{absent} artefacts are recorded by digest and not in the bundle",
            "note",
        )


def evidence_gaps(evidence: Evidence) -> Iterator[Finding]:
    """What is asked for and not shown, recomputed. What the build alone could see is shown as the provider's words."""
    found = {_gap_key(gap): gap for gap in gaps.gaps(_declared(evidence))}
    admitted = {_gap_key(gap): gap for gap in evidence.contents.index.gaps}
    for key, gap in found.items():
        if key not in admitted:
            yield finding(
                "gap-not-admitted", gap.subject, f"the bundle does not admit: {gap.message}"
            )
        yield _gap_finding(gap, gap.message)
    for key, gap in admitted.items():
        if key not in found:
            yield _gap_finding(gap, f"the provider says: {gap.message}")


def _gap_key(gap: Gap) -> tuple[str, ...]:
    """What a gap is about; its words may be put better in a later version of this program."""
    return gap.code, gap.level, gap.subject


def _gap_finding(gap: Gap, message: str) -> Finding:
    return finding(
        f"gap-{gap.level}",
        gap.subject,
        f"{message} ({gap.point})",
        "error" if gap.level == "required" else "note",
        gap.remedy,
    )


def _declared(evidence: Evidence) -> requirements.Declared:
    contents, index = evidence.contents, evidence.contents.index
    return requirements.Declared(
        system=index.system,
        selection=index.selection,
        reproducibility=index.reproducibility,
        gates=index.gates,
        facts=index.facts,
        records=contents.records,
        has_training_spec=contents.training is not None,
        code_files=len(evidence.files.below(contents.training.code)) if contents.training else 0,
        lock=evidence.lock,
        images=index.images,
    )
