from __future__ import annotations

import pytest

from bundler.environment import differences
from bundler.lockfiles import Difference, agrees, compare, parse, parse_requirements

LOCK = parse_requirements(
    "numpy==2.4.6\ntorch==2.13.0\ntyping_extensions==4.12\n"
    "colorama==0.4.6; sys_platform=='win32'\n"
    "click==8.1.8; python_version<'3.12'\nclick==8.3.1; python_version>='3.12'\n"
)
ALL = {
    "packages.numpy": "2.4.6",
    "packages.torch": "2.13.0+cpu",
    "packages.typing-extensions": "4.12",
    "packages.click": "8.3.1",
    "packages.colorama": "0.4.6",
}


def test_a_run_with_what_the_lock_says():
    assert compare(LOCK, ALL) == ()


@pytest.mark.parametrize(
    "key",
    [
        "packages.Typing_Extensions",
        "versions.typing.extensions",
        "typing_extensions",
        "typing-extensions_version",
        "typing_extensions.version",
    ],
)
def test_spellings_of_a_recorded_package(key):
    recorded = {**ALL, key: "4.13"}
    if not key.startswith("packages."):
        del recorded["packages.typing-extensions"]
    (difference,) = compare(LOCK, {**recorded, key: "4.13"})
    assert difference == Difference(
        kind="another version",
        package="typing-extensions",
        locked=("4.12",),
        recorded="4.13",
    )


def test_any_version_that_the_lock_allows_will_do():
    assert compare(LOCK, {**ALL, "packages.click": "8.1.8"}) == ()
    (difference,) = compare(LOCK, {**ALL, "packages.click": "8.2"})
    assert difference.locked == ("8.1.8", "8.3.1")


def test_what_was_installed_and_is_not_in_the_lock():
    (difference,) = compare(LOCK, {**ALL, "versions.scikit-learn": "1.9.1"})
    assert (difference.kind, difference.package) == ("not in the lock", "scikit-learn")


def test_what_an_environment_holds_besides_is_no_package():
    recorded = {**ALL, "cuda": None, "threads": 1, "platform": "Linux", "python": "3.11.7"}
    assert compare(LOCK, recorded | {"packages.python": "3.11.7", "packages.x": ""}) == ()


def test_what_is_in_the_lock_and_was_not_recorded_is_counted():
    found = compare(LOCK, {"versions.numpy": "2.4.6"})
    assert [(each.kind, each.package, each.count) for each in found] == [
        ("not recorded", "torch", 2),
        ("not recorded, conditional", "click", 2),
    ]


def test_python_is_compared_with_a_lock_of_conda():
    url = "https://conda.anaconda.org/conda-forge/linux-64/python-3.12.7-h1_0.conda"
    lock = parse("x", f"@EXPLICIT\n{url}\n".encode())
    assert compare(lock, {"python": "3.12.7 | packaged by someone"}) == ()
    (difference,) = compare(lock, {"python_version": "3.11.7"})
    assert difference.recorded == "3.11.7"


@pytest.mark.parametrize(
    ("locked", "found", "same"),
    [
        ("2.13.0", "2.13.0", True),
        ("2.13.0", "2.13.0+cpu", True),
        ("2.13.0+cpu", "2.13.0+cpu", True),
        ("2.13.0+cpu", "2.13.0", False),
        ("2.13.0", "2.13.0.post1", False),
    ],
)
def test_local_labels_count_where_they_are_declared(locked, found, same):
    assert agrees(locked, found) is same


def test_a_rerun_may_have_any_version_that_the_lock_allows(tmp_path):
    declared = LOCK.versions
    found = {"numpy": "2.4.6", "torch": "2.13.0", "typing-extensions": "4.12", "click": "8.1.8"}
    assert differences(declared, found, python=tmp_path, conditional=LOCK.conditional) == ()
    (knob,) = differences(
        declared, {**found, "click": "9"}, python=tmp_path, conditional=LOCK.conditional
    )
    assert (knob.declared, knob.rerun) == ("8.1.8 or 8.3.1", "9")
