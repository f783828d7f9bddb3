"""What the pages show, worked out from the evidence: which runs, in which order, with which verdicts.

Nothing here decides anything about the bundle. Verdicts come from a report, or are shown as the provider's own words.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bundler.attestation import Statement
from bundler.chain import checkpoint
from bundler.errors import MalformedError, UsageError
from bundler.evidence import Contents, Files, lock_of
from bundler.gates import deciding_metrics, overstatement_of
from bundler.history import read_points
from bundler.lockfiles import Lock
from bundler.records import (
    RUN_ID,
    Artefact,
    MetricPoint,
    RunRecord,
    Scalar,
    artefact_location,
    history_location,
)
from bundler.report import CLAIMS, Claim, ClaimName, Report, Rerun, Verdict
from bundler.selection import Candidate, compete, repetitions
from bundler.site.reexecution import ComparedMetric, Rung, ladder, mean, trajectory
from bundler.spec import Checkpoint, Gate, GateResult
from bundler.statistics import sample_variance
from bundler.storage.hashing import digest_bytes
from bundler.trust import Key

SHORT_LIST = 5
"""Candidates that are shown in detail, the best first."""

ALL_PAGES = 200
"""Up to so many runs each have a page; of a larger log, the runs that an argument rests on."""

MAX_CURVES = 4
"""Metrics whose learning curves are shown."""

_ROLES = ("validation", "training", "hold-out", "other")

MAX_PAGES = 400
"""Most pages of single runs. What is left out is counted and said."""

QUESTIONS: dict[ClaimName, str] = {
    "integrity": "Are these the files that the manifests name, and is the log whole?",
    "authenticity": "Did a trusted key sign exactly these files?",
    "completeness": "Is every required fact of every run shown?",
    "selection": "Does the selected run win under the declared rule?",
    "gates": "Does the pessimistic bound of every gate meet its threshold?",
    "reproduction": "Does the specified training give the declared result again?",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRow:
    """A claim of the ladder as the Overview shows it. ``word`` is a verdict, or "no report".

    ``verdict`` is the word of the statistical rule, where there is one for the claim.
    """

    name: ClaimName
    question: str
    word: str
    summary: str
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run with its place in the competition (``rank`` from 1, best first), in the log, and on the site.

    ``lines`` are its lines of the log, from 1; ``line_sha256`` is of the last of them. ``page`` is the file name of
    its page, if it has one. ``seconds`` is ``None`` where a time is missing.
    """

    record: RunRecord
    candidate: Candidate
    rank: int | None
    lines: tuple[int, ...]
    line_sha256: str
    page: str | None
    seconds: float | None

    @property
    def outcome(self) -> str:
        """The status; a deleted run says so, whatever its status is."""
        return f"{self.record.status}, deleted" if self.record.deleted else self.record.status


