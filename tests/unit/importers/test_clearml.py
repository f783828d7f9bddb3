"""ClearML: what its own functions read from real sessions and exports, we read; and what ClearML loses is flagged."""

from __future__ import annotations

import ast
import hashlib
import json
import math
import shutil
from functools import cache
from pathlib import Path

import pytest

from bundler.errors import SourceError
from bundler.importers.clearml import ClearmlImporter
from bundler.importers.clearml import values as clearml_values
from tests.unit.importers.clearml_support import (
    EXPECTED,
    EXPORTS,
    FIXTURES,
    ID,
    SESSIONS,
    details,
    export,
    flags,
    one,
    packed,
    read,
    refused,
    scalar,
    session,
)
from tests.unit.importers.support import state

SINGLE = -(2**31)
NAMES = pytest.mark.parametrize("name", ["first", "crashed", "second", "traps"])


@cache
def sessions():
    return {run.name: run for run in read(SESSIONS)}


@cache
def exports():
    return {run.name.removeprefix("task "): run for run in read(EXPORTS)}


# --- the oracle: offline sessions -------------------------------------------------------------------------------------


@NAMES
def test_task_and_project_are_those_of_clearml(name):
    run, said = sessions()[name], EXPECTED["read"][name]["task"]
    assert (run.source.tracker, run.source.store) == ("clearml", "offline")
    assert (run.source.run_id, run.name) == (said["id"], said["name"])
    assert run.source.experiment == run.source.experiment_id == said["project_name"]
    assert json.loads(run.tags.get("clearml.tags", "[]")) == sorted(said["tags"] or [])


@NAMES
def test_every_scalar_is_that_of_clearmls_own_import_to_the_last_bit(name):
    theirs = [
        (f"{title}/{series}", 0 if iteration == SINGLE else iteration, time, repr(float(value)))
        for title, series, iteration, time, value in EXPECTED["read"][name]["events"]
        if not title.startswith(":monitor:")
    ]
    mine = [(p.metric, p.step, p.timestamp, repr(p.value)) for p in sessions()[name].points]
    assert sorted(mine) == sorted(theirs)
    order = [(metric, time, step) for metric, step, time, _ in mine]
    assert order == sorted(order)


@NAMES
def test_every_scalar_that_was_logged_is_there_and_what_was_lost_is_in_doubt(name):
    run = sessions()[name]
    logged = EXPECTED["logged"][name]["metrics"]
    assert len(run.points) == len(logged)
    for title, series, iteration, value in logged:
        metric, step = f"{title}/{series}", 0 if iteration == SINGLE else iteration
        values = [p.value for p in run.points if (p.metric, p.step) == (metric, step)]
        if math.isfinite(float(value)):
            assert float(value) in values
        else:
            assert 0.0 in values
            assert (f"metrics.{metric}", "zero_ambiguous") in flags(run)


@NAMES
def test_every_parameter_is_cast_as_clearml_casts_it(name):
    mine = dict(sessions()[name].parameters)
    mine = {key: value for key, value in mine.items() if not key.startswith("configuration.")}
    theirs = {}
    for key, text in EXPECTED["read"][name]["parameters"].items():
        value = {"nan": math.nan, "inf": math.inf}.get(text)
        value = ast.literal_eval(text) if value is None else value
        if isinstance(value, list | tuple | dict):
            value = json.dumps(value, separators=(",", ":"))
        theirs[key.replace("/", ".")] = value
    assert {key: repr(value) for key, value in mine.items()} == {
        key: repr(value) for key, value in theirs.items()
    }
    assert not [flag for flag in sessions()[name].fidelity if flag.flag == "type_lost"]


@NAMES
def test_every_artefact_has_the_digest_that_clearml_recorded(name):
    expected = EXPECTED["read"][name]["artefacts"]
    with ClearmlImporter().open(SESSIONS, experiment=None, artefacts=None) as opened:
        (run,) = [each for each in opened if each.name == name]
        digests = {
            each.path.split("/")[0]: each.file
            and hashlib.sha256(each.file.read_bytes()).hexdigest()
            for each in run.artefacts
        }
    assert ("artefacts", "hash_mismatch") not in flags(run)
    for key, (recorded, found) in expected.items():
        assert digests[key] == recorded == (found or None)


