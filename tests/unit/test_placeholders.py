from __future__ import annotations

from dataclasses import replace

import pytest

from bundler.errors import MalformedError
from bundler.placeholders import expand, problems, values_for
from bundler.spec import TRAINING_FORMAT, Input, Outputs, TrainingSpec

SPEC = TrainingSpec(
    format=TRAINING_FORMAT,
    run="r",
    seed=7,
    command=(),
    code="data/code",
    parameters={"lr": "0.1", "optimizer/lr": 3, "none": None, "odd": "{seed}"},
    environment={},
    inputs=(Input(name="data", path="data/datasets/data/d.csv", sha256="0" * 64),),
    outputs=Outputs(tracker="t", location="l"),
)
VALUES = values_for(SPEC, python="/py", bundle="/bundle", out="/out", seed=9)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("{python}", "/py"),
        ("--seed={seed}", "--seed=9"),
        ("{code}/{out}", "/bundle/data/code//out"),
        ("{input.data}", "/bundle/data/datasets/data/d.csv"),
        ("{parameter.lr}", "0.1"),
        ("{parameter.optimizer/lr}", "3"),
        ("{parameter.none}", "None"),
        ("{parameter.odd}", "{seed}"),  # replaced once
        ("$(id) `id` ; {seed}", "$(id) `id` ; 9"),
        ('{"json": {"a": 1}}', '{"json": {"a": 1}}'),
        ("{}", "{}"),
        ("{0}", "{0}"),
        ("100%s", "100%s"),
    ],
)
def test_expansion_is_literal(text, expanded):
    assert expand(text, VALUES) == expanded


@pytest.mark.parametrize(
    "text", ["{sed}", "{parameter.lrr}", "{input.x}", "{seed.__class__}", "{parameter.a b}"]
)
def test_unknown_ones_are_refused_by_name(text):
    with pytest.raises(MalformedError, match="known are: code") as caught:
        expand(text, VALUES)
    assert caught.value.code == "placeholder-unknown"


def test_a_value_that_was_taken_out_cannot_be_used():
    spec = replace(SPEC, command=("{parameter.user}",), parameters={"user": "[redacted user-name]"})
    assert [each for each in problems(spec) if "taken out" in each]
    assert list(problems(replace(spec, parameters={"user": "x"}))) == []
