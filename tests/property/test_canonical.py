"""Strict JSON and RFC 8785, over any value and any bytes."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from bundler import canonical
from tests.property.strategies import attempt, doubles, json_values, same


@given(json_values)
def test_every_value_survives_the_way_there_and_back(value):
    data = canonical.serialise(value)
    again = canonical.parse_canonical(data)
    assert same(again, value)
    assert canonical.serialise(again) == data


@given(json_values)
def test_the_standard_library_reads_the_same_value(value):
    assert same(json.loads(canonical.serialise(value)), value)


@given(doubles)
def test_every_double_is_read_back_to_the_last_bit(value):
    (again,) = canonical.parse_canonical(canonical.serialise([value]))
    assert float(again) == value


@given(st.integers())
def test_an_integer_is_kept_exactly_or_refused(value):
    text = str(value).encode()
    again, code = attempt(canonical.parse, text)
    if abs(value) <= canonical.MAX_INTEGER:
        assert again == value
    elif code:
        assert code == "json-integer-range"
    else:
        # Beyond 2^53 only as a double, in that double's own spelling.
        assert type(again) is float
        assert canonical.serialise(again) == text


@given(
    st.binary(max_size=40)
    | st.text(alphabet='{}[]",:0123456789eE+-.\\untrefalsNI \n', max_size=30).map(str.encode)
)
def test_any_bytes_are_a_value_or_a_named_refusal(data):
    value, code = attempt(canonical.parse, data)
    assert not code or code.startswith("json-")
    canonical.serialise(value)


@given(json_values, st.data())
def test_any_change_to_canonical_text_is_another_value_or_a_refusal(value, data):
    text = bytearray(canonical.serialise(value))
    position = data.draw(st.integers(0, len(text) - 1))
    text[position] ^= 1 << data.draw(st.integers(0, 7))
    other, code = attempt(canonical.parse_canonical, bytes(text))
    assert code or not same(other, value)
