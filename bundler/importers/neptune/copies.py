"""Operations that two folders of one run both have: a folder that was copied, whose points would count twice."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from bundler.errors import SourceError, quoted
from bundler.importers.files import too_large

MAX_OPERATIONS = 5_000_000
"""Most operations of one run that has several folders."""


class Copies:
    """Knows the operations of one run by their digests."""

    def __init__(self) -> None:
        self._seen: dict[bytes, Path] = {}

    def check(self, folder: Path, operation: dict[str, Any], at: object) -> None:
        """Take an operation of ``folder``. Raises :class:`SourceError` for one that another folder has.

        Two executions do the same at their beginning, but not at the same time: what has no time of its own is passed
        over.
        """
        if at is None and not str(operation.get("type")).startswith("Log"):
            return
        text = json.dumps([operation, at], sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        first = self._seen.setdefault(digest, folder)
        if first != folder:
            raise SourceError(
                f"{quoted(str(folder), 200)} has operations that {quoted(str(first), 200)} has as well",
                remedy="One is a copy of the other: remove it, or give only one of them.",
            )
        if len(self._seen) > MAX_OPERATIONS:
            raise too_large(folder, f"{MAX_OPERATIONS:,} operations of one run")
