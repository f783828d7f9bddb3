"""Zip files of trackers, read within bounds: their maker may want to exhaust or mislead the reader.

Members that lie upon each other, that are no plain files, or whose names could lead elsewhere make the whole file
unreadable: no tracker writes them. A zip file inside a zip file is a member like any other and is not opened. The
standard library takes what precedes a zip file for a program that unpacks it, and so would read a file that was cut
after a zip file inside it as that one: here a zip file fills its file from the first byte to the last.
"""

from __future__ import annotations

import errno
import io
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from bundler.errors import SourceError, quoted
from bundler.importers.files import unreadable

MAX_MEMBERS = 100_000
MAX_TOTAL = 64 << 30
"""Most bytes of all members together, as they say themselves and as they turn out to be."""

MAX_DIRECTORY = 16 << 20
"""Most bytes of the directory at the end of the file: the standard library reads it at once."""

MAX_NAME = 1024
"""Most bytes of a member's name; no part of it may have more than a file name may (255)."""

_CHUNK = 1 << 20
_LOCAL_HEADER = 30
_END = struct.Struct("<4s4H2LH")
_LARGE_END = struct.Struct("<4sQ2H2L4Q20s")
"""The end record of the large form, and where the small one says that it lies."""

_ENTRY = 46
_LONGEST_COMMENT = 0xFFFF
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    ValueError,
)
"""What the standard library raises over a damaged zip file."""


class Archive:
    """An open zip file whose members have plain, distinct names."""

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        self._path = path
        self._file = file
        problem = _prefix(file) or _problem(file.infolist(), file.start_dir)
        if problem is not None:
            raise damaged(path, problem)
        self._members = {info.filename: info for info in file.infolist() if not _is_folder(info)}
        self.names = tuple(sorted(self._members))
        """Names of the members that are files, sorted."""

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def read(self, name: str, *, limit: int) -> bytes:
        """The bytes of member ``name``, at most ``limit``. Raises :class:`SourceError`."""
        return b"".join(self.chunks(name, limit=limit))

    def chunks(self, name: str, *, limit: int = MAX_TOTAL) -> Iterator[bytes]:
        """The bytes of member ``name`` in pieces of at most 1 MiB; more than ``limit`` are refused."""
        info = self._members.get(name)
        if info is None:
            raise damaged(self._path, f"no member {quoted(name)}")
        if info.file_size > limit:
            raise damaged(self._path, f"member {quoted(name)} of more than {limit:,} bytes")
        left = info.file_size
        try:
            with self._file.open(info) as member:
                while piece := member.read(_CHUNK):
                    left -= len(piece)
                    yield piece
        except _BROKEN as error:
            raise self._at(info, _words(error)) from None
        except OSError as error:
            raise _failed(self._path, error) from None
        # The standard library cuts what is longer, whose checksum then is wrong.
        if left:
            raise self._at(info, f"{left:,} bytes less than it says")

    def extract(self, name: str, target: Path) -> None:
        """Write member ``name`` to the new file ``target``, with the folders that it needs.

        Raises :class:`SourceError` also where ``target`` exists: names may differ by case alone.
        """
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                self._copy(name, target, file)
        except OSError as error:
            raise SourceError(
                f"member {quoted(name)} of {quoted(str(self._path), 200)} cannot be extracted:"
                f" {error.strerror or error}",
                remedy="Make room in the folder for temporary files, or name another one (TMPDIR).",
            ) from None

    def _copy(self, name: str, target: Path, file: BinaryIO) -> None:
        try:
            file.writelines(self.chunks(name))
        except BaseException:
            # Half a file must not pass for a whole one.
            target.unlink()
            raise

    def _at(self, info: zipfile.ZipInfo, problem: str) -> SourceError:
        where = f"member {quoted(info.filename)} at byte {info.header_offset:,}"
        return damaged(self._path, f"{where}: {problem}")


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Open the zip file ``path``. Raises :class:`SourceError` that names the file and what is wrong with it."""
    with _file(path) as stream:
        try:
            end = _end(stream)
            _limit_members(stream, end)
            file = zipfile.ZipFile(stream)
            if len(file.infolist()) != end.members:
                found = f"{len(file.infolist()):,} members"
                raise zipfile.BadZipFile(f"{found}, where its end record says {end.members:,}")
        except _BROKEN as error:
            raise damaged(path, _words(error)) from None
        except OSError as error:
            raise _failed(path, error) from None
        with file:
            yield Archive(path, file)


def damaged(path: Path, problem: str) -> SourceError:
    """A zip file that no tracker has written like this."""
    return SourceError(
        f"{quoted(str(path), 200)} cannot be read as a zip file: {problem}",
        remedy="Check it with `unzip -t FILE` and use an intact copy.",
    )


class _Bounded(io.FileIO):
    """A file of which nobody can read much at once, however large it says that its directory is."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"a directory of more than {MAX_DIRECTORY >> 20} MiB")
        return super().read(MAX_DIRECTORY if size is None or size < 0 else size)


def _file(path: Path) -> io.FileIO:
    try:
        # Before it is opened: a pipe would wait for a writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise damaged(path, "not a file")
        return _Bounded(path)
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:  # a NUL character
        raise damaged(path, str(error)) from None


class _End(NamedTuple):
    """What the end record says: where the directory begins and ends, and how many members it has."""

    directory: int
    place: int
    members: int


