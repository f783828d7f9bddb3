from __future__ import annotations

import pytest

from bundler.environments.current import differences
from bundler.facts import CAPTURE_FORMAT
from bundler.lockfiles import Difference, agrees, compare, parse, parse_requirements
from bundler.lockfiles.comparison import CAPTURED, INSTALLERS

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
    assert compare(lock, {"versions.python": "3.12.7"}) == ()
    (difference,) = compare(lock, {"versions.python": "3.11.7"})
    assert (difference.kind, difference.package) == ("another version", "python")


CHANNEL = "https://conda.anaconda.org/conda-forge/linux-64"
CONDA = parse(
    "x",
    f"@EXPLICIT\n{CHANNEL}/python-3.12.7-h1_0.conda\n{CHANNEL}/cuda-runtime-12.1.0-0.conda\n"
    f"{CHANNEL}/nccl-2.19.3.1-0.conda\n{CHANNEL}/cudnn-8.9.7.29-0.conda\n{CHANNEL}/host-1-0.conda\n"
    f"{CHANNEL}/cuda-version-12.1-0.conda\n{CHANNEL}/numpy-1.26.4-py312_0.conda\n".encode(),
)
FACTS = {
    "cuda.runtime": "12.1",
    "cuda_runtime": "12.1",
    "nccl": "2.19.3",
    "cudnn_version": "8.9",
    "host": "node-7",
    "platform": "Linux",
}
OTHERS = {"another version", "not in the lock"}


def others(lock, recorded):
    return [(e.kind, e.package) for e in compare(lock, recorded) if e.kind in OTHERS]


def test_what_our_own_capture_says_of_the_machine_is_no_package():
    assert CAPTURED == CAPTURE_FORMAT
    captured = {
        **FACTS,
        "format": CAPTURED,
        "python": "3.12.7",
        "versions.numpy": "1",
        "numpy": "1",
    }
    assert others(CONDA, captured | {"packages.numpy": "1.26.4", "packages.pip": "24.0"}) == []
    assert others(LOCK, captured) == []
    assert others(CONDA, captured | {"python": "3.11.7", "packages.nccl": "2"}) == [
        ("another version", "nccl"),
        ("another version", "python"),
    ]


def test_a_package_of_conda_is_compared_with_what_is_called_a_package_alone():
    assert others(CONDA, {**FACTS, "numpy": "1"}) == []
    assert others(CONDA, {"versions.numpy": "1", "packages.host": "2"}) == [
        ("another version", "host"),
        ("another version", "numpy"),
    ]


@pytest.mark.parametrize(
    "name",
    ["cuda", "cuda_version", "cudnn", "cuda.runtime", "nccl", "os", "platform", "python", "python_version"],
)  # fmt: skip
def test_what_scripts_list_among_versions_and_is_no_package(name):
    recorded = {f"versions.{name}": "3.12.7"}
    assert others(LOCK, recorded) == []
    assert others(CONDA, recorded) == []


@pytest.mark.parametrize("name", [*sorted(INSTALLERS), "pkg_resources", "python"])
def test_what_installs_the_packages_is_not_missed_in_the_lock(name):
    assert others(LOCK, {f"packages.{name}": "1"}) == []
    assert others(LOCK, {f"versions.{name}": "1"}) == []
    assert others(LOCK, {"format": CAPTURED, f"packages.{name}": "1"}) == []


def test_an_installer_in_the_lock_is_compared_as_any_other():
    assert others(parse_requirements("setuptools==70.0"), {"packages.setuptools": "65"}) == [
        ("another version", "setuptools")
    ]


def test_another_spelling_of_a_version_is_no_other_version():
    lock = parse_requirements("certifi==2024.2.2\nx==1.0.0rc1")
    recorded = {"packages.certifi": "2024.02.02", "packages.x": "1.0.0.rc1"}
    assert compare(lock, recorded) == ()


@pytest.mark.parametrize(
    ("locked", "found"),
    [
        ("2024.2.2", "2024.02.02"),
        ("1.0", "1.0.0"),
        ("1", "1.0.0"),
        ("0", "0.0"),
        ("v1.0", "1"),
        ("1.0.0rc1", "1.0.0.rc1"),
        ("1.0.0rc1", "1.0.0-RC1"),
        ("1.0rc1", "1.0c1"),
        ("1.0rc1", "1.0_preview_01"),
        ("1.0a0", "1.0-alpha"),
        ("1.0b2", "1.0.beta.2"),
        ("1.0.post1", "1.0-1"),
        ("1.0.post1", "1.0r1"),
        ("1.0.post1", "1.0.rev01"),
        ("1.0.post0", "1.0post"),
        ("1.0.dev0", "1.0-DEV"),
        ("1.0a1.post2.dev3", "1.0-alpha-1-2_dev3"),
        ("0!1.0", "1.0"),
        ("1!1.0", "01!1"),
        ("2.13.0", "2.13+cpu"),
        ("1.0+ubuntu-1", "1.0.0+Ubuntu.01"),
        ("1.1.1w", "1.1.1W"),
        ("9_2", "9.2"),
        ("1!9_2_x", "1!9.2.x"),
        ("0!9x_1", "9x.1"),
        ("1.0." + "0" * 5_000, "1"),
    ],
)
def test_spellings_of_one_version(locked, found):
    assert agrees(locked, found)
    assert "+" in found or agrees(found, locked)


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ("1.0", "1.0.1"),
        ("1!1.0", "1.0"),
        ("1!9x", "9x"),
        ("1.0", "1.0rc1"),
        ("1.0a1", "1.0b1"),
        ("1.0", "1.0.post1"),
        ("1.0", "1.0.post0"),
        ("1.0", "1.0.dev0"),
        ("1.0.post1", "1.0.1"),
        ("10", "1"),
        ("1.10", "1.1"),
        ("0", "1"),
        ("1.1.1w", "1.1.1"),
        ("1.1.1w", "1.1.1v"),
        ("1.0+a", "1.0+b"),
        ("1", "\u0661"),
        ("", "1"),
        ("9" * 5_000, "9" * 5_001),
    ],
)
def test_other_versions(one, another):
    assert not agrees(one, another)
    assert not agrees(another, one)


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
