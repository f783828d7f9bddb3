"""The verifier's own software, compared with what the bundle declares, package by package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bundler.environments.interpreters import answer
from bundler.environments.model import Runtime
from bundler.errors import EnvironmentNotRecreatableError
from bundler.lockfiles import Lock, agrees, normalise
from bundler.lockfiles import parse as parse_lock
from bundler.records import Scalar
from bundler.report import Knob
from bundler.spec import TrainingSpec

_LIST = """
import hashlib, importlib.metadata, json, platform, sys, sysconfig

def described(each):
    try:
        name, version, record = each.metadata["Name"], each.version, each.read_text("RECORD")
    except Exception as error:
        # What cannot be read is no package, but another environment than one without it.
        return [None, None, type(error).__name__]
    # RECORD has the digests of the package's files.
    return [name, version, record and hashlib.sha256(record.encode()).hexdigest()]

# What comes first on the path is what is imported; in a dict, the last of a name stays.
packages = [described(each) for each in importlib.metadata.distributions()][::-1]
build = [sys.version, sysconfig.get_platform(), platform.machine(), *platform.libc_ver()]
print(json.dumps([sys.version.split()[0], build, packages]))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What an interpreter sees: normalised name → version of the packages and of ``python`` itself.

    ``sha256`` also tells builds of one version apart: it is over the ``RECORD`` of each package and the interpreter's
    build.
    """

    versions: Mapping[str, str]
    sha256: str


class Files(Protocol):
    """The files of a verified bundle (:class:`bundler.evidence.Files`)."""

    def read(self, path: str) -> bytes:
        """The bytes of ``path``. Raises :class:`bundler.errors.MalformedError` (``file-missing``, ``file-changed``)."""


def prepare(*, python: Path, files: Files, spec: TrainingSpec) -> Runtime:
    """The environment of ``python`` as it is, with the packages that are there in another version than the lock's.

    Raises :class:`EnvironmentNotRecreatableError` if ``python`` does not run or a declared package is not installed,
    :class:`bundler.errors.MalformedError` if the lock cannot be read.
    """
    there = installed(python)
    found = there.versions
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
        facts={
            **facts_of(found, there.sha256),
            "packages_compared": compared(lock, found),
        },
    )


def lock_of(files: Files, spec: TrainingSpec) -> Lock | None:
    """The lock of the bundle, if it has one. Raises :class:`bundler.errors.MalformedError` (``lock-unreadable``)."""
    return None if spec.lock is None else parse_lock(spec.lock, files.read(spec.lock))


def compared(lock: Lock | None, found: Mapping[str, str]) -> int:
    """How many packages of the lock are there, and so were compared."""
    return 0 if lock is None else sum(name in found for name in lock.versions)


def facts_of(found: Mapping[str, str], software: str) -> dict[str, Scalar]:
    """What identifies the software: Python's version, the number of packages, a SHA-256 over all names and versions.

    ``software`` is a SHA-256 that tells apart what has the same names and versions and yet is not the same.
    """
    text = "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))
    return {
        "python": found["python"],
        "packages": len(found) - 1,
        "packages_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "software_sha256": software,
    }


def digest_of(value: Any) -> str:
    """The SHA-256 of ``value``, which is of plain lists and text, as JSON."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def installed(python: Path) -> Installed:
    """The packages that ``python`` sees, and its build.

    Raises :class:`EnvironmentNotRecreatableError` if the interpreter does not run.
    """
    version, build, packages = answer(python, _LIST)
    names = {normalise(name): found for name, found, _ in packages if name and found}
    return Installed(
        versions={"python": version, **names},
        # Folders list their files in any order.
        sha256=digest_of([build, sorted(packages, key=json.dumps)]),
    )


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
