"""The code that is trained with: what git says of the folder, asked so that nothing in it changes."""

from __future__ import annotations

import os
import re

from .privacy import without_credentials
from .sheet import NotRecordedError, Sheet

_GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C")


def record(sheet: Sheet, folder: str, output: str | None = None) -> None:
    """Write down commit, tree and state of the repository around ``folder``. ``output`` is our own file in it."""
    try:
        words = sheet.ask(*_GIT, folder, "rev-parse", "--show-toplevel", "HEAD", "HEAD^{tree}")
        top, commit, tree = words.strip("\n").rsplit("\n", 2)
    except (NotRecordedError, OSError, ValueError) as error:
        sheet.missing("code", str(error))
        return
    sheet.put("code", {"commit": commit, "tree": tree})
    own = None if output is None else _below(top, output)
    sheet.record("code", lambda: _state(sheet, folder, own))
    sheet.record("code.remote", lambda: _remote(sheet, folder))
    if os.path.lexists(os.path.join(top, ".gitmodules")):  # noqa: PTH118
        sheet.record("code.submodules", lambda: _submodules(sheet, top))


def _below(top: str, path: str) -> str:
    """``path`` as git spells it: from the top of the repository."""
    relative = os.path.relpath(os.path.realpath(path), os.path.realpath(top))
    return relative.replace(os.sep, "/")


def _state(sheet: Sheet, folder: str, own: str | None) -> dict[str, object]:
    """The branch, whether tracked files differ from the commit, and how many others git does not ignore."""
    text = sheet.ask(
        *(*_GIT, folder, "status", "--porcelain=v2", "--branch", "-z"),
        *("--untracked-files=normal", "--ignore-submodules=none"),
    )
    branch, changed, untracked = None, 0, 0
    entries = iter(text.split("\0"))
    for entry in entries:
        kind, _, rest = entry.partition(" ")
        if kind == "#" and rest.startswith("branch.head ") and "(detached)" not in rest:
            branch = rest[len("branch.head ") :]
        elif kind == "?" and rest != own:
            untracked += 1
        elif kind in {"1", "2", "u"}:
            changed += 1
            if kind == "2":
                next(entries, None)  # the name before
    return {"branch": branch, "dirty": changed > 0, "untracked": untracked}


def _remote(sheet: Sheet, folder: str) -> str:
    try:
        url = sheet.ask(*_GIT, folder, "config", "--get", "remote.origin.url").strip()
    except NotRecordedError:
        raise NotRecordedError("there is no remote named origin") from None
    return without_credentials(url)


def _submodules(sheet: Sheet, top: str) -> dict[str, str]:
    """Path → the commit that is checked out."""
    found = {}
    for line in sheet.ask(*_GIT, top, "submodule", "status", "--recursive").splitlines():
        # "+" before a commit: another one than the repository's; "-": nothing is checked out.
        match = re.fullmatch(r"([ +U-])([0-9a-f]{40,64}) (.*?)( \([^()]*\))?", line)
        if match:
            found[match[3]] = "not checked out" if match[1] == "-" else match[2]
    return found
