"""DVC's pointers to data: ``*.dvc`` files and ``dvc.lock``, read without DVC and bounded.

``dvc.yaml`` names no digests; of it only the folder is needed in which a stage works.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from bundler.data_hashes import damaged
from bundler.errors import quoted

MAX_POINTERS = 100_000
"""Most files and folders that one of them names."""

_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
NOT_DATA = {".git", ".hg", ".dvc"}
"""Folders that DVC never takes for data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """What DVC recorded of one file or folder. ``path`` is relative to the root of the DVC repository.

    ``md5`` ends in ``.dir`` for a folder; it is ``None`` where DVC has another label (``label``, as ``etag:…``) or
    none. ``source`` is where it was imported from. ``stage``: the stage of the pipeline that reads or writes it.
    """

    path: str
    role: Literal["out", "dep"]
    place: str
    md5: str | None
    legacy: bool = False
    label: str | None = None
    stage: str | None = None
    source: str | None = None

    @property
    def is_folder(self) -> bool:
        """Whether the digest is that of a folder."""
        return (self.md5 or "").endswith(".dir")

    @property
    def outside(self) -> bool:
        """Whether it lies outside the repository: its bytes are then never opened."""
        return is_outside(self.path)


def pointers_of_file(value: Any, place: str) -> tuple[Pointer, ...]:
    """Pointers of the ``.dvc`` file at ``place``, whose content is ``value``."""
    content = _mapping(value, place)
    base = _joined(posixpath.dirname(place), content.get("wdir"))
    sources = [_source(each) for each in _entries(content, "deps", place)]
    source = next(filter(None, sources), None)
    outs = [
        replace(each, source=source) for each in _pointers(content, "outs", base, place, stage=None)
    ]
    # A dependency on another repository names a path in that one.
    here = {**content, "deps": [e for e in _entries(content, "deps", place) if "repo" not in e]}
    return (*_pointers(here, "deps", base, place, stage=None), *outs)


def pointers_of_lock(value: Any, place: str, pipeline: Any) -> tuple[Pointer, ...]:
    """Pointers of the ``dvc.lock`` at ``place``; ``pipeline`` is the content of the ``dvc.yaml`` beside it."""
    content = _mapping(value, place)
    described = pipeline.get("stages") if isinstance(pipeline, dict) else None
    # The first format had no `stages`.
    stages = _mapping(content.get("stages") if "schema" in content else content, place)
    found: list[Pointer] = []
    for name, stage in stages.items():
        own = described.get(str(name).partition("@")[0]) if isinstance(described, dict) else None
        own = own.get("do", own) if isinstance(own, dict) else own
        wdir = own.get("wdir") if isinstance(own, dict) else None
        base = _joined(posixpath.dirname(place), wdir)
        for role in ("deps", "outs"):
            found += _pointers(_mapping(stage, place), role, base, place, stage=str(name))
        if len(found) > MAX_POINTERS:
            raise damaged(place, f"more than {MAX_POINTERS:,} entries")
    return tuple(found)


def is_outside(path: str) -> bool:
    """Whether a path of a pointer leads out of the repository, or is an address or no path at all."""
    windows = re.match(r"[A-Za-z]:[\\/]", path)
    plain = posixpath.normpath(path)
    return bool(
        "://" in path or "\0" in path or windows or plain == ".." or plain.startswith(("/", "../"))
    )


def _pointers(
    content: Mapping[str, Any], key: str, base: str, place: str, *, stage: str | None
) -> list[Pointer]:
    role: Literal["out", "dep"] = "out" if key == "outs" else "dep"
    found = []
    for entry in _entries(content, key, place):
        path, md5 = entry.get("path"), entry.get("md5")
        if not isinstance(path, str) or not path:
            raise damaged(place, f"an entry of {key} without a path")
        if md5 is not None and not (isinstance(md5, str) and _MD5.fullmatch(md5)):
            raise damaged(place, f"{quoted(path)} has an MD5 of {quoted(md5)}")
        label = next((f"{k}:{entry[k]}" for k in ("etag", "checksum") if entry.get(k)), None)
        found.append(
            Pointer(
                path=path if "://" in path else _joined(base, path),
                role=role,
                place=place,
                md5=md5,
                legacy=md5 is not None and entry.get("hash") != "md5",
                label=label,
                stage=stage,
            )
        )
    return found


def _entries(content: Mapping[str, Any], key: str, place: str) -> list[dict[str, Any]]:
    entries = content.get(key) or []
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise damaged(place, f"{key} is not a list of entries")
    if len(entries) > MAX_POINTERS:
        raise damaged(place, f"more than {MAX_POINTERS:,} entries")
    return entries


def _source(entry: Mapping[str, Any]) -> str | None:
    """Where an import comes from: ``URL@REVISION:PATH`` of a repository, or an address or path."""
    path, repo = entry.get("path"), entry.get("repo")
    if isinstance(repo, dict):
        revision = repo.get("rev_lock") or repo.get("rev")
        return f"{repo.get('url')}{f'@{revision}' if revision else ''}:{path}"
    return str(path) if path else None


def _joined(base: str, path: Any) -> str:
    joined = posixpath.normpath(posixpath.join(base, str(path))) if path else base
    return "" if joined == "." else joined


def _mapping(value: Any, place: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise damaged(place, "not a mapping of names to values")
    return value
