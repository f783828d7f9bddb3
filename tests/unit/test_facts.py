from __future__ import annotations

import math
from dataclasses import replace

import pytest

from bundler import canonical, codec
from bundler.facts import CAPTURE_FORMAT, record_of, roles, timestamp
from bundler.importers.model import ImportedRun
from bundler.records import CodeVersion, DatasetVersion, FidelityFlag, MetricPoint, Source
from bundler.spec import FactMap

DIGEST = "ab" * 32
FACTS = FactMap(
    seed="parameters.seed",
    code_commit="tags.commit",
    code_dirty="tags.dirty",
    data_version="tags.version",
    data_sha256="tags.sha256",
    environment="artefacts.environment.json",
    metrics={"validation": ("val_*",), "hold-out": ("holdout_*",)},
)
RUN = ImportedRun(
    source=Source(tracker="t", store="s", experiment_id="1", experiment="e", run_id="r"),
    name=None,
    status="finished",
    deleted=False,
    started=0,
    ended=1,
    code=CodeVersion(),
    data=(),
    parameters={"seed": "7"},
    tags={},
    points=(MetricPoint("val_auc", 0, 0, 0.5),),
    artefacts=(),
    fidelity=(),
)


def make(run=RUN, facts=FACTS, environment=None, **changes):
    made = record_of(
        replace(run, **changes),
        facts,
        run_id="r",
        history=None,
        artefacts=(),
        environment=environment,
    )
    canonical.serialise(codec.to_json(made))  # every record can be written
    return made


def flags(made):
    return [(flag.field, flag.flag) for flag in made.fidelity]


# --- seed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seed", "flag"),
    [
        ("42", 42, None),
        (" 42 ", 42, None),
        ("-1", -1, None),
        (42, 42, None),
        (None, None, None),
        (str(2**53 - 1), 2**53 - 1, None),
        (str(2**53), None, "out_of_range"),
        ("9" * 5000, None, "out_of_range"),
        (2**70, None, "out_of_range"),
        ("1_000", None, "not_a_whole_number"),
        ("٤٢", None, "not_a_whole_number"),
        ("42.0", None, "not_a_whole_number"),
        ("", None, "not_a_whole_number"),
        ("None", None, "not_a_whole_number"),
        (True, None, "not_a_whole_number"),
        (1.5, None, "not_a_whole_number"),
    ],
)
def test_seed(value, seed, flag):
    made = make(parameters={"seed": value})
    assert made.seed == seed
    assert [f for field, f in flags(made) if field == "seed"] == ([flag] if flag else [])


def test_seed_from_a_tag_or_from_nowhere():
    assert make(facts=replace(FACTS, seed="tags.s"), tags={"s": "5"}).seed == 5
    assert make(facts=replace(FACTS, seed="metrics.s")).seed is None
    assert make(parameters={}).seed is None


# --- code ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "recorded", "dirty"),
    [
        ("true", None, True),
        ("False", None, False),
        ("0", True, False),
        ("YES", None, True),
        ("perhaps", None, None),
        ("perhaps", True, True),
        (None, False, False),
        (None, None, None),
    ],
)
def test_dirty(tag, recorded, dirty):
    tags = {} if tag is None else {"dirty": tag}
    assert make(code=CodeVersion(dirty=recorded), tags=tags).code.dirty is dirty


def test_the_commit_of_the_map_comes_before_that_of_the_tracker():
    code = CodeVersion(commit="tracker")
    assert make(code=code, tags={"commit": "tagged"}).code.commit == "tagged"
    assert make(code=code, tags={"commit": ""}).code.commit == "tracker"
    assert make(code=code).code.commit == "tracker"


def test_credentials_of_the_repository_are_not_recorded():
    code = CodeVersion(repository="https://ci:t0ken@host/a.git")
    assert make(code=code).code.repository == "https://host/a.git"
    assert make().code.repository is None


# --- data ---------------------------------------------------------------------------------------------------------


def test_data_without_a_data_set_in_the_tracker():
    made = make(tags={"sha256": DIGEST, "version": "1"})
    assert made.data == (DatasetVersion(name="data", version="1", sha256=DIGEST),)
    assert make().data == ()


