from __future__ import annotations

import math
from dataclasses import replace

import pytest

from bundler.errors import MalformedError
from bundler.placeholders import artefacts_named, evaluation_problems, expand, problems, values_for
from bundler.spec import (
    TRAINING_FORMAT,
    Evaluation,
    Input,
    Outputs,
    Resources,
    TrainingSpec,
)

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


def test_a_name_that_no_variable_can_have_is_refused():
    (problem,) = problems(replace(SPEC, environment={"1A B": "x"}))
    assert problem == "'1A B' is no name of an environment variable"


@pytest.mark.parametrize(
    ("resources", "problem"),
    [
        (Resources(), None),
        (Resources(cpus=4096, gpus=64, memory_bytes=64 << 40), None),
        (Resources(memory_bytes=1 << 20), None),
        (Resources(cpus=0), "resources.cpus 0 is not between 1 and 4096"),
        (Resources(cpus=4097), "resources.cpus 4097 is not between 1 and 4096"),
        (Resources(gpus=-1), "resources.gpus -1 is not between 0 and 64"),
        (Resources(gpus=65), "resources.gpus 65 is not between 0 and 64"),
        (
            Resources(memory_bytes=(1 << 20) - 1),
            "resources.memory_bytes 1048575 is not between 1048576 and 70368744177664",
        ),
        (
            Resources(memory_bytes=(64 << 40) + 1),
            "resources.memory_bytes 70368744177665 is not between 1048576 and 70368744177664",
        ),
    ],
)
def test_resources_that_no_machine_has_are_named(resources, problem):
    assert list(problems(replace(SPEC, resources=resources))) == ([problem] if problem else [])


@pytest.mark.parametrize("seconds", [None, 0, 0.5, 1e9, -1, -0.001, math.inf, math.nan])
def test_a_duration_that_is_none_is_named(seconds):
    found = list(problems(replace(SPEC, expected_seconds=seconds)))
    fits = seconds is None or 0 <= seconds < math.inf
    assert found == ([] if fits else [f"expected_seconds {seconds:g} is no duration"])


ARTEFACTS = {
    "model.safetensors": "data/artefacts/r/model.safetensors",
    "model/with space.json": "data/artefacts/r/0f0f",
}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("{artefact.model.safetensors}", "/bundle/data/artefacts/r/model.safetensors"),
        ("--p={artefact.model/with space.json}", "--p=/bundle/data/artefacts/r/0f0f"),
        ("{seed} {parameter.lr}", "9 0.1"),
    ],
)
def test_an_evaluation_can_name_artefacts(text, expanded):
    values = values_for(
        SPEC, python="/py", bundle="/bundle", out="/out", seed=9, artefacts=ARTEFACTS
    )
    assert expand(text, values) == expanded


def test_a_training_can_name_no_artefact_of_its_own_run():
    spec = replace(SPEC, command=("{artefact.model.safetensors}", "{artefact.a/b}"))
    assert [each.split(" in ")[0] for each in problems(spec)] == [
        "{artefact.model.safetensors}",
        "{artefact.a/b}",
    ]


def test_artefacts_are_listed_once_in_the_order_of_the_words():
    command = ("{artefact.b/c}", "{python} {artefact.a}{artefact.b/c}", "artefact.d", "{input.e}")
    assert artefacts_named(command) == ("b/c", "a")


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [
        (Evaluation(command=("{python}", "score.py", "{artefact.model.safetensors}")), []),
        (Evaluation(command=()), ["evaluation.command has no words"]),
        (
            Evaluation(command=("{artefact.other}", "{artefact.other}")),
            ["'other' is no artefact of the selected run"],
        ),
        (
            Evaluation(command=("x",), results="../m.json"),
            ["evaluation.results '../m.json' is no plain path below {out}"],
        ),
        (Evaluation(command=("a\0b",)), ["'a\\x00b' holds a NUL character"]),
    ],
)
def test_what_keeps_an_evaluation_from_being_run_is_named(evaluation, expected):
    assert list(evaluation_problems(SPEC, evaluation, ARTEFACTS)) == expected


def test_an_unknown_placeholder_of_an_evaluation_is_named_beside_the_known_ones():
    (problem,) = evaluation_problems(SPEC, Evaluation(command=("{input.labels}",)), ARTEFACTS)
    assert problem.startswith("{input.labels} in")
    assert "artefact.model.safetensors" in problem
