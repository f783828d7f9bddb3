"""The files of an image, in a folder or a tar, read within bounds: their maker may want to mislead the reader."""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import re
import stat
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, Protocol

from bundler import canonical
from bundler.errors import MalformedError, SourceError, quoted
from bundler.images.references import DIGEST

MAX_JSON = 4 << 20
"""Largest manifest, index or configuration in bytes; registries refuse larger manifests."""

MAX_MEMBERS = 100_000
_MAX_HEADER = 1 << 12
"""Most bytes of an extended header of a tar, which holds a long name or a time: the standard library reads it at once,
and before Python 3.11.10 takes time that grows with the square of digits in a row."""

_DIGITS = re.compile(rb"[0-9]{200}")

_CHUNK = 1 << 20


class Files(Protocol):
    """The files of an image by name. :meth:`chunks` and :meth:`refuse` raise :class:`SourceError`."""

    def __contains__(self, name: str) -> bool: ...

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of the file ``name`` in pieces of at most 1 MiB."""
        ...

    def refuse(self, problem: str) -> NoReturn:
        """Say that the image cannot be read."""
        ...


class Folder:
    """An image in a folder. Links are not followed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __contains__(self, name: str) -> bool:
        return os.path.lexists(self._path / name)

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of the file ``name`` in pieces of at most 1 MiB."""
        for parent in PurePosixPath(name).parents:
            if str(parent) != "." and (self._path / parent).is_symlink():
                self.refuse(f"{parent} is a link")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            # Not blocking: a pipe would wait for a writer.
            with os.fdopen(os.open(self._path / name, flags), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    self.refuse(f"{name} is no file")
                while piece := file.read(_CHUNK):
                    yield piece
        except FileNotFoundError:
            self.refuse(f"{name} is missing")
        except OSError as error:
            self.refuse(f"{name} cannot be read: {error.strerror}")

    def refuse(self, problem: str) -> NoReturn:
        """Say that the image cannot be read."""
        _refuse(self._path, problem)


class Tar:
    """An image in a tar that is not compressed. Nothing is unpacked."""

    def __init__(self, path: Path, file: _Bounded) -> None:
        self._path = path
        self._descriptor = file.fileno()
        self._end = os.fstat(self._descriptor).st_size
        self._members: dict[str, tarfile.TarInfo] = {}
        count = 0
        try:
            # "r:" and not "r": nothing is to be decompressed.
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (member := archive.next()) is not None:
                    count += 1
                    if count > MAX_MEMBERS:
                        self.refuse(f"more than {MAX_MEMBERS:,} members")
                    self._take(member)
        except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
            problem = quoted(str(error), 100)[1:-1]
            self.refuse(f"it is no tar, or a damaged or compressed one: {problem}")
        except OSError as error:
            self.refuse(error.strerror or str(error))

    def _take(self, member: tarfile.TarInfo) -> None:
        name = member.name.removeprefix("./")
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
            self.refuse(f"a member called {quoted(member.name)} that could lead elsewhere")
        if member.isdir():
            return
        if name in self._members:
            self.refuse(f"two members called {quoted(name)}")
        if member.offset_data + member.size > self._end and member.isreg():
            self.refuse(f"member {quoted(name)} at byte {member.offset:,} is cut off")
        self._members[name] = member

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of the member ``name``. A link to another member, as Docker wrote them, is followed once."""
        member = self._members.get(name)
        if member is not None and (member.issym() or member.islnk()):
            folder = posixpath.dirname(name) if member.issym() else ""
            member = self._members.get(posixpath.normpath(posixpath.join(folder, member.linkname)))
        if member is None:
            self.refuse(f"{quoted(name, 120)} is missing")
        if not member.isreg() or member.issparse():
            self.refuse(f"{quoted(name, 120)} is no plain file")
        at, end = member.offset_data, member.offset_data + member.size
        while piece := os.pread(self._descriptor, min(end - at, _CHUNK), at):
            at += len(piece)
            yield piece

    def refuse(self, problem: str) -> NoReturn:
        """Say that the image cannot be read."""
        _refuse(self._path, problem)


