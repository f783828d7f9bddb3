"""Experiment logs kept by hand: a CSV file, or a sheet of an XLSX workbook, with one row an experiment.

What spreadsheets do to values, and what is done about it here: types come from declared columns (:mod:`.columns`) or
from our own titles (:mod:`.titles`), never from a look at the values. A cell that is not of its type is refused with
its place; a formula is never taken for a metric. Hidden rows and sheets, trimmed spaces and columns that nobody
declared are flagged.
"""

from __future__ import annotations

import json
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bundler.errors import SourceError, quoted
from bundler.importers.archives import opened
from bundler.importers.experiment_log.cells import Cell
from bundler.importers.experiment_log.columns import LogColumns
from bundler.importers.experiment_log.runs import Log, zone_of
from bundler.importers.experiment_log.sheet import sheet_table
from bundler.importers.experiment_log.table import Row, Table, csv_table, letters, place
from bundler.importers.experiment_log.titles import EXAMPLE, ID, from_titles, suggestion
from bundler.importers.experiment_log.workbook import book
from bundler.importers.experiments import Experiment, choose, ordered
from bundler.importers.files import unreadable
from bundler.importers.model import ImportedRun, ImportSession, Store

_SNIFFED = 1 << 16


class ExperimentLogImporter:
    """Reads experiment logs: ``*.csv`` and ``*.xlsx``. An experiment is a sheet; a CSV file has one, of its name.

    ``columns`` declares the columns; without them, the titles have to be those of our own logs.
    """

    name = "experiment-log"

    def __init__(self, columns: LogColumns | None = None) -> None:
        self._columns = columns

    def mapped(self, columns: LogColumns) -> ExperimentLogImporter:
        """The importer for a log with these columns."""
        return ExperimentLogImporter(columns)

    def detect(self, folder: Path) -> tuple[Path, ...]:
        """Files with the title of the ID of our own logs."""
        found = []
        with suppress(OSError):
            for path in sorted(folder.iterdir()):
                with suppress(OSError, SourceError):
                    if _is_own(path):
                        found.append(path)
        return tuple(found)

    def experiments(self, store: Store) -> tuple[str, ...]:
        """Names of the sheets with experiments, those with most rows first."""
        with self._opened(_file(store)) as tables:
            return tuple(each.name for each in ordered(self._logs(tables)))

    @contextmanager
    def open(
        self, store: Store, *, experiment: str | None, artefacts: Path | None
    ) -> Iterator[ImportSession]:
        """Open the sheet ``experiment``; ``artefacts`` is the folder with one folder an experiment ID."""
        problem = next(self._columns.problems(), None) if self._columns else None
        if problem is not None:
            raise SourceError(f"columns.{problem}", remedy="docs/experiment-log.md describes them.")
        with self._opened(_file(store)) as tables:
            if experiment not in tables:
                known = self._logs(tables) or [_experiment(name, 0) for name in tables]
                experiment = choose(known, experiment, store).name
            log = self._understood(tables[experiment])
            with _spool(log) as (index, spool):
                yield _Session(log, artefacts, index, spool)

    @contextmanager
    def _opened(self, file: Path) -> Iterator[dict[str, Table]]:
        """The tables of ``file`` by name."""
        if file.suffix.lower() not in _WORKBOOKS:
            with csv_table(file, self._columns) as table:
                yield {table.sheet: table}
            return
        with book(file) as workbook:
            tables = {
                each.name: sheet_table(workbook, each, self._header) for each in workbook.sheets
            }
            if len(tables) < len(workbook.sheets):
                raise SourceError(
                    f"{quoted(str(file), 200)} has two sheets of the same name",
                    remedy="No spreadsheet program writes this; save the workbook anew.",
                )
            yield tables

    @property
    def _header(self) -> int:
        return self._columns.header if self._columns else 1

    def _logs(self, tables: Mapping[str, Table]) -> list[Experiment]:
        """Those of ``tables`` that have a column for the ID, and how many rows of them, as far as they can be read."""
        found = []
        for name, table in tables.items():
            count = self._count(table)
            if count is not None:
                found.append(_experiment(name, count))
        return found

    def _count(self, table: Table) -> int | None:
        wanted = self._columns.id if self._columns else ID
        column, count = None, 0
        # What is wrong with a table is said when it is the one to be read.
        with suppress(SourceError):
            for row in table.rows():
                if row.number == self._header:
                    column = next(
                        (at for at, title in _titles(row).items() if title == wanted), None
                    )
                elif row.number > self._header and column in row.cells:
                    count += str(row.cells[column].value) != EXAMPLE
                if row.number >= self._header and column is None:
                    return None
        return None if column is None else count

    def _understood(self, table: Table) -> Log:
        """``table`` with its columns. Raises :class:`SourceError` with a declaration to start from."""
        titles = _header_of(table, self._header)
        positions = {title: position for position, title in titles.items()}
        columns = self._columns or from_titles(list(positions))
        if columns is None:
            raise _undeclared(table, list(positions))
        missing = [title for title in columns.titles if title not in positions]
        if missing:
            raise SourceError(
                f"{_where(table, self._header)}: no column {', '.join(map(quoted, missing[:5]))}",
                remedy=f"Its titles are {', '.join(quoted(each) for each in list(positions)[:40])}."
                " Correct columns, their header (row of the titles) or separator.",
            )
        return Log(
            table=table,
            columns=columns,
            positions=positions,
            own=self._columns is None,
            zone=zone_of(columns.when.zone if columns.when else "UTC"),
        )


