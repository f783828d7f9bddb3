"""Unpacking an image: what layers mean, and that no layer gets out of its folder."""

from __future__ import annotations

import gzip
import json
import os
import stat
import sys
import tarfile
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.errors import EnvironmentNotRecreatableError
from bundler.images import identify, layers
from bundler.images.tree import Bounds
from bundler.images.unpack import unpack

from .sandbox.image_builder import (
    TIME,
    Image,
    entry,
    file,
    folder,
    hard_link,
    sha256,
    symlink,
    tar,
)

FIXTURES = Path(__file__).parent.parent / "fixtures" / "images"


@pytest.fixture
def image(tmp_path):
    return Image(tmp_path / "image")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    place = tmp_path / "place/root"
    place.mkdir(parents=True)
    return place


def done(image, root, **options):
    path = image.write()
    return unpack(path, identify(path), root, **options)


def refused(image, root, said, **options):
    with pytest.raises(EnvironmentNotRecreatableError, match=said) as caught:
        done(image, root, **options)
    assert caught.value.remedy
    assert caught.value.message.isprintable()
    outside = root.parents[1] / "outside"
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").read_text() == "secret"
    assert os.listdir(root.parent) == ["root"]


def tree(root):
    """Everything below ``root``: its path, and what it is."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        else:
            found[name] = "folder" if path.is_dir() else path.read_bytes()
    return found


# --- what layers mean --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["layout", "oci-archive.tar", "docker-archive.tar"])
def test_what_skopeo_wrote_is_unpacked(name, root):
    path = FIXTURES / name
    identity = identify(path, reference="v1" if name == "layout" else None)
    unpacked = unpack(path, identity, root)
    assert unpacked.configuration["architecture"] == "amd64"
    assert unpacked.files == sum(isinstance(each, bytes) for each in tree(root).values()) > 0


def test_a_layout_and_its_docker_archive_unpack_to_the_same(image, root, tmp_path):
    image.add(folder("a"), file("a/b", b"1"), symlink("c", "a/b")).add(file("a/d", b"2"), pack=None)
    done(image, root)
    other = tmp_path / "other"
    other.mkdir()
    archive = image.docker_archive(tmp_path / "saved.tar")
    unpacked = unpack(archive, identify(archive), other)
    assert tree(other) == tree(root) == {"a": "folder", "a/b": b"1", "c": "-> a/b", "a/d": b"2"}
    assert (unpacked.files, unpacked.skipped) == (2, 0)


def test_modes_are_readable_for_another_user_and_never_set_uid(image, root):
    image.add(
        folder("closed", mode=0o700),
        file("closed/program", b"#!", mode=0o6711),
        file("closed/data", b"x", mode=0o400),
    )
    old = os.umask(0o077)
    try:
        done(image, root)
    finally:
        os.umask(old)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in root.rglob("*")}
    assert modes == {"closed": 0o755, "program": 0o755, "data": 0o644}


def test_the_time_of_a_file_is_kept_because_compiled_modules_go_by_it(image, root):
    image.add(file("a"), file("b", mtime=2**62), file("c", pax_headers={"mtime": "nan"}))
    done(image, root)
    assert (root / "a").stat().st_mtime == TIME
    assert {"b", "c"} <= set(os.listdir(root))


def test_parents_that_no_layer_names_are_made(image, root):
    image.add(file("./a/b/c", b"x"))
    done(image, root)
    assert tree(root) == {"a": "folder", "a/b": "folder", "a/b/c": b"x"}


def test_a_later_layer_replaces_and_a_folder_stays(image, root):
    image.add(folder("a"), file("a/x", b"1"), file("b", b"1"), folder("c"), file("c/y", b"1"))
    image.add(folder("a"), file("b", b"2"), file("c", b"now a file"), folder("./"))
    done(image, root)
    assert tree(root) == {"a": "folder", "a/x": b"1", "b": b"2", "c": b"now a file"}


def test_a_file_becomes_a_folder(image, root):
    image.add(file("a", b"1"), symlink("b", "a")).add(folder("a"), folder("b"), file("a/x", b"2"))
    done(image, root)
    assert tree(root) == {"a": "folder", "a/x": b"2", "b": "folder"}


def test_whiteouts_hide_lower_layers_only(image, root):
    image.add(file("a/gone", b"1"), file("a/stays", b"1"), file("b/old/x", b"1"), file("b/y", b"1"))
    image.add(
        file("b/old/new", b"2"),
        file("a/.wh.gone"),
        file("b/.wh..wh..opq"),
        file("b/.wh..wh..opq"),
        file("a/.wh.never-there"),
        file("nowhere/.wh.x"),
        file("a/.wh.new"),
        file("a/new", b"2"),
        file("b/late", b"2"),
    )
    done(image, root)
    assert set(tree(root)) == {"a", "a/stays", "a/new", "b", "b/old", "b/old/new", "b/late"}


def test_a_whiteout_of_a_folder_keeps_what_the_same_layer_puts_there(image, root):
    image.add(file("a/x", b"1"), file("a/b/y", b"1"))
    image.add(file("a/b/z", b"2"), file(".wh.a"))
    done(image, root)
    assert tree(root) == {"a": "folder", "a/b": "folder", "a/b/z": b"2"}


def test_the_root_can_be_opaque_and_what_aufs_kept_is_no_file(image, root):
    image.add(file("a/x", b"1"), file("b", b"1"))
    image.add(file(".wh..wh..opq"), file(".wh..wh.plnk/1"), file(".wh..wh.aufs"), file("c", b"2"))
    done(image, root)
    assert tree(root) == {"c": b"2"}


def test_hard_links_share_a_file_until_one_of_them_is_replaced(image, root):
    image.add(file("a", b"1"), hard_link("d/b", "a"), hard_link("a", "./a"), symlink("s", "a"))
    image.add(hard_link("c", "d/b"), file("a", b"2"), hard_link("t", "s"))
    done(image, root)
    found = tree(root)
    assert (found["a"], found["c"], found["d/b"], found["t"]) == (b"2", b"1", b"1", "-> a")
    assert (root / "c").stat().st_ino == (root / "d/b").stat().st_ino


def test_a_file_below_a_linked_folder_lands_where_the_link_leads_inside_the_root(image, root):
    image.add(folder("usr/lib"), symlink("lib", "usr/lib"), symlink("abs", "/usr/lib"))
    image.add(
        file("lib/a", b"1"), file("abs/b", b"2"), file("lib/.wh.a"), symlink("up", "../../usr")
    )
    image.add(
        file("up/lib/c", b"3"), file("lib/.wh.b"), symlink("new", "/made/here"), file("new/d", b"4")
    )
    done(image, root)
    found = tree(root)
    assert {name for name in found if "/" in name} == {
        "usr/lib",
        "usr/lib/a",
        "usr/lib/c",
        "made/here",
        "made/here/d",
    }
    assert found["up"] == "-> ../../usr"


def test_a_link_up_and_over_is_followed_by_hand(image, root):
    image.add(folder("a/b"), folder("c"), symlink("a/b/over", "../../c"), symlink("top", "/a/b/.."))
    image.add(file("a/b/over/x", b"1"), file("top/y", b"2"), file("top/b/over/z", b"3"))
    done(image, root)
    found = tree(root)
    assert (found["c/x"], found["a/y"], found["c/z"]) == (b"1", b"2", b"3")


def test_links_are_data_wherever_they_lead(image, root):
    targets = ["/etc/shadow", "../../../../etc/passwd", "nowhere", "a", "/proc/self/root"]
    image.add(*(symlink(f"l{number}", target) for number, target in enumerate(targets)))
    done(image, root)
    assert [str((root / f"l{number}").readlink()) for number in range(5)] == targets


def test_devices_pipes_and_sockets_are_counted_and_left_out(image, root):
    image.add(
        entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        entry("disk", tarfile.BLKTYPE, devmajor=8),
        entry("pipe", tarfile.FIFOTYPE),
        entry("socket", b"s"),
        file("a"),
    )
    unpacked = done(image, root)
    assert (unpacked.files, unpacked.skipped, list(tree(root))) == (1, 4, ["a"])


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_of_both_kinds(image, root, form):
    name = "/".join(["n" * 120] * 5)
    image.add(data=tar(file(name, b"x"), symlink("é", name), form=form))
    done(image, root)
    assert (root / "é").read_bytes() == b"x"


def test_names_that_are_no_unicode_are_kept(image, root):
    image.add(data=tar(file("x\udcff", b"1"), form=tarfile.GNU_FORMAT))
    done(image, root)
    assert os.listdir(os.fsencode(root)) == [b"x\xff"]


def test_the_same_entry_twice_is_the_last_one(image, root):
    done(image.add(file("a", b"1"), file("a", b"2")), root)
    assert tree(root) == {"a": b"2"}


# --- compression -------------------------------------------------------------------------------


def _members(data):
    return b"".join(gzip.compress(data[at : at + 700]) for at in range(0, len(data), 700))


@pytest.mark.parametrize("pack", [None, gzip.compress, _members], ids=["plain", "gzip", "members"])
def test_plain_and_gzip_even_in_many_members(image, root, pack):
    data = os.urandom(1 << 20) + bytes(3 << 20)
    image.add(file("a", data), file("b", b"end"), pack=pack)
    done(image, root)
    assert tree(root) == {"a": data, "b": b"end"}


def test_an_empty_layer(image, root):
    image.add().add(file("a"))
    done(image, root)
    assert list(tree(root)) == ["a"]
    refused(image.add(data=b""), root, "layer 3: the tar is damaged: empty file")


class _FakeZstd:
    """The interface of compression.zstd over zlib, as Python 3.14 has it: one frame for each decompressor."""

    def __init__(self):
        self._inflater = layers._Gzip()
        self.needs_input = True

    eof = property(lambda self: self._inflater.eof)
    unused_data = property(lambda self: self._inflater.unused_data)

    def decompress(self, data, max_length):
        data = data.removeprefix(layers._ZSTD)
        found = self._inflater.decompress(data, max_length)
        self.needs_input = self._inflater.needs_input
        return found


def test_zstandard_where_python_can(image, root, monkeypatch):
    module = SimpleNamespace(ZstdDecompressor=_FakeZstd, ZstdError=zlib.error)
    monkeypatch.setitem(sys.modules, "compression.zstd", module)
    monkeypatch.setitem(sys.modules, "compression", SimpleNamespace(zstd=module))
    image.add(file("a", b"x"), pack=lambda data: layers._ZSTD + gzip.compress(data))
    done(image, root)
    assert tree(root) == {"a": b"x"}


def test_real_zstandard(image, root):
    zstd = next((m for name in layers._ZSTD_MODULES if (m := _imported(name)) is not None), None)
    if zstd is None:
        pytest.skip("neither Python 3.14 nor backports.zstd is here")
    data = bytes(5 << 20) + os.urandom(100_000)
    image.add(file("a", data), pack=zstd.compress)
    image.add(file("b", data), pack=lambda d: zstd.compress(d[:900]) + zstd.compress(d[900:]))
    done(image, root)
    assert tree(root) == {"a": data, "b": data}


def _imported(name):
    try:
        return __import__(name, fromlist=["compress"])
    except ImportError:
        return None


def test_zstandard_where_python_cannot_is_said(image, root, monkeypatch):
    monkeypatch.setattr(layers, "_ZSTD_MODULES", ("bundler.no_such_module",))
    image.add(file("a"), pack=lambda data: layers._ZSTD + data)
    refused(image, root, "layer 1: it is compressed with Zstandard: that needs Python 3.14")


@pytest.mark.parametrize(
    ("pack", "said"),
    [
        (lambda data: b"BZh91AY" + data, "compressed with bzip2"),
        (lambda data: b"\xfd7zXZ\0" + data, "compressed with xz"),
        (lambda data: b"PK\x03\x04" + data, "compressed with zip"),
        (lambda data: gzip.compress(data)[:-20], "cut off"),
        (lambda data: gzip.compress(data)[:40] + b"x" * 40, "cannot be decompressed"),
        (lambda data: gzip.compress(data) + b"behind it", "cannot be decompressed"),
        (lambda data: gzip.compress(gzip.compress(data)), "damaged"),
    ],
)
def test_what_is_no_layer(image, root, pack, said):
    refused(image.add(file("a", b"x" * 1000), pack=pack), root, f"layer 1: .*{said}")


# --- hostile layers ----------------------------------------------------------------------------

ESCAPES = {
    "an absolute name": [file("/outside/x")],
    "a name with ..": [file("a/../../outside/x")],
    "a folder called ..": [folder("..")],
    "a name of NUL": [file("x", pax_headers={"path": "a\0b"})],
    "a name that is too long": [file("n" * 300)],
    "a path that is too long": [file("/".join(["n" * 200] * 30))],
    "too many folders": [file("a/" * 200 + "x")],
    "a whiteout of ..": [file("a/x"), file("a/.wh...")],
    "a whiteout of .": [file("a/.wh..")],
    "a whiteout of nothing": [file(".wh.")],
    "something below a whiteout": [file(".wh.a/x")],
    "an absolute hard link": [hard_link("x", "/etc/passwd")],
    "a hard link with ..": [hard_link("x", "../outside/secret")],
    "a hard link through a link": [symlink("l", "../../outside"), hard_link("x", "l/secret")],
    "a hard link to a folder": [folder("a"), hard_link("x", "a")],
    "a hard link to nothing": [hard_link("x", "nothing")],
    "a hard link to the root": [hard_link("x", "./")],
    "a hard link into itself": [file("a/x"), hard_link("a", "a/x")],
    "a root that is a file": [file("./")],
    "a root that is a link": [symlink(".", "/etc")],
    "links in a circle": [symlink("a", "b"), symlink("b", "a"), file("a/x")],
    "a file as a folder": [file("a"), file("a/x")],
    "a link with no target": [symlink("a", "")],
    "a link of NUL": [entry("a", tarfile.SYMTYPE, pax_headers={"linkpath": "a\0b"})],
    "an unknown type": [entry("a", b"Z")],
    "links that lead ever deeper": [symlink("a", "b/" * 200 + "a"), file("a/x")],
    "a link that is too long": [symlink("a", "b" * 5000)],
}


@pytest.mark.parametrize("entries", ESCAPES.values(), ids=ESCAPES)
@pytest.mark.parametrize("lower", [False, True], ids=["one layer", "two layers"])
def test_no_layer_gets_out(image, root, entries, lower):
    """Neither in one layer nor with the trap in a lower one."""
    for each in [entries] if not lower else [entries[:-1], entries[-1:]]:
        image.add(*each)
    refused(image, root, "layer [12]: ")


ESCAPES_THAT_STAY_INSIDE = {
    "a file through a link that leads out": [symlink("l", "../../outside"), file("l/x", b"1")],
    "through an absolute link": [symlink("l", "/outside"), file("l/x", b"1")],
    "through two links": [symlink("a", "../.."), symlink("b", "a/outside"), file("b/x", b"1")],
    "a folder over a link": [symlink("l", "../../outside"), folder("l"), file("l/x", b"1")],
    "a file over a link": [symlink("l", "../../outside/secret"), file("l", b"1")],
    "a whiteout through a link": [symlink("l", "../../outside"), file("l/.wh.secret")],
    "opaque through a link": [symlink("l", "../../outside"), file("l/.wh..wh..opq")],
    "a link over a folder": [file("d/x"), symlink("d", "../../outside"), file("d/x", b"1")],
}


@pytest.mark.parametrize("entries", ESCAPES_THAT_STAY_INSIDE.values(), ids=ESCAPES_THAT_STAY_INSIDE)
@pytest.mark.parametrize("lower", [False, True], ids=["one layer", "two layers"])
def test_links_are_followed_inside_the_root_only(image, root, entries, lower):
    for each in [entries] if not lower else [entries[:-1], entries[-1:]]:
        image.add(*each)
    done(image, root)
    outside = root.parents[1] / "outside"
    assert (os.listdir(outside), (outside / "secret").read_text()) == (["secret"], "secret")
    assert os.listdir(root.parent) == ["root"]


def _header(**fields):
    """A tar whose first header is wrong in one field."""
    block = bytearray(tar(file("a", b"x" * 600))[:512])
    for at, value in fields.values():
        block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


DAMAGED = {
    "no tar": b"this is no tar at all" * 100,
    "a header with a wrong sum": tar(file("a"))[:100] + b"X" + tar(file("a"))[101:],
    "a second header with a wrong sum": tar(file("a"))[:512] + b"X" * 512 + bytes(1024),
    "cut off in a file": tar(file("a", b"x" * 5000))[:2000],
    "cut off before the next header": tar(file("a", b"x" * 600))[:1200],
    "a negative size": _header(size=(124, b"\xff" * 12)) + bytes(1024),
    "a size beyond everything": _header(size=(124, b"\x80" + b"\0" * 3 + b"\xff" * 8))
    + bytes(1024),
    "a size that is no number": _header(size=(124, b"zzzzzzzzzzz\0")) + bytes(1024),
    "a huge extended header": tar(file("a", pax_headers={"comment": "c" * (2 << 20)})),
    "a number of many digits": tar(file("a", pax_headers={"comment": "9" * 3000})),
    "a bad extended header": tar(entry("x", tarfile.XHDTYPE, b"99 path=a\n"), file("a")),
    "extended headers without end": tar(*[entry("x", tarfile.XHDTYPE, b"9 a=bcd\n\n")] * 2000),
    "a long name that is not followed": tar(entry("L", tarfile.GNUTYPE_LONGNAME, b"x\0")),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_damaged_tars(image, root, data):
    refused(image.add(data=data), root, "layer 1: (the tar is|it unpacks|an entry called)")


@pytest.mark.parametrize(
    "made",
    [
        tar(entry("a", tarfile.GNUTYPE_SPARSE, b"x")),
        tar(file("a", b"1\n0\n1\n" + bytes(506) + b"x", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "100", "GNU.sparse.name": "a"})),
        tar(file("a", b"x", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "9"})),
    ],
)  # fmt: skip
def test_sparse_files_are_refused(image, root, made):
    refused(image.add(data=made), root, "a sparse file, which layers should not have")


def test_many_global_headers_take_no_memory(image, root):
    headers = [
        entry("g", tarfile.XGLTYPE, b"%d k%06d=%s\n" % (1010, n, b"v" * 996)) for n in range(1200)
    ]
    refused(image.add(*headers, file("a")), root, "damaged")


def test_a_compressed_bomb_is_stopped(image, root):
    image.add(file("a", bytes(60 << 20)))
    assert sum(layer["size"] for layer in image.layers) < 100_000
    refused(image, root, "it unpacks to more than is allowed", bounds=Bounds(size=10 << 20))
    assert sum(p.stat().st_size for p in root.rglob("*")) <= 10 << 20


def test_zeros_behind_the_end_count_too(image, root):
    image.add(data=tar(file("a")) + bytes(20 << 20))
    refused(image, root, "it unpacks to more than is allowed", bounds=Bounds(size=10 << 20))


def test_the_bound_is_for_all_layers_together(image, root):
    for number in range(3):
        image.add(file(f"f{number}", bytes(400_000)))
    refused(image, root, "layer 3: it unpacks to more", bounds=Bounds(size=1_000_000))


@pytest.mark.parametrize(
    "entries",
    [
        [file(f"f{number}") for number in range(11)],
        [folder("a")] * 11,
        [file(".wh.a")] * 11,
        [file("a/b/c/d/e/f/g/h/i/j/k/l")],
        [entry("p", tarfile.FIFOTYPE)] * 11,
    ],
)
def test_the_number_of_entries_is_bounded(image, root, entries):
    refused(image.add(*entries), root, "more than 10 entries", bounds=Bounds(entries=10))


def test_the_same_whiteout_again_and_again_costs_nothing(image, root, monkeypatch):
    """Otherwise each of them would go through the whole folder."""
    image.add(*(file(f"d/{n}") for n in range(50)), *[file("d/.wh..wh..opq"), file(".wh.d")] * 500)
    listed = []
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda *args: listed.append(1) or real(*args))
    done(image, root)
    assert len(listed) <= 3
    assert len(real(root / "d")) == 50


# --- digests -----------------------------------------------------------------------------------


def test_the_tar_must_be_the_one_that_the_configuration_names(image, root):
    refused(
        image.add(file("a"), diff_id="sha256:" + "0" * 64),
        root,
        "layer 1: the tar in it has the digest",
    )


def test_a_layer_that_changes_after_it_was_identified(image, root):
    path = image.add(file("a", b"x" * 100), pack=None).write()
    identity = identify(path)
    blob = path / "blobs" / image.layers[0]["digest"].replace(":", "/")
    blob.write_bytes(blob.read_bytes().replace(b"xxx", b"yyy"))
    with pytest.raises(EnvironmentNotRecreatableError, match="the layer has the digest"):
        unpack(path, identity, root)


def test_other_things_that_change_in_between(image, root, tmp_path):
    path = image.add(file("a")).write()
    identity = identify(path)
    config = path / "blobs" / image.config_digest.replace(":", "/")
    good = config.read_bytes()
    for bad, said in [(b"{}", "another one"), (b"x" * (5 << 20), "too large"), (None, "missing")]:
        config.unlink() if bad is None else config.write_bytes(bad)
        with pytest.raises(EnvironmentNotRecreatableError, match=said):
            unpack(path, identity, root)
    config.write_bytes(good)
    archive = image.docker_archive(tmp_path / "saved.tar")
    saved = identify(archive)
    for change, said in [
        ({"config_digest": "sha256:" + "1" * 64}, "another image than a moment ago"),
        ({"layers": ()}, "another number of layers"),
        ({"supplied": False, "reasons": ()}, "were not supplied"),
        ({"resolved": False, "reasons": ("Two may be meant.",)}, "Two may be meant"),
    ]:
        with pytest.raises(EnvironmentNotRecreatableError, match=said):
            unpack(archive, replace(saved, **change), root)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (b"[]", "no object"),
        (b"{", "Expecting property name"),
        (json.dumps({"rootfs": {"diff_ids": ["md5:1"]}}).encode(), "no SHA-256"),
    ],
)
def test_configurations_that_mean_nothing(image, root, config, said):
    path = image.add(file("a")).write()
    digest = image.blob(config, "x")["digest"]
    identity = replace(identify(path), config_digest=digest)
    assert digest == sha256(config)
    with pytest.raises(EnvironmentNotRecreatableError, match=said):
        unpack(path, identity, root)


def test_what_cannot_be_written_is_said(image, root, monkeypatch):
    image.add(file("a", b"x"))
    monkeypatch.setattr(
        os, "fchmod", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    refused(image, root, "layer 1: it could not be written: No space left on device")


def test_a_place_that_is_a_link_is_not_followed(image, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    path = image.add(file("a")).write()
    with pytest.raises(EnvironmentNotRecreatableError, match="Not a directory"):
        unpack(path, identify(path), tmp_path / "link")


# --- any layers --------------------------------------------------------------------------------

_NAMES = st.lists(st.sampled_from(["a", "b", "..", ".", "", ".wh.a", ".wh..wh..opq", "outside", "secret"]), min_size=1, max_size=4).map("/".join)  # fmt: skip
_TARGETS = st.sampled_from(["a", "b/a", "..", "../../outside", "/outside", "/", "a/..", "../b", "outside/secret"])  # fmt: skip
_ENTRIES = st.one_of(
    st.builds(file, _NAMES, st.binary(max_size=3)),
    st.builds(folder, _NAMES),
    st.builds(symlink, _NAMES, _TARGETS),
    st.builds(hard_link, _NAMES, _NAMES | _TARGETS),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(_ENTRIES, max_size=6), max_size=3))
def test_whatever_the_layers_say_only_the_root_is_written(tmp_path_factory, layers):
    base = tmp_path_factory.mktemp("any")
    (base / "outside").mkdir()
    (base / "outside/secret").write_text("secret")
    root = base / "place/root"
    root.mkdir(parents=True)
    image = Image(base / "image")
    for entries in layers:
        image.add(*entries)
    path = image.write()
    with suppress(EnvironmentNotRecreatableError):
        unpack(path, identify(path), root)
    assert sorted(os.listdir(base)) == ["image", "outside", "place"]
    assert os.listdir(base / "place") == ["root"]
    assert os.listdir(base / "outside") == ["secret"]
    assert (base / "outside/secret").stat().st_nlink == 1
    assert (base / "outside/secret").read_text() == "secret"


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=3000), st.booleans())
def test_no_bytes_make_it_fall_over(tmp_path_factory, data, packed):
    base = tmp_path_factory.mktemp("bytes")
    (base / "root").mkdir()
    image = Image(base / "image").add(data=data, pack=gzip.compress if packed else None)
    path = image.write()
    with suppress(EnvironmentNotRecreatableError):  # any other exception is a failure
        unpack(path, identify(path), base / "root")
    assert sorted(os.listdir(base)) == ["image", "root"]
