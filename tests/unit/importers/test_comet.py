"""Comet: all that its own sender would upload from real archives, we read; and what Comet does to values is flagged."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from functools import cache
from pathlib import Path

import pytest

from bundler.errors import SourceError
from bundler.importers.comet import CometImporter
from tests.unit.importers.comet_support import (
    EXPECTED,
    FIXTURES,
    KEY,
    LOGGED,
    OTHER,
    archive,
    details,
    flags,
    message,
    metric,
    named,
    one,
    parameter,
    read,
    refused,
    step,
    upload,
)
from tests.unit.importers.support import state

WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
STORES = {"runs": None, "others": None}


@cache
def all_runs():
    found = {}
    for folder in ("runs", "others"):
        for name in CometImporter().experiments(FIXTURES / folder):
            for run in read(FIXTURES / folder, name):
                found[run.source.run_id] = run
    return found


@cache
def uploads():
    """What Comet's sender would upload, by run: of a resumed one, both parts in order."""
    found = {}
    for each in sorted(EXPECTED["uploaded"].values(), key=lambda each: each["start"]):
        found.setdefault(each["key"], []).append(each)
    return found


def is_own(name):
    return name.startswith("sys.") or name == "process duration"


# --- the oracle -------------------------------------------------------------------------------------------------------


def test_every_archive_is_a_run_and_every_run_is_there():
    assert set(all_runs()) == {each["key"] for each in LOGGED.values()}
    assert set(uploads()) == set(all_runs()) - {LOGGED["killed"]["key"], LOGGED["lost"]["key"]}


def test_key_project_and_times_are_those_of_the_sender():
    for key, parts in uploads().items():
        run = all_runs()[key]
        assert (run.source.tracker, run.source.store, run.source.run_id) == (
            "comet",
            "offline",
            key,
        )
        project = parts[0]["project"] or "Uncategorized Experiments"
        assert run.source.experiment == project
        assert run.source.experiment_id == f"{parts[0]['workspace'] or ''}/{project}"
        assert (run.started, run.ended) == (parts[0]["start"], parts[-1]["stop"])
        tags = sorted({tag for part in parts for tag in part["tags"]})
        assert json.loads(run.tags.get("comet.tags", "[]")) == tags


def test_every_metric_point_is_that_of_the_sender_to_the_last_bit():
    for key, parts in uploads().items():
        theirs = []
        for each in (point for part in parts for point in part["metrics"]):
            value = WORDS.get(each["metricValue"], each["metricValue"])
            if is_own(each["metricName"]) or isinstance(value, str):
                continue
            context = f"{each['context']}_" if each["context"] else ""
            name = context + each["metricName"]
            theirs.append(
                (name, math.floor(each["step"] or 0), each["timestamp"], repr(float(value)))
            )
        mine = [(p.metric, p.step, p.timestamp, repr(p.value)) for p in all_runs()[key].points]
        assert sorted(mine) == sorted(theirs)
        order = [(name, time, where) for name, where, time, _ in mine]
        assert order == sorted(order)


def test_every_parameter_is_that_of_the_sender():
    for key, parts in uploads().items():
        theirs = {}
        for each in (item for part in parts for item in part["parameters"]):
            name, value = each["parameterName"], each["parameterValue"]
            if name in {"curr_step", "curr_epoch"}:
                continue
            name = f"{each['context']}_{name}" if each["context"] else name
            if isinstance(value, list):
                value = json.dumps(value, separators=(",", ":"))
            theirs["a|b" if name == "a|b" else name.replace("|", ".")] = value
        mine = dict(all_runs()[key].parameters)
        assert {name: repr(value) for name, value in mine.items()} == {
            name: repr(value) for name, value in theirs.items()
        }


def test_every_other_value_is_that_of_the_sender():
    for key, parts in uploads().items():
        run = all_runs()[key]
        theirs = dict(pair for part in parts for pair in part["others"])
        assert run.name == theirs.pop("Name", None)
        for own in ("offline_experiment", "hasNestedParams"):
            theirs.pop(own, None)
        mine = {name: value for name, value in run.tags.items() if not name.startswith("comet.")}
        assert mine == {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in theirs.items()
        }


