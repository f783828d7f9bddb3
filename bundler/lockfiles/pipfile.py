"""Pipfile.lock of Pipenv: packages with hashes, without what they depend upon."""

from __future__ import annotations

from typing import Any, Final

from bundler import canonical
from bundler.errors import MalformedError
from bundler.lockfiles.model import Entry, Lock, Origin, assess, exact, of_text, weakest
from bundler.lockfiles.reading import MAX_PACKAGES, Reader, decoded, unreadable

_NAME: Final = "Pipfile.lock"
NO_GRAPH = "Pipfile.lock does not record what its packages depend upon: that none is missing cannot be read from it."


def parse_pipfile(data: bytes) -> Lock:
    """Read Pipfile.lock. Raises :class:`bundler.errors.MalformedError` (``lock-unreadable``)."""
    decoded(data, _NAME)
    reader = Reader(_NAME)
    try:
        document = reader.table(canonical.parse(data, name=_NAME), "the file")
    except MalformedError as error:
        unreadable(_NAME, error.message.removeprefix(f"{_NAME}: "))
    if "_meta" not in document:
        unreadable(_NAME, "it has no _meta, which Pipenv always writes")
    entries = [
        _entry(reader, name, reader.table(package, name), main=category == "default")
        for category, packages in document.items()
        if category != "_meta"
        for name, package in reader.table(packages, category).items()
    ]
    if len(entries) > MAX_PACKAGES:
        unreadable(_NAME, f"more than {MAX_PACKAGES:,} packages")
    return assess(_NAME, entries, doubts=[NO_GRAPH] if entries else ())


def _entry(reader: Reader, name: str, package: dict[str, Any], *, main: bool) -> Entry:
    origin: Origin = "index"
    if any(kind in package for kind in ("git", "hg", "svn", "bzr")):
        origin = "repository"
    elif "path" in package or "editable" in package:
        origin = "path"
    version = str(package.get("version", ""))
    return Entry(
        name=reader.package_name(name, "a package"),
        # `"*"` is what Pipenv writes for one whose marker does not hold on the machine that locks.
        version=exact(version.removeprefix("==")) if version.startswith("==") else None,
        strength=weakest(
            of_text(each) for each in reader.items(package.get("hashes"), f"{name}: hashes")
        ),
        origin=origin,
        # Pipenv writes each package's requires-python as a marker, so a marker alone means nothing.
        conditional=not main or _decides(package),
    )


def _decides(package: dict[str, Any]) -> bool:
    """Whether a marker asks for more than a minimum version of Python."""
    if any(
        key.startswith(("sys_", "platform_", "os_", "python_", "implementation_"))
        for key in package
    ):
        return True
    marker = str(package.get("markers", ""))
    parts = marker.split()
    return bool(marker) and not (
        len(parts) == 3
        and parts[0] in {"python_version", "python_full_version"}
        and ">" in parts[1]
    )
