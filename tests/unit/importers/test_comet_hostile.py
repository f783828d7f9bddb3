"""Archives of Comet that are broken or made to mislead: a SourceError that says where and what to do, or a flag."""

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
from bundler.importers.comet import CometImporter
from bundler.importers.comet import archive as comet_archive
from bundler.importers.comet import run as comet_run
from bundler.importers.comet import values as comet_values
from bundler.importers.json_lines import parsed
from tests.unit.importers.comet_support import (
    FIXTURES,
    KEY,
    LOGGED,
    OTHER,
    archive,
    described,
    details,
    flags,
    lines,
    message,
    metric,
    one,
    parameter,
    refused,
    step,
    upload,
)


def of(tmp_path, *messages, files=None, **more):
    return archive(tmp_path / f"{KEY}.zip", list(messages), files, **more)


# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{not json", "no JSON at character 1"),
        (b'"text"', "a message is no object"),
        (b"[]", "a message is no object"),
        (b'{"type": "log_other"}', "the payload of a message is no object"),
        (b'{"payload": {}}', "the type of a message is no text"),
        (b'{"type": 1, "payload": {}}', "the type of a message is no text"),
        (b'{"type": "a", "type": "b", "payload": {}}', "the name 'type' twice in one object"),
        (b'{"type": "log_other", "payload": {"key": "k", "value": 1e400}}', "the number '1e400' is too large"),
        (b'{"type": "log_other", "payload": {"key": "k", "value": ' + b"9" * 5000 + b"}}", "Exceeds the limit"),
        (b'{"type": "x", "payload": {"key": ' + b"[" * 100_000 + b"}}", "nested too deep"),
        (b'{"type": "\xff", "payload": {}}', "not UTF-8 at byte 10"),
        (b"", "no JSON at character 0"),
    ],
    ids=range(12),
)  # fmt: skip
def test_a_line_that_is_no_message_is_refused_by_number(tmp_path, line, problem):
    path = archive(
        tmp_path / f"{KEY}.zip",
        lines([metric("m", 1.0)]) + line + b"\n" + lines([metric("m", 2.0)]),
    )
    refused(path, rf"messages\.json, line 2: {problem}")


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (message("metric_msg", metric=[]), "a metric is no object"),
        (message("metric_msg", metric={"metricName": 1}), "the name of a metric is no text"),
        (
            message("metric_msg", metric={"metricName": "m", "metricValue": 1.0, "step": 0}),
            "metric 'm' without a time",
        ),
        (metric("m", 1.0, step="3"), "metric 'm' with step '3'"),
        (metric("m", 1.0, step=True), "metric 'm' with step True"),
        (metric("m", 1.0, step=2**53), "metric 'm' with step 9007199254740992"),
        (metric("m", 1.0, step=1e300), "metric 'm' with step 1e.300"),
        (message("parameter_msg", param=[]), "a parameter is no object"),
        (message("parameter_msg", param={"paramValue": 1}), "the name of a parameter is no text"),
        (message("git_metadata", git_metadata=None), "git_metadata is no object"),
        (message("installed_packages", installed_packages={}), "installed_packages is no list"),
        (message("gpu_static_info", gpu_static_info=[1]), "a graphics card is no object"),
        (message("system_info", system_info=1), "system_info is no object"),
        (
            message("remote_model", model_name="m", remote_assets=[1]),
            "a file of a remote model is no object",
        ),
        (
            message("file_upload", file_path="x", upload_type="asset", additional_params=[1]),
            "additional_params is no object",
        ),
    ],
    ids=range(15),
)
def test_a_message_of_the_wrong_shape_is_refused_by_line(tmp_path, said, problem):
    refused(of(tmp_path, metric("m", 1.0), said), rf"messages\.json, line 2: {problem}")


def test_a_step_that_is_not_finite_is_refused(tmp_path):
    text = lines([metric("m", 1.0)]).replace(b'"step": 0', b'"step": NaN')
    refused(archive(tmp_path / f"{KEY}.zip", text), "metric 'm' with step nan")


