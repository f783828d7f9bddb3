"""One flipped bit anywhere in the valid bundle, and nothing passes: exhaustive where it can be, drawn where not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.manifest import RELEASE_ENVELOPE
from bundler.report import Report
from bundler.storage import MemoryBag, open_bag
from bundler.storage.writer import write_archive
from bundler.verify import verify
from tests import tiny
from tests.conformance.harness import VALID

FILES = {
    path.relative_to(VALID).as_posix(): path.read_bytes()
    for path in sorted(VALID.rglob("*"))
    if path.is_file()
}
POSITIONS = [(path, position) for path, data in FILES.items() for position in range(len(data))]
SMALL = 300
"""Files up to this size are flipped at every byte, as are the ones that hold the others together."""

WHOLE = ["tagmanifest-sha256.txt", "manifest-sha256.txt", RELEASE_ENVELOPE]
EXHAUSTIVE = sorted({path for path, data in FILES.items() if len(data) <= SMALL} | set(WHOLE))


def verified(open_it) -> Report:
    return verify(open_it, "bundle", tiny.TRUST, clock=lambda: "2026-01-01T00:00:00.000Z")


def found(files: dict[str, bytes]) -> set[str]:
    """The codes of the errors; the bundle must not pass."""
    report = verified(lambda: MemoryBag(files))
    assert report.exit_code == 3
    return {finding.code for finding in report.findings() if finding.severity == "error"}


def flipped(data: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


def expected(path: str) -> tuple[str, ...]:
    """How the findings about a change to ``path`` may begin."""
    if path == RELEASE_ENVELOPE:
        return ("envelope-", "json-", "signature-")
    if path == "tagmanifest-sha256.txt":
        return ("manifest-", "path-", "file-", "statement-subject")
    if path == "manifest-sha256.txt":
        return ("manifest-", "path-", "file-")
    return ("file-digest", "bag-declaration")


def test_the_bundle_passes_as_it_is():
    assert verified(lambda: MemoryBag(FILES)).exit_code == 0


@pytest.mark.parametrize("path", EXHAUSTIVE)
def test_every_byte_of_a_small_or_holding_file_counts(path):
    bits = random.Random(path)
    for position in range(len(FILES[path])):
        codes = found(FILES | {path: flipped(FILES[path], position, bits.randrange(8))})
        assert codes, (path, position)
        assert any(code.startswith(expected(path)) for code in codes), (path, position, codes)


@given(st.sampled_from(POSITIONS), st.integers(0, 7))
@settings(max_examples=1000)
def test_every_bit_of_every_file_counts(place, bit):
    path, position = place
    codes = found(FILES | {path: flipped(FILES[path], position, bit)})
    assert any(code.startswith(expected(path)) for code in codes)


@pytest.mark.parametrize("path", FILES)
def test_no_file_can_be_dropped(path):
    codes = found({name: data for name, data in FILES.items() if name != path})
    assert codes & {"file-missing", "signature-missing"}


@pytest.mark.parametrize("path", FILES)
def test_no_file_can_be_renamed(path):
    renamed = {name + ".x" if name == path else name: data for name, data in FILES.items()}
    codes = found(renamed)
    assert codes & {"file-missing", "file-extra"}


@pytest.mark.parametrize("path", FILES)
def test_no_file_can_be_emptied_cut_or_grown(path):
    for data in (b"", FILES[path][:-1], FILES[path] + b"\0", FILES[path] + b"\n"):
        assert any(code.startswith(expected(path)) for code in found(FILES | {path: data}))


@pytest.mark.parametrize(
    "folder", ["", "data/", "data/code/", "data/runs/run-a/", "schema/", "signatures/", "new/"]
)
def test_no_file_can_be_added(folder):
    assert found(FILES | {folder + "extra": b""}) == {"file-extra"}


@given(st.sampled_from(sorted(FILES)), st.sampled_from(sorted(FILES)))
@settings(max_examples=100)
def test_no_two_different_files_can_be_exchanged(first, second):
    if FILES[first] != FILES[second]:
        assert found(FILES | {first: FILES[second], second: FILES[first]})


# --- as one tar file ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("flips") / "bundle.tar"
    write_archive(VALID, path)
    return path


def test_the_archive_passes_as_it_is(archive):
    assert verified(lambda: open_bag(archive)).exit_code == 0


def test_every_byte_of_a_header_of_a_file_and_of_the_end_counts_in_an_archive(archive):
    """The first member and the header of the second, and the end."""
    good = archive.read_bytes()
    positions = [*range(1536), *range(len(good) - 1024, len(good))]
    bits = random.Random(0)
    flip_each(archive, good, [(position, bits.randrange(8)) for position in positions])


def test_drawn_bits_anywhere_count_in_an_archive(archive):
    good = archive.read_bytes()
    drawn = random.Random(1)
    flip_each(archive, good, [(drawn.randrange(len(good)), drawn.randrange(8)) for _ in range(700)])


def flip_each(archive: Path, good: bytes, places: list[tuple[int, int]]) -> None:
    with archive.open("r+b", buffering=0) as file:
        for position, bit in places:
            file.seek(position)
            file.write(bytes([good[position] ^ 1 << bit]))
            report = verified(lambda: open_bag(archive))
            assert report.exit_code == 3, (position, bit)
            assert any(finding.severity == "error" for finding in report.findings())
            file.seek(position)
            file.write(good[position : position + 1])
    assert archive.read_bytes() == good
