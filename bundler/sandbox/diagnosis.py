"""Why a sandbox does not work here, and what to do about it, for each known cause."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_APPARMOR = "kernel/apparmor_restrict_unprivileged_userns"
_DEBIAN = "kernel/unprivileged_userns_clone"
_MAXIMUM = "user/max_user_namespaces"


def why_bubblewrap_fails(said: str, *, root: Path = Path("/")) -> tuple[str, str]:
    """Return (cause, remedy) for what ``bwrap`` ``said``; ``root`` is where to look for /proc."""
    sysctl = root / "proc/sys"
    if _read(sysctl / _APPARMOR) == "1":
        cause = "AppArmor restricts unprivileged user namespaces (Ubuntu 23.10 and later)"
        remedy = (
            "Allow them for bwrap: install the profile bwrap-userns-restrict (package"
            " apparmor-profiles), or run: sysctl kernel.apparmor_restrict_unprivileged_userns=0."
        )
    elif _read(sysctl / _DEBIAN) == "0" or _read(sysctl / _MAXIMUM) == "0":
        cause = "this kernel is set to refuse user namespaces"
        remedy = (
            "Set the sysctls kernel.unprivileged_userns_clone=1 and user.max_user_namespaces=15000."
        )
    elif _in_container(root):
        cause = "this looks like a container whose seccomp profile or masked /proc stops bwrap"
        remedy = (
            "Run the container with --security-opt seccomp=unconfined --security-opt"
            " apparmor=unconfined --security-opt systempaths=unconfined, run outside the container,"
            " or use sandlock."
        )
    else:
        cause = "it cannot make a sandbox"
        remedy = "Find out what `bwrap --ro-bind / / --unshare-all true` lacks."
    return f"{cause}: {said}", remedy


def _in_container(root: Path) -> bool:
    marks = (root / ".dockerenv", root / "run/.containerenv")
    filtered = "\nSeccomp:\t2\n" in _read(root / "proc/self/status")
    return filtered or any(mark.exists() for mark in marks)


def _read(path: Path) -> str:
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:
        return ""
    return text if "\n" in text.strip() else text.strip()


def last_lines(log: Path) -> list[str]:
    """The last lines of a job's log that say something, in ASCII, so that they cannot steer a terminal."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [ascii(line)[1:-1][:200] for line in lines if line.strip()]


def why_training_fails(lines: list[str], python: Path) -> Iterator[str]:
    """What the usual causes ask for, each with the newest line of the log that names it."""
    advice = {
        "Read-only file system": "only {out}, TMPDIR and the working folder, a throw-away copy of the code, can be"
        " written to",
        "No module named": f"install it for the interpreter of the re-run, {python}; --python names another",
        "DistNetworkError": "several processes talk over loopback, which sandlock refuses and bubblewrap allows",
    }
    for mark, remedy in advice.items():
        line = next((line for line in reversed(lines) if mark in line), None)
        if line is not None:
            yield f'The log says "{line.strip()}": {remedy}.'


def why_nothing_was_left(workspace: Path, location: str) -> str:
    """What to do if the output lies in the working folder instead; links there are not followed."""
    first = location.partition("/")[0]
    try:
        names = os.listdir(workspace)
    except OSError:
        return ""
    if first not in names:
        return ""
    return (
        f"The working folder, which is thrown away, has {first}: let the command write below {{out}}, such as"
        ' [sh, -c, "cd {out} && exec {python} {code}/train.py"].'
    )
