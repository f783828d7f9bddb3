"""The lock against what a run recorded: a lock says what should be installed, a record what was."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bundler.lockfiles.model import Lock, normalise
from bundler.records import Scalar

DifferenceKind = Literal[
    "another version", "not in the lock", "not recorded", "not recorded, conditional"
]

_GROUPS = ("packages.", "versions.")
"""What comes before the names of packages in an environment, as trackers and scripts write it."""

_SUFFIX = re.compile(r"[._]version$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A package that the lock and the record do not agree upon.

    ``locked`` are the versions that the lock allows, ``recorded`` the one of the run. The kinds "not recorded" have no
    single package: ``count`` says how many, and ``package`` names the first of them.
    """

    kind: DifferenceKind
    package: str
    locked: tuple[str, ...] = ()
    recorded: str | None = None
    count: int = 1


def agrees(locked: str, found: str) -> bool:
    """Whether ``found`` is the version ``locked``. A local label (``+cpu``) counts only where it is declared."""
    return locked in {found, found.partition("+")[0]}


def compare(lock: Lock, recorded: Mapping[str, Scalar]) -> tuple[Difference, ...]:
    """Differences between ``lock`` and the environment of a record, sorted by kind and name.

    A name below ``packages.`` or ``versions.`` is that of a package. Any other one (``numpy``, ``numpy_version``) is
    taken for a package only where the lock has it: an environment holds much else. Python itself is compared with a
    lock that has it, as those of conda do, and never missed in another.
    """
    found, claimed = _packages(lock, recorded)
    differences = [
        Difference(
            kind="another version", package=name, locked=lock.versions[name], recorded=version
        )
        for name, version in sorted(found.items())
        if name in lock.versions and not any(agrees(each, version) for each in lock.versions[name])
    ]
    differences += [
        Difference(kind="not in the lock", package=name, recorded=found[name])
        for name in sorted(claimed - {"python"})
        if name not in lock.versions
    ]
    absent = [name for name in lock.versions if name not in found]
    may_lack = {*lock.conditional, *lock.conda}
    groups: tuple[tuple[DifferenceKind, list[str]], ...] = (
        ("not recorded", [name for name in absent if name not in may_lack]),
        ("not recorded, conditional", [name for name in absent if name in may_lack]),
    )
    differences += [
        Difference(kind=kind, package=names[0], locked=lock.versions[names[0]], count=len(names))
        for kind, names in groups
        if names
    ]
    return tuple(differences)


def _packages(lock: Lock, recorded: Mapping[str, Scalar]) -> tuple[dict[str, str], set[str]]:
    """Versions by normalised name, and the names that the record itself calls packages."""
    found: dict[str, str] = {}
    claimed: set[str] = set()
    # Those that are called packages come last, so that they win.
    for key, value in sorted(recorded.items(), key=lambda item: item[0].startswith(_GROUPS)):
        if not isinstance(value, str) or not value.strip():
            continue
        group = next((each for each in _GROUPS if key.startswith(each)), None)
        name = normalise(key[len(group) :]) if group else normalise(_SUFFIX.sub("", key))
        if group is not None:
            claimed.add(name)
        if group is not None or name in lock.versions:
            # A script may have written all of sys.version.
            found[name] = value.split()[0]
    return found, claimed
