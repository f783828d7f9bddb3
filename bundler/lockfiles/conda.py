"""The lists of conda: explicit URLs, conda-lock.yml, and environment.yml, which pins too little."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

from bundler.lockfiles.model import (
    Entry,
    Lock,
    Origin,
    Strength,
    assess,
    counted,
    exact,
    normalise,
    strength,
    strongest,
)
from bundler.lockfiles.reading import MAX_PACKAGES, Reader, decoded, parse_yaml, unreadable
from bundler.lockfiles.requirements import pinned

_PIP_URL = re.compile(r"# pip (\S+) @ (\S+)#(\w+)=([0-9a-fA-F]+)")
_EXACT = re.compile(r"(?:[\w.-]+::)?([A-Za-z0-9_][\w.-]*) ?(==?) ?([\w.!+-]+)(?:=([\w.*]+))?")

EXPLICIT = (
    "An explicit list names the files to install and not what they depend upon: that none is missing cannot be read"
    " from it. conda installs what is listed and nothing else."
)
ENVIRONMENT = (
    "environment.yml is what a solver starts from: it chooses the packages that are not named, and packages of conda"
    " have no hash in it."
)
PIP_NEEDS = "needed by packages of pip and not found under that name (conda may use another)"


def parse_explicit(data: bytes) -> Lock:
    """Read a list that begins with ``@EXPLICIT``. Raises :class:`MalformedError` (``lock-unreadable``)."""
    name = "conda explicit list"
    entries = []
    for number, line in enumerate(decoded(data, name).splitlines(), start=1):
        text = line.strip()
        # conda-lock writes the packages of pip as comments, and installs them.
        pip = _PIP_URL.fullmatch(text)
        if pip is not None:
            entries.append(_from_pip(pip))
        elif text and not text.startswith(("#", "@")):
            entries.append(_from_url(name, text, number))
        if len(entries) > MAX_PACKAGES:
            unreadable(name, f"more than {MAX_PACKAGES:,} packages")
    return assess("conda-explicit.txt", entries, doubts=[EXPLICIT] if entries else ())


def _from_pip(match: re.Match[str]) -> Entry:
    file = _last_part(match[2])
    parts = file.removesuffix(".tar.gz").split("-")
    return Entry(
        name=normalise(match[1]),
        version=exact(parts[1]) if len(parts) > 1 else None,
        strength=strength(match[3].lower(), match[4]),
    )


def _from_url(name: str, text: str, number: int) -> Entry:
    url, _, digest = text.partition("#")
    found = of_file(url)
    if found is None:
        unreadable(name, f"line {number}: no address of a conda package")
    return Entry(
        name=normalise(found[0]),
        version=found[1],
        strength=_of_fragment(digest.strip()),
        origin=origin_of(url),
        conda=True,
    )


def _of_fragment(digest: str) -> Strength:
    """The strength of what follows the URL: an MD5, or a SHA-256 with or without its name."""
    algorithm, _, digits = digest.rpartition(":")
    return strength(algorithm or {32: "md5", 64: "sha256"}.get(len(digits), "other"), digits)


def _last_part(url: str) -> str:
    """The name of the file at an address. Not by urlsplit, which refuses some."""
    return unquote(re.split(r"[?#]", url, maxsplit=1)[0].rpartition("/")[2])


def of_file(url: str) -> tuple[str, str] | None:
    """Name and version in the address of a conda package, ``…/NAME-VERSION-BUILD.conda``."""
    file = _last_part(url)
    for suffix in (".conda", ".tar.bz2"):
        parts = file.removesuffix(suffix).rsplit("-", 2)
        if file.endswith(suffix) and len(parts) == 3 and parts[0] and exact(parts[1]):
            return parts[0], parts[1]
    return None


def origin_of(location: str) -> Origin:
    """Where a package lies: at an address, in a repository or on the machine."""
    if location.startswith(("git+", "git:", "hg+", "svn+", "bzr+")):
        return "repository"
    return "index" if location.startswith(("https://", "http://", "s3://", "oci://")) else "path"


def parse_conda_lock(data: bytes) -> Lock:
    """Read conda-lock.yml, version 1. Raises :class:`MalformedError` (``lock-unreadable``)."""
    name: Final = "conda-lock.yml"
    reader = Reader(name)
    document = reader.table(parse_yaml(data, name), "the file")
    if document.get("version") != "1":
        unreadable(name, "it is not version 1 of the format")
    metadata = reader.table(document.get("metadata"), "metadata")
    platforms = {str(each) for each in reader.items(metadata.get("platforms"), "platforms")}
    packages = reader.packages(document.get("package"), "package")
    places: dict[str, set[str]] = {}
    names: dict[str, set[str]] = {}
    for number, package in enumerate(packages):
        key = reader.package_name(package.get("name"), f"package[{number}].name")
        platform = str(package.get("platform"))
        names.setdefault(platform, set()).add(key)
        if not _is_optional(package):
            places.setdefault(key, set()).add(platform)
    always = {key for key, found in places.items() if found >= (platforms or set(names))}
    entries = [_locked(reader, each, always) for each in packages]
    missing, doubtful = _unmet(reader, packages, names)
    doubts = [counted(doubtful, PIP_NEEDS)]
    return assess(name, entries, missing=missing, doubts=doubts if doubtful else ())


def _is_optional(package: dict[str, Any]) -> bool:
    return package.get("optional") == "true" or package.get("category", "main") != "main"


def _locked(reader: Reader, package: dict[str, Any], always: set[str]) -> Entry:
    key = normalise(package["name"])
    hashes = reader.table(package.get("hash"), f"{key}: hash")
    return Entry(
        name=key,
        version=exact(package.get("version")),
        strength=strongest(strength(algorithm, digest) for algorithm, digest in hashes.items()),
        origin=origin_of(str(package.get("url"))),
        conditional=key not in always,
        conda=package.get("manager") == "conda",
    )


def _unmet(
    reader: Reader, packages: list[dict[str, Any]], names: dict[str, set[str]]
) -> tuple[list[str], list[str]]:
    """Dependencies that are not there on the same platform: of packages of conda, and of pip."""
    missing: dict[tuple[str, str], str] = {}
    doubtful: dict[tuple[str, str], str] = {}
    for package in packages:
        platform = str(package.get("platform"))
        for wanted in reader.table(package.get("dependencies"), "dependencies"):
            reader.step()
            if wanted.startswith("__") or normalise(wanted) in names[platform]:
                continue
            found = missing if package.get("manager") == "conda" else doubtful
            found.setdefault(
                (wanted, platform), f"{wanted} (needed by {package['name']} on {platform})"
            )
    return [*missing.values()], [*doubtful.values()]


def parse_environment(data: bytes) -> Lock:
    """Read environment.yml. Raises :class:`MalformedError` (``lock-unreadable``)."""
    name: Final = "environment.yml"
    reader = Reader(name)
    document = reader.table(parse_yaml(data, name), "the file")
    entries, unpinned = [], []
    for place, text in _wanted(reader, document):
        entry = pinned(" ".join(text.split())) if place == "pip" else _conda_spec(text)
        if entry is None:
            unpinned.append(text[:80])
        else:
            entries.append(entry)
    doubts = [ENVIRONMENT] if entries or unpinned else ()
    return assess(name, entries, unpinned=unpinned, doubts=doubts)


def _wanted(reader: Reader, document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    found = reader.items(document.get("dependencies"), "dependencies")
    if len(found) > MAX_PACKAGES:
        unreadable(reader.name, f"more than {MAX_PACKAGES:,} packages")
    for each in found:
        if isinstance(each, str):
            # pip itself stands there so that its list can follow.
            yield "conda", each
        else:
            for key, items in reader.table(each, "dependencies").items():
                for item in reader.items(items, f"dependencies.{key}"):
                    yield str(key), str(item)


def _conda_spec(text: str) -> Entry | None:
    """``name=version=build`` and ``name==version`` are exact; ``name=1.2`` means any 1.2.x."""
    spec = _EXACT.fullmatch(" ".join(text[:300].split()))
    if spec is None or (spec[2] == "=" and (spec[4] is None or "*" in spec[4])):
        return None
    return Entry(name=normalise(spec[1]), version=exact(spec[3]), strength="none", conda=True)