def test_code_and_packages_are_those_of_the_sender():
    run = named("first")
    (part,) = uploads()[run.source.run_id]
    git = part["calls"]["set_experiment_git_metadata"]
    assert run.code.commit == git["parent"]
    assert run.code.repository == git["origin"]
    assert f"refs/heads/{run.code.branch}" == git["branch"]
    assert run.environment["git.user"] == git["user"]
    assert run.code.entry_point == part["calls"]["set_experiment_filename"]["filename"]
    theirs = part["calls"]["set_experiment_installed_packages"]["installed_packages"]
    mine = [
        f"{name[9:]}=={value}"
        for name, value in run.environment.items()
        if name.startswith("packages.")
    ]
    assert mine == theirs


def test_every_file_is_that_of_the_sender():
    with CometImporter().open(FIXTURES / "runs", experiment=None, artefacts=None) as session:
        for run in session:
            parts = uploads().get(run.source.run_id, [])
            theirs = sorted(
                each["size"]
                for part in parts
                for each in part["files"]
                if each["type"] != "git-patch"
            )
            # One of the "new.bin" replaced the other.
            theirs = theirs[:-1] if run.source.run_id == LOGGED["traps"]["key"] else theirs
            mine = [
                each.file.stat().st_size
                for each in run.artefacts
                if each.file and each.path != "git_diff.patch"
            ]
            assert sorted(mine) == theirs
            remote = [each.path for each in run.artefacts if each.file is None]
            assert len(remote) == sum(len(part["remote"]) for part in parts) + (
                run.source.run_id == LOGGED["traps"]["key"]
            )


def test_the_values_are_those_that_the_script_logged():
    for name in ("first", "crashed", "interrupted"):
        run = all_runs()[LOGGED[name]["key"]]
        said = LOGGED[name]
        for metric_name, points in said["metrics"].items():
            mine = [[p.step, repr(p.value)] for p in run.points if p.metric == metric_name]
            assert mine == points
        flat = {**said["parameters"], "optimiser.name": "adam", "optimiser.betas": "[0.9,0.99]"}
        flat.pop("optimiser")
        mine = {key: value for key, value in run.parameters.items() if key != "dataset_hash"}
        assert mine == flat
        assert {key: type(value) for key, value in mine.items()} == {
            key: type(value) for key, value in flat.items()
        }


# --- the runs of the story --------------------------------------------------------------------------------------------


def test_runs_come_in_order_of_start_whatever_became_of_them():
    runs = read(FIXTURES / "runs")
    order = [(run.started or 0, run.source.run_id) for run in runs]
    assert order == sorted(order)
    assert [run.status for run in runs] == [
        "unknown",
        "finished",
        "failed",
        "finished",
        "killed",
        "finished",
    ]
    assert not any(run.deleted for run in runs)


def test_a_run_that_was_killed_is_a_run():
    run = named("killed")
    assert (run.status, run.started, run.ended, run.points) == ("unknown", None, None, ())
    assert flags(run) == {("run", "never_closed")}


def test_a_run_that_crashed_says_why():
    run = named("crashed")
    assert run.status == "failed"
    assert run.tags["comet.error"].endswith("RuntimeError('loss is not finite')")


def test_a_run_that_was_interrupted_was_killed():
    assert named("interrupted").status == "killed"


def test_the_archives_of_a_resumed_run_are_one_run():
    run = named("second")
    assert [p.step for p in run.points if p.metric == "train_loss"] == [0, 1, 2, 3, 4]
    assert [each.path for each in run.artefacts] == ["models/net/model.bin"]
    assert details(run)["run", "resumed"] == "put together from 2 archives"


def test_the_uncommitted_changes_are_an_artefact():
    with CometImporter().open(FIXTURES / "runs", experiment=None, artefacts=None) as session:
        (run,) = [each for each in session if each.name == "first"]
        (patch,) = [each for each in run.artefacts if each.path == run.code.patch]
        assert run.code.dirty is True
        assert patch.file.read_text("utf-8").startswith("diff --git a/train.py b/train.py\n")
        assert {
            each.path: each.file and each.file.read_bytes()
            for each in run.artefacts
            if each is not patch
        } == {
            "holdout.csv": None,
            "models/net/model.bin": b"weights of the model\n",
            "source_code/comet_runs.py": b"import comet_runs\n",
            "source_code/train.py": b"import comet_runs\n",
            "tables/table.csv": b"a,b\n1,2\n",
        }
        assert details(run)["artefacts", "remote"] == "holdout.csv: s3://data/holdout.csv"


