"""A requirements file with hashes says by itself which wheels to install; other locks need wheels.json."""

from __future__ import annotations

import pytest

from bundler.environments.hashed import choose, pins_of
from bundler.errors import EnvironmentNotRecreatableError
from bundler.lockfiles import parse
from tests.unit.environments.support import make_wheel

DIGEST = "ab" * 32


def pins(text, name="requirements.txt"):
    return pins_of(parse(name, text.encode()), text)


def test_every_spelling_of_pip_and_uv_is_read():
    found = pins(
        f"# made by uv\n--index-url x\nTiny_One==1.0 \\\n    --hash=sha256:{DIGEST} \\\n"
        f"    --hash=sha256:{'cd' * 32}\n    # via nothing\n"
        f"win==2 ; sys_platform == 'win32' --hash sha256:{DIGEST}\n"
    )
    assert [(pin.name, pin.version, pin.conditional) for pin in found] == [
        ("tiny-one", "1.0", False),
        ("win", "2", True),
    ]
    assert [len(pin.sha256) for pin in found] == [2, 1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tiny==1.0\n", "SHA-256: tiny"),
        (f"tiny==1.0 --hash=md5:{'ab' * 16}\n", "SHA-256: tiny"),
        (f"tiny==1.0 --hash=sha256:{DIGEST}00\n", "SHA-256: tiny"),
        (f"tiny>=1.0 --hash=sha256:{DIGEST}\n", "SHA-256: tiny>=1.0"),
        (f"-e .\ntiny==1.0 --hash=sha256:{DIGEST}\n", "SHA-256: -e ."),
        ("# nothing\n", "SHA-256: no package"),
    ],
)
def test_what_pins_too_little_is_refused(text, problem):
    with pytest.raises(EnvironmentNotRecreatableError, match=problem) as caught:
        pins(text)
    assert "training.wheels" in caught.value.remedy


def test_another_format_is_named_with_the_way_out():
    with pytest.raises(EnvironmentNotRecreatableError, match=r"from uv\.lock") as caught:
        pins("version = 1\n", "uv.lock")
    assert "capture-wheels" in caught.value.remedy


def test_several_wheels_of_one_version_are_left_to_the_installer(tmp_path):
    one = make_wheel(tmp_path)
    other = make_wheel(tmp_path, tag="py311-none-any")
    hashes = f"--hash=sha256:{one.sha256} --hash=sha256:{other.sha256}"
    assert len(choose(pins(f"tiny==1.0 {hashes}\n"), tmp_path)) == 2


def test_wheels_without_a_listed_hash_or_of_another_version_do_not_count(tmp_path):
    make_wheel(tmp_path, version="2.0")
    make_wheel(tmp_path)
    (tmp_path / "no-wheel.whl").touch()
    (tmp_path / "folder-1.0-py3-none-any.whl").mkdir()
    lock = pins(f"tiny==1.0 --hash=sha256:{DIGEST}\n")
    with pytest.raises(EnvironmentNotRecreatableError, match=r"tiny==1\.0") as caught:
        choose(lock, tmp_path)
    assert "pip download" in caught.value.remedy


def test_a_wheel_below_a_folder_of_another_name_than_its_digest_does_not_count(tmp_path):
    wheel = make_wheel(tmp_path / "cache")
    lock = pins(f"tiny==1.0 --hash=sha256:{wheel.sha256}\n")
    with pytest.raises(EnvironmentNotRecreatableError):
        choose(lock, tmp_path)
    (tmp_path / "cache").rename(tmp_path / wheel.sha256)
    assert [each.filename for each in choose(lock, tmp_path)] == [wheel.filename]


def test_a_conditional_package_without_a_wheel_is_left_out(tmp_path):
    wheel = make_wheel(tmp_path)
    lock = pins(
        f"tiny==1.0 --hash=sha256:{wheel.sha256}\n"
        f"win==1.0 ; sys_platform == 'win32' --hash=sha256:{DIGEST}\n"
    )
    assert [each.name for each in choose(lock, tmp_path)] == ["tiny"]


def test_two_versions_that_both_are_there_are_not_guessed(tmp_path):
    old, new = make_wheel(tmp_path), make_wheel(tmp_path, version="2.0")
    lock = pins(
        f"tiny==1.0 ; python_version < '3.8' --hash=sha256:{old.sha256}\n"
        f"tiny==2.0 ; python_version >= '3.8' --hash=sha256:{new.sha256}\n"
    )
    with pytest.raises(EnvironmentNotRecreatableError, match="several versions of tiny"):
        choose(lock, tmp_path)
