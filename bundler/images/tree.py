"""A root file system that is put together from untrusted layers, and never leaves its folder."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import quoted
from bundler.images.layers import RefusedError

_HIDE = ".wh."
_OPAQUE = ".wh..wh..opq"
_META = ".wh..wh."
_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The most that an image may unpack to: bytes of all layers, entries, and folders within one another."""

    size: int = 64 << 30
    entries: int = 2_000_000
    depth: int = 128


class Tree:
    """The folder ``place``, into which layers are written one over the other.

    Each folder on the way to an entry is opened from the one above without following links; a link is followed by
    hand, as if ``place`` were ``/``. Modes become 0755 or 0644: another user can read it, nothing is set-uid.
    Raises :class:`RefusedError` and OSError.
    """

    def __init__(self, place: Path, bounds: Bounds) -> None:
        self._root = os.open(place, os.O_RDONLY | _FOLDER)
        self._bounds = bounds
        self._entries = 0
        self._made: set[str] = set()
        self._cleared: set[str] = set()

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._root)

    def begin_layer(self) -> None:
        """What was written until now is that of lower layers, which whiteouts hide."""
        self._made.clear()
        self._cleared.clear()

    def count(self) -> None:
        """One entry more, whether it is written or not."""
        self._entries += 1
        if self._entries > self._bounds.entries:
            raise RefusedError(f"more than {self._bounds.entries:,} entries")

    def parts(self, name: str) -> tuple[str, ...]:
        """The folders and the name of an entry. Raises :class:`RefusedError` for a name that could lead elsewhere."""
        parts = tuple(word for word in name.split("/") if word not in {"", "."})
        long = len(os.fsencode(name)) > 4096 or any(len(os.fsencode(part)) > 255 for part in parts)
        if name.startswith("/") or ".." in parts or "\0" in name or long:
            raise RefusedError(f"an entry called {quoted(name)}, which could lead elsewhere")
        if len(parts) > self._bounds.depth:
            raise RefusedError(f"an entry within {len(parts)} folders: {quoted(name)}")
        return parts

    def folder(self, parts: tuple[str, ...]) -> None:
        """Make a folder, unless there is one."""
        with self._above(parts) as (fd, key):
            if not stat.S_ISDIR(_mode(fd, parts[-1])):
                self._remove(fd, parts[-1], key)
                _make_folder(fd, parts[-1])
            self._made.add(key)

    def file(
        self, parts: tuple[str, ...], pieces: Iterable[bytes], *, program: bool, time: float
    ) -> None:
        """Write a file. Its time is kept, because Python holds compiled modules against it."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._above(parts) as (fd, key):
            self._remove(fd, parts[-1], key)
            with os.fdopen(os.open(parts[-1], flags, 0o600, dir_fd=fd), "wb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fchmod(file.fileno(), 0o755 if program else 0o644)
                with suppress(OverflowError, ValueError, OSError):  # no time that a file can have
                    os.utime(file.fileno(), (time, time))
            self._made.add(key)

    def symlink(self, parts: tuple[str, ...], target: str) -> None:
        """Make a symbolic link: wherever it leads, here it is only data."""
        if not target or "\0" in target or len(os.fsencode(target)) > 4095:
            raise RefusedError(f"a link with an impossible target: {quoted(target)}")
        with self._above(parts) as (fd, key):
            self._remove(fd, parts[-1], key)
            os.symlink(target, parts[-1], dir_fd=fd)
            self._made.add(key)

    def hard_link(self, parts: tuple[str, ...], target: tuple[str, ...]) -> None:
        """Give the file ``target``, which is there already, one more name."""
        if not target:
            raise RefusedError("a hard link to the root")
        name, of = parts[-1], target[-1]
        with self._above(parts) as (fd, key), self._above(target, make=False) as (there, other):
            mode = _mode(there, of)
            if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                raise RefusedError(f"a hard link to what is no file: {quoted('/'.join(target))}")
            if key != other:
                self._remove(fd, name, key)
                os.link(of, name, src_dir_fd=there, dst_dir_fd=fd, follow_symlinks=False)
            self._made.add(key)

    def hide(self, parts: tuple[str, ...]) -> bool:
        """Whether ``parts`` is a whiteout: then hide what lower layers have in its place, and only that."""
        if any(part.startswith(_META) and part != _OPAQUE for part in parts):
            return True  # what AUFS kept for itself
        if any(part.startswith(_HIDE) for part in parts[:-1]):
            raise RefusedError(f"an entry below a whiteout: {quoted('/'.join(parts))}")
        mark = parts[-1]
        hidden = mark.removeprefix(_HIDE)
        if hidden == mark:
            return False
        if hidden in {"", ".", ".."}:
            raise RefusedError("a whiteout of no name")
        with suppress(FileNotFoundError), self._above(parts, make=False) as (fd, key):
            # Once for each folder and layer: a layer may say it again and again.
            if key not in self._cleared:
                self._cleared.add(key)
                for each in os.listdir(fd) if mark == _OPAQUE else [hidden]:
                    self._remove(fd, each, _key(key.rpartition("/")[0], each), kept=self._made)
        return True

    def _remove(self, fd: int, name: str, key: str, kept: Container[str] = ()) -> None:
        """Remove ``name`` from the folder ``fd``, with what lies below it, but for what is ``kept``."""
        mode = _mode(fd, name)
        if mode and not stat.S_ISDIR(mode) and key not in kept:
            os.unlink(name, dir_fd=fd)
        if not stat.S_ISDIR(mode):
            return
        inner = os.open(name, os.O_RDONLY | _FOLDER, dir_fd=fd)
        try:
            for each in os.listdir(inner):
                self._remove(inner, each, _key(key, each), kept)
        finally:
            os.close(inner)
        if key not in kept:
            with suppress(OSError):  # something in it was kept
                os.rmdir(name, dir_fd=fd)

    @contextmanager
    def _above(self, parts: tuple[str, ...], *, make: bool = True) -> Iterator[tuple[int, str]]:
        """The open folder above an entry, and the path that the entry really has, however links lead there."""
        way = _Way(fds=[os.dup(self._root)], names=[])
        try:
            self._go(parts[:-1], way, make=make)
            yield way.fds[-1], _key("/".join(way.names), parts[-1])
        finally:
            for fd in way.fds:
                os.close(fd)

    def _go(self, parts: tuple[str, ...], way: _Way, *, make: bool) -> None:
        pending, links = deque(parts), 0
        while pending:
            part = pending.popleft()
            if part in {"", ".", ".."}:
                way.back(1 if part == ".." else 0)
                continue
            mode = _mode(way.fds[-1], part)
            if stat.S_ISLNK(mode):
                links += 1
                pending.extendleft(reversed(way.target(part).split("/")))
            elif stat.S_ISDIR(mode):
                way.enter(part)
            elif mode:
                raise RefusedError(f"a file where a folder is needed: {quoted('/'.join(parts))}")
            elif make:
                self.count()
                _make_folder(way.fds[-1], part)
                way.enter(part)
            else:
                raise FileNotFoundError(errno.ENOENT, "there is no such folder")
            if links > _MAX_LINKS or len(way.names) > self._bounds.depth:
                raise RefusedError(f"links lead in circles or too deep: {quoted('/'.join(parts))}")


@dataclass(slots=True, kw_only=True)
class _Way:
    """The folders that are open on the way to an entry, the root first, and the names of those below it."""

    fds: list[int]
    names: list[str]

    def enter(self, name: str) -> None:
        self.fds.append(os.open(name, os.O_RDONLY | _FOLDER, dir_fd=self.fds[-1]))
        self.names.append(name)

    def back(self, steps: int) -> None:
        """Go up, but never above the root."""
        for _ in range(min(steps, len(self.names))):
            os.close(self.fds.pop())
            self.names.pop()

    def target(self, name: str) -> str:
        """Where the link ``name`` leads from here, which is the root if it says so."""
        target = os.readlink(name, dir_fd=self.fds[-1])
        if target.startswith("/"):
            self.back(len(self.names))
        return target


def _make_folder(fd: int, name: str) -> None:
    os.mkdir(name, dir_fd=fd)
    os.chmod(name, 0o755, dir_fd=fd)  # noqa: S103  # whatever umask there is; another user is to read it


def _key(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _mode(fd: int, name: str) -> int:
    """The mode of ``name`` in the folder ``fd``, or 0 if there is none."""
    try:
        return os.lstat(name, dir_fd=fd).st_mode
    except FileNotFoundError:
        return 0
