"""``wheels.json`` says which bytes are meant, and what it says is not believed before it was looked at."""

from __future__ import annotations

import zipfile
import zlib
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
        "tiny/_vendor/other-9.dist-info/METADATA": b"\xff",
        "tiny-1.0.dist-info/entry_points.txt": b"[console_scripts]\ntiny = tiny:main\n",
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
        ("tiny-1.0.data/scripts/Python3", "interpreter"),
        ("tiny-1.0.data/scripts/.profile", "no program"),
        ("tiny-1.0.data/scripts/a program", "no program"),
        ("tiny-1.0.data/scripts/folder/.profile", "no program"),
        ("other-1.0.dist-info/METADATA", "describes 2 packages"),
        ("other.egg-info/PKG-INFO", "describes 2 packages"),
        ("Other.Egg-Info", "describes 2 packages"),
        ("tiny-1.0.data/purelib/other-9.dist-info/METADATA", "another package"),
        ("tiny-1.0.data/platlib/other.egg-info", "another package"),
        ("tiny-1.0.data/data/lib/python3.11/site-packages/o-9.DIST-INFO/METADATA", "another"),
        ("tiny-1.0.data/purelib/tiny-1.0.dist-info/entry_points.txt", "another package"),
    ],
)
def test_a_wheel_that_would_reach_out_is_refused(tmp_path, member, problem):
    wheel = make_wheel(tmp_path, files={member: b"x"})
    with pytest.raises(MalformedError, match=problem) as caught:
        examine(tmp_path / wheel.filename, "tiny", "1.0")
    assert caught.value.code == "wheel-malformed"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            b"[console_scripts]\n/usr/local/bin/git = tiny:main\n",
            "'/usr/local/bin/git = tiny:main'",
        ),
        (b"[gui_scripts]\n../../../PWNED = tiny:main\n", "no program with a plain name"),
        (b"[console_scripts]\npython3.11 = tiny:main\n", "no program with a plain name"),
        (b"[other]\n\xff = x\n", "not UTF-8"),
    ],
)
def test_a_program_that_would_land_elsewhere_is_refused(tmp_path, text, problem):
    wheel = make_wheel(tmp_path, files={"tiny-1.0.dist-info/entry_points.txt": text})
    with pytest.raises(MalformedError, match=problem) as caught:
        examine(tmp_path / wheel.filename, "tiny", "1.0")
    assert caught.value.code == "wheel-malformed"


def test_an_entry_points_txt_of_gigabytes_is_not_read(tmp_path, monkeypatch):
    text = b"[console_scripts]\n" + b"# nothing\n" * 200
    wheel = make_wheel(tmp_path, files={"tiny-1.0.dist-info/entry_points.txt": text})
    monkeypatch.setattr(wheels, "MAX_METADATA", 1_000)
    with pytest.raises(MalformedError, match=r"entry_points\.txt is larger"):
        examine(tmp_path / wheel.filename, "tiny", "1.0")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path):
    """The one that is looked at would not be the one that is installed."""
    wheel = make_wheel(tmp_path)
    with zipfile.ZipFile(tmp_path / wheel.filename, "a") as archive:
        archive.writestr("tiny/__init__.py", b"another\n")
    with pytest.raises(MalformedError, match="two members have one name"):
        examine(tmp_path / wheel.filename, "tiny", "1.0")


def lie(path, size, said, kind=zipfile.ZIP_DEFLATED, *, summed=None):
    """Add a member of ``size`` zeros to a wheel, which gives ``said`` bytes and the checksum of ``summed`` zeros."""
    checksum = zlib.crc32(bytes(said if summed is None else summed)).to_bytes(4, "little")
    with zipfile.ZipFile(path, "a", kind) as archive:
        archive.writestr("tiny/bomb.bin", bytes(size))
    at = path.read_bytes().index(b"tiny/bomb.bin") - 30
    data = bytearray(path.read_bytes())
    for header, first in ((at, 14), (data.rindex(b"PK\x01\x02"), 16)):
        data[header + first : header + first + 4] = checksum
        place = header + first + 8
        data[place : place + 4] = said.to_bytes(4, "little")
    path.write_bytes(data)


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("said", [0, 100, (5 << 20) - 1, (5 << 20) + 1])
def test_a_member_of_another_size_than_it_gives_is_refused(tmp_path, said, kind):
    path = tmp_path / make_wheel(tmp_path).filename
    lie(path, 5 << 20, said, kind)
    if said < 5 << 20:
        with zipfile.ZipFile(path) as archive:  # zipfile by itself believes it
            assert len(archive.read("tiny/bomb.bin")) == said
    with pytest.raises(MalformedError, match=r"another size than it gives|cannot be read"):
        examine(path, "tiny", "1.0")


@pytest.mark.parametrize(("said", "summed"), [(100, 101), (5_001, 5_000)])
def test_a_checksum_that_agrees_does_not_help(tmp_path, said, summed):
    path = tmp_path / make_wheel(tmp_path).filename
    lie(path, 5_000, said, summed=summed)
    with pytest.raises(MalformedError, match="another size than it gives"):
        examine(path, "tiny", "1.0")


def test_a_bomb_that_gives_its_size_is_not_unpacked_to_find_out(tmp_path, monkeypatch):
    path = tmp_path / make_wheel(tmp_path).filename
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny/bomb.bin", bytes(5 << 20))
    monkeypatch.setattr(wheels, "MAX_UNPACKED_BYTES", 4 << 20)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *a, **k: pytest.fail("was unpacked"))
    with pytest.raises(MalformedError, match="GiB unpacked"):
        examine(path, "tiny", "1.0")


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_takes_gigabytes_of_memory_to_unpack_is_refused(tmp_path, kind):
    path = tmp_path / make_wheel(tmp_path).filename
    with zipfile.ZipFile(path, "a", kind) as archive:
        archive.writestr("tiny/data.bin", bytes(100))
    with pytest.raises(MalformedError, match="unusual way"):
        examine(path, "tiny", "1.0")


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
        (b"Name: \xff\xfe\nVersion: 1.0\n", "cannot be read"),
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
