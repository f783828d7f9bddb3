from __future__ import annotations

import json
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from bundler import tensors
from bundler.canonical import MAX_INTEGER
from bundler.errors import MalformedError
from bundler.tensors import compare, read

ONE = {"w": np.array([[1, 2], [3, 4]], dtype=np.float32), "b": np.zeros(2, dtype=np.int64)}


def changed(**changes):
    return save({**ONE, **changes})


def by_name(left, right):
    return {each.tensor: each for each in compare(left, right, name="m.safetensors")}


def one(left, right):
    """The comparison of two arrays."""
    return by_name(save({"t": np.asarray(left)}), save({"t": np.asarray(right)}))["t"]


def bf16(*bits: int) -> bytes:
    header = {"t": {"dtype": "BF16", "shape": [len(bits)], "data_offsets": [0, 2 * len(bits)]}}
    return raw(header, struct.pack(f"<{len(bits)}H", *bits))


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
    header = {"w": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}
    found = by_name(raw(header, b"\0\0"), raw(header, b"\0\1"))["w"]
    assert (found.equal, found.equal_fraction, found.max_absolute_difference) == (False, None, None)
    assert (found.ulp_median, found.ulp_p99, found.relative_l2, found.cosine) == (None,) * 4
    assert by_name(raw(header, b"\0\1"), raw(header, b"\0\1"))["w"].equal


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


# --- the ladder -----------------------------------------------------------------------------------------------------

FLOATS = [np.float16, np.float32, np.float64]


def test_equal_bits_are_at_no_distance_whatever_they_are():
    for tensor in (np.float32([1, np.nan]), np.int8([3]), np.zeros(2, np.float16)):
        found = one(tensor, tensor)
        assert (found.ulp_median, found.ulp_p99) == (0, 0)
        assert (found.relative_l2, found.cosine) == (0.0, 1.0)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_next_float_is_one_unit_in_the_last_place_away(dtype):
    a = np.array([1.0, -1.0, 3.5, 0.0, 1e-5], dtype)
    b = np.nextafter(a, dtype(9))
    found = one(a, b)
    assert (found.ulp_median, found.ulp_p99, found.equal_fraction) == (1, 1, 0.0)
    assert found.cosine == pytest.approx(1, abs=1e-5)
    # Across zero: from the smallest number below it to the smallest above.
    below, above = np.nextafter(dtype(0), dtype(-1)), np.nextafter(dtype(0), dtype(1))
    assert one([below], [above]).ulp_median == 2


@pytest.mark.parametrize("dtype", FLOATS)
def test_both_zeros_are_one_place(dtype):
    found = one(np.zeros(3, dtype), -np.zeros(3, dtype))
    assert (found.ulp_median, found.ulp_p99, found.relative_l2) == (0, 0, 0.0)
    assert (found.equal_fraction, found.cosine) == (0.0, None)


def test_median_and_99th_percentile_are_of_all_elements_and_never_the_largest():
    a = np.ones(1000, np.float32)
    b = a.copy()
    b[:20] = np.nextafter(a[:20], np.float32(2))
    b[20] = 100.0
    found = one(a, b)
    assert (found.ulp_median, found.ulp_p99, found.equal_fraction) == (0, 1, 0.979)
    assert found.max_absolute_difference == 99


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_is_no_number_on_one_side_is_infinitely_far_away(dtype):
    nan, infinity, largest = dtype(np.nan), dtype(np.inf), np.finfo(dtype).max
    found = one(np.array([1, nan], dtype), np.array([1, 1], dtype))
    assert (found.ulp_median, found.ulp_p99) == (0, None)
    assert (found.relative_l2, found.cosine, found.max_absolute_difference) == (None,) * 3
    assert one(np.array([nan, 1], dtype), np.array([-nan, 2], dtype)).ulp_median == 0
    found = one(np.array([infinity], dtype), np.array([largest], dtype))
    assert (found.ulp_median, found.relative_l2) == (1, None)


def test_a_distance_is_at_most_what_json_carries():
    found = one(np.array([-1e300]), np.array([1e300]))
    assert found.ulp_median == MAX_INTEGER
    assert (found.relative_l2, found.cosine) == (None, None)  # the squares are too large
    assert one(np.array([-1e100]), np.array([1e100])).cosine == -1


