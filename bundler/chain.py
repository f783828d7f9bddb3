"""The run log: a hash chain over exact line bytes, and the Merkle tree of RFC 6962 over the same lines.

Line *i* carries ``index`` = *i* and ``previous`` = SHA-256 of line *i* - 1 without its newline (64 zeros for the
first). The chain makes an edited, dropped or reordered line visible; the signed checkpoint makes a cut tail
visible; the Merkle root lets single records be disclosed with a proof.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bundler import canonical
from bundler.errors import MalformedError, quoted
from bundler.spec import Checkpoint

GENESIS = "0" * 64


def append(previous_lines: Sequence[bytes], records: Iterable[Any]) -> list[bytes]:
    """Return ``previous_lines`` followed by one line for each of ``records`` (JSON values)."""
    lines = list(previous_lines)
    head = _digest(lines[-1]) if lines else GENESIS
    for record in records:
        line = canonical.serialise({"index": len(lines), "previous": head, "run": record})
        lines.append(line)
        head = _digest(line)
    return lines


def checkpoint(lines: Sequence[bytes]) -> Checkpoint:
    """Return size, head and Merkle root of the log that consists of ``lines``."""
    head = _digest(lines[-1]) if lines else GENESIS
    return Checkpoint(size=len(lines), head=head, root=merkle_root(lines))


def split(data: bytes) -> list[bytes]:
    """Return the lines of ``records.jsonl``. Every line ends with one LF."""
    if not data:
        return []
    if not data.endswith(b"\n"):
        raise MalformedError("log-syntax", "data/records.jsonl: the last line has no newline")
    return data[:-1].split(b"\n")


def join(lines: Iterable[bytes]) -> bytes:
    """Return the bytes of ``records.jsonl``."""
    return b"".join(line + b"\n" for line in lines)


def walk(lines: Iterable[bytes]) -> Iterator[Any]:
    """Yield the ``run`` of each line, checking canonical form, ``index`` and ``previous``.

    Raises :class:`MalformedError` at the first line that breaks the chain.
    """
    head = GENESIS
    for index, line in enumerate(lines):
        name = f"data/records.jsonl, line {index + 1}"
        value = canonical.parse_canonical(line, name=name)
        if not isinstance(value, dict) or set(value) != {"index", "previous", "run"}:
            raise MalformedError("log-syntax", f"{name}: not an object of index, previous and run")
        # Not only equal: to Python, true is 1.
        if type(value["index"]) is not int or value["index"] != index:
            raise MalformedError(
                "log-index", f"{name}: index is {quoted(value['index'])}, not {index}"
            )
        if value["previous"] != head:
            raise MalformedError("log-link", f"{name}: does not follow from the line before it")
        head = _digest(line)
        yield value["run"]


def merkle_root(leaves: Sequence[bytes]) -> str:
    """Return the Merkle Tree Hash of RFC 6962, section 2.1, as hex; that of the empty log is SHA-256 of nothing."""
    # Complete subtrees to the left, largest first, as (height, hash): constant memory, no recursion.
    stack: list[tuple[int, bytes]] = []
    for leaf in leaves:
        node = (0, hashlib.sha256(b"\x00" + leaf).digest())
        while stack and stack[-1][0] == node[0]:
            height, left = stack.pop()
            node = (height + 1, _parent(left, node[1]))
        stack.append(node)
    if not stack:
        return hashlib.sha256().hexdigest()
    root = stack.pop()[1]
    while stack:
        root = _parent(stack.pop()[1], root)
    return root.hex()


def _parent(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
