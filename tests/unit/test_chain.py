"""The chain, and the Merkle tree against the vectors of Certificate Transparency."""

from __future__ import annotations

import hashlib
import json

import pytest
import rfc8785

from bundler import chain
from bundler.errors import MalformedError

LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
"""From google/certificate-transparency, merkletree/merkle_tree_test.cc."""

ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("size", range(1, 9))
def test_the_merkle_root_is_that_of_certificate_transparency(size):
    assert chain.merkle_root(LEAVES[:size]) == ROOTS[size - 1]


def test_the_root_of_the_empty_log_is_the_hash_of_nothing():
    assert chain.merkle_root([]) == hashlib.sha256(b"").hexdigest()


def test_a_leaf_that_looks_like_a_node_is_not_taken_for_one():
    left, right = (hashlib.sha256(b"\0" + leaf).digest() for leaf in LEAVES[:2])
    assert chain.merkle_root([left + right]) != chain.merkle_root(LEAVES[:2])


def test_a_log_can_be_walked_and_extended():
    first = chain.append([], [{"a": 1}])
    lines = chain.append(first, [{"a": 2}, {"a": 3}])
    assert lines[:1] == first
    assert list(chain.walk(lines)) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert chain.split(chain.join(lines)) == lines
    assert json.loads(lines[0])["previous"] == "0" * 64
    assert json.loads(lines[2])["previous"] == hashlib.sha256(lines[1]).hexdigest()


def test_a_checkpoint_names_size_head_and_root():
    lines = chain.append([], [{"a": 1}, {"a": 2}])
    checkpoint = chain.checkpoint(lines)
    assert checkpoint.size == 2
    assert checkpoint.head == hashlib.sha256(lines[-1]).hexdigest()
    assert checkpoint.root == chain.merkle_root(lines)


def test_the_empty_log_is_a_log():
    assert chain.split(b"") == []
    assert list(chain.walk([])) == []
    assert chain.checkpoint([]).head == chain.GENESIS


def line(**members) -> bytes:
    return rfc8785.dumps({"index": 0, "previous": "0" * 64, "run": {}} | members)


BROKEN = {
    "another index": (line(index=1), "log-index"),
    "no number for an index": (line(index="0"), "log-index"),
    "null for an index": (line(index=None), "log-index"),
    "false, which Python takes for 0": (line(index=False), "log-index"),
    "another predecessor": (line(previous="1" * 64), "log-link"),
    "no predecessor": (line(previous=None), "log-link"),
    "an upper-case predecessor": (line(previous="0" * 63 + "A"), "log-link"),
    "one member more": (line(extra=1), "log-syntax"),
    "one member less": (b'{"index":0,"run":{}}', "log-syntax"),
    "a list": (b"[]", "log-syntax"),
    "another form": (b" " + line(), "json-not-canonical"),
    "nothing": (b"", "json-syntax"),
    "a CR": (line() + b"\r", "json-not-canonical"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_line_out_of_its_form_or_place_is_refused_by_name(what):
    data, code = BROKEN[what]
    with pytest.raises(MalformedError) as refused:
        list(chain.walk([data]))
    assert refused.value.code == code
    assert "line 1" in refused.value.message


def test_true_is_not_the_index_of_the_second_line():
    first = line()
    second = line(index=True, previous=hashlib.sha256(first).hexdigest())
    with pytest.raises(MalformedError) as refused:
        list(chain.walk([first, second]))
    assert refused.value.code == "log-index"


def test_a_hostile_index_does_not_flood_a_message():
    with pytest.raises(MalformedError) as refused:
        list(chain.walk([line(index="\x1b[2J" * 10_000)]))
    assert len(refused.value.message) < 150
    assert refused.value.message.isprintable()


def test_a_log_without_its_last_newline_is_refused():
    with pytest.raises(MalformedError) as refused:
        chain.split(line())
    assert refused.value.code == "log-syntax"
