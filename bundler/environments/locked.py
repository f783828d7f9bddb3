"""The environment of the training, recreated offline from wheels whose hashes the signed bundle has.

uv or pip unpack the wheels and run nothing of them. The interpreter of the new environment is not started outside the
sandbox either, not even to ask it what it has: Python runs the ``.pth`` files of its packages when it starts.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bundler.environments import hashed, interpreters, wheels
from bundler.environments.current import (
    Files,
    compared,
    digest_of,
    facts_of,
    lock_of,
    other_versions,
)
from bundler.environments.interpreters import Interpreter
from bundler.environments.model import Runtime
from bundler.environments.wheels import Wheel, WheelList
from bundler.errors import EnvironmentNotRecreatableError, MalformedError, quoted
from bundler.lockfiles import Lock, normalise
from bundler.report import Knob
from bundler.sandbox.removal import remove
from bundler.spec import TrainingSpec
from bundler.storage.hashing import digest_bytes

_SECONDS = 3600
_NAMED = 8
"""How many packages a message names."""

_PIP = ("-I", "-m", "pip", "--isolated", "--disable-pip-version-check", "--no-input")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What to install, and for which interpreter; ``listed`` is the bundle's list of wheels, if it has one."""

    interpreter: Interpreter
    wheels: tuple[Wheel, ...]
    listed: WheelList | None
    identity: str


def prepare(
    *, python: Path, files: Files, spec: TrainingSpec, wheelhouse: Path | None, place: Path
) -> Runtime:
    """Make a virtual environment in ``place`` of exactly the wheels that the bundle lists, found in ``wheelhouse``.

    ``python`` is the interpreter to use if its minor version is the declared one. No network is used. Raises
    :class:`EnvironmentNotRecreatableError` that says what is missing, :class:`bundler.errors.MalformedError` for a list
    of wheels or a lock that is not valid.
    """
    lock = lock_of(files, spec)
    wheelhouse = _given(wheelhouse, spec, lock)
    wanted = _wanted(python, files, spec, lock, wheelhouse)
    _refuse_incomplete(lock, wanted)
    place.mkdir(parents=True, exist_ok=True)
    place = place.resolve()
    venv = place / "venv"
    passing = [place / name for name in ("wheels", "cache", "tmp")]
    try:
        for folder in passing:
            folder.mkdir()
        _lay_out(wanted.wheels, wheelhouse, passing[0])
        _examine(wanted.wheels, passing[0])
        installer = _install(wanted, place, venv)
    finally:
        for folder in passing:
            remove(folder)
        (place / "requirements.txt").unlink(missing_ok=True)
    _open_to_all(venv)
    software = [*_interpreter_knobs(wanted), *_lock_knobs(files, spec, lock, wanted)]
    found = {"python": wanted.interpreter.version, **installed_below(venv)}
    return Runtime(
        mode="locked",
        python=str(venv / "bin" / "python"),
        interpreter=venv / "bin" / "python",
        software=tuple(software),
        facts={
            **facts_of(found, _software(wanted)),
            "packages_compared": compared(lock, found),
            "wheels": len(wanted.wheels),
            "wheels_sha256": wanted.identity,
            "installer": installer,
            "libc": wanted.interpreter.libc,
        },
    )


def _given(wheelhouse: Path | None, spec: TrainingSpec, lock: Lock | None) -> Path:
    """The wheelhouse, if there is one and the bundle has a list that says what to take from it."""
    if spec.wheels is None and lock is None:
        raise EnvironmentNotRecreatableError(
            "the bundle lists neither wheels nor packages, so there is nothing to recreate the environment from",
            remedy="Use --environment current, or image if you have the image.",
        )
    if wheelhouse is None or not wheelhouse.is_dir():
        where = "" if wheelhouse is None else f"; {wheelhouse} is no folder"
        raise EnvironmentNotRecreatableError(
            f"the environment is recreated offline, and that needs a folder with its wheels{where}",
            remedy="Give --wheelhouse DIR. Get the wheels from the provider, or where there is a network:"
            " bundler capture-wheels -o DIR --listed BUNDLE/"
            f"{spec.wheels or 'data/environment/wheels.json'}",
        )
    return wheelhouse


def installed_below(venv: Path) -> dict[str, str]:
    """Normalised name → version of what lies in ``venv``, read from its files: its interpreter is not started.

    What cannot be read is left out.
    """
    folders = sorted({str(each.resolve()) for each in venv.glob("lib*/*/site-packages")})
    found = {}
    for each in importlib.metadata.distributions(path=folders):
        # Of METADATA that is no text, that is none (None or KeyError, by the version of Python), or cannot be opened.
        with suppress(ValueError, OSError, LookupError, TypeError, AttributeError):
            name, version = each.metadata["Name"], each.metadata["Version"]
            if name and version:
                found[normalise(str(name))] = str(version)
    return found


