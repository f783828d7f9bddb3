"""Which format a lock file has: by its name, and where that says nothing by its content."""

from __future__ import annotations

import re
from collections.abc import Callable

from bundler.lockfiles.conda import parse_conda_lock, parse_environment, parse_explicit
from bundler.lockfiles.model import Format, Lock
from bundler.lockfiles.pipfile import parse_pipfile
from bundler.lockfiles.pixi import parse_pixi
from bundler.lockfiles.poetry import parse_poetry
from bundler.lockfiles.pylock import parse_pylock
from bundler.lockfiles.reading import MAX_BYTES, unreadable
from bundler.lockfiles.requirements import parse_requirements
from bundler.lockfiles.uv import parse_uv

_HEAD = 1 << 14
"""How many bytes of the content are looked at."""

_NAMES: tuple[tuple[str, Format], ...] = (
    (r"uv\.lock", "uv.lock"),
    (r"poetry\.lock", "poetry.lock"),
    (r"pylock(\.[^.]+)?\.toml", "pylock.toml"),
    (r"pipfile\.lock", "Pipfile.lock"),
    (r"pixi\.lock", "pixi.lock"),
    (r"(.*[.-])?conda-lock\.ya?ml", "conda-lock.yml"),
    (r"environment\.ya?ml", "environment.yml"),
)

# Each of these stands in the first lines of every such file, and in no requirements file.
_CONTENTS: tuple[tuple[str, Format], ...] = (
    (r"^@EXPLICIT\s*$", "conda-explicit.txt"),
    (r"^lock-version = (?s:.*)^\[\[packages\]\]", "pylock.toml"),
    (r"^\[\[package\]\](?s:.*)^python-versions = ", "poetry.lock"),
    (r"^version = \d+\s(?s:.*)^\[\[package\]\]", "uv.lock"),
    (r'^\{\s*"_meta"', "Pipfile.lock"),
    (r"^version: \d+\s(?s:.*)^environments:", "pixi.lock"),
    (r"^version: \d+\s(?s:.*)^metadata:", "conda-lock.yml"),
    (r"^dependencies:\s*$", "environment.yml"),
)

_PARSERS: dict[Format, Callable[[bytes], Lock]] = {
    "uv.lock": parse_uv,
    "poetry.lock": parse_poetry,
    "pylock.toml": parse_pylock,
    "Pipfile.lock": parse_pipfile,
    "conda-explicit.txt": parse_explicit,
    "conda-lock.yml": parse_conda_lock,
    "pixi.lock": parse_pixi,
    "environment.yml": parse_environment,
}


def parse(name: str, data: bytes) -> Lock:
    """Read the lock file ``name`` (its last component counts), whatever its format.

    What looks like no other format is read as a requirements file. Raises :class:`bundler.errors.MalformedError`
    (``lock-unreadable``) for a file that is not what its name or beginning says, or beyond 32 MiB.
    """
    if len(data) > MAX_BYTES:
        unreadable("lock file", f"more than {MAX_BYTES:,} bytes")
    reader = _PARSERS.get(format_of(name, data))
    if reader is None:
        return parse_requirements(data.decode("utf-8-sig", "replace"))
    return reader(data)


def format_of(name: str, data: bytes) -> Format:
    """The format of the lock file ``name`` with the content ``data``."""
    base = name.rpartition("/")[2].lower()
    for pattern, found in _NAMES:
        if re.fullmatch(pattern, base):
            return found
    head = data[:_HEAD].decode("utf-8-sig", "replace")
    for pattern, found in _CONTENTS:
        if re.search(pattern, head, re.MULTILINE):
            return found
    return "requirements.txt"
