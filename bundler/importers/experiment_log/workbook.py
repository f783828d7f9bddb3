"""An XLSX workbook: its sheets, texts and date formats, read with the standard library and without running anything.

Macros, links to other files, charts and pictures are not looked at.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from bundler.errors import SourceError, quoted
from bundler.importers.archives import Archive, opened
from bundler.importers.experiment_log.xml import End, Event, Start, events
from bundler.importers.files import too_large
from bundler.importers.values import clean

MAX_PART = 16 << 20
"""Most bytes of the parts that say what the workbook consists of."""

MAX_STRINGS = 128 << 20
"""Most bytes of the table of texts, all of which are kept in memory."""

MAX_SHEETS = 1000
MAX_STYLES = 100_000

Style = Literal["number", "percent", "date", "time"]

_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships "
_BUILT_IN: dict[int, Style] = {
    9: "percent", 10: "percent", 18: "time", 19: "time", 20: "time", 21: "time", 45: "time",
    46: "time", 47: "time", **dict.fromkeys((*range(14, 18), 22, *range(27, 37), *range(50, 59)), "date"),
}  # fmt: skip
"""Number formats that no workbook spells out (ECMA-376, 18.8.30), those of East Asian calendars included."""

_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_LITERAL = re.compile(r'"[^"]*"|\\.|[_*].|\[(?![hms]+\])[^\]]*\]|am/pm|a/p', re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A worksheet and the member of the archive that holds it."""

    name: str
    member: str
    hidden: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """An open workbook. ``since_1904``: its days are numbered from 1904, as old Macs did."""

    file: Path
    archive: Archive
    sheets: tuple[Sheet, ...]
    strings: tuple[str, ...]
    styles: tuple[Style, ...]
    since_1904: bool

    def day(self, serial: float) -> str | None:
        """The date that the number ``serial`` is, as ISO 8601 text; ``None`` where there is none.

        Since 1900 has a day 60 (29 February 1900) that never was, earlier days are one more than they should be.
        """
        first = datetime(1904, 1, 1) if self.since_1904 else datetime(1899, 12, 30)  # noqa: DTZ001  # a workbook knows no zones
        if not self.since_1904 and serial < 61:
            if serial >= 60:
                return None
            serial += 1
        try:
            found = first + timedelta(milliseconds=round(serial * 86_400_000))
        except (OverflowError, ValueError):
            return None
        return found.date().isoformat() if float(serial).is_integer() else found.isoformat()


@contextmanager
def book(file: Path) -> Iterator[Book]:
    """Open the workbook ``file`` read-only. Raises :class:`SourceError`."""
    with opened(file) as archive:
        main, related = _main(file, archive)
        sheets, since_1904 = _sheets(file, archive, main, related)
        if not sheets:
            raise SourceError(
                f"{quoted(str(file), 200)} has no worksheet",
                remedy="Give an .xlsx workbook that a spreadsheet program has saved.",
            )
        places = dict(related.values())
        yield Book(
            file=file,
            archive=archive,
            sheets=sheets,
            strings=tuple(_strings(file, archive, places.get("sharedStrings"))),
            styles=tuple(_styles(file, archive, places.get("styles"))),
            since_1904=since_1904,
        )


def part(file: Path, archive: Archive, member: str, limit: int = MAX_PART) -> Iterator[Event]:
    """The XML events of a member."""
    return events(file, member, archive.chunks(member, limit=limit))


def unescaped(text: str) -> str:
    """``text`` with characters for ``_x0007_``, as workbooks spell what XML cannot hold."""
    return clean(_ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)) or ""


def style_of(code: str) -> Style:
    """What a number format makes of a number, by its section for positive ones."""
    letters = _LITERAL.sub("", code).split(";")[0].lower()
    if "%" in letters:
        return "percent"
    if re.search("[yd]", letters):
        return "date"
    if re.search("[hs]", letters) and "general" not in letters:
        return "time"
    return "date" if "m" in letters else "number"


