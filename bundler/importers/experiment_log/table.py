"""An experiment log as rows of cells, one in memory at a time; here from a CSV file.

Nothing is made of a cell's text here. Rows count from 1, empty ones included, as a spreadsheet program shows them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import SourceError, quoted
from bundler.importers.experiment_log.cells import Cell
from bundler.importers.experiment_log.columns import LogColumns
from bundler.importers.files import too_large, unreadable

MAX_ROWS = 1 << 20
MAX_COLUMNS = 1 << 14
"""What a worksheet can have."""

MAX_CELL = 131_072
"""Most characters of one cell; a worksheet's can have 32,767."""

MAX_ROW = 1 << 23
"""Most characters of one row of a CSV file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row with its cells by position from 0, the empty ones left out.

    ``flags`` are fidelity flags about the row as a whole, such as ``hidden_row``.
    """

    number: int
    cells: dict[int, Cell]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One sheet: ``rows`` gives them all anew. ``day`` makes a date of a bare number, by the workbook's calendar."""

    file: Path
    kind: str
    sheet: str
    rows: Callable[[], Iterator[Row]]
    day: Callable[[float], str | None] | None = None
    hidden: bool = False


def place(
    file: Path, sheet: str | None, row: int, column: int | None = None, title: str = ""
) -> str:
    """Where something is, as its reader looks for it: file, sheet, row, column."""
    words = [quoted(str(file), 200)]
    if sheet is not None:
        words.append(f"sheet {quoted(sheet)}")
    if row:
        words.append(f"row {row}")
    if column is not None:
        words.append(f"column {letters(column)}" + (f" ({quoted(title)})" if title else ""))
    return ", ".join(words)


def letters(column: int) -> str:
    """The letters of a column, from position 0."""
    name, column = "", column + 1
    while column:
        column, digit = divmod(column - 1, 26)
        name = chr(65 + digit) + name
    return name


@contextmanager
def csv_table(file: Path, columns: LogColumns | None) -> Iterator[Table]:
    """The one table of a CSV file, in the declared encoding and with the declared separator."""
    encoding = columns.encoding if columns else "utf-8"
    separator = columns.separator if columns else ","
    header = columns.header if columns else 1
    yield Table(
        file=file,
        kind="csv",
        sheet=file.stem,
        rows=lambda: _csv_rows(file, encoding, "\t" if separator == "tab" else separator, header),
    )


def _csv_rows(file: Path, encoding: str, separator: str, header: int) -> Iterator[Row]:
    try:
        with file.open("rb") as raw:
            _refuse_other_marks(file, raw.peek(4)[:4], encoding)
            # utf-8-sig takes a mark at the beginning, which Excel writes, and does not need one.
            codec = "utf-8-sig" if encoding == "utf-8" else encoding
            stream = io.TextIOWrapper(raw, encoding=codec, newline="")
            yield from _parsed(file, _Lines(file, stream), separator, header)
    except OSError as error:
        raise unreadable(file, error) from None


class _Lines:
    """Lines of a text file within bounds. ``row`` is set by whoever reads rows of them."""

    def __init__(self, file: Path, stream: io.TextIOWrapper) -> None:
        self._file = file
        self._stream = stream
        self.row = 1
        self.taken = 0
        self.ended = True

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(MAX_ROW)
        if not line:
            raise StopIteration
        self.taken += len(line)
        self.ended = line.endswith(("\n", "\r"))
        if self.taken >= MAX_ROW:
            raise too_large(self._file, f"{MAX_ROW:,} characters in row {self.row}")
        if "\0" in line:
            raise SourceError(
                f"{place(self._file, None, self.row)}: a NUL character",
                remedy="The file is damaged, or in UTF-16: then declare encoding: utf-16.",
            )
        return line


def _parsed(file: Path, lines: _Lines, separator: str, header: int) -> Iterator[Row]:
    reader = csv.reader(lines, delimiter=separator, strict=True)
    # Before the header there may be anything.
    width = MAX_COLUMNS
    while True:
        lines.taken = 0
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise _unparsed(file, lines.row, error) from None
        except UnicodeError as error:
            raise SourceError(
                f"{place(file, None, lines.row)}: here or soon after, {error}",
                remedy="Save it as UTF-8 (CSV UTF-8 in Excel), or declare its encoding, such as cp1252.",
            ) from None
        if values is None:
            return
        if lines.row > MAX_ROWS:
            raise too_large(file, f"{MAX_ROWS:,} rows")
        width = max(len(values), 1) if lines.row == header else width
        yield _row(file, lines, values, width)
        lines.row += 1


def _row(file: Path, lines: _Lines, values: list[str], width: int) -> Row:
    """A row; one that is cut at the end of the file is flagged, one that is wider than the first is refused."""
    cells = {
        position: Cell(kind="text", value=value)
        for position, value in enumerate(values)
        if value and not value.isspace()
    }
    last = max(cells, default=0)
    if last >= width:
        raise SourceError(
            f"{place(file, None, lines.row)}: {last + 1} cells, but the row of the titles has {width}",
            remedy="Put a value that holds the separator (or a decimal comma) in quotes, or declare"
            " the separator that the file has.",
        )
    cut = bool(cells) and not lines.ended and len(values) < width < MAX_COLUMNS
    return Row(number=lines.row, cells=cells, flags=("truncated",) if cut else ())


def _unparsed(file: Path, row: int, error: csv.Error) -> SourceError:
    reasons = {
        "unexpected end of data": "a quote that is never closed",
        "field larger than": f"a cell of more than {MAX_CELL:,} characters",
        "expected after": "text follows a closing quote",
    }
    known = next((words for start, words in reasons.items() if start in str(error)), str(error))
    return SourceError(
        f"{place(file, None, row)}: {known}",
        remedy='A cell with quotes in it stands in quotes, and each quote in it twice (""). An unclosed one may'
        " swallow all rows up to here.",
    )


def _refuse_other_marks(file: Path, start: bytes, encoding: str) -> None:
    """A mark at the beginning says what the file is written in."""
    marks = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8"}
    marked = next((name for mark, name in marks.items() if start.startswith(mark)), None)
    if marked is not None and marked != encoding:
        raise SourceError(
            f"{quoted(str(file), 200)} begins with the mark of {marked}, and is read as {encoding}",
            remedy=f"Declare encoding: {marked} among its columns.",
        )
    if start.startswith((b"PK\3\4", b"\xd0\xcf\x11\xe0")):
        raise SourceError(
            f"{quoted(str(file), 200)} is a workbook, not a CSV file",
            remedy="Name it .xlsx (an older .xls has to be saved as .xlsx).",
        )
