"""A tar file as a bag: one form, rebuilt from name and size and compared whole."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from pathlib import Path

import pytest

from bundler.errors import MalformedError
from bundler.storage import ArchiveBag, Entry, Limits, open_bag
from bundler.storage.archive import END, MAX_MEMBER, member_header

FILES = {
    "bagit.txt": b"b" * 512,
    "data/a": b"one",
    "data/b": b"",
    "data/" + "x" * 94 + "/" + "y" * 100: b"long",
}


def archive_of(files: dict[str, bytes], *, end: bytes = END, padding: bytes = b"\0") -> bytes:
    members = (
        member_header(path, len(data)) + data + padding * (-len(data) % 512)
        for path, data in files.items()
    )
    return b"".join(members) + end


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "bag.tar"
    path.write_bytes(archive_of(FILES))
    return path


def read(bag, path: str) -> bytes:
    with bag.open(path) as file:
        return file.read()


def refusal(call, *arguments) -> MalformedError:
    with pytest.raises(MalformedError) as refused:
        call(*arguments)
    assert refused.value.message.isprintable()
    return refused.value


def test_a_plain_archive_is_a_bag_without_problems(archive):
    bag = open_bag(archive)
    assert isinstance(bag, ArchiveBag)
    assert bag.name == "bag"
    assert bag.problems() == ()
    assert bag.entries() == tuple(Entry(path=path, size=len(data)) for path, data in FILES.items())
    assert {path: read(bag, path) for path in FILES} == FILES


def test_tar_programs_can_read_it(archive):
    with tarfile.open(archive) as reader:
        assert {member.name: reader.extractfile(member).read() for member in reader} == FILES


def test_several_members_can_be_read_at_once_and_in_pieces(archive):
    bag = open_bag(archive)
    with bag.open("bagit.txt") as first, bag.open("data/a") as second:
        assert (first.read(2), second.read(2), first.read(2), second.read()) == (
            b"bb",
            b"on",
            b"bb",
            b"e",
        )


def test_an_archive_of_nothing_is_an_empty_bag(tmp_path):
    (tmp_path / "x.tar").write_bytes(END)
    assert open_bag(tmp_path / "x.tar").entries() == ()


GOOD = archive_of(FILES)
ONE = archive_of({"data/a": b"one"})


def changed(offset: int, data: bytes) -> bytes:
    """:data:`ONE` with ``data`` at ``offset``, and the checksum of its header computed anew."""
    text = bytearray(ONE)
    text[offset : offset + len(data)] = data
    text[148:156] = b" " * 8
    text[148:156] = b"%06o\0 " % sum(text[:512])
    return bytes(text)


BAD = {
    "nothing": (b"", "archive-member"),
    "half a block": (b"\0" * 100, "archive-member"),
    "gzip": (b"\x1f\x8b" + b"\0" * 600, "archive-member"),
    "one block of the end missing": (GOOD[:-512], "archive-trailing"),
    "the end missing": (GOOD[:-1024], "archive-member"),
    "one empty block more": (GOOD + b"\0" * 512, "archive-trailing"),
    "one byte more": (GOOD + b"\0", "archive-trailing"),
    "another archive behind": (GOOD + GOOD, "archive-trailing"),
    "a member cut off": (ONE[:600], "archive-truncated"),
    "a padding cut off": (ONE[:1000], "archive-truncated"),
    "bytes in the padding": (archive_of({"data/a": b"one"}, padding=b"x"), "archive-padding"),
    "one byte in the padding": (ONE[:1023] + b"\1" + ONE[1024:], "archive-padding"),
    "a member twice": (archive_of({"a": b""}, end=b"") + archive_of({"a": b"x"}), "archive-order"),
    "members out of order": (archive_of({"b": b"", "a": b""}), "archive-order"),
    "a wrong checksum": (ONE[:148] + b"000000\0 " + ONE[156:], "archive-member"),
    "a time": (changed(136, b"00000000001"), "archive-member"),
    "an owner": (changed(108, b"0000001"), "archive-member"),
    "a group": (changed(116, b"0000001"), "archive-member"),
    "the name of an owner": (changed(265, b"root"), "archive-member"),
    "the name of a group": (changed(297, b"root"), "archive-member"),
    "another mode": (changed(100, b"0000755"), "archive-member"),
    "the old type": (changed(156, b"\0"), "archive-member"),
    "a hard link": (changed(156, b"1"), "archive-member"),
    "a symbolic link": (changed(156, b"2"), "archive-member"),
    "a device": (changed(156, b"3"), "archive-member"),
    "a folder": (changed(156, b"5"), "archive-member"),
    "a FIFO": (changed(156, b"6"), "archive-member"),
    "a sparse file": (changed(156, b"S"), "archive-member"),
    "an extended header": (changed(156, b"x"), "archive-member"),
    "a global header": (changed(156, b"g"), "archive-member"),
    "a long name": (changed(156, b"L"), "archive-member"),
    "an unknown type": (changed(156, b"Z"), "archive-member"),
    "a target of a link": (changed(157, b"/etc/passwd"), "archive-member"),
    "GNU magic": (changed(257, b"ustar  \0"), "archive-member"),
    "a prefix where none is needed": (changed(345, b"data"), "archive-member"),
    "bytes behind the NUL of the name": (changed(50, b"x"), "archive-member"),
    "bytes at the end of the header": (changed(505, b"x"), "archive-member"),
    "a negative size": (changed(124, b"\xff" * 12), "archive-member"),
    "a size in base 256": (changed(124, b"\x80" + b"\0" * 10 + b"\3"), "archive-member"),
    "a size in another spelling": (changed(124, b"          3 "), "archive-member"),
    "a size that is no number": (changed(124, b"three"), "archive-member"),
    "a size with an underscore": (changed(124, b"0000000_003"), "archive-member"),
    "a name beyond ASCII": (changed(0, b"\xc3\xa9"), "archive-member"),
}


@pytest.mark.parametrize("what", BAD)
def test_any_other_archive_is_refused_by_name(what, tmp_path):
    data, code = BAD[what]
    (tmp_path / "x.tar").write_bytes(data)
    assert refusal(open_bag, tmp_path / "x.tar").code == code


def test_padding_of_the_wrong_bytes_is_archive_padding(tmp_path):
    """Bytes between members belong to no file: a place to hide something."""
    (tmp_path / "x.tar").write_bytes(archive_of(FILES, padding=b"\xff"))
    assert refusal(open_bag, tmp_path / "x.tar").code == "archive-padding"


def test_names_are_checked_as_in_a_folder(tmp_path):
    names = ["/etc/passwd", "../x", "a\\b", "data/A", "data/a", "data/a/b", "data/c/"]
    (tmp_path / "x.tar").write_bytes(archive_of(dict.fromkeys(sorted(names), b"")))
    bag = open_bag(tmp_path / "x.tar")
    found = {(problem.code, problem.subject) for problem in bag.problems()}
    assert found == {
        ("path-unsafe", "/etc/passwd"),
        ("path-unsafe", "../x"),
        ("path-unsafe", "a\\\\b"),
        ("path-unsafe", "data/c/"),
        ("path-collision", "data/a"),
    }


def test_more_members_than_the_limit_are_bundle_too_large(archive):
    assert open_bag(archive, Limits(files=len(FILES))).problems() == ()
    assert refusal(open_bag, archive, Limits(files=len(FILES) - 1)).code == "bundle-too-large"


def test_more_bytes_than_the_limit_are_bundle_too_large_in_one_member_or_many(archive):
    size = sum(map(len, FILES.values()))
    assert open_bag(archive, Limits(total=size)).problems() == ()
    assert refusal(open_bag, archive, Limits(total=size - 1)).code == "bundle-too-large"


def test_a_declared_size_beyond_the_file_is_not_believed(tmp_path):
    (tmp_path / "x.tar").write_bytes(member_header("data/a", MAX_MEMBER) + END)
    assert refusal(open_bag, tmp_path / "x.tar").code == "archive-truncated"


def test_a_terabyte_behind_the_end_is_refused_without_reading_it(tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(GOOD)
    try:
        os.truncate(path, 1 << 40)
    except OSError as error:
        pytest.skip(f"no sparse files here: {error}")
    assert refusal(open_bag, path).code == "archive-trailing"


@pytest.mark.parametrize(
    ("name", "size"), [("data/a", MAX_MEMBER + 1), ("data/a", -1), ("é", 1), ("a" * 101, 1)]
)
def test_what_a_header_cannot_carry_is_refused(name, size):
    assert refusal(member_header, name, size).code == "archive-member"


def test_an_archive_swapped_for_a_link_is_bundle_unreadable(archive):
    archive.rename(archive.with_name("moved"))
    archive.symlink_to("moved")
    assert refusal(ArchiveBag, archive, Limits()).code == "bundle-unreadable"


def test_a_file_that_cannot_be_read_is_bundle_unreadable():
    """Reading one's own memory at 0 is an input/output error."""
    if not Path("/proc/self/mem").exists():
        pytest.skip("no /proc here")
    assert refusal(open_bag, Path("/proc/self/mem")).code == "bundle-unreadable"


