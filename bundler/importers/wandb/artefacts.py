"""Artefacts of W&B: what a manifest lists, and where the bytes of it may lie."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from bundler.importers import protobuf
from bundler.importers.collected import CollectedFiles
from bundler.importers.files import NOT_THERE, unreadable_artefact
from bundler.importers.values import Flag
from bundler.records import DatasetVersion

_LISTED = 20
"""Most files of a data set that are listed one by one; a larger one is named by the digest of its manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file of an artefact. ``digest`` is the base64 of an MD5, or for a reference whatever its place gave."""

    path: str
    digest: str
    reference: str
    size: int
    local: str


@dataclass(slots=True, kw_only=True)
class LoggedArtefact:
    """An artefact that a run logged: ``digest`` is the MD5 of its manifest, in hexadecimal digits."""

    kind: str = ""
    name: str = ""
    digest: str = ""
    elsewhere: bool = False
    entries: list[Entry] = field(default_factory=list)


def artefact(body: bytes) -> LoggedArtefact:
    """The artefact that a record describes. Raises :class:`bundler.importers.protobuf.WireError`."""
    found = LoggedArtefact()
    for number, kind, value in protobuf.fields(body):
        if kind != protobuf.BYTES:
            continue
        data = cast(bytes, value)
        if number == 4:
            found.kind = _decoded(data)
        elif number == 5:
            found.name = _decoded(data)
        elif number == 6:
            found.digest = _decoded(data)
        elif number == 12:
            _manifest(data, found)
    return found


def _manifest(data: bytes, found: LoggedArtefact) -> None:
    for number, kind, value in protobuf.fields(data):
        if number == 4 and kind == protobuf.BYTES:
            found.entries.append(_entry(cast(bytes, value)))
        elif number == 5:
            found.elsewhere = True


def _entry(data: bytes) -> Entry:
    texts = {1: "", 2: "", 3: "", 6: ""}
    size = 0
    for number, _, value in protobuf.fields(data):
        if isinstance(value, int):
            size = value if number == 4 else size
        elif number in texts:
            texts[number] = _decoded(value)
    return Entry(path=texts[1], digest=texts[2], reference=texts[3], size=size, local=texts[6])


def datasets(
    logged: Sequence[LoggedArtefact],
    used: Sequence[tuple[str, str]],
    found: Mapping[tuple[int, Entry], Path | None],
) -> Iterator[DatasetVersion]:
    """Data sets: artefacts of a type that is called so which the run logged, and all that it used.

    ``found`` are the files of artefacts (:func:`keep_files`): a data set whose bytes are there gets their SHA-256.
    """
    for index, each in enumerate(logged):
        if "data" not in each.kind.lower():
            continue
        if not 0 < len(each.entries) <= _LISTED:
            digest = f"manifest-md5:{each.digest}" if each.digest else None
            yield DatasetVersion(name=each.name, role="output", tracker_digest=digest)
            continue
        for entry in each.entries:
            yield DatasetVersion(
                name=f"{each.name}/{entry.path}",
                role="output",
                source=entry.reference or None,
                tracker_digest=_digest(entry),
                sha256=_digest_of(found.get((index, entry)), hashlib.sha256),
            )
    for _, name in used:
        base, _, version = name.rpartition(":")
        yield DatasetVersion(name=base or name, role="input", version=version if base else None)


def _digest(entry: Entry) -> str | None:
    md5 = _md5(entry)
    if md5 is not None:
        return f"md5:{md5}"
    return f"etag:{entry.digest}" if entry.digest and entry.digest != entry.reference else None


def _md5(entry: Entry) -> str | None:
    """The MD5 over the bytes in hexadecimal digits, as DVC writes it too."""
    if entry.reference and not entry.reference.startswith("file:"):
        return None
    return md5_of(entry.digest)


def md5_of(digest: str | None) -> str | None:
    """The hexadecimal digits of an MD5 in base64, as W&B writes it; ``None`` for anything else."""
    try:
        found = base64.b64decode(digest or "", validate=True)
    except (binascii.Error, ValueError):
        return None
    return found.hex() if len(found) == 16 else None


def _folders(logged: Sequence[LoggedArtefact]) -> Iterator[tuple[LoggedArtefact, str]]:
    """Each artefact with the folder that its files stand in; a later version of a name has a number."""
    seen: Counter[str] = Counter()
    for each in logged:
        seen[each.name] += 1
        count = seen[each.name]
        yield each, f"artifacts/{each.name}" + (f".{count}" if count > 1 else "")


def keep_files(
    logged: Sequence[LoggedArtefact], places: Sequence[Path], kept: CollectedFiles, flag: Flag
) -> dict[tuple[int, Entry], Path | None]:
    """Keep the files of all artefacts, ``artifacts/NAME/PATH``, and return them by number of artefact and entry.

    The bytes are taken only where their MD5 is the right one.

    ``places`` are folders to look in: one laid out by artefacts' names, a copy of W&B's staging folder, or the files.
    A reference is a name of something elsewhere, and no file. What is not found keeps its MD5 in a flag.
    Raises :class:`ValueError` for more files than a run has.
    """
    found: dict[tuple[int, Entry], Path | None] = {}
    digests: dict[Path, str | None] = {}
    for index, (each, folder) in enumerate(_folders(logged)):
        if each.elsewhere:
            flag("artefacts", "manifest_elsewhere", folder)
        absent = []
        for entry in sorted(each.entries, key=lambda entry: entry.path):
            if not entry.reference:
                file = _find(_names(each, entry), _md5(entry), places, digests, flag)
                found[index, entry] = file
                path = kept.keep(f"{folder}/{entry.path}", file)
                if file is None:
                    absent.append(f"{path}: md5 {md5_of(entry.digest)}")
        if len(absent) > _LISTED:
            absent = [f"{folder}: {len(absent)} files, md5 of the manifest {each.digest}"]
        for detail in absent:
            flag("artefacts", "md5_only", detail)
    return found


def _names(logged: LoggedArtefact, entry: Entry) -> list[str]:
    """What the file of an entry may be called."""
    local = entry.local.replace("\\", "/").rpartition("/")[2]
    return [name for name in (f"{logged.name}/{entry.path}", entry.path, local) if _is_plain(name)]


def _find(
    names: Sequence[str],
    wanted: str | None,
    places: Sequence[Path],
    digests: dict[Path, str | None],
    flag: Flag,
) -> Path | None:
    """The file with the MD5 ``wanted``; each is read once, however many entries name it (``digests``)."""
    for place in places:
        for name in names:
            file = place / name
            if file not in digests:
                digests[file] = _digest_below(place, name)
            digest = digests[file]
            if digest is not None and digest == wanted:
                return file
            if digest is not None:
                flag("artefacts", "other_content", f"{name}: not the file that was logged")
    return None


def _is_plain(name: str) -> bool:
    parts = name.split("/")
    return bool(name) and "\0" not in name and "\\" not in name and not {"", ".", ".."} & set(parts)


def _digest_below(place: Path, name: str) -> str | None:
    """MD5 of the file ``name`` below ``place``; ``None`` if there is none, or a link leads to it."""
    current = place
    try:
        for part in name.split("/"):
            current /= part
            if current.is_symlink():
                return None
        is_there = current.is_file()
    except OSError as error:
        if error.errno in NOT_THERE:
            return None
        raise unreadable_artefact(current, error) from None
    return _digest_of(current, _md5_without_trust) if is_there else None


def _md5_without_trust() -> hashlib._Hash:
    return hashlib.md5(usedforsecurity=False)


def _digest_of(file: Path | None, algorithm: Callable[[], hashlib._Hash]) -> str | None:
    if file is None:
        return None
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, algorithm).hexdigest()
    except OSError as error:
        raise unreadable_artefact(file, error) from None


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
