"""Where the files of an MLflow run lie, and which there are."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from urllib.parse import unquote, urlsplit

from bundler.importers.files import NOT_THERE, unreadable_artefact

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where artefacts may lie: ``beside`` the store, and in the folder ``given`` for the artefact server.

    ``confined``: nowhere else, even if the store names an absolute path. Beside a database server lies nothing.
    """

    beside: Path | None
    given: Path | None
    confined: bool = True

    def find(self, uri: str) -> tuple[Path | None, str]:
        """The folder behind ``uri``, or ``None`` and why it is not there ("": nothing was logged).

        An artefact server's ``mlflow-artifacts:/EXP/RUN/artifacts`` lies below ``given`` (default: ``mlartifacts``
        beside the store). A path of another machine is looked for by its last parts. MLflow makes a run's folder with
        the first file, so a missing one in a folder of its experiment means that there is none. Raises
        :class:`SourceError` for a folder that is there, or may be, and cannot be looked at.
        """
        try:
            parts = urlsplit(uri)
        except ValueError:
            return None, "not an address"
        if parts.scheme == "mlflow-artifacts":
            root = self.given or (self.beside and self.beside / "mlartifacts")
            names = tuple(name for name in unquote(parts.path).split("/") if name)
            if root is None or not self._is_folder(root):
                return None, "mlflow-artifacts: no folder of the artefact server is here"
            if not _plain(names):
                return None, "not a path"
            return self._served(root.joinpath(*names))
        if parts.scheme not in {"", "file"} and not _WINDOWS.match(uri):
            return None, f"{parts.scheme}: is not on this machine"
        return self._local(unquote(parts.path) if parts.scheme == "file" else uri)

    def _served(self, folder: Path) -> tuple[Path | None, str]:
        found, problem = self._first([folder])
        missing = not self._is_folder(folder) and self._is_folder(folder.parent.parent)
        return found, "" if missing else problem

    def _local(self, location: str) -> tuple[Path | None, str]:
        windows = _WINDOWS.match(location.lstrip("/"))
        parts = PureWindowsPath(location.lstrip("/")).parts if windows else Path(location).parts
        names = parts[1:] if windows or location.startswith("/") else parts
        tails = [names[-count:] for count in (4, 3, 2) if len(names) >= count]
        tails = [tail for tail in tails if _plain(tail)]
        beside = self.beside
        roots = [beside, beside / "mlruns", beside / "mlartifacts"] if beside else []
        named = [] if windows else [(beside or Path("/")) / location]
        given = [self.given.joinpath(*tail) for tail in tails] if self.given else []
        moved = [root.joinpath(*tail) for root in roots for tail in tails]
        folder, problem = self._first([*given, *named, *moved])
        # A folder that is there but must not be read is not one that was never made.
        if folder is None and len(names) >= 3 and not any(map(self._is_folder, named)):
            # The experiment's own folder is there, wherever it was moved to, not merely a place for such folders.
            roots += [self.given] if self.given else []
            longer = [root.joinpath(*tail) for root in roots for tail in tails if len(tail) > 2]
            experiments = {each.parent.parent for each in [*named, *longer]} - set(roots)
            if any(self._is_folder(each) and self._allowed(each) for each in experiments):
                return None, ""
        return folder, problem

    def _first(self, folders: list[Path]) -> tuple[Path | None, str]:
        for folder in folders:
            if self._is_folder(folder) and self._allowed(folder):
                return folder, ""
        where = " or outside the folder of the store: name it (artefacts)" if self.confined else ""
        return None, f"the folder is not on this machine{where}"

    def _allowed(self, folder: Path) -> bool:
        if not self.confined:
            return True
        allowed = [each.resolve() for each in (self.beside, self.given) if each is not None]
        return any(folder.resolve().is_relative_to(each) for each in allowed)

    def _is_folder(self, path: Path) -> bool:
        try:
            return stat.S_ISDIR(path.stat().st_mode)
        except ValueError:  # a NUL character
            return False
        except OSError as error:
            # A path of another machine may lead anywhere here, and is no concern of ours.
            ours = [each for each in (self.beside, self.given) if each is not None]
            if error.errno in NOT_THERE or not any(map(path.is_relative_to, ours)):
                return False
            raise unreadable_artefact(path, error) from None


def _plain(names: tuple[str, ...]) -> bool:
    return all(name not in {".", ".."} and "\0" not in name for name in names)