# --- the runs of the story --------------------------------------------------------------------------------------------


def test_runs_come_in_order_of_their_first_event():
    runs = read(SESSIONS)
    assert [run.name for run in runs] == ["first", "crashed", "second", "traps"]
    assert [run.started for run in runs] == sorted(run.started for run in runs)
    for run in runs:
        assert run.started <= run.points[0].timestamp <= run.ended
        assert ("run", "time_derived") in flags(run)


def test_an_offline_session_does_not_say_what_became_of_it():
    assert {run.status for run in sessions().values()} == {"unknown"}


def test_a_crashed_task_is_read_from_its_folder_for_its_zip_file_lacks_what_was_lost(tmp_path):
    run = sessions()["crashed"]
    assert len(run.points) == 4
    assert [each.path for each in run.artefacts] == ["partial.bin", "uncommitted.patch"]
    name = f"{run.source.run_id}.zip"
    shutil.copy(SESSIONS / name, tmp_path / name)
    less = one(tmp_path / name)
    assert less.points == ()
    digest = EXPECTED["read"]["crashed"]["artefacts"]["partial.bin"][0]
    assert details(less)["artefacts", "missing"] == f"partial.bin (sha256:{digest})"
    assert ("metrics", "missing") in flags(less)


def test_code_and_uncommitted_changes_are_kept():
    with ClearmlImporter().open(SESSIONS, experiment="toy", artefacts=None) as opened:
        run = next(iter(opened))
        (patch,) = [each for each in run.artefacts if each.path == run.code.patch]
        text = patch.file.read_text("utf-8")
    assert text.startswith("diff --git a/train.py b/train.py")
    assert text.endswith("+clearml_runs.run()\n")
    assert (run.code.repository, run.code.branch) == ("https://example.org/repo.git", "main")
    assert len(run.code.commit) == 40
    assert (run.code.dirty, run.code.entry_point) == (True, "train.py")


def test_models_data_and_configuration_of_a_session_are_there():
    run = sessions()["first"]
    assert [each.path for each in run.artefacts] == [
        "model.bin",
        "models/net/net.pkl",
        "split/split.json",
        "uncommitted.patch",
    ]
    assert [(each.name, each.version, each.sha256) for each in run.data] == [
        ("loans", "da" * 16, None)
    ]
    assert run.parameters["configuration.data"].startswith('data {\n  path = "loans.csv"')
    assert run.environment["container.image"] == "python:3.11"
    assert run.environment["python"] == "3.11.7"
    assert run.environment["packages.clearml"] == EXPECTED["clearml"]
    assert run.tags["clearml.comment"] == "the first one"


def test_what_clearml_did_to_values_is_flagged():
    run = sessions()["traps"]
    assert {
        ("metrics", "plots_skipped"),
        ("metrics.zero/real", "zero_ambiguous"),
        ("metrics.zero/nan", "zero_ambiguous"),
        ("metrics.minus/inf", "zero_ambiguous"),
        ("metrics.twice/same", "duplicate_step"),
        ("metrics.Summary/single", "single_value"),
        ("metrics.Summary/single", "duplicate_step"),
        ("artefacts", "remote"),
        ("run", "time_derived"),
    } == flags(run)
    assert details(run)["artefacts", "remote"] == "away/loans.csv: s3://data/loans.csv"
    assert ("metrics", "of_models_skipped") in flags(sessions()["first"])


# --- the oracle: exported tasks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("created", "scheduled"), ("queued", "scheduled"), ("in_progress", "running"), ("stopped", "killed"),
        ("failed", "failed"), ("completed", "finished"), ("published", "finished"), ("closed", "finished"),
    ],
)  # fmt: skip
def test_every_status_has_its_word(theirs, ours):
    run = exports()[theirs]
    assert run.status == ours
    assert run.deleted == (theirs == "stopped")
    assert {("metrics", "not_exported"), ("artefacts", "not_exported")} <= flags(run)


def test_times_are_those_of_the_server():
    # 2024-03-01T10:00:01.250Z and 10:05:00.500Z
    assert (exports()["completed"].started, exports()["completed"].ended) == (
        1709287201250,
        1709287500500,
    )
    assert (exports()["in_progress"].ended, exports()["queued"].started) == (None, None)