def test_a_last_line_that_is_cut_is_flagged_and_the_rest_is_there(tmp_path):
    text = lines([metric("m", 1.0), metric("m", 2.0, step=1)])
    for cut in range(len(lines([metric("m", 1.0)])) + 1, len(text) - 1):
        run = one(archive(tmp_path / f"{KEY}.zip", text[:cut]))
        assert [point.value for point in run.points] == [1.0]
        assert details(run)["run", "truncated"] == "messages.json, line 2 is cut"


def test_a_last_line_without_its_end_is_whole_if_it_can_be_read(tmp_path):
    run = one(archive(tmp_path / f"{KEY}.zip", lines([metric("m", 1.0)])[:-1]))
    assert len(run.points) == 1
    assert ("run", "truncated") not in flags(run)


def test_an_archive_without_messages_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / f"{KEY}.zip", "w") as file:
        file.writestr("experiment.json", json.dumps(described()))
    refused(tmp_path, r"messages\.json: is missing")


def test_a_line_that_is_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(comet_run, "MAX_LINE", 100)
    path = of(tmp_path, message("log_other", key="k", value="x" * 200))
    text = archive(tmp_path / "b.zip", b"x" * 200)
    assert path.exists()
    refused(text, r"messages\.json: line 1 has more than 100 bytes")


def test_too_many_points_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(comet_values, "MAX_POINTS", 2)
    refused(of(tmp_path, *[metric("m", 1.0)] * 3), "line 3: more than 2 points in one run")


def test_too_many_facts_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(comet_run, "MAX_KEPT", 200)
    said = [parameter(str(number), "x" * 50) for number in range(5)]
    refused(of(tmp_path, *said), "more than 200 bytes of parameters and facts")


def test_facts_count_whatever_type_of_message_they_came_in(tmp_path, monkeypatch):
    monkeypatch.setattr(comet_run, "MAX_KEPT", 500)
    for said in (
        [message("ws_msg", log_other={"key": f"k{n}", "val": "x" * 100}) for n in range(5)],
        [message("ws_msg", param={"paramName": f"p{n}", "paramValue": "x" * 100}) for n in range(5)],
        [message("metric_msg", params={"paramName": f"p{n}", "paramValue": "x" * 99}) for n in range(5)],
        [message("ws_msg", fileName="x" * 600)],
    ):  # fmt: skip
        refused(of(tmp_path, *said), "line .: more than 500 bytes of parameters and facts")


def test_what_is_not_kept_does_not_count_in_any_type_of_message(tmp_path, monkeypatch):
    monkeypatch.setattr(comet_run, "MAX_KEPT", 200)
    metrics = [message("ws_msg", **metric("m", 1.0)["payload"])] * 9
    said = [message("ws_msg", stdout="x" * 500), *metrics, *[step(number) for number in range(9)]]
    assert len(one(of(tmp_path, *said)).points) == 9


def test_names_of_metrics_are_bounded_together(tmp_path, monkeypatch):
    monkeypatch.setattr(comet_values, "MAX_NAMES", 100)
    assert len(one(of(tmp_path, *[metric("m" * 60, 1.0)] * 5)).points) == 5
    said = [metric(letter * 60, 1.0) for letter in "ab"]
    refused(of(tmp_path, *said), "line 2: more than 100 characters of names of metrics")


def test_what_was_printed_does_not_count_as_a_fact(tmp_path, monkeypatch):
    monkeypatch.setattr(comet_run, "MAX_KEPT", 200)
    said = [message("standard_output", output="x" * 500), *[metric("m", 1.0)] * 9]
    assert len(one(of(tmp_path, *said)).points) == 9


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    from bundler.importers import collected

    monkeypatch.setattr(collected, "MAX_FILES", 1)
    refused(
        of(tmp_path, upload("x", "a"), upload("x", "b")), "line 2: more than 1 files in one run"
    )