def test_no_patch_does_not_mean_clean():
    assert named("second").code.dirty is None


def test_the_data_set_is_named_and_its_hash_is_no_identity():
    (data,) = named("first").data
    assert data.name == "loans-3, s3://data/loans.csv"
    assert data.tracker_digest == f"comet:{hashlib.md5(b'loans, version 3').hexdigest()[:12]}"
    assert data.sha256 is None


def test_the_machine_is_the_environment_under_names_that_are_redacted():
    found = named("first").environment
    assert {name: found[name] for name in ("host", "user", "ip", "python", "machine")} == {
        "host": "trainer", "user": "someone", "ip": "192.0.2.1", "python": "3.11.7", "machine": "x86_64",
    }  # fmt: skip
    assert found["packages.comet_ml"] == EXPECTED["comet_ml"]


def test_what_comet_did_to_values_is_flagged():
    run = named("traps")
    long = "m" * 88 + " [truncated]"
    assert {
        ("metrics", "system_skipped"),
        ("metrics.no step", "step_missing"),
        ("metrics.no step", "duplicate_step"),
        ("metrics.half step", "step_rounded"),
        ("metrics.inherited", "step_inherited"),
        ("metrics.twice", "duplicate_step"),
        ("metrics.word", "not_a_number"),
        ("metrics.truth", "not_a_number"),
        ("metrics.other epoch", "epoch_dropped"),
        (f"metrics.{long}", "truncated"),
        ("parameters.changed", "overwritten"),
        ("parameters.nan", "type_lost"),
        ("parameters.word", "type_lost"),
        ("parameters.a|b", "name_kept"),
        ("parameters.long", "truncated"),
        ("tags.changed", "overwritten"),
        ("artefacts", "same_name"),
        ("artefacts", "overwritten"),
        ("artefacts", "renamed"),
        ("artefacts", "remote"),
    } <= flags(run)
    assert ("metrics.minus", "step_inherited") not in flags(run)
    assert (run.parameters["changed"], run.tags["changed"]) == (2, "b")
    assert (run.parameters["none"], run.parameters["truth"], run.parameters["large"]) == (
        None,
        False,
        2**60,
    )
    assert run.parameters["train_mode"] == "fit"
    assert [each.path for each in run.artefacts] == [
        "models/far/far.bin", "new.bin", "over/the.bin", "same.bin", "same.bin.2", "text-sample/auto-generated-in-the-backend",
    ]  # fmt: skip
    assert not [each for each in run.points if each.metric in {"word", "truth"}]


def test_a_run_without_oddities_has_one_flag_only():
    assert flags(named("crashed")) == {("metrics", "system_skipped")}


# --- stores -----------------------------------------------------------------------------------------------------------


def test_projects_are_listed_with_the_largest_first():
    assert CometImporter().experiments(FIXTURES / "runs") == ("toy",)
    others = CometImporter().experiments(FIXTURES / "others")
    assert set(others) == {"elsewhere", "Uncategorized Experiments", "unknown project"}


def test_a_run_of_no_known_project_belongs_to_the_only_one_there_is(tmp_path):
    shutil.copytree(FIXTURES / "others", tmp_path / "store")
    (tmp_path / "store" / f"{LOGGED['nowhere']['key']}.zip").unlink()
    assert [run.status for run in read(tmp_path / "store")] == ["unknown", "finished"]


def test_a_project_is_found_by_its_name_and_with_its_workspace(tmp_path):
    archive(tmp_path / "a.zip")
    archive(tmp_path / "b.zip", offline_id=OTHER, workspace="other")
    archive(tmp_path / "c.zip", offline_id="2d" * 16, workspace="other")
    assert CometImporter().experiments(tmp_path) == ("other/toy", "lab/toy")
    assert [run.source.run_id for run in read(tmp_path, "lab/toy")] == [KEY]
    with pytest.raises(SourceError, match="several experiments 'toy'"):
        read(tmp_path, "toy")


def test_one_archive_is_a_store():
    run = one(FIXTURES / "runs" / f"{LOGGED['first']['key']}.zip")
    assert run.name == "first"