def test_an_export_is_read_field_by_field():
    run = exports()["completed"]
    said = json.loads((EXPORTS / "completed.json").read_text("utf-8"))
    assert run.source.run_id == said["id"]
    assert (run.code.commit, run.code.branch) == (
        said["script"]["version_num"],
        said["script"]["branch"],
    )
    assert run.code.entry_point == "src/train.py"
    assert dict(run.parameters) == {
        "General.lr": 0.1,
        "General.seed": 7,
        "configuration.data": "path = loans.csv",
    }
    assert run.tags["clearml.input_model.start"] == "aa" * 16
    assert details(run)["artefacts", "remote"] == f"models/net: model {'bb' * 16}"
    assert dict(run.environment) == {
        "python": "3.11.7", "packages.numpy": "2.4.6", "packages.clearml": "2.1.12", "packages.torch": "https://example.org/t.whl",
        "python.executable": "/python/bin/python", "container.image": "python:3.11", "user": "0e" * 16,
        "platform": "Linux-6.1.0-x86_64", "machine": "x86_64", "cpu.count": 16, "memory.gb": 125.8, "host": "trainer",
        "gpu.count": 2, "gpu.0.model": "A100", "gpu.1.model": "A100", "gpu.0.memory": "40GB", "gpu.1.memory": "40GB",
        "gpu.driver": "550.54", "cuda": "12.4", "runtime.progress": "100",
    }  # fmt: skip


def test_a_patch_of_an_export_becomes_a_file():
    with ClearmlImporter().open(
        EXPORTS / "completed.json", experiment=None, artefacts=None
    ) as opened:
        (run,) = opened
        (patch,) = [each for each in run.artefacts if each.path == run.code.patch]
        said = json.loads((EXPORTS / "completed.json").read_text("utf-8"))
        assert patch.file.read_bytes() == said["script"]["diff"].encode()


def test_no_diff_does_not_mean_clean():
    run = exports()["created"]
    assert (run.code.dirty, run.code.patch) == (None, None)


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("0.1", "float", 0.1), ("7", "int", 7), ("True", "bool", True), (" false ", "bool", False), ("", "bool", False),
        ("7", "str", "7"), ("", None, None), ("", "", None), ("", "str", ""), ("[1, 2]", "list/int", "[1,2]"),
        ('{"b": 1, "a": 2}', "dict/int", '{"a":2,"b":1}'), ("[1]", "tuple", "[1]"), ("-inf", "float", -math.inf),
        (5, "int", 5), (None, "str", None), ([1], "list", "[1]"), (str(2**70), "int", 2**70), ("", "NoneType", None),
    ],
)  # fmt: skip
def test_a_parameter_gets_its_declared_type_back(value, kind, expected):
    assert repr(clearml_values.cast(value, kind)) == repr((expected, ""))


@pytest.mark.parametrize(
    ("value", "kind", "problem"),
    [
        ("1e5", "int", "declared as 'int'"), ("x", "float", "declared as 'float'"), ("yes", "bool", "declared as 'bool'"),
        ("(1, 2)", "tuple/int", "declared as 'tuple/int'"), ("a/b", "PosixPath", "declared as 'PosixPath'"),
        ("7", None, "no declared type"), ("None", "NoneType", "no declared type"), ("9" * 5000, "int", "declared as 'int'"),
        ("\ud800", "dict", "declared as 'dict'"),
    ],
)  # fmt: skip
def test_what_cannot_be_cast_stays_text_and_is_flagged(value, kind, problem):
    kept, said = clearml_values.cast(value, kind)
    assert (kept.encode(), said) == (value.encode("utf-8", "backslashreplace"), problem)


def test_parameters_of_an_old_task_have_no_types(tmp_path):
    run = one(export(tmp_path / "a.json", execution={"parameters": {"Args/lr": "0.1"}}))
    assert dict(run.parameters) == {"Args.lr": "0.1"}
    assert details(run)["parameters.Args.lr", "type_lost"] == "declared as 'untyped'"


def test_two_parameters_of_one_dotted_name_are_both_kept(tmp_path):
    group = {name: {"value": name, "type": "str"} for name in ("a.b", "a/b")}
    run = one(export(tmp_path / "a.json", hyperparams={"G": group}))
    assert dict(run.parameters) == {"G.a.b": "a.b", "G/a/b": "a/b"}
    assert ("parameters.G/a/b", "name_kept") in flags(run)