def _software(wanted: _Wanted) -> str:
    """A SHA-256 over the digests of the wheels and the build of the interpreter; where they lie makes no difference."""
    here = wanted.interpreter
    return digest_of([wanted.identity, here.build, here.platform, here.libc])


def _wanted(
    python: Path, files: Files, spec: TrainingSpec, lock: Lock | None, wheelhouse: Path
) -> _Wanted:
    if spec.wheels is not None:
        data = files.read(spec.wheels)
        listed = wheels.parse(data, name=spec.wheels)
        return _Wanted(
            interpreter=interpreters.find(listed.python, listed.implementation, python),
            wheels=listed.wheels,
            listed=listed,
            identity=digest_bytes(data),
        )
    if lock is None or spec.lock is None:
        raise AssertionError
    pins = hashed.pins_of(lock, files.read(spec.lock).decode("utf-8-sig", "replace"))
    chosen = hashed.choose(pins, wheelhouse)
    return _Wanted(
        interpreter=interpreters.identify(python),
        wheels=chosen,
        listed=None,
        identity=digest_bytes(wheels.requirements(chosen).encode()),
    )


def _refuse_incomplete(lock: Lock | None, wanted: _Wanted) -> None:
    """A list of wheels that lacks packages of the lock would be another environment than the declared one."""
    if lock is None:
        return
    absent = wheels.lacking(wanted.wheels, lock)
    if absent:
        raise EnvironmentNotRecreatableError(
            f"the bundle's list of wheels lacks {len(absent)} packages of its lock: {_some(absent)}",
            remedy="The provider has to list them: bundler capture-wheels --lock LOCK. Or use --environment current.",
        )


def _interpreter_knobs(wanted: _Wanted) -> Iterable[Knob]:
    listed, interpreter = wanted.listed, wanted.interpreter
    if listed is None:
        return
    for name, declared, used in (
        ("python", listed.python, interpreter.version),
        ("platform", listed.platform, interpreter.platform),
        ("libc", listed.libc, interpreter.libc),
    ):
        if declared and declared != used:
            yield Knob(name=f"environment {name}", declared=declared, rerun=used)


def _lock_knobs(
    files: Files, spec: TrainingSpec, lock: Lock | None, wanted: _Wanted
) -> Iterable[Knob]:
    """Where the two lists of the bundle say different things: another version, or another file of the same version."""
    if lock is None or spec.lock is None:
        return
    yield from other_versions(lock.versions, {each.name: each.version for each in wanted.wheels})
    if lock.format == "requirements.txt":
        text = files.read(spec.lock).decode("utf-8-sig", "replace")
        yield from hashed.contradictions(text, wanted.wheels)


def _lay_out(wanted: Sequence[Wheel], wheelhouse: Path, folder: Path) -> None:
    """Put exactly the wanted wheels into ``folder``, each held against its digest: the installer sees no other file."""
    absent, altered = [], []
    for wheel in wanted:
        sources = [each for each in wheels.places_of(wheelhouse, wheel) if each.is_file()]
        if not sources:
            absent.append(wheel.filename)
        elif not any(_brought(source, folder / wheel.filename, wheel) for source in sources):
            altered.append(wheel.filename)
    if absent:
        raise EnvironmentNotRecreatableError(
            f"{wheelhouse} lacks {len(absent)} wheels: {_some(absent)}",
            remedy="Get them from the provider, or where there is a network with `bundler capture-wheels --listed`.",
        )
    if altered:
        raise EnvironmentNotRecreatableError(
            f"{len(altered)} wheels are not those that the bundle lists, their SHA-256 differs: {_some(altered)}",
            remedy=f"Remove them from {wheelhouse} and get them anew. The bundle's digests are signed.",
        )


def _examine(wanted: Sequence[Wheel], folder: Path) -> None:
    """Look into all wheels before anything of one is written, and ask whether there is room for them."""
    unpacked, free = 0, shutil.disk_usage(folder).free
    for wheel in wanted:
        try:
            unpacked += wheels.examine(folder / wheel.filename, wheel.name, wheel.version)
        except MalformedError as error:
            raise EnvironmentNotRecreatableError(
                f"a wheel is not safe to unpack: {error.message}",
                remedy="Report it to the provider: the bundle lists this wheel.",
            ) from None
        if unpacked > free:
            raise EnvironmentNotRecreatableError(
                f"the environment takes {unpacked >> 20:,} MiB or more, and {folder.parent} has"
                f" {free >> 20:,} MiB left",
                remedy="Free some space, or set TMPDIR or --keep to a larger disk.",
            )


