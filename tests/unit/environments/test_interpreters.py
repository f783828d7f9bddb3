"""Which Python an environment is made with."""

from __future__ import annotations

import platform
import sys
import sysconfig
from pathlib import Path

import pytest

from bundler.environments import interpreters
from bundler.environments.interpreters import find, find_uv, identify, version_of
from bundler.errors import EnvironmentNotRecreatableError

HERE = sys.version.split()[0]
MINOR = interpreters.minor_of(HERE)


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def _no_uv(monkeypatch):
    monkeypatch.setattr(interpreters, "find_uv", lambda: None)


def test_an_interpreter_says_what_it_is():
    found = identify(Path(sys.executable))
    assert found.path == Path(sys.executable)
    assert (found.version, found.minor) == (HERE, MINOR)
    assert found.implementation == sys.implementation.name
    assert found.platform == sysconfig.get_platform()
    assert found.build == sys.version
    assert found.libc == " ".join(platform.libc_ver()).strip()


def test_a_shim_is_seen_through(tmp_path):
    shim = program(tmp_path, "python3", f'exec {sys.executable} "$@"')
    assert identify(shim).path == Path(sys.executable)


@pytest.mark.parametrize("output", ["{}", "[1]", "[1, 2, 3, 4, 5, 6]", "no JSON"])
def test_what_answers_like_no_interpreter_is_none(tmp_path, output):
    fake = program(tmp_path, "python3", f"echo '{output}'")
    with pytest.raises(EnvironmentNotRecreatableError, match="not a Python interpreter"):
        identify(fake)


def test_the_one_that_was_given_is_preferred():
    assert find(HERE, "cpython", Path(sys.executable)).path == Path(sys.executable)


@pytest.mark.usefixtures("_no_uv")
def test_else_one_of_the_path_is_taken_that_really_is_it(tmp_path, monkeypatch):
    program(tmp_path / "a", f"python{MINOR}", "exit 127")  # a shim without its Python
    program(tmp_path / "b", f"python{MINOR}", f'exec {sys.executable} "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}/a::{tmp_path}/b:/usr/bin:/bin")
    assert find(f"{MINOR}.99", "cpython", tmp_path / "none").path == Path(sys.executable)


@pytest.mark.usefixtures("_no_uv")
def test_where_there_is_none_the_ones_that_were_seen_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentNotRecreatableError, match=r"needs cpython 3\.99") as caught:
        find("3.99.0", "cpython", Path(sys.executable))
    assert f"cpython {HERE}" in caught.value.message
    with pytest.raises(EnvironmentNotRecreatableError, match="needs pypy"):
        find(HERE, "pypy", Path(sys.executable))


def test_uv_is_asked_last(tmp_path, monkeypatch):
    log = tmp_path / "asked"
    script = f'echo "$@" "$UV_PYTHON" >{log}; echo {sys.executable}'
    uv = program(tmp_path, "uv", script)
    monkeypatch.setattr(interpreters, "find_uv", lambda: str(uv))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("UV_PYTHON", "3.1")
    # uv answers with another version than it was asked for: it is not believed.
    with pytest.raises(EnvironmentNotRecreatableError, match=r"3\.98"):
        find("3.98.0", "cpython", tmp_path / "none")
    assert "--offline" in log.read_text()
    assert log.read_text().split()[-1] == "cpython@3.98"
    uv.write_text("#!/bin/sh\nexit 2\n")
    with pytest.raises(EnvironmentNotRecreatableError, match=r"3\.98"):
        find("3.98.0", "cpython", tmp_path / "none")


def test_the_real_uv_finds_an_interpreter(monkeypatch, tmp_path):
    uv = find_uv()
    assert uv, "uv is a development dependency"
    monkeypatch.setattr(interpreters, "find_uv", lambda: uv)
    monkeypatch.setattr(interpreters.shutil, "which", lambda *a, **k: None)
    monkeypatch.setenv("PATH", str(Path(sys._base_executable).parent))
    assert find(HERE, "cpython", tmp_path / "none").minor == MINOR


def test_uv_lies_beside_this_interpreter_or_on_the_path(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_uv() is None
    on_path = program(tmp_path, "uv", "echo 'uv 0.11.15 (x86_64-unknown-linux-gnu)'")
    assert find_uv() == str(on_path)
    beside = program(tmp_path / "bin", "uv", "echo uv 1.0.0")
    assert find_uv() == str(beside)


@pytest.mark.parametrize(
    "script",
    [
        "echo uv 0.5.0",
        "echo uv 0.11.14",
        "echo uv 0.11",
        "echo 1.0.0",
        "exit 1",
        "echo uv 9.9.9; exit 1",
    ],
)
def test_a_uv_that_writes_wherever_a_wheel_says_is_not_used(tmp_path, monkeypatch, script):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path / "bin", "uv", script)
    assert find_uv() is None
    newer = program(tmp_path, "uv", "echo uv 0.12.0")
    assert find_uv() == str(newer)


def test_installers_say_their_versions(tmp_path):
    assert version_of([find_uv()]) >= interpreters.OLDEST_UV
    assert version_of([sys.executable, "-I", "-m", "pip"]) >= interpreters.OLDEST_PIP
    assert version_of([str(program(tmp_path, "pip", "echo pip 26.1.1 from /x"))]) == (26, 1, 1)
    assert version_of([str(tmp_path / "none")]) == ()