_WORKBOOKS = (".xlsx", ".xlsm")
_TEXTS = (".csv", ".tsv", ".txt")

Index = list[tuple[int, str, int]]
"""Start (0: unknown), experiment ID and place in the spool of each run, in this order."""


def _experiment(name: str, runs: int) -> Experiment:
    return Experiment(id=name, name=name, runs=runs, deleted=False)


@dataclass(frozen=True, slots=True)
class _Session:
    """The runs of one sheet: their rows lie in the spool, so that order takes no memory."""

    log: Log
    artefacts: Path | None
    index: Index
    spool: IO[bytes]

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[ImportedRun]:
        for _, _, offset in self.index:
            self.spool.seek(offset)
            yield self.log.run(_unpacked(self.spool.readline()), self.artefacts)


@contextmanager
def _spool(log: Log) -> Iterator[tuple[Index, IO[bytes]]]:
    """All rows of ``log`` in a temporary file, and where each begins. Raises :class:`SourceError` for an ID twice."""
    index: Index = []
    rows: dict[str, int] = {}
    try:
        spool = tempfile.TemporaryFile()  # noqa: SIM115  # closed below, its own errors apart from those of the caller
    except OSError as error:
        raise unreadable(Path(tempfile.gettempdir()), error) from None
    with spool:
        for row in log.table.rows():
            if row.number <= log.columns.header or not row.cells:
                continue
            run_id, started = log.key(row)
            if log.own and run_id == EXAMPLE:
                continue
            if run_id in rows:
                raise SourceError(
                    f"{_where(log.table, row.number)}: the experiment ID {quoted(run_id)} stands"
                    f" in row {rows[run_id]} as well",
                    remedy="Give each experiment an ID of its own; a repetition is another experiment.",
                )
            rows[run_id] = row.number
            index.append((started or 0, run_id, spool.tell()))
            try:
                spool.write(_packed(row))
            except OSError as error:
                raise unreadable(Path(tempfile.gettempdir()), error) from None
        yield sorted(index), spool


def _packed(row: Row) -> bytes:
    cells = [
        [position, cell.kind, cell.value, cell.formula, cell.percent]
        for position, cell in row.cells.items()
    ]
    return json.dumps([row.number, cells, row.flags]).encode() + b"\n"


def _unpacked(line: bytes) -> Row:
    number, cells, flags = json.loads(line)
    return Row(
        number=number,
        cells={
            position: Cell(kind=kind, value=value, formula=formula, percent=percent)
            for position, kind, value, formula, percent in cells
        },
        flags=tuple(flags),
    )


def _titles(row: Row) -> dict[int, str]:
    """The titles of a row by position."""
    return {position: str(cell.value).strip() for position, cell in row.cells.items()}


def _header_of(table: Table, header: int) -> dict[int, str]:
    row = next((each for each in table.rows() if each.number >= header), None)
    titles = _titles(row) if row is not None and row.number == header else {}
    if not titles:
        raise SourceError(
            f"{_where(table, header)}: no titles",
            remedy="The columns need titles. Declare in which row they stand (header), or start from"
            " `bundler log-template`.",
        )
    for position, title in titles.items():
        first = next(place for place, each in titles.items() if each == title)
        if first != position:
            raise SourceError(
                f"{_where(table, header)}: columns {letters(first)} and {letters(position)} are both"
                f" called {quoted(title)}",
                remedy="Give each column a title of its own.",
            )
    return titles


def _undeclared(table: Table, titles: list[str]) -> SourceError:
    separator = ","
    if table.kind == "csv" and len(titles) == 1:
        found = max((";", "\t", "|"), key=titles[0].count)
        if found in titles[0]:
            separator = "tab" if found == "\t" else found
            titles = [each.strip().strip('"') for each in titles[0].split(found)]
    return SourceError(
        f"{_where(table, 1)}: the titles are not those of our own logs, and no columns are declared",
        remedy="Declare in bundle.yaml, at this source, what each column holds; to start from:\n"
        + suggestion(titles, separator),
    )


def _where(table: Table, row: int) -> str:
    return place(table.file, table.sheet if table.kind == "xlsx" else None, row)


def _file(store: Store) -> Path:
    """The file of a log. Raises :class:`SourceError`."""
    if isinstance(store, str):
        problem = "is an address"
    elif store.suffix.lower() not in (*_WORKBOOKS, *_TEXTS):
        problem = "is neither .csv nor .xlsx"
    else:
        try:
            if stat.S_ISREG(store.stat().st_mode):
                return store
        except OSError as error:
            raise unreadable(store, error) from None
        problem = "is no file"
    raise SourceError(
        f"{quoted(str(store), 200)} {problem}",
        remedy="Give the experiment log as a .csv or .xlsx file; save others (.xls, .ods, Google Sheets) as .xlsx.",
    )


def _is_own(path: Path) -> bool:
    """Whether ``path`` has the title of the ID among its first texts."""
    suffix = path.suffix.lower()
    if suffix not in (*_WORKBOOKS, *_TEXTS) or not stat.S_ISREG(path.stat().st_mode):
        return False
    if suffix in _WORKBOOKS:
        with opened(path) as archive:
            members = ("xl/sharedStrings.xml", "xl/worksheets/sheet1.xml")
            chunks = (archive.chunks(each) for each in members if each in archive.names)
            return any(ID.encode() in next(each, b"") for each in chunks)
    with path.open("rb") as file:
        start = file.read(_SNIFFED)
    codec = "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    return ID in start.decode(codec, "ignore").partition("\n")[0]
