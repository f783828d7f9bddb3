"""``wheels.json``: exactly which wheels make up the environment of a training, each by its SHA-256.

The wheels themselves are not in a bundle (those of torch alone have 192 MB): they lie in a wheelhouse, a folder that
many bundles share. The list is part of the signed bundle, so it says which bytes are meant wherever they come from.
"""

from __future__ import annotations

import copy
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
from bundler.environments import entry_points
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

MAX_UNPACKED_BYTES = 32 << 30
"""Largest content of a wheel, in bytes, unpacked."""

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
_INFO = (".dist-info", ".egg-info")
_CHUNK = 1 << 20
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
    """Look into a wheel before pip or uv unpack it; return its unpacked size in bytes.

    Every member is unpacked once, to nowhere: so the size is the true one. Raises :class:`MalformedError`
    (``wheel-malformed``) unless it is a wheel of ``name`` and ``version`` and of no other package, whose members and
    programs stay below the environment, are no links and leave the interpreter alone.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            for problem in _problems_inside(archive, members):
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


def _problems_inside(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> Iterator[str]:
    """What a wheel must not hold: installers run with the rights of the verifier. The cheap questions come first."""
    if len(members) > MAX_MEMBERS:
        yield f"more than {MAX_MEMBERS:,} members"
    if sum(member.file_size for member in members) > MAX_UNPACKED_BYTES:
        yield f"more than {MAX_UNPACKED_BYTES >> 30} GiB unpacked"
    if len({member.orig_filename for member in members}) < len(members):
        yield "two members have one name"
    for member in members:
        yield from _unfit(member)
    yield from _other_packages(members)
    yield from _unfit_programs(archive, members)
    yield from _lying(archive, members)


def _unfit(member: zipfile.ZipInfo) -> Iterator[str]:
    name = quoted(member.filename)
    # orig_filename, because zipfile cuts a name at a null byte, and another program may not.
    parts = _parts(member)
    if "\\" in member.orig_filename or "\0" in member.orig_filename:
        yield f"{name} is no plain name"
    if any(part in {"", ".", ".."} for part in parts):
        yield f"{name} leads out of it"
    if (member.external_attr >> 28) not in {0, 4, 8}:  # neither unsaid, a folder nor a file
        yield f"{name} is a link or a device"
    # Others can take gigabytes of memory to unpack, and uv and pip do not know the same ones.
    if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        yield f"{name} is compressed in an unusual way"
    if _is_for_the_interpreter(parts):
        yield f"{name} would replace a part of the interpreter"
    if _is_script(parts) and not all(map(entry_points.is_program, parts[2:])):
        yield f"{name} is no program with a plain name of its own"


def _parts(member: zipfile.ZipInfo) -> list[str]:
    return member.orig_filename.removesuffix("/").split("/")


def _is_data(parts: list[str]) -> bool:
    """Whether a member is one of ``NAME.data``, which an installer spreads over the environment."""
    return len(parts) > 2 and parts[0].casefold().endswith(".data")


def _is_script(parts: list[str]) -> bool:
    return _is_data(parts) and parts[1].casefold() == "scripts"


def _is_for_the_interpreter(parts: list[str]) -> bool:
    """Whether a member of ``NAME.data`` lands where the environment has its interpreter or its configuration."""
    if not _is_data(parts):
        return False
    inside = ["bin", *parts[2:]] if _is_script(parts) else parts[2:]
    first = inside[0].casefold()
    if first in {"pyvenv.cfg", "lib64"}:
        return True
    return first == "bin" and len(inside) > 1 and entry_points.is_interpreter(inside[1])


def _other_packages(members: list[zipfile.ZipInfo]) -> Iterator[str]:
    """Descriptions of packages besides the wheel's own: they would say that something is installed which is not.

    Deeper below a package they say nothing: setuptools carries some with what it vendors.
    """
    own: set[str] = set()
    for member in members:
        parts = _parts(member)
        if parts[0].casefold().endswith(_INFO):
            own.add(parts[0])
        elif _is_data(parts) and any(part.casefold().endswith(_INFO) for part in parts[1:]):
            yield f"{quoted(member.filename)} describes another package"
    if len(own) != 1:
        yield f"it describes {len(own)} packages, not exactly one"


def _unfit_programs(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> Iterator[str]:
    for member in members:
        if not re.fullmatch(
            r"[^/]+\.dist-info/entry_points\.txt", member.orig_filename, re.IGNORECASE
        ):
            continue
        if member.file_size > MAX_METADATA:
            yield f"its entry_points.txt is larger than {MAX_METADATA >> 20} MiB"
        with archive.open(member) as file:
            data = file.read(MAX_METADATA + 1)
        try:
            entry_points.check(data)
        except UnicodeDecodeError:
            yield "its entry_points.txt is not UTF-8"
        except ValueError as error:
            yield f"its entry_points.txt: {error}"


def _lying(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> Iterator[str]:
    """Members of another size than they give: uv writes them whole, and learns it when the disk is full."""
    for member in members:
        longer = copy.copy(member)
        longer.file_size += 1  # zipfile stops where the size that it is told ends
        size = 0
        with archive.open(longer) as file:
            while data := file.read(_CHUNK):
                size += len(data)
        if size != member.file_size:
            yield f"{quoted(member.filename)} has another size than it gives"


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