def _main(file: Path, archive: Archive) -> tuple[str, dict[str, tuple[str, str]]]:
    """The member that holds the workbook, and what it is related to."""
    if "_rels/.rels" not in archive.names:
        raise SourceError(
            f"{quoted(str(file), 200)} is no XLSX workbook: it has no '_rels/.rels'",
            remedy="Save it as .xlsx (Excel Workbook); .xls, .xlsb, .ods and .numbers are other formats.",
        )
    roots = _relations(file, archive, "_rels/.rels")
    main = next((target for kind, target in roots.values() if kind == "officeDocument"), "")
    if main not in archive.names or not main.endswith(".xml"):
        raise SourceError(
            f"{quoted(str(file), 200)} is no XLSX workbook: it names {quoted(main)} as its contents",
            remedy="Save it as .xlsx (Excel Workbook); .xls, .xlsb, .ods and .numbers are other formats.",
        )
    folder, name = posixpath.split(main)
    return main, _relations(file, archive, f"{folder}/_rels/{name}.rels".lstrip("/"))


def _relations(file: Path, archive: Archive, member: str) -> dict[str, tuple[str, str]]:
    """Kind (the last word of its type) and member by id; what lies outside the file is left out."""
    found: dict[str, tuple[str, str]] = {}
    base = posixpath.dirname(posixpath.dirname(member))
    if member not in archive.names:
        return found
    for event in part(file, archive, member):
        if isinstance(event, Start) and event.name == f"{_PACKAGE}Relationship":
            get = event.attributes.get
            if get("TargetMode") != "External":
                target = posixpath.normpath(posixpath.join("/", base, get("Target", ""))).lstrip(
                    "/"
                )
                found[get("Id", "")] = (get("Type", "").rpartition("/")[2], target)
    return found


def _sheets(
    file: Path, archive: Archive, main: str, related: dict[str, tuple[str, str]]
) -> tuple[tuple[Sheet, ...], bool]:
    found: list[Sheet] = []
    since_1904 = False
    for event in part(file, archive, main):
        if not isinstance(event, Start):
            continue
        if event.name == "workbookPr":
            since_1904 = event.attributes.get("date1904") in {"1", "true"}
        if event.name == "sheet":
            ids = (
                value
                for key, value in event.attributes.items()
                if key.endswith("/relationships id")
            )
            kind, member = related.get(next(ids, ""), ("", ""))
            if kind == "worksheet":
                name = clean(event.attributes.get("name", "")) or ""
                hidden = event.attributes.get("state", "visible") != "visible"
                found.append(Sheet(name=name, member=member, hidden=hidden))
        if len(found) > MAX_SHEETS:
            raise too_large(file, f"{MAX_SHEETS:,} sheets")
    return tuple(found), since_1904


def _strings(file: Path, archive: Archive, member: str | None) -> Iterator[str]:
    """The texts that cells name by number. Readings of East Asian signs (rPh) are no part of them."""
    if member is None or member not in archive.names:
        return
    pieces: list[str] = []
    wanted = aside = False
    for event in part(file, archive, member, MAX_STRINGS):
        if isinstance(event, str):
            if wanted and not aside:
                pieces.append(event)
        elif event.name == "t":
            wanted = isinstance(event, Start)
        elif event.name == "rPh":
            aside = isinstance(event, Start)
        elif event.name == "si" and isinstance(event, End):
            yield unescaped("".join(pieces))
            pieces.clear()


def _styles(file: Path, archive: Archive, member: str | None) -> Iterator[Style]:
    """What each cell style makes of a number."""
    if member is None or member not in archive.names:
        return
    codes: dict[str, Style] = {str(number): style for number, style in _BUILT_IN.items()}
    inside, count = False, 0
    for event in part(file, archive, member):
        if isinstance(event, str):
            continue
        if event.name == "cellXfs":
            inside = isinstance(event, Start)
        if isinstance(event, Start) and event.name == "numFmt":
            code = event.attributes.get("formatCode", "")[:1000]
            codes[event.attributes.get("numFmtId", "")] = style_of(code)
        if isinstance(event, Start) and event.name == "xf" and inside:
            count += 1
            if count > MAX_STYLES:
                raise too_large(file, f"{MAX_STYLES:,} cell styles")
            yield codes.get(event.attributes.get("numFmtId", ""), "number")