# --- times, packages, code --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:01Z", 1000), ("1970-01-01 00:00:00.250000+00:00", 250), ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:01", 1000), ("1969-12-31T23:59:59.999Z", -1), ("soon", None), (None, None), (5, None), ("", None),
        ("0001-01-01T00:00:00+14:00", -62135647200000),
    ],
)  # fmt: skip
def test_times_are_milliseconds_in_utc(text, expected):
    assert clearml_values.moment(text) == expected


def test_packages_are_those_lines_that_name_one(tmp_path):
    text = "# Python 3.10.2 (main)\n# a comment\nA_b==1.0 \n--find-links x\n-e git+https://x\nc[extra] == 2\nd\ne >= 3\nf @ https://u:p@h/f.whl\n"
    run = one(
        export(tmp_path / "a.json", script={"requirements": {"pip": text}, "binary": "python3.10"})
    )
    assert dict(run.environment) == {
        "python": "3.10.2", "packages.A_b": "1.0", "packages.c": "2", "packages.d": "", "packages.f": "https://h/f.whl",
        "python.executable": "python3.10",
    }  # fmt: skip


def test_arguments_of_a_container_are_left_out(tmp_path):
    run = one(export(tmp_path / "a.json", execution={"docker_cmd": "image:1 -e TOKEN=secret"}))
    assert run.environment["container.image"] == "image:1"


def test_what_services_keep_in_the_runtime_properties_is_left_out(tmp_path):
    run = one(export(tmp_path / "a.json", runtime={"_JUPYTER_TOKEN": "secret", "note": "x"}))
    assert dict(run.environment) == {"runtime.note": "x"}


def test_a_script_without_a_repository_is_no_patch(tmp_path):
    run = one(
        export(
            tmp_path / "a.json",
            script={"diff": "import os\n", "entry_point": "t.py", "working_dir": "."},
        )
    )
    assert [each.path for each in run.artefacts] == ["script.py"]
    assert (run.code.dirty, run.code.patch, run.code.entry_point) == (None, None, "t.py")
    assert ("code", "no_repository") in flags(run)


LARGE = {"repository": "r", "diff": "# WARNING! git diff too large to store, clear this section\n"}


def test_a_patch_that_is_too_large_lies_in_an_artefact(tmp_path):
    stored = {"key": "auxiliary_git_diff", "uri": f"/fixture/{ID}/data/auxiliary_git_diff.txt"}
    run = one(
        session(
            tmp_path / "s",
            script=LARGE,
            execution={"artifacts": [stored]},
            files={"data/auxiliary_git_diff.txt": b"diff"},
        )
    )
    assert (run.code.dirty, run.code.patch) == (True, "auxiliary_git_diff/auxiliary_git_diff.txt")
    assert ("code", "patch_elsewhere") in flags(run)


def test_a_patch_that_is_too_large_and_lost_is_a_gap(tmp_path):
    run = one(session(tmp_path / "s", script=LARGE))
    assert (run.code.dirty, run.code.patch) == (True, None)
    assert ("code", "truncated") in flags(run)


# --- artefacts --------------------------------------------------------------------------------------------------------


def artefact(key, uri, data=None, **more):
    digest = None if data is None else hashlib.sha256(data).hexdigest()
    return {"key": key, "uri": uri, "hash": digest, **more}


def test_bytes_that_are_not_those_that_clearml_hashed_are_flagged(tmp_path):
    said = artefact("a", f"/fixture/{ID}/data/a", b"before")
    run = one(session(tmp_path / "s", execution={"artifacts": [said]}, files={"data/a": b"after"}))
    assert (
        details(run)["artefacts", "hash_mismatch"] == f"a: ClearML recorded sha256:{said['hash']}"
    )


def test_the_hash_of_a_registered_table_leaves_out_its_header(tmp_path):
    data = b"h" * 32 + b"table"
    said = {
        **artefact("t", f"/fixture/{ID}/data/t.csv.gz"),
        "hash": hashlib.sha256(b"table").hexdigest(),
    }
    run = one(
        session(tmp_path / "s", execution={"artifacts": [said]}, files={"data/t.csv.gz": data})
    )
    assert ("artefacts", "hash_mismatch") not in flags(run)


