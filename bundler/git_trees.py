"""Git's own names for content: the id of a file and of a folder, computed from the bytes and the listing alone.

A commit names one tree, and a tree's id is a digest over everything below it. So a listing whose tree id comes out
as declared holds every file of that tree, and a file whose blob id stands in it has the committed bytes. That a commit
has this tree is for git to say: ``git rev-parse COMMIT:FOLDER`` in any clone. Formats: git's
Documentation/gitformat-object-id and "Git Internals - Git Objects".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from bundler.errors import MalformedError
from bundler.spec import TreeEntry

_FOLDER = "40000"


def blob_id(data: bytes, like: str) -> str:
    """The id of a file with the bytes ``data``, in the hash of the id ``like`` (SHA-1 or SHA-256)."""
    return _object_id("blob", data, like)


def tree_id(entries: Iterable[TreeEntry], like: str) -> str:
    """The id of the folder that holds ``entries``. Raises :class:`MalformedError` for a listing that is no tree."""
    root: dict[str, Any] = {}
    for entry in entries:
        *folders, name = entry.path.split("/")
        place = root
        for folder in folders:
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                raise _wrong(entry.path)
        if name in place or not all([*folders, name]):
            raise _wrong(entry.path)
        place[name] = entry
    return _folder_id(root, like)


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
            below = isinstance(item, dict)
            mode, name_id = (_FOLDER, ids[id(item)]) if below else (item.mode, item.id)
            key = name.encode() + (b"/" if below else b"")
            lines.append((key, f"{mode.lstrip('0')} ".encode() + name.encode() + b"\0", name_id))
        # Git sorts by name, folders as if theirs ended with a slash.
        data = b"".join(head + bytes.fromhex(name_id) for _, head, name_id in sorted(lines))
        ids[id(current)] = _object_id("tree", data, like)
    return ids[id(folder)]


def _object_id(kind: str, data: bytes, like: str) -> str:
    algorithm = hashlib.sha256 if len(like) == 64 else hashlib.sha1
    # Git's choice, not ours: the bag's own digests are SHA-256.
    return algorithm(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def _wrong(path: str) -> MalformedError:
    return MalformedError(
        "code-tree", f"{path[:80]!a} stands twice in the listing of the code, or is no path"
    )
