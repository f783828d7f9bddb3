"""Who needs whom in a lock: what is always installed, and what is needed and not there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bundler.lockfiles.reading import Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A dependency upon ``name`` (``version``, if the lock says which), with ``extras`` of it.

    ``conditional``: a marker decides whether it holds.
    """

    name: str
    version: str | None = None
    extras: tuple[str, ...] = ()
    conditional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A package with its dependencies; ``optional`` are those of each of its extras and groups."""

    name: str
    version: str | None
    edges: tuple[Edge, ...] = ()
    optional: dict[str, tuple[Edge, ...]] = field(default_factory=dict)


class Graph:
    """The packages of a lock by name."""

    def __init__(self, nodes: Sequence[Node], reader: Reader) -> None:
        self._nodes = nodes
        self._reader = reader
        self._named: dict[str, list[int]] = {}
        for number, node in enumerate(nodes):
            self._named.setdefault(node.name, []).append(number)

    def missing(self) -> list[str]:
        """Dependencies that are named and not in the lock, each with a package that needs it."""
        found: dict[str, str] = {}
        for node in self._nodes:
            for edges in (node.edges, *node.optional.values()):
                for edge in edges:
                    if not self._targets(edge):
                        version = f" {edge.version}" if edge.version else ""
                        found.setdefault(edge.name + version, node.name)
        return [f"{name} (needed by {by})" for name, by in found.items()]

    def always(self, roots: Iterable[Edge]) -> set[int]:
        """Numbers of the nodes that ``roots`` bring to every machine: over edges without a condition."""
        seen: set[tuple[int, str]] = set()
        waiting = [edge for edge in roots if not edge.conditional]
        while waiting:
            edge = waiting.pop()
            for number in self._targets(edge):
                for extra in ("", *edge.extras):
                    if (number, extra) in seen:
                        continue
                    seen.add((number, extra))
                    node = self._nodes[number]
                    following = node.optional.get(extra, ()) if extra else node.edges
                    waiting += [each for each in following if not each.conditional]
        return {number for number, _ in seen}

    def unneeded(self) -> list[Edge]:
        """Edges to the packages that no other one needs."""
        needed = {
            edge.name
            for node in self._nodes
            for edges in (node.edges, *node.optional.values())
            for edge in edges
        }
        return [Edge(name=node.name) for node in self._nodes if node.name not in needed]

    def _targets(self, edge: Edge) -> list[int]:
        named = self._named.get(edge.name, [])
        self._reader.step(1 + len(named))
        if edge.version is None:
            return named
        return [number for number in named if self._nodes[number].version == edge.version]
