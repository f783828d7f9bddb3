"""SHA-256 of many files at once, at the rate of :func:`hashlib.file_digest` a core."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from threading import Lock
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
    An error of ``opener`` or of reading ends it; if several files have one, that of the first path is raised.
    """
    work = _Work(list(paths), opener, on_bytes)
    count = min(workers or os.cpu_count() or 1, len(work.paths)) or 1
    with ThreadPoolExecutor(count) as pool:
        try:
            for future in [pool.submit(work.run) for _ in range(count)]:
                future.result()
        finally:
            # Also after Ctrl-C: leaving the pool waits for its threads.
            work.stop()
    if work.errors:
        raise work.errors[min(work.errors)]
    return {path: work.digests[path] for path in work.paths}


class _Work:
    """Files that several threads hash: each takes the next one. A task for each file would cost more than a small file.

    Files are begun in their order and finished once begun, so the first one with an error is always among ``errors``.
    """

    def __init__(self, paths: list[str], opener: Opener, on_bytes: Callable[[int], None]) -> None:
        self.paths = paths
        self.digests: dict[str, str] = {}
        self.errors: dict[int, Exception] = {}
        self._opener = opener
        self._on_bytes = on_bytes
        self._waiting = iter(enumerate(paths))
        self._lock = Lock()
        self._stopped = False

    def stop(self) -> None:
        """Begin no more files."""
        self._stopped = True

    def run(self) -> None:
        """Hash files until there are none, with one buffer for all of them."""
        buffer = memoryview(bytearray(_CHUNK))
        while not self._stopped:
            with self._lock:
                number, path = next(self._waiting, (-1, ""))
            if number < 0:
                return
            try:
                with self._opener(path) as file:
                    self.digests[path] = _digest(file, self._on_bytes, buffer)
            except Exception as error:  # noqa: BLE001  # raised by digest_all
                self.errors[number] = error
                self.stop()


def digest_file(file: BinaryIO, on_bytes: Callable[[int], None] = lambda count: None) -> str:
    """Return the SHA-256 (hex) of what is left to read in ``file``."""
    return _digest(file, on_bytes, memoryview(bytearray(_CHUNK)))


def _digest(file: BinaryIO, on_bytes: Callable[[int], None], buffer: memoryview) -> str:
    state = hashlib.sha256()
    while count := file.readinto(buffer):  # type: ignore[attr-defined]  # BinaryIO lacks readinto
        state.update(buffer[:count])
        on_bytes(count)
    return state.hexdigest()


def digest_bytes(data: bytes) -> str:
    """Return the SHA-256 (hex) of ``data``."""
    return hashlib.sha256(data).hexdigest()


def copy_and_digest(source: BinaryIO, target: BinaryIO) -> str:
    """Copy what is left in ``source`` into ``target``; return the SHA-256 (hex) of what was copied."""
    state = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        state.update(chunk)
        target.write(chunk)
    return state.hexdigest()
