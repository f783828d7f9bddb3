"""Archives: what goes in comes out, and nothing else is an archive."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.manifest import collisions
from bundler.storage import Limits, MemoryBag, open_bag
from bundler.storage.archive import BLOCK, END, ArchiveBag, member_header
from bundler.storage.writer import write_archive, write_file
from tests.property.strategies import attempt, files

distinct = files.filter(lambda drawn: not collisions(drawn))


def archive_of(contents: dict[str, bytes]) -> bytes:
    members = (
        member_header(path, len(contents[path]))
        + contents[path]
        + b"\0" * (-len(contents[path]) % BLOCK)
        for path in sorted(contents)
    )
    return b"".join(members) + END


def opened(data: bytes) -> ArchiveBag:
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        file.write(data)
        file.flush()
        return ArchiveBag(Path(file.name), Limits())


@given(distinct)
@settings(max_examples=40)
def test_what_is_written_is_read_in_folders_and_archives_alike(contents):
    with tempfile.TemporaryDirectory() as folder:
        bag = Path(folder) / "bag"
        bag.mkdir()
        for path, data in contents.items():
            write_file(bag, path, data)
        write_archive(bag, Path(folder) / "bag.tar")
        assert (Path(folder) / "bag.tar").read_bytes() == archive_of(contents)
        archive = open_bag(Path(folder) / "bag.tar")
        assert archive.entries() == MemoryBag(contents).entries()
        if contents:
            assert archive.entries() == open_bag(bag).entries()
        for path, data in contents.items():
            with archive.open(path) as file:
                assert file.read() == data


@given(distinct)
@settings(max_examples=40)
def test_tarfile_reads_the_same_files(contents):
    with tarfile.open(fileobj=io.BytesIO(archive_of(contents))) as reader:
        assert {each.name: reader.extractfile(each).read() for each in reader} == contents


@given(distinct, st.data())
@settings(max_examples=150)
def test_a_flipped_bit_outside_the_files_is_refused(contents, data):
    good = archive_of(contents)
    bad = bytearray(good)
    position = data.draw(st.integers(0, len(bad) - 1))
    bad[position] ^= 1 << data.draw(st.integers(0, 7))
    bag, code = attempt(opened, bytes(bad))
    if bag is None:
        assert code.startswith("archive-")
        return
    # The checksum of a header covers every bit of it, so this one was in a file.
    assert bag.entries() == opened(good).entries()
    ranges = [(start, start + size) for start, size in bag._members.values()]
    assert any(start <= position < end for start, end in ranges)


@given(distinct, st.data())
@settings(max_examples=60)
def test_an_archive_cut_or_grown_anywhere_is_refused(contents, data):
    good = archive_of(contents)
    cut = data.draw(st.integers(0, len(good) - 1))
    tail = data.draw(st.binary(min_size=1, max_size=600))
    for bad in (good[:cut], good + tail, tail + good):
        _, code = attempt(opened, bad)
        assert code.startswith("archive-")
