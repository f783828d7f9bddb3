"""Reading the folder a job wrote into: hostile until proven plain files of bounded size."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import HostileOutputError
from bundler.sandbox.model import Limits

MAX_DEPTH = 16
MAX_CODE_DEPTH = 64
"""For the working folder, which holds what the provider's repository does: each level is an open folder."""
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a job left: its regular ``files``, sorted, and how many symbolic ``links`` were removed."""

    files: tuple[Path, ...]
    links: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What lies in folders: ``bytes`` of its files, ``files`` and folders, levels of ``depth``."""

    bytes: int = 0
    files: int = 0
    depth: int = 0


def walk(folder: Path, *, max_depth: int = MAX_DEPTH) -> Iterator[tuple[str, os.stat_result]]:
    """Yield ``(relative path, lstat)`` of everything below ``folder``, never following a link.

    Folders deeper than ``max_depth`` are yielded but not entered; what vanishes meanwhile is left
    out. Raises OSError for a folder that cannot be opened.
    """
    levels = [_Level.of(os.open(folder, _OPEN_FOLDER), "")]
    try:
        while levels:
            level = levels[-1]
            entry = next(level.entries, None)
            if entry is None:
                levels.pop().close()
                continue
            path = level.prefix + entry.name
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield path, status
            if stat.S_ISDIR(status.st_mode) and len(levels) <= max_depth:
                # Swapped since, NOFOLLOW notices.
                with suppress(FileNotFoundError, NotADirectoryError):
                    child = os.open(entry.name, _OPEN_FOLDER, dir_fd=level.fd)
                    levels.append(_Level.of(child, path + "/"))
    finally:
        for level in levels:
            level.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    """An open folder on the way down, and what is left to look at in it."""

    fd: int
    prefix: str
    entries: Iterator[os.DirEntry[str]]
    stack: ExitStack

    @classmethod
    def of(cls, fd: int, prefix: str) -> _Level:
        with ExitStack() as stack:
            stack.callback(os.close, fd)
            entries = iter(stack.enter_context(os.scandir(fd)))
            return cls(fd=fd, prefix=prefix, entries=entries, stack=stack.pop_all())

    def close(self) -> None:
        self.stack.close()


def size(folder: Path) -> Size:
    """Measure a working folder as :func:`excess` does. Raises OSError for one that cannot be read."""
    total = count = depth = 0
    for path, status in walk(folder, max_depth=MAX_CODE_DEPTH):
        count += 1
        total += _charged(status)
        depth = max(depth, path.count("/") + 1)
    return Size(bytes=total, files=count, depth=depth)


def excess(*folders: Path, max_bytes: int, max_files: int, given: Size | None = None) -> str:
    """Say how ``folders`` together exceed their limits, or "" if they do not; used while the job runs and once after.

    ``given`` is what lay there before the job began: that much more is allowed. A file counts with
    its size or its blocks, whichever is larger (sparse files, preallocation).
    """
    given = given or Size()
    # Code that is nested deeply already may get some levels more.
    max_depth = min(given.depth + MAX_DEPTH, MAX_CODE_DEPTH)
    total = count = 0
    try:
        for folder in folders:
            for path, status in walk(folder, max_depth=max_depth):
                count += 1
                total += _charged(status)
                if total > max_bytes + given.bytes:
                    return f"more than {max_bytes + given.bytes} bytes"
                if count > max_files + given.files:
                    return f"more than {max_files + given.files} files"
                if path.count("/") >= max_depth:
                    return f"folders nested more than {max_depth} deep"
    except PermissionError:
        return "a folder that the verifier cannot read"
    except OSError as error:
        return f"a folder that cannot be read ({error.strerror})"
    return ""


def _charged(status: os.stat_result) -> int:
    return 0 if stat.S_ISDIR(status.st_mode) else max(status.st_size, status.st_blocks * 512)


