"""What every lock comes to: packages, versions, and the answer to one question with its reasons."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from bundler.errors import quoted

Answer = Literal["yes", "no", "cannot be shown"]
"""Whether every dependency, transitive ones included, is pinned to an exact version with a hash."""

Format = Literal[
    "requirements.txt",
    "uv.lock",
    "poetry.lock",
    "pylock.toml",
    "Pipfile.lock",
    "conda-explicit.txt",
    "conda-lock.yml",
    "pixi.lock",
    "environment.yml",
]
"""The formats, each by the file name under which :func:`bundler.lockfiles.parse` knows it again."""

Strength = Literal["strong", "weak", "none"]
"""SHA-2 of 256 bits or more; another algorithm (MD5, SHA-1), which two files can be made to share; no hash."""

Origin = Literal["index", "path", "repository"]

EXAMPLES = 3
"""How many packages a reason names."""

_STRONG = {"sha256": 64, "sha384": 96, "sha512": 128}
"""Number of hexadecimal digits of each algorithm that pip, uv and PEP 751 count as secure."""

_CONDITION = "installed only where a condition holds (platform, Python, extra or group)"
_DEPENDENCY = ("dependency", "dependencies")

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_~-]{0,127}")
_PLAIN = re.compile(r"[ -~]{1,80}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One package in one version, as a lock names it. ``version`` is ``None`` where the lock fixes none.

    ``conditional``: it need not be installed on every machine. ``conda``: it comes from a conda channel and may be no
    Python distribution at all.
    """

    name: str
    version: str | None
    strength: Strength
    origin: Origin = "index"
    conditional: bool = False
    conda: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """What a lock says. ``versions`` maps the normalised name (PEP 503) to every version that the lock allows.

    A lock for several platforms or versions of Python can allow several. ``conditional`` are packages that need not
    be installed on every machine (a marker, platform, extra or group decides), ``conda`` those of a conda channel,
    whose absence among Python's distributions means nothing.
    """

    format: Format
    versions: dict[str, tuple[str, ...]]
    unpinned: tuple[str, ...]
    conditional: tuple[str, ...] = ()
    conda: tuple[str, ...] = ()
    answer: Answer
    reasons: tuple[str, ...]

    @property
    def packages(self) -> dict[str, str]:
        """Normalised name → version as a person reads it; several versions are joined by "or"."""
        return {name: " or ".join(versions) for name, versions in self.versions.items()}

    @property
    def lists_any(self) -> bool:
        """Whether it names a package at all, pinned or not."""
        return bool(self.versions or self.unpinned)


def normalise(name: str) -> str:
    """The normalised name of a package (PEP 503). Conda's leading underscore stays: it is part of the name."""
    lowered = re.sub(r"[-_.]+", "-", name).lower()
    return "_" + lowered[1:] if name.startswith("_") else lowered


def exact(version: object) -> str | None:
    """``version`` if it is one exact version."""
    return version if isinstance(version, str) and _VERSION.fullmatch(version) else None


def strength(algorithm: str, digest: object) -> Strength:
    """How much a hash in hexadecimal digits binds. One of the wrong length is none."""
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-fA-F]{8,128}", digest):
        return "none"
    if algorithm in _STRONG:
        return "strong" if len(digest) == _STRONG[algorithm] else "none"
    return "weak"


def of_text(text: object) -> Strength:
    """The strength of ``sha256:…``."""
    algorithm, _, digest = text.partition(":") if isinstance(text, str) else ("", "", "")
    return strength(algorithm, digest)


def weakest(strengths: Iterable[Strength]) -> Strength:
    """The strength of a package that any one of several files satisfies: that of its worst one."""
    found = set(strengths)
    if not found or "none" in found:
        return "none"
    return "weak" if "weak" in found else "strong"


def strongest(strengths: Iterable[Strength]) -> Strength:
    """The strength of several hashes of the same file."""
    found = set(strengths)
    if "strong" in found:
        return "strong"
    return "weak" if "weak" in found else "none"


def shown(text: str) -> str:
    """How a reason names something from outside: escaped and cut."""
    return text if _PLAIN.fullmatch(text) else quoted(text)


def counted(
    items: Sequence[str], rest: str, one: str = "package", several: str = "packages"
) -> str:
    """One sentence about ``items``: how many, and the first few by name."""
    first = ", ".join(shown(item) for item in items[:EXAMPLES])
    more = f" and {len(items) - EXAMPLES} more" if len(items) > EXAMPLES else ""
    return f"{len(items)} {one if len(items) == 1 else several} {rest}: {first}{more}."


def assess(
    format_: Format,
    entries: Sequence[Entry],
    *,
    unpinned: Sequence[str] = (),
    missing: Sequence[str] = (),
    doubts: Sequence[str] = (),
) -> Lock:
    """Answer the question for ``entries``.

    ``unpinned`` are entries without a name that could be listed, ``missing`` dependencies that are named and not
    there: both mean "no". ``doubts`` are sentences that say why it cannot be shown.
    """
    versions: dict[str, set[str]] = {}
    for each in entries:
        if each.version is not None:
            versions.setdefault(each.name, set()).add(each.version)
    open_ = [*unpinned, *sorted({each.name for each in entries if each.version is None})]
    conditional = _conditional(entries)
    faults = [*_faults(entries, open_)]
    if missing:
        faults.append(counted(sorted(set(missing)), "needed but not in the lock", *_DEPENDENCY))
    empty = not versions and not open_
    reasons = [*faults, *doubts]
    if empty:
        reasons.append("The file names no package.")
    answer: Answer = "no" if faults else "cannot be shown" if reasons else "yes"
    if conditional:
        reasons.append(counted(conditional, _CONDITION))
    return Lock(
        format=format_,
        versions={name: tuple(sorted(found)) for name, found in sorted(versions.items())},
        unpinned=tuple(open_),
        conditional=tuple(conditional),
        conda=tuple(sorted({each.name for each in entries if each.conda})),
        answer=answer,
        reasons=tuple(reasons),
    )


def _conditional(entries: Sequence[Entry]) -> list[str]:
    """Names of which no entry is installed everywhere."""
    always = {each.name for each in entries if not each.conditional}
    return sorted({each.name for each in entries if each.conditional} - always)


def _faults(entries: Sequence[Entry], unpinned: Sequence[str]) -> Iterable[str]:
    if unpinned:
        yield counted(unpinned, "without an exact version")
    groups: tuple[tuple[str, list[Entry]], ...] = (
        (
            "taken from version control, pinned at most to a commit and not by a hash of what is installed",
            [each for each in entries if each.origin == "repository"],
        ),
        (
            "taken from a local folder, or from a local file without a SHA-256",
            [each for each in entries if each.origin == "path" and each.strength != "strong"],
        ),
        (
            "without a hash",
            [each for each in entries if each.origin == "index" and each.strength == "none"],
        ),
        (
            "with no hash but MD5 or SHA-1, which another file can be made to have",
            [each for each in entries if each.origin == "index" and each.strength == "weak"],
        ),
    )
    for rest, found in groups:
        if found:
            yield counted(sorted({each.name for each in found}), rest)
