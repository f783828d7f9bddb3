"""Filling a wheelhouse: the wheels of an environment, and ``wheels.json`` that lists them.

On the provider's side it asks what is installed and gets the wheels of exactly that; on a verifier's side it gets the
wheels that a bundle lists. pip of the training's interpreter fetches them, so its configured indexes count, and it
takes wheels only: nothing is built.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bundler.environments import interpreters, wheels
from bundler.environments.interpreters import Interpreter
from bundler.environments.pins import Pin, installed_in, of_lock, record_of
from bundler.environments.wheels import NOT_NEEDED, WHEELS_FORMAT, Wheel, WheelList
from bundler.errors import (
    EnvironmentNotRecreatableError,
    MalformedError,
    OutputError,
    SourceError,
    UsageError,
    quoted,
)
from bundler.lockfiles import normalise
from bundler.progress import Progress
from bundler.storage.hashing import digest_file

_AT_ONCE = 4
_CANONICAL = re.compile(
    r"([1-9][0-9]*!)?(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*((a|b|rc)(0|[1-9][0-9]*))?"
    r"(\.post(0|[1-9][0-9]*))?(\.dev(0|[1-9][0-9]*))?(\+[a-z0-9]+(\.[a-z0-9]+)*)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to fetch and where to put it.

    ``python`` is the interpreter of the training. ``lock`` restricts the packages to those of a lock file. ``output``
    is the list to write. ``listed`` asks for the wheels of a ``wheels.json`` instead, and then no list is written.
    ``find_links`` are folders that may have wheels, too; ``offline`` asks no index. ``skip`` are names of packages to
    leave out.
    """

    python: Path
    wheelhouse: Path
    output: Path
    lock: Path | None = None
    listed: Path | None = None
    find_links: tuple[Path, ...] = ()
    offline: bool = False
    skip: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """The list that was written, and how many of its wheels were fetched now."""

    listed: WheelList
    fetched: int


class _NoWheelError(Exception):
    """A wheel that could not be had, and why."""


def fill(request: Request, progress: Progress) -> Filled:
    """Fetch the wheels that are not there yet, look into each, and write the list.

    Raises :class:`UsageError` for a wrong interpreter or lock, :class:`SourceError` that names every package without a
    wheel, :class:`OutputError` if the wheelhouse cannot be written.
    """
    interpreter = _interpreter(request)
    # Of the interpreter that a shim (pyenv) starts, or that has the listed version.
    request = replace(request, python=interpreter.path)
    pins = wanted(request)
    try:
        request.wheelhouse.mkdir(parents=True, exist_ok=True)
        earlier = {wheel.name: wheel for wheel in _earlier(request)}
        there = dict(_present(pins, earlier, request.wheelhouse))
        found = {**there, **_fetch_all(request, [p for p in pins if p.name not in there], progress)}
        listed = WheelList(
            format=WHEELS_FORMAT,
            python=interpreter.version,
            implementation=interpreter.implementation,
            platform=interpreter.platform,
            libc=interpreter.libc,
            wheels=tuple(found[name] for name in sorted(found)),
        )
        if request.listed is None:
            _write(request.output, wheels.serialise(listed))
    except OSError as error:
        raise OutputError(
            f"cannot write {error.filename or request.wheelhouse}: {error.strerror or error}",
            remedy="Check free space and permissions. The wheels that are whole stay; run it again.",
        ) from None
    return Filled(listed=listed, fetched=len(found) - len(there))


def _interpreter(request: Request) -> Interpreter:
    try:
        if request.listed is None:
            return interpreters.identify(request.python)
        listed = _read_list(request.listed)
        return interpreters.find(listed.python, listed.implementation, request.python)
    except EnvironmentNotRecreatableError as error:
        raise UsageError(
            error.message, remedy="Give --python the interpreter of the training."
        ) from None


def wanted(request: Request) -> tuple[Pin, ...]:
    """The wheels that ``request`` asks for. Raises :class:`UsageError` if there is none or a version is not known."""
    if request.listed is not None:
        listed = _read_list(request.listed)
        return tuple(
            Pin(name=each.name, version=each.version, installed={}, sha256=each.sha256)
            for each in listed.wheels
        )
    installed = {pin.name: pin for pin in installed_in(request.python)}
    if request.lock is not None:
        found = of_lock(request.lock, installed)
    else:
        found = [installed[name] for name in sorted(installed) if name not in NOT_NEEDED]
    skipped = {normalise(name) for name in request.skip}
    pins = tuple(pin for pin in found if pin.name not in skipped)
    if not pins:
        raise UsageError(
            f"{request.python} has no packages to list",
            remedy="Give --python the interpreter of the training's own environment.",
        )
    return pins


def _earlier(request: Request) -> tuple[Wheel, ...]:
    source = request.listed or request.output
    try:
        return _read_list(source).wheels
    except UsageError:
        return ()


def _read_list(path: Path) -> WheelList:
    try:
        return wheels.parse(path.read_bytes(), name=path.name)
    except (OSError, MalformedError) as error:
        reason = error.message if isinstance(error, MalformedError) else error.strerror
        raise UsageError(
            f"{path}: {reason}", remedy="Give a wheels.json that `bundler capture-wheels` wrote."
        ) from None


def _present(
    pins: Iterable[Pin], earlier: Mapping[str, Wheel], wheelhouse: Path
) -> Iterator[tuple[str, Wheel]]:
    """The wheels that an earlier run fetched, whole."""
    for pin in pins:
        wheel = earlier.get(pin.name)
        if wheel is None or not wheels.same(wheel.version, pin.version):
            continue
        for path in wheels.places_of(wheelhouse, wheel):
            if path.is_file() and wheels.is_whole(path, wheel):
                yield pin.name, wheel
                break


