"""From a row of an experiment log to a run, under the declared columns. Errors name file, sheet, row and column."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from pathlib import Path, PurePosixPath
from typing import TypeVar, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bundler.errors import SourceError
from bundler.importers.experiment_log import cells
from bundler.importers.experiment_log.cells import BadCell, Cell
from bundler.importers.experiment_log.columns import (
    OUTCOMES,
    SERIAL,
    STATUSES,
    DataColumns,
    LogColumns,
    MetricColumn,
    ParameterColumn,
    ValueType,
    WordColumn,
)
from bundler.importers.experiment_log.table import Row, Table, place
from bundler.importers.files import walk
from bundler.importers.model import ArtefactFile, ImportedRun
from bundler.importers.values import Flags
from bundler.manifest import is_sha256
from bundler.records import CodeVersion, DatasetVersion, MetricPoint, Scalar, Source, Status

T = TypeVar("T")

ESCAPED = re.compile(r"[\t\r\n']|[\s\ufeff\u200b]*[-=+@\uff1d\uff0b\uff0d\uff20]")
"""How a text begins that gets an apostrophe before it in our own logs, so that no spreadsheet program takes it for a
formula: some skip white space, or take full-width signs for signs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A table whose titles were understood. ``positions`` are those of its columns by title.

    ``own``: the titles are those of our own logs, which escape texts.
    """

    table: Table
    columns: LogColumns
    positions: dict[str, int]
    own: bool
    zone: tzinfo

    def key(self, row: Row) -> tuple[str, int | None]:
        """Experiment ID and start (milliseconds since 1970-01-01 UTC) of a row."""
        reader = _RowReader(self, row, Flags())
        return reader.id(), reader.started()

    def run(self, row: Row, artefacts: Path | None) -> ImportedRun:
        """The run that ``row`` is about, with the files of its folder in ``artefacts``."""
        flags = Flags()
        reader = _RowReader(self, row, flags)
        run_id, started = reader.id(), reader.started()
        ended = reader.ended(started)
        status = reader.status()
        reader.flag_row()
        sheet = self.table.sheet
        return ImportedRun(
            source=Source(
                tracker="experiment-log",
                store=self.table.kind,
                experiment_id=sheet,
                experiment=sheet,
                run_id=run_id,
            ),
            name=reader.text(self.columns.name, "name"),
            status=status,
            deleted=reader.boolean(self.columns.deleted, "deleted") or False,
            started=started,
            ended=ended,
            code=reader.code(),
            data=tuple(reader.data()),
            parameters=reader.parameters(),
            tags=reader.tags(),
            points=tuple(reader.points(ended or started or 0)),
            artefacts=tuple(_artefacts(run_id, artefacts, status, flags)),
            fidelity=flags.all(),
        )


def zone_of(name: str) -> tzinfo:
    """The time zone called ``name``. Raises :class:`SourceError`."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SourceError(
            f"columns.date.zone: {name!r} is no time zone that is known here",
            remedy="Give an IANA name such as Europe/Berlin, or leave it out: times are then in UTC.",
        ) from None


