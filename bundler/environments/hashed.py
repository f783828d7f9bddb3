"""The hashes of a requirements file, and the wheels of a wheelhouse that satisfy them.

For bundles without ``wheels.json``. What a line pins is read as :mod:`bundler.lockfiles` reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bundler.environments.wheels import Wheel, named, places_of, same
from bundler.errors import EnvironmentNotRecreatableError
from bundler.lockfiles import Lock
from bundler.lockfiles.requirements import pinned
from bundler.report import Knob
from bundler.storage.hashing import digest_file

_SHA256 = re.compile(r"--hash[= ]sha256:([0-9a-f]{64})(?=\s|$)")
_REMEDY = (
    "Ask the provider for `training.wheels` (bundler capture-wheels), which works with every kind of lock; or use"
    " --environment current or image."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A package in one version, the SHA-256 of its files, and whether it need not be installed everywhere."""

    name: str
    version: str
    sha256: frozenset[str]
    conditional: bool


def pins_of(lock: Lock, text: str) -> tuple[Pin, ...]:
    """The pins of a requirements file ``text``, which was read as ``lock``.

    Raises :class:`EnvironmentNotRecreatableError` unless each entry has one version and a SHA-256.
    """
    if lock.format != "requirements.txt":
        raise EnvironmentNotRecreatableError(
            f"the environment cannot be recreated from {lock.format}: of the formats of lock files, only a"
            " requirements file with hashes says by itself which wheels to install",
            remedy=_REMEDY,
        )
    pins = tuple(_pins(text))
    bare = [pin.name for pin in pins if not pin.sha256]
    if lock.unpinned or bare or not pins:
        what = ", ".join([*lock.unpinned, *bare][:5]) or "no package"
        raise EnvironmentNotRecreatableError(
            f"the lock does not pin every package with a SHA-256: {what}", remedy=_REMEDY
        )
    return pins


def choose(pins: tuple[Pin, ...], wheelhouse: Path) -> tuple[Wheel, ...]:
    """The wheels of ``wheelhouse`` that ``pins`` allow; several of a package where it has several.

    A conditional package without a wheel is left out. Raises :class:`EnvironmentNotRecreatableError` for another one,
    and for a package of which two versions would fit.
    """
    there: dict[str, list[tuple[str, Path]]] = {}
    for path in sorted([*wheelhouse.glob("*.whl"), *wheelhouse.glob("*/*.whl")]):
        said = named(path.name)
        if said is not None and path.is_file():
            there.setdefault(said[0], []).append((said[1], path))
    chosen: dict[str, dict[str, list[Wheel]]] = {}
    absent = []
    for pin in pins:
        found = list(_fitting(pin, there.get(pin.name, []), wheelhouse))
        if found:
            chosen.setdefault(pin.name, {})[pin.version] = found
        elif not pin.conditional:
            absent.append(f"{pin.name}=={pin.version}")
    if absent:
        raise EnvironmentNotRecreatableError(
            f"{wheelhouse} has no wheel with a hash of the lock for {len(absent)} packages: {', '.join(absent[:8])}",
            remedy="Fetch them where there is a network: python -m pip download --only-binary :all: --no-deps"
            f" --require-hashes -r LOCK -d {wheelhouse}",
        )
    forked = [name for name, versions in chosen.items() if len(versions) > 1]
    if forked:
        raise EnvironmentNotRecreatableError(
            f"the lock allows several versions of {', '.join(sorted(forked)[:5])}, and the wheelhouse has them",
            remedy="Keep only the wheels of the version for this machine in the wheelhouse.",
        )
    return tuple(
        wheel
        for _, versions in sorted(chosen.items())
        for each in versions.values()
        for wheel in each
    )


def contradictions(text: str, wheels: Iterable[Wheel]) -> Iterator[Knob]:
    """The ``wheels`` whose SHA-256 is none of those that the requirements file ``text`` gives for their package."""
    allowed: dict[str, set[str]] = {}
    for pin in _pins(text):
        allowed.setdefault(pin.name, set()).update(pin.sha256)
    for wheel in wheels:
        if allowed.get(wheel.name) and wheel.sha256 not in allowed[wheel.name]:
            yield Knob(
                name=f"wheel {wheel.name}",
                declared="a file with a SHA-256 of the lock",
                rerun=f"{wheel.filename}, sha256:{wheel.sha256}",
            )


def _fitting(pin: Pin, there: list[tuple[str, Path]], wheelhouse: Path) -> Iterator[Wheel]:
    for version, path in there:
        if not same(version, pin.version):
            continue
        with path.open("rb") as file:
            digest = digest_file(file)
        wheel = Wheel(
            name=pin.name,
            version=pin.version,
            filename=path.name,
            sha256=digest,
            size=path.stat().st_size,
        )
        if digest in pin.sha256 and path in places_of(wheelhouse, wheel):
            yield wheel


def _pins(text: str) -> Iterator[Pin]:
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        plain = " ".join(re.sub(r"(^|\s)#.*", "", line).split())
        entry = pinned(plain)
        if entry is not None and entry.version is not None:
            yield Pin(
                name=entry.name,
                version=entry.version,
                sha256=frozenset(_SHA256.findall(plain)),
                conditional=entry.conditional,
            )