def test_version_and_digest_complete_what_the_tracker_has():
    data = (
        DatasetVersion(name="a", rows=3, role="holdout"),
        DatasetVersion(name="b", sha256="cd" * 32),
    )
    made = make(data=data, tags={"sha256": "sha256:" + DIGEST.upper()})
    assert [each.sha256 for each in made.data] == [DIGEST, "cd" * 32]
    assert [each.rows for each in made.data] == [3, None]


@pytest.mark.parametrize("value", ["yes", DIGEST[:-1], DIGEST + "0", "md5:" + "0" * 32])
def test_what_is_no_sha256_is_none(value):
    made = make(data=(DatasetVersion(name="a"),), tags={"sha256": value})
    assert made.data[0].sha256 is None
    assert ("data", "not_a_sha256") in flags(made)


# --- environment ----------------------------------------------------------------------------------------------------


def test_environment_is_flattened():
    data = b'{"torch":{"version":"2.13","threads":1},"gpus":["a","b"],"x":null,"empty":{}}'
    assert make(environment=data).environment == {
        "gpus.0": "a",
        "gpus.1": "b",
        "torch.threads": 1,
        "torch.version": "2.13",
        "x": None,
    }


@pytest.mark.parametrize(
    "data", [b'{"loss":NaN}', b"{", b"", b"\xff", b'{"a":1,"a":2}', b"[" * 100, b"1e999"]
)
def test_an_environment_that_is_no_strict_json_is_flagged_and_empty(data):
    made = make(environment=data)
    assert made.environment == {}
    assert ("environment", "unreadable") in flags(made)


def test_an_environment_of_one_value():
    assert make(environment=b'"linux"').environment == {"value": "linux"}
    assert make(environment=None).environment == {}


# --- numbers, times, roles, flags -----------------------------------------------------------------------------------


def test_parameters_that_json_cannot_carry_become_text_and_are_flagged():
    made = make(parameters={"lr": math.inf, "big": 2**60, "ok": 0.1, "flag": True, "nan": math.nan})
    assert made.parameters == {
        "big": str(2**60),
        "flag": True,
        "lr": "Infinity",
        "nan": "NaN",
        "ok": 0.1,
    }
    assert sorted(f for f in flags(made) if f[1] == "type_lost") == [
        ("parameters.big", "type_lost"),
        ("parameters.lr", "type_lost"),
        ("parameters.nan", "type_lost"),
    ]


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_760_000_000_123, "2025-10-09T08:53:20.123Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (-62_135_596_800_000, "0001-01-01T00:00:00.000Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (253_402_300_800_000, None),
        (-62_135_596_800_001, None),
        (10**30, None),
        (None, None),
    ],
)
def test_timestamps(milliseconds, text):
    assert timestamp(milliseconds) == text


def test_roles_do_not_depend_on_the_order_in_the_map():
    """Canonical JSON sorts the keys of the map, so a verifier sees them in another order than the provider wrote."""
    metrics = {"training": ("*",), "validation": ("*auc",), "hold-out": ("holdout_*",)}
    expected = {"holdout_auc": "hold-out", "val_auc": "validation", "loss": "training"}
    assert roles(FactMap(metrics=metrics), expected) == expected
    assert roles(FactMap(metrics=dict(reversed(metrics.items()))), expected) == expected
    assert roles(FactMap(), ["a"]) == {"a": "other"}
    assert roles(FactMap(metrics={"other": ("a",), "training": ("b?",)}), ["a", "bc", "b"]) == {
        "a": "other",
        "bc": "training",
        "b": "other",
    }


def test_flags_of_the_importer_are_kept_and_come_first():
    flag = FidelityFlag(field="metrics.loss", flag="nan_replaced", detail="3 points")
    made = make(fidelity=(flag,), environment=b"{", parameters={"seed": "x"})
    assert made.fidelity[0] == flag
    assert len(made.fidelity) == 3


# --- how a run ended ------------------------------------------------------------------------------------------------

LAST = replace(FACTS, finished_with="val_auc")


def test_where_no_status_is_recorded_the_last_metric_says_it():
    made = make(facts=LAST, status="unknown")
    assert made.status == "finished"
    assert flags(made) == [("status", "inferred")]