def test_many_files_of_one_name_do_not_take_for_ever(tmp_path):
    run = one(of(tmp_path, *[upload("x", "a")] * 20_000))
    assert len(run.artefacts) == 20_000


# --- what the archive says about its run ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"offline_id": None}, "offline_id is no text"),
        ({"offline_id": 7}, "offline_id is no text"),
        ({"project_name": 7}, "project_name is no text"),
        ({"tags": "a"}, "tags is no list"),
        ({"start_time": "now"}, "start_time is 'now'"),
        ({"stop_time": 1.5}, "stop_time is 1.5"),
        ({"start_time": 2**53}, "start_time is 9007199254740992"),
    ],
)
def test_a_description_of_the_wrong_shape_is_refused(tmp_path, more, problem):
    refused(of(tmp_path, **more), rf"experiment\.json: {problem}")


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff"])
def test_a_description_that_is_none_is_refused(tmp_path, text):
    with zipfile.ZipFile(tmp_path / f"{KEY}.zip", "w") as file:
        file.writestr("experiment.json", text)
    refused(tmp_path, r"experiment\.json: ")


def test_a_description_may_leave_out_what_is_not_known(tmp_path):
    with zipfile.ZipFile(tmp_path / f"{KEY}.zip", "w") as file:
        file.writestr("experiment.json", json.dumps({"offline_id": KEY}))
        file.writestr("messages.json", b"")
    run = one(tmp_path)
    assert (run.started, run.ended, run.status) == (None, None, "finished")


@pytest.mark.parametrize(
    ("name", "member"),
    [(f"{OTHER}.zip", "x"), (f"{OTHER}-abc.zip", "x"), ("a.zip", "messages.json")],
)
def test_a_run_without_its_description_does_not_vanish(tmp_path, name, member):
    of(tmp_path)
    with zipfile.ZipFile(tmp_path / name, "w") as file:
        file.writestr(member, b"")
    refused(tmp_path, rf"{name}', experiment\.json: is missing")
    assert CometImporter().detect(tmp_path) == (tmp_path,)


# --- files and folders ------------------------------------------------------------------------------------------------


def test_one_damaged_archive_is_not_left_out(tmp_path):
    of(tmp_path)
    (tmp_path / "other.zip").write_bytes(b"PK\x03\x04 damaged")
    assert "other.zip" in refused(tmp_path, "cannot be read as a zip file").message


def test_a_link_to_an_archive_is_refused(tmp_path):
    of(tmp_path / "elsewhere")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / f"{KEY}.zip").symlink_to(tmp_path / "elsewhere" / f"{KEY}.zip")
    assert "Replace it by a copy" in refused(tmp_path / "store", "is a link").remedy


def test_too_many_archives_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(comet_archive, "MAX_ARCHIVES", 1)
    of(tmp_path)
    archive(tmp_path / "b.zip", offline_id="ab" * 16)
    refused(tmp_path, "holds more than 1 archives")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_an_error(tmp_path):
    tmp_path.chmod(0)
    refused(tmp_path, "cannot be read")


def test_an_error_of_the_system_names_the_store(tmp_path, monkeypatch):
    of(tmp_path)

    def denied(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "iterdir", denied)
    refused(tmp_path, "cannot be read: Permission denied")


def test_a_file_that_is_damaged_in_the_archive_is_refused(tmp_path):
    path = of(tmp_path, upload("f", "a.bin"), files={"f": b"x" * 100})
    path.write_bytes(path.read_bytes().replace(b"x" * 100, b"x" * 99 + b"y"))
    refused(path, "member 'f' at byte .*: Bad CRC-32")


def test_a_run_that_was_cut_after_a_zip_file_in_it_does_not_vanish(tmp_path):
    name = next(
        path.name
        for path in sorted((FIXTURES / "runs").glob("*.zip"))
        if path.read_bytes().count(b"PK\x05\x06") > 1
    )
    data = (FIXTURES / "runs" / name).read_bytes()
    of(tmp_path)
    (tmp_path / name).write_bytes(data[: data.index(b"PK\x05\x06") + 22])
    assert name in refused(tmp_path, "not at byte 0: cut after a zip file inside it").message


