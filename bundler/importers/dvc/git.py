"""A git repository that somebody else may have made, read with git's plumbing: nothing of it is run or fetched.

Hooks, filters, pagers, signature programs and remote helpers are what a repository's configuration could have git
start; the commands used here start none of them, and fetching missing objects is refused.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from bundler.data_hashes import kind_of, read_bounded
from bundler.errors import SourceError, quoted
from bundler.importers.collected import unkept
from bundler.importers.dvc.ownership import require_own

MAX_ENTRIES = 2_000_000
"""Most files of a commit, refs of a repository or commits of its history: a tree can name itself many times."""

MAX_OUTPUT = 512 << 20
"""Most bytes that one command may write."""

_MAX_ANSWER = 1 << 20
"""Most bytes of an answer, or of one entry of a list."""

_MAX_LOG = 16 << 20
"""Most bytes of the log of a ref."""

_MAX_KEPT = 200_000
"""So many files are kept of commits that were listed, of all commits together: each is asked for several times."""

_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_OWN_CONFIG = ("config", "--no-includes", "--file")
_HARMLESS = (
    "--no-optional-locks",
    "--no-pager",
    *("-c", "core.fsmonitor=false"),
    *("-c", "log.showSignature=false"),
    # The variable alone would not do: the repository's own setting comes before it.
    *("-c", "core.useReplaceRefs=false"),
    *("-c", f"core.hooksPath={os.devnull}"),
)


@dataclass(frozen=True, slots=True)
class Blob:
    """A file of a commit: its object id and size in bytes."""

    id: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit: ``time`` is when it was committed, in milliseconds since 1970-01-01 UTC (``None``: it does not say)."""

    id: str
    tree: str
    parents: tuple[str, ...]
    time: int | None
    subject: str


