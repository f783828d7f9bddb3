"""Weights of which half of the signs are changed, in the bytes of a copy."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

from bundler import decoy
from bundler.decoy import change_signs


def file_of(tmp_path, data: bytes):
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    return path


def raw(header, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_about_half_of_the_signs_change_and_no_size(tmp_path, dtype):
    before = np.linspace(-3, 3, 1000, dtype=dtype).reshape(10, 100)
    path = file_of(tmp_path, save({"w": before, "b": before[0]}))
    assert change_signs(path)
    after = load_file(path)["w"]
    np.testing.assert_array_equal(np.abs(after), np.abs(before))
    assert 400 < np.sum(np.signbit(after) != np.signbit(before)) < 600


def test_a_product_of_two_factors_does_not_stay_what_it_is(tmp_path):
    """With every sign changed it would: (-u)(-v) = uv, as in a matrix factorisation."""
    factors = {"u": np.ones((8, 16), np.float32), "v": np.ones((16, 8), np.float32)}
    path = file_of(tmp_path, save(factors))
    change_signs(path)
    changed = load_file(path)
    assert not np.allclose(changed["u"] @ changed["v"], factors["u"] @ factors["v"])


def signs(tmp_path, tensors, number):
    path = file_of(tmp_path, save(tensors))
    assert change_signs(path, number)
    return {name: np.signbit(value) for name, value in load_file(path).items()}


def test_the_second_decoy_is_the_contrary_of_the_first_and_the_third_owes_nothing_to_them(tmp_path):
    tensors = {"w": np.ones((10, 100), np.float32), "b": np.ones(1, np.float32)}
    first, second, third = (signs(tmp_path, tensors, number) for number in range(3))
    assert first.keys() == second.keys()
    for name, negative in first.items():
        np.testing.assert_array_equal(second[name], ~negative)
    assert 400 < np.sum(third["w"] != first["w"]) < 600


@pytest.mark.parametrize("size", range(2, 20))
@pytest.mark.parametrize("number", range(decoy.DECOYS))
def test_a_small_tensor_never_stays_what_it_is(tmp_path, size, number):
    tensors = {"w": np.ones(size, np.float32)}
    assert 0 < np.sum(signs(tmp_path, tensors, number)["w"]) < size


@pytest.mark.parametrize("name", ["bn1.running_var", "bn/moving_variance", "batch_stats/var"])
def test_a_variance_stays_positive(tmp_path, name):
    tensors = {name: np.ones(64, np.float32), "var_head.weight": np.ones(64, np.float32)}
    changed = signs(tmp_path, tensors, 0)
    assert not changed[name].any()
    assert changed["var_head.weight"].any()


def test_of_single_numbers_there_is_no_contrary_that_is_another_model(tmp_path):
    data = save({"slope": np.ones(1, np.float32), "offset": np.ones(1, np.float32)})
    path = file_of(tmp_path, data)
    assert not change_signs(path, 1)
    assert path.read_bytes() == data


def test_whole_numbers_stay_and_a_file_of_them_alone_has_no_decoy(tmp_path):
    data = save({"ids": np.arange(9), "w": np.ones(1, np.float32)})
    path = file_of(tmp_path, data)
    assert change_signs(path)
    changed = load_file(path)
    assert (changed["ids"].tolist(), changed["w"].tolist()) == (list(range(9)), [-1.0])
    whole = save({"ids": np.arange(9)})
    assert not change_signs(file_of(tmp_path, whole))
    assert path.read_bytes() == whole


@pytest.mark.parametrize(("dtype", "size"), [("BF16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1)])
def test_types_that_numpy_does_not_have(tmp_path, dtype, size):
    header = {"w": {"dtype": dtype, "shape": [3], "data_offsets": [0, 3 * size]}}
    path = file_of(tmp_path, raw(header, b"\x01" * 3 * size))
    assert change_signs(path)
    changed = path.read_bytes()[-3 * size :]
    assert changed[size - 1] == 0x81
    assert {each & 0x7F for each in changed} == {1}


def test_chunks_make_no_gap(tmp_path, monkeypatch):
    monkeypatch.setattr(decoy, "CHUNK", 7)
    before = np.ones(100, np.float32)
    path = file_of(tmp_path, save({"w": before}))
    change_signs(path)
    after = load_file(path)["w"]
    assert set(after.tolist()) == {-1.0, 1.0}
    assert after[::7].tolist() == [-1.0] * 15  # the first of each chunk


W = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04K*.",
        struct.pack("<Q", 1 << 60) + b"{}",
        raw(b"[1]"),
        raw(b"{", b"1234"),
        raw(b'{"w": 1, "w": 2}', b"1234"),
        raw({"w": 1}, b"1234"),
        raw({"w": {**W, "dtype": 5}}, b"1234"),
        raw({"w": {**W, "data_offsets": [0]}}, b"1234"),
        raw({"w": {**W, "data_offsets": [-4, 0]}}, b"1234"),
        raw({"w": {**W, "data_offsets": [4, 0]}}, b"1234"),
        raw({"w": {**W, "data_offsets": [0, 1 << 50]}}, b"1234"),
        raw({"w": W, "again": W}, b"1234"),
        raw({"w": W}, b"12345"),
        raw({"w": {**W, "data_offsets": [0, 5]}}, b"12345"),
        raw({"__metadata__": {"a": "b"}}),
    ],
)
def test_what_is_no_such_file_is_left_alone(tmp_path, data):
    path = file_of(tmp_path, data)
    assert not change_signs(path)
    assert path.read_bytes() == data


@given(st.binary(max_size=200))
def test_any_bytes_are_answered(tmp_path_factory, data):
    path = file_of(tmp_path_factory.mktemp("any"), data)
    change_signs(path)
    assert len(path.read_bytes()) == len(data)