def test_bf16_is_the_upper_half_of_f32():
    one_, next_, minus = 0x3F80, 0x3F81, 0xBF80
    found = by_name(bf16(one_, one_), bf16(one_, next_))["t"]
    assert (found.equal_fraction, found.max_absolute_difference) == (0.5, 2**-7)
    assert (found.ulp_median, found.ulp_p99) == (0, 1)
    assert found.relative_l2 == pytest.approx(2**-7 / 2**0.5)
    assert by_name(bf16(one_), bf16(minus))["t"].ulp_median == 2 * 0x3F80
    assert by_name(bf16(0x7FC0), bf16(one_))["t"].ulp_median is None
    assert by_name(bf16(0x0000), bf16(0x8000))["t"].ulp_median == 0


def test_whole_numbers_have_distances_but_no_last_place():
    found = one(np.int64([3, 4]), np.int64([3, 0]))
    assert (found.relative_l2, found.cosine) == (0.8, 0.6)
    assert (found.ulp_median, found.ulp_p99) == (None, None)
    assert one(np.bool_([True, False]), np.bool_([True, True])).equal_fraction == 0.5
    for kind in (np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int16, np.int32):
        assert one(kind([1, 2]), kind([1, 3])).max_absolute_difference == 1


def test_from_zero_there_is_no_relative_distance():
    found = one(np.zeros(2, np.float32), np.ones(2, np.float32))
    assert (found.relative_l2, found.cosine) == (None, None)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(FLOATS), st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 7))
def test_the_ladder_is_what_the_definitions_say(dtype, seed, size, chunk):
    random = np.random.default_rng(seed)
    bits = random.integers(0, 256, (2, size * np.dtype(dtype).itemsize), dtype=np.uint8)
    a, b = (np.frombuffer(each.tobytes(), dtype) for each in bits)
    a = np.where(np.isfinite(a), a, dtype(1))
    b = np.where(random.random(size) < 0.5, a, np.where(np.isfinite(b), b, dtype(2)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensors, "CHUNK", chunk)
        found = one(a, b)
    places = sorted(abs(place(y) - place(x)) for x, y in zip(a, b, strict=True))
    assert found.ulp_median == min(places[(size - 1) // 2], MAX_INTEGER)
    assert found.ulp_p99 == min(places[-(-99 * size // 100) - 1], MAX_INTEGER)
    if found.equal or dtype is np.float64:
        return  # the squares of random doubles are beyond all numbers
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(all="ignore"):
        relative = np.linalg.norm(y - x) / np.linalg.norm(x)
        cosine = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    for here, there in ((found.relative_l2, relative), (found.cosine, cosine)):
        assert here == (pytest.approx(there, rel=1e-9) if np.isfinite(there) else None)


def place(value) -> int:
    """The position of a float among all floats of its type, the slow way."""
    bits = int.from_bytes(value.tobytes(), "little")
    half = 1 << (8 * value.itemsize - 1)
    return half - bits if bits >= half else bits


def test_a_large_tensor_needs_its_own_size_once_more():
    """The ladder's arrays: one distance an element, and chunks of 64-bit numbers."""
    size = 8_000_000
    a = np.ones(size, np.float32)
    b = a + np.float32(1e-3)
    left, right = a.tobytes(), b.tobytes()
    tracemalloc.start()
    found = tensors._distances("F32", left, right) | tensors._last_places("F32", left, right)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found["ulp_median"] > 8000
    assert peak < 2.5 * len(left)


def test_an_empty_tensor_of_an_endless_shape_is_refused():
    """No report could hold its shape: JSON's whole numbers end at 2^53."""
    header = b'{"w":{"dtype":"F32","shape":[1152921504606846976,0],"data_offsets":[0,0]}}'
    data = len(header).to_bytes(8, "little") + header
    with pytest.raises(MalformedError, match="dimension beyond") as error:
        tensors.read(data, name="model.safetensors")
    assert error.value.code == "tensors-syntax"
