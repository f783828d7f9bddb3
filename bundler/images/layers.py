"""One layer of an image, read forwards: its bytes hashed, decompressed within bounds, and taken apart as a tar."""

from __future__ import annotations

import hashlib
import importlib
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

_CHUNK = 1 << 20
_MAX_HEADERS = 1 << 20
"""Most bytes of headers before one entry: long names, extended attributes, and the list of a sparse file."""

_DIGITS = re.compile(rb"[0-9]{200}")
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_OTHER = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip"}
_ZSTD_MODULES = ("compression.zstd", "backports.zstd")


class RefusedError(Exception):
    """The image cannot be unpacked; the message is for people and quotes nothing raw."""


class Layer:
    """The tar inside of the compressed ``pieces``; what it offers to :mod:`tarfile` it offers forwards only.

    ``digest`` (``sha256:…``) is what the pieces must have, ``diff_id`` what the tar must have; both are compared by
    :meth:`finish`, so nothing of what was read before may be used until then. Not more than ``limit`` bytes come out.
    """

    def __init__(self, pieces: Iterator[bytes], *, digest: str, diff_id: str, limit: int) -> None:
        self._expected = {"layer": digest, "tar in it": diff_id}
        self._hashes = {
            what: hashlib.new(text.partition(":")[0]) for what, text in self._expected.items()
        }
        self._tar = _decompressed(self._hashed(pieces, "layer"))
        self._buffer = b""
        self._at = 0
        self._limit = limit
        self._headers = 0
        self._last = b""

    def _hashed(self, pieces: Iterator[bytes], what: str) -> Iterator[bytes]:
        for piece in pieces:
            self._hashes[what].update(piece)
            yield piece

    def _take(self, size: int) -> bytes:
        """The next bytes, at least one and at most ``size``, or none at the end."""
        if not self._buffer:
            self._buffer = next(self._tar, b"")
            self._hashes["tar in it"].update(self._buffer)
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        self._at += len(taken)
        if self._at > self._limit:
            raise RefusedError("it unpacks to more than is allowed")
        return taken

    def data(self, size: int) -> Iterator[bytes]:
        """The next ``size`` bytes, in pieces."""
        while size > 0:
            piece = self._take(min(size, _CHUNK))
            if not piece:
                raise RefusedError("the tar is cut off")
            size -= len(piece)
            yield piece

    def read(self, size: int) -> bytes:
        """What tarfile reads: headers only, since the data of files is taken by :meth:`data`."""
        self._headers += size
        if size < 0 or self._headers > _MAX_HEADERS:
            raise tarfile.ReadError("more than 1 MiB of headers for one entry")
        found = b""
        while len(found) < size and (piece := self._take(size - len(found))):
            found += piece
        if _DIGITS.search(found):  # before Python 3.11.10, time that grows with their square
            raise tarfile.ReadError("a header with a number of 200 digits")
        self._last = found
        return found

    def tell(self) -> int:
        """How many bytes of the tar were read."""
        return self._at

    def seek(self, place: int) -> None:
        """Go on at ``place``, which is never before the present one."""
        for _ in self.data(place - self._at):
            pass

    def entries(self) -> Iterator[tarfile.TarInfo]:
        """The entries of the tar, one after the other. Raises :class:`RefusedError` for a damaged tar."""
        archive: tarfile.TarFile | None = None
        while True:
            self._headers = 0
            try:
                if archive is None:
                    archive = _open(self)
                entry = archive.next()
            except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
                raise RefusedError(f"the tar is damaged: {ascii(str(error))[1:-1][:100]}") from None
            if entry is None:
                break
            archive.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
            if entry.size < 0:
                raise RefusedError("the tar is damaged: an entry of negative size")
            yield entry
        if self._last.strip(b"\0"):
            raise RefusedError("the tar is damaged: an entry that has no valid header")

    def finish(self) -> None:
        """Read to the end and compare the digests. Raises :class:`RefusedError` if one differs."""
        while self._take(_CHUNK):
            pass
        for what, expected in self._expected.items():
            algorithm = expected.partition(":")[0]
            found = f"{algorithm}:{self._hashes[what].hexdigest()}"
            if found != expected:
                raise RefusedError(f"the {what} has the digest {found} and not {expected}")


def _open(layer: Any) -> tarfile.TarFile:
    return tarfile.TarFile(fileobj=layer, mode="r", encoding="utf-8", errors="surrogateescape")


def _decompressed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces decompressed, by what they begin with; at most 1 MiB at once."""
    start = b""
    for piece in pieces:
        start += piece
        if len(start) >= 8:
            break
    rest = _again(start, pieces)
    other = next((name for magic, name in _OTHER.items() if start.startswith(magic)), None)
    if other is not None:
        raise RefusedError(f"it is compressed with {other}, which images are not")
    if start.startswith(_GZIP):
        yield from _stream(rest, _Gzip, zlib.error)
    elif start.startswith(_ZSTD):
        yield from _stream(rest, *_zstd())
    else:
        yield from rest


def _again(start: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    if start:
        yield start
    yield from pieces


class _Gzip:
    """zlib with the interface of ``compression.zstd.ZstdDecompressor``."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        found = self._inflater.decompress(self._inflater.unconsumed_tail + data, max_length)
        self.needs_input = not self._inflater.unconsumed_tail and len(found) < max_length
        return found


def _zstd() -> tuple[Callable[[], Any], type[Exception]]:
    for name in _ZSTD_MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        return module.ZstdDecompressor, module.ZstdError
    raise RefusedError(
        "it is compressed with Zstandard: that needs Python 3.14, or the package backports.zstd"
    )


def _stream(
    pieces: Iterator[bytes], make: Callable[[], Any], failure: type[Exception]
) -> Iterator[bytes]:
    """Decompress one stream after the other, as both formats allow to put several into a file."""
    decoder: Any = None
    for piece in pieces:
        data = piece
        while data or (decoder is not None and not decoder.needs_input):
            decoder = decoder or make()
            try:
                found = decoder.decompress(data, _CHUNK)
            except failure as error:
                problem = ascii(str(error))[1:-1][:100]
                raise RefusedError(f"it cannot be decompressed: {problem}") from None
            if found:
                yield found
            data = b""
            if decoder.eof:
                data, decoder = decoder.unused_data, None
    if decoder is not None:
        raise RefusedError("its compressed data are cut off")