def collect(output: Path, *, limits: Limits) -> Collected:
    """Return the regular files below ``output`` after checking everything that lies there.

    Symbolic links are removed, whatever they point at: trackers leave some (``latest-run``), and
    nothing that was never followed can be missed. They go only once the rest was found in order.
    Raises :class:`bundler.errors.HostileOutputError` naming the first thing that is neither a
    regular file nor a folder nor a symbolic link, has a second hard link or a set-uid bit, a name
    that could deceive a reader, or exceeds ``limits`` (``file_bytes``, ``output_bytes``, ``output_files``) or
    ``MAX_DEPTH``.
    """
    files: list[Path] = []
    links: list[str] = []
    total = count = 0
    try:
        for path, status in walk(output):
            count += 1
            total += 0 if stat.S_ISDIR(status.st_mode) else status.st_size
            problem = _problem(path, status, limits)
            if count > limits.output_files:
                problem = f"more than {limits.output_files} files"
            elif total > limits.output_bytes:
                problem = f"more than {limits.output_bytes} bytes in total"
            if problem:
                raise _hostile(path, problem)
            if stat.S_ISREG(status.st_mode):
                files.append(output / path)
            elif stat.S_ISLNK(status.st_mode):
                links.append(path)
        for path in links:
            with _parent(output, path) as fd:
                os.unlink(path.rpartition("/")[2], dir_fd=fd)
    except OSError as error:
        raise _hostile(str(error.filename or output), f"unreadable ({error.strerror})") from error
    return Collected(files=tuple(sorted(files)), links=len(links))


def _problem(  # noqa: PLR0911 - one line for each rule
    path: str, status: os.stat_result, limits: Limits
) -> str:
    if stat.S_ISLNK(status.st_mode):
        return ""  # it goes, and its name with it
    name = path.rpartition("/")[2]
    # Category C: control, format (bidi overrides) and surrogates, i.e. bytes that are not UTF-8.
    if "\\" in name or any(unicodedata.category(c)[0] == "C" or c in "\u2028\u2029" for c in name):
        return "forbidden characters in the name"
    if path.count("/") >= MAX_DEPTH:
        return f"nested more than {MAX_DEPTH} folders deep"
    if stat.S_ISDIR(status.st_mode):
        return ""
    if not stat.S_ISREG(status.st_mode):
        return _KINDS.get(stat.S_IFMT(status.st_mode), "special file")
    if status.st_nlink != 1:
        return f"{status.st_nlink} hard links"
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        return "set-uid or set-gid"
    if status.st_size > limits.file_bytes:
        return f"more than {limits.file_bytes} bytes"
    return ""


def _hostile(path: str, problem: str) -> HostileOutputError:
    shown = path.encode("ascii", "backslashreplace").decode()
    return HostileOutputError(
        f"the re-run left output that must not be read: {problem}: {shown!r}",
        remedy="Ask the provider why the training writes this; nothing of the output was used.",
    )


def give(folder: Path, uid: int, gid: int) -> None:
    """Make ``folder`` and what lies below it belong to the job's user; needs root, follows no link."""
    try:
        for path, _ in walk(folder, max_depth=MAX_CODE_DEPTH):
            # No job runs, so no name can change between walking and opening.
            with _parent(folder, path) as fd:
                os.chown(path.rpartition("/")[2], uid, gid, dir_fd=fd, follow_symlinks=False)
    finally:
        os.chown(folder, uid, gid, follow_symlinks=False)


@contextmanager
def _parent(folder: Path, path: str) -> Iterator[int]:
    """Open the folder that holds ``path`` below ``folder``, one level after the other: no link is followed."""
    fd = os.open(folder, _OPEN_FOLDER)
    try:
        for part in path.split("/")[:-1]:
            child = os.open(part, _OPEN_FOLDER, dir_fd=fd)
            os.close(fd)
            fd = child
        yield fd
    finally:
        os.close(fd)
