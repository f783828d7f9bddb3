"""``wheels.json`` says which bytes are meant, and what it says is not believed before it was looked at."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler import canonical, codec
from bundler.environments import wheels
from bundler.environments.wheels import (
    Wheel,
    examine,
    lacking,
    named,
    parse,
    requirements,
    serialise,
)
from bundler.errors import MalformedError
from bundler.lockfiles import parse_requirements
from tests.unit.environments.support import listing, make_wheel

DIGEST = "ab" * 32
TORCH = Wheel(
    name="torch",
    version="2.13.0+cpu",
    filename="torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl",
    sha256=DIGEST,
    size=191_794_682,
)
SIX = Wheel(
    name="six",
    version="1.17.0",
    filename="six-1.17.0-py2.py3-none-any.whl",
    sha256="cd" * 32,
    size=11_050,
)


def text_of(**changes) -> bytes:
    """A list whose only wheel is that of torch, with some of its values replaced by others."""
    value = codec.to_json(listing(TORCH))
    for key, new in changes.items():
        (value if key in value else value["wheels"][0])[key] = new
    return canonical.serialise(value)


def test_a_list_is_read_as_it_was_written():
    listed = listing(TORCH, SIX, libc="glibc 2.36")
    assert parse(serialise(listed)) == listed
    assert [wheel.name for wheel in listed.wheels] == ["six", "torch"]


def test_a_list_becomes_hashed_requirements():
    other = replace(SIX, sha256=DIGEST, filename="six-1.17.0-1-py2.py3-none-any.whl")
    assert requirements([SIX, TORCH, other]) == (
        f"six==1.17.0 --hash=sha256:{'cd' * 32} --hash=sha256:{DIGEST}\n"
        f"torch==2.13.0+cpu --hash=sha256:{DIGEST}\n"
    )


def test_what_a_lock_has_and_the_list_has_not_is_named():
    lock = parse_requirements("six==1\nnumpy==2\npip==23\npywin32==1 ; sys_platform == 'win32'\n")
    assert lacking([SIX, TORCH], lock) == ("numpy",)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "Torch"}, "no normalised name"),
        ({"name": "torch==1 --index-url"}, "no normalised name"),
        ({"name": "other"}, "is a wheel of torch"),
        ({"name": ""}, "no normalised name"),
        ({"version": "2.13.0"}, "is a wheel of torch 2.13.0"),
        ({"version": "2.13.0+cu128"}, "is a wheel of torch"),
        ({"version": "2.13.0+cpu\n--index-url x"}, "is no version"),
        ({"version": ""}, "is no version"),
        ({"filename": "../torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl"}, "no file name"),
        ({"filename": "/tmp/torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl"}, "no file name"),
        ({"filename": "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.tar.gz"}, "no file name"),
        ({"filename": "torch-2.13.0+cpu.whl"}, "no file name"),
        ({"filename": "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl\n"}, "no file name"),
        ({"filename": f"torch-2.13.0+cpu-cp311-cp311-{'a' * 300}.whl"}, "no file name"),
        ({"sha256": DIGEST.upper()}, "no SHA-256"),
        ({"sha256": DIGEST[:-1]}, "no SHA-256"),
        ({"size": 0}, "a size of 0"),
        ({"size": 1 << 50}, "a size of"),
        ({"python": "3"}, "python"),
        ({"python": "3.11; evil"}, "python"),
        ({"implementation": "-c"}, "implementation"),
        ({"platform": "../x"}, "platform"),
        ({"libc": "glibc\n2"}, "libc"),
        ({"wheels": []}, "0 wheels"),
        ({"wheels": [codec.to_json(TORCH)] * 2}, "stands twice"),
        ({"wheels": [codec.to_json(TORCH), codec.to_json(SIX)]}, "not sorted"),
    ],
)
def test_a_hostile_list_is_refused(changes, problem):
    with pytest.raises(MalformedError, match=problem) as caught:
        parse(text_of(**changes))
    assert caught.value.code == "wheels-invalid"
    assert "\n" not in caught.value.message
    assert "capture-wheels" in caught.value.remedy


def test_what_is_not_canonical_or_not_of_the_format_is_refused():
    with pytest.raises(MalformedError) as caught:
        parse(text_of() + b"\n")
    assert caught.value.code == "json-not-canonical"
    with pytest.raises(MalformedError) as caught:
        parse(text_of(format="urn:aisdp-bundler:wheels:2"))
    assert caught.value.code == "structure"
    with pytest.raises(MalformedError, match="larger than 4 MiB"):
        parse(b" " * (wheels.MAX_LIST_BYTES + 1))


def test_more_wheels_than_any_environment_has_are_refused(monkeypatch):
    monkeypatch.setattr(wheels, "MAX_WHEELS", 1)
    with pytest.raises(MalformedError, match="2 wheels"):
        serialise(listing(TORCH, SIX))


@given(st.text(max_size=40), st.text(max_size=20), st.text(max_size=60))
def test_whatever_is_accepted_is_one_plain_word_in_one_folder(name, version, filename):
    wheel = None
    with suppress(MalformedError):
        (wheel,) = parse(text_of(name=name, version=version, filename=filename)).wheels
    if wheel is None:
        return
    assert "/" not in wheel.filename
    assert len(requirements([wheel]).split()) == 2


@given(st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True), st.integers(0, 99))
def test_names_of_files_say_which_package_they_hold(name, number):
    found = named(f"{name}-{number}.0-py3-none-any.whl")
    assert found == (wheels.normalise(name), f"{number}.0")


@pytest.mark.parametrize(
    ("filename", "found"),
    [
        ("Foo_Bar.baz-1.0-2build-py3-none-any.whl", ("foo-bar-baz", "1.0")),
        ("torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl", ("torch", "2.13.0+cpu")),
        ("foo-1.0.tar.gz", None),
        ("foo.whl", None),
    ],
)
def test_file_names_of_pep_427(filename, found):
    assert named(filename) == found


# --- inside a wheel -------------------------------------------------------------------------------------------------


def test_a_good_wheel_says_its_unpacked_size(tmp_path):
    wheel = make_wheel(tmp_path, files={"tiny/data.bin": bytes(5_000)})
    assert examine(tmp_path / wheel.filename, "tiny", "1.0") > 5_000
    assert "tiny/data.bin,sha256=" in wheels.record(tmp_path / wheel.filename)


def test_a_program_or_a_file_for_bin_is_no_problem(tmp_path):
    files = {
        "tiny-1.0.data/scripts/tiny": b"#!python\n",
        "tiny-1.0.data/data/bin/tool": b"",
        "tiny-1.0.data/data/share/python": b"",
        "tiny/bin/python": b"",
    }
    wheel = make_wheel(tmp_path, files=files)
    assert examine(tmp_path / wheel.filename, "tiny", "1.0")


@pytest.mark.parametrize(
    ("member", "problem"),
    [
        ("../outside.py", "leads out"),
        ("/etc/profile", "leads out"),
        ("tiny/../../outside.py", "leads out"),
        ("tiny/./x.py", "leads out"),
        ("tiny\\..\\x.py", "no plain name"),
        ("tiny-1.0.data/data/pyvenv.cfg", "interpreter"),
        ("tiny-1.0.data/data/lib64/x.py", "interpreter"),
        ("tiny-1.0.data/data/bin/python3.11", "interpreter"),
        ("tiny-1.0.data/scripts/python", "interpreter"),
        ("tiny-1.0.data/scripts/pypy3", "interpreter"),
        ("other-1.0.dist-info/METADATA", "exactly one METADATA"),
    ],
)
def test_a_wheel_that_would_reach_out_is_refused(tmp_path, member, problem):
    wheel = make_wheel(tmp_path, files={member: b"x"})
    with pytest.raises(MalformedError, match=problem) as caught:
        examine(tmp_path / wheel.filename, "tiny", "1.0")
    assert caught.value.code == "wheel-malformed"


def test_a_link_in_a_wheel_is_refused(tmp_path):
    wheel = make_wheel(tmp_path)
    link = zipfile.ZipInfo("tiny/home")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / wheel.filename, "a") as archive:
        archive.writestr(link, "/root")
    with pytest.raises(MalformedError, match="a link or a device"):
        examine(tmp_path / wheel.filename, "tiny", "1.0")


def test_a_name_with_a_null_byte_is_refused(tmp_path):
    wheel = make_wheel(tmp_path, files={"tiny/xNy.py": b""})
    path = tmp_path / wheel.filename
    path.write_bytes(path.read_bytes().replace(b"tiny/xNy.py", b"tiny/x\0y.py"))
    with pytest.raises(MalformedError, match="no plain name"):
        examine(path, "tiny", "1.0")


def test_a_wheel_of_more_members_than_any_has_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(wheels, "MAX_MEMBERS", 3)
    wheel = make_wheel(tmp_path)
    with pytest.raises(MalformedError, match="more than 3 members"):
        examine(tmp_path / wheel.filename, "tiny", "1.0")


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        (b"Name: other\nVersion: 1.0\n", "instead of tiny 1.0"),
        (b"Name: tiny\nVersion: 1.0+cpu\n", "instead of tiny 1.0"),
        (b"Name: tiny\n", "exactly one METADATA"),
        (b"Name: tiny\nVersion: 1.0\n\n\xff", "cannot be read"),
    ],
)
def test_a_wheel_that_holds_something_else_is_refused(tmp_path, metadata, problem):
    wheel = make_wheel(tmp_path, metadata=metadata)
    with pytest.raises(MalformedError, match=problem):
        examine(tmp_path / wheel.filename, "tiny", "1.0")


def test_a_metadata_of_gigabytes_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(wheels, "MAX_METADATA", 10)
    wheel = make_wheel(tmp_path)
    with pytest.raises(MalformedError, match="exactly one METADATA"):
        examine(tmp_path / wheel.filename, "tiny", "1.0")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"no zip at all"])
def test_what_is_no_zip_is_refused(tmp_path, data):
    path = tmp_path / "tiny-1.0-py3-none-any.whl"
    path.write_bytes(data)
    with pytest.raises(MalformedError, match="cannot be read"):
        examine(path, "tiny", "1.0")
    assert wheels.record(path) == ""


def test_a_wheel_without_record_has_none(tmp_path):
    wheel = make_wheel(tmp_path, record=False)
    assert wheels.record(tmp_path / wheel.filename) == ""


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    return (folder / make_wheel(folder).filename).read_bytes(), folder / "damaged.whl"


@given(st.data())
def test_a_damaged_wheel_gives_an_error_and_never_a_traceback(good, data):
    whole, path = good
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[place] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    with suppress(MalformedError):
        assert examine(path, "tiny", "1.0") >= 0
        assert zipfile.is_zipfile(path)
