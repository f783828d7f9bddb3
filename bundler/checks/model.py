"""What a check is and what it looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from bundler.attestation import Statement
from bundler.errors import MalformedError
from bundler.evidence import Contents, Files, lock_of
from bundler.gates import judge, measured
from bundler.history import read_points
from bundler.lockfiles import Lock
from bundler.policy import DEFAULT, Policy
from bundler.records import RunRecord
from bundler.report import ClaimName, Finding, Severity
from bundler.scoring import Measured
from bundler.spec import GateResult, Predecessor, Sampling


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What checks look at: files with known digests, parsed contents, the statement that a trusted key signed.

    ``schemas`` maps the file name of each schema of this program to its bytes. ``earlier`` is the release before, if
    the verifier has it, ``policy`` what the verifier accepts.
    """

    files: Files
    contents: Contents
    statement: Statement
    schemas: Mapping[str, bytes]
    earlier: Predecessor | None = None
    policy: Policy = DEFAULT

    @cached_property
    def lock(self) -> Lock | None:
        """The lock of the training, read once."""
        return lock_of(self.files, self.contents)

    @cached_property
    def gate_results(self) -> tuple[GateResult, ...]:
        """The gates, from the raw histories; nothing of the records' summaries is used. Each history is read once."""
        index = self.contents.index
        return judge(
            index.gates,
            index.selection.run,
            self.contents.records,
            index.facts,
            self.final,
            self.measured,
        )

    def final(self, record: RunRecord, metric: str) -> float | None:
        """The last value of a gated metric in the raw history of ``record``."""
        if record.id not in self._finals:
            wanted = {gate.metric for gate in self.contents.index.gates}
            self._finals[record.id] = self._last_values(record, wanted)
        return self._finals[record.id].get(metric)

    def measured(self, sampling: Sampling) -> Measured:
        """What the predictions of the selected run show. Raises :class:`MalformedError`, see :mod:`bundler.gates`."""
        if sampling not in self._measured:
            chosen = self.contents.record(self.contents.index.selection.run)
            try:
                self._measured[sampling] = measured(sampling, chosen, self.files.read)
            except MalformedError as error:
                self._measured[sampling] = error
        found = self._measured[sampling]
        if isinstance(found, MalformedError):
            raise found
        return found

    @cached_property
    def _finals(self) -> dict[str, dict[str, float]]:
        return {}

    @cached_property
    def _measured(self) -> dict[Sampling, Measured | MalformedError]:
        return {}

    def _last_values(self, record: RunRecord, metrics: set[str]) -> dict[str, float]:
        if record.history is None:
            return {}
        path = record.history.path
        points = read_points(self.files.read(path), name=path)
        return {point.metric: point.value for point in points if point.metric in metrics}


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
