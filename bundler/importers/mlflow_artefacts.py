"""Where the files of an MLflow run lie, and which there are."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from urllib.parse import unquote, urlsplit

from bundler.importers.mlflow_values import Flag, readable_name
from bundler.importers.model import ArtefactFile

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where artefacts may lie: ``beside`` the store, and in the folder ``given`` for the artefact server.

    ``confined``: nowhere else, even if the store names an absolute path.
    """

    beside: Path
    given: Path | None
    confined: bool = False

    def find(self, uri: str) -> tuple[Path | None, str]:
        """The folder behind ``uri``, or ``None`` and why it is not there ("": nothing was logged).

        An artefact server's ``mlflow-artifacts:/EXP/RUN/artifacts`` lies below ``given`` (default: ``mlartifacts``
        beside the store). A path of another machine is looked for by its last parts. MLflow makes a run's folder with
        the first file, so a missing one in a folder of its experiment means that there is none.
        """
        try:
            parts = urlsplit(uri)
        except ValueError:
            return None, "not an address"
        if parts.scheme == "mlflow-artifacts":
            root = self.given or self.beside / "mlartifacts"
            names = tuple(name for name in unquote(parts.path).split("/") if name)
            if not root.is_dir():
                return None, "mlflow-artifacts: no folder of the artefact server is here"
            return self._first([root.joinpath(*names)]) if _plain(names) else (None, "not a path")
        if parts.scheme not in {"", "file"} and not _WINDOWS.match(uri):
            return None, f"{parts.scheme}: is not on this machine"
        return self._local(unquote(parts.path) if parts.scheme == "file" else uri)

    def _local(self, location: str) -> tuple[Path | None, str]:
        windows = _WINDOWS.match(location.lstrip("/"))
        parts = PureWindowsPath(location.lstrip("/")).parts if windows else Path(location).parts
        names = parts[1:] if windows or location.startswith("/") else parts
        roots = [self.beside, self.beside / "mlruns", self.beside / "mlartifacts"]
        tails = [names[-count:] for count in (4, 3, 2) if len(names) >= count]
        tails = [tail for tail in tails if _plain(tail)]
        named = [] if windows else [self.beside / location]
        given = [self.given.joinpath(*tail) for tail in tails] if self.given else []
        moved = [root.joinpath(*tail) for root in roots for tail in tails]
        folder, problem = self._first([*given, *named, *moved])
        if folder is None and not any(each.parent.parent.is_dir() for each in named):
            # The experiment's own folder, wherever it was moved to, not merely the place it was moved to.
            experiments = [root.joinpath(*tail).parent.parent for root in roots for tail in tails[:-1]]
            if not any(each.is_dir() and each not in roots for each in experiments):
                problem = "the folder is not on this machine"
        return folder, problem

    def _first(self, folders: list[Path]) -> tuple[Path | None, str]:
        for folder in folders:
            if folder.is_dir() and self._allowed(folder):
                return folder, ""
        return None, ""

    def _allowed(self, folder: Path) -> bool:
        if not self.confined:
            return True
        allowed = [self.beside.resolve(), *([self.given.resolve()] if self.given else [])]
        return any(folder.resolve().is_relative_to(each) for each in allowed)


def _plain(names: tuple[str, ...]) -> bool:
    return all(name not in {".", ".."} and "\0" not in name for name in names)


def walk(folder: Path, prefix: str, flag: Flag) -> Iterator[ArtefactFile]:
    """All files below ``folder``, sorted by path. Links are not followed, but flagged."""
    found: list[ArtefactFile] = []
    waiting = [(folder, prefix)]
    if folder.is_symlink():
        flag("artefacts", "symlink_skipped", prefix or ".")
        waiting = []
    while waiting:
        # A list of folders instead of recursion: a tree can be deeper than Python's stack.
        current, path = waiting.pop()
        try:
            entries = list(os.scandir(current))
            modes = [entry.stat(follow_symlinks=False).st_mode for entry in entries]
        except OSError as error:
            flag("artefacts", "unreadable", f"{path or '.'}: {error.strerror}")
            continue
        for entry, mode in zip(entries, modes, strict=True):
            name = path + readable_name(entry.name, flag, "artefacts")
            if stat.S_ISDIR(mode):
                waiting.append((Path(entry.path), f"{name}/"))
            elif stat.S_ISREG(mode):
                readable = os.access(entry.path, os.R_OK)
                if not readable:
                    flag("artefacts", "unreadable", name)
                found.append(ArtefactFile(path=name, file=Path(entry.path) if readable else None))
            else:
                kind = "symlink_skipped" if stat.S_ISLNK(mode) else "special_skipped"
                flag("artefacts", kind, name)
    yield from sorted(found, key=lambda each: each.path)
