"""DVC's pointers to data, held against the bytes without DVC; the repositories are real DVC's."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tracemalloc
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler import data_hashes, data_pointers, datasets
from bundler.data_hashes import digest_file, folder_md5, folder_sha256, parse_listing
from bundler.data_pointers import is_outside, pointers_of_file, pointers_of_lock
from bundler.datasets import DataStore, Pointer
from bundler.errors import SourceError
from bundler.importers.dvc.pipeline import pipeline_of
from bundler.importers.dvc.values import parsed
from bundler.importers.values import Flags
from tests.unit.importers.dvc_support import EXPECTED, FIXTURES, cached, unpack, write

M = 1 << 20
FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dvc")
    for name in ("pipeline", "legacy"):
        unpack(FIXTURES / f"{name}.tar.xz", folder / name)
    return folder


@pytest.fixture
def root(originals, tmp_path) -> Path:
    """A copy of the repository with a pipeline."""
    return shutil.copytree(originals / "pipeline", tmp_path / "pipeline")


@pytest.fixture
def old(originals, tmp_path) -> Path:
    """A copy of the repository of DVC 2."""
    return shutil.copytree(originals / "legacy", tmp_path / "legacy")


def pointers(folder: Path) -> list[Pointer]:
    """The pointers of a repository."""
    paths = {
        each.relative_to(folder).as_posix(): each
        for each in folder.rglob("*")
        if each.is_file() and ".dvc" not in each.relative_to(folder).parts
    }
    return pipeline_of(paths, lambda path, _: paths[path].read_bytes(), Flags()).pointers


def one(folder: Path, path: str, role: str = "out", place: str | None = None) -> Pointer:
    """The pointer with this path."""
    found = [each for each in pointers(folder) if (each.path, each.role) == (path, role)]
    (pointer,) = [each for each in found if place in {None, each.place}]
    return pointer


def named(path: str, md5: str, **more: object) -> Pointer:
    return Pointer(path=path, role="out", place="x.dvc", md5=md5, **more)


# --- the kinds of pointers ----------------------------------------------------------------------------------------------

KINDS = {
    "a file": ("raw/one.csv", "out", "raw/one.csv.dvc"),
    "a folder with a nested one": ("data", "out", "data.dvc"),
    "a dependency in the lock": ("data", "dep", "dvc.lock"),
    "an output in the lock": ("model.bin", "out", "dvc.lock"),
    "a folder that a stage made": ("prepared", "out", "dvc.lock"),
    "a file imported from an address": ("raw/web.csv", "out", "raw/web.csv.dvc"),
    "a file imported from a path": ("raw/copied.csv", "out", "raw/copied.csv.dvc"),
    "a file imported from a repository": ("raw/shared.csv", "out", "raw/shared.csv.dvc"),
}
OLD_KINDS = {
    "a file of DVC 2": ("text.csv", "out", "text.csv.dvc"),
    "a folder of DVC 2": ("folder", "out", "folder.dvc"),
    "an output of DVC 2": ("out.txt", "out", "dvc.lock"),
}


@pytest.mark.parametrize("kind", [*KINDS, *OLD_KINDS])
@pytest.mark.parametrize("where", ["workspace", "cache"])
def test_every_kind_of_pointer_matches_its_bytes_and_gets_the_sha256_that_an_auditor_gets(
    kind, where, root, old
):
    folder = root if kind in KINDS else old
    path, role, place = {**KINDS, **OLD_KINDS}[kind]
    if where == "cache":
        shutil.rmtree(folder / path, ignore_errors=True)
        (folder / path).unlink(missing_ok=True)
    else:
        shutil.rmtree(folder / ".dvc" / "cache")
    found = DataStore(folder).find(one(folder, path, role, place))
    assert found.state == ("verified" if kind in KINDS else "legacy")
    assert found.sha256 == EXPECTED[folder.name]["sha256"][path]
    assert found.md5 == one(folder, path, role, place).md5
    assert not found.detail


@pytest.mark.parametrize("kind", [*KINDS, *OLD_KINDS])
@pytest.mark.parametrize("where", ["workspace", "cache"])
def test_one_changed_byte_is_caught_though_the_size_is_the_same(kind, where, root, old):
    folder = root if kind in KINDS else old
    path, role, place = {**KINDS, **OLD_KINDS}[kind]
    pointer = one(folder, path, role, place)
    if where == "workspace":
        shutil.rmtree(folder / ".dvc" / "cache")
    before = DataStore(folder).find(pointer)
    if where == "cache":
        shutil.rmtree(folder / path, ignore_errors=True)
        (folder / path).unlink(missing_ok=True)
    file = before.files[-1][1]
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)
    found = DataStore(folder).find(pointer)
    # Other bytes in the workspace are a later version.
    assert found.state == ("mismatch" if where == "cache" else "absent")
    assert found.sha256 != before.sha256


@pytest.mark.parametrize("how", ["added", "removed", "renamed"])
def test_a_changed_folder_is_caught(how, root):
    pointer = one(root, "data", place="data.dvc")
    shutil.rmtree(root / ".dvc" / "cache")
    assert DataStore(root).find(pointer).state == "verified"
    if how == "added":
        write(root / "data" / "part4.csv", "row,4\n")
    elif how == "removed":
        (root / "data" / "part3.csv").unlink()
    else:
        (root / "data" / "part3.csv").rename(root / "data" / "part3.txt")
    assert DataStore(root).find(pointer).state == "absent"


def test_a_changed_listing_in_the_cache_is_caught(root):
    pointer = one(root, "data", place="data.dvc")
    shutil.rmtree(root / "data")
    file = root / ".dvc/cache/files/md5" / pointer.md5[:2] / pointer.md5[2:]
    entries = json.loads(file.read_bytes())
    # Another order or more spaces are the same listing: its digest is that of the canonical text.
    file.write_text(json.dumps(entries[::-1], indent=2))
    assert DataStore(root).find(pointer).state == "verified"
    entries[0]["md5"] = entries[1]["md5"]
    file.write_text(json.dumps(entries))
    found = DataStore(root).find(pointer)
    assert (found.state, found.sha256) == ("mismatch", None)
    assert "listing" in found.detail


def test_bytes_that_are_nowhere_are_absent(root):
    pointer = one(root, "data", place="data.dvc")
    shutil.rmtree(root / "data")
    some = DataStore(root).find(pointer).files[1]
    some[1].unlink()
    found = DataStore(root).find(pointer)
    assert (found.state, found.sha256) == ("absent", None)
    assert repr(some[0]) in found.detail
    shutil.rmtree(root / ".dvc" / "cache")
    assert DataStore(root).find(pointer).state == "absent"
    assert DataStore(root).find(one(root, "model.bin")).state == "verified"


def test_a_later_version_in_the_workspace_is_no_mismatch_of_an_earlier_run(root):
    pointer = one(root, "raw/one.csv")
    write(root / "raw" / "one.csv", "later\n")
    assert DataStore(root).find(pointer).state == "verified"
    shutil.rmtree(root / ".dvc" / "cache")
    assert DataStore(root).find(pointer).state == "absent"
    write(root / "raw" / "one.csv", "hello\n")
    assert DataStore(root).find(pointer).state == "verified"


def test_a_cache_elsewhere_is_used_if_it_is_named(root, tmp_path):
    pointer = one(root, "raw/one.csv")
    shutil.move(root / ".dvc" / "cache", tmp_path / "shared")
    (root / "raw" / "one.csv").unlink()
    assert DataStore(root).find(pointer).state == "absent"
    assert DataStore(root, tmp_path / "shared").find(pointer).state == "verified"


def test_a_file_in_place_of_a_folder_and_the_reverse_are_not_the_data(root):
    write(root / "a", "x")
    (root / "b").mkdir()
    os.mkfifo(root / "c")
    store = DataStore(root)
    assert store.find(named("a", "0" * 32 + ".dir")).state == "absent"
    assert store.find(named("b", "0" * 32)).state == "absent"
    assert store.find(named("c", "0" * 32)).state == "absent"


def test_links_are_not_followed(root, tmp_path):
    secret = write(tmp_path / "secret" / "one.csv", "hello\n")
    pointer = one(root, "raw/one.csv")
    shutil.rmtree(root / "raw")
    (root / "raw").symlink_to(secret.parent)
    shutil.move(root / ".dvc" / "cache", tmp_path / "cache")
    (root / ".dvc" / "cache").symlink_to(tmp_path / "cache")
    assert DataStore(root).find(pointer).state == "absent"
    (root / "data" / "part1.csv").unlink()
    (root / "data" / "part1.csv").symlink_to(secret)
    assert DataStore(root).find(one(root, "data", place="data.dvc")).state == "absent"
    assert all("part1" not in path for path, _ in datasets._walk(root / "data"))


@pytest.mark.parametrize(
    "path",
    ["../x", "..", "/etc/passwd", "a/../../x", "s3://bucket/x", "C:\\x", "c:/x", "a\0b", "remote://r/x"],
)  # fmt: skip
def test_paths_that_leave_the_repository_are_listed_but_never_opened(path, tmp_path, monkeypatch):
    assert is_outside(path)
    (pointer,) = pointers_of_file({"outs": [{"path": path, "md5": "0" * 32}]}, "x.dvc")
    monkeypatch.setattr(Path, "open", None)
    monkeypatch.setattr(Path, "lstat", None)
    for found in (DataStore(tmp_path).find(pointer), DataStore(tmp_path).find(pointer)):
        assert (found.state, found.detail) == ("absent", "outside the repository")


def test_a_path_is_relative_to_its_file_and_its_working_folder():
    entry = {"path": "x.csv", "md5": "0" * 32}
    (pointer,) = pointers_of_file({"wdir": "..", "outs": [entry]}, "a/b/x.dvc")
    assert pointer.path == "a/x.csv"
    lock = {"schema": "2.0", "stages": {"train@1": {"outs": [entry]}}}
    (pointer,) = pointers_of_lock(lock, "a/dvc.lock", {"stages": {"train": {"wdir": "w"}}})
    assert (pointer.path, pointer.stage) == ("a/w/x.csv", "train@1")
    (pointer,) = pointers_of_lock({"train": {"outs": [entry]}}, "dvc.lock", None)
    assert (pointer.path, pointer.legacy) == ("x.csv", True)


def test_what_was_imported_says_from_where(root):
    assert one(root, "raw/web.csv").source == "http://127.0.0.1:18765/source.csv"
    assert one(root, "raw/copied.csv").source == "../data/part1.csv"
    assert one(root, "raw/shared.csv").source.startswith("../registry@")
    assert one(root, "raw/one.csv").source is None
    web = one(root, "http://127.0.0.1:18765/source.csv", "dep")
    assert web.md5 is None
    assert web.label.startswith("checksum:")
    assert web.label[9:].isdecimal()
    assert DataStore(root).find(web).state == "absent"


# --- digests ------------------------------------------------------------------------------------------------------------

# Digest of DVC 3.67 (`fobj_md5(..., name="md5-dos2unix")`) and of DVC 2.58 (`file_md5`).
LEGACY = {
    "text": (b"a\r\nb\r\n", "dd8c6a395b5dd36c56d23275028f526c", None),
    "binary": (b"\0a\r\n", "c2a5b9617479ff7c69c7b78434b5784a", None),
    "empty": (b"", "d41d8cd98f00b204e9800998ecf8427e", None),
    "mostly text": (b"a" * 70 + b"\x80" * 30 + b"\r\n" * 10, "8bf91ff5eedf1dc500a1753215c62c26", None),
    "not text": (b"a" * 68 + b"\x80" * 40 + b"\r\n", "de09a2f3f42fb9f317340a48dcb8749a", None),
    "split": (b"a" * (M - 1) + b"\r\n" + b"b\r\n", "deb8178cc400550795d42d701b97846d", None),
    "text then binary": (
        b"a\r\n" * (M // 3) + b"a" + b"\0\r\n" * 100,
        "aaf07719d9f968b04ea92b4043aabbdd",
        "e57319430e6a286802e35c211e6ffa1c",
    ),
    "binary then text": (
        b"\0" * M + b"a\r\n" * 100,
        "9f318c32071f635f0c4074c9c39d8fbd",
        "80331bcdd236a3a325402b5268df16ce",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEGACY)
def test_the_legacy_digest_is_that_of_dvc_3_and_that_of_dvc_2(name, tmp_path):
    data, three, two = LEGACY[name]
    file = write(tmp_path / "file", data)
    found = digest_file(file, legacy=True)
    assert found.md5s == (three, two or three)
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    for md5 in {three, two or three}:
        assert DataStore(tmp_path).find(named("file", md5, legacy=True)).state == "legacy"


def test_a_legacy_digest_does_not_pin_line_ends_but_the_sha256_does(tmp_path):
    digests = set()
    for data in (b"a\nb\n", b"a\r\nb\r\n"):
        write(tmp_path / "file", data)
        found = DataStore(tmp_path).find(
            named("file", "dd8c6a395b5dd36c56d23275028f526c", legacy=True)
        )
        assert found.state == "legacy"
        digests.add(found.sha256)
    assert len(digests) == 2


@pytest.mark.parametrize("variant", [1, 2])
def test_a_legacy_folder_matches_in_either_form(variant, tmp_path):
    data, three, two = LEGACY["text then binary"]
    write(tmp_path / "d" / "x", data)
    listing = {"x": three if variant == 1 else two}
    pointer = named("d", folder_md5(listing), legacy=True)
    assert DataStore(tmp_path).find(pointer).state == "legacy"


@pytest.mark.parametrize(
    "names",
    [[], ["a"], ["b", "a", "B", "ä", "Z/y", "Z.y"], ["back\\slash", "new\nline", "re\rturn"], [os.fsdecode(b"n\xff")]],
)  # fmt: skip
def test_a_folders_sha256_is_that_of_the_command_in_the_documentation(names, tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    for number, name in enumerate(names):
        write(folder / name, str(number))
    command = datasets.__doc__.split("::")[1].split("Versions")[0].strip()
    shown = subprocess.run(
        ["bash", "-c", command.replace("FOLDER", str(folder))], capture_output=True, text=True
    )
    listing = {path: digest_file(file).sha256 for path, file in datasets._walk(folder)}
    assert folder_sha256(listing) == shown.stdout.split()[0]


def test_a_folders_md5_is_that_of_dvcs_listing(root):
    for file in (root / ".dvc/cache/files/md5").rglob("*.dir"):
        listing = parse_listing(file.read_bytes(), "listing")
        assert folder_md5(listing) == file.parent.name + file.name


def test_data_is_read_once_for_both_digests(tmp_path, monkeypatch):
    file = write(tmp_path / "file", b"x" * 3 * M)
    opened = []
    before = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: opened.append(self) or before(self, *a, **k))  # fmt: skip
    DataStore(tmp_path).find(named("file", "0" * 32))
    assert opened == [file]


# --- hostile and broken ---------------------------------------------------------------------------------------------------

BROKEN = {
    "no mapping": "[1]",
    "no list": "outs: {a: 1}",
    "no entries": "outs: [1]",
    "no path": "outs: [{md5: 00000000000000000000000000000000}]",
    "empty path": "outs: [{path: '', md5: 00000000000000000000000000000000}]",
    "a path that is true": "outs: [{path: yes, md5: 00000000000000000000000000000000}]",
    "no md5": "outs: [{path: x, md5: '../../../../../etc/passwd'}]",
    "short md5": "outs: [{path: x, md5: abc}]",
    "upper case": "outs: [{path: x, md5: ABCDEFABCDEFABCDEFABCDEFABCDEFAB}]",
    "md5 as a number": "outs: [{path: x, md5: 12345678901234567890123456789012}]",
    "a bomb": "a: &a [x, x]\nb: &b [*a, *a]\nouts: [*b]",
    "a tag": "outs: !!python/object/apply:os.system [true]",
    "a key twice": "outs: []\nouts: []",
    "deep": "[" * 1500,
    "a number that is too long": f"outs: {'9' * 5000}",
    "not UTF-8": b"outs: [{path: \xff}]",
    "a date that is none": "outs: 2026-02-30",
    "escapes": 'outs: [{path: "\\e[31m", md5: "\\e[31m"}]',
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("place", ["x.dvc", "dvc.lock"])
def test_a_broken_pointer_is_refused_in_words_that_can_be_shown(name, place):
    text = BROKEN[name]
    if place == "dvc.lock" and isinstance(text, str) and text.startswith("outs"):
        text = f"schema: '2.0'\nstages:\n  train:\n    {text}\n"
        if name == "a key twice":
            text = "schema: '2.0'\nschema: '2.0'\n"
    parse = pointers_of_file if place == "x.dvc" else partial(pointers_of_lock, pipeline={})
    with pytest.raises((SourceError, ValueError)) as error:
        parse(parsed(text if isinstance(text, bytes) else text.encode(), place), place)
    assert str(error.value).isprintable()


def test_pointer_files_are_bounded(monkeypatch):
    monkeypatch.setattr(data_pointers, "MAX_POINTERS", 1)
    entries = {"outs": [{"path": "a"}, {"path": "b"}]}
    with pytest.raises(SourceError, match="more than 1 entries"):
        pointers_of_file(entries, "x.dvc")
    stages = {str(number): {"outs": [{"path": "a"}]} for number in range(3)}
    with pytest.raises(SourceError, match="more than 1 entries"):
        pointers_of_lock({"schema": "2.0", "stages": stages}, "dvc.lock", {})


LISTED = b' [ {"relpath": "%s", "md5": "%s"} , {"relpath": "%s", "md5": "%s"} ]\n'


def test_a_listing_is_read_one_entry_at_a_time():
    md5 = "0" * 32
    assert parse_listing(LISTED % (b"a", b"0" * 32, b"b}" * 900, b"0" * 32), "x") == {"a": md5, "b}" * 900: md5}  # fmt: skip
    assert parse_listing(b" [ ] ", "x") == {}
    whole = LISTED % (b"a", b"0" * 32, b"b", b"0" * 32)
    for data in (whole[:-2], whole + b"x", whole.replace(b" , ", b" "), b"", b"[", b"[{}", whole[:-2] + b",]"):  # fmt: skip
        with pytest.raises(SourceError, match="is not as DVC writes it"):
            parse_listing(data, "x")


def test_brackets_do_not_fill_the_memory_before_they_are_refused():
    data = b"[" + b"[]," * (2 << 20) + b"[]]"
    nested = b'[{"md5": [' + b"[]," * (2 << 20) + b"[]]}]"
    tracemalloc.start()
    try:
        for hostile in (data, nested):
            with pytest.raises(SourceError, match="no list of objects"):
                parse_listing(hostile, "x")
        assert tracemalloc.get_traced_memory()[1] < 5 * len(data)
    finally:
        tracemalloc.stop()


def test_folders_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "MAX_FILES", 1)
    monkeypatch.setattr(data_hashes, "MAX_FILES", 1)
    for name in ("a", "b"):
        write(tmp_path / "d" / name, "")
    with pytest.raises(SourceError, match="more than 1 files"):
        DataStore(tmp_path).find(named("d", "0" * 32 + ".dir"))
    with pytest.raises(SourceError, match="at most 1 files"):
        parse_listing(LISTED % (b"a", b"0" * 32, b"b", b"0" * 32), "listing")


LISTINGS = {
    "no JSON": b"\xff",
    "no list": b"{}",
    "deep": b"[" * 100_000,
    "no entry": b"[1]",
    "no path": b'[{"md5": "%s"}]' % (b"0" * 32),
    "a long number": b"[" + b"9" * 5000 + b"]",
    "a path up": b'[{"relpath": "../x", "md5": "%s"}]' % (b"0" * 32),
    "an absolute path": b'[{"relpath": "/x", "md5": "%s"}]' % (b"0" * 32),
    "a point": b'[{"relpath": "./x", "md5": "%s"}]' % (b"0" * 32),
    "two slashes": b'[{"relpath": "a//x", "md5": "%s"}]' % (b"0" * 32),
    "a NUL": b'[{"relpath": "a\\u0000", "md5": "%s"}]' % (b"0" * 32),
    "half a character": b'[{"relpath": "\\ud800", "md5": "%s"}]' % (b"0" * 32),
    "a path twice": b'[{"relpath": "x", "md5": "%s"}, {"relpath": "x", "md5": "%s"}]' % (b"0" * 32, b"1" * 32),
    "no digest": b'[{"relpath": "x", "md5": "../../x"}]',
}  # fmt: skip


@pytest.mark.parametrize("name", LISTINGS)
def test_a_hostile_listing_is_refused(name, tmp_path):
    data = LISTINGS[name]
    md5 = "ab" * 16 + ".dir"
    write(tmp_path / ".dvc/cache/files/md5" / md5[:2] / md5[2:], data)
    with pytest.raises(SourceError, match="is not as DVC writes it") as error:
        DataStore(tmp_path).find(named("d", md5))
    assert error.value.message.isprintable()


def test_what_cannot_be_read_is_an_error_and_not_absent(tmp_path, monkeypatch):
    write(tmp_path / "x", "")
    write(tmp_path / "d" / "x", "")

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied", "x")

    for owner, name, pointer in (
        (Path, "open", named("x", "0" * 32)),
        (os, "scandir", named("d", "0" * 32 + ".dir")),
        (Path, "lstat", named("x", "0" * 32)),
    ):
        with monkeypatch.context() as patch, pytest.raises(SourceError, match="Permission denied"):
            patch.setattr(owner, name, denied)
            DataStore(tmp_path).find(pointer)


def test_a_file_that_is_read_whole_is_bounded(tmp_path):
    file = write(tmp_path / "x", "12345")
    assert data_hashes.read_bounded(file, 5) == b"12345"
    with pytest.raises(SourceError, match="more than 4 bytes"):
        data_hashes.read_bounded(file, 4)
    with pytest.raises(SourceError, match="cannot be read"):
        data_hashes.read_bounded(tmp_path / "nowhere", 4)


def test_a_name_that_the_system_cannot_hold_is_absent(tmp_path):
    write(tmp_path / "x", "")
    for path in ("y" * 5000, "x/y", "\0"):
        assert DataStore(tmp_path).find(named(path, "0" * 32)).state == "absent"


def test_the_cache_of_dvc_2_is_read_as_well(tmp_path):
    cached(tmp_path, b"data")
    md5 = hashlib.md5(b"data").hexdigest()
    shutil.move(tmp_path / ".dvc/cache/files/md5" / md5[:2], tmp_path / ".dvc/cache")
    assert DataStore(tmp_path).find(named("x", md5)).state == "verified"


YAMLISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["0" * 32, "a", "../x", "md5"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["outs", "deps", "stages", "schema", "path", "md5", "repo", "wdir", "size", "hash", "x"]),
        inner,
        max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


def survives(read) -> None:
    """What is read is read, or refused in words that can be shown."""
    try:
        read()
    except SourceError as error:
        message = error.message
    else:
        message = "x"
    assert message.isprintable()


@FUZZ
@given(YAMLISH, YAMLISH)
def test_any_value_gives_pointers_or_an_error(value, pipeline):
    survives(lambda: pointers_of_file(value, "x.dvc"))
    survives(lambda: pointers_of_lock(value, "dvc.lock", pipeline))


@FUZZ
@given(st.binary(max_size=200), st.integers(0, 100), st.binary(max_size=8))
def test_any_bytes_of_a_pointer_or_listing_give_an_error_at_most(originals, junk, place, piece):
    text = (originals / "pipeline" / "data.dvc").read_bytes()
    folder = originals / "fuzz"
    store = DataStore(folder)
    for data in (junk, text[:place] + piece + text[place + len(piece) :]):
        write(folder / "x.dvc", data)
        survives(lambda: [store.find(each) for each in pointers(folder)])
        survives(lambda data=data: parse_listing(data, "listing"))
