"""The verifier's own sh, env, nice and prlimit inside an image, whose own may be missing and are the provider's code.

They set the last limits before foreign code runs, so they come from this machine with the libraries and the loader
that they need, in a folder of their own: nothing of the image is loaded by them.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import SandboxUnavailableError

PLACE = "/.verifier"
"""The folder in a job's root that is the verifier's; images are not expected to have it."""

_NAMES = ("sh", "env", "nice", "prlimit")
_SYSTEM = "/usr/bin:/bin"
_LIBRARY = re.compile(r"^\s+(?P<name>\S+) => (?P<path>/\S+) \(0x", re.MULTILINE)
_LOADER = re.compile(r"^\s+(?P<path>/\S+) \(0x", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Helpers:
    """The programs ``names``; ``shown`` maps paths inside to files of this machine."""

    names: frozenset[str]
    loader: bool
    shown: Mapping[str, Path]

    def words(self, name: str) -> tuple[str, ...]:
        """How to start the program ``name`` inside; empty if this machine has none."""
        if name not in self.names:
            return ()
        program = f"{PLACE}/bin/{name}"
        # The loader is named, because the one at its usual path would be that of the image.
        return (
            (f"{PLACE}/ld.so", "--library-path", f"{PLACE}/lib", program)
            if self.loader
            else (program,)
        )


@functools.cache
def find() -> Helpers:
    """Look for the helpers and what they need. Raises :class:`SandboxUnavailableError` without sh and env."""
    programs = {name: shutil.which(name, path=_SYSTEM) for name in _NAMES}
    found = {name: Path(path).resolve() for name, path in programs.items() if path}
    ldd = shutil.which("ldd", path=_SYSTEM)
    if not {"sh", "env"} <= found.keys() or ldd is None:
        raise SandboxUnavailableError(
            "bubblewrap: /usr/bin has no sh, env or ldd, which a job in an image needs",
            remedy="Install coreutils and the C library's programs (libc-bin, glibc-common).",
        )
    said = subprocess.run(
        [ldd, *map(str, found.values())], capture_output=True, text=True, check=False, env={}
    ).stdout
    return closure(found, said)


def closure(programs: Mapping[str, Path], said: str) -> Helpers:
    """The helpers, by what ``ldd`` said of them. None of them needs a loader if all are linked statically."""
    shown = {f"{PLACE}/bin/{name}": path for name, path in programs.items()}
    for match in _LIBRARY.finditer(said):
        shown[f"{PLACE}/lib/{Path(match['name']).name}"] = Path(match["path"])
    loader = _LOADER.search(said)
    if loader is not None:
        shown[f"{PLACE}/ld.so"] = Path(loader["path"])
    return Helpers(names=frozenset(programs), loader=loader is not None, shown=shown)
