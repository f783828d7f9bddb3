"""SHA-256 of many files at once, at the rate of :func:`hashlib.file_digest` a core."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import BinaryIO

_CHUNK = 1 << 18

Opener = Callable[[str], AbstractContextManager[BinaryIO]]


def digest_all(
    paths: Iterable[str],
    opener: Opener,
    *,
    on_bytes: Callable[[int], None] = lambda count: None,
    workers: int | None = None,
) -> dict[str, str]:
    """Return path → SHA-256 (hex) for every path. ``on_bytes`` is told of each chunk, from any thread.

    ``hashlib`` lets go of the interpreter lock, so threads use all cores; memory is one chunk a thread.
    The first error of ``opener`` or of reading ends it.
    """

    def digest(path: str) -> tuple[str, str]:
        with opener(path) as file:
            return path, digest_file(file, on_bytes)

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        return dict(pool.map(digest, paths))


def digest_file(file: BinaryIO, on_bytes: Callable[[int], None] = lambda count: None) -> str:
    """Return the SHA-256 (hex) of what is left to read in ``file``."""
    state = hashlib.sha256()
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    while count := file.readinto(view):  # type: ignore[attr-defined]  # BinaryIO lacks readinto
        state.update(view[:count])
        on_bytes(count)
    return state.hexdigest()


def digest_bytes(data: bytes) -> str:
    """Return the SHA-256 (hex) of ``data``."""
    return hashlib.sha256(data).hexdigest()
