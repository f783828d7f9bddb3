"""The ends of logs on their way."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from bundler.engines import tails
from bundler.engines.tails import MOST, Tail, Tails


def test_everything_arrives_in_order_where_the_way_is_fast():
    got: list[bytes] = []
    tail = Tail(got.append)
    for i in range(100):
        tail.add(b"line %d\n" % i)
    tail.close()
    assert b"".join(got) == b"".join(b"line %d\n" % i for i in range(100))


def test_where_the_way_is_blocked_the_training_goes_on_and_the_end_arrives(monkeypatch):
    monkeypatch.setattr(tails, "_PAUSE", 0.0)
    blocked, free, got = threading.Event(), threading.Event(), []

    def send(text):
        blocked.set()
        free.wait()
        got.append(text)

    tail = Tail(send)
    tail.add(b"first")
    blocked.wait()
    for _ in range(1000):  # all of it while nothing can be sent
        tail.add(b"x" * 1000)
    tail.add(b"the end")
    free.set()
    tail.close()
    assert got[0] == b"first"
    assert len(got[-1]) <= MOST
    assert got[-1].endswith(b"xthe end")


def test_a_way_that_stays_blocked_does_not_hold_the_end_up(monkeypatch):
    monkeypatch.setattr(tails, "_PATIENCE", 0.0)
    free = threading.Event()
    tail = Tail(lambda text: free.wait())
    tail.add(b"text")
    tail.close()
    free.set()


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=MOST))))
def test_what_nobody_takes_stays_small(chunks):
    kept = Tails()
    for seed, chunk in chunks:
        kept.add(seed, chunk)
    taken = dict(kept.take())
    for seed, text in taken.items():
        whole = b"".join(chunk for other, chunk in chunks if other == seed)
        assert text == whole[-MOST:]
    assert kept.take() == []
