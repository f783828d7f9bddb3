"""XML of a workbook as events, within bounds: no DTD (so no entities), no deep nesting, no endless token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat

from bundler.errors import SourceError, quoted

MAX_NESTING = 64
MAX_TOKEN = 8 << 20
"""Most bytes of one tag: the parser has to see the whole of it."""

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_STRICT = "http://purl.oclc.org/ooxml/spreadsheetml/main"
_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class Start:
    """An element begins. Names of the spreadsheet's own elements are bare, others carry their namespace."""

    name: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class End:
    """An element ends."""

    name: str


Event = Start | End | str
"""Text comes as it is, in one or more pieces."""


def events(file: Path, member: str, chunks: Iterable[bytes]) -> Iterator[Event]:
    """The events of the XML text ``chunks``. Raises :class:`SourceError` that names member and byte."""
    found: list[Event] = []
    depth = 0
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True

    def problem(words: str) -> SourceError:
        return SourceError(
            f"{quoted(str(file), 200)}: {quoted(member)} at byte {max(parser.CurrentByteIndex, 0)}: {words}",
            remedy="No spreadsheet program writes this; save the workbook anew, or use an intact copy.",
        )

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_NESTING:
            raise problem("nested too deeply")
        found.append(Start(_bare(name), attributes))

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        found.append(End(_bare(name)))

    def refuse(*_: object) -> None:
        raise problem("a document type (DTD), which may hold entities")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = found.append
    parser.StartDoctypeDeclHandler = refuse
    fed = 0
    try:
        for chunk in chunks:
            for begin in range(0, len(chunk), _PIECE):
                piece = chunk[begin : begin + _PIECE]
                fed += len(piece)
                parser.Parse(piece)
                if fed - max(parser.CurrentByteIndex, 0) > MAX_TOKEN:
                    raise problem("a tag without an end")
                yield from found
                found.clear()
        parser.Parse(b"", True)  # noqa: FBT003  # expat's own signature
    except (expat.ExpatError, ValueError, LookupError) as error:
        # Not expat's own alone: Python looks up the codec of an encoding that expat does not know.
        raise problem(str(error)) from None
    yield from found


def _bare(name: str) -> str:
    namespace, _, local = name.rpartition(" ")
    return local if namespace in {_MAIN, _STRICT} else name
