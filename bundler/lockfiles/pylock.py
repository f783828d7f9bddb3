"""pylock.toml (PEP 751), which pip, uv and others write."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from bundler.lockfiles.graph import Edge, Graph, Node
from bundler.lockfiles.model import (
    Entry,
    Lock,
    Origin,
    Strength,
    assess,
    exact,
    strength,
    strongest,
    weakest,
)
from bundler.lockfiles.reading import Reader, parse_toml, unreadable

_NAME: Final = "pylock.toml"
NO_GRAPH = (
    "The file does not record what its packages depend upon (PEP 751 leaves that open): that none is missing cannot be"
    " read from it. An installer installs what is listed and nothing else."
)


def parse_pylock(data: bytes) -> Lock:
    """Read pylock.toml, version 1. Raises :class:`bundler.errors.MalformedError` (``lock-unreadable``)."""
    document = parse_toml(data, _NAME)
    if not str(document.get("lock-version")).startswith("1."):
        unreadable(_NAME, "it is not version 1 of the format (lock-version)")
    reader = Reader(_NAME)
    packages = [
        each
        for each in reader.packages(document.get("packages"), "packages")
        if reader.table(each.get("directory"), "packages.directory").get("path") != "."
    ]
    default = {str(each) for each in reader.items(document.get("default-groups"), "default-groups")}
    entries, nodes = [], []
    for number, package in enumerate(packages):
        entry = _entry(reader, package, f"packages[{number}]", default)
        entries.append(entry)
        edges = _edges(reader, package, f"{entry.name}: dependencies")
        nodes.append(Node(name=entry.name, version=entry.version, edges=tuple(edges)))
    # A tool that records dependencies does so for all: a package without any has none.
    doubts = [] if any(node.edges for node in nodes) or not nodes else [NO_GRAPH]
    return assess(_NAME, entries, missing=Graph(nodes, reader).missing(), doubts=doubts)


def _edges(reader: Reader, package: dict[str, Any], place: str) -> Iterator[Edge]:
    for each in reader.tables(package.get("dependencies"), place):
        name = reader.package_name(each.get("name"), place)
        yield Edge(name=name, version=exact(each.get("version")))
    # PDM writes what the package itself asks for, with conditions that may never hold: those are left out.
    tool = reader.table(package.get("tool"), f"{place}: tool")
    pdm = reader.table(tool.get("pdm"), f"{place}: tool.pdm")
    for each in reader.items(pdm.get("dependencies"), place):
        wanted = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", str(each))
        if wanted is not None and ";" not in str(each):
            yield Edge(name=reader.package_name(wanted[0], place))


def _is_condition(marker: str, default: set[str]) -> bool:
    """Whether ``marker`` asks for more than a group that is installed where nobody asks for another one."""
    parts = (
        re.fullmatch(r"""["']([^"']+)["'] in dependency_groups""", each)
        for each in marker.split(" or ")
    )
    return not any(part is not None and part[1] in default for part in parts)


def _entry(reader: Reader, package: dict[str, Any], place: str, default: set[str]) -> Entry:
    origin: Origin = "index"
    archive = reader.table(package.get("archive"), f"{place}.archive")
    if "vcs" in package:
        origin = "repository"
    elif "directory" in package or ("path" in archive and "url" not in archive):
        origin = "path"
    return Entry(
        name=reader.package_name(package.get("name"), f"{place}.name"),
        version=exact(package.get("version")),
        strength=_strength(reader, package, place),
        origin=origin,
        conditional="marker" in package and _is_condition(str(package["marker"]), default),
    )


def _strength(reader: Reader, package: dict[str, Any], place: str) -> Strength:
    files = reader.tables(package.get("wheels"), f"{place}.wheels")
    files += [
        reader.table(package[kind], f"{place}.{kind}")
        for kind in ("sdist", "archive")
        if kind in package
    ]
    return weakest(
        strongest(
            strength(str(algorithm), digest)
            for algorithm, digest in reader.table(each.get("hashes"), f"{place}.hashes").items()
        )
        for each in files
    )
