"""Writing a bag: into a hidden folder or file beside the target, which is renamed when it is whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundler.errors import OutputError
from bundler.storage.archive import BLOCK, END, member_header


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Yield a path in a hidden folder beside ``target`` for the block to create; it becomes ``target`` if all is well.

    Whatever else happens, the hidden folder is gone afterwards. Raises :class:`OutputError` if ``target`` exists or
    cannot be written, a full disk included.
    """
    if target.exists() or target.is_symlink():
        raise OutputError(
            f"{target} exists; a bundle is never overwritten",
            remedy="Remove it, or choose another place with -o.",
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden = Path(
            tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
        )
    except OSError as error:
        raise _cannot_write(target, error) from None
    try:
        result = hidden / target.name
        yield result
        os.replace(result, target)
    except OSError as error:
        raise _cannot_write(target, error) from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def write_file(root: Path, path: str, data: bytes) -> None:
    """Write ``data`` to ``path`` below ``root``, making folders as needed."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def write_archive(folder: Path, target: Path) -> None:
    """Write all files below ``folder`` into the tar file ``target``, sorted and without times or owners."""
    files = sorted(
        file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()
    )
    with target.open("wb") as archive:
        for path in files:
            source = folder / path
            size = source.stat().st_size
            archive.write(member_header(path, size))
            with source.open("rb") as file:
                shutil.copyfileobj(file, archive, 1 << 20)
            archive.write(b"\0" * (-size % BLOCK))
        archive.write(END)


def _cannot_write(target: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {target}: {error.strerror or error}",
        remedy="Nothing was left behind. Check free space and permissions, then run it again.",
    )
