"""Files of a Comet archive: they lie in it under made-up names, and a message tells what each is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from bundler.errors import SourceError, quoted
from bundler.importers import archives
from bundler.importers.archives import Archive
from bundler.importers.collected import CollectedFiles, written
from bundler.importers.comet.archive import damaged_member
from bundler.importers.comet.values import text
from bundler.importers.json_lines import a_list, an_object
from bundler.importers.model import ArtefactFile
from bundler.importers.values import Flag
from bundler.records import without_credentials

PATCH = "git_diff.patch"
MAX_PATCH = 64 << 20


class Uploads:
    """The files of one run: those in its archives, taken out into a folder, and those that lie elsewhere."""

    def __init__(self, folder: Path, flag: Flag) -> None:
        self._folder = folder
        self._flag = flag
        self._files = CollectedFiles(flag)
        self._numbers: dict[tuple[Path, str], int] = {}
        self.patch: str | None = None

    def all(self) -> tuple[ArtefactFile, ...]:
        """All files by path."""
        return self._files.all()

    def add(self, payload: Mapping[str, Any], archive: Archive, segment: Path) -> None:
        """Take the file that a ``file_upload`` message tells of. Raises :class:`ValueError`, :class:`SourceError`."""
        kind = text(payload.get("upload_type"))
        member = PurePosixPath(text(payload.get("file_path")).replace("\\", "/")).name
        if member not in archive:
            wanted = PATCH if kind == "git-patch" else _name(kind, payload)
            self._flag("artefacts", "missing", self._keep(wanted, None, payload))
            return
        file = self._taken(archive, member, segment)
        if kind == "git-patch":
            self._unpack(file, member, segment)
        else:
            self._keep(_name(kind, payload), file, payload)

    def add_remote(self, payload: Mapping[str, Any]) -> None:
        """Take the name of a file that Comet only points at."""
        uri = text(payload.get("remote_uri"))
        path = self._keep(_name(text(payload.get("upload_type")), payload, uri), None, payload)
        self._flag("artefacts", "remote", f"{path}: {without_credentials(uri)}")

    def add_remote_model(self, payload: Mapping[str, Any]) -> None:
        """Take the names of a model's files that Comet only points at."""
        for each in a_list(payload.get("remote_assets"), "remote_assets"):
            asset = an_object(each, "a file of a remote model")
            named = {"groupingName": payload.get("model_name"), "fileName": asset.get("fileName")}
            self.add_remote(
                {
                    "upload_type": "model-element",
                    "remote_uri": asset.get("remoteUrl"),
                    "additional_params": named,
                }
            )

    def _taken(self, archive: Archive, member: str, segment: Path) -> Path:
        """The member as a file. Its name there is a number: what it is called could be anything."""
        number = self._numbers.setdefault((segment, member), len(self._numbers))
        file = self._folder / segment.stem / str(number)
        if not file.exists():
            archive.extract(member, file)
        return file

    def _unpack(self, file: Path, member: str, segment: Path) -> None:
        """The patch of the working tree lies in a zip file of its own, the only one that is opened."""
        target = file.with_name(f"{file.name}.patch")
        try:
            with archives.opened(file) as inner:
                if inner.names != (PATCH,):
                    raise ValueError(f"holds {len(inner.names)} files instead of {PATCH}")
                data = inner.read(PATCH, limit=MAX_PATCH)
        except SourceError as error:
            problem = error.message.partition(" as a zip file: ")[2]
            raise damaged_member(segment, quoted(member), f"no readable patch: {problem}") from None
        path = self._keep(PATCH, written(target, data), {})
        if data:
            self.patch = path

    def _keep(self, name: str, file: Path | None, payload: Mapping[str, Any]) -> str:
        """Comet keeps several files of one name unless told that the later takes the place of the earlier."""
        return self._files.keep(name, file, replace=_parameters(payload).get("overwrite") is True)


def _name(kind: str, payload: Mapping[str, Any], uri: str = "") -> str:
    """What its provider called a file, below a folder for what is no plain asset."""
    parameters = _parameters(payload)
    name = text(
        parameters.get("fileName") or re.split(r"[?#]", uri)[0].rpartition("/")[2] or "unnamed"
    )
    if kind == "source_code" and PurePosixPath(name).is_absolute():
        # The whole path is that of somebody's machine.
        name = PurePosixPath(name).name
    group = parameters.get("groupingName") if kind == "model-element" else None
    folder = {"asset": "", "model-element": "models"}.get(kind, kind)
    return "/".join(each for each in (folder, text(group) if group else "", name) if each)


def _parameters(payload: Mapping[str, Any]) -> dict[str, Any]:
    said = payload.get("additional_params")
    return {} if said is None else an_object(said, "additional_params")
