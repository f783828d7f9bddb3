"""The declared columns of an experiment log: which title holds which fact, and of what type its cells are.

A spreadsheet has no types that could be trusted: a commit ``1234e5`` reads as a number, ``04/03/2026`` as two dates,
``0,912`` as anything. So nothing is guessed: ``columns`` of a source in ``bundle.yaml`` says it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

ValueType = Literal["text", "integer", "number", "boolean", "json"]
Unit = Literal["seconds", "minutes", "hours", "days", "clock"]
Encoding = Literal[
    "utf-8", "utf-16", "cp1250", "cp1252", "iso-8859-1", "iso-8859-15", "mac-roman", "cp850"
]

SERIAL = "serial"
"""The date format that takes a bare number for a day of the workbook's own calendar."""

_DIRECTIVES = set("YymdbBHIpMSfz%")


@dataclass(frozen=True, slots=True, kw_only=True)
class DateColumn:
    """When a run started. ``format`` is that of strptime (default: ISO 8601), or ``serial`` for a bare number.

    ``zone`` is the time zone of times that name none (an IANA name such as ``Europe/Berlin``).
    """

    column: str
    format: str | None = None
    zone: str = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class DurationColumn:
    """How long a run took: a number of ``unit``, or a ``clock`` time ``h:mm:ss``."""

    column: str
    unit: Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class WordColumn:
    """One of a few words; ``words`` gives those that the log uses the meaning of ours (``crashed: failed``)."""

    column: str
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterColumn:
    """A hyperparameter and its type. ``percent``: every cell has a percent sign, and 5% is 0.05."""

    column: str
    type: ValueType
    percent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricColumn:
    """A metric. ``percent``: every cell has a percent sign, and 91.2% is 0.912."""

    column: str
    percent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DataColumns:
    """A data set: its ``name`` (default: the key) and ``role`` are words, all others titles of columns.

    ``digest`` is a digest of another kind than SHA-256; ``used`` says of each run whether it read the data set, where
    no other column does.
    """

    name: str | None = None
    role: str | None = None
    version: str | None = None
    sha256: str | None = None
    rows: str | None = None
    source: str | None = None
    digest: str | None = None
    used: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogColumns:
    """Titles of the columns by what they hold. ``id`` names the run, and the folder with its artefacts.

    ``seed`` becomes the parameter ``seed``; ``hypothesis``, ``notes`` and ``outcome`` become tags, and so do ``tags``.
    ``header`` is the row with the titles, from 1. ``ignore`` lists columns that are left out on purpose: any other
    that is not named is flagged. ``booleans`` are words for yes and no besides ours, such as ``WAHR: true``.
    ``decimal``, ``encoding`` and ``separator`` say how a CSV file is written.
    """

    id: str
    name: str | None = None
    date: str | DateColumn | None = None
    duration: DurationColumn | None = None
    status: str | WordColumn | None = None
    outcome: str | WordColumn | None = None
    deleted: str | None = None
    hypothesis: str | None = None
    notes: str | None = None
    seed: str | None = None
    commit: str | None = None
    dirty: str | None = None
    repository: str | None = None
    branch: str | None = None
    entry_point: str | None = None
    data: Mapping[str, DataColumns] = field(default_factory=dict)
    parameters: Mapping[str, ParameterColumn] = field(default_factory=dict)
    metrics: Mapping[str, str | MetricColumn] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    booleans: Mapping[str, bool] = field(default_factory=dict)
    header: int = 1
    decimal: Literal[".", ","] = "."
    encoding: Encoding = "utf-8"
    separator: Literal[",", ";", "tab", "|"] = ","

    @property
    def when(self) -> DateColumn | None:
        """``date`` in its long form."""
        return DateColumn(column=self.date) if isinstance(self.date, str) else self.date

    def metric(self, name: str) -> MetricColumn:
        """Metric ``name`` in its long form."""
        found = self.metrics[name]
        return MetricColumn(column=found) if isinstance(found, str) else found

    @property
    def texts(self) -> dict[str, str]:
        """Titles of the columns that become tags, by tag."""
        named = {"hypothesis": self.hypothesis, "notes": self.notes}
        return {**{tag: title for tag, title in named.items() if title}, **self.tags}

    @property
    def titles(self) -> tuple[str, ...]:
        """All titles that are named, ``ignore`` left out."""
        return tuple(dict.fromkeys(self._titles()))

    def _titles(self) -> Iterator[str]:
        yield self.id
        columns: list[str | DateColumn | DurationColumn | WordColumn | None] = [
            self.name, self.date, self.duration, self.status, self.outcome, self.deleted, self.seed,
            self.commit, self.dirty, self.repository, self.branch, self.entry_point,
        ]  # fmt: skip
        yield from (each if isinstance(each, str) else each.column for each in columns if each)
        for each in self.data.values():
            found = (each.version, each.sha256, each.rows, each.source, each.digest, each.used)
            yield from filter(None, found)
        yield from (each.column for each in self.parameters.values())
        yield from (self.metric(name).column for name in self.metrics)
        yield from self.texts.values()

    def problems(self) -> Iterator[str]:
        """What the types allow and would not work, in words that begin with the key."""
        if self.header < 1:
            yield f"header: {self.header} is no row; the first one is 1"
        if self.seed is not None and "seed" in self.parameters:
            yield "seed: parameters.seed is declared as well; leave one of them out"
        for tag in sorted({"hypothesis", "notes", "outcome"} & self.tags.keys()):
            yield f"tags.{tag}: has a key of its own; write {tag} outside of tags"
        if self.when is not None and self.when.format not in {None, SERIAL}:
            yield from _format_problems(self.when.format or "")
        words = self.outcome.words if isinstance(self.outcome, WordColumn) else {}
        yield from _word_problems("outcome", words, OUTCOMES)
        words = self.status.words if isinstance(self.status, WordColumn) else {}
        yield from _word_problems("status", words, STATUSES)
        for name, each in self.parameters.items():
            if each.percent and each.type != "number":
                yield f"parameters.{name}.percent: only a number can be a percentage"


OUTCOMES = ("selected", "rejected", "baseline")
STATUSES = ("finished", "failed", "killed", "running", "scheduled", "unknown")


def _word_problems(key: str, words: Mapping[str, str], known: tuple[str, ...]) -> Iterator[str]:
    for word, meaning in words.items():
        if meaning not in known:
            yield f"{key}.words: {meaning!r} (for {word!r}) is none of {', '.join(known)}"


def _format_problems(text: str) -> Iterator[str]:
    found = re.findall(r"%(.?)", text, re.DOTALL)
    if unknown := sorted(set(found) - _DIRECTIVES):
        yield f"date.format: unknown directive %{unknown[0]}; known are %{', %'.join(sorted(_DIRECTIVES))}"
    for part, choices in (("year", "Yy"), ("month", "mbB"), ("day", "d")):
        count = sum(each in choices for each in found)
        if count != 1:
            yield f"date.format: the {part} stands {count} times, not once"
    if len(found) != len(set(found) - {"%"}) + found.count("%"):
        yield "date.format: a directive stands twice"
