"""Zip files of trackers: what an honest tool writes is read, what misleads or exhausts a reader is refused by name."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler.errors import SourceError
from bundler.importers import archives

DIRECTORY_ENTRY = b"PK\x01\x02"
LOCAL_HEADER = b"PK\x03\x04"
END = b"PK\x05\x06"


def made(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def special(path: Path, name: str, mode: int, data: bytes = b"x") -> Path:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(info, data)
    return path


def changed(path: Path, mark: bytes, offset: int, form: str, *values: int) -> Path:
    """Overwrite numbers at ``offset`` after the first ``mark``."""
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, data.index(mark) + offset, *values)
    path.write_bytes(data)
    return path


def renamed(path: Path, old: bytes, new: bytes) -> Path:
    """Give a member another name of the same length, in both places."""
    assert len(old) == len(new)
    path.write_bytes(path.read_bytes().replace(old, new))
    return path


def read_all(path: Path) -> dict[str, bytes]:
    with archives.opened(path) as archive:
        return {name: archive.read(name, limit=1 << 20) for name in archive.names}


def refused(path: Path, match: str) -> SourceError:
    with pytest.raises(SourceError, match=match) as error:
        read_all(path)
    assert repr(str(path)) in error.value.message
    assert error.value.remedy
    assert (error.value.message + error.value.remedy).isprintable()
    return error.value


# --- what is honest ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_read_as_they_were_written(tmp_path, method):
    members = {"größe/✓.txt": b"a" * 5000, "a": b"", "b/c": os.urandom(3000)}
    assert read_all(made(tmp_path / "x.zip", members, method)) == members


def test_a_member_comes_in_pieces(tmp_path):
    data = os.urandom(3 << 20)
    with archives.opened(made(tmp_path / "x.zip", {"a": data}, zipfile.ZIP_STORED)) as archive:
        pieces = list(archive.chunks("a"))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= 1 << 20
    assert len(pieces) > 1


def test_folders_are_no_members(tmp_path):
    path = made(tmp_path / "x.zip", {"b/a": b"1"})
    with zipfile.ZipFile(path, "a") as file:
        file.mkdir("folder")
        file.writestr("b/", b"")
    with archives.opened(path) as archive:
        assert archive.names == ("b/a",)
        assert "b/a" in archive
        assert "folder/" not in archive


def test_an_archive_may_be_empty(tmp_path):
    with archives.opened(made(tmp_path / "x.zip", {})) as archive:
        assert archive.names == ()


def test_the_large_form_is_read_as_well(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as file, file.open("a", "w", force_zip64=True) as member:
        member.write(b"large")
    assert read_all(path) == {"a": b"large"}


def test_a_zip_file_within_is_a_member_and_stays_closed(tmp_path):
    inner = made(tmp_path / "inner.zip", {"../evil": b"x"}).read_bytes()
    assert read_all(made(tmp_path / "x.zip", {"inner.zip": inner})) == {"inner.zip": inner}


def test_a_member_is_taken_out_into_a_new_file(tmp_path):
    with archives.opened(made(tmp_path / "x.zip", {"a/b": b"data"})) as archive:
        archive.extract("a/b", tmp_path / "new" / "folder" / "7")
    assert (tmp_path / "new" / "folder" / "7").read_bytes() == b"data"


def test_names_that_differ_by_case_alone_are_two_members(tmp_path):
    path = made(tmp_path / "x.zip", {"Model": b"1", "model": b"2"})
    assert read_all(path) == {"Model": b"1", "model": b"2"}
    # Where they cannot both be a file, the second one is refused.
    with archives.opened(path) as archive:
        archive.extract("Model", tmp_path / "one")
        with pytest.raises(SourceError, match=r"'model' of .* cannot be extracted: File exists"):
            archive.extract("model", tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == b"1"


def test_what_is_damaged_leaves_no_half_file(tmp_path):
    path = made(tmp_path / "x.zip", {"a": os.urandom(3 << 20)}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[2 << 20] ^= 1
    path.write_bytes(data)
    with archives.opened(path) as archive, pytest.raises(SourceError, match="CRC"):
        archive.extract("a", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- what misleads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd", "../x", "a/../../x", "a/..", "..", "a\\b", "C:x", "c:/x", "./a", "a//b", "a/./b",
        "a\nb", "a\x1b[2Jb", "a\x7fb", "a\x9bb",
    ],
)  # fmt: skip
def test_a_name_that_could_lead_elsewhere_is_refused(tmp_path, name):
    refused(made(tmp_path / "x.zip", {name: b"x"}), "has a name that could lead elsewhere")


def test_a_name_with_nul_is_refused_whole(tmp_path):
    path = renamed(
        made(tmp_path / "x.zip", {"good.txtZevil": b"x"}), b"good.txtZevil", b"good.txt\0evil"
    )
    assert "evil" in refused(path, "could lead elsewhere").message


def test_a_name_that_is_empty_is_refused(tmp_path):
    path = changed(made(tmp_path / "x.zip", {"a": b"x"}), DIRECTORY_ENTRY, 28, "<HH", 0, 1)
    refused(path, "member '' has a name that could lead elsewhere")


@pytest.mark.parametrize(
    "name",
    ["a" * 256, "a/" + "ü" * 128, "/".join(["a" * 250] * 5), "/".join(["ü" * 100] * 6)],
)
def test_a_name_that_is_too_long_is_refused(tmp_path, name):
    refused(made(tmp_path / "x.zip", {name: b"x"}), "has a name that is too long")


@pytest.mark.parametrize(
    "kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK, stat.S_IFDIR]
)
def test_a_member_that_is_no_plain_file_is_refused(tmp_path, kind):
    refused(special(tmp_path / "x.zip", "a", kind | 0o777), "'a' is a link or a special file")


def test_a_folder_that_says_that_it_is_a_link_is_refused(tmp_path):
    refused(
        special(tmp_path / "x.zip", "a/", stat.S_IFLNK | 0o777, b""), "is a link or a special file"
    )


def test_a_link_of_another_system_is_no_file_either(tmp_path):
    info = zipfile.ZipInfo("a")
    info.create_system = 0
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr(info, b"/etc/passwd")
    refused(tmp_path / "x.zip", "is a link or a special file")


def test_two_members_of_one_name_are_refused(tmp_path):
    path = renamed(made(tmp_path / "x.zip", {"aa": b"1", "ab": b"2"}), b"ab", b"aa")
    refused(path, "two members of the same name")


def test_a_file_and_a_folder_of_one_name_are_refused(tmp_path):
    refused(made(tmp_path / "x.zip", {"a": b"1", "a/": b""}), "two members of the same name")


def test_a_member_below_a_file_is_refused(tmp_path):
    refused(
        made(tmp_path / "x.zip", {"a": b"1", "a/b/c": b"2"}),
        "'a/b/c' lies below 'a', which is a file",
    )


def test_a_member_below_a_file_is_found_among_names_that_sort_between(tmp_path):
    members = dict.fromkeys(["a", "a.b", "a!", "a b/c", "a/b", "b"], b"")
    refused(made(tmp_path / "x.zip", members), "'a/b' lies below 'a', which is a file")
    del members["a/b"]
    assert read_all(made(tmp_path / "y.zip", members)) == members


@pytest.mark.parametrize("flag", [0x1, 0x41, 0x2000])
def test_an_encrypted_member_is_refused(tmp_path, flag):
    path = changed(made(tmp_path / "x.zip", {"a": b"1"}), DIRECTORY_ENTRY, 8, "<H", flag)
    refused(path, "'a' is encrypted")


def test_patched_data_is_refused(tmp_path):
    path = changed(made(tmp_path / "x.zip", {"a": b"1"}), DIRECTORY_ENTRY, 8, "<H", 0x20)
    refused(path, "'a' at byte 0: compressed patched data")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_that_no_tracker_uses_is_refused(tmp_path, method):
    refused(made(tmp_path / "x.zip", {"a": b"1"}, method), "not by deflate")


def test_an_unknown_compression_is_refused(tmp_path):
    path = changed(made(tmp_path / "x.zip", {"a": b"1"}), DIRECTORY_ENTRY, 10, "<H", 99)
    refused(path, "compressed by method 99, not by deflate")


def test_a_version_of_the_future_is_refused(tmp_path):
    path = changed(made(tmp_path / "x.zip", {"a": b"1"}), DIRECTORY_ENTRY, 6, "<H", 99)
    refused(path, "zip file version 9.9")


def test_another_name_in_the_member_than_in_the_directory_is_refused(tmp_path):
    path = made(tmp_path / "x.zip", {"aaaa": b"1"})
    data = path.read_bytes()
    path.write_bytes(data.replace(b"aaaa", b"bbbb", 1))
    refused(path, "'aaaa' at byte 0: .* differ")


# --- what exhausts ----------------------------------------------------------------------------------------------------


def test_a_member_of_more_bytes_than_the_limit_is_refused_before_it_is_read(tmp_path):
    with archives.opened(made(tmp_path / "x.zip", {"a": b"0" * 1000})) as archive:
        assert len(archive.read("a", limit=1000)) == 1000
        with pytest.raises(SourceError, match="member 'a' of more than 999 bytes"):
            archive.read("a", limit=999)


def test_a_member_that_is_longer_than_it_says_is_refused(tmp_path):
    path = made(tmp_path / "x.zip", {"a": b"0" * 1_000_000})
    refused(changed(path, DIRECTORY_ENTRY, 24, "<I", 10), "'a' at byte 0: Bad CRC-32")


def test_a_member_that_is_shorter_than_it_says_is_refused(tmp_path):
    path = made(tmp_path / "x.zip", {"a": b"0" * 1000})
    refused(
        changed(path, DIRECTORY_ENTRY, 24, "<I", 5000),
        "'a' at byte 0: 4,000 bytes less than it says",
    )


def test_members_that_say_that_they_are_huge_are_refused(tmp_path):
    path = made(tmp_path / "x.zip", {str(number): b"1" for number in range(20)})
    data = bytearray(path.read_bytes())
    start = 0
    while (start := data.find(DIRECTORY_ENTRY, start)) >= 0:
        struct.pack_into("<I", data, start + 24, 0xFFFFFFF0)
        start += 4
    path.write_bytes(data)
    refused(path, "more than 64 GiB")


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    assert len(read_all(made(tmp_path / "x.zip", dict.fromkeys("abc", b"")))) == 3
    refused(made(tmp_path / "y.zip", dict.fromkeys("abcd", b"")), "more than 3 members")


def test_a_directory_that_says_that_it_is_huge_is_not_read(tmp_path):
    path = made(tmp_path / "x.zip", {"a": b"1"})
    with path.open(
        "r+b"
    ) as file:  # as large as the directory says, without taking room on the disk
        data = path.read_bytes()
        end = data[data.index(END) :]
        file.seek(40 << 20)
        file.write(end[:12] + struct.pack("<II", 39 << 20, 1 << 20) + end[20:])
    refused(path, "a directory of more than 16 MiB")


def test_members_that_share_bytes_are_refused(tmp_path):
    # The trick of a bomb that is small however it is measured: every directory entry names the same data.
    path = made(tmp_path / "x.zip", {"aa": b"0" * 100_000, "ab": b"0" * 100_000})
    data = bytearray(path.read_bytes())
    second = data.index(DIRECTORY_ENTRY, data.index(DIRECTORY_ENTRY) + 4)
    struct.pack_into("<I", data, second + 42, 0)
    path.write_bytes(data)
    refused(path, "'aa' reaches into what follows")


def test_a_member_that_reaches_into_the_directory_is_refused(tmp_path):
    path = made(tmp_path / "x.zip", {"a": b"1"}, zipfile.ZIP_STORED)
    refused(changed(path, DIRECTORY_ENTRY, 20, "<I", 60), "reaches into what follows")


# --- what is damaged --------------------------------------------------------------------------------------------------


def test_a_wrong_checksum_names_member_and_place(tmp_path):
    path = made(tmp_path / "x.zip", {"first": b"1" * 100, "second": b"2" * 100}, zipfile.ZIP_STORED)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"2" * 100, b"2" * 99 + b"3"))
    offset = data.index(LOCAL_HEADER, 4)
    refused(path, rf"member 'second' at byte {offset}: Bad CRC-32")


def test_a_broken_stream_names_member_and_place(tmp_path):
    path = made(tmp_path / "x.zip", {"a": os.urandom(1000)})
    data = bytearray(path.read_bytes())
    data[31:40] = b"\xff" * 9
    path.write_bytes(data)
    refused(path, "member 'a' at byte 0: Error -3 while decompressing")


def test_a_file_that_ends_too_early_is_refused(tmp_path):
    path = made(tmp_path / "x.zip", {"a": b"1" * 100})
    path.write_bytes(path.read_bytes()[:-30])
    refused(path, "File is not a zip file")


@pytest.mark.parametrize("content", [b"", b"no zip file at all", b"PK\x05\x06"])
def test_what_is_no_zip_file_is_refused(tmp_path, content):
    (tmp_path / "x.zip").write_bytes(content)
    refused(tmp_path / "x.zip", "File is not a zip file")


def test_a_directory_that_lies_before_the_file_is_refused(tmp_path):
    path = made(tmp_path / "x.zip", {"a": b"1"})
    refused(changed(path, END, 12, "<I", 0xFFFFFF), "cannot be read as a zip file")


def test_a_member_that_is_not_there_is_named(tmp_path):
    path = made(tmp_path / "x.zip", {"a": b"1"})
    with archives.opened(path) as archive, pytest.raises(SourceError, match="no member 'b'"):
        archive.read("b", limit=1)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"x\.zip' cannot be read: No such file"):
        read_all(tmp_path / "x.zip")


def test_a_folder_or_a_pipe_is_no_zip_file(tmp_path):
    refused(tmp_path, "not a file")
    os.mkfifo(tmp_path / "pipe.zip")
    refused(tmp_path / "pipe.zip", "not a file")


def test_a_path_with_nul_is_refused():
    with pytest.raises(SourceError, match="null byte"):
        read_all(Path("a\0b"))


def test_an_error_of_the_disk_is_one(tmp_path, monkeypatch):
    path = made(tmp_path / "x.zip", {"a": b"1"})

    def broken(*_, **__):
        raise OSError(5, "Input/output error")

    with archives.opened(path) as archive:
        monkeypatch.setattr(archive._file, "open", broken)
        with pytest.raises(SourceError, match=r"cannot be read: Input/output error"):
            archive.read("a", limit=1)
    monkeypatch.setattr(zipfile, "ZipFile", broken)
    with pytest.raises(SourceError, match=r"cannot be read: Input/output error"):
        read_all(path)


# --- what is cut, or added to -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [{"weights": b"w" * 50}, {}])
def test_a_file_that_is_cut_anywhere_is_never_the_zip_file_inside_it(tmp_path, inside):
    inner = made(tmp_path / "inner.zip", inside).read_bytes()
    members = {"first": b"1" * 40, "inner.zip": inner, "last": b"2" * 40}
    path = made(tmp_path / "x.zip", members, zipfile.ZIP_STORED)
    data = path.read_bytes()
    ends = data.index(inner) + len(inner)
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        refused(path, "cannot be read as a zip file")
    path.write_bytes(data[:ends])
    refused(
        path, rf"begins at byte {ends - len(inner)}, not at byte 0: cut after a zip file inside"
    )
    path.write_bytes(data[: ends + 10])
    refused(path, rf"end record ends at byte {ends} and the file at byte {ends + 10}: cut")


def test_a_zip_file_with_something_before_or_after_it_is_refused(tmp_path):
    path = made(tmp_path / "x.zip", {"a": b"1"})
    data = path.read_bytes()
    path.write_bytes(b"#!/bin/sh\n" + data)
    refused(path, "begins at byte 10, not at byte 0")
    path.write_bytes(data + b"\n")
    refused(path, f"end record ends at byte {len(data)} and the file at byte {len(data) + 1}")


@pytest.mark.parametrize("comment", [b"a comment", b"c" * 0xFFFF])
def test_a_comment_belongs_to_the_end(tmp_path, comment):
    path = made(tmp_path / "x.zip", {"a": b"1"})
    with zipfile.ZipFile(path, "a") as file:
        file.comment = comment
    assert read_all(path) == {"a": b"1"}
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, "cut, or added to")


@pytest.mark.parametrize("said", [0, 1, 3])
def test_an_end_record_that_counts_other_members_is_refused(tmp_path, said):
    path = changed(made(tmp_path / "x.zip", dict.fromkeys("ab", b"")), END, 8, "<HH", said, said)
    refused(path, f"2 members, where its end record says {said}")


def test_members_are_counted_before_anything_is_made_of_them(tmp_path, monkeypatch):
    path = made(tmp_path / "x.zip", dict.fromkeys("abcd", b""))
    many = made(tmp_path / "y.zip", dict.fromkeys("ab", b""))
    changed(path, END, 8, "<HH", 1, 1)
    changed(many, END, 8, "<HH", 9, 9)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    refused(path, "more than 3 members")
    refused(many, "more than 3 members")


def test_an_end_record_of_the_large_form_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    path = made(tmp_path / "x.zip", dict.fromkeys("abc", b"1"))
    data = path.read_bytes()
    assert b"PK\x06\x06" in data
    assert read_all(path) == dict.fromkeys("abc", b"1")
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        refused(path, "cannot be read as a zip file")


def test_deep_names_are_compared_without_their_parents(tmp_path, monkeypatch):
    made_of = []
    whole = archives.PurePosixPath

    class Counted(whole):
        @property
        def parents(self):
            made_of.append(self)
            return super().parents

    monkeypatch.setattr(archives, "PurePosixPath", Counted)
    deep = "/".join(["a"] * 400)
    assert len(read_all(made(tmp_path / "x.zip", {f"{deep}/{n}": b"" for n in range(50)}))) == 50
    assert made_of == []


# --- whatever the bytes are -------------------------------------------------------------------------------------------

FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def sample() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("experiment.json", b'{"a": 1}' * 20)
        file.writestr("a/b", os.urandom(50), zipfile.ZIP_STORED)
    return stream.getvalue()


def survives(path: Path) -> None:
    message = ""
    try:
        read_all(path)
    except SourceError as error:
        message = error.message + error.remedy
    assert message.isprintable() or not message
    assert len(message) < 1000


@FUZZ
@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_give_members_or_a_source_error(tmp_path, data, ends):
    path = tmp_path / "x.zip"
    path.write_bytes(data + (END + data[:18].ljust(18, b"\0") if ends else b""))
    survives(path)


@FUZZ
@given(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_changed_zip_file_gives_members_or_a_source_error(tmp_path, changes):
    data = bytearray(sample())
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path / "x.zip"
    path.write_bytes(data)
    survives(path)


@FUZZ
@given(st.integers(0, 600), st.binary(max_size=40))
def test_a_cut_or_grown_zip_file_gives_members_or_a_source_error(tmp_path, place, more):
    data = sample()
    path = tmp_path / "x.zip"
    path.write_bytes(data[: place % len(data)] + more + data[place % len(data) :][: len(more) * 20])
    survives(path)
