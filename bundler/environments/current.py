"""The software that a re-run uses, compared with what the bundle declares, package by package."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path

from bundler.errors import EnvironmentNotRecreatableError
from bundler.lockfiles import agrees, normalise
from bundler.report import Knob

# Isolated mode: neither the user's site-packages nor PYTHON* variables decide what is seen.
_LIST = (
    "import importlib.metadata as m, json, sys;"
    "print(json.dumps([sys.version.split()[0],"
    # What comes first on the path is what is imported; in a dict, the last of a name stays.
    " [[d.name, d.version] for d in m.distributions() if d.name][::-1]]))"
)


def installed(python: Path) -> dict[str, str]:
    """Normalised name → version of the packages that ``python`` sees, and ``python`` itself.

    Raises :class:`EnvironmentNotRecreatableError` if the interpreter does not run.
    """
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", _LIST], check=True, capture_output=True, timeout=60
        )
        version, packages = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        raise EnvironmentNotRecreatableError(
            f"{python} is not a Python interpreter that runs",
            remedy="Give --python the interpreter of an environment with the declared packages.",
        ) from None
    return {"python": version, **{normalise(name): found for name, found in packages}}


def differences(
    declared: Mapping[str, str | tuple[str, ...]],
    found: Mapping[str, str],
    *,
    python: Path,
    conditional: Collection[str] = (),
    lock: str = "data/environment/requirements.txt",
) -> tuple[Knob, ...]:
    """Packages in another version than declared: none of those that the lock allows, if it allows several.

    A local label (``+cpu``) counts only where it is declared. ``lock`` is the path of the list in the bundle. Raises
    :class:`EnvironmentNotRecreatableError` if a declared package is not installed at all, unless it is one of the
    ``conditional`` ones, which need not be.
    """
    versions = {name: (each,) if isinstance(each, str) else each for name, each in declared.items()}
    missing = sorted(name for name in versions if name not in found and name not in conditional)
    if missing:
        pins = " ".join(f"{name}=={versions[name][0]}" for name in missing[:8])
        raise EnvironmentNotRecreatableError(
            f"{len(missing)} declared packages are not installed for {python}: {', '.join(missing[:8])}",
            remedy=f"Install the declared versions: {python} -m pip install {pins}"
            f" (the whole list is {lock} in the bundle).",
        )
    return tuple(
        Knob(name=f"package {name}", declared=" or ".join(allowed), rerun=found[name])
        for name, allowed in sorted(versions.items())
        if name in found and not any(agrees(version, found[name]) for version in allowed)
    )
