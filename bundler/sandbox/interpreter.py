"""Which host folders a Python executable needs to be able to start inside a sandbox."""

from __future__ import annotations

from pathlib import Path

from bundler.errors import UsageError


def prefixes(executable: Path) -> dict[Path, Path]:
    """Map each path that must exist inside to the host folder to show there, outside of ``/usr``.

    These are the virtual environment (if any) and the base installation, the latter also under the
    names by which ``pyvenv.cfg`` and the links of ``bin/`` call it. Raises
    :class:`bundler.errors.UsageError` if ``executable`` is no Python installation of its own (for
    instance one whose prefix is a home folder, which must never be shown).
    """
    executable = executable.absolute()
    real = executable.resolve()
    if not real.is_file():
        raise UsageError(f"there is no Python interpreter at {executable}")
    base = real.parent.parent
    wanted: dict[Path, Path] = {}
    venv = executable.parent.parent
    config = venv / "pyvenv.cfg"
    names = list(_link_prefixes(executable))
    if config.is_file():
        wanted[venv] = venv.resolve()
        names += [home.parent for home in _homes(config)]
    if _in_usr(base):
        return wanted
    if base == Path.home().resolve() or not list(base.glob("lib/python3*/os.py")):
        raise UsageError(
            f"{base} is not a folder that holds only a Python installation",
            remedy="Use an interpreter with a prefix of its own (uv, pyenv, conda, the system's).",
        )
    aliases = [name for name in names if name != base and name.resolve() == base]
    return wanted | dict.fromkeys([base, *aliases], base)


def _link_prefixes(executable: Path) -> list[Path]:
    """The prefix of every file on the chain of links from ``executable`` to the real one."""
    found = []
    for _ in range(40):  # the kernel's own limit
        found.append(executable.parent.parent)
        if not executable.is_symlink():
            break
        executable = executable.parent / executable.readlink()
    return found


def _homes(config: Path) -> list[Path]:
    lines = (line.partition("=") for line in config.read_text("utf-8", "replace").splitlines())
    return [Path(value.strip()) for key, _, value in lines if key.strip() == "home"]


def _in_usr(base: Path) -> bool:
    return base == Path("/") or base == Path("/usr") or Path("/usr") in base.parents
