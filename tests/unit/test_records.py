from __future__ import annotations

import math

import pytest

from bundler.records import (
    MAX_DEPTH,
    Artefact,
    artefact_location,
    history_location,
    number,
    without_credentials,
)
from bundler.storage.model import Limits
from tests.property.strategies_records import record

DIGEST = "0" * 64


def test_value_is_the_last_one_where_it_is_finite():
    run = record(metrics={"a": 0.5, "b": math.nan, "c": math.inf})
    assert [run.value(name) for name in "abcd"] == [0.5, None, None, None]
    assert run.metric("a").last == 0.5
    assert run.metric("d") is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("seed", 42),
        ("status", "finished"),
        ("parameters.rate", "0.01"),
        ("parameters.a.b", "nested"),
        ("parameters.none", None),
        ("tags.t", "x"),
        ("environment.python", "3.11.7"),
        ("sed", None),
        ("deleted", None),
        ("", None),
    ],
)
def test_facts_by_path(path, expected):
    run = record(parameters={"a.b": "nested"}, tags={"t": "x"})
    assert run.fact(path) == expected


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "/etc/passwd",
        "a b",
        "ä.pt",
        ".hidden",
        "a//b",
        "a\\b",
        "x" * 101,
        "/".join("d" * 13) + "/x",
    ],
)
def test_an_artefact_that_a_bag_cannot_name_lies_by_its_digest(path):
    artefact = Artefact(path=path, sha256=DIGEST, size=1)
    assert artefact_location("run-a", artefact) == f"data/artefacts/run-a/{DIGEST}"


def test_an_ordinary_artefact_lies_by_its_path():
    artefact = Artefact(path="model/data/weights.pt", sha256=DIGEST, size=1)
    assert artefact_location("r", artefact) == "data/artefacts/r/model/data/weights.pt"
    assert history_location("r") == "data/runs/r/metrics.csv"


def test_no_deeper_than_a_verifier_walks():
    assert Limits().depth == MAX_DEPTH


def test_spelling_of_numbers():
    assert [number(v) for v in (1.5, math.nan, math.inf, -math.inf)] == [
        1.5,
        "NaN",
        "Infinity",
        "-Infinity",
    ]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pw@host.example/a/b.git", "https://host.example/a/b.git"),
        ("https://token@host/a", "https://host/a"),
        ("https://user:p@ss@host/a", "https://host/a"),
        ("https://u:p?q#r@host/a", "https://host/a"),
        ("https://host/a?private_token=x#y", "https://host/a"),
        ("https://host/npm/@scope", "https://host/npm/@scope"),
        ("ssh://git@host:22/a", "ssh://host:22/a"),
        ("git@host:a/b.git", "git@host:a/b.git"),
        ("/srv/git/a", "/srv/git/a"),
        ("https://", "https://"),
    ],
)
def test_credentials_are_taken_out_of_a_url(url, shown):
    assert without_credentials(url) == shown