def _fetch_all(request: Request, pins: Sequence[Pin], progress: Progress) -> dict[str, Wheel]:
    if not pins:
        return {}
    pip = _pip(request.python)
    problems: list[str] = []
    found: dict[str, Wheel] = {}
    with progress.step("Fetching wheels", len(pins)) as step, ThreadPoolExecutor(_AT_ONCE) as pool:

        def fetch(pin: Pin) -> None:
            try:
                found[pin.name] = _fetch(pip, request, pin)
            except _NoWheelError as error:
                problems.append(f"{pin.name}=={pin.version}: {error}")
            step.advance()

        try:
            list(pool.map(fetch, pins))
        finally:
            pool.shutdown(cancel_futures=True)
    if problems:
        raise SourceError(
            f"{len(problems)} of {len(pins)} wheels could not be had: {'; '.join(sorted(problems)[:8])}",
            remedy="Of a package without a wheel, or one that was installed from a folder or a repository, build one"
            f" yourself: {request.python} -m pip wheel --no-deps -w DIR PACKAGE, and add --find-links DIR. Other"
            " indexes are taken from pip's own settings (PIP_EXTRA_INDEX_URL). What no training needs: --skip NAME.",
        )
    return found


def _fetch(pip: Sequence[str], request: Request, pin: Pin) -> Wheel:
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=request.wheelhouse) as folder:
        place = Path(folder)
        listed = place / "requirements.txt"
        listed.write_text(_requirement(pin) + "\n", "utf-8")
        command = [*pip, "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
        command += ["--disable-pip-version-check", "--progress-bar", "off", "--quiet"]
        command += ["--dest", str(place / "got"), "-r", str(listed)]
        # The name of a package that came from no index may be somebody else's on one.
        if request.offline or (pin.origin is not None and not _is_wheel(pin.origin)):
            command.append("--no-index")
        for each in request.find_links:
            command += ["--find-links", str(each.absolute())]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        got = sorted((place / "got").glob("*.whl")) if done.returncode == 0 else []
        if len(got) != 1:
            raise _NoWheelError(_why(done.stderr, pin))
        return _take(got[0], request, pin)


def _requirement(pin: Pin) -> str:
    if pin.origin is not None and _is_wheel(pin.origin):
        return f"{pin.name} @ {pin.origin}"
    # ===, where it can be had: == 2.13.0 would also take 2.13.0+cpu.
    equal = "===" if _CANONICAL.fullmatch(pin.version) else "=="
    digest = f" --hash=sha256:{pin.sha256}" if pin.sha256 else ""
    return f"{pin.name}{equal}{pin.version}{digest}"


def _is_wheel(origin: str) -> bool:
    parts = urlsplit(origin)
    return parts.scheme in {"https", "http", "file"} and unquote(parts.path).endswith(".whl")


def _why(stderr: str, pin: Pin) -> str:
    if pin.origin is not None and not _is_wheel(pin.origin):
        return f"it was installed from {quoted(pin.origin, 200)}, and no --find-links folder has a wheel of it"
    if "Retrying" in stderr or "Max retries" in stderr:
        return "the index cannot be reached"
    if "HASHES" in stderr:
        return "no index has a wheel with the listed SHA-256"
    if "No matching distribution" in stderr:
        return "there is no wheel of this version for this Python and platform"
    errors = [line for line in stderr.splitlines() if line.startswith("ERROR")]
    return quoted(errors[-1] if errors else stderr.strip()[-200:] or "pip gave no reason", 300)


def _take(file: Path, request: Request, pin: Pin) -> Wheel:
    """Look into a wheel, and move it to its place in the wheelhouse."""
    try:
        wheels.examine(file, pin.name, pin.version)
    except MalformedError as error:
        raise _NoWheelError(error.message) from None
    other = _other_files(file, pin)
    if other:
        raise _NoWheelError(
            f"what is installed is another build than {file.name}: {quoted(other[0], 100)} differs"
            f" ({len(other)} files do)"
        )
    with file.open("rb") as opened:
        digest = digest_file(opened)
    if pin.sha256 is not None and digest != pin.sha256:
        raise _NoWheelError("it has another SHA-256 than the list says")
    wheel = Wheel(
        name=pin.name,
        version=pin.version,
        filename=file.name,
        sha256=digest,
        size=file.stat().st_size,
    )
    plain, own = wheels.places_of(request.wheelhouse, wheel)
    taken = plain.exists() and not wheels.is_whole(plain, wheel)
    target = own if taken else plain
    target.parent.mkdir(exist_ok=True)
    file.chmod(0o644)
    file.replace(target)
    return wheel


def _other_files(file: Path, pin: Pin) -> list[str]:
    """Paths that the wheel and the environment both have, with other content: another build of the same version."""
    return [
        path
        for path, digest in record_of(wheels.record(file)).items()
        if pin.installed.get(path, digest) != digest
    ]


def _pip(python: Path) -> list[str]:
    """The pip of ``python``, or ours made to work for it: an environment that uv made has none."""
    words = ""
    for command in (
        [str(python), "-I", "-m", "pip"],
        [sys.executable, "-I", "-m", "pip", "--python", str(python)],
    ):
        done = subprocess.run(
            [*command, "--version"],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode == 0:
            return command
        words = done.stderr.strip() or words
    raise UsageError(
        f"pip works neither for {python} nor for this program's interpreter: {quoted(words, 300)}",
        remedy=f"Install it: {python} -m ensurepip",
    )


def _write(target: Path, data: bytes) -> None:
    """Write whole or not at all; an earlier list is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
