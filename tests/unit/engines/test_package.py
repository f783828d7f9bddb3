"""A staged package that travels."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.engines.package import pack, provide, unpack
from bundler.errors import MalformedError

NAMES = st.from_regex(r"[a-z]{1,3}/[a-z.]{0,2}[a-z]", fullmatch=True)


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mode & 0o777)
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def test_what_arrives_is_what_was_sent(staged, tmp_path):
    (staged / "code/run.sh").write_text("#!/bin/sh\n")
    (staged / "code/run.sh").chmod(0o755)
    (staged / "code/.hidden").write_bytes(b"\0" * 3_000_000)
    sha256 = pack(staged, tmp_path / "package.tar")
    with (tmp_path / "package.tar").open("rb") as file:
        unpack(file, sha256, tmp_path / "there")
    assert tree(tmp_path / "there") == tree(staged)
    assert tree(staged)["declared"] is None  # an empty folder travels, too


@given(st.dictionaries(NAMES, st.binary(max_size=2000)))
def test_any_files_arrive(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("package")
    for name, content in files.items():
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "in" / name).write_bytes(content)
    (folder / "in").mkdir(exist_ok=True)
    sha256 = pack(folder / "in", folder / "tar")
    unpack(io.BytesIO((folder / "tar").read_bytes()), sha256, folder / "out")
    assert tree(folder / "out") == tree(folder / "in")


def test_equal_packages_are_equal_bytes(staged, tmp_path):
    first = pack(staged, tmp_path / "1")
    for path in staged.rglob("*"):
        os.utime(path, (1, 1))
    assert pack(staged, tmp_path / "2") == first


def test_a_link_is_not_packed(staged, tmp_path):
    (staged / "code/link").symlink_to("/etc/passwd")
    with pytest.raises(MalformedError, match="neither file nor folder") as caught:
        pack(staged, tmp_path / "package.tar")
    assert caught.value.code == "package"


def test_a_package_that_arrives_changed_is_not_unpacked(staged, tmp_path):
    sha256 = pack(staged, tmp_path / "package.tar")
    data = bytearray((tmp_path / "package.tar").read_bytes())
    data[700] ^= 1
    with pytest.raises(MalformedError, match="arrived changed"):
        unpack(io.BytesIO(bytes(data)), sha256, tmp_path / "there")
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("/absolute", tarfile.REGTYPE), ("../out", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)],
)
def test_nothing_leads_out_of_the_folder(tmp_path, name, kind):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc"
        archive.addfile(member)
    sha256 = hashlib.sha256(made.getvalue()).hexdigest()
    with pytest.raises(MalformedError, match="no file or folder of it"):
        unpack(io.BytesIO(made.getvalue()), sha256, tmp_path / "there")


def test_however_many_ask_it_is_unpacked_once(staged, tmp_path):
    sha256 = pack(staged, tmp_path / "package.tar")
    fetched = []

    def fetch():
        fetched.append(1)
        return (tmp_path / "package.tar").open("rb")

    folders = []
    threads = [
        threading.Thread(target=lambda: folders.append(provide(fetch, sha256, tmp_path / "node")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetched == [1]
    assert folders == [tmp_path / "node/package"] * 8
    assert tree(folders[0]) == tree(staged)
    assert (tmp_path / "node").stat().st_mode & 0o777 == 0o700


def test_what_a_killed_process_unpacked_in_part_is_not_believed(staged, tmp_path):
    sha256 = pack(staged, tmp_path / "package.tar")
    (tmp_path / "node/package.partial/code").mkdir(parents=True)
    (tmp_path / "node/package.partial/code/half.py").write_text("half")
    there = provide(lambda: (tmp_path / "package.tar").open("rb"), sha256, tmp_path / "node")
    assert tree(there) == tree(staged)


def test_a_folder_that_is_a_link_is_not_used(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "node").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"own|exists"):
        provide(lambda: io.BytesIO(b""), "", tmp_path / "node")
