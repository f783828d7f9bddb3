"""poetry.lock, versions 1 and 2 of the format: packages with files, dependencies, markers and groups."""

from __future__ import annotations

from typing import Any, Final

from bundler.lockfiles.model import (
    Entry,
    Lock,
    Origin,
    assess,
    counted,
    exact,
    normalise,
    of_text,
    weakest,
)
from bundler.lockfiles.reading import Reader, parse_toml, unreadable

_NAME: Final = "poetry.lock"
_ORIGINS: dict[str, Origin] = {"git": "repository", "directory": "path", "file": "path"}


def parse_poetry(data: bytes) -> Lock:
    """Read poetry.lock. Raises :class:`bundler.errors.MalformedError` (``lock-unreadable``)."""
    document = parse_toml(data, _NAME)
    reader = Reader(_NAME)
    metadata = reader.table(document.get("metadata"), "metadata")
    if "content-hash" not in metadata:
        unreadable(_NAME, "it has no metadata.content-hash, which Poetry always writes")
    packages = reader.packages(document.get("package"), "package")
    # Up to version 1 of the format, all files stand together at the end.
    files = reader.table(metadata.get("files"), "metadata.files")
    entries = [
        _entry(reader, each, files, f"package[{number}]") for number, each in enumerate(packages)
    ]
    known = {each.name for each in entries}
    missing: list[str] = []
    doubtful: list[str] = []
    for package, entry in zip(packages, entries, strict=True):
        place = f"{entry.name}: dependencies"
        for name, wanted in reader.table(package.get("dependencies"), place).items():
            reader.step()
            if normalise(name) in known or _is_optional(wanted):
                continue
            needed = f"{normalise(name)} (needed by {entry.name})"
            (doubtful if _is_conditional(wanted) else missing).append(needed)
    doubts = [counted(doubtful, "needed under a condition and not in the lock")]
    return assess(_NAME, entries, missing=missing, doubts=doubts if doubtful else ())


def _entry(reader: Reader, package: dict[str, Any], files: dict[str, Any], place: str) -> Entry:
    name = reader.package_name(package.get("name"), f"{place}.name")
    source = reader.table(package.get("source"), f"{place}.source")
    listed = package.get("files", files.get(str(package.get("name"))))
    groups = reader.items(package.get("groups"), f"{place}.groups")
    return Entry(
        name=name,
        version=exact(package.get("version")),
        strength=weakest(
            of_text(each.get("hash")) for each in reader.tables(listed, f"{place}.files")
        ),
        origin=_ORIGINS.get(str(source.get("type")), "index"),
        conditional=package.get("optional") is True
        or "markers" in package
        or package.get("category", "main") != "main"
        or bool(groups and "main" not in groups),
    )


def _is_optional(wanted: object) -> bool:
    """Whether only an extra that nobody may have asked for needs it."""
    tables = wanted if isinstance(wanted, list) else [wanted]
    return all(isinstance(each, dict) and each.get("optional") is True for each in tables)


def _is_conditional(wanted: object) -> bool:
    tables = wanted if isinstance(wanted, list) else [wanted]
    return all(
        isinstance(each, dict) and ("markers" in each or "python" in each) for each in tables
    )
