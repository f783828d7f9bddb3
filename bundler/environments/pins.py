"""Which wheels to get: what is installed in an environment, or what its lock names."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bundler.environments import interpreters
from bundler.errors import MalformedError, UsageError
from bundler.lockfiles import agrees, normalise
from bundler.lockfiles import parse as parse_lock

_REQUIREMENT = re.compile(
    r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?[^;]*;?(.*)", re.DOTALL
)
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
_PATHS = "import json, sys; print(json.dumps([each for each in sys.path if each]))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One wheel to get.

    ``installed`` maps paths to the digests of RECORD, ``origin`` is where a package that came from no index came from
    (PEP 610), ``requires`` what it says that it needs, ``sha256`` the wheel's digest where it is known before.
    """

    name: str
    version: str
    installed: Mapping[str, str]
    origin: str | None = None
    requires: tuple[str, ...] = ()
    sha256: str | None = None


def installed_in(python: Path) -> Iterator[Pin]:
    """The packages that ``python`` sees, by their files: what comes first on its path is what it imports."""
    seen = set()
    for each in importlib.metadata.distributions(path=interpreters.answer(python, _PATHS)):
        name = normalise(each.name) if each.name else ""
        if name and each.version and name not in seen:
            seen.add(name)
            yield Pin(
                name=name,
                version=each.version,
                installed=record_of(each.read_text("RECORD") or ""),
                origin=_origin(each.read_text("direct_url.json")),
                requires=tuple(each.requires or ()),
            )


def record_of(text: str) -> dict[str, str]:
    """Path → digest of a RECORD, without the files that an installer changes."""
    found = {}
    for line in text.splitlines():
        path, _, rest = line.rpartition(",")[0].rpartition(",")
        if rest.startswith("sha256=") and not re.match(r"[^/]+\.(dist-info|data)/|\.\.", path):
            found[path] = rest
    return found


def _origin(text: str | None) -> str | None:
    if text is None:
        return None
    with suppress(ValueError, TypeError, KeyError):
        return str(json.loads(text)["url"])
    return "unknown"


def of_lock(path: Path, installed: Mapping[str, Pin]) -> list[Pin]:
    """The packages that the lock file ``path`` names, as they are ``installed``, and those that they need.

    A requirements file can leave out what its packages need, and a wheel cannot be used without it. Raises
    :class:`UsageError` if the lock cannot be read, or the environment is not what it says.
    """
    try:
        data = path.read_bytes()
        lock = parse_lock(path.name, data)
    except (OSError, MalformedError) as error:
        reason = error.message if isinstance(error, MalformedError) else error.strerror
        raise UsageError(f"--lock {path}: {reason}", remedy="Give the training's lock.") from None
    # What is not pinned and begins with a hyphen is an option, or the project itself.
    unclear = [f"{line} (no exact version)" for line in lock.unpinned if not line.startswith("-")]
    roots = []
    for name, versions in lock.versions.items():
        here = installed.get(name)
        if here is not None and any(agrees(version, here.version) for version in versions):
            roots.append(name)
        elif here is not None or not (name in lock.conditional or name in lock.conda):
            what = f"{here.version} is installed" if here else "it is not installed"
            unclear.append(f"{name} ({' or '.join(versions)} is locked, {what})")
    if unclear:
        raise UsageError(
            f"the lock and the environment do not agree: {', '.join(unclear[:8])}",
            remedy="Install the lock's versions, or give --python the environment that the training ran in.",
        )
    extras = {}
    if lock.format == "requirements.txt":
        lines = map(_REQUIREMENT.match, data.decode("utf-8", "replace").splitlines())
        extras = {normalise(line[1]): _words(line[2]) for line in lines if line}
    return with_needs([(name, extras.get(name, ())) for name in roots], installed)


def with_needs(
    roots: Iterable[tuple[str, tuple[str, ...]]], installed: Mapping[str, Pin]
) -> list[Pin]:
    """``roots`` (names, each with its extras) and all that they need and that is installed, sorted by name.

    Of markers only those of extras are looked at: what is needed on another platform is not installed here.
    """
    waiting = list(roots)
    seen: set[tuple[str, tuple[str, ...]]] = set()
    while waiting:
        name, extras = each = waiting.pop()
        if each in seen or name not in installed:
            continue
        seen.add(each)
        for text in installed[name].requires:
            found = _REQUIREMENT.match(text)
            if found is None:
                continue
            asked = {normalise(extra) for extra in _EXTRA.findall(found[3])}
            if not asked or asked & set(extras):
                waiting.append((normalise(found[1]), _words(found[2])))
    return [installed[name] for name in sorted({name for name, _ in seen})]


def _words(extras: str | None) -> tuple[str, ...]:
    return tuple(normalise(each.strip()) for each in (extras or "").split(",") if each.strip())
