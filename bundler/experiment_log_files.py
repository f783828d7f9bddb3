"""An experiment log as a file: CSV text, or an XLSX workbook. The same log gives the same bytes.

The workbook is written here, not by a library: it keeps every digit of a number (openpyxl cuts at 16 of the 17 that a
double has), holds no time of its making, and its identifiers are in columns of text, so that ``1234e5`` stays one.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

from bundler.errors import OutputError
from bundler.importers.experiment_log.runs import ESCAPED
from bundler.importers.experiment_log.table import MAX_COLUMNS, MAX_ROWS, letters

Value = str | bool | int | float | datetime | None
Look = Literal["plain", "text", "date"]

MAX_CELL = 32_767
"""Most characters of one cell of a worksheet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column to be written. ``look`` is the format of its empty cells too; ``words`` are offered for choice."""

    title: str
    values: Sequence[Value] = ()
    look: Look = "plain"
    words: tuple[str, ...] = ()


def guarded(text: str) -> str:
    """``text`` with an apostrophe before it where a spreadsheet program would take it for a formula.

    It is put before a text that begins with an apostrophe as well, so that the importer can take it away again.
    """
    return f"'{text}" if ESCAPED.match(text) else text


def csv_bytes(columns: Sequence[Column]) -> bytes:
    """The log as CSV in UTF-8, with the mark at its beginning that Excel needs to read it so."""
    rows = [[column.title for column in columns], *_rows(columns)]
    lines = (",".join(_csv_cell(value) for value in row) for row in rows)
    return ("\ufeff" + "".join(f"{line}\n" for line in lines)).encode("utf-8", "backslashreplace")


def xlsx_bytes(columns: Sequence[Column], notes: Sequence[Sequence[str]] = ()) -> bytes:
    """The log as a workbook: the sheet ``Experiments``, and ``Instructions`` with the rows ``notes`` if there are any.

    Raises :class:`OutputError` for what a worksheet cannot hold.
    """
    if len(columns) > MAX_COLUMNS or any(len(each.values) >= MAX_ROWS for each in columns):
        raise _too_much(f"{len(columns)} columns, {len(columns[0].values)} rows")
    sheets = {"Experiments": _worksheet(columns)}
    if notes:
        sheets["Instructions"] = _instructions(notes)
    members = {
        "[Content_Types].xml": _content_types(len(sheets)),
        "_rels/.rels": _relations([("officeDocument", "xl/workbook.xml")]),
        "xl/workbook.xml": _workbook(list(sheets)),
        "xl/_rels/workbook.xml.rels": _relations(
            [
                *(("worksheet", f"worksheets/sheet{i}.xml") for i in range(1, len(sheets) + 1)),
                ("styles", "styles.xml"),
            ]
        ),
        "xl/styles.xml": _STYLES,
        **{f"xl/worksheets/sheet{i}.xml": text for i, text in enumerate(sheets.values(), start=1)},
    }
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, text in members.items():
            # A fixed time, system and mode: a zip file would keep those of its making.
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type, info.create_system, info.external_attr = (
                zipfile.ZIP_DEFLATED,
                3,
                0o644 << 16,
            )
            archive.writestr(info, _HEAD + text.encode("utf-8", "backslashreplace"))
    return target.getvalue()


def _rows(columns: Sequence[Column]) -> list[tuple[Value, ...]]:
    return list(zip(*(column.values for column in columns), strict=True))


def _csv_cell(value: Value) -> str:
    if isinstance(value, str):
        text = guarded(value)
    elif isinstance(value, datetime):
        text = f"{value.isoformat(timespec='milliseconds')}Z"
    elif isinstance(value, bool):
        text = str(value).lower()
    else:
        # Numbers are bare: a negative one is no formula. repr() is the shortest text of the same double.
        text = "" if value is None else repr(value)
    text = text.replace("\0", "\\0")
    return '"' + text.replace('"', '""') + '"' if re.search('[",;\r\n]|^ | $', text) else text


_HEAD = b'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_DOCUMENT = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"

_STYLE = {"plain": 0, "text": 1, "date": 2}
_TITLE, _WRAPPED = 3, 4
_STYLES = (
    f'<styleSheet xmlns="{_MAIN}">'
    '<numFmts count="1"><numFmt numFmtId="164" formatCode="yyyy\\-mm\\-dd\\ hh:mm:ss.000"/></numFmts>'
    '<fonts count="2"><font><sz val="11"/><name val="Calibri"/></font>'
    '<font><b/><sz val="11"/><name val="Calibri"/></font></fonts>'
    '<fills count="2"><fill><patternFill patternType="none"/></fill>'
    '<fill><patternFill patternType="gray125"/></fill></fills>'
    '<borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders>'
    '<cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs>'
    '<cellXfs count="5"><xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/>'
    '<xf numFmtId="49" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/>'
    '<xf numFmtId="164" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/>'
    '<xf numFmtId="49" fontId="1" fillId="0" borderId="0" xfId="0" applyNumberFormat="1" applyFont="1"/>'
    '<xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0" applyAlignment="1">'
    '<alignment vertical="top" wrapText="1"/></xf></cellXfs>'
    '<cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles></styleSheet>'
)


def _worksheet(columns: Sequence[Column]) -> str:
    formats = "".join(
        f'<col min="{i}" max="{i}" width="{_width(column)}" style="{_STYLE[column.look]}" customWidth="1"/>'
        for i, column in enumerate(columns, start=1)
    )
    looks = [column.look for column in columns]
    titles = "".join(_cell(column.title, i, 1, _TITLE) for i, column in enumerate(columns))
    rows = [f'<row r="1">{titles}</row>']
    for number, row in enumerate(_rows(columns), start=2):
        cells = (_cell(value, i, number, _STYLE[looks[i]]) for i, value in enumerate(row))
        rows.append(f'<row r="{number}">{"".join(cells)}</row>')
    offered = [
        f'<dataValidation type="list" allowBlank="1" showErrorMessage="1" sqref="{letters(i)}2:{letters(i)}{MAX_ROWS}">'
        f"<formula1>{escape(chr(34) + ','.join(column.words) + chr(34))}</formula1></dataValidation>"
        for i, column in enumerate(columns)
        if column.words
    ]
    validations = f'<dataValidations count="{len(offered)}">{"".join(offered)}</dataValidations>'
    return (
        f'<worksheet xmlns="{_MAIN}"><sheetViews><sheetView workbookViewId="0">'
        '<pane xSplit="1" ySplit="1" topLeftCell="B2" activePane="bottomRight" state="frozen"/>'
        "</sheetView></sheetViews>"
        f"<cols>{formats}</cols><sheetData>{''.join(rows)}</sheetData>{validations if offered else ''}</worksheet>"
    )


def _instructions(notes: Sequence[Sequence[str]]) -> str:
    rows = "".join(
        f'<row r="{number}">'
        + "".join(
            _cell(text, i, number, _TITLE if number == 1 else _WRAPPED)
            for i, text in enumerate(row)
        )
        + "</row>"
        for number, row in enumerate(notes, start=1)
    )
    return (
        f'<worksheet xmlns="{_MAIN}"><cols><col min="1" max="1" width="32" customWidth="1"/>'
        '<col min="2" max="2" width="100" customWidth="1"/><col min="3" max="3" width="60" customWidth="1"/>'
        f"</cols><sheetData>{rows}</sheetData></worksheet>"
    )


def _width(column: Column) -> int:
    longest = max((len(str(value)) for value in column.values if value is not None), default=0)
    return min(max(len(column.title), longest, 8) + 2, 48)


def _cell(value: Value, position: int, row: int, style: int) -> str:
    """The XML of one cell; texts stand in the cell itself."""
    start = f'<c r="{letters(position)}{row}" s="{style}"'
    if value is None or value == "":
        return ""
    if isinstance(value, str):
        text = guarded(value)
        if len(text) > MAX_CELL:
            raise _too_much(f"a cell of {len(text):,} characters in row {row}")
        return f'{start} t="inlineStr"><is><t xml:space="preserve">{_xml(text)}</t></is></c>'
    if isinstance(value, bool):
        return f'{start} t="b"><v>{int(value)}</v></c>'
    if isinstance(value, datetime):
        days = (value - datetime(1899, 12, 30)).total_seconds() / 86_400  # noqa: DTZ001  # a workbook knows no zones
        return f"{start}><v>{days!r}</v></c>"
    if isinstance(value, float) and not math.isfinite(value):
        raise _too_much(f"the number {value} in row {row}")
    return f"{start}><v>{value!r}</v></c>"


def _xml(text: str) -> str:
    """``text`` for XML: what that cannot hold is spelled ``_x0007_``, and so is what looks like it."""
    text = re.sub(r"_(?=x[0-9A-Fa-f]{4}_)", "_x005F_", text)
    return escape(re.sub("[\0-\x08\x0b-\x1f\ufffe\uffff]", lambda c: f"_x{ord(c[0]):04X}_", text))


def _workbook(names: list[str]) -> str:
    sheets = "".join(
        f'<sheet name={quoteattr(name)} sheetId="{i}" r:id="rId{i}"/>'
        for i, name in enumerate(names, start=1)
    )
    return f'<workbook xmlns="{_MAIN}" xmlns:r="{_DOCUMENT}"><sheets>{sheets}</sheets></workbook>'


def _relations(targets: list[tuple[str, str]]) -> str:
    found = "".join(
        f'<Relationship Id="rId{i}" Type="{_DOCUMENT}/{kind}" Target="{target}"/>'
        for i, (kind, target) in enumerate(targets, start=1)
    )
    return f'<Relationships xmlns="{_PACKAGE}/relationships">{found}</Relationships>'


def _content_types(sheets: int) -> str:
    parts = [("workbook", "sheet.main"), ("styles", "styles")]
    parts += [(f"worksheets/sheet{i}", "worksheet") for i in range(1, sheets + 1)]
    overrides = "".join(
        f'<Override PartName="/xl/{name}.xml" ContentType="{_TYPE}.{kind}+xml"/>'
        for name, kind in parts
    )
    return (
        f'<Types xmlns="{_PACKAGE}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Default Extension="xml" ContentType="application/xml"/>{overrides}</Types>'
    )


def _too_much(what: str) -> OutputError:
    return OutputError(
        f"a worksheet cannot hold {what}", remedy="Write a CSV file instead: -o log.csv."
    )
