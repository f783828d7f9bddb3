"""The wire format of Protocol Buffers, against vectors of its documentation and against an encoder of its own."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.importers.protobuf import BYTES, FIXED32, FIXED64, VARINT, WireError, fields, signed

FUZZ = settings(deadline=None)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def encoded(number: int, kind: int, value: int | bytes) -> bytes:
    key = varint(number << 3 | kind)
    if isinstance(value, int):
        return key + varint(value)
    return key + (varint(len(value)) if kind == BYTES else b"") + value


def read(data: bytes) -> tuple[list[tuple[int, int, int | bytes]], WireError | None]:
    """The fields before an error, and the error."""
    found = []
    try:
        for each in fields(data):
            found.append(each)
    except WireError as error:
        return found, error
    return found, None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (bytes.fromhex("089601"), [(1, VARINT, 150)]),
        (bytes.fromhex("120774657374696e67"), [(2, BYTES, b"testing")]),
        (bytes.fromhex("1a03089601"), [(3, BYTES, b"\x08\x96\x01")]),
        (b"\x0d\0\0\x80\x3f", [(1, FIXED32, b"\0\0\x80\x3f")]),
        (b"\x09" + struct.pack("<d", 0.1), [(1, FIXED64, struct.pack("<d", 0.1))]),
        (b"\x08" + b"\xff" * 9 + b"\x01", [(1, VARINT, (1 << 64) - 1)]),
        (b"\x12\x00", [(2, BYTES, b"")]),
        # More bytes than needed for a number are no error.
        (b"\x08\x80\x00", [(1, VARINT, 0)]),
    ],
)
def test_vectors(data, expected):
    assert list(fields(data)) == expected


FIELD = st.one_of(
    st.tuples(st.integers(1, 2**29 - 1), st.just(VARINT), st.integers(0, 2**64 - 1)),
    st.tuples(st.integers(1, 2**29 - 1), st.just(FIXED64), st.binary(min_size=8, max_size=8)),
    st.tuples(st.integers(1, 2**29 - 1), st.just(FIXED32), st.binary(min_size=4, max_size=4)),
    st.tuples(st.integers(1, 2**29 - 1), st.just(BYTES), st.binary(max_size=300)),
)


@FUZZ
@given(st.lists(FIELD, max_size=20))
def test_what_is_encoded_comes_back_in_order(message):
    assert list(fields(b"".join(encoded(*each) for each in message))) == message


@FUZZ
@given(st.lists(FIELD, min_size=1, max_size=5), st.data())
def test_a_cut_message_gives_whole_fields_and_then_an_error(message, data):
    whole = b"".join(encoded(*each) for each in message)
    cut = data.draw(st.integers(0, len(whole) - 1))
    found, error = read(whole[:cut])
    assert found == message[: len(found)]
    if error is None:
        assert b"".join(encoded(*each) for each in found) == whole[:cut]
    else:
        assert 0 <= error.offset <= cut


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x08", "the end inside a number at byte 1"),
        (b"\x80", "the end inside a number at byte 0"),
        (b"\x0b", "wire type 3 at byte 0"),
        (b"\x08\x01\x0c", "wire type 4 at byte 2"),
        (b"\x0f", "wire type 7"),
        (b"\x12\x05abc", "a field of 5 bytes where 3 are left at byte 0"),
        (b"\x09abc", "a field of 8 bytes where 3 are left"),
        (b"\x0dabc", "a field of 4 bytes where 3 are left"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "more than 64 bits"),
        (b"\x08" + b"\xff" * 11, "more than 64 bits"),
        (b"\x12" + b"\xff" * 9 + b"\x01abc", "18446744073709551615 bytes where 3 are left"),
    ],
)
def test_what_is_no_message_is_refused_with_its_place(data, problem):
    with pytest.raises(WireError, match=problem):
        list(fields(data))


@FUZZ
@given(st.binary(max_size=400))
def test_any_bytes_give_fields_or_an_error(data):
    found, error = read(data)
    for number, kind, value in found:
        assert number >= 0
        assert kind in {VARINT, FIXED64, FIXED32, BYTES}
        assert isinstance(value, int) == (kind == VARINT)
    assert str(error).isprintable()


@FUZZ
@given(st.integers(-(2**63), 2**63 - 1))
def test_a_signed_number_survives(number):
    assert signed(number % 2**64) == number