@dataclass(frozen=True, slots=True, kw_only=True)
class GateView:
    """A gate with what the bundle says of it, what the report found, and the value of every run that counts."""

    gate: Gate
    declared: GateResult | None
    recomputed: GateResult | None
    values: tuple[float, ...]

    @property
    def result(self) -> GateResult | None:
        """What was recomputed if there is a report, else what the bundle says."""
        return self.recomputed or self.declared


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One metric over the repetitions: a value a run (``None``: missing), their mean and standard deviation."""

    metric: str
    values: tuple[float | None, ...]
    mean: float | None
    deviation: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Everything that the pages show. ``statement`` and ``key`` are there if the signature was checked."""

    files: Files
    contents: Contents
    report: Report | None
    statement: Statement | None
    key: Key | None
    checkpoint: Checkpoint
    runs: tuple[RunView, ...]
    selected: RunView
    repeated: tuple[RunView, ...]
    gates: tuple[GateView, ...]
    lock: Lock | None

    @property
    def candidates(self) -> tuple[RunView, ...]:
        """The runs that competed, best first."""
        return tuple(run for run in self.runs if run.rank is not None)

    @property
    def short_list(self) -> tuple[RunView, ...]:
        """The best candidates."""
        return self.candidates[:SHORT_LIST]

    @property
    def curve_runs(self) -> tuple[RunView, ...]:
        """The runs whose learning curves are shown: the selected one first, then the short list."""
        by_id = {run.record.id: run for run in (self.selected, *self.short_list)}
        return tuple(by_id.values())

    @property
    def curves(self) -> tuple[str, ...]:
        """The metrics whose learning curves are shown: of the selected run, validation first."""
        found = [each for each in self.selected.record.metrics if each.points > 1]
        found.sort(key=lambda each: (_ROLES.index(each.role), each.name))
        return tuple(each.name for each in found[:MAX_CURVES])

    @property
    def paged(self) -> tuple[RunView, ...]:
        """The runs that have a page."""
        return tuple(run for run in self.runs if run.page is not None)

    @property
    def claims(self) -> tuple[ClaimRow, ...]:
        """The six claims, whether or not there is a report."""
        said: dict[ClaimName, Claim] = {}
        judged = self.report.judgement if self.report is not None else None
        if self.report is not None:
            said = {claim.name: claim for claim in self.report.claims}
        return tuple(
            ClaimRow(
                name=name,
                question=QUESTIONS[name],
                word=said[name].status if name in said else "no report",
                summary=said[name].summary if name in said else "",
                verdict=judged.verdict if judged and name == "reproduction" else None,
            )
            for name in CLAIMS
        )

    @property
    def outcomes(self) -> tuple[tuple[str, int], ...]:
        """Number of runs by outcome, the most frequent first."""
        counts = Counter(run.outcome for run in self.runs)
        return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that arguments rest on: of the selection, its constraints, the gates and the tolerances."""
        index = self.contents.index
        tolerated = (each.metric for each in index.reproducibility.tolerances)
        return tuple(dict.fromkeys((*deciding_metrics(index), *tolerated)))

    @property
    def spreads(self) -> tuple[Spread, ...]:
        """Those metrics over the repetitions of the selected configuration."""
        return tuple(_spread(name, [run.record for run in self.repeated]) for name in self.metrics)

    @property
    def standings(self) -> tuple[tuple[str, int], ...]:
        """Number of runs by standing in the competition, in order of their first run."""
        return tuple(Counter(run.candidate.standing for run in self.runs).items())

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that are not the same in all runs, the seed left out."""
        values: dict[str, set[Scalar]] = {}
        for run in self.runs:
            for name, value in run.record.parameters.items():
                values.setdefault(name, set()).add(value)
        seed = self.contents.index.facts.seed.removeprefix("parameters.")
        return tuple(name for name in sorted(values) if len(values[name]) > 1 and name != seed)

    def margin(self, metric: str) -> float | None:
        """The declared tolerance of ``metric``."""
        tolerances = self.contents.index.reproducibility.tolerances
        return next((each.margin for each in tolerances if each.metric == metric), None)

    @property
    def compared(self) -> tuple[ComparedMetric, ...]:
        """The judged metrics of the verifier's own seeds, as the report has them."""
        judgement = self.report.judgement if self.report else None
        index = self.contents.index
        tolerances = index.reproducibility.tolerances
        sides = {each.metric: overstatement_of(each, index) for each in tolerances}
        return tuple(
            ComparedMetric(result=each, overstatement=sides.get(each.metric))
            for each in (judgement.metrics if judgement else ())
        )

    @property
    def margins(self) -> dict[str, float]:
        """The margin of each metric: the declared one, or the lower one that the verifier's policy allows."""
        declared = self.contents.index.reproducibility.tolerances
        margins = {each.metric: each.margin for each in declared}
        used = {each.result.metric: each.result.margin for each in self.compared}
        return margins | {name: value for name, value in used.items() if value is not None}

    @property
    def deviations(self) -> dict[str, float]:
        """The standard deviation between the provider's seeds, of each metric that has one."""
        found = {each.metric: each.deviation for each in self.spreads}
        return {name: value for name, value in found.items() if value is not None}

    def ladder(self, rerun: Rerun) -> tuple[Rung, ...]:
        """The comparison of the declared seed, from bytes to metrics."""
        return ladder(rerun, self.margins, self.deviations)

    def trajectory(self, rerun: Rerun) -> str:
        """What can be said of a re-run whose weights differ."""
        return trajectory(rerun, self.margins, self.deviations)

    def artefact_file(self, run: RunView, artefact: Artefact) -> str | None:
        """Where the bytes of ``artefact`` lie in the bundle, if they are there."""
        location = artefact_location(run.record.id, artefact)
        return location if location in self.files else None

    def points(self, run: RunView) -> tuple[MetricPoint, ...]:
        """The metric history of ``run``. Raises :class:`MalformedError` (``history-syntax``)."""
        path = history_location(run.record.id)
        if path not in self.files:
            return ()
        return tuple(read_points(self.files.read(path), name=path))


