from __future__ import annotations

import math
from dataclasses import replace

import pytest

from bundler.records import CodeVersion, DatasetVersion
from bundler.selection import better, compete, configuration, other_code, repetitions
from bundler.spec import Condition, Exclusion, FactMap, SelectionSpec
from tests.property.strategies_records import DIGEST, record

FACTS = FactMap()


def spec(run="a", **changes) -> SelectionSpec:
    values = {"metric": "val_auc", "direction": "maximise", "rationale": "r"} | changes
    return SelectionSpec(run=run, **values)


def run(run_id, val_auc=0.8, seed=42, **changes):
    metrics = changes.pop("metrics", {"val_auc": val_auc, "val_disparity": 0.1})
    return record(run_id, seed, metrics=metrics, **changes)


def standings(records, selection):
    return {each.run: each.standing for each in compete(records, selection, FACTS)}


def other(run_id, val_auc=0.8, **changes):
    """A run of another configuration."""
    return run(run_id, val_auc, parameters={"rate": run_id}, **changes)


# --- who competes ---------------------------------------------------------------------------------------------------


def test_best_first_and_the_rest_in_order_of_the_log():
    records = [
        other("f", status="failed"),
        other("b", 0.7),
        other("a", 0.9),
        other("k", status="killed"),
    ]
    found = compete(records, spec(), FACTS)
    assert [each.run for each in found] == ["a", "b", "f", "k"]
    assert [each.standing for each in found[2:]] == ["not finished", "not finished"]
    assert found[2].explanation == "status failed"


def test_minimise_turns_the_order():
    records = [other("a", 0.9), other("b", 0.7)]
    found = compete(records, spec(direction="minimise"), FACTS)
    assert [each.run for each in found] == ["b", "a"]
    assert better(0.7, 0.9, spec(direction="minimise"))
    assert better(0.9, 0.7, spec())
    assert not better(0.7, 0.7, spec())
    assert not better(0.7, 0.7, spec(direction="minimise"))


def test_of_tied_runs_the_selected_one_comes_first():
    records = [other("b", 0.9), other("a", 0.9)]
    assert [each.run for each in compete(records, spec("a"), FACTS)] == ["a", "b"]


def test_a_deleted_run_competes():
    assert standings([other("a"), other("d", 0.9, deleted=True)], spec()) == {
        "d": "candidate",
        "a": "candidate",
    }


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_finite_value_no_candidate(value):
    found = {each.run: each for each in compete([other("a"), other("b", value)], spec(), FACTS)}
    assert (found["b"].standing, found["b"].value) == ("no value", None)
    assert "val_auc" in found["b"].explanation


def test_constraints():
    constraint = Condition(metric="val_disparity", comparator="<=", threshold=0.2)
    records = [
        other("a"),
        other("edge", metrics={"val_auc": 0.8, "val_disparity": 0.2}),
        other("unfair", metrics={"val_auc": 0.9, "val_disparity": 0.3}),
        other("silent", metrics={"val_auc": 0.9}),
    ]
    found = {each.run: each for each in compete(records, spec(constraints=(constraint,)), FACTS)}
    assert found["edge"].standing == "candidate"
    assert found["unfair"].standing == "constraint failed"
    assert found["unfair"].explanation == "val_disparity is 0.3, wanted <= 0.2"
    # Not measured is not failed: a constraint over what only one run logs would be a rule for that run.
    assert found["silent"].standing == "no value"
    assert found["silent"].explanation == "no finite value of val_disparity"


def test_exclusions_are_named_with_their_reason():
    exclusion = Exclusion(run="b", reason="trained on leaked labels")
    found = {
        each.run: each
        for each in compete([other("a"), other("b")], spec(exclusions=(exclusion,)), FACTS)
    }
    assert (found["b"].standing, found["b"].explanation) == ("excluded", "trained on leaked labels")


def test_eligibility():
    records = [run("a"), run("r", seed=1), other("x", seed=1), other("y", tags={"stage": "final"})]
    found = {each.run: each for each in compete(records, spec(eligible={"seed": (42,)}), FACTS)}
    assert {name: each.standing for name, each in found.items()} == {
        "a": "candidate",
        "y": "candidate",
        "r": "repetition",
        "x": "outside the rule",
    }
    assert found["x"].explanation == "seed is 1"


def test_a_provider_who_tags_the_better_run_differently():
    records = [other("a", tags={"stage": "final"}), other("b", 0.99, tags={"stage": "draft"})]
    found = {
        each.run: each
        for each in compete(records, spec(eligible={"tags.stage": ("final",)}), FACTS)
    }
    assert found["b"].standing == "outside the rule"
    assert found["b"].value == 0.99


def test_a_misspelt_fact_makes_nobody_eligible():
    assert standings([other("a")], spec(eligible={"sed": (42,)})) == {"a": "outside the rule"}


def test_without_a_rule_on_seeds_repetitions_are_candidates():
    assert standings([run("a"), run("r", 0.9, seed=1)], spec()) == {
        "r": "candidate",
        "a": "candidate",
    }