def test_artefacts_elsewhere_are_named_without_credentials(tmp_path):
    said = [
        artefact("a", "https://u:p@h/x/a.bin?token=1", b"1"),
        artefact("b", "file:///other/b.bin"),
        artefact("c", "http://["),
        artefact("", None),
    ]
    run = one(session(tmp_path / "s", execution={"artifacts": said}))
    digest = hashlib.sha256(b"1").hexdigest()
    assert [(each.path, each.file) for each in run.artefacts] == [
        ("a/a.bin", None),
        ("b/b.bin", None),
        ("c/[", None),
        ("unnamed", None),
    ]
    found = {each.detail for each in run.fidelity if each.field == "artefacts"}
    assert found == {
        f"a/a.bin: https://h/x/a.bin (sha256:{digest})",
        "b/b.bin",
        "c/[: http://[",
        "unnamed",
    }


def test_files_of_a_session_that_nothing_names_are_artefacts_too(tmp_path):
    run = one(
        session(tmp_path / "s", files={"data/toy/metrics/plot.png": b"1", "log.jsonl": b"[]\n"})
    )
    assert [each.path for each in run.artefacts] == ["data/toy/metrics/plot.png"]


def test_a_session_from_windows_finds_its_files(tmp_path):
    said = artefact("a", f"C:\\t\\{ID}\\data\\a", b"1")
    run = one(
        session(
            tmp_path / "s",
            offline_folder=f"C:\\t\\{ID}",
            execution={"artifacts": [said]},
            files={"data/a": b"1"},
        )
    )
    assert [(each.path, each.file is not None) for each in run.artefacts] == [("a", True)]


def test_an_output_model_may_be_elsewhere(tmp_path):
    models = [
        {"init": {"name": "net"}, "weights": {"register_uri": "s3://m/net.bin"}},
        {"weights": {"weights_filename": "/gone/w"}},
    ]
    run = one(session(tmp_path / "s", offline_output_models=models))
    assert [(each.path, each.file) for each in run.artefacts] == [
        ("models/net/net.bin", None),
        ("models/unnamed/w", None),
    ]
    assert flags(run) >= {("artefacts", "remote"), ("artefacts", "missing")}


def test_a_link_in_a_session_is_not_followed(tmp_path):
    folder = session(tmp_path / "s")
    (folder / "data").mkdir()
    (folder / "data" / "secret").symlink_to("/etc/passwd")
    run = one(folder)
    assert run.artefacts == ()
    assert details(run)["artefacts", "symlink_skipped"] == "data/secret"


# --- scalars ----------------------------------------------------------------------------------------------------------


def test_events_of_models_and_of_the_machine_are_counted_and_left_out(tmp_path):
    run = one(session(
        tmp_path / "s",
        scalar("loss", "a", 1.0),
        scalar("loss", "a", 2.0, task="other"),
        scalar("loss", "a", 3.0, model_event=True),
        scalar(":monitor:gpu", "gpu_0_utilization", 4.0),
        {"type": "plot", "task": ID, "metric": "p", "variant": "v"},
    ))  # fmt: skip
    assert [point.value for point in run.points] == [1.0]
    assert {flag: detail for (field, flag), detail in details(run).items() if field == "metrics"} == {
        "of_models_skipped": "2 events", "system_skipped": "1 events", "plots_skipped": "1 events",
    }  # fmt: skip


def test_a_scalar_without_an_iteration_gets_step_zero(tmp_path):
    run = one(
        session(tmp_path / "s", {k: v for k, v in scalar("a", "b", 1.0).items() if k != "iter"})
    )
    assert run.points[0].step == 0
    assert ("metrics.a/b", "step_missing") in flags(run)


def test_names_that_are_spelled_alike_are_one_metric_and_flagged(tmp_path):
    run = one(session(tmp_path / "s", scalar("a/b", "c", 1.0), scalar("a", "b/c", 2.0)))
    assert [point.metric for point in run.points] == ["a/b/c"] * 2
    assert {("metrics.a/b/c", "names_merged"), ("metrics.a/b/c", "duplicate_step")} <= flags(run)


