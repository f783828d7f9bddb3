"""``wheels.json``: exactly which wheels make up the environment of a training, each by its SHA-256.

The wheels themselves are not in a bundle (those of torch alone have 192 MB): they lie in a wheelhouse, a folder that
many bundles share. The list is part of the signed bundle, so it says which bytes are meant wherever they come from.
"""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Final, Literal, NoReturn

from bundler import canonical, codec
from bundler.errors import MalformedError, quoted
from bundler.lockfiles import Lock, agrees, normalise
from bundler.storage.hashing import digest_file

WHEELS_FORMAT: Final = "urn:aisdp-bundler:wheels:1"

NOT_NEEDED = frozenset({"pip", "uv"})
"""What installs packages is no part of a training, unless its lock says so."""

MAX_LIST_BYTES = 4 << 20
MAX_WHEELS = 5_000
MAX_WHEEL_BYTES = 16 << 30
"""Largest wheel, in bytes; the largest known ones have some 3 GB."""

MAX_MEMBERS = 200_000
MAX_METADATA = 4 << 20
MAX_RECORD = 64 << 20

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_]{0,127}")
_PYTHON = re.compile(r"[0-9]{1,2}\.[0-9]{1,3}(\.[0-9]{1,3}[a-z0-9+.]{0,20})?")
_WORD = re.compile(r"[a-z0-9][A-Za-z0-9_.-]{0,60}")
_LIBC = re.compile(r"([a-z]+ [0-9.]+)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# PEP 427: distribution, version, build, Python, ABI and platform, between hyphens.
_FILENAME = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._]*)-(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_]*)(-[0-9][A-Za-z0-9_.]*)?"
    r"-[A-Za-z0-9_.]+-[A-Za-z0-9_.]+-[A-Za-z0-9_.]+\.whl"
)
_INTERPRETER = re.compile(r"(python|pypy)[0-9.w]*(\.exe)?")
_UNREADABLE = (
    OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, OverflowError, RuntimeError,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """One wheel: its package (normalised name), version with any local label, file name, SHA-256 and bytes."""

    name: str
    version: str
    filename: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelList:
    """The wheels of an environment, sorted by name, and the interpreter that they were made for.

    ``platform`` is as in ``linux-x86_64``, ``libc`` as in ``glibc 2.36`` (empty: unknown).
    """

    format: Literal["urn:aisdp-bundler:wheels:1"]
    python: str
    implementation: str
    platform: str
    libc: str
    wheels: tuple[Wheel, ...]


def serialise(listed: WheelList) -> bytes:
    """The one form in which a list is written. Raises :class:`MalformedError` for one that :func:`parse` refuses."""
    _check(listed)
    return canonical.serialise(codec.to_json(listed))


def parse(data: bytes, *, name: str = "wheels.json") -> WheelList:
    """Read a list of wheels, trusting nothing in it.

    Raises :class:`MalformedError` (``wheels-invalid``, ``structure``, ``json-…``).
    """
    if len(data) > MAX_LIST_BYTES:
        _invalid(f"{name} is larger than {MAX_LIST_BYTES >> 20} MiB")
    value = canonical.parse_canonical(data, name=name)
    listed = codec.from_json(WheelList, value, place=name)
    _check(listed)
    return listed


def requirements(wheels: Iterable[Wheel]) -> str:
    """The wheels as hashed requirements of pip and uv, a line a package."""
    lines: dict[str, str] = {}
    for wheel in wheels:
        line = lines.setdefault(wheel.name, f"{wheel.name}=={wheel.version}")
        lines[wheel.name] = f"{line} --hash=sha256:{wheel.sha256}"
    return "".join(f"{line}\n" for line in lines.values())


def lacking(wheels: Iterable[Wheel], lock: Lock) -> tuple[str, ...]:
    """Names of the packages that ``lock`` installs everywhere and that have no wheel: the two are not one environment.

    A build can ask it as well. What installs packages, and what comes from conda, need not be there.
    """
    there = {wheel.name for wheel in wheels}
    need_not = {*lock.conditional, *lock.conda, *NOT_NEEDED, "python"}
    return tuple(name for name in lock.versions if name not in there | need_not)


def same(one: str, other: str) -> bool:
    """Whether two spellings mean the same version, local labels included."""
    return agrees(one, other) and agrees(other, one)


def named(filename: str) -> tuple[str, str] | None:
    """Normalised name and version of the package that a wheel's file name says; ``None`` if it is no such name."""
    match = _FILENAME.fullmatch(filename)
    return None if match is None else (normalise(match["name"]), match["version"])


def places_of(wheelhouse: Path, wheel: Wheel) -> tuple[Path, Path]:
    """Where a wheel lies: by its file name, or below its digest where another of that name was there before."""
    return wheelhouse / wheel.filename, wheelhouse / wheel.sha256 / wheel.filename


def is_whole(path: Path, wheel: Wheel) -> bool:
    """Whether ``path`` has the size and the SHA-256 of ``wheel``."""
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size == wheel.size and digest_file(file) == wheel.sha256


def examine(path: Path, name: str, version: str) -> int:
    """Look into a wheel before pip or uv unpack it; return its unpacked size in bytes, as it says.

    Raises :class:`MalformedError` (``wheel-malformed``) unless it is a wheel of ``name`` and ``version`` whose members
    stay below the environment, are no links and leave the interpreter alone.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            for problem in _unfit(members):
                _malformed(path, problem)
            found = _identity(archive, members)
    except _UNREADABLE as error:
        _malformed(path, f"it cannot be read ({type(error).__name__})")
    if found is None:
        _malformed(path, "it has not exactly one METADATA that can be read")
    if normalise(found[0]) != name or not same(found[1], version):
        text = f"{quoted(found[0])} {quoted(found[1])}"
        _malformed(path, f"it holds {text} instead of {name} {version}")
    return sum(member.file_size for member in members)


def record(path: Path) -> str:
    """The RECORD of a wheel that was examined; empty where it has none that can be read."""
    with suppress(*_UNREADABLE), zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if re.fullmatch(r"[^/]+\.dist-info/RECORD", member.filename):
                with archive.open(member) as file:
                    return file.read(MAX_RECORD).decode("utf-8", "replace")
    return ""


def _check(listed: WheelList) -> None:
    for text, pattern, what in (
        (listed.python, _PYTHON, "python"),
        (listed.implementation, _WORD, "implementation"),
        (listed.platform, _WORD, "platform"),
        (listed.libc, _LIBC, "libc"),
    ):
        if not pattern.fullmatch(text):
            _invalid(f"{what}: {quoted(text)}")
    if not 0 < len(listed.wheels) <= MAX_WHEELS:
        _invalid(f"{len(listed.wheels)} wheels, and it can be 1 to {MAX_WHEELS:,}")
    names = [wheel.name for wheel in listed.wheels]
    if names != sorted(set(names)):
        _invalid("the wheels are not sorted by name, or a name stands twice")
    for wheel in listed.wheels:
        for problem in _problems(wheel):
            _invalid(f"{quoted(wheel.name)}: {problem}")


def _problems(wheel: Wheel) -> Iterator[str]:
    if not _NAME.fullmatch(wheel.name) or wheel.name != normalise(wheel.name):
        yield "no normalised name of a package"
    if not _VERSION.fullmatch(wheel.version):
        yield f"{quoted(wheel.version)} is no version"
    said = named(wheel.filename) if len(wheel.filename) <= 255 else None
    if said is None:
        yield f"{quoted(wheel.filename)} is no file name of a wheel"
    elif said[0] != wheel.name or not same(said[1], wheel.version):
        yield f"{quoted(wheel.filename)} is a wheel of {said[0]} {said[1]}, not {quoted(wheel.version)}"
    if not _SHA256.fullmatch(wheel.sha256):
        yield f"{quoted(wheel.sha256)} is no SHA-256"
    if not 0 < wheel.size <= MAX_WHEEL_BYTES:
        yield f"a size of {wheel.size} bytes"


def _unfit(members: list[zipfile.ZipInfo]) -> Iterator[str]:
    """What a wheel must not hold: installers run with the rights of the verifier."""
    if len(members) > MAX_MEMBERS:
        yield f"more than {MAX_MEMBERS:,} members"
    for member in members:
        name = member.filename
        # orig_filename, because zipfile cuts a name at a null byte, and another program may not.
        parts = member.orig_filename.rstrip("/").split("/")
        if "\\" in member.orig_filename or "\0" in member.orig_filename:
            yield f"{quoted(name)} is no plain name"
        if any(part in {"", ".", ".."} for part in parts):
            yield f"{quoted(name)} leads out of it"
        if (member.external_attr >> 28) not in {0, 4, 8}:  # neither unsaid, a folder nor a file
            yield f"{quoted(name)} is a link or a device"
        if _is_for_the_interpreter(parts):
            yield f"{quoted(name)} would replace a part of the interpreter"


def _is_for_the_interpreter(parts: list[str]) -> bool:
    """Whether a member of ``NAME.data`` lands where the environment has its interpreter or its configuration."""
    if len(parts) < 3 or not parts[0].endswith(".data"):
        return False
    inside = ["bin", *parts[2:]] if parts[1] == "scripts" else parts[2:]
    if inside[0] in {"pyvenv.cfg", "lib64"}:
        return True
    return inside[0] == "bin" and len(inside) > 1 and bool(_INTERPRETER.fullmatch(inside[1]))


def _identity(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> tuple[str, str] | None:
    found = [each for each in members if re.fullmatch(r"[^/]+\.dist-info/METADATA", each.filename)]
    if len(found) != 1 or found[0].file_size > MAX_METADATA:
        return None
    with archive.open(found[0]) as file:
        data = file.read(MAX_METADATA + 1)
    data.decode("utf-8")  # importlib.metadata will demand it
    headers = BytesHeaderParser().parsebytes(data)
    name, version = headers.get("Name"), headers.get("Version")
    return (str(name), str(version)) if name and version else None


def _invalid(problem: str) -> NoReturn:
    raise MalformedError(
        "wheels-invalid",
        f"the list of wheels is not valid: {problem}",
        remedy="Write it anew with `bundler capture-wheels`.",
    )


def _malformed(path: Path, problem: str) -> NoReturn:
    raise MalformedError("wheel-malformed", f"{quoted(path.name, 200)}: {problem}")
