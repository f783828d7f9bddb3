"""Personal data and credentials in files whose bytes are evidence: found and said, never changed."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from bundler.errors import UsageError
from bundler.redaction import PERSONAL_DATA, credential_name, holds_a_token, personal_data_in
from bundler.spec import Gap

MAX_SEARCHED = 1 << 20
"""Largest file, in bytes, that is searched."""

ARTEFACTS = "data/artefacts/"
_PLACES = (ARTEFACTS, "data/code", "data/datasets", "data/environment")


def gaps(bag: Path, kept: Collection[str]) -> Iterator[Gap]:
    """What lies in the folder ``bag`` and should not be handed out.

    Credentials count everywhere; personal data only in artefacts, because code names its authors.
    """
    secret, found = [], {}
    for path, text in _texts(bag):
        if holds_a_token(text):
            secret.append(path)
        if path.startswith(ARTEFACTS):
            found[path] = {*personal_data_in(text)} & {*PERSONAL_DATA} - {*kept}
    if secret:
        yield Gap(
            level="required",
            code="credential-embedded",
            point="GDPR Art. 32",
            subject=_listed(secret),
            message="files of the bundle hold what looks like a credential",
            remedy="Revoke it, take it out of what is shipped, and build again: a bundle is handed to many.",
        )
    paths = sorted(path for path, kinds in found.items() if kinds)
    if paths:
        kinds = sorted({kind for path in paths for kind in found[path]})
        yield Gap(
            level="recommended",
            code="personal-data-embedded",
            point="GDPR Art. 5(1)(c)",
            subject=_listed(paths),
            message=f"embedded artefacts hold what looks like personal data ({', '.join(kinds)})",
            remedy="A bundle is handed to many: log the artefacts without it, or do not embed them.",
        )


def refuse_credentials(command: Collection[str], environment: Mapping[str, str]) -> None:
    """A training specification is signed and handed out as it is. Raises :class:`UsageError` for a credential in it."""
    names = [
        name
        for name, value in environment.items()
        if _is_secret(value) or (credential_name(name) and _may_be_secret(value))
    ]
    places = [f"training.environment.{name}" for name in names]
    places += ["training.command"] if any(map(_is_secret, command)) else []
    if places:
        raise UsageError(
            f"{places[0]} looks like a credential, and everything in a bundle is handed out",
            remedy="Take it out: a re-run has no network, so nothing can need it.",
        )


def _is_secret(text: str) -> bool:
    """Whether ``text`` holds a token of a known form, or an address with a password."""
    return holds_a_token(text) or re.search(r"://[^\s/:@]*:[^\s/]+@", text) is not None


def _may_be_secret(value: str) -> bool:
    """Whether the value of a credential's name may be one: no placeholder, no word that a tracker is put off with."""
    word = value.strip().lower()
    return not (word in _DUMMIES or (word.startswith("{") and word.endswith("}")))


_DUMMIES = {"", "0", "1", "true", "false", "none", "null", "dummy", "offline", "local", "x", "-"}


def _texts(bag: Path) -> Iterator[tuple[str, str]]:
    """Path and content of the small text files in ``bag``, sorted."""
    for place in _PLACES:
        for file in sorted((bag / place).rglob("*")):
            if file.is_file() and file.stat().st_size <= MAX_SEARCHED:
                with suppress(UnicodeDecodeError):
                    yield file.relative_to(bag).as_posix(), file.read_bytes().decode()


def _listed(paths: list[str]) -> str:
    many = "file" if len(paths) == 1 else "files"
    return f"{len(paths)} {many}: {', '.join(paths[:3])}{', …' if len(paths) > 3 else ''}"