def test_numbers_that_are_none_of_a_double_become_infinite(tmp_path):
    run = one(
        session(
            tmp_path / "s",
            scalar("a", "b", 10**400),
            scalar("a", "b", -(10**400), iter=1),
            scalar("a", "b", math.nan, iter=2),
        )
    )
    assert repr([point.value for point in run.points]) == "[inf, -inf, nan]"


# --- stores -----------------------------------------------------------------------------------------------------------


def test_a_session_is_read_alike_from_its_folder_and_from_its_zip_file(tmp_path):
    folder = session(
        tmp_path / ID,
        scalar("a", "b", 1.0),
        files={"data/f": b"1"},
        started="2024-01-01T00:00:00Z",
        status="failed",
    )
    path = packed(folder)
    with (
        ClearmlImporter().open(folder, experiment=None, artefacts=None) as one_way,
        ClearmlImporter().open(path, experiment=None, artefacts=None) as other,
    ):
        (first,), (second,) = one_way, other
        assert [(each.path, each.file.read_bytes()) for each in first.artefacts] == [
            (each.path, each.file.read_bytes()) for each in second.artefacts
        ]
    assert (first.points, first.fidelity, first.status) == (
        second.points,
        second.fidelity,
        second.status,
    )
    assert first.status == "failed"
    assert first.started == 1704067200000


def test_one_task_in_two_places_is_refused(tmp_path):
    session(tmp_path / "a")
    session(tmp_path / "b")
    assert "Move one of them" in refused(tmp_path, f"holds task '{ID}' twice: 'a' and 'b'").remedy


def test_projects_are_listed_with_the_largest_first(tmp_path):
    export(tmp_path / "a.json", id="a", project_name="one")
    export(tmp_path / "b.json", id="b", project_name="two")
    export(tmp_path / "c.json", id="c", project_name="two")
    export(tmp_path / "d.json", id="d", project_name=None)
    assert ClearmlImporter().experiments(tmp_path) == ("two", "one", "no project")
    assert [run.source.run_id for run in read(tmp_path, "two")] == ["b", "c"]


def test_files_of_something_else_are_left_alone(tmp_path):
    import zipfile

    session(tmp_path / "s", scalar("a", "b", 1.0))
    for name, text in {
        "a.json": "[1]",
        "b.json": '{"id": 1}',
        "c.json": '{"script": 1}',
        "d.txt": "x",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "folder").mkdir()
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as file:
        file.writestr("data.csv", "1")
    assert one(tmp_path).source.run_id == ID


def test_sessions_are_detected(tmp_path):
    importer = ClearmlImporter()
    assert importer.detect(SESSIONS) == (SESSIONS,)
    folder = SESSIONS / f"offline-{'2b' * 16}"
    assert importer.detect(folder) == (folder,)
    assert (
        importer.detect(EXPORTS)
        == importer.detect(FIXTURES)
        == importer.detect(tmp_path / "missing")
        == ()
    )
    (tmp_path / "offline-x.zip").write_bytes(b"PK")
    assert importer.detect(tmp_path) == ()


def test_what_holds_no_task_is_refused(tmp_path):
    assert "Task.export_task" in refused(tmp_path, "holds no task of ClearML").remedy
    refused(tmp_path / "missing", "holds no task of ClearML")
    (tmp_path / "x.txt").write_text("x")
    refused(tmp_path / "x.txt", "holds no task of ClearML")


def test_an_address_is_refused_with_what_to_give_instead():
    with pytest.raises(SourceError, match=r"'https://app\.clear\.ml'") as error:
        ClearmlImporter().experiments("https://app.clear.ml")
    assert "Task.export_task" in error.value.remedy


def test_reading_again_gives_the_same_and_changes_nothing(tmp_path):
    shutil.copytree(SESSIONS, tmp_path / "store")
    before = state(tmp_path)
    with ClearmlImporter().open(tmp_path / "store", experiment="toy", artefacts=None) as opened:
        first, second = list(opened), list(opened)
        assert repr(first) == repr(second)
        files = [each.file for run in first for each in run.artefacts if each.file]
        assert all(file.is_file() for file in files)
    assert [file for file in files if file.exists()] == [
        file for file in files if Path(tmp_path) in file.parents
    ]
    assert state(tmp_path) == before


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
