"""Whether a git repository is that of the folder that was given: a file ``.git`` or a link can name any other.

The rule: ``.git`` at the root of the working tree is a folder, or a file whose repository names that working tree as
its own. Git writes the way back for each worktree (``worktrees/NAME/gitdir``) and submodule (``core.worktree``), so
both are read. ``git init --separate-git-dir`` writes none, so such a repository is refused. Nothing that git reads
below a repository may be a link either.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bundler.data_hashes import kind_of, read_bounded, unreadable
from bundler.errors import SourceError, quoted

_READ = ("config", "packed-refs", "commondir", "shallow", "refs", "logs", "objects")
_MAX_PATH = 16 << 10


def require_own(root: Path, git_dir: Path, common: Path, worktree: str | None) -> None:
    """Raise :class:`SourceError` unless the repository is that of ``root``, the root of a working tree.

    ``git_dir`` and ``common`` are git's folders of this working tree and of all of them, ``worktree`` is the
    ``core.worktree`` that the repository's own configuration names.
    """
    entry = root / ".git"
    kind = kind_of(entry)
    if stat.S_ISDIR(kind):
        own = _same(entry, git_dir) and _same(common, git_dir)
    elif stat.S_ISREG(kind) and not _same(common, git_dir):
        named = git_dir / "gitdir"
        back = os.fsdecode(read_bounded(named, _MAX_PATH)).rstrip("\n") if kind_of(named) else ""
        own = _same(git_dir.parent, common / "worktrees") and _leads(git_dir, back, entry)
    else:
        own = stat.S_ISREG(kind) and _leads(git_dir, worktree or "", root)
    if not own:
        raise _foreign(root, f"is that of {quoted(str(git_dir), 200)}, which does not name it")
    for folder in {git_dir, common}:
        _refuse_links(root, folder)


def _leads(folder: Path, path: str, target: Path) -> bool:
    """Whether ``path``, absolute or relative to ``folder``, is ``target``."""
    return bool(path) and "\0" not in path and _same(folder / path, target)


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _refuse_links(root: Path, git_dir: Path) -> None:
    """Links among what git reads: objects and refs of elsewhere would come in by them."""

    def stop(error: OSError) -> None:
        raise unreadable(git_dir, error)

    for place in [git_dir / name for name in _READ]:
        found = [place]
        if stat.S_ISDIR(kind_of(place)):
            for folder, folders, files in os.walk(place, onerror=stop):
                found += [Path(folder, each) for each in folders]
                # Below `objects` a file says nothing but by its digest.
                found += [Path(folder, each) for each in files if place.name != "objects"]
        for each in found:
            if stat.S_ISLNK(kind_of(each)):
                raise _foreign(root, f"has a link, {quoted(str(each), 200)}")


def _foreign(root: Path, problem: str) -> SourceError:
    return SourceError(
        f"the git repository of {quoted(str(root), 200)} {problem}",
        remedy="Give an ordinary clone (git clone): what a link or a file .git names may be anybody's.",
    )
