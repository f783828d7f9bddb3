"""uv.lock: every package with its sources, hashes and dependencies; several versions where markers fork."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from bundler.lockfiles.graph import Edge, Graph, Node
from bundler.lockfiles.model import Entry, Lock, Origin, Strength, assess, exact, of_text, weakest
from bundler.lockfiles.reading import Reader, parse_toml, unreadable

_NAME: Final = "uv.lock"
_FOLDERS = ("editable", "virtual", "directory")


def parse_uv(data: bytes) -> Lock:
    """Read uv.lock, version 1. Raises :class:`bundler.errors.MalformedError` (``lock-unreadable``)."""
    document = parse_toml(data, _NAME)
    if document.get("version") != 1:
        unreadable(
            _NAME, "it is not version 1 of the format", remedy="Use a lock that uv 0.5+ made."
        )
    reader = Reader(_NAME)
    manifest = reader.table(document.get("manifest"), "manifest")
    members = {
        reader.package_name(each, "manifest.members")
        for each in reader.items(manifest.get("members"), "manifest.members")
    }
    packages = reader.packages(document.get("package"), "package")
    nodes = [_node(reader, each, f"package[{number}]") for number, each in enumerate(packages)]
    own = {
        number
        for number, each in enumerate(packages)
        if _is_own(reader.table(each.get("source"), f"package[{number}].source"))
        or nodes[number].name in members
    }
    graph = Graph(nodes, reader)
    required = _edges(reader, manifest.get("requirements"), "manifest.requirements")
    roots = [edge for number in own for edge in nodes[number].edges] + required
    always = graph.always(roots or ([] if own else graph.unneeded()))
    entries = [
        _entry(reader, package, nodes[number], conditional=number not in always)
        for number, package in enumerate(packages)
        if number not in own
    ]
    return assess(_NAME, entries, missing=graph.missing())


def _is_own(source: dict[str, Any]) -> bool:
    """Whether the package is the project itself, which is no dependency."""
    return any(source.get(kind) == "." for kind in _FOLDERS)


def _node(reader: Reader, package: dict[str, Any], place: str) -> Node:
    optional = {}
    # An extra and a group can have the same name; groups are never reached from another package.
    for table, prefix in (("optional-dependencies", ""), ("dev-dependencies", "group ")):
        for extra, edges in reader.table(package.get(table), f"{place}.{table}").items():
            optional[prefix + extra] = tuple(_edges(reader, edges, f"{place}.{table}.{extra}"))
    return Node(
        name=reader.package_name(package.get("name"), f"{place}.name"),
        version=exact(package.get("version")),
        edges=tuple(_edges(reader, package.get("dependencies"), f"{place}.dependencies")),
        optional=optional,
    )


def _edges(reader: Reader, value: object, place: str) -> list[Edge]:
    return [
        Edge(
            name=reader.package_name(each.get("name"), f"{place}.name"),
            version=exact(each.get("version")),
            extras=tuple(str(extra) for extra in reader.items(each.get("extra"), f"{place}.extra")),
            conditional="marker" in each,
        )
        for each in reader.tables(value, place)
    ]


def _entry(reader: Reader, package: dict[str, Any], node: Node, *, conditional: bool) -> Entry:
    source = reader.table(package.get("source"), f"{node.name}: source")
    origin: Origin = "index"
    if "git" in source:
        origin = "repository"
    elif "path" in source or any(kind in source for kind in _FOLDERS):
        origin = "path"
    return Entry(
        name=node.name,
        version=node.version,
        strength=_strength(reader, package, node.name),
        origin=origin,
        conditional=conditional,
    )


def _strength(reader: Reader, package: dict[str, Any], name: str) -> Strength:
    files: Sequence[dict[str, Any]] = reader.tables(package.get("wheels"), f"{name}: wheels")
    if "sdist" in package:
        files = [*files, reader.table(package["sdist"], f"{name}: sdist")]
    return weakest(of_text(each.get("hash")) for each in files)