class Repository:
    """The git repository around ``folder``. Raises :class:`SourceError` if there is none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._trees: dict[str, dict[str, Blob]] = {}
        # Names of commits and refs are checked where they come in: an option among them would be git's.
        git_dir = self._path("--absolute-git-dir")
        worktree = self._maybe(*_OWN_CONFIG, str(git_dir / "config"), "--get", "core.worktree")
        require_own(
            self._path("--show-toplevel"), git_dir, self._path("--git-common-dir"), worktree
        )

    def refs(self, prefix: str) -> list[tuple[str, str]]:
        """Name and commit of all refs below ``prefix``, by name; what does not lead to a commit is left out."""
        form = (
            "--format=%(refname)%00%(objectname)%00%(*objectname)%00%(objecttype)%00%(*objecttype)"
        )
        found = []
        for line in self._lines("refs", "for-each-ref", form, prefix, end=b"\n"):
            name, own, peeled, kind, inner = (line + "\0\0\0\0").split("\0")[:5]
            if kind == "commit" or inner == "commit":
                found.append((name, own if kind == "commit" else peeled))
        return found

    def log(self, ref: str) -> list[tuple[str, str]]:
        """Commit and message of each entry of the log of ``ref``, newest first; none if git keeps no log of it.

        Not git's own walk, which leaves out an entry whose commit is not there.
        """
        file = self._path("--git-path", f"logs/{ref}")
        if not stat.S_ISREG(kind_of(file)):
            return []
        pairs = []
        for line in _text(read_bounded(file, _MAX_LOG)).split("\n"):
            entry, _, message = line.partition("\t")
            if entry:
                pairs.append((_checked([*entry.split(" ", 2), "", ""][1]), message))
        return pairs[::-1]

    def subject(self, commit: str) -> str:
        """The first line of the message of ``commit``."""
        quiet = ("--no-patch", "--no-decorate", "--no-show-signature", "--encoding=UTF-8")
        return self._git("log", "-1", "--format=%s", *quiet, _checked(commit), "--").strip()

    def head(self) -> str | None:
        """The commit of HEAD, or ``None`` before the first one."""
        return self._maybe("rev-parse", "--verify", "--quiet", "HEAD^{commit}")

    def branch(self) -> str | None:
        """The branch of HEAD, or ``None`` if it is detached."""
        return self._maybe("symbolic-ref", "--short", "--quiet", "HEAD")

    def remote(self) -> str | None:
        """The URL of the remote ``origin`` as it is configured."""
        # What it includes lies elsewhere, and is not the repository's to show.
        return self._maybe("config", "--local", "--no-includes", "--get", "remote.origin.url")

    def changing(self, paths: tuple[str, ...], extra: set[str]) -> list[str]:
        """Commits of all branches, tags, HEAD and ``extra`` that changed a file of ``paths``, oldest first.

        ``paths`` are git's pathspecs. Raises :class:`SourceError` for more than ``MAX_ENTRIES``.
        """
        heads = [*(["HEAD"] if self.head() else []), *map(_checked, sorted(extra))]
        walk = ("rev-list", "--full-history", "--topo-order", "--reverse", "--branches", "--tags")
        what = "commits with results"
        return list(self._lines(what, *walk, *heads, "--", *paths, end=b"\n"))

    def added(self, commits: list[str], pattern: str) -> set[str]:
        """Paths of the files that any of ``commits`` added, of those that git's pathspec ``pattern`` matches."""
        form = ("-m", "-r", "-z", "--root", "--no-commit-id", "--name-only", "--diff-filter=A")
        what = ("diff-tree", "--stdin", *form, "--no-renames", "--relative", "--", pattern)
        # A file, since git may not take more before somebody has read what it says.
        with _temporary_file() as given:
            try:
                given.write("".join(f"{_checked(each)}\n" for each in commits).encode())
                given.seek(0)
            except OSError as error:
                raise unkept(error) from None
            return set(self._lines("pointers to data", *what, given=given))

    def has(self, commit: str) -> bool:
        """Whether the commit with this full id is there."""
        return is_id(commit) and self._maybe("cat-file", "-t", commit) == "commit"

    def has_folder(self, commit: str) -> bool:
        """Whether the folder was there in ``commit``, which is."""
        return self._maybe("rev-parse", "--verify", "--quiet", f"{_checked(commit)}:./") is not None

    def files(self, commit: str) -> dict[str, Blob]:
        """The files of the folder in ``commit``, by path; links and submodules are left out."""
        if commit in self._trees:
            return self._trees[commit]
        files = {}
        what = f"files in commit {_checked(commit)}"
        for entry in self._lines(what, "ls-tree", "-r", "-l", "-z", "--full-tree", f"{commit}:./"):
            meta, _, path = entry.partition("\t")
            mode, kind, blob, size = meta.split()
            if kind != "blob" or mode == "120000":
                continue
            if not size.isdigit():
                raise self._refused(f"commit {commit} lacks the bytes of {quoted(path)}")
            files[path] = Blob(blob, int(size))
        if len(files) + sum(map(len, self._trees.values())) <= _MAX_KEPT:
            self._trees[commit] = files
        return files

    def working(self) -> Iterator[str]:
        """Paths of what is in the folder's working tree, tracked or not, without what git ignores."""
        form = ("-z", "--cached", "--others", "--exclude-standard")
        return self._lines("files in the working tree", "ls-files", *form, "--", ".")

    @contextmanager
    def objects(self) -> Iterator[Objects]:
        """A reader of objects that uses one git process."""
        command = self._command("cat-file", "--batch")
        with subprocess.Popen(  # fixed program, no shell
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
        ) as git:  # fmt: skip
            try:
                yield Objects(self._folder, cast(IO[bytes], git.stdin), cast(IO[bytes], git.stdout))
            finally:
                git.kill()

    def _path(self, *question: str) -> Path:
        """What git says of a place of its own."""
        return self._folder / self._git("rev-parse", *question).removesuffix("\n")

    def _maybe(self, *arguments: str) -> str | None:
        try:
            return self._git(*arguments).strip() or None
        except SourceError:
            return None

    def _git(self, *arguments: str) -> str:
        """A short answer."""
        found = b""
        for chunk in self._chunks(*arguments):
            found += chunk
            if len(found) > _MAX_ANSWER:
                raise self._refused(f"more than {_MAX_ANSWER:,} bytes from {arguments[0]}")
        return _text(found)

    def _lines(
        self, what: str, *arguments: str, end: bytes = b"\0", given: IO[bytes] | None = None
    ) -> Iterator[str]:
        """A list, cut at ``end``, as it comes: a small repository can list without end. ``what``: its entries."""
        count, rest = 0, b""
        for chunk in self._chunks(*arguments, given=given):
            *whole, rest = (rest + chunk).split(end)
            count += len(whole)
            if count > MAX_ENTRIES or len(rest) > _MAX_ANSWER:
                raise self._refused(f"more than {MAX_ENTRIES:,} {what}, or one that is too long")
            yield from map(_text, whole)
        if rest:
            yield _text(rest)

    def _chunks(self, *arguments: str, given: IO[bytes] | None = None) -> Iterator[bytes]:
        """What git writes, as it comes, bounded. Raises :class:`SourceError` if it fails."""
        # Its errors go to a file: a pipe that nobody reads meanwhile would stop it.
        with _temporary_file() as errors, self._started(arguments, given, errors) as git:
            stream, left = cast(IO[bytes], git.stdout), MAX_OUTPUT
            try:
                while chunk := stream.read1(1 << 16):  # type: ignore[attr-defined]  # it is buffered
                    left -= len(chunk)
                    if left < 0:
                        raise self._refused(f"more than {MAX_OUTPUT:,} bytes from {arguments[0]}")
                    yield chunk
                git.wait()
            finally:
                git.kill()
            if git.returncode:
                errors.seek(0)
                raise self._refused(_fatal(errors.read(4096)))

    def _started(
        self, arguments: tuple[str, ...], given: IO[bytes] | None, errors: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(  # fixed program, no shell
                self._command(*arguments), stdin=given, stdout=subprocess.PIPE, stderr=errors, env=_environment()
            )  # fmt: skip
        except FileNotFoundError:
            raise SourceError("git is not installed", remedy="Install git.") from None

    def _command(self, *arguments: str) -> list[str]:
        return ["git", *_HARMLESS, "-C", str(self._folder), *arguments]

    def _refused(self, problem: str) -> SourceError:
        return SourceError(
            f"git in {quoted(str(self._folder), 200)}: {problem}",
            remedy="Give the folder of a full, intact git clone (`git fsck` checks it) that belongs to the user who"
            " builds.",
        )


class Objects:
    """Reads objects, each held against its id."""

    def __init__(self, folder: Path, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self._folder = folder
        self._stdin = stdin
        self._stdout = stdout

    def commit(self, identity: str) -> Commit:
        """The commit with this id."""
        header, _, message = self._read(identity, "commit", 16 << 20).partition(b"\n\n")
        lines = [line.split(b" ", 1) for line in header.split(b"\n")]
        named = [(key[0], _text(key[1])) for key in lines if len(key) == 2]
        committer = next((value for key, value in named if key == b"committer"), "")
        time = re.search(r"> (-?[0-9]{1,12}) [+-][0-9]{4}$", committer)
        return Commit(
            id=identity,
            tree=next((value for key, value in named if key == b"tree"), ""),
            parents=tuple(value for key, value in named if key == b"parent"),
            time=int(time[1]) * 1000 if time else None,
            subject=message.decode("utf-8", "backslashreplace").strip().partition("\n")[0][:500],
        )

    def blob(self, blob: Blob, limit: int) -> bytes:
        """The bytes of a file. Raises :class:`ValueError` for more than ``limit``."""
        if blob.size > limit:
            raise ValueError(f"more than {limit:,} bytes")
        return self._read(blob.id, "blob", limit)

    def _read(self, identity: str, kind: str, limit: int) -> bytes:
        question = f"{_checked(identity)}\n".encode()
        try:
            self._stdin.write(question)
            self._stdin.flush()
        except OSError:
            raise self._damaged(identity, "cannot be read: git has ended") from None
        header = self._stdout.readline().split()
        if len(header) != 3:
            raise self._damaged(identity, "is not there")
        size = int(header[2])
        if header[1] != kind.encode() or size > limit:
            self._skip(size)
            raise self._damaged(identity, f"is no {kind} of at most {limit:,} bytes")
        data = self._stdout.read(size)
        self._stdout.read(1)  # the newline behind each object
        made = f"{kind} {size}\0".encode()
        name = "sha1" if len(identity) == 40 else "sha256"
        if hashlib.new(name, made + data, usedforsecurity=False).hexdigest() != identity:
            raise self._damaged(identity, "has other bytes than its id says")
        return data

    def _skip(self, size: int) -> None:
        left = size + 1
        while left > 0 and (chunk := self._stdout.read(min(left, 1 << 20))):
            left -= len(chunk)

    def _damaged(self, identity: str, problem: str) -> SourceError:
        return SourceError(
            f"git in {quoted(str(self._folder), 200)}: object {identity} {problem}",
            remedy="Check the repository with `git fsck` and use a full, intact clone.",
        )


def is_id(text: str) -> bool:
    """Whether ``text`` is a full object id."""
    return _ID.fullmatch(text) is not None


def blob_id(data: bytes, like: str) -> str:
    """The id that git gives to a file with these bytes in the repository of the id ``like``."""
    name = "sha1" if len(like) == 40 else "sha256"
    return hashlib.new(
        name, f"blob {len(data)}\0".encode() + data, usedforsecurity=False
    ).hexdigest()


def _temporary_file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise unkept(error) from None


def _checked(identity: str) -> str:
    if not is_id(identity):
        raise SourceError(
            f"git gave {quoted(identity)} for an object", remedy="Check it with `git fsck`."
        )
    return identity


def _fatal(words: bytes) -> str:
    lines = words.decode("utf-8", "replace").strip().splitlines() or ["failed"]
    return quoted(next((line for line in lines if line.startswith("fatal: ")), lines[-1]), 200)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _environment() -> dict[str, str]:
    """The environment without what leads git elsewhere: replaced objects and missing ones are not looked for either."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {
        "LC_ALL": "C",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }
