"""The lock against what a run recorded: a lock says what should be installed, a record what was."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bundler.lockfiles.model import Lock, normalise
from bundler.lockfiles.versions import same_version
from bundler.records import Scalar

DifferenceKind = Literal[
    "another version", "not in the lock", "not recorded", "not recorded, conditional"
]

CAPTURED = "urn:aisdp-bundler:environment:1"
"""The ``format`` of an environment that `bundler capture` wrote: in it, packages stand below ``packages.`` alone."""

_PACKAGES = "packages."
_GROUPS = (_PACKAGES, "versions.")
"""What comes before the names of packages in an environment, as trackers and scripts write it."""

_SUFFIX = re.compile(r"[._]version$")

INSTALLERS = frozenset({
    "conda", "conda-lock", "distribute", "libmambapy", "mamba", "micromamba", "pdm", "pip",
    "pipenv", "pixi", "pkg-resources", "poetry", "setuptools", "uv", "wheel",
})  # fmt: skip
"""What installs the packages of a lock, and is seldom in it."""

NO_PACKAGES = frozenset({
    "architecture", "compiler", "cublas", "cuda", "cuda-driver", "cuda-runtime", "cudnn", "driver",
    "gcc", "glibc", "gpu-driver", "hip", "kernel", "libc", "machine", "nccl", "nvidia-driver", "os",
    "platform", "rocm", "system",
})  # fmt: skip
"""What scripts list below ``versions.`` beside packages. Conda has packages of such names, in finer versions."""


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
    """Whether ``found`` is the version ``locked``, however the two are spelled.

    A local label (``+cpu``) counts only where it is declared.
    """
    return same_version(locked, found)


def compare(lock: Lock, recorded: Mapping[str, Scalar]) -> tuple[Difference, ...]:
    """Differences between ``lock`` and the environment of a record, sorted by kind and name.

    In an environment of `bundler capture`, what is below ``packages.`` is a package, and nothing else. In another one,
    so is what is below ``versions.``; any other name (``numpy``, ``numpy_version``) is taken for a package only where
    the lock has it, and not from conda: an environment holds much else. Python itself is compared with a lock that has
    it, as those of conda do, and never missed in another; neither is what installs packages.
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
        for name in sorted(claimed - INSTALLERS - {"python"})
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
    read = _of_capture if recorded.get("format") == CAPTURED else _of_others
    found: dict[str, str] = {}
    claimed: set[str] = set()
    # Those that are called packages come last, so that they win.
    for key in sorted(recorded, key=lambda key: key.startswith(_GROUPS)):
        value, name = recorded[key], read(lock, key)
        if name is None or not isinstance(value, str) or not value.strip():
            continue
        # A script may have written all of sys.version.
        found[name] = value.split()[0]
        if key.startswith(_GROUPS):
            claimed.add(name)
    return found, claimed


def _of_capture(lock: Lock, key: str) -> str | None:
    """The package that ``key`` names in an environment of `bundler capture`."""
    if key.startswith(_PACKAGES):
        return normalise(key.removeprefix(_PACKAGES))
    return key if key == "python" and key in lock.versions else None


def _of_others(lock: Lock, key: str) -> str | None:
    """The package that ``key`` names in an environment that a tracker or a script wrote."""
    group = next((each for each in _GROUPS if key.startswith(each)), "")
    name = key[len(group) :]
    bare = normalise(_SUFFIX.sub("", name))
    if bare == "python":
        return bare if bare in lock.versions else None
    if group:
        return normalise(name) if group == _PACKAGES or bare not in NO_PACKAGES else None
    return bare if bare in lock.versions and bare not in lock.conda else None
