"""The requirements files of pip, as pip freeze, pip-compile and uv write them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bundler.lockfiles.model import Entry, Lock, assess, normalise, strength, weakest
from bundler.lockfiles.reading import MAX_PACKAGES, unreadable

# One exact version (PEP 440), then a marker, an option or nothing: `==2.*` and `==2,!=3` pin nothing.
_PIN = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9._-]*) ?(?:\[[^\]]*\])? ?===? ?([A-Za-z0-9][A-Za-z0-9.!+_-]*) ?(;.*|--.*)?"
)
_HASH = re.compile(r"--hash[= ]([a-z0-9_]+):(\S*)")
_ELSEWHERE = ("-r", "--requirement", "-c", "--constraint", "-e", "--editable")
"""Options that bring packages which this file does not pin."""

_NAME = "requirements file"

TRANSITIVE = (
    "A requirements file does not say what its packages depend upon: that none is missing cannot be read from it."
    " With a hash for each, pip refuses to install one that is not listed."
)


def parse_requirements(text: str) -> Lock:
    """Read a pip requirements file. Lines that pin no version are listed, never guessed.

    Raises :class:`bundler.errors.MalformedError` (``lock-unreadable``) only for more entries than any such file has.
    """
    entries, unpinned = [], []
    for line in _lines(text):
        entry = pinned(line)
        if entry is None:
            unpinned.append(line[:80])
        else:
            entries.append(entry)
        if len(entries) + len(unpinned) > MAX_PACKAGES:
            unreadable(_NAME, f"more than {MAX_PACKAGES:,} entries")
    doubts = [TRANSITIVE] if entries or unpinned else []
    if any(each.strength == "none" for each in entries) and re.search(
        r"^#.*--no-hashes\b", text, re.MULTILINE
    ):
        doubts.append("It says that it was made with --no-hashes.")
    return assess("requirements.txt", entries, unpinned=unpinned, doubts=doubts)


def pinned(line: str) -> Entry | None:
    """The package that one requirement pins to one version; ``None`` if it pins none."""
    pin = _PIN.fullmatch(line)
    if pin is None:
        return None
    marker, _, options = (pin[3] or "").partition("--")
    hashes = _HASH.findall(f"--{options}")
    return Entry(
        name=normalise(pin[1]),
        version=pin[2],
        strength=weakest(strength(algorithm, digest) for algorithm, digest in hashes),
        conditional=";" in marker,
    )


def _lines(text: str) -> Iterator[str]:
    """The requirements, each as one line without comment and with single spaces."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        entry = " ".join(re.sub(r"(^|\s)#.*", "", line).split())
        if entry and (not entry.startswith("-") or entry.startswith(_ELSEWHERE)):
            yield entry