def make_model(
    files: Files,
    contents: Contents,
    report: Report | None,
    signed: tuple[Statement, Key] | None,
) -> Model:
    """Return the view of ``contents``.

    Raises :class:`UsageError` if ``report`` is about another bundle, and :class:`MalformedError` for a statement about
    another one (``statement-subject``, ``log-checkpoint``), an unsafe run id (``run-id``) or an unknown selected run
    (``selection-run-unknown``).
    """
    if report is not None and report.subject.tag_manifest_sha256 != files.tag_manifest_sha256:
        raise UsageError(
            "the report is about another bundle"
            f" (tag manifest {(report.subject.tag_manifest_sha256 or 'unknown')[:16]})",
            remedy="Write one about this bundle: verify-bundle BUNDLE --trust KEY.pem --report FILE.",
        )
    log = checkpoint(contents.lines)
    if signed is not None:
        _hold_against(signed[0], files, log)
    runs = _runs(contents)
    selected = next((run for run in runs if run.record.id == contents.index.selection.run), None)
    if selected is None:
        raise MalformedError("selection-run-unknown", "the selected run is not in the log")
    index = contents.index
    repeated = repetitions(index.selection.run, contents.records, index.facts)
    by_id = {run.record.id: run for run in runs}
    return Model(
        files=files,
        contents=contents,
        report=report,
        statement=signed[0] if signed else None,
        key=signed[1] if signed else None,
        checkpoint=log,
        runs=runs,
        selected=selected,
        repeated=tuple(by_id[record.id] for record in repeated),
        gates=tuple(_gates(contents, report, repeated)),
        lock=lock_of(files, contents),
    )


def _hold_against(statement: Statement, files: Files, log: Checkpoint) -> None:
    if statement.tag_manifest_sha256 != files.tag_manifest_sha256:
        raise MalformedError(
            "statement-subject", "the signed statement is about another bundle than this one"
        )
    if statement.release.log != log:
        raise MalformedError("log-checkpoint", "the log is not the one that was signed")


def _runs(contents: Contents) -> tuple[RunView, ...]:
    """All runs, in order of the competition: candidates first and best first."""
    index = contents.index
    lines: dict[str, list[int]] = {}
    for number, record in enumerate(contents.log, start=1):
        if not RUN_ID.fullmatch(record.id):
            raise MalformedError(
                "run-id", f"line {number} of the log: the run id is not a plain name"
            )
        lines.setdefault(record.id, []).append(number)
    records = {record.id: record for record in contents.records}
    standings = compete(contents.records, index.selection, index.facts)
    shown = _with_page(contents, standings)
    runs = []
    for position, candidate in enumerate(standings, start=1):
        numbers = lines[candidate.run]
        # The number keeps names apart on file systems without upper and lower case.
        page = f"{numbers[-1]:04d}-{candidate.run}.html" if candidate.run in shown else None
        runs.append(
            RunView(
                record=records[candidate.run],
                candidate=candidate,
                rank=position if candidate.standing == "candidate" else None,
                lines=tuple(numbers),
                line_sha256=digest_bytes(contents.lines[numbers[-1] - 1]),
                page=page,
                seconds=records[candidate.run].seconds,
            )
        )
    return tuple(runs)


def _with_page(contents: Contents, standings: Sequence[Candidate]) -> set[str]:
    """Ids of the runs that get a page: all, or those that an argument rests on, the most important first."""
    if len(standings) <= ALL_PAGES:
        return {each.run for each in standings}
    index = contents.index
    wanted = [index.selection.run]
    wanted += [each.run for each in standings if each.standing == "candidate"][:SHORT_LIST]
    wanted += [
        record.id for record in repetitions(index.selection.run, contents.records, index.facts)
    ]
    wanted += [each.run for each in index.selection.exclusions]
    wanted += [
        record.id for record in contents.records if record.deleted or record.status != "finished"
    ]
    known = {each.run for each in standings}
    return set([run for run in dict.fromkeys(wanted) if run in known][:MAX_PAGES])


def _gates(
    contents: Contents, report: Report | None, repeated: Iterable[RunRecord]
) -> Iterable[GateView]:
    declared = {result.gate: result for result in contents.index.gate_results}
    recomputed = {result.gate: result for result in report.gates} if report else {}
    runs = tuple(repeated)
    for gate in contents.index.gates:
        found = [record.value(gate.metric) for record in runs]
        yield GateView(
            gate=gate,
            declared=declared.get(gate.name),
            recomputed=recomputed.get(gate.name),
            values=tuple(value for value in found if value is not None),
        )


def _spread(metric: str, records: Sequence[RunRecord]) -> Spread:
    values = tuple(record.value(metric) for record in records)
    known = [value for value in values if value is not None]
    return Spread(
        metric=metric,
        values=values,
        mean=mean(known),
        deviation=math.sqrt(sample_variance(known)) if len(known) > 1 else None,
    )
