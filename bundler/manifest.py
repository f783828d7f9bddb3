"""Names, digests and BagIt manifests (RFC 8493): who is in the bag, and which bytes each one has."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bundler.errors import MalformedError

PAYLOAD_MANIFEST = "manifest-sha256.txt"
TAG_MANIFEST = "tagmanifest-sha256.txt"
DECLARATION = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"

INDEX = "data/bundle.json"
CODE = "data/code"
DATASETS = "data/datasets/"
RECORDS = "data/records.jsonl"
RELEASE_ENVELOPE = "signatures/release.dsse.json"
SIGNATURES = frozenset({RELEASE_ENVELOPE})
"""The only files that no manifest names: they are made over the manifests."""

TAG_FILES = frozenset({"bagit.txt", "bag-info.txt", PAYLOAD_MANIFEST, "VERIFY.md"})
SCHEMA_FOLDER = "schema/"
"""What a tag manifest may name: these files and what is below that folder. BagIt tools act on others (fetch.txt)."""

MAX_PATH = 200
"""Longest path in a bag, in characters; fits every common file system."""

USTAR_NAME, USTAR_PREFIX = 100, 155
"""Longest two halves, in characters, of a path in a ustar header; it is cut at a slash (POSIX.1-1988)."""

_SEGMENT = re.compile(r"[A-Za-z0-9._-]{1,100}")
_LINE = re.compile(rb"([0-9a-f]{64})  ([A-Za-z0-9._/-]+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceDescriptor:
    """Some bytes and their identity (after in-toto's ResourceDescriptor): path, SHA-256, size in bytes."""

    path: str
    sha256: str
    size: int


def is_sha256(text: str) -> bool:
    """Whether ``text`` is a SHA-256 in the only spelling accepted here: 64 lower-case hex digits."""
    return _SHA256.fullmatch(text) is not None


def path_problem(path: str) -> str | None:
    """Say why ``path`` may not name a file of a bag; ``None`` if it may.

    Allowed are relative paths of at most :data:`MAX_PATH` characters whose segments match
    ``[A-Za-z0-9._-]{1,100}`` and do not begin with a dot (no ``..``, no hidden files), if a ustar header can hold them.
    """
    if len(path) > MAX_PATH:
        return f"longer than {MAX_PATH} characters"
    for segment in path.split("/"):
        if not _SEGMENT.fullmatch(segment):
            return "only A-Z a-z 0-9 . _ - are allowed, in a relative path without empty parts"
        if segment.startswith("."):
            return "a part begins with a dot"
    cuts = (at for at, character in enumerate(path) if character == "/" and at <= USTAR_PREFIX)
    if len(path) > USTAR_NAME and len(path) - max(cuts, default=-1) - 1 > USTAR_NAME:
        return "a tar archive cannot carry it: no slash cuts it into at most 155 and 100 characters"
    return None


def collisions(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of files and folders that cannot lie side by side on every file system.

    One without upper/lower case takes two spellings for one, and none has a file and a folder of one name.
    """
    # lower-case spelling → (spelling, whether it is a folder)
    seen: dict[str, tuple[str, bool]] = {}
    folders = {""}
    pairs = []
    for path in paths:
        parts = [(path, False)]
        while (folder := parts[-1][0].rpartition("/")[0]) not in folders:
            folders.add(folder)
            parts.append((folder, True))
        for part in parts:
            other = seen.setdefault(part[0].lower(), part)
            if other != part:
                pairs.append((other[0], part[0]))
    return pairs


def format_manifest(digests: Mapping[str, str]) -> bytes:
    """Return a manifest that ``sha256sum --strict -c`` accepts: sorted, two spaces, LF."""
    return b"".join(f"{digests[path]}  {path}\n".encode() for path in sorted(digests))


def parse_manifest(data: bytes, *, name: str) -> dict[str, str]:
    """Return path → SHA-256 of a manifest in exactly the form that :func:`format_manifest` writes.

    Raises :class:`MalformedError` for duplicate, conflicting, unsorted or garbage lines, binary-mode
    markers, upper-case or truncated digests, CR, BOM, unsafe paths and a missing last newline.
    """
    if not data.endswith(b"\n"):
        raise MalformedError("manifest-syntax", f"{name}: does not end with a newline")
    digests: dict[str, str] = {}
    # Line by line, not split: a gigabyte of empty lines must not become a list.
    for number, line in enumerate(io.BytesIO(data), start=1):
        match = _LINE.fullmatch(line, 0, len(line) - 1)
        if match is None:
            raise MalformedError("manifest-syntax", f"{name}, line {number}: not 'sha256  path'")
        digest, path = match[1].decode(), match[2].decode()
        problem = path_problem(path)
        if problem is not None:
            raise MalformedError("path-unsafe", f"{name}, line {number}: {problem}")
        if path in digests:
            raise MalformedError(
                "manifest-duplicate", f"{name}, line {number}: {path} stands twice"
            )
        digests[path] = digest
    if list(digests) != sorted(digests):
        raise MalformedError("manifest-order", f"{name}: lines are not sorted by path")
    return digests


def bag_info(software: str, created: str, *, files: int, size: int) -> bytes:
    """The bytes of ``bag-info.txt`` (RFC 8493, section 2.2.2): only what follows from the bundle itself.

    ``files`` and ``size`` (bytes) are those of the payload; ``created`` is RFC 3339.
    """
    lines = (
        f"Bag-Software-Agent: {software}",
        f"Bagging-Date: {created[:10]}",
        f"Payload-Oxum: {size}.{files}",
    )
    return "".join(line + "\n" for line in lines).encode()
