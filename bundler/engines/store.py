"""Results on disk, so that a verification that was interrupted at any moment goes on where it was.

A file is whole or absent: it is written beside its place, synchronised and renamed. One that is damaged, of another
version or not this user's own counts as absent; its training is then run again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import stat
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import bundler
from bundler import canonical, codec
from bundler.engines.retries import infrastructure_failure
from bundler.errors import MalformedError, OutputError, UsageError
from bundler.records import Scalar
from bundler.trials import Trial, TrialResult

_MAX_BYTES = 1 << 30
_OURS = re.compile(r"([0-9a-f]{64}|session)\.json|\.partial-\w+")
_LOCK = "lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a verifier chose at the start of a verification, and has to keep to when it is resumed."""

    nonce: str
    seeds: tuple[int, ...]


def key(tag_manifest_sha256: str, trial: Trial, runtime: Mapping[str, Scalar]) -> str:
    """The name of the result of ``trial`` with this bundle, in this runtime (its facts), by this version of ours."""
    parts = {
        "bundle": tag_manifest_sha256,
        "runtime": dict(runtime),
        "trial": codec.to_json(trial),
        "version": bundler.__version__,
    }
    return hashlib.sha256(canonical.serialise(parts)).hexdigest()


def default_folder(tag_manifest_sha256: str) -> Path:
    """Where the results of a bundle are by default: below $XDG_CACHE_HOME, or ~/.cache."""
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    cache = chosen if chosen.is_absolute() else Path.home() / ".cache"
    return cache / "aisdp-bundler" / "reruns" / tag_manifest_sha256


class Results:
    """The results in ``folder``; a context manager that holds it against a second verification.

    Entering raises :class:`bundler.errors.UsageError` where another verification has it or somebody else may write to
    it, and :class:`bundler.errors.OutputError` where it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = -1
        self._writing = threading.Lock()
        self._finished = False

    def __enter__(self) -> Self:
        try:
            self._make()
            self._lock = self._locked()
        except OSError as error:
            raise self._cannot(error) from None
        for name in os.listdir(self.folder):
            if name.startswith(
                ".partial-"
            ):  # of a process that was killed: nobody else has the lock
                with suppress(OSError):
                    (self.folder / name).unlink()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._lock)

    def get(self, key: str) -> TrialResult | None:
        """The stored result of that name, marked as taken over."""
        try:
            return replace(codec.from_json(TrialResult, self._read(key)), resumed=True)
        except (OSError, MalformedError):
            return None

    def put(self, key: str, result: TrialResult) -> None:
        """Store ``result``; not that of a failure of infrastructure, which says nothing about the training.

        Raises :class:`bundler.errors.OutputError`.
        """
        if infrastructure_failure(result):
            return
        with self._writing:
            if not self._finished:
                self._write(key, codec.to_json(result))

    def session(self, choose: Callable[[], Session]) -> Session:
        """What was chosen when this verification began; ``choose`` is asked at its first start only."""
        with suppress(OSError, MalformedError):
            return codec.from_json(Session, self._read("session"))
        session = choose()
        self._write("session", codec.to_json(session))
        return session

    def finish(self) -> None:
        """Remove everything, now that the verification is complete: a later one starts anew, with seeds of its own.

        What a training that nobody waits for any more still gives is not stored.
        """
        with self._writing:
            self._finished = True
        for name in os.listdir(self.folder):
            if _OURS.fullmatch(name) or name == _LOCK:
                with suppress(OSError):
                    (self.folder / name).unlink()
        with suppress(OSError):  # something of somebody else is in it
            self.folder.rmdir()

    def _read(self, name: str) -> Any:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(self.folder / f"{name}.json", flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise MalformedError("structure", "not a file of this user's own")
            data = file.read(_MAX_BYTES)
        digest, _, body = data.partition(b"\n")
        if digest != hashlib.sha256(name.encode() + body).hexdigest().encode():
            raise MalformedError("structure", "damaged, or stored under another name")
        return canonical.parse(body, name=name)

    def _write(self, name: str, value: object) -> None:
        body = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        digest = hashlib.sha256(name.encode() + body).hexdigest().encode()
        try:
            handle, partial = tempfile.mkstemp(prefix=".partial-", dir=self.folder)
            with os.fdopen(handle, "wb") as file:
                file.write(digest + b"\n" + body)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.folder / f"{name}.json")
            self._synchronise()
        except OSError as error:
            raise self._cannot(error) from None

    def _synchronise(self) -> None:
        """Let the renaming itself survive a loss of power."""
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _make(self) -> None:
        """The folder and what is missing above it, for this user alone; what is there keeps its mode."""
        missing = [
            each for each in (self.folder, *self.folder.parents) if not os.path.lexists(each)
        ]
        for each in reversed(missing):
            each.mkdir(mode=0o700, exist_ok=True)
        self._refuse_foreign()

    def _refuse_foreign(self) -> None:
        status = self.folder.lstat()
        if stat.S_ISLNK(status.st_mode):
            raise UsageError(
                f"{self.folder} is a link, which whoever made it can point elsewhere",
                remedy="Name the folder itself with --state DIR.",
            )
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise UsageError(
                f"{self.folder} is open to others, who could put results there",
                remedy=f"Choose another folder with --state, or make it this user's alone: chmod 700 {self.folder}",
            )

    def _locked(self) -> int:
        """The descriptor of the lock file, locked; the kernel gives the lock back when this process ends."""
        path = self.folder / _LOCK
        while True:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(lock), path.stat()):
                    return lock
            except FileNotFoundError:
                self._make()
            except BlockingIOError:
                os.close(lock)
                raise UsageError(
                    f"another verification is at work in {self.folder}",
                    remedy="Wait until it has ended, or give this one a folder of its own with --state DIR.",
                ) from None
            os.close(lock)  # a verification that has just finished removed it

    def _cannot(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot keep results in {self.folder}: {error.strerror or error}",
            remedy="Check free space and permissions, or choose another folder with --state DIR.",
        )
