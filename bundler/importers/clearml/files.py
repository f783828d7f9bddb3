"""The files of a ClearML task: artefacts, models and what else lies in a session, and the patch that is text in it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundler.importers.clearml.store import OWN, Files
from bundler.importers.clearml.values import AUXILIARY, is_cut
from bundler.importers.collected import CollectedFiles, written
from bundler.importers.files import unreadable
from bundler.importers.json_lines import a_list, an_object
from bundler.importers.model import ArtefactFile
from bundler.importers.values import Flag, clean
from bundler.records import without_credentials

PATCH = "uncommitted.patch"
SCRIPT = "script.py"

_HASH = re.compile(r"[0-9a-f]{64}")
_HEADER = 32
"""Bytes at the beginning of a registered table that ClearML leaves out of its hash: they hold a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """The path of the artefact with the uncommitted changes, and whether there are any (``None``: not known)."""

    path: str | None
    dirty: bool | None


class Artefacts:
    """The files of one task."""

    def __init__(self, task: Mapping[str, Any], files: Files | None, flag: Flag) -> None:
        self._task = task
        self._files = files
        self._flag = flag
        self._found = CollectedFiles(flag)
        self._auxiliary: str | None = None
        self._used: set[str] = set(OWN)

    def all(self) -> tuple[ArtefactFile, ...]:
        """All files by path."""
        return self._found.all()

    def read(self, folder: Path) -> Patch:
        """Find all files; the patch is written into ``folder``. Raises :class:`ValueError`, :class:`SourceError`."""
        execution = an_object(self._task.get("execution") or {}, "execution")
        said = a_list(execution.get("artifacts"), "artifacts")
        for each in said:
            self._artefact(an_object(each, "an artefact"))
        self._models()
        if self._files is not None:
            for name in self._files.names:
                if name not in self._used:
                    self._found.keep(name, self._files.located(name))
        elif not said:
            self._flag("artefacts", "not_exported", "Task.export_task() leaves them out")
        return self._patch(folder)

    def _artefact(self, said: dict[str, Any]) -> None:
        key, uri = clean(said.get("key")) or "unnamed", clean(said.get("uri")) or ""
        last = _last(uri)
        path = key if last in {key, ""} else f"{key}/{last}"
        digest = said.get("hash")
        tracker = digest if isinstance(digest, str) and _HASH.fullmatch(digest) else None
        file = self._here(uri)
        kept = self._found.keep(path, file)
        if file is None:
            known = f" (sha256:{tracker})" if tracker else ""
            self._flag_absent(kept, uri, known)
            return
        if key == AUXILIARY:
            self._auxiliary = kept
        if tracker is not None and tracker not in _digests(file):
            self._flag("artefacts", "hash_mismatch", f"{kept}: ClearML recorded sha256:{tracker}")

    def _models(self) -> None:
        for each in a_list(self._task.get("offline_output_models"), "offline_output_models"):
            model = an_object(each, "an output model")
            init = an_object(model.get("init") or {}, "an output model")
            weights = an_object(model.get("weights") or {}, "an output model")
            uri = clean(weights.get("weights_filename") or weights.get("register_uri")) or ""
            file = self._here(uri)
            name = clean(init.get("name")) or "unnamed"
            kept = self._found.keep(f"models/{name}/{_last(uri) or 'unnamed'}", file)
            if file is None:
                self._flag_absent(kept, uri)
        models = an_object(self._task.get("models") or {}, "models")
        for each in a_list(models.get("output"), "output models"):
            model = an_object(each, "an output model")
            kept = self._found.keep(f"models/{clean(model.get('name')) or 'unnamed'}", None)
            self._flag("artefacts", "remote", f"{kept}: model {clean(model.get('model'))}")

    def _here(self, uri: str) -> Path | None:
        """A file that lay in the session's folder, wherever that was when the task ran."""
        folder = (clean(self._task.get("offline_folder")) or "").replace("\\", "/").rstrip(
            "/"
        ) + "/"
        place = uri.removeprefix("file://").replace("\\", "/")
        name = place.removeprefix(folder)
        if self._files is None or name == place or name not in self._files:
            return None
        self._used.add(name)
        return self._files.located(name)

    def _flag_absent(self, kept: str, uri: str, known: str = "") -> None:
        if "://" in uri and not uri.startswith("file:"):
            self._flag("artefacts", "remote", f"{kept}: {without_credentials(uri)}{known}")
        else:
            self._flag("artefacts", "missing", f"{kept}{known}")

    def _patch(self, folder: Path) -> Patch:
        """The uncommitted changes. Without a repository, ClearML keeps the whole script in their place."""
        script = an_object(self._task.get("script") or {}, "script")
        diff = script.get("diff")
        if not isinstance(diff, str) or not diff.strip():
            return Patch(path=None, dirty=None)
        if is_cut(diff):
            large = self._auxiliary
            self._flag(
                "code",
                "truncated" if large is None else "patch_elsewhere",
                "too large for the task itself",
            )
            return Patch(path=large, dirty=True)
        alone = not script.get("repository")
        if alone:
            self._flag(
                "code",
                "no_repository",
                "ClearML keeps the script itself, as there is no repository",
            )
        file = folder / (SCRIPT if alone else PATCH)
        path = self._found.keep(file.name, written(file, diff.encode("utf-8", "backslashreplace")))
        return Patch(path=None, dirty=None) if alone else Patch(path=path, dirty=True)


def _last(uri: str) -> str:
    """The last part of a path or an address."""
    return re.split(r"[?#]", uri)[0].replace("\\", "/").rpartition("/")[2]


def _digests(file: Path) -> set[str]:
    """SHA-256 of the file, and of all but its first bytes."""
    whole, rest = hashlib.sha256(), hashlib.sha256()
    try:
        with file.open("rb") as stream:
            whole.update(stream.read(_HEADER))
            while piece := stream.read(1 << 20):
                whole.update(piece)
                rest.update(piece)
    except OSError as error:
        raise unreadable(file, error) from None
    return {whole.hexdigest(), rest.hexdigest()}