def test_an_archive_written_to_after_it_was_opened_is_file_changed(archive):
    bag = open_bag(archive)
    before = archive.stat()
    archive.write_bytes(archive_of(FILES | {"data/a": b"eno"}))
    os.utime(archive, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert refusal(read, bag, "data/a").code == "file-changed"


def test_an_archive_replaced_after_it_was_opened_is_file_changed(archive):
    bag = open_bag(archive)
    archive.with_name("new").write_bytes(archive.read_bytes())
    archive.with_name("new").replace(archive)
    assert refusal(read, bag, "data/a").code == "file-changed"


def test_an_archive_that_changes_while_it_is_read_is_file_changed(archive):
    def read_and_change() -> None:
        with bag.open("data/a") as file:
            os.truncate(archive, 600)
            file.read()

    bag = open_bag(archive)
    assert refusal(read_and_change).code == "file-changed"


def test_an_archive_removed_or_linked_after_it_was_opened_is_file_unreadable(archive):
    bag = open_bag(archive)
    archive.rename(archive.with_name("moved"))
    assert refusal(read, bag, "data/a").code == "file-unreadable"
    archive.symlink_to("moved")
    assert refusal(read, bag, "data/a").code == "file-unreadable"


def test_a_fifo_in_the_place_of_an_archive_is_file_changed_and_does_not_hang(archive):
    bag = open_bag(archive)
    archive.unlink()
    os.mkfifo(archive)
    assert refusal(read, bag, "data/a").code == "file-changed"


def test_a_disk_that_fails_while_a_member_is_read_is_file_unreadable(archive):
    def fail() -> None:
        with bag.open("data/a"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    bag = open_bag(archive)
    assert refusal(fail).code == "file-unreadable"


def test_a_window_is_a_readable_file(archive):
    with open_bag(archive).open("data/a") as file:
        assert isinstance(file, io.BufferedReader)
        assert file.readable()
        buffer = bytearray(10)
        assert file.readinto(buffer) == 3
        assert file.read() == b""
