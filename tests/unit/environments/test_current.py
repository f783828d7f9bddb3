from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from bundler.environments import prepare
from bundler.environments.current import differences, facts_of, installed
from bundler.errors import EnvironmentNotRecreatableError
from tests.unit.environments.support import Bundle

PYTHON = Path("/opt/venv/bin/python")


def test_what_this_interpreter_sees():
    found = installed(Path(sys.executable))
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
    assert runtime.facts["packages"] == len(installed(python)) - 1
    assert len(runtime.facts["packages_sha256"]) == 64


def test_without_a_lock_there_is_nothing_to_compare():
    bundle = Bundle()
    python = Path(sys.executable)
    runtime = prepare("current", python=python, files=bundle, spec=bundle.spec, place=Path("/none"))
    assert (runtime.software, runtime.facts["packages_compared"]) == ((), 0)


def test_facts_tell_environments_apart():
    assert facts_of({"python": "3.11.7", "a": "1"}) == facts_of({"a": "1", "python": "3.11.7"})
    assert facts_of({"python": "3.11.7", "a": "1"}) != facts_of({"python": "3.11.7", "a": "2"})


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
