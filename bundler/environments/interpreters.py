"""Python interpreters of this machine: asking one what it is, and finding one of a declared version.

Only interpreters that the verifier installed are started here. That of a recreated environment is not: when Python
starts, the ``.pth`` files of its packages run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundler.errors import EnvironmentNotRecreatableError

_SECONDS = 60

OLDEST_UV = (0, 11, 15)
OLDEST_PIP = (26, 1, 2)
"""Earlier ones write programs wherever a wheel says (GHSA-4gg8-gxpx-9rph, CVE-2026-8643)."""

_IDENTITY = (
    "import json, platform, sys, sysconfig;"
    "print(json.dumps([sys.executable, sys.version.split()[0], sys.implementation.name,"
    " sysconfig.get_platform(), ' '.join(platform.libc_ver()).strip(), sys.version]))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """A Python of this machine.

    ``platform`` is as in ``linux-x86_64``, ``libc`` as in ``glibc 2.36``, or empty; ``build`` is all that it says of
    its version: when it was built, and with which compiler.
    """

    path: Path
    version: str
    implementation: str
    platform: str
    libc: str
    build: str

    @property
    def minor(self) -> str:
        """The version that binary packages depend upon, such as ``3.11``."""
        return minor_of(self.version)


def minor_of(version: str) -> str:
    """Major and minor number of ``version``."""
    return ".".join(version.split(".")[:2])


def answer(python: Path, script: str) -> Any:
    """The JSON that ``script`` prints when ``python`` runs it, in isolated mode.

    So neither the user's site-packages nor PYTHON* variables decide what is seen. Raises
    :class:`EnvironmentNotRecreatableError` if the interpreter does not run.
    """
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", script],
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_SECONDS,
        )
        return json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        raise EnvironmentNotRecreatableError(
            f"{python} is not a Python interpreter that runs",
            remedy="Give --python the interpreter of an environment with the declared packages.",
        ) from None


def identify(python: Path) -> Interpreter:
    """What ``python`` is. Raises :class:`EnvironmentNotRecreatableError` if it does not run."""
    found = answer(python, _IDENTITY)
    if not (isinstance(found, list) and len(found) == 6 and all(isinstance(e, str) for e in found)):
        raise EnvironmentNotRecreatableError(
            f"{python} is not a Python interpreter that runs",
            remedy="Give --python an interpreter.",
        )
    executable, version, implementation, platform, libc, build = found
    return Interpreter(
        # A shim (pyenv, asdf) is a script: what it started is the interpreter.
        path=Path(executable),
        version=version,
        implementation=implementation,
        platform=platform,
        libc=libc,
        build=build,
    )


def find(version: str, implementation: str, preferred: Path) -> Interpreter:
    """An interpreter with the minor version of ``version``: ``preferred`` if it fits, else of PATH, else of uv.

    Raises :class:`EnvironmentNotRecreatableError` that names the version if this machine has none.
    """
    minor = minor_of(version)
    seen = []
    for candidate in _candidates(minor, implementation, preferred):
        try:
            found = identify(candidate)
        except EnvironmentNotRecreatableError:
            continue
        if (found.minor, found.implementation) == (minor, implementation):
            return found
        seen.append(f"{candidate} is {found.implementation} {found.version}")
    raise EnvironmentNotRecreatableError(
        f"the environment needs {implementation} {minor}, and this machine has none"
        + (f": {'; '.join(seen)}" if seen else ""),
        remedy=f"Install it (`uv python install {minor}`, or your system's package), or name one with --python.",
    )


def find_uv() -> str | None:
    """The program uv: of the extra ``locked``, beside this interpreter, or of PATH; none before ``OLDEST_UV``."""
    for folders in (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)):
        found = shutil.which("uv", path=folders)
        if found is not None and version_of([found]) >= OLDEST_UV:
            return found
    return None


def version_of(installer: Sequence[str]) -> tuple[int, ...]:
    """The version of uv or pip, as the command says; empty, and so earlier than any, if it says none."""
    try:
        done = subprocess.run(
            [*installer, "--version"],
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    said = re.match(rb"(uv|pip) ([0-9]{1,6}(\.[0-9]{1,6}){1,3})", done.stdout)
    return () if said is None else tuple(map(int, said[2].split(b".")))


def _candidates(minor: str, implementation: str, preferred: Path) -> Iterator[Path]:
    yield preferred
    stem = "pypy" if implementation == "pypy" else "python"
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        found = shutil.which(f"{stem}{minor}", path=folder) if folder else None
        if found is not None:
            yield Path(found)
    uv = find_uv()
    if uv is not None:
        command = [uv, "python", "find", "--offline", "--no-config", "--no-project", "--system"]
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("UV_", "VIRTUAL_ENV"))
        }
        done = subprocess.run(
            [*command, "--no-python-downloads", f"{implementation}@{minor}"],
            check=False,
            capture_output=True,
            text=True,
            env=kept,
            stdin=subprocess.DEVNULL,
            timeout=_SECONDS,
        )
        if done.returncode == 0 and re.fullmatch(r"/[^\n]+", done.stdout.strip()):
            yield Path(done.stdout.strip())
