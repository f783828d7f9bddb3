"""Neptune's offline folders: the operations that the client reads in them, done as its server would have done them."""

from __future__ import annotations

import json
import shutil
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.errors import SourceError
from bundler.importers import find
from bundler.importers.model import ImportedRun
from bundler.importers.neptune import NeptuneImporter
from bundler.importers.neptune import attributes as neptune_attributes
from bundler.importers.neptune import copies as neptune_copies
from bundler.importers.neptune import logs as neptune_logs
from bundler.importers.neptune.attributes import whole_steps
from bundler.importers.values import Flags
from tests.unit.importers.support import flags, state, write

FUZZ = settings(deadline=None)

FIXTURES = Path(__file__).parents[2] / "fixtures" / "neptune"
STORE = FIXTURES / "offline"
EXPECTED = json.loads((FIXTURES / "expected_offline.json").read_text(encoding="utf-8"))[
    "operations"
]
FIRST = "00000000-0000-4000-8000-000000000001"
LOG = next((STORE / ".neptune" / "offline").glob(f"run__{FIRST}*/data-1.log")).read_bytes()
TIME = 1_760_000_000.0


def read(store: Path, artefacts: Path | None = None) -> dict[str, ImportedRun]:
    with NeptuneImporter().open(store, experiment=None, artefacts=artefacts) as session:
        runs = list(session)
        assert len(session) == len(runs)
    return {run.source.run_id: run for run in runs}


def the_run(store: Path, artefacts: Path | None = None) -> ImportedRun:
    (run,) = read(store, artefacts).values()
    return run


def refused(store: Path, match: str) -> SourceError:
    with pytest.raises(SourceError, match=match) as error:
        read(store)
    assert error.value.remedy
    assert (error.value.message + error.value.remedy).isprintable()
    return error.value


def operation(kind: str, path: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "path": path.split("/"), **more}


def floats(path: str, *values: tuple[float, Any, Any]) -> dict[str, Any]:
    named = [{"value": value, "step": step, "ts": time} for value, step, time in values]
    return operation("LogFloats", path, values=named)


def folder_of(store: Path, name: str = "run__00000000-aaaa__1__k") -> Path:
    return store / ".neptune" / "offline" / name


def log(store: Path, *operations: Any, **more: Any) -> Path:
    """A run with these operations; returns the store."""
    lines = [
        json.dumps({"obj": each, "version": number, "at": TIME + number})
        for number, each in enumerate(operations, start=1)
    ]
    write(folder_of(store, **more) / "data-1.log", "\n".join(lines) + "\n")
    return store


