"""The logs in Neptune's offline folders: ``data-N.log``, one JSON object after the other.

Each is an operation, its number and its time. N is the number of the first operation of a log.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bundler.errors import SourceError, quoted
from bundler.importers.files import too_large, unreadable
from bundler.importers.values import Flag, Flags

MAX_LOG = 256 << 20
"""Most bytes of a log; the client begins a new one at 64 MiB."""

MAX_METADATA = 1 << 20
"""Most bytes of ``metadata.json``."""

_LOG = re.compile(r"data-([0-9]{1,15})\.log")
_SPACE = re.compile(r"[ \t\r\n]*")
_ODD_BYTE = re.compile("[\udc80-\udcff]")
_DECODER = json.JSONDecoder(strict=False)


def is_log(name: str) -> bool:
    """Whether a file of this ``name`` is a log of operations."""
    return _LOG.fullmatch(name) is not None


def operations(folder: Path, flags: Flags) -> Iterator[tuple[dict[str, Any], object]]:
    """Operations of a folder in order, with their times."""
    try:
        found = list(folder.iterdir())
    except OSError as error:
        raise unreadable(folder, error) from None
    logs = sorted(
        (int(match[1]), each)
        for each in found
        if (match := _LOG.fullmatch(each.name)) and each.is_file() and not each.is_symlink()
    )
    expected, before = 1, folder
    for _, log in logs:
        last = log == logs[-1][1]
        for offset, entry in _objects_of(log, flags, last=last):
            operation, version = entry.get("obj"), entry.get("version")
            if not isinstance(operation, dict) or not isinstance(version, int):
                raise damaged(log, offset, "no operation")
            if version < expected:
                raise _twice(version, before, log)
            if version > expected:
                flags("run", "operations_missing", f"{log.name}: {expected} to {version - 1}")
            expected, before = version + 1, log
            yield operation, entry.get("at")
    promised = _count(folder / "last_put_version")
    if promised is not None and promised >= expected:
        flags("run", "operations_missing", f"{expected} to {promised}")


def _objects_of(log: Path, flags: Flags, *, last: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """(Place, value) of the JSON objects of ``log``. A cut one is flagged, if the ``last`` log ends with it."""
    text = _text(log, MAX_LOG, flags)
    position = _SPACE.match(text).end()  # type: ignore[union-attr]  # it matches anything
    while position < len(text):
        try:
            value, end = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            if last and '{"obj":' not in text[position + 1 :]:
                flags("run", "truncated_file", f"{log.name} is cut at character {position}")
                return
            raise damaged(log, position, type(error).__name__) from None
        if not isinstance(value, dict):
            raise damaged(log, position, "no object")
        yield position, value
        position = _SPACE.match(text, end).end()  # type: ignore[union-attr]


def damaged(log: Path, position: int, problem: str) -> SourceError:
    """A log that the client has not written like this."""
    return SourceError(
        f"{quoted(str(log), 200)}, character {position}: {problem}",
        remedy="Use an intact copy of the log, or move its folder out of the store.",
    )


def _twice(version: int, first: Path, second: Path) -> SourceError:
    return SourceError(
        f"operation {version} or one after it stands in {quoted(str(first), 200)}, and it is again in"
        f" {quoted(str(second), 200)}",
        remedy="Remove what is a copy: an operation that is done twice gives points that the run never logged.",
    )


def _text(file: Path, limit: int, flag: Flag) -> str:
    """The text of a file of JSON; bytes that are not UTF-8 become escapes like those of :func:`values.text`."""
    data = _read(file, limit)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        flag("run", "not_utf8", f"{file.name}, byte {error.start}")
    odd = data.decode("utf-8", "surrogateescape")
    # With two backslashes, which are one in a text of JSON.
    return _ODD_BYTE.sub(lambda each: f"\\\\x{ord(each[0]) - 0xDC00:02x}", odd)


def _read(file: Path, limit: int) -> bytes:
    try:
        with file.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size > limit:
                raise too_large(file, f"{limit:,} bytes")
            return stream.read(limit)
    except OSError as error:
        raise unreadable(file, error) from None


def metadata_of(folder: Path, flag: Flag) -> dict[str, Any]:
    """What the client says of itself; nothing, where it says nothing."""
    file = folder / "metadata.json"
    if file.is_symlink() or not file.is_file():
        return {}
    try:
        value = json.loads(_text(file, MAX_METADATA, flag))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _count(file: Path) -> int | None:
    if file.is_symlink() or not file.is_file():
        return None
    data = _read(file, 1 << 10).strip()
    return int(data) if data.isdigit() and len(data) < 16 else None
