"""The history is exact: what is written is read back, bit by bit, and nothing else is accepted."""

from __future__ import annotations

import csv
import io
import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.errors import MalformedError
from bundler.history import HEADER, read_points, summarise, write_points
from tests.property import strategies_records as strategies

QUICK = settings(deadline=None)
lists = st.lists(strategies.points, max_size=8)


def bits(point):
    value = b"NaN" if math.isnan(point.value) else struct.pack("<d", point.value)
    return point.metric, point.step, point.timestamp, value


@QUICK
@given(lists)
def test_points_round_trip_bit_by_bit(points):
    data = write_points(points)
    assert [bits(p) for p in read_points(data, name="x")] == [bits(p) for p in points]
    assert write_points(read_points(data, name="x")) == data


@QUICK
@given(lists)
def test_an_ordinary_csv_reader_sees_the_same(points):
    rows = list(csv.reader(io.StringIO(write_points(points).decode(), newline="")))
    assert rows[0] == HEADER
    assert [row[0] for row in rows[1:]] == [point.metric for point in points]


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60)
    | st.text(alphabet='a,"\r\n0123456789.e-+NaInfity_ ', max_size=40).map(str.encode)
)
def test_other_bytes_are_refused_or_mean_one_thing(data):
    text = b"metric,step,timestamp,value\n" + data
    refusal, points = None, []
    try:
        points = list(read_points(text, name="x"))
    except MalformedError as error:
        refusal = error
    assert refusal is None or refusal.code == "history-syntax"
    again = list(read_points(write_points(points), name="x"))
    assert [bits(p) for p in again] == [bits(p) for p in points]


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-inf", "Infinity ", "1_0.0", "1", "01.0", "1e0", "+1.0", "1.00"]
)
def test_a_number_has_one_spelling(value):
    with pytest.raises(MalformedError, match="line 2"):
        list(read_points(f"metric,step,timestamp,value\nm,0,0,{value}\n".encode(), name="x"))


@QUICK
@given(lists)
def test_summaries_follow_from_the_points(points):
    summaries = summarise(points, {})
    assert [each.name for each in summaries] == sorted({point.metric for point in points})
    assert sum(each.points for each in summaries) == len(points)
    for each in summaries:
        mine = [point for point in points if point.metric == each.name]
        assert each.last_step == mine[-1].step
        finite = [point.value for point in mine if math.isfinite(point.value)]
        assert each.minimum == min(finite, default=None)
        assert each.maximum == max(finite, default=None)
        assert each.role == "other"
