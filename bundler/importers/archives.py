"""Zip files of trackers, read within bounds: their maker may want to exhaust or mislead the reader."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from bundler.errors import SourceError, quoted
from bundler.importers.files import unreadable

MAX_MEMBERS = 100_000
MAX_TOTAL = 64 << 30
"""Most bytes of all members together, as they say themselves and as they turn out to be."""

_CHUNK = 1 << 20


class Archive:
    """An open zip file whose members have plain, distinct names."""

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        self._path = path
        self._file = file
        self._members = {info.filename: info for info in file.infolist() if not info.is_dir()}
        problem = self._problem(file.infolist())
        if problem is not None:
            raise damaged(path, problem)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members that are files, sorted."""
        return tuple(sorted(self._members))

    def read(self, name: str, *, limit: int) -> bytes:
        """The bytes of member ``name``, at most ``limit``. Raises :class:`SourceError`."""
        return b"".join(self.chunks(name, limit=limit))

    def chunks(self, name: str, *, limit: int = MAX_TOTAL) -> Iterator[bytes]:
        """The bytes of member ``name`` in pieces of at most 1 MiB; more than ``limit`` are refused."""
        info = self._members.get(name)
        if info is None:
            raise damaged(self._path, f"no member {quoted(name)}")
        left = min(limit, info.file_size)
        if info.file_size > limit:
            raise damaged(self._path, f"member {quoted(name)} of more than {limit:,} bytes")
        try:
            with self._file.open(info) as member:
                while piece := member.read(_CHUNK):
                    left -= len(piece)
                    if left < 0:
                        raise damaged(self._path, f"member {quoted(name)} is longer than it says")
                    yield piece
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise damaged(
                self._path, f"member {quoted(name)} at byte {info.header_offset}: {error}"
            ) from None
        except OSError as error:
            raise unreadable(self._path, error) from None

    def extract(self, name: str, target: Path) -> None:
        """Write member ``name`` to the new file ``target``, with the folders that it needs."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            for piece in self.chunks(name):
                file.write(piece)

    def _problem(self, members: list[zipfile.ZipInfo]) -> str | None:
        if len(members) > MAX_MEMBERS:
            return f"more than {MAX_MEMBERS:,} members"
        if sum(info.file_size for info in members) > MAX_TOTAL:
            return f"more than {MAX_TOTAL >> 30} GiB"
        if len({info.filename for info in members}) < len(members):
            return "two members of the same name"
        for info in members:
            if info.flag_bits & 1:
                return f"member {quoted(info.filename)} is encrypted"
            if not _plain(info.filename):
                return f"a member called {quoted(info.filename)}"
        return None


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Open the zip file ``path``. Raises :class:`SourceError` that names the file and what is wrong with it."""
    try:
        file = zipfile.ZipFile(path)
    except OSError as error:
        raise unreadable(path, error) from None
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise damaged(path, str(error)) from None
    with file:
        yield Archive(path, file)


def damaged(path: Path, problem: str) -> SourceError:
    """A zip file that no tracker has written like this."""
    return SourceError(
        f"{quoted(str(path), 200)} cannot be read as a zip file: {problem}",
        remedy="Check it with `unzip -t FILE` and use an intact copy.",
    )


def _plain(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        bool(path.parts)
        and not path.is_absolute()
        and ".." not in path.parts
        and not any(ord(each) < 32 for each in name)
        and "\\" not in name
        and ":" not in name.partition("/")[0]
    )