# --- repetitions ------------------------------------------------------------------------------------------------------


def ids(run_id, records, facts=FACTS):
    return [each.id for each in repetitions(run_id, records, facts)]


def test_repetitions_differ_in_their_seed_alone():
    records = [run("a"), run("b", seed=1), run("c", seed=2), other("d", seed=3)]
    assert ids("a", records) == ["a", "b", "c"]
    assert ids("unknown", records) == []


def test_a_second_run_with_the_same_seed_is_no_repetition():
    records = [run("bad", 0.1, seed=1), run("good", 0.9, seed=1), run("again", 0.9), run("a")]
    assert ids("a", records) == ["bad", "a"]


def test_unfinished_and_seedless_runs_are_none():
    records = [
        run("a"),
        run("f", seed=1, status="failed"),
        run("n", seed=None, parameters={"seed": "42"}),
    ]
    assert ids("a", records) == ["a"]


def test_runs_on_other_data_are_none():
    easy = (
        DatasetVersion(name="d", role="training", sha256=DIGEST, rows=600),
        DatasetVersion(name="d", role="holdout", sha256="e" * 64, rows=400),
    )
    assert ids("a", [run("a"), run("b", seed=1, data=easy)]) == ["a"]


def test_the_seed_may_be_kept_elsewhere():
    facts = FactMap(seed="parameters.random_state")
    records = [
        run("a", parameters={"random_state": "1", "seed": "0"}),
        run("b", seed=2, parameters={"random_state": "2", "seed": "0"}),
    ]
    assert ids("a", records, facts) == ["a", "b"]
    assert ids("a", records, FactMap(seed="tags.seed")) == ["a"]
    assert configuration(records[0], facts) == (("rate", "0.01"), ("seed", "0"))


def test_parameters_of_different_types_can_be_sorted():
    mixed = record(parameters={"a": 1, "b": "x", "c": None, "d": True})
    assert configuration(mixed, FACTS) == (
        ("a", 1),
        ("b", "x"),
        ("c", None),
        ("d", True),
        ("rate", "0.01"),
    )


# --- other code -------------------------------------------------------------------------------------------------------

A, B = "a" * 40, "b" * 40


def of(run_id, seed, commit, tree=None, dirty=False):
    return run(run_id, seed=seed, code=CodeVersion(commit=commit, tree=tree, dirty=dirty))


@pytest.mark.parametrize(
    ("chosen", "other", "words"),
    [
        ((A,), (B,), "of commit 'bbbbbbbbbbbb' instead of 'aaaaaaaaaaaa'"),
        ((A, "1" * 40), (B, "2" * 40), "of commit 'bbbbbbbbbbbb' instead of 'aaaaaaaaaaaa'"),
        ((A, "1" * 40), (B, None), "of commit 'bbbbbbbbbbbb' instead of 'aaaaaaaaaaaa'"),
        ((A,), ("aaaaaa",), "of commit 'aaaaaa' instead of 'aaaaaaaaaaaa'"),
        (("release-1",), ("release-10",), "of commit 'release-10' instead of 'release-1'"),
        ((A, None, False), (A, None, True), "with uncommitted changes"),
        ((A, None, True), (A, None, False), "without uncommitted changes"),
    ],
)
def test_runs_of_other_code_are_none(chosen, other, words):
    records = [of("a", 42, *chosen), of("b", 1, *other)]
    assert ids("a", records) == ["a"]
    assert other_code(*records) == words


@pytest.mark.parametrize(
    ("chosen", "other"),
    [
        ((A, "1" * 40), (B, "1" * 40)),  # a commit that changed no file
        ((A,), (A.upper(),)),
        ((A,), ("aaaaaaa",)),  # as git shortens it
        ((A,), (None,)),  # unknown: a gap of that run
        ((A, None, True), (A, None, True)),
        ((A, None, False), (A, None, None)),
    ],
)
def test_runs_that_may_be_of_the_same_code_count(chosen, other):
    records = [of("a", 42, *chosen), of("b", 1, *other)]
    assert ids("a", records) == ["a", "b"]
    assert other_code(*records) == ""


def test_a_dvc_run_is_of_the_commit_from_which_it_started():
    """Its own commit holds its parameters and results, so no two runs have the same one."""

    def started(run_id, seed, commit, baseline):
        made = of(run_id, seed, commit, commit)
        tags = {} if baseline is None else {"dvc.baseline": baseline}
        return replace(made, source=replace(made.source, tracker="dvc"), tags=tags)

    records = [
        started("a", 42, A, "1" * 40),
        started("b", 1, B, "1" * 40),
        started("c", 2, B, "2" * 40),
        started("d", 3, B, None),
    ]
    assert ids("a", records) == ["a", "b", "d"]


def test_a_better_run_of_other_code_is_no_repetition_and_stands_outside_the_rule():
    records = [of("a", 42, A), of("b", 1, B), of("c", 2, A)]
    assert standings(records, spec(eligible={"seed": (42,)})) == {
        "a": "candidate",
        "b": "outside the rule",
        "c": "repetition",
    }
