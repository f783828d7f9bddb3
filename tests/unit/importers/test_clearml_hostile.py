"""Sessions and exports that are broken or made to mislead: a SourceError that says where and what to do, or a flag."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler.errors import SourceError
from bundler.importers.clearml import ClearmlImporter
from bundler.importers.clearml import metrics as clearml_metrics
from bundler.importers.clearml import store as clearml_store
from tests.unit.importers.clearml_support import (
    ID,
    SESSIONS,
    details,
    export,
    flags,
    lines,
    one,
    packed,
    refused,
    scalar,
    session,
    task,
)

# --- scalars ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        (scalar("a", "b", "1"), "'a/b' with the value '1'"),
        (scalar("a", "b", True), "'a/b' with the value True"),
        (scalar("a", "b", None), "'a/b' with the value None"),
        (scalar("a", "b", 1.0, timestamp=None), "'a/b' without a time"),
        (scalar("a", "b", 1.0, timestamp=2**60), "'a/b' without a time"),
        (scalar("a", "b", 1.0, iter="3"), "'a/b' with iteration '3'"),
        (scalar("a", "b", 1.0, iter=1.5), "'a/b' with iteration 1.5"),
        (scalar("a", "b", 1.0, iter=2**53), "'a/b' with iteration 9007199254740992"),
        (scalar("a", 1, 1.0), "a scalar without a title and a series"),
        ("text", "an event is no object"),
    ],
    ids=range(10),
)
def test_an_event_of_the_wrong_shape_is_refused_by_line(tmp_path, event, problem):
    text = lines([scalar("a", "b", 1.0)], [event], [])
    refused(session(tmp_path / "s", metrics=text), rf"'metrics\.jsonl': line 2: {problem}")


@pytest.mark.parametrize(
    "line", [b"{}", b"7", b"[", b"", b"\xff", b'[{"a": 1, "a": 2}]', b"[1e999]", b"[" * 100_000]
)
def test_a_line_that_is_no_list_is_refused_by_number(tmp_path, line):
    refused(
        session(tmp_path / "s", metrics=b"[]\n" + line + b"\n[]\n"), r"'metrics\.jsonl': line 2: "
    )


def test_a_last_line_that_is_cut_is_flagged_and_the_rest_is_there(tmp_path):
    whole = lines([scalar("a", "b", 1.0)])
    for cut in range(1, len(whole) - 1, 7):
        run = one(session(tmp_path / "s", metrics=whole + whole[:cut]))
        assert len(run.points) == 1
        assert details(run)["run", "truncated"] == "metrics.jsonl, line 2 is cut"


def test_a_log_that_is_cut_is_flagged_too(tmp_path):
    run = one(
        session(
            tmp_path / "s", scalar("a", "b", 1.0), files={"log.jsonl": b'[{"timestamp": 1}]\n[{'}
        )
    )
    assert details(run)["run", "truncated"] == "log.jsonl, line 2 is cut"
    assert (run.started, run.ended) == (1, 1000)


def test_a_session_without_any_event_has_no_time(tmp_path):
    run = one(session(tmp_path / "s", files={"log.jsonl": b"[]\n"}))
    assert (run.started, run.ended) == (None, None)
    assert ("run", "time_derived") not in flags(run)


def test_a_line_that_is_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(clearml_store, "MAX_LINE", 100)
    refused(
        session(tmp_path / "s", metrics=b" " * 200),
        r"'metrics\.jsonl': line 1 has more than 100 bytes",
    )


def test_too_many_points_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(clearml_metrics, "MAX_POINTS", 2)
    refused(
        session(tmp_path / "s", *[scalar("a", "b", 1.0)] * 3),
        "line 1: more than 2 points in one task",
    )


def test_a_file_of_events_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(clearml_store, "MAX_EVENTS", 10)
    refused(session(tmp_path / "s", scalar("a", "b", 1.0)), "holds more than 10 bytes")


# --- tasks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"id": 7}, r"does not name its task \(id\)"),
        ({"id": ""}, r"does not name its task \(id\)"),
        ({"hyperparams": [1]}, "hyperparams is no object"),
        ({"hyperparams": {"G": 1}}, "section 'G' is no object"),
        ({"hyperparams": {"G": {"a": 1}}}, "parameter 'a' is no object"),
        ({"hyperparams": {"Datasets": {"a": 1}}}, "parameter 'a' is no object"),
        ({"configuration": {"a": 1}}, "configuration 'a' is no object"),
        ({"execution": 1}, "execution is no object"),
        ({"execution": {"parameters": 1}}, "parameters is no object"),
        ({"execution": {"artifacts": {"a": 1}}}, "artifacts is no list"),
        ({"execution": {"artifacts": [1]}}, "an artefact is no object"),
        ({"script": 1}, "script is no object"),
        ({"script": {"requirements": 1}}, "requirements is no object"),
        ({"container": 1}, "container is no object"),
        ({"runtime": 1}, "runtime is no object"),
        ({"tags": 1}, "tags is no list"),
        ({"models": 1}, "models is no object"),
        ({"models": {"input": [1]}}, "an input model is no object"),
        ({"models": {"output": [1]}}, "an output model is no object"),
        ({"offline_output_models": [1]}, "an output model is no object"),
    ],
)
def test_a_task_of_the_wrong_shape_is_refused(tmp_path, more, problem):
    refused(session(tmp_path / "s", **more), rf"'task\.json': {problem}")
    if "offline_output_models" not in more:
        refused(export(tmp_path / "a.json", **more), rf"a\.json': {problem}")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"id": "a", "id": "b"}', "1e999", "[" * 100_000])
def test_a_task_that_is_none_is_refused(tmp_path, text):
    folder = session(tmp_path / "s")
    (folder / "task.json").write_text(text)
    refused(folder, r"'task\.json': ")


@pytest.mark.parametrize("text", ["", "{", "\x00"])
def test_an_export_that_cannot_be_read_is_not_left_out(tmp_path, text):
    export(tmp_path / "a.json")
    (tmp_path / "b.json").write_text(text)
    refused(tmp_path, r"b\.json': no JSON at character 0|b\.json': no JSON at character 1")


def test_a_task_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(clearml_store, "MAX_TASK", 50)
    refused(session(tmp_path / "s"), "holds more than 50 bytes")
    refused(export(tmp_path / "a.json", comment="x" * 50), "holds more than 50 bytes")


def test_values_of_other_kinds_do_no_harm(tmp_path):
    run = one(export(
        tmp_path / "a.json", name=["x"], project_name=7, status=[1], started=1, completed="x" * 5000, comment={"a": 1}, user=5,
        script={"diff": 1, "repository": 2, "requirements": {"pip": 3}}, system_tags="archived",
        runtime={"gpu_type": None, "OS": ["x"], "python_version": None}, container={"image": " "},
    ))  # fmt: skip
    assert (run.name, run.source.experiment, run.status, run.started, run.ended, run.deleted) == (
        "['x']",
        "7",
        "unknown",
        None,
        None,
        False,
    )
    assert dict(run.environment) == {"gpu.0.model": "", "platform": '["x"]', "python": None}


def test_half_a_character_becomes_text_that_can_be_written(tmp_path):
    bad = "\ud800"
    run = one(session(
        tmp_path / "s", scalar(bad, bad, 1.0), name=bad, project_name=bad, tags=[bad], comment=bad, runtime={bad: bad, "OS": bad},
        hyperparams={bad: {bad: {"value": bad, "type": bad}}, "Datasets": {bad: {"value": bad}}},
        script={"diff": bad, "repository": bad, "entry_point": bad, "working_dir": bad, "requirements": {"pip": f"a=={bad}"}},
        execution={"artifacts": [{"key": bad, "uri": f"s3://{bad}/{bad}"}]}, models={"input": [{"name": bad, "model": bad}]},
    ))  # fmt: skip
    repr(run).encode()
    parts = [
        dict(run.parameters),
        dict(run.tags),
        dict(run.environment),
        run.name,
        run.code.repository,
        run.code.entry_point,
    ]
    parts += [flag.field + flag.flag + flag.detail for flag in run.fidelity]
    parts += [each.path for each in run.artefacts] + [point.metric for point in run.points]
    parts += [run.source.experiment, *[each.name + each.version for each in run.data]]
    json.dumps(parts, ensure_ascii=False).encode()


# --- files and folders ------------------------------------------------------------------------------------------------


def test_a_link_to_a_session_is_refused(tmp_path):
    session(tmp_path / "elsewhere")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / ID).symlink_to(tmp_path / "elsewhere")
    assert "Replace it by a copy" in refused(tmp_path / "store", "is a link").remedy


def test_a_session_whose_task_is_a_link_is_refused(tmp_path):
    folder = session(tmp_path / "store" / "a")
    (folder / "task.json").rename(tmp_path / "task.json")
    (folder / "task.json").symlink_to(tmp_path / "task.json")
    refused(folder, r"task\.json' is a link")
    refused(tmp_path / "store", r"task\.json' is a link")


def test_one_damaged_zip_file_is_not_left_out(tmp_path):
    session(tmp_path / "s")
    (tmp_path / "other.zip").write_bytes(b"PK\x03\x04 damaged")
    assert "other.zip" in refused(tmp_path, "cannot be read as a zip file").message


def test_too_many_tasks_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(clearml_store, "MAX_TASKS", 1)
    export(tmp_path / "a.json")
    export(tmp_path / "b.json")
    refused(tmp_path, "holds more than 1 tasks")


def test_a_path_with_nul_holds_nothing():
    refused(Path("a\0b"), "holds no task")


def test_an_error_of_the_system_names_the_store(tmp_path, monkeypatch):
    session(tmp_path / "s")

    def denied(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    refused(tmp_path, "cannot be read: Permission denied")
    assert ClearmlImporter().detect(tmp_path) == ()


def test_a_file_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    path = export(tmp_path / "a.json")
    whole = Path.open

    def broken(self, *arguments, **more):
        if self == path:
            raise OSError(5, "Input/output error")
        return whole(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", broken)
    refused(path, "cannot be read: Input/output error")


def test_an_artefact_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    said = {"key": "a", "uri": f"/fixture/{ID}/data/a", "hash": "0" * 64}
    folder = session(tmp_path / "s", execution={"artifacts": [said]}, files={"data/a": b"1"})
    whole = Path.open

    def broken(self, *arguments, **more):
        if self.name == "a":
            raise OSError(5, "Input/output error")
        return whole(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", broken)
    refused(folder, "cannot be read: Input/output error")


def test_a_disk_that_is_full_is_not_the_fault_of_the_store(tmp_path, monkeypatch):
    folder = session(tmp_path / "s", script={"diff": "+1", "repository": "r"})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "TMPDIR" in refused(folder, "temporary folder: No space left").remedy


def test_a_temporary_folder_that_is_not_there_is_not_the_fault_of_the_store(tmp_path, monkeypatch):
    session(tmp_path / "s")
    export(tmp_path / "a.json")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    for store in (tmp_path / "s", tmp_path / "a.json"):
        assert "TMPDIR" in refused(store, "temporary folder: No such file").remedy


# --- what is lost, and what is there twice ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("offline-b", None),
        ("offline-b", "metrics.jsonl"),
        ("b", "metrics.jsonl"),
        ("b", "log.jsonl"),
    ],
)
def test_a_session_without_its_task_does_not_vanish(tmp_path, name, inside):
    session(tmp_path / ID)
    (tmp_path / name).mkdir()
    if inside:
        (tmp_path / name / inside).write_bytes(b"")
    refused(tmp_path, rf"{name}', 'task\.json': is missing")
    assert ClearmlImporter().detect(tmp_path) == (tmp_path,)
    (tmp_path / name).rename(tmp_path.parent / f"{tmp_path.name}-{name}")
    with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as file:
        file.writestr(inside or "x", b"")
    refused(tmp_path, rf"{name}\.zip', 'task\.json': is missing")


def test_folders_of_another_tracker_and_of_several_sessions_are_no_lost_session(tmp_path):
    store = tmp_path / "offline-all"
    session(store / ID)
    (store / "offline-run-20240101_000000-abcdefgh").mkdir()
    (store / "metrics.jsonl").write_bytes(b"")
    assert one(store).source.run_id == ID
    assert ClearmlImporter().detect(store) == (store,)


def test_a_session_that_was_cut_after_a_zip_file_in_it_does_not_vanish(tmp_path):
    session(tmp_path / "s")
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as file:
        file.writestr("weights", b"w")
    inner = (tmp_path / "inner.zip").read_bytes()
    (tmp_path / "inner.zip").unlink()
    with zipfile.ZipFile(tmp_path / "offline-b.zip", "w") as file:
        file.writestr("task.json", json.dumps(task(id="b")))
        file.writestr("model.zip", inner)
        file.writestr("more", b"x" * 500)
    data = (tmp_path / "offline-b.zip").read_bytes()
    for more in (0, 200):
        end = data.index(inner) + len(inner) + more
        (tmp_path / "offline-b.zip").write_bytes(data[:end])
        refused(tmp_path, r"offline-b\.zip' cannot be read as a zip file")


def test_a_zip_file_with_what_its_folder_has_is_no_difference(tmp_path):
    packed(session(tmp_path / ID, scalar("a", "b", 1.0)))
    assert ("run", "copies_differ") not in flags(one(tmp_path))


@pytest.mark.parametrize("before", [None, lines([scalar("a", "b", 1.0)])])
def test_a_zip_file_that_was_made_too_early_is_flagged(tmp_path, before):
    packed(session(tmp_path / ID, metrics=before))
    more = lines([scalar("a", "b", 2.0)])
    run = one(session(tmp_path / ID, metrics=(before or b"") + more, status="failed").parent)
    assert len(run.points) == 1 + (before is not None)
    assert {each.detail for each in run.fidelity if each.flag == "copies_differ"} == {
        f"metrics.jsonl: the zip file lacks the last {len(more)} bytes",
        "task.json: failed, and unknown in the zip file",
    }


@pytest.mark.parametrize(
    ("folder", "archive", "problem"),
    [
        (scalar("a", "b", 0.5), scalar("a", "b", 9.9), "does not go on from that of the zip file"),
        (None, scalar("a", "b", 9.9), "does not go on from that of the zip file"),
    ],
)
def test_copies_with_other_metrics_are_refused(tmp_path, folder, archive, problem):
    packed(session(tmp_path / ID, archive))
    session(tmp_path / ID, metrics=lines([folder]) if folder else b"")
    assert "which of the two" in refused(tmp_path, f"contradict each other: .*{problem}").remedy


def test_copies_that_both_know_how_the_task_ended_are_refused_where_they_differ(tmp_path):
    packed(session(tmp_path / ID, status="failed"))
    session(tmp_path / ID, status="completed")
    refused(tmp_path, "the task is finished, and failed in the zip file")


# --- whatever the bytes are -------------------------------------------------------------------------------------------

FUZZ = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
WHOLE = SESSIONS / f"offline-{'4d' * 16}.zip"
with zipfile.ZipFile(WHOLE) as _file:
    TEXTS = {name: _file.read(name) for name in ("task.json", "metrics.jsonl", "log.jsonl")}


def survives(store: Path) -> None:
    """Reading gives runs or a :class:`SourceError` in text that can be written, and nothing else."""
    importer = ClearmlImporter()
    importer.detect(store.parent)
    try:
        with importer.open(store, experiment=None, artefacts=None) as opened:
            texts = [repr(run) for run in opened]
    except SourceError as error:
        texts = [error.message, error.remedy]
    for text in texts:
        text.encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = [
    *task(), "hyperparams", "configuration", "execution", "models", "offline_output_models", "tags", "system_tags", "status",
    "started", "completed", "runtime", "container", "comment", "user", "project",
]  # fmt: skip


@FUZZ
@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=5))
def test_tasks_of_any_shape_give_a_run_or_a_source_error(tmp_path, more):
    survives(session(tmp_path / "s", scalar("a", "b", 1.0), **more))
    survives(export(tmp_path / "a.json", **more))


@FUZZ
@given(
    st.dictionaries(
        st.sampled_from(["key", "uri", "hash", "diff", "pip", "artifacts", "requirements"]),
        JSON,
        max_size=4,
    )
)
def test_parts_of_any_shape_give_a_run_or_a_source_error(tmp_path, said):
    parts = {
        "execution": {"artifacts": [said]},
        "script": said,
        "models": {"output": [said]},
        "runtime": said,
    }
    survives(
        session(tmp_path / "s", **parts, offline_output_models=[{"init": said, "weights": said}])
    )


@FUZZ
@given(
    st.lists(
        st.dictionaries(st.sampled_from(list(scalar("a", "b", 1.0))), JSON, max_size=4), max_size=4
    )
)
def test_events_of_any_shape_give_a_run_or_a_source_error(tmp_path, changes):
    survives(session(tmp_path / "s", *[{**scalar("a", "b", 1.0), **change} for change in changes]))


@FUZZ
@given(
    st.sampled_from(list(TEXTS)),
    st.lists(
        st.tuples(st.integers(0, 1000), st.binary(min_size=1, max_size=3)), min_size=1, max_size=4
    ),
)
def test_changed_texts_give_a_run_or_a_source_error(tmp_path, name, changes):
    folder = tmp_path / "s"
    folder.mkdir(exist_ok=True)
    for each, text in TEXTS.items():
        data = bytearray(text)
        for place, value in changes if each == name else []:
            data[place : place + len(value)] = value
        (folder / each).write_bytes(data)
    survives(folder)


@FUZZ
@given(
    st.lists(
        st.tuples(st.integers(0, WHOLE.stat().st_size - 1), st.integers(0, 255)),
        min_size=1,
        max_size=4,
    )
)
def test_a_changed_zip_file_gives_a_run_or_a_source_error(tmp_path, changes):
    data = bytearray(WHOLE.read_bytes())
    for place, value in changes:
        data[place] = value
    path = tmp_path / "offline-x.zip"
    path.write_bytes(data)
    survives(path)


@FUZZ
@given(st.binary(max_size=200))
def test_random_bytes_give_a_run_or_a_source_error(tmp_path, data):
    for name in ("a.json", "a.zip"):
        (tmp_path / name).write_bytes(data)
        survives(tmp_path / name)
    survives(session(tmp_path / "s", metrics=data))


def test_a_session_in_a_zip_file_with_a_link_is_refused(tmp_path):
    path = packed(session(tmp_path / ID))
    info = zipfile.ZipInfo("data/x")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(info, b"/etc/passwd")
    refused(path, "is a link or a special file")
    assert os.path.lexists(path)
