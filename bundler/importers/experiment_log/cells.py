"""One cell of an experiment log, and its value under the declared type. Nothing is guessed, what misfits is refused.

A cell of a CSV file is text. One of a workbook has a type of its own: text, number, boolean, day, duration or error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from typing import Literal

from bundler import canonical
from bundler.errors import MalformedError, quoted
from bundler.importers.experiment_log.columns import SERIAL
from bundler.records import Scalar

Kind = Literal["text", "number", "boolean", "date", "duration", "error", "uncalculated"]
Note = Callable[[str, str], None]
"""Takes flag and detail of a fidelity flag about the cell's field."""

MAX_DIGITS = 400
SAFE_DIGITS = 10**15
"""Spreadsheet programs keep 15 digits of a number, and make zeros of the others."""

_INTEGER = re.compile(r"[+-]?[0-9]+(?:\.0+)?")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WORDS = {
    "inf": math.inf, "+inf": math.inf, "-inf": -math.inf,
    "infinity": math.inf, "+infinity": math.inf, "-infinity": -math.inf,
}  # fmt: skip
_NAN = {"nan", "+nan", "-nan"}
_TRUE, _FALSE = {"true", "yes", "1"}, {"false", "no", "0"}
_CLOCK = re.compile(r"([0-9]{1,6}):([0-5][0-9]):([0-5][0-9](?:\.[0-9]{1,6})?)")
_SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}
_MANGLED = re.compile(r"[0-9](?:[.,][0-9]+)?E\+?[0-9]+")
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)


class BadCell(Exception):  # noqa: N818  # it becomes a SourceError once the place is known
    """A cell that is not what was declared: what is wrong, and what to do about it."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell that is not empty.

    ``value`` is text for ``text``, ``error`` and ``date`` (ISO 8601 without a zone), a number for ``number`` and
    ``duration`` (seconds). ``formula``: it was calculated. ``percent``: it is shown with a percent sign.
    """

    kind: Kind
    value: str | float | bool
    formula: bool = False
    percent: bool = False

    @property
    def shown(self) -> str:
        """How a message quotes it."""
        return quoted(self.value if self.kind != "uncalculated" else "")


def exact_text(cell: Cell) -> str:
    """An identifier, exactly as it was typed: a number or day has already lost what was typed."""
    if cell.kind != "text":
        raise BadCell(
            f"{cell.shown} is a {_called(cell)}, not text",
            "Format the column as text, and type the value again: what was typed is lost.",
        )
    text = str(cell.value)
    if _MANGLED.fullmatch(text):
        raise BadCell(
            f"{quoted(text)} is what a spreadsheet program makes of an identifier that looks like a number",
            "Format the column as text, and type the value again: what was typed is lost.",
        )
    return text


