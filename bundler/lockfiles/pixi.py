"""pixi.lock, versions 4 to 7 of the format: the packages of each environment on each platform."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bundler.lockfiles.conda import PIP_NEEDS, of_file, origin_of
from bundler.lockfiles.model import (
    Entry,
    Lock,
    assess,
    counted,
    exact,
    normalise,
    strength,
    strongest,
)
from bundler.lockfiles.reading import Reader, parse_yaml, unreadable

_NAME: Final = "pixi.lock"
_KINDS = ("conda", "pypi", "conda_source")
_VERSIONS = ("4", "5", "6", "7")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Package:
    entry: Entry
    needs: tuple[str, ...]


def parse_pixi(data: bytes) -> Lock:
    """Read pixi.lock. Raises :class:`bundler.errors.MalformedError` (``lock-unreadable``)."""
    reader = Reader(_NAME)
    document = reader.table(parse_yaml(data, _NAME), "the file")
    if document.get("version") not in _VERSIONS:
        unreadable(
            _NAME,
            f"it is not version {', '.join(_VERSIONS)} of the format",
            remedy="Write it anew with `pixi lock`.",
        )
    packages = _packages(reader, document)
    places = list(_places(reader, document))
    counts: dict[str, int] = {}
    listed: set[tuple[str, str]] = set()
    missing: dict[tuple[str, str], str] = {}
    doubtful: dict[tuple[str, str], str] = {}
    for place, locations in places:
        here = []
        for location in locations:
            if location not in packages:
                unreadable(_NAME, f"{place}: a package that is not described")
            here.append(packages[location])
            listed.add(location)
        names = {each.entry.name for each in here}
        for name in names:
            counts[name] = counts.get(name, 0) + 1
        for each in here:
            reader.step(1 + len(each.needs))
            found = missing if each.entry.conda else doubtful
            for wanted in each.needs:
                if wanted not in names:
                    found.setdefault(
                        (wanted, place), f"{wanted} (needed by {each.entry.name} in {place})"
                    )
    entries = [
        _conditional(packages[location].entry, everywhere=counts, places=len(places))
        for location in sorted(listed)
    ]
    doubts = [counted([*doubtful.values()], PIP_NEEDS)]
    return assess(_NAME, entries, missing=[*missing.values()], doubts=doubts if doubtful else ())


def _conditional(entry: Entry, *, everywhere: dict[str, int], places: int) -> Entry:
    return Entry(
        name=entry.name,
        version=entry.version,
        strength=entry.strength,
        origin=entry.origin,
        conditional=everywhere[entry.name] < places,
        conda=entry.conda,
    )


def _places(
    reader: Reader, document: dict[str, Any]
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each environment on each platform, with the packages that it has."""
    for name, environment in reader.table(document.get("environments"), "environments").items():
        place = f"environment {name}"
        table = reader.table(environment, place)
        for platform, items in reader.table(table.get("packages"), place).items():
            references = reader.tables(items, f"{place} on {platform}")
            # The project itself is no dependency.
            found = [_location(each) for each in references]
            yield (
                f"{place} on {platform}",
                [each for each in found if each[1] not in {".", "./"}],
            )


def _location(item: dict[str, Any]) -> tuple[str, str]:
    """What identifies a package: its kind, and its address or path."""
    for kind in _KINDS:
        if kind in item:
            return kind, str(item[kind])
    # Versions 4 and 5 have the kind in a field of its own.
    return str(item.get("kind")), str(item.get("url", item.get("path")))


def _packages(reader: Reader, document: dict[str, Any]) -> dict[tuple[str, str], _Package]:
    found: dict[tuple[str, str], _Package] = {}
    for number, item in enumerate(reader.packages(document.get("packages"), "packages")):
        location = _location(item)
        if location[0] not in _KINDS:
            unreadable(_NAME, f"packages[{number}]: neither of conda nor of PyPI")
        package = _package(reader, item, location, f"packages[{number}]")
        if found.setdefault(location, package) != package:
            unreadable(_NAME, f"packages[{number}]: the same address is described in two ways")
    return found


def _package(
    reader: Reader, item: dict[str, Any], location: tuple[str, str], place: str
) -> _Package:
    kind, address = location
    conda = kind != "pypi"
    of_address: tuple[str | None, str | None] = (None, None)
    if kind == "conda_source":  # NAME[HASH] @ PATH
        of_address = (address.partition("[")[0].partition(" ")[0], None)
    elif conda:
        of_address = of_file(address) or of_address
    entry = Entry(
        name=reader.package_name(item.get("name", of_address[0]), f"{place}.name"),
        version=exact(item.get("version", of_address[1])),
        strength=strongest(
            strength(algorithm, item[algorithm])
            for algorithm in ("sha256", "md5")
            if algorithm in item
        ),
        origin=origin_of(address),
        conda=conda,
    )
    wanted = reader.items(item.get("depends" if conda else "requires_dist"), place)
    return _Package(entry=entry, needs=tuple(_needs([str(each) for each in wanted], conda=conda)))


def _needs(specs: list[str], *, conda: bool) -> Iterator[str]:
    """The names that are needed whatever the machine: no virtual packages, nothing with a marker."""
    for spec in specs:
        name = re.match(r"(?:[\w.-]+::)?([A-Za-z0-9_][\w.-]*)", spec.strip())
        if name is None or name[1].startswith("__") or (not conda and ";" in spec):
            continue
        yield normalise(name[1])
