from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from bundler.environments import current, prepare
from bundler.environments.current import differences, facts_of, installed
from bundler.environments.interpreters import answer
from bundler.errors import EnvironmentNotRecreatableError
from tests.unit.environments.support import Bundle, make_wheel

PYTHON = Path("/opt/venv/bin/python")


def test_what_this_interpreter_sees():
    found = installed(Path(sys.executable)).versions
    assert found["python"] == sys.version.split()[0]
    assert found["pytest"] == version("pytest")
    assert found["typing-extensions"] == version("typing_extensions")


@pytest.mark.parametrize(
    "program", ["/no/such/python", "/bin/true", "/bin/echo", "/bin/false", "/"]
)
def test_what_is_no_interpreter(program):
    with pytest.raises(EnvironmentNotRecreatableError, match="not a Python interpreter") as caught:
        installed(Path(program))
    assert "--python" in caught.value.remedy


def test_missing_packages_come_with_the_command_that_installs_them():
    declared = {"torch": "2.13.0", "numpy": "2.0", "here": "1"}
    with pytest.raises(EnvironmentNotRecreatableError) as caught:
        differences(declared, {"here": "1"}, python=PYTHON)
    assert caught.value.exit_code == 4
    assert "2 declared packages" in caught.value.message
    assert f"{PYTHON} -m pip install numpy==2.0 torch==2.13.0" in caught.value.remedy


def test_conditional_packages_may_be_missing():
    declared = {"colorama": "1", "a": "1"}
    assert differences(declared, {"a": "1"}, python=PYTHON, conditional=["colorama"]) == ()
    (knob,) = differences(
        declared, {"a": "1", "colorama": "2"}, python=PYTHON, conditional=["colorama"]
    )
    assert knob.name == "package colorama"


@pytest.mark.parametrize(
    ("declared", "found", "differs"),
    [
        ("2.13.0", "2.13.0", False),
        ("2.13.0", "2.13.0+cpu", False),
        ("2.13.0+cpu", "2.13.0+cpu", False),
        ("2.13.0+cpu", "2.13.0", True),
        ("2.13.0+cpu", "2.13.0+cu121", True),
        ("2.13.0", "2.13.1", True),
        ("2.13.0", "2.13.0.post1", True),
    ],
)
def test_local_labels_count_where_they_are_declared(declared, found, differs):
    knobs = differences({"torch": declared}, {"torch": found}, python=PYTHON)
    assert bool(knobs) is differs
    if knobs:
        assert (knobs[0].declared, knobs[0].rerun) == (declared, found)


def test_the_verifiers_own_environment_is_compared_with_the_lock():
    lock = f"pytest=={version('pytest')}\nclick==0.0.1\npywin32==1 ; sys_platform == 'win32'\n"
    bundle = Bundle(lock=lock)
    python = Path(sys.executable)
    runtime = prepare("current", python=python, files=bundle, spec=bundle.spec, place=Path("/none"))
    assert (runtime.mode, runtime.python, runtime.interpreter) == ("current", str(python), python)
    assert [knob.name for knob in runtime.software] == ["package click"]
    assert runtime.facts["python"] == sys.version.split()[0]
    assert runtime.facts["packages_compared"] >= 2
    assert runtime.facts["packages"] == len(installed(python).versions) - 1
    assert len(runtime.facts["packages_sha256"]) == 64
    assert runtime.facts["software_sha256"] == installed(python).sha256


def test_without_a_lock_there_is_nothing_to_compare():
    bundle = Bundle()
    python = Path(sys.executable)
    runtime = prepare("current", python=python, files=bundle, spec=bundle.spec, place=Path("/none"))
    assert (runtime.software, runtime.facts["packages_compared"]) == ((), 0)


def test_facts_tell_environments_apart():
    versions = {"python": "3.11.7", "a": "1"}
    facts = facts_of(versions, "ab")
    assert facts == facts_of({"a": "1", "python": "3.11.7"}, "ab")
    assert facts != facts_of({"python": "3.11.7", "a": "2"}, "ab")
    assert facts != facts_of(versions, "cd")


@pytest.fixture(scope="module")
def venv(tmp_path_factory):
    """An environment with one package, and where its files lie."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    wheel = make_wheel(folder / "wheels")
    with zipfile.ZipFile(folder / "wheels" / wheel.filename) as archive:
        archive.extractall(site)
    return folder / "bin" / "python", site


def facts_here(python):
    bundle = Bundle()
    return prepare(
        "current", python=python, files=bundle, spec=bundle.spec, place=Path("/none")
    ).facts


def test_a_patched_package_of_the_same_version_is_other_software(venv):
    python, site = venv
    before = facts_here(python)
    assert before == facts_here(python)
    record = site / "tiny-1.0.dist-info" / "RECORD"
    text = record.read_text()
    record.write_text(text.replace("sha256=", "sha256=A", 1))
    after = facts_here(python)
    record.write_text(text)
    assert before["packages_sha256"] == after["packages_sha256"]
    assert before["software_sha256"] != after["software_sha256"]


@pytest.mark.parametrize("changed", range(5))
def test_another_build_or_machine_is_other_software(venv, monkeypatch, changed):
    python, _ = venv
    before = facts_here(python)

    def another(python, script):
        version, build, packages = answer(python, script)
        build[changed] += " of another machine"
        return version, build, packages

    monkeypatch.setattr(current, "answer", another)
    after = facts_here(python)
    assert {name for name in before if before[name] != after[name]} == {"software_sha256"}


def test_facts_are_small_and_hold_no_path_of_this_machine(venv):
    python, _ = venv
    for value in facts_here(python).values():
        assert isinstance(value, str | int)
        assert len(str(value)) <= 64
        assert "/" not in str(value)


def test_a_package_that_cannot_be_read_is_none_and_yet_makes_a_difference(venv):
    python, site = venv
    before = facts_here(python)
    hostile = site / "broken-1.0.dist-info"
    hostile.mkdir()
    (hostile / "METADATA").write_bytes(b"Name: \xff\xfe\nVersion: 1.0\n")
    (site / "nameless-1.0.dist-info").mkdir()
    after = facts_here(python)
    shutil.rmtree(hostile)
    (site / "nameless-1.0.dist-info").rmdir()
    assert before["packages"] == after["packages"] == 1
    assert before["software_sha256"] != after["software_sha256"]


def test_an_image_has_to_be_given():
    bundle = Bundle()
    with pytest.raises(EnvironmentNotRecreatableError, match="no image was given") as caught:
        prepare("image", python=PYTHON, files=bundle, spec=bundle.spec, place=Path("/none"))
    assert "--image" in caught.value.remedy


def test_an_image_that_is_given_is_used(tmp_path):
    bundle = Bundle()
    with pytest.raises(EnvironmentNotRecreatableError):
        prepare(
            "image",
            python=PYTHON,
            files=bundle,
            spec=bundle.spec,
            image=tmp_path / "no such image",
            place=tmp_path / "root",
        )
