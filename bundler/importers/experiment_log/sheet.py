"""One worksheet of an XLSX workbook as rows of cells, one row in memory at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from bundler.errors import SourceError, quoted
from bundler.importers.experiment_log.cells import Cell
from bundler.importers.experiment_log.table import (
    MAX_CELL,
    MAX_COLUMNS,
    MAX_ROWS,
    Row,
    Table,
    place,
)
from bundler.importers.experiment_log.workbook import Book, Sheet, part, unescaped
from bundler.importers.experiment_log.xml import Start

MAX_SHEET = 2 << 30
"""Most bytes of one worksheet, unpacked."""

MAX_RANGES = 10_000

_REFERENCE = re.compile(r"\$?([A-Z]{1,3})\$?([0-9]{1,7})")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")

Range = tuple[int, int, int, int]
"""First row, first column, last row, last column."""


def sheet_table(book: Book, sheet: Sheet, header: int) -> Table:
    """The table of ``sheet``, whose titles stand in row ``header``: merged cells above that are decoration."""
    return Table(
        file=book.file,
        kind="xlsx",
        sheet=sheet.name,
        rows=lambda: _SheetReader(book, sheet, header).rows(),
        day=book.day,
        hidden=sheet.hidden,
    )


@dataclass(slots=True)
class _Raw:
    """A cell while it is being read."""

    position: int
    kind: str
    style: int
    formula: bool = False
    value: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    formulas: list[str] = field(default_factory=list)
    length: int = 0


class _SheetReader:
    """Follows the events of a worksheet. State: the row and the cell that are open, and where formulas spill."""

    def __init__(self, book: Book, sheet: Sheet, header: int) -> None:
        self._book = book
        self._sheet = sheet
        self._header = header
        self._number = 0
        self._hidden = False
        self._next = 0
        self._cells: dict[int, Cell] = {}
        self._raw: _Raw | None = None
        self._open: set[str] = set()
        self._spilled: list[Range] = []

    def rows(self) -> Iterator[Row]:
        """All rows that hold something. Raises :class:`SourceError`, for merged cells at the end."""
        for event in part(self._book.file, self._book.archive, self._sheet.member, MAX_SHEET):
            if isinstance(event, str):
                self._text(event)
            elif isinstance(event, Start):
                self._start(event)
            elif event.name == "row":
                flags = ("hidden_row",) if self._hidden else ()
                yield Row(number=self._number, cells=self._cells, flags=flags)
            else:
                self._end(event.name)

    def _start(self, event: Start) -> None:
        get = event.attributes.get
        if event.name == "row":
            self._begin_row(get("r"), hidden=get("hidden") in {"1", "true"})
        elif event.name == "c":
            self._begin_cell(event)
        elif event.name == "mergeCell":
            self._refuse_merged(get("ref", ""))
        elif event.name in {"v", "t", "rPh"}:
            self._open.add(event.name)
        elif event.name == "f" and self._raw is not None:
            self._open.add("f")
            self._raw.formula = True
            # The other cells of an array formula or data table hold a value only.
            if get("t") in {"array", "dataTable"}:
                self._spilled.append(self._range(get("ref", "")))
                if len(self._spilled) > MAX_RANGES:
                    raise self._problem(f"more than {MAX_RANGES:,} array formulas")

    def _begin_row(self, number: str | None, *, hidden: bool) -> None:
        found = int(number) if number and re.fullmatch("[0-9]{1,7}", number) else self._number + 1
        if not self._number < found <= MAX_ROWS:
            raise self._problem(f"row {quoted(number)} after row {self._number}")
        self._number, self._hidden, self._next, self._cells = found, hidden, 0, {}

    def _begin_cell(self, event: Start) -> None:
        get = event.attributes.get
        position, reference = self._next, get("r")
        if reference is not None:
            row, position, *_ = self._range(reference)
            if row != self._number:
                raise self._problem(f"cell {quoted(reference)} in row {self._number}")
        if not self._next <= position < MAX_COLUMNS:
            raise self._problem(f"cell {quoted(reference)} is not to the right of the one before")
        self._next = position + 1
        style = get("s", "0")
        self._raw = _Raw(
            position, get("t", "n"), int(style) if re.fullmatch("[0-9]{1,6}", style) else 0
        )

    def _text(self, event: str) -> None:
        raw = self._raw
        if raw is None or not self._open & {"v", "t", "f"} or "rPh" in self._open:
            return
        raw.length += len(event)
        if raw.length > MAX_CELL:
            raise SourceError(
                f"{self._place(raw.position)}: a cell of more than {MAX_CELL:,} characters",
                remedy="Put the text into a file in the folder of the run's artefacts.",
            )
        if "f" in self._open:
            raw.formulas.append(event)
        else:
            (raw.texts if "t" in self._open else raw.value).append(event)

    def _end(self, name: str) -> None:
        self._open.discard(name)
        if name == "c" and self._raw is not None:
            cell = self._cell(self._raw)
            if cell is not None:
                self._cells[self._raw.position] = cell
            self._raw = None

    def _cell(self, raw: _Raw) -> Cell | None:
        value = "".join(raw.value)
        # LibreOffice spells a plain truth value as a formula.
        constant = "".join(raw.formulas) in {"TRUE()", "FALSE()"}
        formula = (raw.formula and not constant) or any(
            top <= self._number <= bottom and left <= raw.position <= right
            for top, left, bottom, right in self._spilled
        )
        if raw.kind in {"s", "str", "inlineStr"}:
            text = self._words(raw, value)
            return Cell(kind="text", value=text, formula=formula) if text.strip() else None
        if not value:
            return Cell(kind="uncalculated", value="", formula=True) if formula else None
        if raw.kind == "e":
            return Cell(kind="error", value=value, formula=formula)
        if raw.kind == "b":
            return Cell(kind="boolean", value=value in {"1", "true"}, formula=formula)
        if raw.kind == "d":
            return Cell(kind="date", value=value, formula=formula)
        if raw.kind != "n" or not _NUMBER.fullmatch(value) or math.isinf(float(value)):
            raise SourceError(
                f"{self._place(raw.position)}: {quoted(value)} is no value of a workbook (type {quoted(raw.kind)})",
                remedy="No spreadsheet program writes this; save the workbook anew, or use an intact copy.",
            )
        return self._number_cell(float(value), raw, formula=formula)

    def _words(self, raw: _Raw, value: str) -> str:
        if raw.kind == "inlineStr":
            return unescaped("".join(raw.texts))
        if raw.kind == "str":
            return unescaped(value)
        strings = self._book.strings
        if not re.fullmatch("[0-9]{1,9}", value) or int(value) >= len(strings):
            if not value:
                return ""
            raise self._problem(
                f"cell {raw.position + 1} of row {self._number}: no text {quoted(value)}"
            )
        return strings[int(value)]

    def _number_cell(self, value: float, raw: _Raw, *, formula: bool) -> Cell:
        styles = self._book.styles
        style = styles[raw.style] if raw.style < len(styles) else "number"
        if style == "time" and value >= 0:
            return Cell(kind="duration", value=round(value * 86_400_000) / 1000, formula=formula)
        if style in {"date", "time"}:
            day = self._book.day(value)
            if day is None:
                return Cell(kind="error", value=f"{value} formatted as a date", formula=formula)
            return Cell(kind="date", value=day, formula=formula)
        return Cell(kind="number", value=value, formula=formula, percent=style == "percent")

    def _refuse_merged(self, reference: str) -> None:
        top, left, bottom, _ = self._range(reference)
        if bottom >= self._header:
            raise SourceError(
                f"{place(self._book.file, self._sheet.name, max(top, self._header), left)}:"
                f" the merged cells {quoted(reference)} hold one value for several",
                remedy="Unmerge them, and write the value into each cell that it is meant for.",
            )

    def _range(self, reference: str) -> Range:
        ends = [_REFERENCE.fullmatch(each) for each in reference.split(":", 1)]
        if not all(ends):
            raise self._problem(f"no cells {quoted(reference)}")
        places = [(int(end[2]), _position(end[1])) for end in ends if end]
        return (*places[0], *places[-1])

    def _place(self, position: int) -> str:
        return place(self._book.file, self._sheet.name, self._number, position)

    def _problem(self, words: str) -> SourceError:
        return SourceError(
            f"{place(self._book.file, self._sheet.name, self._number)}: {words}",
            remedy="No spreadsheet program writes this; save the workbook anew, or use an intact copy.",
        )


def _position(name: str) -> int:
    position = 0
    for letter in name:
        position = position * 26 + ord(letter) - 64
    return position - 1
