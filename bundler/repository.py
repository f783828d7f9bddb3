"""A provider's git repository, read with git itself and nothing changed."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

from bundler.errors import SourceError
from bundler.records import without_credentials

_REDIRECTS = {
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_NAMESPACE",
}
"""Variables that a git hook sets and that would lead to another repository."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeFile:
    """A tracked entry: its path below the code folder, its git object (of a submodule: its commit) and git's mode."""

    path: str
    blob: str
    kind: Literal["file", "link", "submodule"] = "file"
    mode: str = "100644"


class Repository:
    """The repository around ``folder``. Raises :class:`SourceError` if there is none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._git("rev-parse", "--git-dir")

    def head(self) -> str | None:
        """The commit of HEAD, or ``None`` before the first one."""
        return self._maybe("rev-parse", "--verify", "HEAD")

    def has(self, commit: str) -> bool:
        """Whether ``commit`` is in the repository and has the folder.

        A commit is named by its hash, in full or cut to seven digits or more: a branch of that name is another thing.
        """
        if not re.fullmatch(r"[0-9a-f]{7,64}", commit):
            return False
        full = self._maybe("rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}")
        if full is None or not full.startswith(commit):
            return False
        return self._maybe("rev-parse", "--verify", "--end-of-options", f"{commit}:./") is not None

    def commit(self, name: str) -> str:
        """The whole hash of the commit that ``name`` (see :meth:`has`) is."""
        return self._git("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}").strip()

    def tree(self, commit: str) -> str:
        """The id of the tree that the folder is in ``commit``."""
        return self._git("rev-parse", "--verify", "--end-of-options", f"{commit}:./").strip()

    def whole_tree(self, commit: str) -> str:
        """The id of the tree of the whole ``commit``, which is what a run records."""
        return self._git("rev-parse", "--verify", "--end-of-options", f"{commit}^{{tree}}").strip()

    def above(self, commit: str) -> tuple[tuple[CodeFile, ...], ...]:
        """What is directly in each folder above this one in ``commit``, the root first; none for the root itself."""
        parts = self.prefix().split("/") if self.prefix() else []
        places = ["/".join(parts[:count]) for count in range(len(parts))]
        return tuple(
            tuple(self._listed("ls-tree", "-z", "--full-tree", f"{commit}:{place}"))
            for place in places
        )

    def prefix(self) -> str:
        """The folder's path in the repository, empty for the whole of it."""
        return self._git("rev-parse", "--show-prefix").strip("\n").rstrip("/")

    def remote(self) -> str | None:
        """The URL of the remote ``origin``, without user or password in it."""
        url = self._maybe("remote", "get-url", "origin")
        return without_credentials(url) if url else None

    def is_dirty(self, besides: Iterable[str] = ()) -> bool:
        """Whether tracked files of the folder differ from HEAD, or there are untracked ones, but for ``besides``."""
        left_out = (f":(exclude,literal){each}" for each in besides)
        return bool(self._git("status", "--porcelain", "--", ".", *left_out).strip())

    def is_shallow(self) -> bool:
        """Whether the clone was cut off at some depth: earlier commits are then not in it."""
        return self._maybe("rev-parse", "--is-shallow-repository") == "true"

    def tracked(self) -> tuple[str, ...]:
        """Paths, from the folder, of what git tracks in it; the working tree need not have them."""
        return tuple(filter(None, self._git("ls-files", "-z", "--", ".").split("\0")))

    def files(self, commit: str) -> tuple[CodeFile, ...]:
        """What the folder holds in ``commit``, sorted by path: files, and links and submodules, which have no bytes."""
        tree = self.tree(commit)
        found = self._listed("ls-tree", "-r", "-z", "--full-tree", tree)
        return tuple(sorted(found, key=lambda file: file.path))

    def _listed(self, *arguments: str) -> Iterator[CodeFile]:
        for entry in self._git(*arguments).split("\0"):
            if entry:
                meta, path = entry.split("\t", 1)
                mode, kind, blob = meta.split()
                what: Literal["file", "link", "submodule"] = "file"
                if kind != "blob":
                    what = "submodule"
                elif mode == "120000":
                    what = "link"
                yield CodeFile(path=path, blob=blob, kind=what, mode=mode)

    def contents(self, files: Iterable[CodeFile]) -> Iterator[tuple[CodeFile, bytes]]:
        """Yield each file with its bytes, from one git process however many files there are."""
        with subprocess.Popen(  # fixed program, no shell
            self._command("cat-file", "--batch"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
        ) as git:
            stdin, stdout = cast(IO[bytes], git.stdin), cast(IO[bytes], git.stdout)
            for file in files:
                stdin.write(f"{file.blob}\n".encode())
                stdin.flush()
                header = stdout.readline().split()
                if len(header) != 3:
                    raise SourceError(
                        f"git in {self._folder} does not have the bytes of {file.path!a}",
                        remedy="Build from a full clone, not from a partial one.",
                    )
                yield file, stdout.read(int(header[2]))
                stdout.read(1)  # the newline behind each object

    def _maybe(self, *arguments: str) -> str | None:
        try:
            return self._git(*arguments).strip()
        except SourceError:
            return None

    def _git(self, *arguments: str) -> str:
        return self._run(*arguments).decode("utf-8", "surrogateescape")

    def _run(self, *arguments: str) -> bytes:
        try:
            done = subprocess.run(  # fixed program, no shell
                self._command(*arguments), check=False, capture_output=True, env=_environment()
            )
        except FileNotFoundError:
            raise SourceError("git is not installed", remedy="Install git.") from None
        if done.returncode != 0:
            words = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["failed"]
            fatal = next((line for line in words if line.startswith("fatal: ")), words[-1])
            raise SourceError(
                f"git in {self._folder}: {fatal}",
                remedy="training.code must be a folder of a git repository.",
            )
        return done.stdout

    def _command(self, *arguments: str) -> list[str]:
        # What a repository's own configuration may change or start is switched off.
        settings = ("core.useReplaceRefs=false", "core.fsmonitor=false", "core.hooksPath=/dev/null")
        options = [word for setting in settings for word in ("-c", setting)]
        return ["git", "--no-optional-locks", *options, "-C", str(self._folder), *arguments]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _REDIRECTS}