def _end(stream: BinaryIO) -> _End:
    """The end record, found as the standard library finds it. It has to be what the file ends with."""
    size = stream.seek(0, io.SEEK_END)
    start = max(size - _END.size - _LONGEST_COMMENT - 1, 0)
    stream.seek(start)
    tail = stream.read(size - start)
    last = len(tail) - _END.size
    bare = tail[-_END.size :].startswith(b"PK\x05\x06") and tail.endswith(b"\0\0")
    where = last if bare else tail.rfind(b"PK\x05\x06")
    if not 0 <= where <= last:
        raise zipfile.BadZipFile("File is not a zip file")
    *_, members, length, _, comment = _END.unpack_from(tail, where)
    place = start + where
    if place + _END.size + comment != size:
        end = place + _END.size + comment
        raise zipfile.BadZipFile(
            f"its end record ends at byte {end:,} and the file at byte {size:,}: cut, or added to"
        )
    stream.seek(max(place - _LARGE_END.size, 0))
    large = stream.read(_LARGE_END.size)
    if large.startswith(b"PK\x06\x06") and large[-20:].startswith(b"PK\x06\x07"):
        *_, members, length, _, _ = _LARGE_END.unpack(large)
        place -= _LARGE_END.size
    return _End(place - length, place, members)


def _limit_members(stream: BinaryIO, end: _End) -> None:
    """Count the members before the standard library makes an object of each: the end record may say fewer."""
    if end.directory < 0:
        raise zipfile.BadZipFile("Bad offset for central directory")
    stream.seek(end.directory)
    data = stream.read(end.place - end.directory)
    found = at = 0
    while at + _ENTRY <= len(data):
        found += 1
        at += _ENTRY + sum(struct.unpack_from("<3H", data, at + 28))
        if max(found, end.members) > MAX_MEMBERS:
            raise zipfile.BadZipFile(f"more than {MAX_MEMBERS:,} members")


def _failed(path: Path, error: OSError) -> SourceError:
    """An error of the system while reading: a position that cannot be is the fault of the zip file."""
    return damaged(path, "an offset") if error.errno == errno.EINVAL else unreadable(path, error)


def _words(error: Exception) -> str:
    """What the standard library says: escaped, for it quotes what it has read, and cut."""
    return quoted(str(error) or type(error).__name__, 200)[1:-1]


def _prefix(file: zipfile.ZipFile) -> str | None:
    """What precedes the first member, or the directory where there is none."""
    first = min((info.header_offset for info in file.infolist()), default=file.start_dir)
    if first:
        return f"it begins at byte {first:,}, not at byte 0: cut after a zip file inside it, or added to"
    return None


def _problem(members: list[zipfile.ZipInfo], directory: int) -> str | None:
    """What no tracker writes. ``directory`` is where the members end."""
    if sum(info.file_size for info in members) > MAX_TOTAL:
        return f"more than {MAX_TOTAL >> 30} GiB"
    for info in members:
        problem = _member_problem(info)
        if problem is not None:
            return f"member {quoted(info.orig_filename)} {problem}"
    return _clash(members) or _overlap(members, directory)


def _member_problem(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & 0x2041:  # plainly, strongly, or with its directory
        return "is encrypted"
    if info.compress_type not in _METHODS:
        return f"is compressed by method {info.compress_type}, not by deflate"
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in {0, stat.S_IFDIR if _is_folder(info) else stat.S_IFREG}:
        return "is a link or a special file"
    # The standard library ends a name at NUL and makes the system's separators slashes.
    if info.orig_filename != info.filename or not _plain(info.filename):
        return "has a name that could lead elsewhere"
    name = info.filename.encode("utf-8", "surrogatepass")
    if len(name) > MAX_NAME or max(map(len, name.split(b"/"))) > 255:
        return "has a name that is too long"
    return None


def _is_folder(info: zipfile.ZipInfo) -> bool:
    # Not ZipInfo.is_dir(), which fails at an empty name.
    return info.filename.endswith("/")


def _plain(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        bool(path.parts)
        and str(path) == name.removesuffix("/")
        and not path.is_absolute()
        and ".." not in path.parts
        and _UNSAFE.search(name) is None
        and ":" not in path.parts[0]
    )


def _clash(members: list[zipfile.ZipInfo]) -> str | None:
    """Two members in one place: of the same name, or a file where another one needs a folder."""
    names = [info.filename.removesuffix("/") for info in members]
    if len(set(names)) < len(names):
        return "two members of the same name"
    files = {info.filename for info in members if not _is_folder(info)}
    # With NUL for the slash, which no name has, what lies below a file comes right after it.
    ordered = sorted(names, key=lambda name: name.replace("/", "\0"))
    for above, name in pairwise(ordered):
        if above in files and name.startswith(f"{above}/"):
            return f"member {quoted(name)} lies below {quoted(above)}, which is a file"
    return None


def _overlap(members: list[zipfile.ZipInfo], directory: int) -> str | None:
    """Members that share bytes: a small file could hold as much as one likes."""
    ordered = sorted(members, key=lambda info: info.header_offset)
    ends = [*(info.header_offset for info in ordered[1:]), directory]
    for info, end in zip(ordered, ends, strict=False):
        if info.header_offset + _LOCAL_HEADER + info.compress_size > end:
            return f"member {quoted(info.filename)} reaches into what follows"
    return None