def test_a_temporary_folder_that_is_not_there_is_not_the_fault_of_the_store(tmp_path, monkeypatch):
    of(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert "TMPDIR" in refused(tmp_path, "temporary folder: No such file").remedy


def test_a_disk_that_is_full_is_not_the_fault_of_the_patch(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "patch.zip", "w") as file:
        file.writestr("git_diff.patch", b"+1")
    path = of(
        tmp_path / "store",
        upload("p", None, kind="git-patch"),
        files={"p": (tmp_path / "patch.zip").read_bytes()},
    )

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "TMPDIR" in refused(path, "temporary folder: No space left").remedy


def test_an_object_with_many_names_and_one_of_them_twice_is_read_once():
    # Every name was counted among all of them: with 200,000 that took minutes.
    text = "{" + ",".join(f'"k{number}":0' for number in range(200_000)) + ',"z":0,"z":0}'
    with pytest.raises(ValueError, match="the name 'z' twice in one object"):
        parsed(text.encode())


# --- whatever the bytes are -------------------------------------------------------------------------------------------

FUZZ = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
WHOLE = (FIXTURES / "runs" / f"{LOGGED['traps']['key']}.zip").read_bytes()
with zipfile.ZipFile(FIXTURES / "runs" / f"{LOGGED['traps']['key']}.zip") as _file:
    TEXT = _file.read("messages.json")


def survives(store) -> None:
    """Reading gives runs or a :class:`SourceError` in text that can be written, and nothing else."""
    importer = CometImporter()
    importer.detect(store.parent)
    try:
        with importer.open(store, experiment=None, artefacts=None) as session:
            texts = [repr(run) for run in session]
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
NAMES = [
    "metric", "param", "params", "key", "value", "file_path", "upload_type", "additional_params", "git_metadata", "context",
    "local_timestamp", "installed_packages", "gpu_static_info", "system_info", "remote_assets", "remote_uri", "log_other",
    "env_details", "git_meta", "fileName", "log_dependency", "log_system_info", "file_name", "name", "version",
]  # fmt: skip
TYPES = [
    "metric_msg", "parameter_msg", "log_other", "file_upload", "remote_file", "remote_model", "git_metadata", "file_name",
    "system_details", "installed_packages", "gpu_static_info", "system_info", "cloud_details", "ws_msg", "log_dependency",
]  # fmt: skip


@FUZZ
@given(
    st.lists(
        st.tuples(
            st.sampled_from(TYPES), st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4)
        ),
        max_size=5,
    )
)
def test_messages_of_any_shape_give_a_run_or_a_source_error(tmp_path, said):
    survives(of(tmp_path, *[message(kind, **payload) for kind, payload in said]))


@FUZZ
@given(st.dictionaries(st.sampled_from(list(described())), JSON, max_size=4))
def test_descriptions_of_any_shape_give_a_run_or_a_source_error(tmp_path, more):
    survives(of(tmp_path, step(1), **more))


@FUZZ
@given(st.binary(max_size=200))
def test_random_messages_give_a_run_or_a_source_error(tmp_path, data):
    survives(archive(tmp_path / f"{KEY}.zip", data))


@FUZZ
@given(
    st.lists(
        st.tuples(st.integers(0, len(TEXT) - 1), st.binary(min_size=1, max_size=3)),
        min_size=1,
        max_size=4,
    )
)
def test_changed_messages_give_a_run_or_a_source_error(tmp_path, changes):
    data = bytearray(TEXT)
    for place, value in changes:
        data[place : place + len(value)] = value
    survives(archive(tmp_path / f"{KEY}.zip", bytes(data)))


@FUZZ
@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_a_changed_archive_gives_a_run_or_a_source_error(tmp_path, changes):
    data = bytearray(WHOLE)
    for place, value in changes:
        data[place] = value
    path = tmp_path / f"{KEY}.zip"
    path.write_bytes(data)
    survives(path)