def as_left(operations: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Single values and series after the operations, computed another way."""
    values: dict[str, Any] = {}
    series: dict[str, list[Any]] = {}
    for each in operations:
        path = "/".join(each["path"])
        if each["type"].startswith("Assign"):
            values[path] = each["value"]
        elif each["type"] == "LogFloats":
            series.setdefault(path, []).extend(each["values"])
        elif each["type"] == "DeleteAttribute":
            values.pop(path)
    return values, series


@pytest.mark.parametrize("run", sorted(EXPECTED))
def test_values_are_those_that_the_client_reads(run):
    values, series = as_left(EXPECTED[run])
    found = read(STORE)[run]
    for path, value in values.items():
        if path.startswith("parameters/") and path != "parameters/begun":
            assert found.parameters[path[11:].replace("/", ".")] == value
            assert type(found.parameters[path[11:].replace("/", ".")]) is type(value)
    for path, expected in series.items():
        points = [point for point in found.points if point.metric == path]
        assert [point.value for point in points] == [each["value"] for each in expected]
        assert [point.timestamp for point in points] == [
            round(each["ts"] * 1000) for each in expected
        ]
    assert {point.metric for point in found.points} == {*series, "accuracy", "lr"}


def test_facts_of_a_run():
    run = read(STORE)[FIRST]
    assert (run.name, run.status, run.started, run.ended) == (
        "first",
        "finished",
        1760001000000,
        1760001005625,
    )
    assert run.code.entry_point == "train.py"
    assert (run.code.dirty, run.code.patch) == (True, "source_code/diff.patch")
    assert run.environment["python"].startswith("3.11")
    assert run.environment["packages.neptune"] == "1.14.0.post2"
    assert run.tags["sys.tags"] == '["tiny","äll"]'
    assert run.parameters["groups"] == '["b"]'
    assert [(each.name, each.source) for each in run.data] == [("dataset", "data.csv")]
    assert run.source.experiment == "offline"
    assert [each.status for each in read(STORE).values()] == ["finished", "failed", "finished"]


@pytest.fixture
def project(tmp_path):
    """The folder that the runs were started in, as it was called, with their files."""
    for name in ("model.bin", "data.csv", "train.py"):
        write(tmp_path / "project" / name, next(STORE.rglob(name)).read_bytes())
    return tmp_path / "project"


@pytest.mark.parametrize("above", [False, True])
def test_files_are_found_where_the_folder_is_now_and_flagged_as_moved(project, above):
    run = read(STORE, project.parent if above else project)[FIRST]
    files = {each.path: each.file for each in run.artefacts}
    assert set(files) == {
        "model.bin", "more/model.bin", "notes.txt", "source_code/diff.patch", "source_code/files/train.py"
    }  # fmt: skip
    assert files["model.bin"].read_bytes() == b"weights\n"
    assert b"training, changed" in files["source_code/diff.patch"].read_bytes()
    assert ("artefacts", "moved") in flags(run)


def test_fractions_of_steps_are_scaled_and_flagged():
    run = read(STORE)[FIRST]
    steps = [point.step for point in run.points if point.metric == "val/val_loss"]
    assert steps == [15, 25, 35, 45]
    (detail,) = [each.detail for each in run.fidelity if each.flag == "step_not_whole"]
    assert detail == "steps are multiplied by 10"


def test_what_the_client_drops_or_forgets_is_flagged():
    run = read(STORE)[FIRST]
    assert [point.step for point in run.points if point.metric == "train/train_loss"] == [
        0,
        1,
        3,
        4,
        5,
        6,
    ]
    assert {
        ("metrics", "not_finite_dropped"), ("metrics.no_step", "no_step"), ("metrics.accuracy", "single_value"),
        ("parameters.layers", "overwritten"), ("parameters.begun", "type_lost"), ("parameters.gone", "deleted"),
        ("parameters./lr", "renamed"), ("code", "not_recorded"), ("status", "killed_looks_finished"),
    } <= flags(run)  # fmt: skip


def test_runs_come_by_time_and_reading_twice_gives_the_same():
    before = state(STORE)
    with NeptuneImporter().open(STORE, experiment="offline", artefacts=None) as session:
        first, second = list(session), list(session)
    assert repr(first) == repr(second)
    assert [run.name for run in first] == ["first", "broken", "second"]
    assert state(STORE) == before
    with NeptuneImporter().open(STORE / ".neptune", experiment=None, artefacts=None) as session:
        assert repr([each.points for each in session]) == repr([each.points for each in first])


def test_detect_finds_offline_logs(tmp_path):
    importer = find("neptune")
    assert importer.detect(tmp_path) == importer.detect(tmp_path / "absent") == ()
    assert importer.detect(STORE) == (STORE / ".neptune",)
    assert importer.experiments(STORE) == ("offline",)


def test_logs_of_several_executions_are_one_run(tmp_path):
    log(tmp_path, operation("AssignInt", "parameters/a", value=1), name="run__00000000-aaaa/exec-1")
    log(tmp_path, operation("AssignInt", "parameters/b", value=2), name="run__00000000-aaaa/exec-2")
    log(tmp_path, operation("AssignInt", "c", value=3), name="project__00000000-bbbb__1__k")
    assert the_run(tmp_path).parameters == {"a": 1, "b": 2}


def test_a_copied_folder_of_a_run_is_refused_and_both_are_named(tmp_path):
    points = [floats("loss", (0.5, step, TIME + step)) for step in range(3)]
    log(tmp_path, *points, name="run__00000000-aaaa/exec-1")
    folder = folder_of(tmp_path, "run__00000000-aaaa")
    # Copied while the run went on: only the beginning is the same.
    log(tmp_path, *points[:2], floats("loss", (7, 9, TIME)), name="run__00000000-aaaa/copy")
    message = refused(tmp_path, "has as well").message
    assert str(folder / "exec-1") in message
    assert str(folder / "copy") in message


def test_operations_without_a_time_are_copies_only_if_they_log_points(tmp_path):
    same = [
        {"obj": operation("AssignBool", "sys/failed", value=False), "version": 1},
        {"obj": floats("loss", (0.5, 0, TIME)), "version": 2},
    ]
    for count in (1, 2):
        for name in ("exec-1", "exec-2"):
            text = "".join(json.dumps(each) + "\n" for each in same[:count])
            write(folder_of(tmp_path, "run__00000000-aaaa") / name / "data-1.log", text)
        if count == 1:
            assert the_run(tmp_path).tags == {"sys.failed": "False"}
    refused(tmp_path, "has as well")


def test_a_run_of_several_folders_is_bounded(tmp_path, monkeypatch):
    for name in ("exec-1", "exec-2"):
        each = operation("AssignInt", name, value=1)
        log(tmp_path, each, each, name=f"run__00000000-aaaa/{name}")
    monkeypatch.setattr(neptune_copies, "MAX_OPERATIONS", 3)
    refused(tmp_path, "more than 3 operations of one run")


def test_logs_that_overlap_are_refused_and_both_are_named(tmp_path):
    log(tmp_path, floats("a", (1, 0, TIME)), floats("a", (2, 1, TIME)))
    entry = {"obj": floats("a", (2, 1, TIME)), "version": 2, "at": TIME}
    write(folder_of(tmp_path) / "data-2.log", json.dumps(entry))
    message = refused(tmp_path, "operation 2 ").message
    assert "data-1.log" in message
    assert "data-2.log" in message


def test_bytes_that_are_no_text_become_escapes_and_are_flagged(tmp_path):
    log(tmp_path, operation("AssignString", "parameters/n", value="caf?"))
    place = folder_of(tmp_path) / "data-1.log"
    write(place, place.read_bytes().replace(b"?", b"\xe9"))
    write(folder_of(tmp_path) / "metadata.json", b'{"os": "\xff"}')
    run = the_run(tmp_path)
    assert run.parameters == {"n": "caf\\xe9"}
    assert run.environment == {"platform": "\\xff"}
    details = {each.detail for each in run.fidelity if each.flag == "not_utf8"}
    assert details == {
        f"data-1.log, byte {place.read_bytes().index(0xE9)}", "metadata.json, byte 8"
    }  # fmt: skip


def test_a_folder_of_any_name_is_a_run(tmp_path):
    log(tmp_path, operation("AssignInt", "a", value=1), name="#")
    assert list(read(tmp_path)) == ["#"]


def test_logs_follow_each_other_and_gaps_are_flagged(tmp_path):
    log(tmp_path, floats("a", (1, 0, TIME)), floats("a", (2, 1, TIME)))
    folder = folder_of(tmp_path)
    entry = {"obj": floats("a", (3, 2, TIME)), "version": 3, "at": TIME}
    write(folder / "data-3.log", json.dumps(entry))
    assert ("run", "operations_missing") not in flags(the_run(tmp_path))
    assert [point.value for point in the_run(tmp_path).points] == [1, 2, 3]
    write(folder / "last_put_version", "5")
    details = {
        each.detail for each in the_run(tmp_path).fidelity if each.flag == "operations_missing"
    }
    assert details == {"4 to 5"}
    write(folder / "data-1.log", "")
    assert ("run", "operations_missing") in flags(the_run(tmp_path))


def test_a_log_that_is_cut_is_flagged_with_its_place(tmp_path):
    write(folder_of(tmp_path) / "data-1.log", LOG[:-9])
    (detail,) = [
        each.detail for each in the_run(tmp_path).fidelity if each.flag == "truncated_file"
    ]
    assert detail == f"data-1.log is cut at character {LOG.decode().rstrip().rindex(chr(10)) + 1}"


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"junk" + LOG, "character 0: JSONDecodeError"),
        (
            LOG.replace(b'{"obj"', b'("obj"', 3).replace(b'("obj"', b'{"obj"', 2),
            "character [0-9]+: JSON",
        ),
        (b"[1]", "character 0: no object"),
        (b'{"obj": 5, "version": 1}', "character 0: no operation"),
        (b'{"obj": {}, "version": "1"}', "character 0: no operation"),
        (b'{"version": 1}', "character 0: no operation"),
        (b'{"obj": ' + b"[" * 100_000 + b'{"obj":', "character 0: RecursionError"),
    ],
)
def test_a_damaged_log_is_refused_with_its_place(tmp_path, data, match):
    write(folder_of(tmp_path) / "data-1.log", data)
    refused(tmp_path, f"data-1.log', {match}")


def test_a_folder_that_went_away_is_an_error_of_the_source(tmp_path):
    with pytest.raises(SourceError, match="cannot be read"):
        list(neptune_logs.operations(tmp_path / "gone", Flags()))


def test_a_cut_log_that_others_follow_is_refused(tmp_path):
    write(folder_of(tmp_path) / "data-1.log", LOG[:-9])
    write(folder_of(tmp_path) / "data-99.log", b"")
    refused(tmp_path, "data-1.log'")


@pytest.mark.parametrize(
    ("kind", "value", "flag"),
    [
        ("AssignFloat", 1, None),
        ("AssignFloat", 10**400, "unreadable"),
        ("AssignFloat", "1", "unreadable"),
        ("AssignFloat", True, "unreadable"),
        ("AssignInt", True, "unreadable"),
        ("AssignInt", 1.5, "unreadable"),
        ("AssignBool", 1, "unreadable"),
        ("AssignString", None, "unreadable"),
        ("AssignDatetime", 10**18, "none"),
        ("AssignDatetime", 10**14, "type_lost"),
        ("AssignDatetime", 253402300800000000, "none"),
    ],
)
def test_values_of_another_type_are_flagged(tmp_path, kind, value, flag):
    run = the_run(log(tmp_path, operation(kind, "parameters/x", value=value)))
    if flag in {None, "type_lost"}:
        assert run.parameters in ({"x": 1.0}, {"x": "5138-11-16T09:46:40+00:00"})
    else:
        assert run.parameters == {}
        assert flag == "none" or ("parameters.x", flag) in flags(run)


def test_a_time_beyond_all_calendars_is_a_number(tmp_path):
    run = the_run(log(tmp_path, operation("AssignDatetime", "x", value=9007199254740991)))
    assert run.parameters == {"x": "9007199254740991"}


def test_what_is_no_operation_is_counted(tmp_path):
    odd = [{}, {"type": "AssignInt"}, {"type": "AssignInt", "path": "a"}, {"type": "AssignInt", "path": [1]},
           operation("Invented", "a"), operation("CopyAttribute", "a"), operation("ConfigFloatSeries", "a")]  # fmt: skip
    many = [operation(f"Invented{number}", "a") for number in range(200)]
    run = the_run(log(tmp_path, *odd, *many))
    details = [each.detail for each in run.fidelity if each.flag == "unknown_operation"]
    assert len(details) == 101
    assert "3 times 'AssignInt'" in details


@pytest.mark.parametrize(
    ("value", "step", "time", "flag"),
    [
        ("1", 0, TIME, ("run", "unknown_operation")),
        (10**400, 0, TIME, ("run", "unknown_operation")),
        (1, "0", TIME, ("metrics.a", "step_lost")),
        (1, True, TIME, ("metrics.a", "step_lost")),
        (1, 1e300, TIME, ("metrics.a", "step_lost")),
        (1, float("nan"), TIME, ("metrics.a", "step_lost")),
        (1, 0, None, ("metrics.a", "no_time")),
        (1, 0, 1e300, ("metrics.a", "no_time")),
        (1, 0, float("inf"), ("metrics.a", "no_time")),
        (1, 0, 10**400, ("metrics.a", "no_time")),
        (1, None, TIME, ("metrics.a", "no_step")),
    ],
)
def test_points_that_lack_something_are_flagged(tmp_path, value, step, time, flag):
    run = the_run(log(tmp_path, floats("a", (value, step, time))))
    assert flag in flags(run)
    assert len(run.points) == (flag[0] != "run")


def test_sets_series_and_attributes_can_be_emptied(tmp_path):
    run = the_run(
        log(
            tmp_path,
            operation("AddStrings", "sys/tags", values=["a", "b", 5]),
            operation("RemoveStrings", "sys/tags", values=["a"]),
            operation("AddStrings", "gone", values=["a"]),
            operation("ClearStringSet", "gone"),
            operation("AddStrings", "odd", values=None),
            floats("loss", (1, 0, TIME), (2, 1, TIME)),
            operation("ClearFloatLog", "loss"),
            operation("ClearFloatLog", "never"),
            floats("loss", (3, 0, TIME)),
            floats("deleted", (3, 0, TIME)),
            operation("DeleteAttribute", "deleted"),
            operation("DeleteAttribute", "never"),
        )
    )
    assert run.tags == {"sys.tags": '["b"]'}
    assert run.parameters == {"odd": "[]"}
    assert [point.value for point in run.points] == [3]
    assert {("metrics.loss", "cleared"), ("metrics.deleted", "cleared")} <= flags(run)


def test_data_files_and_their_digest(tmp_path):
    run = the_run(
        log(
            tmp_path,
            operation("AssignArtifact", "data/train", hash="ab" * 32),
            operation("AssignArtifact", "data/odd", hash=5),
            operation(
                "TrackFilesToArtifact", "data/test", entries=[["s3://bucket/x", None], [], 5, [7]]
            ),
            operation("TrackFilesToArtifact", "data/none", entries=None),
        )
    )
    assert [(each.name, each.source, each.tracker_digest) for each in run.data] == [
        ("data/odd", None, None),
        ("data/test", "s3://bucket/x", None),
        ("data/train", None, "neptune:" + "ab" * 32),
    ]


def test_images_and_texts_are_counted_and_monitoring_is_noise(tmp_path):
    run = the_run(
        log(
            tmp_path,
            operation("LogImages", "images", values=[{"value": {}, "ts": 1}]),
            operation("LogStrings", "text", values=[{"value": "a", "ts": 1}]),
            floats("monitoring/0/cpu", (1, 0, TIME)),
            operation("AssignString", "monitoring/0/hostname", value="host"),
            operation("AssignString", "sys/hostname", value="host"),
            operation("AssignString", "sys/owner", value="somebody"),
            operation("AssignString", "sys/state", value="Active"),
            operation("AssignBool", "sys/failed", value=False),
            operation("AssignBool", "sys/trashed", value=True),
        )
    )
    assert len([each for each in run.fidelity if each.flag == "skipped"]) == 3
    assert (run.points, run.parameters, run.status, run.deleted) == ((), {}, "running", True)
    assert run.environment == {"host": "host", "user": "somebody"}


def upload(**more: Any) -> dict[str, Any]:
    return operation("UploadFile", "model", ext="bin", **more)


def test_files_elsewhere_are_not_read(tmp_path):
    secret = write(tmp_path / "secret", "not yours")
    store = tmp_path / "store"
    (store / ".neptune").mkdir(parents=True)
    (store / "linked").symlink_to(tmp_path)
    for named in (
        upload(file_path=str(secret)),
        upload(file_path=f"{store}/../secret"),
        upload(file_path=f"{store}/linked/secret"),
        upload(tmp_file_name="../../../../secret"),
        upload(tmp_file_name=str(secret)),
        upload(tmp_file_name="a\0b"),
        upload(file_path="/x/\0"),
        upload(file_path="/" + "x" * 5000),
        upload(file_path="C:\\secret"),
        upload(file_path=5),
        upload(),
        operation("UploadFileSet", "model", file_globs=[str(tmp_path / "sec*")]),
        operation("UploadFileSet", "model", file_globs=[f"{store}/../sec*"]),
        operation("UploadFileSet", "model", file_globs=[f"{store}/linked/sec*"]),
        operation("UploadFileContent", "model", ext="bin", file_content="AAAA"),
    ):
        for artefacts in (None, store):
            run = the_run(log(store, named), artefacts)
            assert [each.file for each in run.artefacts] == [None]
            assert ("artefacts", "missing") in flags(run)


@pytest.mark.parametrize("linked", ["upload_path", "upload_path/secret"])
def test_a_link_in_the_place_of_a_copied_file_is_flagged_and_gives_nothing(tmp_path, linked):
    secret = write(tmp_path / "elsewhere" / "secret", "not yours")
    patch = operation("UploadFile", "source_code/diff", ext="patch", tmp_file_name="secret")
    store = log(tmp_path / "store", patch)
    link = folder_of(store) / linked
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(secret.parent if linked == "upload_path" else secret)
    for place in (store, store / ".neptune", folder_of(store)):
        run = the_run(place)
        assert [each.file for each in run.artefacts] == [None]
        assert (run.code.patch, run.code.dirty) == (None, None)
        assert {("artefacts", "symlink_skipped"), ("artefacts", "missing")} <= flags(run)


def test_a_link_on_the_way_to_a_file_is_flagged_and_not_followed(tmp_path):
    write(tmp_path / "elsewhere" / "model.bin", "not yours")
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "out").symlink_to(tmp_path / "elsewhere")
    store = log(tmp_path / "store", upload(file_path="/train/out/model.bin"))
    run = the_run(store, tmp_path / "given")
    assert [each.file for each in run.artefacts] == [None]
    assert ("artefacts", "symlink_skipped") in flags(run)


@pytest.mark.parametrize(
    "named",
    [
        operation("UploadFile", "model", ext="", file_path="/x/y/key.pem"),
        operation("UploadFile", "model", ext="", file_path="/key.pem"),
        operation("UploadFileSet", "model", file_globs=["/train/old/key.pem"]),
        operation("UploadFileSet", "model", file_globs=["/home/somebody/old/out/*"]),
        operation("UploadFileSet", "model", file_globs=["/*", "*"]),
        operation("UploadFileSet", "model", file_globs=["/train/old"]),
    ],
)
def test_files_that_only_have_the_name_are_not_the_runs_files(tmp_path, named):
    store = tmp_path / "store"
    for place in (store, store / "old", store / ".neptune", tmp_path / "given"):
        write(place / "key.pem", "not yours")
    log(store, named)
    for artefacts in (None, tmp_path / "given"):
        run = the_run(store, artefacts)
        assert {each.file for each in run.artefacts} == {None}
        assert ("artefacts", "missing") in flags(run)


def test_files_beside_the_store_are_taken_only_where_their_folder_is_given(tmp_path):
    store = tmp_path / "project"
    write(store / "model.bin", "weights")
    log(store, upload(file_path=str(store / "model.bin")))
    for place in (store, store / ".neptune", folder_of(store)):
        assert [each.file for each in the_run(place).artefacts] == [None]
        assert [each.file for each in the_run(place, store).artefacts] == [store / "model.bin"]


def test_files_are_found_in_the_place_that_is_given(tmp_path):
    write(tmp_path / "train" / "out" / "model.bin", "weights")
    write(tmp_path / "train" / "out" / "deep" / "more.bin", "weights")
    named = [
        upload(file_path="D:\\train\\out\\model.bin"),
        operation("UploadFileSet", "folder", file_globs=["/train/out", "/train/out/*.bin"]),
    ]
    run = the_run(log(tmp_path / "store", *named), tmp_path / "train")
    assert [(each.path, each.file is not None) for each in run.artefacts] == [
        ("folder/model.bin", True),
        ("folder/out/deep/more.bin", True),
        ("folder/out/model.bin", True),
        ("model.bin", True),
    ]


def test_a_file_where_it_was_is_not_flagged_as_moved(tmp_path):
    write(tmp_path / "out" / "model.bin", "weights")
    log(tmp_path, upload(file_path=str(tmp_path / "out" / "model.bin")))
    run = the_run(tmp_path, tmp_path / "out")
    assert run.artefacts[0].file == tmp_path / "out" / "model.bin"
    assert ("artefacts", "moved") not in flags(run)


def test_an_empty_patch_is_no_change(tmp_path):
    folder = folder_of(tmp_path)
    write(folder / "upload_path" / "p", "")
    patch = operation("UploadFile", "source_code/diff", ext="patch", tmp_file_name="p")
    run = the_run(log(tmp_path, patch))
    assert (run.code.dirty, run.code.patch) == (None, None)
    write(folder / "upload_path" / "p", "+")
    assert the_run(tmp_path).code.patch == "source_code/diff.patch"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("{", "00000000-aaaa"),
        ("[]", "00000000-aaaa"),
        ("[" * 100_000, "00000000-aaaa"),
        ('{"containerType": "run", "containerId": "other", "createdAt": "yesterday"}', "other"),
        ('{"containerType": 5, "createdAt": "9999-12-31T23:59:59-12:00"}', "00000000-aaaa"),
    ],
)
def test_metadata_that_say_nothing_are_none(tmp_path, text, name):
    log(tmp_path, operation("AssignInt", "a", value=1))
    write(folder_of(tmp_path) / "metadata.json", text)
    assert list(read(tmp_path)) == [name]


def test_bounds_hold(tmp_path, monkeypatch):
    log(
        tmp_path,
        floats("a", *[(1, 0, TIME)] * 9),
        operation("AddStrings", "s", values=["a", "b", "c"]),
    )
    monkeypatch.setattr(neptune_attributes, "MAX_POINTS", 8)
    refused(tmp_path, "more than 8 metric points")
    monkeypatch.setattr(neptune_attributes, "MAX_POINTS", 9)
    monkeypatch.setattr(neptune_attributes, "MAX_VALUES", 2)
    refused(tmp_path, "more than 2 members")
    monkeypatch.setattr(neptune_attributes, "MAX_TEXT", 2)
    refused(tmp_path, "more than 2 characters")
    monkeypatch.setattr(neptune_logs, "MAX_LOG", 9)
    refused(tmp_path, "more than 9 bytes")


@pytest.mark.parametrize("store", ["absent", "empty"])
def test_what_holds_no_run_is_refused(tmp_path, store):
    (tmp_path / "empty").mkdir()
    assert ".neptune" in refused(tmp_path / store, "no ").remedy


def test_a_store_with_logs_and_an_export_is_refused(tmp_path):
    shutil.copytree(STORE, tmp_path / "a")
    shutil.copytree(FIXTURES / "export_synthetic", tmp_path / "b")
    pytest.importorskip("pyarrow")
    refused(tmp_path, "holds an export and offline logs")


@FUZZ
@given(st.lists(st.none() | st.decimals(-(10**12), 10**12, places=6), max_size=9))
def test_steps_keep_their_order_and_their_differences(steps):
    flags = Flags()
    whole = whole_steps("a", steps, flags)
    kinds = {each.flag for each in flags.all()}
    assert all(isinstance(each, int) and abs(each) < 2**53 for each in whole)
    given_ = [(step, found) for step, found in zip(steps, whole, strict=True) if step is not None]
    for (step, found), (other, other_found) in pairwise(given_):
        assert (step < other, step == other) == (found < other_found, found == other_found)
    if not kinds & {"step_not_whole", "step_replaced"}:
        assert all(step == found for step, found in given_)
    assert ("no_step" in kinds) == (None in steps)


def test_steps_of_every_kind():
    assert whole_steps("a", [Decimal("1.000000"), None, Decimal("1E+2")], Flags()) == [1, 2, 100]
    assert whole_steps("a", [Decimal("0.25"), Decimal(3)], Flags()) == [25, 300]
    assert whole_steps("a", [Decimal("1e12"), Decimal("0.000001")], Flags()) == [1, 0]


@FUZZ
@given(st.integers(0, len(LOG)), st.integers(0, 20), st.binary(max_size=20))
def test_a_changed_log_gives_a_run_or_a_source_error(tmp_path_factory, place, gone, junk):
    folder = tmp_path_factory.mktemp("changed")
    write(folder_of(folder) / "data-1.log", LOG[:place] + junk + LOG[place + gone :])
    survives(folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4)
    ),
    max_leaves=8,
)
KINDS = sorted(
    {each["type"] for each in EXPECTED[FIRST]} | {"LogImages", "ClearFloatLog", "UploadFileContent"}
)


@FUZZ
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(KINDS),
                "path": JSON | st.lists(st.text(st.characters()), min_size=1),
            },
            optional=dict.fromkeys(
                (
                    "value",
                    "values",
                    "entries",
                    "file_globs",
                    "file_path",
                    "tmp_file_name",
                    "ext",
                    "hash",
                ),
                JSON,
            ),
        ),
        max_size=6,
    )
)
def test_any_operations_give_a_run_or_a_source_error(tmp_path_factory, operations):
    survives(log(tmp_path_factory.mktemp("any"), *operations))


def survives(folder: Path) -> None:
    try:
        texts = [repr(run) for run in read(folder).values()]
    except SourceError as error:
        texts = [error.message, error.remedy]
    for text in texts:
        text.encode()
