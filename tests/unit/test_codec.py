"""Dataclasses and JSON: what a text may hold is what the type hints say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pytest

from bundler import codec
from bundler.errors import MalformedError


@dataclass(frozen=True, kw_only=True)
class Leaf:
    name: str
    value: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Tree:
    kind: Literal["oak", "pine"]
    leaves: tuple[Leaf, ...] = ()
    rings: int | None = None
    felled: bool = False
    labels: Mapping[str, str | bool | int | float | None] = field(default_factory=dict)
    shapes: Mapping[Literal["round", "flat"], tuple[str, ...]] = field(default_factory=dict)
    height: float | Literal["NaN"] = 1.0
    owner: Leaf | None = None


FULL = {
    "kind": "oak",
    "leaves": [{"name": "a", "value": 1.5}, {"name": "b", "value": 0.5}],
    "rings": 3,
    "felled": True,
    "labels": {"t": "x", "b": True, "i": 1, "f": 1.5, "n": None},
    "shapes": {"round": ["a"]},
    "height": "NaN",
    "owner": {"name": "c", "value": 2.0},
}


def test_a_value_survives_the_way_there_and_back():
    tree = codec.from_json(Tree, FULL)
    assert tree.leaves[0] == Leaf(name="a", value=1.5)
    assert codec.to_json(tree) == FULL


def test_defaults_stand_in_for_absent_keys():
    assert codec.from_json(Tree, {"kind": "pine"}) == Tree(kind="pine")


def test_a_whole_number_is_a_float_where_a_float_is_wanted():
    leaf = codec.from_json(Leaf, {"name": "a", "value": 1})
    assert type(leaf.value) is float


def test_scalars_of_a_union_keep_their_type():
    labels = codec.from_json(Tree, FULL).labels
    assert [type(labels[key]) for key in "tbifn"] == [str, bool, int, float, type(None)]


WRONG = {
    "an unknown key": ({"kind": "oak", "age": 1}, "tree.age: unknown; known are: kind, leaves"),
    "a missing key": ({}, "tree.kind: missing"),
    "another word": ({"kind": "elm"}, "tree.kind: expected one of oak, pine, found 'elm'"),
    "a list for a word": ({"kind": ["oak"]}, "tree.kind: expected one of"),
    "true for a word": ({"kind": True}, "tree.kind: expected one of"),
    "an object for a list": ({"kind": "oak", "leaves": {}}, "tree.leaves: expected a list"),
    "text for a list": ({"kind": "oak", "leaves": "ab"}, "tree.leaves: expected a list"),
    "a list for an object": ({"kind": "oak", "leaves": [[]]}, "tree.leaves[0]: expected an object"),
    "null for an object": ({"kind": "oak", "leaves": [None]}, "tree.leaves[0]: expected an object"),
    "a missing inner key": ({"kind": "oak", "leaves": [{}]}, "tree.leaves[0].name: missing"),
    "a number for text": (
        {"kind": "oak", "leaves": [{"name": 1}]},
        "tree.leaves[0].name: expected text",
    ),
    "null for text": ({"kind": "oak", "leaves": [{"name": None}]}, "expected text, found None"),
    "true for a whole number": (
        {"kind": "oak", "rings": True},
        "tree.rings: expected a whole number",
    ),
    "1.5 for a whole number": (
        {"kind": "oak", "rings": 1.5},
        "tree.rings: expected a whole number",
    ),
    "1 for true": ({"kind": "oak", "felled": 1}, "tree.felled: expected true or false, found 1"),
    "text for true": ({"kind": "oak", "felled": "yes"}, "tree.felled: expected true or false"),
    "true for a number": (
        {"kind": "oak", "leaves": [{"name": "a", "value": True}]},
        "tree.leaves[0].value: expected a number, found True",
    ),
    "text for a number": (
        {"kind": "oak", "leaves": [{"name": "a", "value": "1"}]},
        "tree.leaves[0].value: expected a number",
    ),
    "infinity": (
        {"kind": "oak", "leaves": [{"name": "a", "value": float("inf")}]},
        "tree.leaves[0].value: expected a finite number",
    ),
    "a number beyond every double": (
        {"kind": "oak", "leaves": [{"name": "a", "value": 10**400}]},
        "tree.leaves[0].value: expected a finite number",
    ),
    "another word in a union": (
        {"kind": "oak", "height": "inf"},
        "tree.height: expected one of NaN",
    ),
    "a list in a mapping": ({"kind": "oak", "labels": {"a": []}}, "tree.labels.a: expected"),
    "a list for a mapping": ({"kind": "oak", "labels": []}, "tree.labels: expected an object"),
    "a number for a key": ({"kind": "oak", "labels": {1: "a"}}, "tree.labels, key: expected text"),
    "another key": ({"kind": "oak", "shapes": {"oval": []}}, "tree.shapes, key: expected one of"),
    "text in an optional object": (
        {"kind": "oak", "owner": "me"},
        "tree.owner: expected an object",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_the_hints_do_not_say_is_refused_with_its_place(what):
    value, message = WRONG[what]
    with pytest.raises(MalformedError) as refused:
        codec.from_json(Tree, value, place="tree")
    assert refused.value.code == "structure"
    assert message in refused.value.message


def test_the_place_of_a_whole_document_is_called_document():
    with pytest.raises(MalformedError, match="document: expected an object, found 1"):
        codec.from_json(Tree, 1)


@pytest.mark.parametrize("key", ["\x1b[2J", "a" * 10_000, "\u202eevil", "\ud800"])
def test_a_hostile_key_neither_floods_nor_steers_a_terminal(key):
    with pytest.raises(MalformedError) as refused:
        codec.from_json(Tree, {"kind": "oak", key: 1})
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 250


def test_a_hostile_value_is_cut_in_the_message():
    with pytest.raises(MalformedError) as refused:
        codec.from_json(Tree, {"kind": "\x1b" * 10_000})
    assert len(refused.value.message) < 120
    assert refused.value.message.isprintable()


def test_null_is_refused_where_the_last_option_is_the_only_one_left():
    @dataclass(frozen=True)
    class Only:
        value: int | str

    with pytest.raises(MalformedError, match="value: expected text, found None"):
        codec.from_json(Only, {"value": None})
