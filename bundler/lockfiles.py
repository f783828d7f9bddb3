"""Lists of software versions: which packages, in which version, and whether each is pinned with a hash."""

from __future__ import annotations

import re
from dataclasses import dataclass

# One exact version (PEP 440), then a marker, an option or nothing: `==2.*` and `==2,!=3` pin nothing.
_PIN = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*===?\s*([A-Za-z0-9][A-Za-z0-9.!+_-]*)\s*(;.*|--.*)?"
)
_ELSEWHERE = ("-r", "--requirement", "-c", "--constraint", "-e", "--editable")
"""Options that bring packages which this file does not pin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """What a lock says. ``packages`` maps the normalised name (PEP 503) to the version.

    ``conditional`` are those with an environment marker (PEP 508): they need not be installed on every machine.
    ``hashed``: every entry has a SHA-256. That is "hash-checked"; a requirements file cannot prove that it names every
    transitive dependency.
    """

    packages: dict[str, str]
    hashed: bool
    unpinned: tuple[str, ...]
    conditional: tuple[str, ...] = ()

    @property
    def lists_any(self) -> bool:
        """Whether it names a package at all, pinned or not."""
        return bool(self.packages or self.unpinned)


def parse_requirements(text: str) -> Lock:
    """Read a pip requirements file. Lines that pin no version are listed, never guessed."""
    packages: dict[str, str] = {}
    unpinned: list[str] = []
    conditional: set[str] = set()
    hashed = True
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        entry = re.sub(r"(^|\s)#.*", "", line).strip()
        if not entry or (entry.startswith("-") and not entry.startswith(_ELSEWHERE)):
            continue
        pin = _PIN.fullmatch(entry)
        if pin is None:
            unpinned.append(entry[:80])
            continue
        name = normalise(pin[1])
        if ";" in (pin[3] or "").partition("--hash")[0]:
            conditional.add(name)
        packages[name] = pin[2]
        hashed = hashed and "--hash=sha256:" in entry
    return Lock(
        packages=packages,
        hashed=hashed and bool(packages) and not unpinned,
        unpinned=tuple(unpinned),
        conditional=tuple(sorted(conditional)),
    )


def normalise(name: str) -> str:
    """The normalised name of a package (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
