"""The closed list of checks on what a bundle says. An installed package cannot add to it or take from it.

Each check is a pure function from the evidence to findings. What a finding's code means, and the test vector that
provokes it, is in docs/findings.md. Checks on files come before these (:mod:`bundler.evidence`), the re-run after.
"""

from __future__ import annotations

from bundler.checks import (
    completeness,
    evaluation,
    gates,
    mechanisms,
    names,
    release,
    selection,
    training,
)
from bundler.checks.model import Check, Evidence, finding
from bundler.errors import MalformedError
from bundler.report import Finding

__all__ = ["CHECKS", "Check", "Evidence", "run_check"]

CHECKS: tuple[Check, ...] = (
    Check(
        id="statement.subject",
        claim="authenticity",
        title="the signed statement is about these files",
        run=release.statement_subject,
    ),
    Check(
        id="statement.release",
        claim="authenticity",
        title="the signed statement names this release",
        run=release.statement_release,
    ),
    Check(
        id="files.bag-info",
        claim="integrity",
        title="bag-info.txt and VERIFY.md are what the format makes of the payload",
        run=release.bag_information,
    ),
    Check(
        id="log.checkpoint",
        claim="integrity",
        title="the log is as long and ends as signed",
        run=release.log_checkpoint,
    ),
    Check(
        id="log.continuity",
        claim="integrity",
        title="the log continues that of the release before",
        run=release.log_continuity,
    ),
    Check(
        id="schema.files",
        claim="completeness",
        title="the schemas are the known ones",
        run=completeness.schema_files,
    ),
    Check(
        id="schema.conformance",
        claim="completeness",
        title="everything satisfies its schema",
        run=completeness.schema_conformance,
    ),
    Check(
        id="records.amendments",
        claim="completeness",
        title="replaced records are shown",
        run=completeness.record_amendments,
    ),
    Check(
        id="records.consistency",
        claim="completeness",
        title="facts do not contradict each other",
        run=completeness.record_consistency,
    ),
    Check(
        id="records.histories",
        claim="completeness",
        title="summaries follow from the raw metric histories",
        run=completeness.record_histories,
    ),
    Check(
        id="records.artefacts",
        claim="completeness",
        title="artefacts have the recorded bytes",
        run=completeness.record_artefacts,
    ),
    Check(
        id="evidence.gaps",
        claim="completeness",
        title="every required fact of every run is shown",
        run=completeness.evidence_gaps,
    ),
    Check(
        id="training.specification",
        claim="completeness",
        title="the training specification is that of the selected run",
        run=training.training_specification,
    ),
    Check(
        id="evaluation.specification",
        claim="completeness",
        title="the evaluation scores the model of this release with the code that was examined",
        run=evaluation.evaluation_specification,
    ),
    Check(
        id="reproducibility.mechanisms",
        claim="completeness",
        title="claimed mechanisms are set in the recorded environment",
        run=mechanisms.claimed_mechanisms,
    ),
    Check(
        id="records.names",
        claim="selection",
        title="changed names and attached metrics favour no run",
        run=names.changed_names,
    ),
    Check(
        id="selection.criteria",
        claim="selection",
        title="the criteria leave the hold-out alone and came first",
        run=selection.selection_criteria,
    ),
    Check(
        id="selection.winner",
        claim="selection",
        title="the selected run wins among all eligible runs",
        run=selection.selection_winner,
    ),
    Check(
        id="selection.exclusions",
        claim="selection",
        title="excluded runs are in the log, with reasons",
        run=selection.selection_exclusions,
    ),
    Check(
        id="gates.declarations",
        claim="gates",
        title="gates are about the hold-out, at a confidence that means something",
        run=gates.gate_declarations,
    ),
    Check(
        id="gates.repetitions",
        claim="gates",
        title="no repetition is disguised, and one seed gives one result",
        run=gates.gate_repetitions,
    ),
    Check(
        id="gates.verdicts",
        claim="gates",
        title="the pessimistic bound of every gate meets its threshold",
        run=gates.gate_verdicts,
    ),
    Check(
        id="gates.summary",
        claim="gates",
        title="the bundle's own summary is what the runs give",
        run=gates.gate_summary,
    ),
)
"""All checks on contents, in the order in which they run and are reported."""


def run_check(check: Check, evidence: Evidence) -> tuple[Finding, ...]:
    """All findings of ``check``; bytes that cannot be read are a finding as well."""
    findings: list[Finding] = []
    try:
        findings.extend(check.run(evidence))
    except MalformedError as error:
        findings.append(finding(error.code, "bundle", error.message))
    return tuple(findings)
