"""A staged package as one file that travels to other machines, and back to folders there.

Only regular files and folders, named and mode by mode, without times or owners: equal packages are equal bytes.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from bundler.errors import MalformedError, quoted
from bundler.sandbox.removal import remove
from bundler.sandbox.workplace import make, new_file

_CHUNK = 1 << 20

Source = io.BufferedReader | io.BytesIO
"""A package as it arrived."""


def pack(staged: Path, target: Path) -> str:
    """Write what lies below ``staged`` into the tar file ``target`` and return its SHA-256.

    Raises :class:`MalformedError` (``package``) for anything but regular files and folders, and OSError.
    """
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(staged.rglob("*")):
            member = tarfile.TarInfo(path.relative_to(staged).as_posix())
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise MalformedError("package", f"{quoted(member.name)} is neither file nor folder")
            if path.is_dir():
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
                continue
            status = path.stat()
            member.size = status.st_size
            member.mode = 0o755 if status.st_mode & 0o100 else 0o644
            with path.open("rb") as file:
                archive.addfile(member, file)
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(package: Source, sha256: str, target: Path) -> None:
    """Write what the tar file ``package`` holds into the new folder ``target``, readable by everybody.

    Raises :class:`MalformedError` (``package``) unless it is the file with this digest, and OSError.
    """
    if hashlib.file_digest(package, "sha256").hexdigest() != sha256:
        raise MalformedError(
            "package",
            "the package arrived changed: its SHA-256 is not the one that was sent",
            remedy="Run the verification again; look at the network and at the cluster's storage.",
        )
    package.seek(0)
    make(target)
    with tarfile.open(fileobj=package, mode="r:") as archive:
        for member in archive:
            inside = PurePosixPath(member.name)
            leaves = inside.is_absolute() or ".." in inside.parts
            if leaves or not (member.isdir() or member.isreg()):
                raise MalformedError("package", f"{quoted(member.name)} is no file or folder of it")
            if member.isdir():
                make(target / member.name)
                continue
            content = archive.extractfile(member)
            with new_file(target, member.name, program=bool(member.mode & 0o100)) as copy:
                while content is not None and (chunk := content.read(_CHUNK)):
                    copy.write(chunk)


def provide(fetch: Callable[[], Source], sha256: str, folder: Path) -> Path:
    """Return the package in ``folder``, unpacked once however many processes ask for it at the same time.

    ``folder`` is made if need be, for this user alone. Raises as :func:`unpack` does.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.geteuid() or not folder.is_dir() or folder.is_symlink():
        raise PermissionError(f"{folder} is not this user's own")
    package = folder / "package"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel gives it back if this process is killed
        if not package.exists():
            partial = folder / "package.partial"
            remove(partial)
            with fetch() as file:
                unpack(file, sha256, partial)
            partial.rename(package)
    return package
