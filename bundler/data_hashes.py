"""Digests of data: DVC's (MD5) and SHA-256 beside it, both from one pass over the bytes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bundler.errors import SourceError, quoted

MAX_LISTING = 256 << 20
"""Most bytes of the listing of a folder."""

MAX_FILES = 2_000_000
"""Most files of one folder."""

_CHUNK = 1 << 20
"""DVC's own: where a chunk begins decides how its legacy digest takes a line end."""

_LONGEST_ENTRY = 64 << 10
"""Most characters of one entry of a listing: a path of 4,096 bytes in escapes takes 24,576."""

_DECODER = json.JSONDecoder()
_OPEN = re.compile(r"[ \t\r\n]*\[[ \t\r\n]*(?=\{)")
_MORE = re.compile(r"[ \t\r\n]*,[ \t\r\n]*(?=\{)")
_CLOSE = re.compile(r"[ \t\r\n]*\][ \t\r\n]*\Z")
_NONE = re.compile(r"[ \t\r\n]*\[[ \t\r\n]*\][ \t\r\n]*")

_TEXT = bytes(range(32, 127)) + b"\n\r\t\f\b"
_LINE = re.compile(rb"[\\\n\r]")
_ESCAPED = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}


@dataclass(frozen=True, slots=True)
class FileDigest:
    """The digests of one file. ``md5s`` are all that DVC could have written for it: two for the legacy form."""

    sha256: str
    md5s: tuple[str, ...]


def digest_file(file: Path, *, legacy: bool = False) -> FileDigest:
    """Hash ``file`` in one pass, as :func:`digest_stream`. Raises :class:`SourceError` if it cannot be read."""
    try:
        with file.open("rb") as stream:
            return digest_stream(stream, legacy=legacy)
    except OSError as error:
        raise unreadable(file, error) from None


def digest_stream(stream: BinaryIO, *, legacy: bool = False) -> FileDigest:
    """Hash what is left to read.

    ``legacy``: the MD5 is that of text with CR LF as LF. DVC 3 decides for each MiB whether that is text, earlier
    versions did for the whole file by its beginning.
    """
    sha256 = hashlib.sha256()
    plain = hashlib.md5(usedforsecurity=False)
    by_file = hashlib.md5(usedforsecurity=False)
    whole: bool | None = None
    while chunk := stream.read(_CHUNK):
        sha256.update(chunk)
        if not legacy:
            plain.update(chunk)
            continue
        is_text = _is_text(chunk[:512])
        whole = is_text if whole is None else whole
        lines = chunk.replace(b"\r\n", b"\n")
        plain.update(lines if is_text else chunk)
        by_file.update(lines if whole else chunk)
    md5s = (plain.hexdigest(), by_file.hexdigest()) if legacy else (plain.hexdigest(),)
    return FileDigest(sha256.hexdigest(), md5s)


def folder_md5(listing: Mapping[str, str]) -> str:
    """DVC's digest of a folder, from path → MD5 of its files."""
    entries = [{"md5": listing[path], "relpath": path} for path in sorted(listing)]
    text = json.dumps(entries, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def folder_sha256(listing: Mapping[str, str]) -> str:
    """The SHA-256 of what ``sha256sum`` prints for the files of a folder in byte order, from path → SHA-256."""
    state = hashlib.sha256()
    for name, path in sorted((_encoded(path), path) for path in listing):
        escaped = _LINE.sub(lambda found: _ESCAPED[found[0]], name)
        mark = b"\\" if escaped != name else b""
        state.update(mark + listing[path].encode() + b"  " + escaped + b"\n")
    return state.hexdigest()


def parse_listing(data: bytes, place: str) -> dict[str, str]:
    """Path → MD5 from the bytes of a ``.dir`` listing. Raises :class:`SourceError` for what is none, or hostile."""
    listing: dict[str, str] = {}
    for number, entry in enumerate(_entries(data, place)):
        if number >= MAX_FILES:
            raise damaged(place, f"not a list of at most {MAX_FILES:,} files")
        path, md5 = entry.get("relpath"), entry.get("md5")
        if not isinstance(path, str) or not _is_inside(path) or path in listing:
            raise damaged(place, f"entry {number} has the path {quoted(path)}")
        if not isinstance(md5, str) or not re.fullmatch(r"[0-9a-f]{32}", md5):
            raise damaged(place, f"entry {number} has an MD5 of {quoted(md5)}")
        listing[path] = md5
    return listing


def read_bounded(file: Path, limit: int) -> bytes:
    """What ``file`` holds. Raises :class:`SourceError` for more than ``limit`` bytes, or if it cannot be read."""
    try:
        with file.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size > limit:
                raise damaged(str(file), f"more than {limit:,} bytes")
            return stream.read(limit)
    except OSError as error:
        raise unreadable(file, error) from None


def kind_of(place: Path) -> int:
    """The kind of what lies at ``place``, links not followed; 0 for nothing."""
    try:
        return place.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return 0
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return 0
        raise unreadable(place, error) from None


def damaged(place: str, problem: str) -> SourceError:
    """Something that DVC has not written like this."""
    return SourceError(
        f"{quoted(place, 200)} is not as DVC writes it: {problem}",
        remedy="Restore it from git or from DVC's remote storage (dvc pull).",
    )


def unreadable(place: Path, error: OSError) -> SourceError:
    """What an error of the system means."""
    return SourceError(
        f"{quoted(str(error.filename or place), 200)} cannot be read: {error.strerror or error}",
        remedy="Check path and permissions.",
    )


def _entries(data: bytes, place: str) -> Iterator[dict[str, Any]]:
    """Objects of a JSON list, one at a time: as a whole, 24 MB of brackets would take 700 MB."""
    try:
        text = data.decode()
        before, end = _OPEN.match(text), 0
        while before is not None:
            entry, size = _entry(text, before.end())
            yield entry
            end = before.end() + size
            before = _MORE.match(text, end)
        if not (_CLOSE.match(text, end) if end else _NONE.fullmatch(text)):
            raise ValueError("no list")  # noqa: TRY301  # as what is no JSON
    except (ValueError, RecursionError):
        raise damaged(place, "not JSON, or no list of objects") from None


def _entry(text: str, start: int) -> tuple[dict[str, Any], int]:
    """The object that begins at ``start``, and its length. Raises :class:`ValueError`."""
    for length in (512, _LONGEST_ENTRY):
        with suppress(json.JSONDecodeError):
            return _DECODER.raw_decode(text[start : start + length])
    raise ValueError("no entry")


def _is_inside(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    parts = path.split("/")
    return "\0" not in path and not {"", ".", ".."} & set(parts)


def _encoded(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _is_text(block: bytes) -> bool:
    """DVC's own guess."""
    return b"\0" not in block and len(block.translate(None, _TEXT)) <= 0.3 * len(block)