def free_text(cell: Cell, note: Note) -> str:
    """Words; a cell of another type becomes text, and is flagged."""
    if cell.kind == "text":
        return str(cell.value)
    value = cell.value
    if isinstance(value, float) and value.is_integer() and abs(value) < SAFE_DIGITS:
        value = int(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    note("type_lost", f"the cell is a {_called(cell)}: {text}")
    return text


def number(cell: Cell, decimal: str, *, percent: bool) -> float:
    """A number; ``nan`` for the word NaN."""
    if percent != _is_percent(cell):
        problem = "is a percentage" if _is_percent(cell) else "has no percent sign"
        remedy = (
            "Declare the column with percent: true (91.2% is then 0.912), or write plain numbers."
            if not percent
            else "Write it with its percent sign, or declare the column without percent."
        )
        raise BadCell(f"{cell.shown} {problem}", remedy)
    if cell.kind == "number":
        return float(cell.value)
    text = _plain(cell, decimal, "a number").removesuffix("%").rstrip()
    if text.lower() in _NAN:
        return math.nan
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if not _NUMBER.fullmatch(text) or len(text) > MAX_DIGITS:
        raise BadCell(f"{cell.shown} is no number", _number_remedy(text, decimal))
    value = float(Decimal(text) / 100) if percent else float(text)
    if math.isinf(value):
        raise BadCell(
            f"{cell.shown} is beyond every double", "Correct it; infinity is written as inf."
        )
    return value


def integer(cell: Cell, decimal: str, note: Note) -> int:
    """A whole number."""
    if cell.kind == "number" and not cell.percent:
        value = float(cell.value)
        if not value.is_integer():
            raise BadCell(
                f"{cell.shown} is no whole number", "Correct it, or declare type: number."
            )
        if abs(value) >= SAFE_DIGITS:
            note("precision_lost", "a spreadsheet program keeps 15 digits of a number")
        return int(value)
    text = _plain(cell, decimal, "a whole number")
    if not _INTEGER.fullmatch(text) or len(text) > MAX_DIGITS:
        raise BadCell(f"{cell.shown} is no whole number", "Correct it, or declare type: number.")
    return int(text.partition(".")[0])


def boolean(cell: Cell, words: Mapping[str, bool]) -> bool:
    """Yes or no; ``words`` are the log's own for them."""
    if isinstance(cell.value, bool):
        return cell.value
    if cell.kind == "text" and str(cell.value) in words:
        return words[str(cell.value)]
    word = str(int(cell.value) if cell.value in {0, 1} else cell.value).lower()
    if cell.kind in {"text", "number"} and word in _TRUE | _FALSE:
        return word in _TRUE
    raise BadCell(
        f"{cell.shown} is neither true nor false",
        "Write true, yes, 1 or false, no, 0, or declare your own words (booleans).",
    )


def json_value(cell: Cell) -> Scalar:
    """A single value in JSON."""
    try:
        found = canonical.parse(exact_text(cell).encode("utf-8", "replace"), name="the cell")
    except MalformedError as error:
        raise BadCell(
            f"{cell.shown}: {error.message}", "Write a JSON value, text in quotes."
        ) from None
    if isinstance(found, (dict, list)):
        raise BadCell(
            f"{cell.shown} is no single value", "Put a list or object in quotes, as text."
        )
    return found


def word(cell: Cell, known: tuple[str, ...], words: Mapping[str, str]) -> str:
    """One of the ``known`` words, or what ``words`` says that the cell means."""
    text = str(cell.value) if cell.kind == "text" else ""
    meaning = words.get(text, text.lower())
    if meaning in known:
        return meaning
    raise BadCell(
        f"{cell.shown} is none of {', '.join(known)}",
        "Use one of them, or declare what your own words mean (words).",
    )


def moment(cell: Cell, form: str | None, zone: tzinfo) -> tuple[int, bool]:
    """When: milliseconds since 1970-01-01 UTC, and whether only the day is known."""
    if cell.kind == "number":
        raise BadCell(
            f"{cell.shown} is a number, not a date",
            f"Format the column as a date, or declare format: {SERIAL} if it is the number of a day.",
        )
    if cell.kind not in {"text", "date"}:
        raise BadCell(f"{cell.shown} is a {_called(cell)}, not a date", "Write the date.")
    text = str(cell.value)
    declared = form if cell.kind == "text" else None
    try:
        found = datetime.strptime(text, declared) if declared else datetime.fromisoformat(text)  # noqa: DTZ007  # the zone follows
        clock = re.search(r"%[HI]", declared) if declared else re.search(r"[T ]", text)
        if found.tzinfo is None:
            found = found.replace(tzinfo=zone)
        milliseconds = round((found.astimezone(UTC) - _FIRST).total_seconds() * 1000)
    except (ValueError, OverflowError):
        shape = (
            f"in the form {declared}" if declared else "such as 2026-03-04 or 2026-03-04T10:00:00Z"
        )
        raise BadCell(
            f"{cell.shown} is no date {shape}",
            "Declare how dates are written, such as date: {column: Date, format: '%d/%m/%Y'}:"
            " 04/03/2026 may be in March or in April.",
        ) from None
    if milliseconds < 0:
        raise BadCell(
            f"{cell.shown} is before 1970", "Check the date, and the workbook's calendar."
        )
    return milliseconds, clock is None


def seconds(cell: Cell, unit: str, decimal: str) -> float:
    """How long, in seconds."""
    if unit == "clock":
        match = _CLOCK.fullmatch(str(cell.value)) if cell.kind == "text" else None
        if match:
            return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
        if cell.kind != "duration":
            raise BadCell(f"{cell.shown} is no time h:mm:ss", "Write it as 1:30:00.")
        found = float(cell.value)
    elif cell.kind == "duration":
        raise BadCell(
            f"{cell.shown} is a clock time, not a number of {unit}",
            "Declare unit: clock for times such as 1:30:00, or write plain numbers.",
        )
    else:
        found = number(cell, decimal, percent=False) * _SECONDS[unit]
    if not 0 <= found < 1e10:
        raise BadCell(f"{cell.shown} is no duration", "Write how long the run took.")
    return found


def _plain(cell: Cell, decimal: str, wanted: str) -> str:
    """The text of a number with a decimal point. The other sign is refused: it may separate thousands."""
    if cell.kind != "text":
        raise BadCell(
            f"{cell.shown} is a {_called(cell)}, not {wanted}",
            "Write a plain number, and format the column as a number.",
        )
    text = str(cell.value)
    other = "." if decimal == "," else ","
    if other in text:
        raise BadCell(f"{cell.shown} is no number", _number_remedy(text, decimal))
    return text.replace(decimal, ".")


def _number_remedy(text: str, decimal: str) -> str:
    if re.fullmatch(r"[+-]?[0-9]+,[0-9]+", text) and decimal == ".":
        return f"If {text} has a decimal comma, declare decimal: ','; thousands are written without a separator."
    if re.fullmatch(r"[+-]?[0-9]+\.[0-9]+", text) and decimal == ",":
        return f"If {text} has a decimal point, leave decimal out; thousands are written without a separator."
    return (
        "Write a plain number such as 1234.5, without units and without a separator of thousands."
    )


def _is_percent(cell: Cell) -> bool:
    return cell.percent or (cell.kind == "text" and str(cell.value).endswith("%"))


def _called(cell: Cell) -> str:
    names = {"date": "day", "boolean": "truth value", "duration": "time"}
    return names.get(cell.kind, cell.kind)
