r"""What DVC says of data, held against the bytes, without DVC.

DVC names data by MD5: a file by that of its bytes, a folder by that of the JSON listing of its files, with ``.dir``
behind it. MD5 shows accidents, not attacks, so SHA-256 over the same bytes is computed beside it, in one pass. That
of a folder is the SHA-256 of what ``sha256sum`` prints for its files, which anybody can repeat::

    cd FOLDER && find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0r sha256sum | sha256sum

Versions of DVC before 3 took the MD5 of text with CR LF as LF. Their outputs lack ``hash: md5``; such a digest does
not pin the bytes, so the best that can be said of them is ``legacy``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bundler.data_hashes import (
    MAX_FILES,
    MAX_LISTING,
    FileDigest,
    damaged,
    digest_file,
    folder_md5,
    folder_sha256,
    kind_of,
    parse_listing,
    read_bounded,
    unreadable,
)
from bundler.data_pointers import NOT_DATA, Pointer
from bundler.errors import quoted

__all__ = ["DataDigest", "DataStore", "Pointer", "State"]

State = Literal["verified", "mismatch", "absent", "legacy"]
"""``legacy``: the bytes have the digest, but it is one that lets line ends change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDigest:
    """What became of a pointer: ``sha256`` is over the bytes found (``None``: none), ``detail`` says what is wrong.

    ``files`` are the files found, by path below a folder ("" for a file itself), where the state is not ``absent``.
    """

    path: str
    md5: str | None
    sha256: str | None
    state: State
    detail: str = ""
    files: tuple[tuple[str, Path], ...] = ()


# --- bytes ------------------------------------------------------------------------------------------------------------


class DataStore:
    """Where the bytes of a repository's data are: its ``workspace``, and the ``cache`` (``.dvc/cache`` by default)."""

    def __init__(self, workspace: Path, cache: Path | None = None) -> None:
        self._workspace = workspace
        self._base, self._prefix = (workspace, ".dvc/cache/") if cache is None else (cache, "")

    def find(self, pointer: Pointer) -> DataDigest:
        """The bytes that ``pointer`` means, of whatever time: from the cache, or from its path if they still lie there.

        Other bytes at the path are a later version, not a mismatch.
        """
        if pointer.md5 is None or pointer.outside:
            return _absent(pointer)
        found = self._cached(pointer)
        place = below(self._workspace, pointer.path) if found.state == "absent" else None
        return (place and self._placed(pointer, place)) or found

    def _placed(self, pointer: Pointer, place: Path) -> DataDigest | None:
        """What lies at ``place``, or ``None`` if that is anything else than what ``pointer`` means."""
        kind = kind_of(place)
        if stat.S_ISREG(kind) and not pointer.is_folder:
            found = _judged(pointer, digest_file(place, legacy=pointer.legacy), place)
            return found if found.state != "mismatch" else None
        if not stat.S_ISDIR(kind) or not pointer.is_folder:
            return None
        files = dict(_walk(place))
        digests = {path: digest_file(file, legacy=pointer.legacy) for path, file in files.items()}
        sha256 = folder_sha256({path: each.sha256 for path, each in digests.items()})
        for version in range(2 if pointer.legacy else 1):
            listing = {path: each.md5s[version] for path, each in digests.items()}
            if folder_md5(listing) == pointer.md5:
                return _matching(pointer, sha256, tuple(files.items()))
        return None

    def _cached(self, pointer: Pointer) -> DataDigest:
        if not pointer.is_folder:
            file = self._object(pointer.md5 or "")
            if file is None:
                return _absent(pointer)
            return _judged(pointer, digest_file(file, legacy=pointer.legacy), file)
        listed = self._listing(pointer)
        if listed is None:
            return _absent(pointer)
        if folder_md5(listed) != pointer.md5:
            return _other(pointer, "the listing in the cache is another one")
        return self._cached_files(pointer, listed)

    def _cached_files(self, pointer: Pointer, listed: Mapping[str, str]) -> DataDigest:
        files, digests = [], {}
        for path, md5 in listed.items():
            file = self._object(md5)
            if file is None:
                return _absent(pointer, f"{quoted(path)} is not in the cache")
            each = digest_file(file, legacy=pointer.legacy)
            if md5 not in each.md5s:
                return _other(pointer, f"{quoted(path)} in the cache has other bytes")
            files.append((path, file))
            digests[path] = each.sha256
        return _matching(pointer, folder_sha256(digests), tuple(files))

    def _object(self, md5: str) -> Path | None:
        """The file of the cache, in the layout of DVC 3 or 2."""
        for layout in ("files/md5/", ""):
            file = below(self._base, f"{self._prefix}{layout}{md5[:2]}/{md5[2:]}")
            if file is not None and stat.S_ISREG(kind_of(file)):
                return file
        return None

    def _listing(self, pointer: Pointer) -> dict[str, str] | None:
        """Path → MD5 of the folder, sorted by path, from the cache. Raises :class:`SourceError` for a hostile one."""
        file = self._object(pointer.md5 or "")
        if file is None:
            return None
        return parse_listing(read_bounded(file, MAX_LISTING), str(file))


# --- files ------------------------------------------------------------------------------------------------------------


def below(root: Path, path: str) -> Path | None:
    """``path`` below ``root``, ``None`` if it or a folder above it is a link, or nothing lies there."""
    place = root
    for part in path.split("/"):
        place /= part
        if stat.S_ISLNK(kind_of(place)):
            return None
    return place if kind_of(place) else None


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Path and place of each file below ``folder``, sorted; links are left out, and what DVC never takes for data."""
    found: list[tuple[str, Path]] = []
    waiting = [("", folder)]
    while waiting:
        prefix, current = waiting.pop()
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name not in NOT_DATA:
                            waiting.append((f"{prefix}{entry.name}/", Path(entry.path)))
                    elif entry.is_file(follow_symlinks=False):
                        found.append((prefix + entry.name, Path(entry.path)))
        except OSError as error:
            raise unreadable(current, error) from None
        if len(found) > MAX_FILES:
            raise damaged(str(folder), f"more than {MAX_FILES:,} files")
    yield from sorted(found)


# --- verdicts ---------------------------------------------------------------------------------------------------------


def _judged(pointer: Pointer, digest: FileDigest, file: Path) -> DataDigest:
    if pointer.md5 in digest.md5s:
        return _matching(pointer, digest.sha256, (("", file),))
    return _other(pointer, "other bytes than those with this MD5", digest.sha256, (("", file),))


def _matching(pointer: Pointer, sha256: str, files: tuple[tuple[str, Path], ...]) -> DataDigest:
    return DataDigest(
        path=pointer.path,
        md5=pointer.md5,
        sha256=sha256,
        state="legacy" if pointer.legacy else "verified",
        files=files,
    )


def _other(
    pointer: Pointer,
    detail: str,
    sha256: str | None = None,
    files: tuple[tuple[str, Path], ...] = (),
) -> DataDigest:
    return DataDigest(
        path=pointer.path,
        md5=pointer.md5,
        sha256=sha256,
        state="mismatch",
        detail=detail,
        files=files,
    )


def _absent(pointer: Pointer, detail: str = "") -> DataDigest:
    if pointer.outside:
        detail = "outside the repository"
    return DataDigest(
        path=pointer.path, md5=pointer.md5, sha256=None, state="absent", detail=detail
    )