def _brought(source: Path, target: Path, wheel: Wheel) -> bool:
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or a file of somebody else
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            raise EnvironmentNotRecreatableError(
                f"cannot read {source}: {error.strerror}", remedy="Check its permissions."
            ) from None
    return wheels.is_whole(target, wheel)


def _install(wanted: _Wanted, place: Path, venv: Path) -> str:
    """Make ``venv`` with uv, or with venv and pip where there is no uv; return the name of what did it."""
    listed = place / "requirements.txt"
    listed.write_text(wheels.requirements(wanted.wheels), "utf-8")
    uv = interpreters.find_uv()
    source = ["--no-index", "--find-links", str(place / "wheels"), "--require-hashes"]
    source += ["--only-binary", ":all:"]
    base, python = str(wanted.interpreter.path), str(venv / "bin" / "python")
    if uv is not None:
        alone = ["--offline", "--no-config", "--quiet", "--cache-dir", str(place / "cache")]
        empty = [uv, "venv", *alone, "--no-project", "--no-python-downloads", "--python", base]
        full = [uv, "pip", "sync", *alone, *source, "--no-compile-bytecode", "--python", python]
        installer = "uv"
    else:
        _refuse_without_pip()
        empty = [base, "-I", "-m", "venv", "--without-pip"]
        full = [sys.executable, *_PIP, "--python", python, "install", "--quiet", *source]
        full += ["--no-deps", "--no-compile", "--no-cache-dir", "-r"]
        installer = "pip"
    _run([*empty, str(venv)], place, wanted)
    before = _interpreter_files(venv)
    _run([*full, str(listed)], place, wanted)
    if _interpreter_files(venv) != before:
        raise EnvironmentNotRecreatableError(
            "a wheel replaced a part of the environment's interpreter",
            remedy="Report it to the provider: the bundle lists this wheel.",
        )
    return installer


def _run(command: list[str], place: Path, wanted: _Wanted) -> None:
    """Run an installer that knows nothing of this machine: no configuration, no variables, no network settings."""
    environment = {
        "HOME": str(place / "cache"),
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        "PATH": os.defpath,
        "PIP_CONFIG_FILE": os.devnull,
        "TMPDIR": str(place / "tmp"),
    }
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_installed(Path(command[0]).name, str(error), wanted) from None
    if done.returncode != 0:
        words = " ".join(done.stderr.decode("utf-8", "replace").split())
        raise _not_installed(Path(command[0]).name, words, wanted)


def _not_installed(program: str, words: str, wanted: _Wanted) -> EnvironmentNotRecreatableError:
    here, listed = wanted.interpreter, wanted.listed
    made = (
        f" They were made for {listed.platform} with {listed.libc or 'an unknown libc'},"
        if listed
        else ""
    )
    remedy = f"Can the wheels be used here?{made} this is {here.platform} with {here.libc or 'another libc'}."
    return EnvironmentNotRecreatableError(
        f"{program} could not install the wheels: {quoted(words[-480:], 500)}",
        remedy=f"{remedy} Else use --environment image.",
    )


def _refuse_without_pip() -> None:
    # Asked of our own interpreter; find_spec would do, if pip could not be broken.
    if interpreters.version_of([sys.executable, *_PIP]) < interpreters.OLDEST_PIP:
        uv, pip = (
            ".".join(map(str, each)) for each in (interpreters.OLDEST_UV, interpreters.OLDEST_PIP)
        )
        raise EnvironmentNotRecreatableError(
            f"neither uv {uv} nor pip {pip}, or a later one, is installed beside this program: earlier ones write"
            " wherever a wheel says",
            remedy="Install uv: pip install --upgrade 'aisdp-bundler[locked]'.",
        )


def _interpreter_files(venv: Path) -> dict[str, str]:
    """What makes the environment an environment: the links to the interpreter, and its configuration."""
    found = {"pyvenv.cfg": (venv / "pyvenv.cfg").read_bytes().hex()}
    for path in (*sorted((venv / "bin").glob("py*")), *sorted(venv.glob("lib*"))):
        if path.is_symlink():
            found[str(path.relative_to(venv))] = str(path.readlink())
    for name in ("python", "python3"):
        path = venv / "bin" / name
        found.setdefault(f"bin/{name}", "" if not path.is_file() else path.read_bytes().hex())
    return found


def _open_to_all(folder: Path) -> None:
    """Let every user read ``folder``: the sandbox runs jobs of root under another one. Set-uid bits are taken away."""
    for root, _, names in os.walk(folder):
        Path(root).chmod(0o755)
        for name in names:
            path = Path(root) / name
            with suppress(OSError):
                mode = path.lstat().st_mode
                if stat.S_ISREG(mode):
                    path.chmod(0o755 if mode & stat.S_IXUSR else 0o644)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