@pytest.mark.parametrize("status", ["failed", "killed", "running"])
def test_a_recorded_status_stays(status):
    assert make(facts=LAST, status=status).status == status


def test_without_the_last_metric_the_status_stays_unknown():
    assert make(facts=replace(FACTS, finished_with="other"), status="unknown").status == "unknown"
    assert make(status="unknown").status == "unknown"


# --- what the tracker and `bundler capture` recorded of the machine -------------------------------------------------


def captured(**code) -> bytes:
    return canonical.serialise({"format": CAPTURE_FORMAT, "code": code, "python": "3.11.7"})


def test_an_artefact_comes_on_top_of_what_the_tracker_recorded():
    run = replace(RUN, environment={"python": "3.11.7", "host": "x", "odd": math.nan})
    made = record_of(
        run, FACTS, run_id="r", history=None, artefacts=(), environment=b'{"python":"3.12.0"}'
    )
    assert made.environment == {"host": "x", "odd": "NaN", "python": "3.12.0"}
    assert flags(made) == [("environment.odd", "type_lost")]


def test_a_capture_says_what_the_tracker_does_not():
    code = captured(
        commit="a" * 40, tree="b" * 40, dirty=False, branch="main", remote="https://u:p@h/r"
    )
    made = make(environment=code).code
    assert (made.commit, made.tree, made.dirty) == ("a" * 40, "b" * 40, False)
    assert (made.branch, made.repository) == ("main", "https://h/r")


def test_a_capture_never_replaces_what_the_tracker_says():
    code = captured(commit="a" * 40, tree="b" * 40, dirty=False)
    made = make(environment=code, code=CodeVersion(commit="c" * 40, dirty=True)).code
    assert (made.commit, made.tree, made.dirty) == ("c" * 40, None, True)


def test_other_environments_have_no_code_version():
    assert make(environment=b'{"code":{"commit":"a"}}').code == CodeVersion()


@pytest.mark.parametrize("tree", ["", "x", "A" * 40, "a" * 41])
def test_a_tree_that_is_none(tree):
    assert make(code=CodeVersion(commit="c", tree=tree)).code.tree is None


def test_a_metric_that_is_logged_at_every_step_says_nothing_about_the_end():
    points = tuple(MetricPoint("val_auc", step, step, 0.5) for step in range(2))
    made = make(facts=LAST, status="unknown", points=points)
    assert made.status == "unknown"
    assert ("status", "not_inferred") in flags(made)


def test_a_capture_of_another_commit_says_nothing_about_this_one():
    code = captured(commit="a" * 40, tree="b" * 40, dirty=False, branch="main")
    made = make(environment=code, code=CodeVersion(commit="c" * 40)).code
    assert made == CodeVersion(commit="c" * 40)


def test_files_that_git_does_not_know_may_have_been_imported():
    assert make(environment=captured(commit="a" * 40, dirty=False, untracked=0)).code.dirty is False
    assert make(environment=captured(commit="a" * 40, dirty=False, untracked=3)).code.dirty is None
    assert make(environment=captured(commit="a" * 40, dirty=True, untracked=3)).code.dirty is True


# --- rows -----------------------------------------------------------------------------------------------------------

ROWS = replace(FACTS, data_rows={"holdout": "parameters.n", "training": "tags.n"})


def test_rows_that_were_logged_elsewhere_are_those_of_the_data():
    holdout = DatasetVersion(name="credit", role="holdout", sha256=DIGEST)
    made = make(facts=ROWS, data=(holdout,), parameters={"n": 200}, tags={"n": " 600 "})
    assert made.data == (
        replace(holdout, rows=200),
        DatasetVersion(name="training", role="training", rows=600),
    )


def test_recorded_rows_stay():
    holdout = DatasetVersion(name="credit", role="holdout", rows=7)
    assert make(facts=ROWS, data=(holdout,), parameters={"n": 200}).data == (holdout,)


@pytest.mark.parametrize("value", ["many", "-1", "1.5", "9" * 16, True])
def test_what_is_no_number_of_rows_is_flagged(value):
    made = make(facts=ROWS, parameters={"n": value})
    assert made.data == ()
    assert ("data", "not_a_number_of_rows") in flags(made)
