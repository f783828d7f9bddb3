"""The frames of W&B's record log: what is whole is read, what was cut off is said, what was changed is refused."""

from __future__ import annotations

import os
import struct

import pytest

from bundler.errors import SourceError
from bundler.importers.protobuf import WireError, fields, signed
from bundler.importers.wandb import datastore as wandb_datastore
from bundler.importers.wandb.datastore import RecordLog
from tests.unit.importers.wandb_records import BLOCK, HEADER, field, frame, framed, varint


def log_of(folder, data: bytes) -> RecordLog:
    path = folder / "run-abc.wandb"
    path.write_bytes(data)
    return RecordLog(path)


def bodies(log: RecordLog) -> list[bytes]:
    return [data for _, data in log.records()]


def refused(log: RecordLog, match: str) -> None:
    with pytest.raises(SourceError, match=match) as error:
        list(log.records())
    assert str(log.path) in error.value.message
    assert error.value.remedy


@pytest.mark.parametrize(
    "size", [0, 1, 100, BLOCK - 14, BLOCK - 13, BLOCK - 7, BLOCK, 3 * BLOCK, 40 * BLOCK]
)
def test_records_of_any_size_are_read_over_blocks(tmp_path, size):
    records = [b"first", os.urandom(size), b"last" * 3]
    log = log_of(tmp_path, framed(*records))
    assert bodies(log) == records
    assert log.truncated is None


@pytest.mark.parametrize("left", range(12))
def test_the_end_of_a_block_that_takes_no_header_is_skipped(tmp_path, left):
    records = [b"x" * (BLOCK - 14 - left), b"second"]
    assert bodies(log_of(tmp_path, framed(*records))) == records


def test_more_records_than_one_read_takes(tmp_path):
    records = [os.urandom(1000 + each % 7) for each in range(2500)]
    data = framed(*records)
    assert len(data) > 2 * wandb_datastore._CHUNK
    log = log_of(tmp_path, data)
    assert bodies(log) == records
    assert [offset for offset, _ in log.records()][:2] == [7, 7 + 7 + len(records[0])]


@pytest.mark.parametrize("length", range(8))
def test_a_file_shorter_than_its_header(tmp_path, length):
    log = log_of(tmp_path, HEADER[:length])
    assert bodies(log) == []
    assert log.truncated == (0 if length < 7 else None)


def test_a_record_over_blocks_without_its_end_is_cut_off_where_it_begins(tmp_path):
    data = framed(b"whole", b"x" * 3 * BLOCK)
    for length in (100, BLOCK, BLOCK + 3, BLOCK + 7, 2 * BLOCK, len(data) - 1):
        log = log_of(tmp_path, data[:length])
        assert bodies(log) == [b"whole"]
        assert log.truncated == 19


def test_zeros_at_the_end_are_a_file_system_that_did_not_finish(tmp_path):
    data = framed(b"whole")
    for zeros in (7, 100, 2 * BLOCK, 40 * BLOCK):
        log = log_of(tmp_path, data + bytes(zeros))
        assert bodies(log) == [b"whole"]
        assert log.truncated == 19
    refused(log_of(tmp_path, data + bytes(40 * BLOCK) + b"x"), "damaged at byte 19")


CORRUPT = {
    "no header": (b"not a log of W&B", "damaged at byte 0"),
    "half a header of something else": (b":W&X", "damaged at byte 0"),
    "another version": (HEADER[:-1] + b"\x01", "damaged at byte 0"),
    "a changed checksum": (HEADER + frame(b"body")[:-1] + b"X", "byte 7: the checksum"),
    "a type that there is not": (HEADER + frame(b"body", 5), "byte 7: the checksum"),
    "type 0 with content": (HEADER + frame(b"body", 0), "byte 7: the checksum"),
    "a last part without a first": (HEADER + frame(b"body", 4), "byte 7: a fragment out of order"),
    "a middle part without a first": (HEADER + frame(b"body", 3), "byte 7: a fragment out of order"),
    "two first parts": (HEADER + frame(b"a", 2) + frame(b"b", 2), "byte 15: a fragment out of order"),
    "a whole record in another": (HEADER + frame(b"a", 2) + frame(b"b", 1), "byte 15: a fragment out of order"),
    "a longer length in the last record": (
        HEADER + frame(b"body")[:4] + struct.pack("<H", 500) + frame(b"body")[6:],
        "byte 7: the length of a record was changed",
    ),
    "a length beyond the block": (
        HEADER + frame(b"body")[:4] + struct.pack("<H", 60000) + frame(b"body")[6:],
        "byte 7: the checksum",
    ),
    "a fragment over the end of a block": (HEADER + frame(b"x" * (BLOCK + 1)), "byte 7: a fragment crosses"),
    "something in the padding": (
        framed(b"x" * (BLOCK - 7 - 7 - 3), b"y")[: BLOCK - 3] + b"\0\1\0" + frame(b"y"),
        f"byte {BLOCK - 3:,}: the end of a block is not empty",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CORRUPT)
def test_what_wandb_has_not_written_so_is_refused_with_its_place(tmp_path, name):
    data, match = CORRUPT[name]
    refused(log_of(tmp_path, data), match)


def test_a_record_that_never_ends_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_datastore, "MAX_RECORD", 4 * BLOCK)
    refused(log_of(tmp_path, framed(b"x" * 6 * BLOCK)), "damaged at byte 7: a record of more than")


def test_only_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.wandb")
    refused(RecordLog(tmp_path / "pipe.wandb"), "not a file")
    refused(RecordLog(tmp_path / "missing.wandb"), "No such file")
    refused(RecordLog(tmp_path), "cannot be read")


# --- the messages in the records --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 3_000_000])
def test_fields_of_any_size_and_number(size):
    body = field(1, b"x" * size) + field(16, size) + field(5000, 1.5) + varint(7 << 3 | 5) + b"abcd"
    assert list(fields(body)) == [
        (1, 2, b"x" * size), (16, 0, size), (5000, 1, struct.pack("<d", 1.5)), (7, 5, b"abcd"),
    ]  # fmt: skip


def test_numbers_of_64_bits():
    ((_, _, number),) = fields(field(1, -5))
    assert signed(number) == -5


@pytest.mark.parametrize("data", [
    b"\x08", b"\x08\x80", b"\x0a", b"\x0a\x05abc", b"\x0a\x80", b"\x0a\x80\x01a", b"\x09abc", b"\x0dabc", b"\x0b", b"\x0f",
    b"\x80", b"\x08" + b"\xff" * 10, b"\x08" + b"\xff" * 9 + b"\x02", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
])  # fmt: skip
def test_bytes_that_are_no_message(data):
    with pytest.raises(WireError, match=r"at byte [0-9]+ of a message"):
        list(fields(data))
