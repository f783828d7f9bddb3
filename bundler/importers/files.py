"""The files of a store, and what to say about one that cannot be read."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from bundler.errors import SourceError, quoted
from bundler.importers.model import ArtefactFile
from bundler.importers.values import Flag, clean, readable_name

NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
"""Errors that say that nothing lies at a path. Any other says that what lies there cannot be read."""


def walk(folder: Path, prefix: str, flag: Flag) -> Iterator[ArtefactFile]:
    """All files below ``folder``, sorted by path. Links are not followed, but flagged.

    Raises :class:`SourceError` for what cannot be read: leaving it out would be silent.
    """
    found: list[ArtefactFile] = []
    waiting = [(folder, prefix)]
    if folder.is_symlink():
        flag("artefacts", "symlink_skipped", prefix or ".")
        waiting = []
    while waiting:
        # A list of folders instead of recursion: a tree can be deeper than Python's stack.
        current, path = waiting.pop()
        try:
            entries = list(os.scandir(current))
            modes = [entry.stat(follow_symlinks=False).st_mode for entry in entries]
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise unreadable_artefact(current, error) from None
            # A file in the place of a folder, or a path longer than the system takes.
            flag("artefacts", "unreadable", f"{path or '.'}: {error.strerror}")
            continue
        for entry, mode in zip(entries, modes, strict=True):
            name = path + readable_name(entry.name, flag, "artefacts")
            if stat.S_ISDIR(mode):
                waiting.append((Path(entry.path), f"{name}/"))
            elif stat.S_ISREG(mode):
                if not os.access(entry.path, os.R_OK):
                    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                    raise unreadable_artefact(Path(entry.path), denied)
                found.append(ArtefactFile(path=name, file=Path(entry.path)))
            else:
                kind = "symlink_skipped" if stat.S_ISLNK(mode) else "special_skipped"
                flag("artefacts", kind, name)
    yield from sorted(found, key=lambda each: each.path)


def below(root: Path, relative: str, flag: Flag) -> Path | None:
    """The file or folder at the path ``relative`` (with ``/``) below ``root``; ``None`` if none lies there.

    No step leads upwards, and no part below ``root`` is a link: such a one is flagged. Who made a store cannot point at
    files elsewhere. ``.`` is ``root`` itself. Raises :class:`SourceError` for what cannot be looked at.
    """
    place, mode = root, stat.S_IFDIR
    parts = relative.split("/") if relative != "." else []
    for number, part in enumerate(parts, start=1):
        if part in {"", ".", ".."} or not stat.S_ISDIR(mode):
            return None
        place /= part
        try:
            mode = place.lstat().st_mode
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise unreadable_artefact(place, error) from None
            return None
        except ValueError:  # a zero, or half a character
            return None
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            kind = "symlink_skipped" if stat.S_ISLNK(mode) else "special_skipped"
            flag("artefacts", kind, clean("/".join(parts[:number])) or "")
            return None
    return place


def unreadable_artefact(place: Path, error: OSError) -> SourceError:
    """What to do about a file or folder that is there and cannot be read."""
    return SourceError(
        f"{quoted(str(error.filename or place), 200)} cannot be read: {error.strerror or error}",
        remedy="Make it readable (chmod u+rX) for the user who builds, or remove it: an artefact that is missing is"
        " a gap, one that cannot be read is an error.",
    )


def unreadable(place: Path, error: OSError) -> SourceError:
    """What an error of the system means: it names the file, or ``place`` if it names none."""
    return SourceError(
        f"{quoted(str(error.filename or place), 200)} cannot be read: {error.strerror or error}",
        remedy="Check path and permissions.",
    )


def too_large(place: Path, limit: str) -> SourceError:
    """A bound that no store that a tracker made itself comes near."""
    return SourceError(
        f"{quoted(str(place), 200)} holds more than {limit}",
        remedy="No tracker makes such a store by itself; look at what has written it.",
    )
