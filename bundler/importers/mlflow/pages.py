"""Answers that come in pages, each with the token of the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

from bundler.errors import SourceError, quoted

MAX_PAGES = 100_000
"""Most pages of one list."""

MAX_TOKEN = 100_000
"""Most characters of a token."""


def pages(ask: Callable[[str], dict[str, Any]], shown: str) -> Iterator[dict[str, Any]]:
    """All answers of ``ask``, which takes a token (``""``: the first page).

    Raises :class:`SourceError` for a server (``shown``) that has no last page.
    """
    token = ""
    seen: set[bytes] = set()
    for _ in range(MAX_PAGES):
        answer = ask(token)
        yield answer
        following = answer.get("next_page_token")
        if not following:
            return
        if not isinstance(following, str) or len(following) > MAX_TOKEN:
            raise TypeError(f"page token {quoted(following)}")
        token = following
        digest = blake2b(token.encode("utf-8", "backslashreplace"), digest_size=16).digest()
        if digest in seen:
            break
        seen.add(digest)
    raise SourceError(
        f"{shown} gives the same pages again and again",
        remedy="Look at what runs there; MLflow's pages have an end.",
    )
