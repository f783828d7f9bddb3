"""Writing a bag: into a hidden folder or file beside the target, which is renamed when it is whole."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bundler.errors import MalformedError, OutputError, quoted
from bundler.manifest import path_problem
from bundler.storage.archive import BLOCK, END, MAX_MEMBER, member_header


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Yield a path in a hidden folder beside ``target`` for the block to create; it becomes ``target`` if all is well.

    Whatever else happens, the hidden folder is gone afterwards; one that a killed process left is removed by the next
    that writes ``target``. Raises :class:`OutputError` if ``target`` exists or
    cannot be written, a full disk included.
    """
    try:
        with ExitStack() as undo:
            _refuse_existing(target)
            made = [folder for folder in target.parents if not folder.exists()]
            undo.callback(_remove_empty, made)
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(target)
            result = _hidden_folder(target, undo) / target.name
            yield result
            # Again: somebody else may have been quicker.
            _refuse_existing(target)
            os.replace(result, target)
    except OSError as error:
        raise _cannot_write(target, error) from None


def write_file(root: Path, path: str, data: bytes) -> None:
    """Write ``data`` to ``path`` below ``root``, making folders as needed.

    Raises :class:`MalformedError` (``path-unsafe``) for a path that a bag may not hold: none leads out of ``root``.
    """
    problem = path_problem(path)
    if problem is not None:
        raise MalformedError("path-unsafe", f"{quoted(path)}: {problem}")
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def write_archive(folder: Path, target: Path) -> None:
    """Write all files below ``folder`` into the tar file ``target``, sorted and without times or owners."""
    files = sorted(
        file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()
    )
    _refuse_large(folder, files)
    with target.open("wb") as archive:
        for path in files:
            source = folder / path
            size = source.stat().st_size
            archive.write(member_header(path, size))
            with source.open("rb") as file:
                shutil.copyfileobj(file, archive, 1 << 20)
            archive.write(b"\0" * (-size % BLOCK))
        archive.write(END)


def _refuse_large(folder: Path, files: list[str]) -> None:
    for path in files:
        if (folder / path).stat().st_size > MAX_MEMBER:
            raise OutputError(
                f"{path} is larger than the 8 GiB that a tar archive of this form can carry",
                remedy="Build a folder: leave out --tar.",
            )


def _refuse_existing(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise OutputError(
            f"{target} exists; it is never overwritten",
            remedy="Remove it, or choose another place with -o.",
        )


def _hidden_folder(target: Path, undo: ExitStack) -> Path:
    """A new hidden folder, locked as long as this process lives and removed by ``undo``."""
    while True:
        hidden = Path(
            tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
        )
        with ExitStack() as failed:
            failed.callback(shutil.rmtree, hidden, ignore_errors=True)
            with suppress(FileNotFoundError):
                descriptor = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                failed.callback(os.close, descriptor)
                # Not every file system has locks; without one, nobody else gets one there either.
                with suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                # Between its making and its lock, another process may have taken it for abandoned.
                if os.path.samestat(os.fstat(descriptor), hidden.stat()):
                    undo.push(failed.pop_all())
                    return hidden


def _remove_abandoned(target: Path) -> None:
    """Remove hidden folders for ``target`` that a killed process left: nobody holds their lock."""
    name = re.compile(rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}\.partial")
    with suppress(OSError):
        for entry in list(os.scandir(target.parent)):
            if name.fullmatch(entry.name):
                _remove_unlocked(entry.path)


def _remove_unlocked(folder: str) -> None:
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_uid == os.geteuid():
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def _remove_empty(folders: list[Path]) -> None:
    """Remove those of ``folders``, the deepest first, that hold nothing."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _cannot_write(target: Path, error: OSError) -> OutputError:
    where = f" ({error.filename})" if error.filename else ""
    return OutputError(
        f"cannot write {target}: {error.strerror or error}{where}",
        remedy="Nothing was left behind. Check free space and permissions, then run it again.",
    )
