"""How the root file system of an image appears in a sandbox: piece by piece, so that nothing is written into it."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path

from bundler.errors import UsageError
from bundler.sandbox.helpers import PLACE

_OWN = frozenset({"proc", "sys", "dev", "tmp", "out", PLACE.removeprefix("/")})
# The verifier's own helpers would load what it names.
_NEVER_IN_ETC = frozenset({"ld.so.preload"})
_MAX_ENTRIES = 2_000


def view(root: Path, origin: str, *, mounts: Collection[str], etc: Collection[str]) -> list[str]:
    """The options of bwrap that show ``root``, which is at ``origin`` when bwrap starts, as ``/``.

    ``mounts`` are the targets that the job has besides: what the image has there is not shown. ``etc`` are the names in
    ``/etc`` that are the sandbox's own. Links are made anew: bwrap would follow them on this machine. Raises
    :class:`bundler.errors.UsageError` if ``root`` is no root file system.
    """
    taken = _OWN | {target.strip("/").partition("/")[0] for target in mounts}
    shown = _entries(root, origin, "", taken | {"etc"})
    if not shown:
        raise UsageError(f"{root} is not the root file system of an image")
    # No mount point can be made in what is shown read-only, and the image may lack the files.
    folder = root / "etc"
    if folder.is_dir() and not folder.is_symlink():
        shown += _entries(folder, f"{origin}/etc", "/etc", {*etc, *_NEVER_IN_ETC})
    return shown


def _entries(folder: Path, origin: str, inside: str, left_out: Collection[str]) -> list[str]:
    try:
        names = sorted(set(os.listdir(folder)) - set(left_out))
        modes = {name: (folder / name).lstat().st_mode for name in names}
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror}") from None
    if len(names) > _MAX_ENTRIES:
        raise UsageError(f"{folder} has more than {_MAX_ENTRIES:,} entries")
    shown: list[str] = []
    for name, mode in modes.items():
        if stat.S_ISLNK(mode):
            shown += ["--symlink", str((folder / name).readlink()), f"{inside}/{name}"]
        elif stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            shown += ["--ro-bind", f"{origin}/{name}", f"{inside}/{name}"]
    return shown
