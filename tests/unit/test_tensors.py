from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from bundler.errors import MalformedError
from bundler.tensors import compare, read

ONE = {"w": np.array([[1, 2], [3, 4]], dtype=np.float32), "b": np.zeros(2, dtype=np.int64)}


def changed(**changes):
    return save({**ONE, **changes})


def by_name(left, right):
    return {each.tensor: each for each in compare(left, right, name="m.safetensors")}


def raw(header: dict, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_equal():
    found = compare(save(ONE), save(ONE), name="m")
    assert [(each.tensor, each.equal, each.equal_fraction) for each in found] == [
        ("b", True, 1.0),
        ("w", True, 1.0),
    ]
    assert found[1].shape == (2, 2)
    assert found[1].dtype == "F32"


def test_one_element_differs():
    found = by_name(save(ONE), changed(w=np.array([[1, 2], [3, 4.5]], dtype=np.float32)))
    assert found["b"].equal
    assert (found["w"].equal, found["w"].equal_fraction, found["w"].max_absolute_difference) == (
        False,
        0.75,
        0.5,
    )


def test_zeros_of_other_signs_are_other_bits():
    found = by_name(changed(w=np.zeros(2, np.float32)), changed(w=-np.zeros(2, np.float32)))
    assert (found["w"].equal, found["w"].equal_fraction, found["w"].max_absolute_difference) == (
        False,
        0.0,
        0.0,
    )


def test_the_same_nans_are_the_same_bits():
    nan = np.full(2, np.nan, np.float32)
    assert by_name(changed(w=nan), changed(w=nan))["w"].equal
    found = by_name(changed(w=nan), changed(w=np.ones(2, np.float32)))["w"]
    assert (found.equal, found.max_absolute_difference) == (False, None)


def test_other_shape_or_kind_or_absent():
    for other in (np.zeros((4, 1), np.float32), np.zeros((2, 2), np.float64)):
        found = by_name(save(ONE), changed(w=other))["w"]
        assert (found.equal, found.equal_fraction, found.shape) == (False, None, (2, 2))
    found = by_name(save(ONE), save({"w": ONE["w"]}))
    assert (found["b"].equal, found["b"].dtype) == (False, "I64")
    assert not by_name(save({"w": ONE["w"]}), save(ONE))["b"].equal


def test_kinds_that_numpy_lacks_are_compared_by_their_bytes():
    header = {"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    found = by_name(raw(header, b"\0\0\0\0"), raw(header, b"\0\0\0\1"))["w"]
    assert (found.equal, found.equal_fraction, found.max_absolute_difference) == (False, None, None)
    assert by_name(raw(header, b"\0\0\0\1"), raw(header, b"\0\0\0\1"))["w"].equal


def test_empty_tensors_and_order_and_metadata_do_not_matter():
    assert compare(save({}), save({}), name="m") == ()
    empty = save({"e": np.zeros((0, 3), np.float32)})
    assert compare(empty, empty, name="m")[0].equal
    with_metadata = save(ONE, metadata={"format": "pt"})
    assert all(each.equal for each in compare(save(ONE), with_metadata, name="m"))


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x04pickle", b"\xff" * 64, raw({"w": {}}, b""), save(ONE)[:-1]]
)
def test_what_is_no_safetensors_file(data):
    with pytest.raises(MalformedError, match=r"m\.safetensors: not a safetensors file") as caught:
        read(data, name="m.safetensors")
    assert caught.value.code == "tensors-syntax"


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=80), st.integers(0, 200))
def test_hostile_bytes_give_one_error(data, position):
    whole = bytearray(save(ONE))
    at = position % len(whole)
    for text in (data, bytes(whole[:at]) + data + bytes(whole[at + len(data) :])):
        code = "tensors-syntax"
        try:
            compare(save(ONE), text, name="m")
        except MalformedError as error:
            code = error.code
        assert code == "tensors-syntax"