def test_a_folder_of_archives_is_detected(tmp_path):
    importer = CometImporter()
    assert importer.detect(FIXTURES) == ()
    assert importer.detect(FIXTURES / "runs") == (FIXTURES / "runs",)
    assert importer.detect(tmp_path / "missing") == ()
    shutil.copytree(FIXTURES / "runs", tmp_path / ".cometml-runs")
    (tmp_path / "broken.zip").write_bytes(b"PK")
    (tmp_path / f"{KEY}.zip").write_bytes(b"PK")
    assert importer.detect(tmp_path) == (tmp_path / ".cometml-runs",)


def test_a_folder_that_cannot_be_listed_holds_nothing_to_detect(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "glob", lambda *_: (_ for _ in ()).throw(PermissionError()))
    assert CometImporter().detect(tmp_path) == ()


def test_zip_files_of_something_else_are_left_alone(tmp_path):
    archive(tmp_path / f"{KEY}.zip")
    import zipfile

    with zipfile.ZipFile(tmp_path / "data.zip", "w") as file:
        file.writestr("data.csv", "1")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert one(tmp_path).source.run_id == KEY


def test_what_holds_no_run_is_refused(tmp_path):
    assert "OfflineExperiment" in refused(tmp_path, "holds no offline experiment of Comet").remedy
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        read(tmp_path / "missing")


def test_an_address_is_refused_with_what_to_give_instead():
    with pytest.raises(SourceError, match=r"'https://www\.comet\.com/lab'") as error:
        CometImporter().experiments("https://www.comet.com/lab")
    assert "zip files" in error.value.remedy


def test_reading_again_gives_the_same_and_changes_nothing(tmp_path):
    shutil.copytree(FIXTURES / "runs", tmp_path / "store")
    before = state(tmp_path)
    with CometImporter().open(tmp_path / "store", experiment="toy", artefacts=None) as session:
        first, second = list(session), list(session)
        assert repr(first) == repr(second)
        files = [each.file for run in first for each in run.artefacts if each.file]
        assert all(file.is_file() for file in files)
    assert not any(file.exists() for file in files)
    assert state(tmp_path) == before


# --- runs in several archives -----------------------------------------------------------------------------------------


def test_two_archives_that_both_begin_a_run_are_refused(tmp_path):
    archive(tmp_path / f"{KEY}.zip")
    archive(tmp_path / f"{KEY} (copy).zip", start_time=5)
    error = refused(tmp_path, f"holds run '{KEY}' twice: .* both begin it")
    assert "Move one of them" in error.remedy


def test_continuations_are_put_in_order_of_their_start(tmp_path):
    archive(
        tmp_path / f"{KEY}-b.zip",
        [metric("m", 3.0, step=2)],
        resume_strategy="get",
        start_time=3000,
        stop_time=4000,
    )
    archive(
        tmp_path / f"{KEY}-a.zip",
        [metric("m", 2.0, step=1)],
        resume_strategy="get",
        start_time=2000,
        stop_time=2500,
        project_name=None,
    )
    archive(tmp_path / f"{KEY}.zip", [metric("m", 1.0)], stop_time=1500)
    run = one(tmp_path)
    assert [point.value for point in run.points] == [1.0, 2.0, 3.0]
    assert (run.started, run.ended) == (1000, 4000)


def test_a_continuation_alone_says_that_its_beginning_is_missing(tmp_path):
    archive(tmp_path / f"{KEY}-a.zip", resume_strategy="get", project_name=None, workspace=None)
    run = one(tmp_path)
    assert run.source.experiment == "unknown project"
    assert ("run", "beginning_missing") in flags(run)


def test_a_run_that_was_killed_when_it_went_on_has_not_ended(tmp_path):
    import zipfile

    archive(tmp_path / f"{KEY}.zip", [metric("m", 1.0)])
    with zipfile.ZipFile(tmp_path / f"{KEY}-XyZ.zip", "w"):
        pass
    run = one(tmp_path)
    assert (run.status, run.started, run.ended) == ("unknown", 1000, None)
    assert {("run", "never_closed"), ("run", "resumed")} <= flags(run)


def test_an_archive_that_may_begin_or_continue_a_run_is_enough(tmp_path):
    archive(tmp_path / f"{KEY}-a.zip", resume_strategy="get_or_create", project_name=None)
    assert one(tmp_path).source.experiment == "Uncategorized Experiments"


# --- single messages --------------------------------------------------------------------------------------------------