class _Bounded(io.FileIO):
    """A file of which nobody reads much at once, however large a header says that it is."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header of more than {_MAX_HEADER:,} bytes")
        data = super().read(size)
        if _DIGITS.search(data):
            raise tarfile.ReadError("a header with a number of 200 digits")
        return data


@contextmanager
def files_of(path: Path) -> Iterator[Folder | Tar]:
    """The files of the image at ``path``. Raises :class:`SourceError` if nothing can be read there."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            yield Folder(path)
            return
        if not stat.S_ISREG(mode):
            _refuse(path, "it is neither a folder nor a file")
        file = _Bounded(path)
    except OSError as error:
        _refuse(path, error.strerror or str(error))
    with file:
        yield Tar(path, file)


def read_json(files: Files, name: str, *, digest: str | None = None, size: object = None) -> Any:
    """The value of the JSON file ``name``, of at most 4 MiB, read strictly.

    Where ``digest`` is given, the bytes must have it, and ``size`` bytes.
    """
    data = bytearray()
    for piece in files.chunks(name):
        data += piece
        if len(data) > MAX_JSON:
            files.refuse(f"{quoted(name, 120)} has more than {MAX_JSON >> 20} MiB")
    if digest is not None:
        algorithm = digest.partition(":")[0]
        found = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
        _compare(files, name, (digest, size), (found, len(data)))
    try:
        return canonical.parse(bytes(data), name=quoted(name, 120))
    except MalformedError as error:
        files.refuse(error.message)


def json_blob(files: Files, descriptor: Mapping[str, Any], what: str) -> Any:
    """The value of the JSON blob of ``descriptor``, held against its digest and size."""
    digest = digest_of(files, descriptor, what)
    return read_json(files, place(digest), digest=digest, size=descriptor.get("size"))


def check_blob(files: Files, descriptor: Mapping[str, Any], what: str) -> None:
    """Hold the blob of ``descriptor`` against its digest and size."""
    digest = digest_of(files, descriptor, what)
    name = place(digest)
    found, size, _ = hashed(files, name, digest.partition(":")[0])
    _compare(files, name, (digest, descriptor.get("size")), (found, size))


def digest_of(files: Files, descriptor: Mapping[str, Any], what: str) -> str:
    """The digest of ``descriptor``, in an algorithm that the OCI specification registers."""
    digest = descriptor.get("digest")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        files.refuse(f"the {what} has the digest {quoted(digest)}, which is no SHA-256 or SHA-512")
    return digest


def _compare(files: Files, name: str, expected: tuple[str, object], found: tuple[str, int]) -> None:
    if found[1] != expected[1]:
        files.refuse(f"{name} has {found[1]:,} bytes and not {quoted(expected[1])}")
    if found[0] != expected[0]:
        files.refuse(f"{name} has another digest than its name says: {found[0]}")


def place(digest: str) -> str:
    """Where a layout keeps the blob of that digest."""
    algorithm, _, digits = digest.partition(":")
    return f"blobs/{algorithm}/{digits}"


def hashed(files: Files, name: str, algorithm: str) -> tuple[str, int, bytes]:
    """Digest, size and first bytes of the file ``name``, in one pass."""
    digest = hashlib.new(algorithm)
    size = 0
    start = b""
    for piece in files.chunks(name):
        start = start or piece[:8]
        digest.update(piece)
        size += len(piece)
    return f"{algorithm}:{digest.hexdigest()}", size, start


def _refuse(path: Path, problem: str) -> NoReturn:
    raise SourceError(
        f"{quoted(str(path), 200)} cannot be read as a container image: {problem}",
        remedy="Write it anew, with `skopeo copy … oci-archive:FILE` or `docker save -o FILE`, not compressed.",
    )
