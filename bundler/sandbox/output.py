"""Reading the folder a job wrote into: hostile until proven plain files of bounded size."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from bundler.errors import HostileOutputError
from bundler.sandbox.model import Limits

MAX_DEPTH = 16
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield ``(relative path, lstat)`` of everything below ``folder``, never following a link.

    Folders deeper than ``MAX_DEPTH`` are yielded but not entered; what vanishes meanwhile is left
    out. Raises OSError for a folder that cannot be opened.
    """
    root = os.open(folder, _OPEN_FOLDER)
    try:
        yield from _walk(root, "", 1)
    finally:
        os.close(root)


def _walk(fd: int, prefix: str, depth: int) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(fd) as entries:
        for entry in entries:
            path = prefix + entry.name
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield path, status
            if not stat.S_ISDIR(status.st_mode) or depth > MAX_DEPTH:
                continue
            try:
                child = os.open(entry.name, _OPEN_FOLDER, dir_fd=fd)
            except (FileNotFoundError, NotADirectoryError):  # swapped since; NOFOLLOW noticed
                continue
            try:
                yield from _walk(child, path + "/", depth + 1)
            finally:
                os.close(child)


def excess(folder: Path, *, max_bytes: int, max_files: int) -> str:
    """Say how ``folder`` exceeds its limits, or "" while it does not; used while the job runs.

    A file counts with its size or its blocks, whichever is larger (sparse files, preallocation).
    """
    total = count = 0
    try:
        for path, status in walk(folder):
            count += 1
            if not stat.S_ISDIR(status.st_mode):
                total += max(status.st_size, status.st_blocks * 512)
            if total > max_bytes:
                return f"more than {max_bytes} bytes"
            if count > max_files:
                return f"more than {max_files} files"
            if path.count("/") >= MAX_DEPTH:
                return f"folders nested more than {MAX_DEPTH} deep"
    except PermissionError:
        return "a folder that the verifier cannot read"
    except OSError as error:
        return f"a folder that cannot be read ({error.strerror})"
    return ""


def collect(output: Path, *, limits: Limits) -> tuple[Path, ...]:
    """Return the regular files below ``output``, sorted, after checking everything that lies there.

    Raises :class:`bundler.errors.HostileOutputError` naming the first thing that is not a regular
    file or a folder, has a second hard link, a name that could deceive a reader, or exceeds
    ``limits`` (``file_bytes``, ``output_bytes``, ``output_files``) or ``MAX_DEPTH``.
    """
    files: list[Path] = []
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
    except OSError as error:
        raise _hostile(str(error.filename or output), f"unreadable ({error.strerror})") from error
    return tuple(sorted(files))


def _problem(  # noqa: PLR0911 - one line for each rule
    path: str, status: os.stat_result, limits: Limits
) -> str:
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
    if status.st_size > limits.file_bytes:
        return f"more than {limits.file_bytes} bytes"
    return ""


def _hostile(path: str, problem: str) -> HostileOutputError:
    shown = path.encode("ascii", "backslashreplace").decode()
    return HostileOutputError(
        f"the re-run left output that must not be read: {problem}: {shown!r}",
        remedy="Ask the provider why the training writes this; nothing of the output was used.",
    )


def give(output: Path, uid: int, gid: int) -> None:
    """Make the (empty) folder ``output`` belong to the job's user; needs root."""
    os.chown(output, uid, gid, follow_symlinks=False)


def take_back(output: Path, uid: int, gid: int) -> None:
    """Give ``output`` and what lies below it back to the verifier; needs root, follows no link."""
    try:
        for path, _ in walk(output):
            parent, _, name = path.rpartition("/")
            # The job is dead, so no name can change between walking and opening.
            fd = os.open(output / parent, _OPEN_FOLDER)
            try:
                os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)
            finally:
                os.close(fd)
    finally:
        os.chown(output, uid, gid, follow_symlinks=False)