def run_of(tmp_path, *messages, files=None, **more):
    return one(archive(tmp_path / f"{KEY}.zip", list(messages), files, **more))


def test_a_metric_whose_step_was_given_is_not_in_doubt(tmp_path):
    run = run_of(tmp_path, step(3), metric("given", 1.0, step=3), metric("after", 1.0, step=3))
    assert ("metrics.given", "step_inherited") not in flags(run)
    assert ("metrics.after", "step_inherited") in flags(run)


def test_an_announced_step_does_not_reach_into_the_next_archive(tmp_path):
    archive(tmp_path / f"{KEY}.zip", [step(3)])
    archive(
        tmp_path / f"{KEY}-a.zip",
        [metric("m", 1.0, step=3)],
        resume_strategy="get",
        start_time=2000,
    )
    assert ("metrics.m", "step_inherited") in flags(one(tmp_path))


def test_a_number_too_large_for_a_double_is_no_point(tmp_path):
    run = run_of(tmp_path, metric("m", 10**400), metric("m", [1]), metric("m", None))
    assert run.points == ()
    assert details(run)["metrics.m", "not_a_number"] == "3 points"


def test_a_parameter_of_the_name_of_a_counter_is_kept_if_somebody_logged_it(tmp_path):
    run = run_of(
        tmp_path, parameter("curr_step", 4), parameter("curr_epoch", 2, source="auto-logged")
    )
    assert dict(run.parameters) == {"curr_step": 4}


def test_a_parameter_that_changes_its_type_changes(tmp_path):
    run = run_of(
        tmp_path, parameter("p", 1), parameter("p", True), parameter("q", 1), parameter("q", 1)
    )
    assert run.parameters["p"] is True
    assert flags(run) == {("parameters.p", "overwritten")}


def test_objects_and_lists_become_text(tmp_path):
    run = run_of(
        tmp_path,
        parameter("p", {"b": [1, None], "a": "ä"}),
        message("log_other", key="k", value={"x": 1}),
    )
    assert run.parameters["p"] == '{"a":"ä","b":[1,null]}'
    assert run.tags["k"] == '{"x":1}'


def test_half_a_character_becomes_text_that_can_be_written(tmp_path):
    run = run_of(
        tmp_path,
        parameter("\ud800", "\udfff"),
        metric("\ud800", 1.0),
        message("log_other", key="\ud800", value="\ud800"),
    )
    json.dumps([dict(run.parameters), dict(run.tags), run.points[0].metric]).encode()
    repr(run).encode()


def test_cards_facts_and_packages_are_the_environment(tmp_path):
    run = run_of(
        tmp_path,
        message(
            "gpu_static_info",
            gpu_static_info=[{"name": "A100", "gpu_index": 0, "total_memory": 40}, {"name": "T4"}],
        ),
        message("log_dependency", name="torch", version="2.1"),
        message("cloud_details", provider="aws", cloud_metadata={"accountId": "1"}),
        message("installed_packages", installed_packages=["a==1", "-e git+https://example.org/b"]),
        message(
            "system_details", command=["a", "b"], env={"SECRET": "x"}, hostname=None, processor=""
        ),
    )
    assert dict(run.environment) == {
        "gpu.0.model": "A100", "gpu.0.memory": 40, "gpu.1.model": "T4", "packages.torch": "2.1", "cloud.provider": "aws", "packages.a": "1",
        "packages.-e git+https://example.org/b": "", "command": '["a","b"]',
    }  # fmt: skip


def test_messages_of_an_unknown_type_are_counted(tmp_path):
    run = run_of(
        tmp_path,
        message("new"),
        message("new"),
        message("ws_msg", what=1),
        message("html", html="x"),
    )
    assert [each.detail for each in run.fidelity] == ["1 of type 'ws_msg'", "2 of type 'new'"]


