"""Git's own names for content: the id of a file and of a folder, computed from the bytes and the listing alone.

A commit names one tree, and a tree's id is a digest over everything below it. So a listing whose tree id comes out as
declared holds every file of that tree, and a file whose blob id stands in it has the committed bytes. That a commit has
this tree is for git to say: ``git rev-parse COMMIT:FOLDER`` in any clone. Formats: "Git Internals - Git Objects".

A tree is bytes without lengths, so a listing that git would not write can have the bytes, and with them the id, of
another: ids of two lengths in one listing, or a NUL in a name. Such a listing is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from bundler.errors import MalformedError, quoted
from bundler.spec import TreeEntry

FOLDER = "040000"
"""Mode of a folder, where a listing names one without what is in it."""

MAX_PATH = 4096
"""Longest path; git's own limit on most systems."""

_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MODES = {"100644", "100755", "100664", "120000", "160000", FOLDER}


def blob_id(data: bytes, like: str) -> str:
    """The id of a file with the bytes ``data``, in the hash of the id ``like`` (SHA-1 or SHA-256)."""
    return _object_id("blob", data, like)


def tree_id(entries: Iterable[TreeEntry], like: str, *, listed: bool = True) -> str:
    """The id of the folder that holds ``entries``, in the hash of the id ``like``.

    ``listed``: folders are listed with what is in them, and none is only named.

    Raises :class:`MalformedError` (``code-tree``) for a listing that git would not write.
    """
    if not _ID.fullmatch(like):
        raise MalformedError("code-tree", f"{quoted(like)} is no object id of git")
    root: dict[str, Any] = {}
    for entry in entries:
        if (
            not is_plain(entry.path)
            or entry.mode not in _MODES
            or (listed and entry.mode == FOLDER)
        ):
            raise _wrong(entry)
        if len(entry.id) != len(like) or not _ID.fullmatch(entry.id):
            raise _wrong(entry)
        *folders, name = entry.path.split("/")
        place = root
        for folder in folders:
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                raise _wrong(entry)
        if name in place:
            raise _wrong(entry)
        place[name] = entry
    return _folder_id(root, like)


def is_plain(path: str) -> bool:
    """Whether ``path`` is a path as git keeps it: not empty, relative, and with no part that leads elsewhere."""
    parts = path.split("/")
    return (
        len(path) <= MAX_PATH
        and "\0" not in path
        and all(part not in {"", ".", ".."} and part.lower() != ".git" for part in parts)
    )


def _folder_id(folder: Mapping[str, Any], like: str) -> str:
    """The id of ``folder``, from the innermost folders outwards: a listing may be deeper than Python's stack."""
    waiting = [folder]
    order = []
    while waiting:
        current = waiting.pop()
        order.append(current)
        waiting += [each for each in current.values() if isinstance(each, dict)]
    ids: dict[int, str] = {}
    for current in reversed(order):
        lines = []
        for name, item in current.items():
            inner = isinstance(item, dict)
            mode, name_id = (FOLDER, ids[id(item)]) if inner else (item.mode, item.id)
            # Git sorts by name, folders as if theirs ended with a slash.
            key = name.encode() + (b"/" if mode == FOLDER else b"")
            lines.append((key, f"{mode.lstrip('0')} ".encode() + name.encode() + b"\0", name_id))
        data = b"".join(head + bytes.fromhex(name_id) for _, head, name_id in sorted(lines))
        ids[id(current)] = _object_id("tree", data, like)
    return ids[id(folder)]


def _object_id(kind: str, data: bytes, like: str) -> str:
    algorithm = hashlib.sha256 if len(like) == 64 else hashlib.sha1
    # Git's choice, not ours: the bag's own digests are SHA-256.
    return algorithm(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def _wrong(entry: TreeEntry) -> MalformedError:
    return MalformedError(
        "code-tree",
        f"the listing of the code has an entry that git would not write: {quoted(entry.path)}",
    )
