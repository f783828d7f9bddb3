"""The verifier's own software, compared with what the bundle declares, package by package."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from bundler.environments.interpreters import answer
from bundler.environments.model import Runtime
from bundler.errors import EnvironmentNotRecreatableError
from bundler.lockfiles import Lock, agrees, normalise
from bundler.lockfiles import parse as parse_lock
from bundler.records import Scalar
from bundler.report import Knob
from bundler.spec import TrainingSpec

_LIST = (
    "import importlib.metadata as m, json, sys;"
    "print(json.dumps([sys.version.split()[0],"
    # What comes first on the path is what is imported; in a dict, the last of a name stays.
    " [[d.name, d.version] for d in m.distributions() if d.name][::-1]]))"
)


class Files(Protocol):
    """The files of a verified bundle (:class:`bundler.evidence.Files`)."""

    def read(self, path: str) -> bytes:
        """The bytes of ``path``. Raises :class:`bundler.errors.MalformedError` (``file-missing``, ``file-changed``)."""


def prepare(*, python: Path, files: Files, spec: TrainingSpec) -> Runtime:
    """The environment of ``python`` as it is, with the packages that are there in another version than the lock's.

    Raises :class:`EnvironmentNotRecreatableError` if ``python`` does not run or a declared package is not installed,
    :class:`bundler.errors.MalformedError` if the lock cannot be read.
    """
    found = installed(python)
    lock = lock_of(files, spec)
    knobs: tuple[Knob, ...] = ()
    if lock is not None and spec.lock is not None:
        conditional = {*lock.conditional, *lock.conda}
        knobs = differences(
            lock.versions, found, python=python, conditional=conditional, lock=spec.lock
        )
    return Runtime(
        mode="current",
        python=str(python),
        interpreter=python,
        software=knobs,
        facts={**facts_of(found), "packages_compared": compared(lock, found)},
    )


def lock_of(files: Files, spec: TrainingSpec) -> Lock | None:
    """The lock of the bundle, if it has one. Raises :class:`bundler.errors.MalformedError` (``lock-unreadable``)."""
    return None if spec.lock is None else parse_lock(spec.lock, files.read(spec.lock))


def compared(lock: Lock | None, found: Mapping[str, str]) -> int:
    """How many packages of the lock are there, and so were compared."""
    return 0 if lock is None else sum(name in found for name in lock.versions)


def facts_of(found: Mapping[str, str]) -> dict[str, Scalar]:
    """What identifies the software: Python's version, the number of packages, a SHA-256 over all names and versions."""
    text = "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))
    return {
        "python": found["python"],
        "packages": len(found) - 1,
        "packages_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def installed(python: Path) -> dict[str, str]:
    """Normalised name → version of the packages that ``python`` sees, and ``python`` itself.

    Raises :class:`EnvironmentNotRecreatableError` if the interpreter does not run.
    """
    version, packages = answer(python, _LIST)
    return {"python": version, **{normalise(name): found for name, found in packages}}


def differences(
    declared: Mapping[str, str | tuple[str, ...]],
    found: Mapping[str, str],
    *,
    python: Path,
    conditional: Collection[str] = (),
    lock: str = "data/environment/requirements.txt",
) -> tuple[Knob, ...]:
    """Packages in another version than declared: none of those that the lock allows, if it allows several.

    A local label (``+cpu``) counts only where it is declared. ``lock`` is the path of the list in the bundle. Raises
    :class:`EnvironmentNotRecreatableError` if a declared package is not installed at all, unless it is one of the
    ``conditional`` ones, which need not be.
    """
    versions = {name: (each,) if isinstance(each, str) else each for name, each in declared.items()}
    absent = missing(versions, found, conditional)
    if absent:
        pins = " ".join(f"{name}=={versions[name][0]}" for name in absent[:8])
        raise EnvironmentNotRecreatableError(
            f"{len(absent)} declared packages are not installed for {python}: {', '.join(absent[:8])}",
            remedy=f"Install the declared versions: {python} -m pip install {pins}"
            f" (the whole list is {lock} in the bundle).",
        )
    return other_versions(versions, found)


def missing(
    declared: Mapping[str, tuple[str, ...]], found: Mapping[str, str], conditional: Collection[str]
) -> list[str]:
    """Names of the ``declared`` packages that are not there, though they are no ``conditional`` ones."""
    return sorted(name for name in declared if name not in found and name not in conditional)


def other_versions(
    declared: Mapping[str, tuple[str, ...]], found: Mapping[str, str]
) -> tuple[Knob, ...]:
    """The packages that are there in a version which is not ``declared``."""
    return tuple(
        Knob(name=f"package {name}", declared=" or ".join(allowed), rerun=found[name])
        for name, allowed in sorted(declared.items())
        if name in found and not any(agrees(version, found[name]) for version in allowed)
    )