class _RowReader:
    """The facts of one row."""

    def __init__(self, log: Log, row: Row, flags: Flags) -> None:
        self._log = log
        self._columns = log.columns
        self._row = row
        self._flags = flags

    def id(self) -> str:
        found = self.text(self._columns.id, "run")
        if found is None:
            raise self._error(
                self._columns.id, "no experiment ID", "Give each experiment one, or clear the row."
            )
        return found

    def started(self) -> int | None:
        when = self._columns.when
        if when is None:
            return None

        def moment(cell: Cell) -> int:
            form, day = when.format, self._log.table.day
            if form == SERIAL:
                form = None
                found = day(float(cell.value)) if day and cell.kind == "number" else None
                if cell.kind != "date":
                    if found is None:
                        raise BadCell(f"{cell.shown} is no number of a day", "Format it as a date.")
                    cell = Cell(kind="date", value=found)
            milliseconds, day_only = cells.moment(cell, form, self._log.zone)
            if day_only:
                self._flags("times", "day_only", "the log has the day of the start, not the time")
            return milliseconds

        return self._value(when.column, "times", moment)

    def ended(self, started: int | None) -> int | None:
        declared = self._columns.duration
        if declared is None:
            return None

        def seconds(cell: Cell) -> float:
            return cells.seconds(cell, declared.unit, self._columns.decimal)

        found = self._value(declared.column, "times", seconds)
        if found is not None and started is None:
            self._flags("times", "no_start", f"a duration of {found:g} s without a date")
        return started + round(found * 1000) if found is not None and started is not None else None

    def status(self) -> Status:
        found = self._word(self._columns.status, "status", STATUSES)
        return cast(Status, found) if found else "finished"

    def code(self) -> CodeVersion:
        columns = self._columns
        return CodeVersion(
            repository=self.text(columns.repository, "code.repository"),
            commit=self._exact(columns.commit, "code.commit"),
            branch=self.text(columns.branch, "code.branch"),
            dirty=self.boolean(columns.dirty, "code.dirty"),
            entry_point=self.text(columns.entry_point, "code.entry_point"),
        )

    def data(self) -> Iterator[DatasetVersion]:
        for key, columns in self._columns.data.items():
            found = self._dataset(key, columns)
            if found is not None:
                yield found

    def parameters(self) -> dict[str, Scalar]:
        found: dict[str, Scalar] = {}
        for name, column in self._columns.parameters.items():
            held = self._parameter(f"parameters.{name}", column)
            if held is not None:
                found[name] = held[0]
        seed = self._integer(self._columns.seed, "seed")
        return found if seed is None else {**found, "seed": seed}

    def _parameter(self, field: str, column: ParameterColumn) -> tuple[Scalar] | None:
        """The value in a tuple: JSON's null is a value, an empty cell is none."""
        note, decimal = self._note(field), self._columns.decimal
        by_type: dict[ValueType, Callable[[Cell], Scalar]] = {
            "text": lambda cell: cells.free_text(cell, note),
            "integer": lambda cell: cells.integer(cell, decimal, note),
            "number": lambda cell: cells.number(cell, decimal, percent=column.percent),
            "boolean": lambda cell: cells.boolean(cell, self._columns.booleans),
            "json": cells.json_value,
        }
        return self._value(column.column, field, lambda cell: (by_type[column.type](cell),))

    def tags(self) -> dict[str, str]:
        found = {tag: self.text(title, f"tags.{tag}") for tag, title in self._columns.texts.items()}
        found["outcome"] = self._word(self._columns.outcome, "tags.outcome", OUTCOMES)
        return {tag: text for tag, text in sorted(found.items()) if text is not None}

    def points(self, timestamp: int) -> Iterator[MetricPoint]:
        """One point a metric. An empty cell is a metric that was not logged, and so is one that says NaN."""
        for name in sorted(self._columns.metrics):
            field = f"metrics.{name}"
            found = self._metric(field, self._columns.metric(name))
            if found is not None and math.isnan(found):
                self._flags(field, "nan_dropped", "the cell says NaN: taken as not logged")
            elif found is not None:
                yield MetricPoint(name, 0, timestamp, found)

    def _metric(self, field: str, column: MetricColumn) -> float | None:
        def number(cell: Cell) -> float:
            if cell.formula:
                raise BadCell(
                    "a formula: what it gives depends on other cells and on who opened the file last",
                    "Paste its value (paste special, values only).",
                )
            return cells.number(cell, self._columns.decimal, percent=column.percent)

        return self._value(column.column, field, number)

    def flag_row(self) -> None:
        """Flag what is special about the row: hidden, cut, or with cells that no column is declared for."""
        for flag in self._row.flags:
            self._flags("run", flag, f"row {self._row.number}")
        if self._log.table.hidden:
            self._flags("run", "hidden_sheet", self._log.table.sheet)
        columns = self._columns
        named = {*columns.titles, *columns.ignore}
        for title, position in self._log.positions.items():
            if title not in named and position in self._row.cells:
                self._flags("run", "column_ignored", title)
        if self._row.cells.keys() - set(self._log.positions.values()):
            self._flags("run", "column_ignored", "a column without a title")

    def text(self, title: str | None, field: str) -> str | None:
        note = self._note(field)
        return self._value(title, field, lambda cell: cells.free_text(cell, note))

    def boolean(self, title: str | None, field: str) -> bool | None:
        return self._value(title, field, lambda cell: cells.boolean(cell, self._columns.booleans))

    def _exact(self, title: str | None, field: str) -> str | None:
        return self._value(title, field, cells.exact_text)

    def _integer(self, title: str | None, field: str) -> int | None:
        note = self._note(field)
        return self._value(
            title, field, lambda cell: cells.integer(cell, self._columns.decimal, note)
        )

    def _word(
        self, column: str | WordColumn | None, field: str, known: tuple[str, ...]
    ) -> str | None:
        if column is None:
            return None
        declared = WordColumn(column=column) if isinstance(column, str) else column
        return self._value(
            declared.column, field, lambda cell: cells.word(cell, known, declared.words)
        )

    def _dataset(self, key: str, columns: DataColumns) -> DatasetVersion | None:
        field = f"data.{columns.name or key}"
        version = self._exact(columns.version, field)
        sha256 = self._sha256(columns.sha256, field)
        rows = self._integer(columns.rows, field)
        source = self.text(columns.source, field)
        digest = self._exact(columns.digest, field)
        used = self.boolean(columns.used, field)
        if used is None:
            used = any(each is not None for each in (version, sha256, rows, source, digest))
        if not used:
            return None
        return DatasetVersion(
            name=columns.name or key,
            role=columns.role,
            source=source,
            version=version,
            sha256=sha256,
            tracker_digest=digest,
            rows=rows,
        )

    def _sha256(self, title: str | None, field: str) -> str | None:
        found = self._exact(title, field)
        lowered = (found or "").lower().removeprefix("sha256:")
        if found is not None and not is_sha256(lowered):
            self._flags("data", "not_a_sha256", found[:80])
        return lowered if is_sha256(lowered) else None

    def _value(self, title: str | None, field: str, convert: Callable[[Cell], T]) -> T | None:
        """The converted cell under ``title``, ``None`` for an empty one. Raises :class:`SourceError` for a bad one."""
        cell = self._row.cells.get(self._log.positions[title]) if title is not None else None
        if title is None or cell is None:
            return None
        cell = self._trimmed(cell, field)
        if cell.formula and cell.kind != "uncalculated":
            self._flags(
                field, "formula", "the value is what a formula gave when the file was saved"
            )
        try:
            _refuse_without_value(cell, field)
            return convert(cell)
        except BadCell as bad:
            raise self._error(title, bad.problem, bad.remedy) from None

    def _trimmed(self, cell: Cell, field: str) -> Cell:
        """Text without the spaces around it, and without the apostrophe that our own logs put before some texts."""
        if cell.kind != "text":
            return cell
        text = str(cell.value)
        if self._log.own and text[:1] == "'" and ESCAPED.match(text, 1):
            return replace(cell, value=text[1:])
        bare = text.strip().strip("\ufeff\u200b")
        if bare != text:
            self._flags(field, "spaces_trimmed", "spaces around the text were left out")
        return replace(cell, value=bare)

    def _note(self, field: str) -> Callable[[str, str], None]:
        return lambda flag, detail: self._flags(field, flag, detail)

    def _error(self, title: str, problem: str, remedy: str) -> SourceError:
        table = self._log.table
        sheet = table.sheet if table.kind == "xlsx" else None
        where = place(table.file, sheet, self._row.number, self._log.positions[title], title)
        return SourceError(f"{where}: {problem}", remedy=remedy)


def _refuse_without_value(cell: Cell, field: str) -> None:
    if cell.kind == "error":
        raise BadCell(f"the error {cell.shown}", "Correct the formula or clear the cell.")
    # Of a metric, that it is a formula is the first thing to say.
    if cell.kind == "uncalculated" and not field.startswith("metrics."):
        raise BadCell(
            "a formula that was never calculated",
            "Open and save the file in a spreadsheet program, or paste its value.",
        )


def _artefacts(
    run_id: str, folder: Path | None, status: Status, flags: Flags
) -> Iterator[ArtefactFile]:
    """The files in the folder that has the experiment's ID as its name."""
    if folder is None:
        return
    path = PurePosixPath(run_id)
    if len(path.parts) != 1 or run_id in {".", ".."} or path.name != run_id or "\0" in run_id:
        flags("artefacts", "artefacts_unreachable", "the experiment ID is no name of a folder")
        return
    place_of = folder / run_id
    try:
        there = place_of.is_symlink() or place_of.exists()
    except OSError:
        # A name that is too long for a folder; what must not be looked at, walk() refuses.
        there = len(run_id.encode()) <= 255
    if not there and status == "finished":
        flags("artefacts", "missing", ".")
    if there:
        yield from walk(place_of, "", flags)
