"""The folders on the verifier's side that a job is given."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from bundler.sandbox.removal import remove


@contextmanager
def workplace(keep: Path | None) -> Iterator[Path]:
    """An empty folder; removed afterwards unless it is to be kept."""
    if keep is not None:
        keep.mkdir(parents=True, mode=0o700)  # what foreign code leaves may have a set-uid bit
        yield keep.resolve()
        return
    # Resolved, because what the training leaves is held against it, and TMPDIR may be a link.
    place = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    lock = _lock(place)
    try:
        yield place
    finally:
        os.close(lock)
        remove(place)


PREFIX = "aisdp-rerun-"
LOCK = ".in-use"


def sweep() -> None:
    """Remove what verifications that were killed have left: folders of this user that nobody holds."""
    for folder in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        with suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(folder)
            finally:
                os.close(lock)


def _lock(place: Path) -> int:
    """A descriptor that holds ``place``; the kernel lets go of it when this process ends, however it ends."""
    # Locked before it has its name: nobody can find it free.
    lock = os.open(place / f"{LOCK}.new", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.rename(place / f"{LOCK}.new", place / LOCK)  # noqa: PTH104
    return lock


def make(folder: Path) -> None:
    """Make ``folder``; the job may run under another user, whatever umask this one has."""
    with suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o755)


@contextmanager
def new_file(folder: Path, inside: str, *, program: bool) -> Iterator[BinaryIO]:
    """Open ``inside`` below ``folder`` for writing, readable by everybody and, if a ``program``, executable."""
    *folders, name = PurePosixPath(inside).parts
    for part in folders:  # not mkdir(parents=True), which needs a stack as deep
        folder /= part
        make(folder)
    with (folder / name).open("wb") as file:
        yield file
    (folder / name).chmod(0o755 if program else 0o644)
