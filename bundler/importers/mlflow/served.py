"""Artefacts that an MLflow server hands out itself (``mlflow-artifacts:``), fetched into a temporary folder."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bundler.errors import SourceError, quoted
from bundler.importers.mlflow.answers import parts, word
from bundler.importers.mlflow.http import (
    NotThereError,
    RefusedError,
    Server,
    TooLargeError,
    unkept,
)
from bundler.importers.model import ArtefactFile
from bundler.importers.values import Flag

MAX_BYTES = 1 << 36
"""Most bytes of all files that are fetched (64 GiB)."""

MAX_FILES = 100_000
"""Most files and folders of one run."""

MAX_DEPTH = 64
"""Most folders within folders."""

_ENDPOINT = "/api/2.0/mlflow-artifacts/artifacts"


class ServedArtefacts:
    """The files behind one server, kept in ``folder`` until that is removed. May be used from several threads."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._lock = threading.Lock()
        self._left = MAX_BYTES
        self._count = 0

    def root(self, uri: str) -> str | None:
        """The path on this server that ``uri`` means; ``None`` if it leads elsewhere."""
        try:
            found = urlsplit(uri)
        except ValueError:
            return None
        names = [name for name in unquote(found.path).split("/") if name]
        if found.scheme != "mlflow-artifacts" or found.netloc not in {"", self._server.place}:
            return None
        return "/".join(names) if names and all(map(_plain, names)) else None

    def files(self, root: str, prefix: str, flag: Flag) -> Iterator[ArtefactFile]:
        """All files below ``root``, sorted by path. One that the server does not give is named without bytes."""
        found = sorted(self._walk(root, prefix, flag))
        for name in found:
            yield ArtefactFile(path=prefix + name, file=self._fetched(root, name, prefix, flag))

    def _walk(self, root: str, prefix: str, flag: Flag) -> Iterator[str]:
        waiting = [""]
        count = 0
        while waiting:
            folder = waiting.pop()
            try:
                answer = self._server.get(_ENDPOINT, [("path", f"{root}/{folder}".rstrip("/"))])
            except (NotThereError, RefusedError):
                # A folder that nothing was logged to is an empty list, and no error.
                why = "unreadable" if folder else "artefacts_unreachable"
                flag("artefacts", why, prefix + (folder or "the server does not list its files"))
                continue
            for each in parts(answer, "files"):
                name = word(each.get("path"))
                count += 1
                if not _plain(name):
                    raise TypeError(f"{quoted(name)} is no name of a file")
                if count > MAX_FILES or folder.count("/") > MAX_DEPTH:
                    raise TypeError(f"more than {MAX_FILES:,} files, or folders too deep")
                if each.get("is_dir"):
                    waiting.append(f"{folder}{name}/")
                else:
                    yield folder + name

    def _fetched(self, root: str, name: str, prefix: str, flag: Flag) -> Path | None:
        path = f"{root}/{name}"
        # The names here are ours: those of a server may be too long, or the same but for upper and lower case.
        target = self._folder / hashlib.sha256(path.encode()).hexdigest()
        if target.exists():
            return target
        with self._lock:
            # Two threads may fetch the same file: each writes its own, and the last one stays.
            self._count += 1
            partial = target.with_suffix(f".{self._count}")
            most = self._left
        try:
            size = self._server.download(f"{_ENDPOINT}/{path}", partial, most=most)
            partial.rename(target)
        except (NotThereError, RefusedError):
            flag("artefacts", "missing", prefix + name)
            return None
        except TooLargeError:
            raise self._too_many() from None
        except OSError as error:
            raise unkept(error) from None
        with self._lock:
            self._left -= size
            if self._left < 0:
                raise self._too_many()
        return target

    def _too_many(self) -> SourceError:
        return SourceError(
            f"the artefacts of {self._server.shown} are more than {MAX_BYTES:,} bytes",
            remedy="Give the folder behind the artefact server (artefacts), or a copy of it.",
        )


def _plain(name: str) -> bool:
    return name not in {"", ".", ".."} and not set(name) & {"/", "\\", "\0"}
