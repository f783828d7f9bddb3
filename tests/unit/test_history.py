from __future__ import annotations

import math

import pytest

from bundler.errors import MalformedError
from bundler.history import read_points, summarise, write_points
from bundler.records import MetricPoint

HEADER = b"metric,step,timestamp,value\n"


def test_the_text_is_what_the_format_says():
    points = [
        MetricPoint("auc", 0, 1_760_000_000_000, 0.1 + 0.2),
        MetricPoint('a,"b"', 1, 0, math.nan),
        MetricPoint("c\rd", -(2**31), -1, -math.inf),
    ]
    assert write_points(points) == (
        b"metric,step,timestamp,value\n"
        b"auc,0,1760000000000,0.30000000000000004\n"
        b'"a,""b""",1,0,NaN\n'
        b'"c\rd",-2147483648,-1,-Infinity\n'
    )


def test_whole_numbers_are_doubles():
    assert write_points([MetricPoint("m", 0, 0, 1)]).endswith(b",1.0\n")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"metric,step,timestamp\n",
        b"metric;step;timestamp;value\n",
        HEADER + b"\n",
        HEADER + b"m,0,0\n",
        HEADER + b"m,0,0,1.0,x\n",
        HEADER + b"m,x,0,1.0\n",
        HEADER + b"m,1_0,0,1.0\n",
        HEADER + b"m,+1,0,1.0\n",
        HEADER + b"m,0, 1,1.0\n",
        HEADER + b"m,0,0,1_0.0\n",
        HEADER + b"m,0,0,nan\n",
        HEADER + b"m,0,0,1e999\n",
        HEADER + b'"m,0,0,1.0\n',
        HEADER + b'"m"x,0,0,1.0\n',
        HEADER + b"\xff,0,0,1.0\n",
        HEADER + b"m," + b"9" * 5000 + b",0,1.0\n",
        HEADER + b"m" * 140_000 + b",0,0,1.0\n",
    ],
)
def test_anything_else_is_refused_by_name(data):
    with pytest.raises(MalformedError) as caught:
        list(read_points(data, name="metrics.csv"))
    assert caught.value.code == "history-syntax"
    assert "metrics.csv" in caught.value.message


def test_the_message_names_the_line():
    with pytest.raises(MalformedError, match=r"line 3: '1_0' is not an exact double"):
        list(read_points(HEADER + b"m,0,0,1.0\nm,0,0,1_0\n", name="x"))


def test_a_summary_of_a_metric_without_a_finite_point():
    points = [MetricPoint("m", 0, 0, math.nan), MetricPoint("m", 1, 1, math.inf)]
    (found,) = summarise(points, {"m": "validation"})
    assert (found.points, found.last, found.last_step) == (2, "Infinity", 1)
    assert (found.minimum, found.maximum, found.role) == (None, None, "validation")


def test_summaries_are_sorted_by_name_and_keep_the_order_of_logging():
    points = [MetricPoint("b", 9, 0, 1.0), MetricPoint("a", 0, 0, 2.0), MetricPoint("b", 3, 1, 0.5)]
    first, second = summarise(points, {})
    assert (first.name, second.name) == ("a", "b")
    assert (second.last, second.last_step, second.maximum) == (0.5, 3, 1.0)