def test_the_messages_of_older_versions_are_read(tmp_path):
    def old(**payload):
        return message("ws_msg", local_timestamp=1000, **payload)

    run = run_of(
        tmp_path,
        old(metric={"metricName": "m", "metricValue": 1.0, "step": 1}),
        old(param={"paramName": "p", "paramValue": 2}),
        old(params={"paramName": "q", "paramValue": [1]}),
        old(log_other={"key": "Name", "val": "old one"}),
        old(fileName="train.py"),
        old(git_meta={"parent": "c0ffee", "branch": "refs/heads/dev", "origin": None}),
        old(env_details={"python_version": "3.6"}),
        old(installed_packages=["a==1"]),
        old(log_dependency={"name": "b", "version": "2"}),
        old(log_system_info={"key": "k", "value": 1}),
        old(stdout="text"),
    )
    # Written before "system_info" had a message of its own, it was the whole of "log_system_info".
    assert (run.name, dict(run.parameters), run.points[0].value) == (
        "old one",
        {"p": 2, "q": "[1]"},
        1.0,
    )
    assert (run.code.entry_point, run.code.commit, run.code.branch) == ("train.py", "c0ffee", "dev")
    assert dict(run.environment) == {
        "python": "3.6",
        "packages.a": "1",
        "packages.b": "2",
        "system.k": 1,
    }
    assert flags(run) == {("metrics.m", "step_inherited")}


def test_a_trouble_of_comet_itself_is_no_failure_of_the_run(tmp_path):
    run = run_of(tmp_path, customer_error_reported=True, customer_error_message="Not all was sent")
    assert run.status == "finished"
    assert details(run)["run", "tracker_error"] == "Not all was sent"


def test_a_file_that_is_not_in_the_archive_is_a_gap(tmp_path):
    run = run_of(tmp_path, upload("gone", "data/a.bin"), upload("gone", None, "git-patch"))
    assert [(each.path, each.file) for each in run.artefacts] == [
        ("data/a.bin", None),
        ("git_diff.patch", None),
    ]
    assert flags(run) == {("artefacts", "missing")}
    assert run.code.dirty is None


def test_files_are_told_apart_by_what_they_are(tmp_path):
    run = run_of(
        tmp_path,
        upload("f", "C:\\data\\a.bin"),
        upload("f", "net/w.bin", "model-element", groupingName="net"),
        upload("f", "/home/x/a.py", "source_code"),
        upload("f", "lib/a.py", "source_code"),
        upload("f", None, "visualization"),
        upload("sub/f", "deep.bin"),
        files={"f": b"1"},
    )
    assert [each.path for each in run.artefacts] == [
        "C:/data/a.bin", "deep.bin", "models/net/net/w.bin", "source_code/a.py", "source_code/lib/a.py", "visualization/unnamed",
    ]  # fmt: skip


def test_a_name_cannot_leave_its_folder_nor_steer_a_terminal(tmp_path):
    run = run_of(
        tmp_path,
        upload("f", "../../etc/passwd"),
        upload("f", "a\x1b[2J\u202e"),
        upload("f", "//"),
        files={"f": b"1"},
    )
    assert [each.path for each in run.artefacts] == ["a_[2J_", "etc/passwd", "unnamed"]
    assert ("artefacts", "renamed") in flags(run)


def patch_of(tmp_path, members):
    import zipfile

    inner = tmp_path / "inner"
    with zipfile.ZipFile(inner, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return inner.read_bytes()


def test_an_empty_patch_is_no_change(tmp_path):
    data = patch_of(tmp_path, {"git_diff.patch": b""})
    run = run_of(tmp_path, upload("p", None, "git-patch"), files={"p": data})
    assert (run.code.dirty, run.code.patch) == (None, None)
    assert [each.path for each in run.artefacts] == ["git_diff.patch"]


@pytest.mark.parametrize(
    "members", [{}, {"a": b"1"}, {"git_diff.patch": b"1", "b": b"2"}, {"../git_diff.patch": b"1"}]
)
def test_a_patch_with_anything_else_is_refused(tmp_path, members):
    data = patch_of(tmp_path, members)
    path = archive(tmp_path / f"{KEY}.zip", [upload("p", None, "git-patch")], {"p": data})
    refused(path, "messages.json, line 1: holds|'p': no readable patch")


# --- what is committed ------------------------------------------------------------------------------------------------


def test_the_fixture_is_small_and_names_no_machine():
    import zipfile

    files = [path for path in FIXTURES.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 100_000
    texts = []
    for path in files:
        texts.append(path.read_bytes())
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as file:
                texts += [file.read(name) for name in file.namelist()]
    for data in texts:
        assert not [
            word for word in (b"/tmp", b"/root", b"/home", b"/work", b"127.0.0.1") if word in data
        ]
