"""The programs that a wheel asks its installer to make, read before any installer reads them.

uv and pip write ``bin/NAME`` for each entry point of the groups ``console_scripts`` and ``gui_scripts``. Old ones take
NAME for a path (GHSA-4gg8-gxpx-9rph, CVE-2026-8643) and so write anywhere. The format is PyPA's "Entry points
specification". Its readers differ in what they forgive; nothing is forgiven here, so none sees a name that we did not.
"""

from __future__ import annotations

import re

from bundler.errors import quoted

GROUPS = ("console_scripts", "gui_scripts")

# What the specification recommends, and no hidden file.
_PROGRAM = re.compile(r"(?!\.)[A-Za-z0-9._-]+")
_GROUP = re.compile(r"\[[^\[\]]+\]")
# Without regard to case, because file systems differ in theirs.
_INTERPRETER = re.compile(r"(python|pypy)[0-9.tw]*(\.exe)?", re.IGNORECASE)


def is_program(name: str) -> bool:
    """Whether ``name`` is a plain name for a program in ``bin``: no path, no hidden file and no interpreter."""
    return _PROGRAM.fullmatch(name) is not None and not is_interpreter(name)


def is_interpreter(name: str) -> bool:
    """Whether an environment has, or could have, its interpreter by this name."""
    return _INTERPRETER.fullmatch(name) is not None


def check(data: bytes) -> None:
    """Refuse an ``entry_points.txt`` with a program that :func:`is_program` refuses, or that readers could differ on.

    Other groups make no files, so their entries are not looked at. Raises :class:`ValueError` that says what is wrong.
    """
    group = None
    for number, raw in enumerate(data.decode("utf-8").split("\n"), 1):
        text = raw.removesuffix("\r").replace("\t", " ")
        if not text.isprintable():  # another end of a line, or a byte order mark
            raise ValueError(f"line {number} has a character that cannot be printed")
        # An indented line continues the one before for some readers, and is an entry for others.
        line = text.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            group = _group(line)
        elif group is None:
            raise ValueError(f"line {number} is in no group")
        elif group in GROUPS:
            _check_program(line)


def _group(line: str) -> str:
    group = line[1:-1]
    about_programs = any(each in line.casefold() for each in GROUPS)
    if not _GROUP.fullmatch(line) or (about_programs and group not in GROUPS):
        raise ValueError(f"{quoted(line)} is no plain name of a group")
    return group


def _check_program(line: str) -> None:
    name, equals, _ = line.partition("=")
    if not equals or not is_program(name.strip()):
        raise ValueError(f"{quoted(line)} is no program with a plain name of its own")
