"""Lists of software versions: which packages, in which version, and whether each is pinned with a hash."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """What a lock says. ``packages`` maps the normalised name (PEP 503) to the version.

    ``hashed``: every entry has a SHA-256. That is "hash-checked"; a requirements file cannot prove that it names every
    transitive dependency.
    """

    packages: dict[str, str]
    hashed: bool
    unpinned: tuple[str, ...]


def parse_requirements(text: str) -> Lock:
    """Read a pip requirements file. Lines that pin no version are listed, never guessed."""
    packages: dict[str, str] = {}
    unpinned: list[str] = []
    hashed = True
    for line in text.replace("\\\n", " ").splitlines():
        entry = re.sub(r"(^|\s)#.*", "", line).strip()
        if not entry or entry.startswith("-"):
            continue
        pin = _PIN.match(entry)
        if pin is None:
            unpinned.append(entry[:80])
            continue
        packages[normalise(pin[1])] = pin[2]
        hashed = hashed and "--hash=sha256:" in entry
    return Lock(
        packages=packages,
        hashed=hashed and bool(packages) and not unpinned,
        unpinned=tuple(unpinned),
    )


def normalise(name: str) -> str:
    """The normalised name of a package (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
