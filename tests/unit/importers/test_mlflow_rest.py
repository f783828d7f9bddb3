"""A tracking server over REST: everything is read, whatever its limits, and what is no MLflow server is refused."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bundler.errors import SourceError
from bundler.importers.mlflow import MlflowImporter
from bundler.importers.mlflow import history as mlflow_history
from bundler.importers.mlflow import http as mlflow_http
from bundler.importers.mlflow import pages as mlflow_pages
from bundler.importers.mlflow import rest as mlflow_rest
from bundler.importers.mlflow import served as mlflow_served
from tests.unit.importers.support import (
    BULK,
    FILES,
    MAIN,
    SINGLE,
    VERSION,
    FakeMlflow,
    flags,
    named,
    read,
    refused,
    served,
    write,
)

SEARCH = "/api/2.0/mlflow/runs/search"
MODELS = "/api/2.0/mlflow/logged-models/search"
CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No test waits for a server that is tried again, and none has the credentials of who runs it."""
    monkeypatch.setattr(mlflow_http, "_WAITS", (0, 0, 0))
    for name in list(os.environ):
        if name.startswith("MLFLOW_TRACKING_"):
            monkeypatch.delenv(name)


@pytest.fixture
def fake() -> FakeMlflow:
    return FakeMlflow()


@pytest.fixture
def address(fake):
    with served(fake.answer) as place:
        yield place


def json_of(answer: Any, status: int = 200) -> Callable[[Any], tuple[int, bytes]]:
    return lambda _: (status, json.dumps(answer).encode())


def values(run: Any, metric: str) -> list[float]:
    return [each.value for each in run.points if each.metric == metric]


# --- everything is read -----------------------------------------------------------------------------------------------


def test_runs_come_in_order_of_start_and_id_whatever_the_server_does(fake, address):
    for name, start in (("b", 5), ("c", None), ("a", 5), ("d", 0), ("e", 3)):
        fake.run(name, start=start)
    assert [run.source.run_id for run in read(address)] == ["c", "d", "e", "a", "b"]


def test_more_runs_than_a_page_or_a_question_holds(fake, address):
    for number in range(450):
        fake.run(f"r{number:03}", start=number, loss=[float(number)] * 2)
    runs = read(address)
    assert [values(run, "loss") for run in runs] == [[float(number)] * 2 for number in range(450)]
    asked = [question for path, question in fake.asked if path == BULK]
    assert max(len(question["run_id"].split(",")) for question in asked) == 100


def test_an_answer_that_is_full_is_asked_for_again_in_parts(fake, address, monkeypatch):
    monkeypatch.setattr(mlflow_history, "FULL", 50)
    fake.full = 50
    for number in range(20):
        # 7 points of "loss" fit by the seven, but those of one run in three do not fit at all.
        fake.run(f"r{number:02}", start=number, loss=[1.0] * (7 if number % 3 else 120), acc=[0.5])
    for number, run in enumerate(read(address)):
        assert len(values(run, "loss")) == (7 if number % 3 else 120)
        assert len(values(run, "acc")) == 1


def test_an_answer_that_is_just_full_is_not_believed(fake, address, monkeypatch):
    monkeypatch.setattr(mlflow_history, "FULL", 50)
    fake.full = 50
    fake.run("a", loss=[0.0] * 50)
    assert len(values(read(address)[0], "loss")) == 50
    assert [path for path, _ in fake.asked].count(SINGLE) == 1


def test_histories_come_page_by_page_from_servers_without_the_bulk_endpoint(
    fake, address, monkeypatch
):
    monkeypatch.setattr(mlflow_history, "_PAGE", 10)
    fake.instead[BULK] = lambda _: (404, b"<html>Not Found</html>")
    for number in range(3):
        fake.run(f"r{number}", start=number, loss=[1.0] * 35)
    assert [len(run.points) for run in read(address)] == [35, 35, 35]
    assert [path for path, _ in fake.asked].count(SINGLE) == 3 * 4


@pytest.mark.parametrize(
    "version", [(404, b"<html>"), (200, b"<html>" + b"x" * 500), (200, b"<html>"), (200, "3.ü".encode()), (302, b"")]
)  # fmt: skip
def test_the_bulk_endpoint_is_believed_only_of_mlflow(fake, address, version):
    fake.instead[VERSION] = lambda _: version
    fake.full = 10  # another limit than MLflow's, of which an answer says nothing
    fake.run("a", loss=[1.0] * 20)
    assert len(values(read(address)[0], "loss")) == 20
    assert BULK not in [path for path, _ in fake.asked]


def test_a_run_that_the_server_denies_is_not_taken_for_a_missing_endpoint(fake, address):
    fake.run("a", loss=[1.0])
    fake.instead[BULK] = json_of(
        {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Run 'a' not found"}, 404
    )
    refused(address, "answers 404: .*Run 'a' not found")
    assert SINGLE not in [path for path, _ in fake.asked]


def test_a_server_that_leaves_out_more_than_mlflow_is_found_out(fake, address):
    fake.full = 10
    for number in range(5):
        fake.run(f"r{number}", start=number, loss=[float(step) for step in range(8)])
    assert [len(run.points) for run in read(address)] == [8] * 5


def test_a_history_without_the_runs_latest_value_is_refused(fake, address):
    run = fake.run("a", loss=[1.0, 2.0])
    run["data"]["metrics"] = [{"key": "loss", "value": 3.0, "timestamp": 9000, "step": 9}]
    error = refused(address, "lacks the latest value")
    assert "wait for its end" in error.remedy
    run["data"]["metrics"] = [{"key": "gone", "value": 3.0, "timestamp": 9000, "step": 9}]
    refused(address, "metric 'gone' of run 'a'")


def test_runs_with_many_points_are_read_one_at_a_time(fake, address, monkeypatch):
    monkeypatch.setattr(mlflow_history, "MANY", 20)
    for number in range(9):
        fake.run(f"r{number}", start=number, loss=[1.0] * 30)
    assert [len(run.points) for run in read(address)] == [30] * 9
    assert max(len(q["run_id"].split(",")) for path, q in fake.asked[-4:] if path == BULK) == 1


def test_a_run_with_too_many_points_is_refused(fake, address, monkeypatch):
    monkeypatch.setattr(mlflow_history, "MAX_POINTS", 40)
    fake.run("a", loss=[1.0] * 30, acc=[1.0] * 30)
    refused(address, "run 'a' of .* has more than 40 metric points")
    # Also where only reading again, page by page, shows it.
    fake.full = 5
    refused(address, "run 'a' of .* has more than 40 metric points")


def test_a_verifier_does_not_load_what_speaks_to_servers():
    program = (
        "import sys, bundler.importers.mlflow; print({'http.client', 'ssl'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_numbers_that_json_lacks_are_read_in_both_spellings(fake, address):
    fake.run("a", loss=[math.nan, 1.0, math.nan], odd=[math.inf, -math.inf, 1.7976931348623157e308])
    (run,) = read(address)
    assert [math.isnan(each) for each in values(run, "loss")] == [True, False, True]
    assert values(run, "odd") == [math.inf, -math.inf, math.inf]
    fake.instead[BULK] = lambda _: (404, b"")
    for each in [point for points in fake.points.values() for point in points]:
        if not math.isfinite(each["value"]):
            each["value"] = {math.inf: "Infinity", -math.inf: "-Infinity"}.get(each["value"], "NaN")
    assert repr(read(address)) == repr([run])
    # An infinity that comes as one was not changed by the tracker.
    assert {(each.field, each.flag, each.detail) for each in run.fidelity} == {
        ("metrics.loss", "nan_replaced", "2 points"),
        ("metrics.odd", "inf_clamped", "1 points"),
    }


def test_values_of_one_moment_are_sorted_and_flagged(fake, address):
    fake.run("a", loss=[3.0, 1.0, 2.0])
    for each in fake.points["a", "loss"]:
        each |= {"timestamp": 0, "step": 0}
    (run,) = read(address)
    assert values(run, "loss") == [1.0, 2.0, 3.0]
    assert {(each.flag, each.detail) for each in run.fidelity} == {
        ("duplicate_step", "2 points"),
        ("order_unknown", "2 points"),
    }


def test_64_bits_as_text_are_a_number(fake, address):
    fake.run("a", loss=[1.0])["info"]["start_time"] = "1760000000000"
    fake.points["a", "loss"][0] |= {"timestamp": "1760000000001", "step": "7"}
    (run,) = read(address)
    assert (run.started, run.points[0].timestamp, run.points[0].step) == (1760000000000, 1760000000001, 7)  # fmt: skip


def test_large_descriptions_of_runs_are_asked_for_in_smaller_pages(fake, address, monkeypatch):
    monkeypatch.setattr(mlflow_rest, "_BYTES_OF_A_PAGE", 20_000)
    monkeypatch.setattr(mlflow_rest, "_BYTES_AT_ONCE", 5_000)
    for number in range(30):
        fake.run(f"r{number:02}", start=number)["data"]["params"] = [{"key": "p", "value": "x" * 3000}]  # fmt: skip
    assert len(read(address)) == 30
    monkeypatch.setattr(mlflow_rest, "_BYTES_OF_A_PAGE", 2_000)
    monkeypatch.setattr(mlflow_rest, "MAX_ANSWER", 2_000)
    refused(address, "more than 2,000 bytes")


def test_what_is_read_again_is_equal_and_the_same_files(fake, address):
    fake.run("a", loss=[1.0])
    fake.files = {"1/a/artifacts/m.bin": b"1"}
    with MlflowImporter().open(address, experiment=MAIN, artefacts=None) as session:
        first, second = list(session), list(session)
        assert first == second
        assert first[0].artefacts[0].file.read_bytes() == b"1"
    assert not first[0].artefacts[0].file.exists()


# --- which experiment -------------------------------------------------------------------------------------------------


def test_an_experiment_is_found_by_name_by_id_or_as_the_only_one(fake, address):
    fake.experiments += [
        {"experiment_id": "2", "name": "empty"},
        {"experiment_id": "3", "name": "1", "lifecycle_stage": "deleted"},
    ]
    fake.run("a")
    assert [run.source.run_id for run in read(address, None)] == ["a"]
    assert read(address, "2") == []
    assert read(address, "1") == []  # a name goes before an id
    fake.run("b")["info"]["experiment_id"] = "3"
    (run,) = read(address, "3")
    assert run.deleted
    assert ("artefacts", "models_not_listed") in flags(run)
    assert "(id 1, 1 runs)" in refused(address, "several experiments", None).remedy
    assert "'1' (id 3, 1 runs, deleted)" in refused(address, "no experiment 'nope'", "nope").remedy
    assert MlflowImporter().experiments(address) == (MAIN, "1", "empty")


def test_only_the_runs_of_the_wanted_experiment_are_counted(fake, address):
    fake.experiments.append({"experiment_id": "2", "name": "huge"})
    fake.run("a")
    read(address)
    assert [q["experiment_ids"] for path, q in fake.asked if path == SEARCH] == [["1"]]


@pytest.mark.parametrize("kind", ["experiments", "runs"])
def test_what_is_listed_twice_is_refused(fake, address, kind):
    fake.run("a")
    getattr(fake, kind).append(getattr(fake, kind)[0])
    refused(address, "is listed twice")


def test_a_run_of_another_experiment_is_refused(fake, address):
    fake.run("a")["info"]["experiment_id"] = "999"
    fake.instead[SEARCH] = json_of({"runs": fake.runs})
    refused(address, "a run of experiment '999', which was not asked for")


@pytest.mark.parametrize("kind", ["params", "tags", "metrics"])
def test_what_a_run_has_twice_under_one_name_is_refused(fake, address, kind):
    pair = {"key": "x", "value": 1.0 if kind == "metrics" else "1", "timestamp": 1, "step": 1}
    fake.run("a")["data"][kind] = [pair, pair]
    refused(address, "'x' twice")


def test_a_time_that_no_date_can_be_is_left_out_and_flagged(fake, address):
    fake.run("a", start=2**53 - 1)
    fake.run("b", start=None)
    first, second = read(address)
    assert (first.source.run_id, first.started, second.started) == ("a", None, None)
    assert flags(first) == {("run", "time_out_of_range")}


# --- artefacts --------------------------------------------------------------------------------------------------------


def test_artefacts_and_models_are_fetched(fake, address):
    fake.run("a")
    fake.models = [
        {"info": {"model_id": "m-2", "source_run_id": "a", "artifact_uri": "mlflow-artifacts:/1/models/m-2/artifacts"}},
        {"info": {"model_id": "m-1", "source_run_id": "other"}},
    ]  # fmt: skip
    fake.files = {
        "1/a/artifacts/ordner/tief/größe ✓ %41?#.txt": b"tief",
        "1/a/artifacts/z.bin": b"",
        "1/models/m-2/artifacts/MLmodel": b"x" * 1_000_000,
    }
    with MlflowImporter().open(address, experiment=MAIN, artefacts=None) as session:
        (run,) = session
        found = {each.path: each.file.read_bytes() for each in run.artefacts}
    assert found == {
        "ordner/tief/größe ✓ %41?#.txt": b"tief",
        "z.bin": b"",
        "models/m-2/MLmodel": b"x" * 1_000_000,
    }
    assert run.fidelity == ()


def test_the_folder_of_the_artefact_server_saves_fetching(fake, address, tmp_path):
    fake.run("a")
    write(tmp_path / "1/a/artifacts/m.bin", "here")
    (run,) = read(address, artefacts=tmp_path)
    assert [each.file for each in run.artefacts] == [tmp_path / "1/a/artifacts/m.bin"]
    assert not [path for path, _ in fake.asked if path.startswith(FILES)]


@pytest.mark.parametrize(
    ("uri", "detail"),
    [
        ("s3://bucket/1/a/artifacts", "s3: is not on this machine"),
        ("file:///etc", "the folder is not on this machine or outside"),
        ("/etc", "the folder is not on this machine or outside"),
        ("etc", "the folder is not on this machine or outside"),
        ("mlflow-artifacts://elsewhere:80/1/a/artifacts", "mlflow-artifacts: no folder"),
        ("mlflow-artifacts:/1/../../a", "mlflow-artifacts: no folder"),
        ("mlflow-artifacts:/", "mlflow-artifacts: no folder"),
        ("http://[", "not an address"),
    ],
)
def test_artefacts_that_the_server_does_not_hand_out_are_flagged(fake, address, uri, detail):
    fake.run("a")["info"]["artifact_uri"] = uri
    (run,) = read(address)
    assert run.artefacts == ()
    (flag,) = run.fidelity
    assert (flag.field, flag.flag) == ("artefacts", "artefacts_unreachable")
    assert flag.detail.startswith(detail)


def test_a_file_that_the_server_names_and_does_not_give_is_a_gap(fake, address):
    fake.run("a")
    fake.files = {
        "1/a/artifacts/gone.txt": b"",
        "1/a/artifacts/odd.txt": b"",
        "1/a/artifacts/x": b"",
    }
    fake.instead[f"{FILES}/1/a/artifacts/gone.txt"] = lambda _: (404, b"{}")
    fake.instead[f"{FILES}/1/a/artifacts/odd.txt"] = json_of({"message": "invalid path"}, 400)
    (run,) = read(address)
    assert [(each.path, each.file is None) for each in run.artefacts] == [
        ("gone.txt", True), ("odd.txt", True), ("x", False),
    ]  # fmt: skip
    assert [each.detail for each in run.fidelity] == ["gone.txt", "odd.txt"]


@pytest.mark.parametrize(
    "reply",
    [
        (404, b"<html>"),
        (503, b'{"message": "disabled due to the mlflow server running with `--no-serve-artifacts`"}'),
        (400, b"{}"),
    ],
)  # fmt: skip
def test_a_server_that_lists_no_files_is_said_so(fake, address, reply):
    fake.run("a")
    fake.instead[FILES] = lambda _: reply
    (run,) = read(address)
    assert [(each.flag, each.detail) for each in run.fidelity] == [
        ("artefacts_unreachable", "the server does not list its files")
    ]
    assert [path for path, _ in fake.asked].count(FILES) == 1
    fake.files = {"1/a/artifacts/x/m": b"1", "1/a/artifacts/n": b"2"}
    fake.instead[FILES] = lambda q: reply if q["path"].endswith("/x") else fake._file(FILES, q)
    (run,) = read(address)
    assert [each.path for each in run.artefacts] == ["n"]
    assert [(each.flag, each.detail) for each in run.fidelity] == [("unreadable", "x/")]


def test_files_that_come_only_in_part_or_are_forbidden_end_the_import(fake, address):
    fake.run("a")
    fake.files = {"1/a/artifacts/m": b"1"}
    cut = {"Content-Length": "9", "Connection": "close"}
    fake.instead[f"{FILES}/1/a/artifacts/m"] = lambda _: (200, b"1", cut)
    refused(address, "ends 8 bytes early")
    fake.instead[f"{FILES}/1/a/artifacts/m"] = lambda _: (403, b"")
    refused(address, "answers 403")


@pytest.mark.parametrize(
    "name", ["../../key", "/etc/passwd", "..", ".", "", "a\\b", "a\0b", None, 7]
)
def test_a_file_name_that_could_lead_elsewhere_is_refused(fake, address, name):
    fake.run("a")
    fake.instead[FILES] = json_of({"files": [{"path": name, "is_dir": False}]})
    refused(address, "what MLflow would not")


def test_folders_without_an_end_are_refused(fake, address):
    fake.run("a")
    fake.instead[FILES] = json_of({"files": [{"path": "a", "is_dir": True}]})
    refused(address, "folders too deep")


def test_artefacts_beyond_all_measure_are_refused(fake, address, monkeypatch):
    fake.run("a")
    fake.files = {"1/a/artifacts/a": b"x" * 60, "1/a/artifacts/b": b"x" * 60}
    monkeypatch.setattr(mlflow_served, "MAX_BYTES", 100)
    assert "(artefacts)" in refused(address, "the artefacts of .* are more than 100 bytes").remedy
    monkeypatch.setattr(mlflow_served, "MAX_FILES", 1)
    refused(address, "more than 1 files")


def test_two_threads_that_fetch_one_file_do_not_write_into_each_others(tmp_path):
    both = threading.Barrier(2, timeout=10)

    class Slow:
        shown = place = "x"

        def download(self, path, target, most):
            with target.open("wb") as file:
                file.write(b"x" * 1000)
                both.wait()  # both are in the middle
                file.write(b"y" * 1000)
            return 2000

    files = mlflow_served.ServedArtefacts(Slow(), tmp_path)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: files._fetched("r", "f", "", lambda *_: None), range(2)))
    assert [each.read_bytes() for each in found] == [b"x" * 1000 + b"y" * 1000] * 2
    assert [each.name for each in tmp_path.iterdir()] == [found[0].name]


def test_a_full_disk_is_said_to_be_that(fake, address, monkeypatch):
    fake.run("a")
    fake.files = {"1/a/artifacts/a": b"x"}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        assert "TMPDIR" in refused(address, "temporary folder: No space left").remedy
    with monkeypatch.context() as patch:
        # Nothing can be opened for writing after the file for the descriptions of runs.
        opened = Path.open
        patch.setattr(Path, "open", lambda p, m="r": full() if m == "wb" else opened(p, m))
        assert "TMPDIR" in refused(address, "temporary folder: No space left").remedy


def test_models_that_a_run_names_and_the_server_does_not_list_are_flagged(fake, address):
    fake.run("a")["outputs"] = {"model_outputs": [{"model_id": "m-9", "step": 0}]}
    (run,) = read(address)
    assert [(each.flag, each.detail) for each in run.fidelity] == [
        ("model_not_listed", "models/m-9")
    ]


def test_a_server_before_logged_models_has_none(fake, address):
    fake.run("a")
    fake.instead[MODELS] = lambda _: (404, b"<html>")
    assert read(address)[0].fidelity == ()


# --- what answers, and how --------------------------------------------------------------------------------------------


def test_credentials_are_those_of_mlflow_and_appear_nowhere(fake, address, monkeypatch):
    seen = []
    fake.instead[BULK] = lambda q: (seen.append(q["headers"].get("Authorization")), (404, b"{}"))[1]
    fake.run("a", loss=[1.0])
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    assert "t0ken" not in repr(read(address))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "user")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    (run,) = read(address)
    assert seen == ["Bearer t0ken", "Basic dXNlcjpzZWNyZXQ="]
    assert (run.source.tracker, run.source.store) == ("mlflow", "rest")
    fake.instead[SEARCH] = lambda _: (500, b"")
    error = refused(address, "answers 500")
    assert "secret" not in error.message + error.remedy


@pytest.mark.parametrize(
    ("place", "match"),
    [
        ("http://user:secret@host", "holds a user or password"),
        ("https://secret@host/x", "holds a user or password"),
        ("http://host:secret", "no plain"),
        ("http://", "no plain"),
        ("http://host/?secret=1", "no plain"),
        ("http://host/#secret", "no plain"),
        ("http://hostä", "no plain"),
        ("http://ho st", "no plain"),
        ("http://host\r\nX: y", "no plain"),
        ("http://[", "no plain"),
        ("http://" + "a" * 70 + ".example", "no plain"),
    ],
)
def test_an_address_that_is_none_is_refused_without_repeating_it(place, match):
    error = refused(place, match)
    assert "secret" not in error.message + error.remedy


@pytest.mark.parametrize(
    "secret", [{"TOKEN": "t0ken"}, {"USERNAME": "user", "PASSWORD": "t0ken"}], ids=repr
)
def test_credentials_do_not_leave_this_machine_in_the_clear(secret, monkeypatch):
    for name, value in secret.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    for host in ("mlflow.invalid", "192.0.2.1:5000", "localhost.invalid"):
        error = refused(f"http://{host}", "would go over the network in the clear")
        assert "https://" in error.remedy
        assert "t0ken" not in error.message + error.remedy
    refused("https://mlflow.invalid", "nothing answers")
    for host in ("127.0.0.1:1", "localhost:1", "[::1]:1"):
        with contextlib.closing(mlflow_http.Server(f"http://{host}", os.environ)):
            pass  # not refused


@pytest.mark.parametrize("token", ["a\nb", "ä"])
def test_a_token_that_is_none_is_refused(token, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
    refused("http://127.0.0.1:1", "MLFLOW_TRACKING_TOKEN is no token")


def test_a_server_that_does_not_run_is_said_so():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        refused(f"http://127.0.0.1:{probe.getsockname()[1]}", "nothing answers at .*refused")
    refused("http://nowhere.invalid", "nothing answers at")


@pytest.mark.parametrize(
    ("reply", "match", "remedy"),
    [
        ((401, b""), "answers 401", "MLFLOW_TRACKING_USERNAME"),
        ((403, b'{"error_code": "PERMISSION_DENIED", "message": "no\\u001b[2J"}'), r"answers 403: 'no\\x1b\[2J'", "allowed to read"),
        ((404, b"<html>"), "answers 404", "address of an MLflow"),
        ((400, b'{"message": "bad"}'), "answers 400: 'bad'", "address of an MLflow"),
        ((400, b'{"message": ' + b"[" * 1900), "answers 400", "address of an MLflow"),
        ((302, b"", {"Location": "https://login.example/?secret"}), "leads to 'https://login.example/'", "log-in page"),
        ((200, b"  <!doctype html>"), "web page instead of JSON", "log-in page"),
        ((200, b"no"), "no JSON", "address of an MLflow"),
        ((200, b"[]"), "no object", "address of an MLflow"),
        ((200, b'{"experiments": 1' + b"0" * 5000 + b"}"), "no JSON", "address"),
        ((200, b'{"experiments": ' + b"[" * 100_000), "no JSON", "address"),
        ((200, b"\xff\xfe"), "no JSON", "address"),
        ((200, b"{}", {"Content-Length": "9"}), "ends 7 bytes early|breaks off", "server's log"),
        ((200, b"{}", {"Content-Length": "nonsense", "Connection": "close"}), "no experiment", "none"),
        ((200, b"zz\r\n", {"Transfer-Encoding": "chunked"}), "breaks off", "server's log"),
        ((503, b'{"message": "busy"}', {"Retry-After": "0"}), "answers 503: 'busy'", "server's log"),
        ((503, b"", {"Retry-After": "tomorrow"}), "answers 503", "server's log"),
        ((429, b""), "answers 429", "server's log"),
    ],
)  # fmt: skip
def test_what_is_no_answer_of_mlflow_is_said_to_be_that(reply, match, remedy):
    def answer(path, question):
        return reply

    def closing(path, question):
        status, body, *headers = answer(path, question)
        return status, body, {"Connection": "close", **(headers[0] if headers else {})}

    with served(closing) as address:
        assert remedy in refused(address, match).remedy


def test_what_breaks_off_or_is_busy_is_tried_again(fake, address):
    failures = [
        (503, b""),
        (500, b""),
        (200, b"{}", {"Content-Length": "9", "Connection": "close"}),
    ]
    fake.run("a", loss=[1.0])
    real = fake.answer

    def sometimes(question):
        if failures:
            return failures.pop()
        del fake.instead[SEARCH]
        return real(SEARCH, question)

    fake.instead[SEARCH] = sometimes
    assert len(read(address)) == 1
    assert failures == []


def test_a_connection_that_was_closed_meanwhile_is_opened_again(fake):
    fake.run("a", loss=[1.0])
    with served(lambda path, q: (*fake.answer(path, q), {"Keep-Alive": "x"})[:3]) as address:
        assert len(read(address)) == 1

    def rude() -> None:
        # Answers nothing at all.
        while True:
            try:
                listener.accept()[0].close()
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=rude, daemon=True)
        thread.start()
        refused(f"http://127.0.0.1:{listener.getsockname()[1]}", "breaks off")


def test_a_server_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(mlflow_http, "_SECONDS_OF_SILENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        refused(f"http://127.0.0.1:{listener.getsockname()[1]}", "does not answer in time")


def test_an_answer_that_drips_is_given_up(fake, address, monkeypatch):
    monkeypatch.setattr(mlflow_http, "_SECONDS_OF_AN_ANSWER", -1)
    refused(address, "does not answer in time")


CONTINUE = b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
ENDLESS = {
    "100 Continue": (b"", CONTINUE * 100),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X"),
    "trailers": (CHUNKED, b"X: y\r\n" * 100),
    "a body without a length": (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    "the head of a chunk": (CHUNKED[:-10], b"0"),
}


@pytest.mark.parametrize(("begin", "again"), ENDLESS.values(), ids=ENDLESS)
def test_an_exchange_has_an_end_whatever_part_of_it_has_none(begin, again, monkeypatch):
    monkeypatch.setattr(mlflow_http, "_SECONDS_OF_AN_ANSWER", 0.3)

    def drip(connection) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(begin)
            while True:
                connection.sendall(again)
                time.sleep(0.001)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        refused(f"http://127.0.0.1:{listener.getsockname()[1]}", "does not answer in time")


def test_a_large_file_that_comes_fast_enough_has_more_time():
    here, there = socket.socketpair()
    with here, there, mlflow_http.Deadline(here, 0.01) as deadline:
        deadline.later(60)
        time.sleep(0.05)
        assert not deadline.is_over
        there.sendall(b"x")
        assert here.recv(1) == b"x"


def test_an_answer_that_stops_in_the_middle_is_given_up(monkeypatch):
    monkeypatch.setattr(mlflow_http, "_SECONDS_OF_SILENCE", 0.1)
    with served(lambda *_: (200, b"{}", {"Content-Length": "9"})) as address:
        refused(address, "does not answer in time")


def test_a_path_in_front_of_the_interface_is_kept(fake):
    fake.run("a", loss=[1.0])
    with served(lambda path, q: fake.answer(path.removeprefix("/tracking"), q)) as address:
        assert len(read(f"{address}/tracking/")) == 1
    assert fake.asked


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    files = ["-keyout", "both.pem", "-out", "cert.pem", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command.split(), *files], cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text(both.read_text() + (folder / "cert.pem").read_text())
    return folder


@pytest.fixture
def secure(fake, certificate, monkeypatch):
    from http.server import ThreadingHTTPServer

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "both.pem")

    class Secure(ThreadingHTTPServer):
        def get_request(self):
            connection, peer = super().get_request()
            connection.settimeout(5)
            return context.wrap_socket(connection, server_side=True), peer

    monkeypatch.setattr("tests.unit.importers.support.ThreadingHTTPServer", Secure)
    fake.run("a", loss=[1.0])
    with served(fake.answer) as address:
        yield address.replace("http://", "https://")


def test_a_certificate_must_be_trusted(secure, certificate, monkeypatch):
    assert (
        "MLFLOW_TRACKING_SERVER_CERT_PATH"
        in refused(secure, "certificate of .* not trusted").remedy
    )
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate / "cert.pem"))
    assert len(read(secure)) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(certificate / "both.pem"))
    assert len(read(secure)) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(certificate / "none.pem"))
    refused(secure, "cannot be read")


def test_trust_can_be_waived_as_with_mlflow(secure, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    (run,) = read(secure)
    assert flags(run) == {("run", "tls_not_verified")}


def test_a_server_without_tls_is_said_to_be_one(address):
    assert "http://" in refused(address.replace("http://", "https://"), "does not speak TLS").remedy


# --- a server that wants to exhaust or deceive ------------------------------------------------------------------------


def test_pages_without_an_end_are_left(fake, address, monkeypatch):
    fake.run("a", loss=[1.0])
    fake.instead[SEARCH] = json_of({"runs": [], "next_page_token": "again"})
    refused(address, "the same pages again and again")
    count = iter(range(10**6))

    def further(question):
        return 200, json.dumps({"next_page_token": f"t{next(count)}"}).encode()

    fake.instead[SEARCH] = further
    monkeypatch.setattr(mlflow_pages, "MAX_PAGES", 20)
    refused(address, "the same pages again and again")
    for token in (7, "x" * 200_000, {}, ["a"]):
        fake.instead[SEARCH] = json_of(
            {"next_page_token": token} if token else {"next_page_token": 1}
        )
        refused(address, "page token")


def test_more_runs_than_anyone_has_are_refused(fake, address, monkeypatch):
    for number in range(5):
        fake.run(f"r{number}")
    monkeypatch.setattr(mlflow_rest, "MAX_SPOOL", 100)
    refused(address, "more than 100 bytes of runs")
    monkeypatch.setattr(mlflow_rest, "MAX_SPOOL", 1 << 20)
    monkeypatch.setattr(mlflow_rest, "MAX_RUNS", 3)
    refused(address, "more than 3 runs")


def test_a_huge_answer_is_refused_before_it_is_in_memory(fake, address, monkeypatch):
    monkeypatch.setattr(
        mlflow_history.Server,
        "get",
        lambda s, p, q: mlflow_http.Server._json(s, "GET", p, None, 1000),
    )
    fake.run("a", loss=[1.0])
    fake.instead[BULK] = lambda _: (200, b" " * 5000)
    refused(address, "more than 1,000 bytes")


@pytest.mark.parametrize(
    "change",
    [
        {"info": None},
        {"info": {}},
        {"info": {"run_id": ""}},
        {"info": {"run_id": 7}},
        {"info": {"run_id": "a", "start_time": "yesterday"}},
        {"info": {"run_id": "a", "start_time": 1.5}},
        {"info": {"run_id": "a", "end_time": 2**60}},
        {"info": {"run_id": "a", "status": 3}},
        {"data": {"params": [{"value": "x"}]}},
        {"data": {"params": [{"key": "x", "value": 7}]}},
        {"data": {"params": {"key": "x"}}},
        {"data": {"params": ["x"]}},
        {"data": {"metrics": [{"key": "loss"}]}},
        {"data": {"metrics": [{"key": "loss", "value": "1.0", "timestamp": 0}]}},
        {"data": {"metrics": [{"key": "loss", "value": True, "timestamp": 0}]}},
        {"data": {"metrics": [{"key": "loss", "value": 10**400, "timestamp": 0}]}},
        {"data": {"metrics": [{"key": "loss", "value": 1.0, "timestamp": None}]}},
        {"inputs": {"dataset_inputs": [{"dataset": 7}]}},
        {"outputs": {"model_outputs": [{}]}},
    ],
    ids=repr,
)
def test_a_value_of_the_wrong_type_is_refused_and_not_guessed(fake, address, change):
    fake.run("a")
    fake.runs[0] = {**fake.runs[0], **change}
    refused(address, "what MLflow would not")


@pytest.mark.parametrize(
    "points",
    [
        [{"key": "loss", "value": 1.0, "timestamp": 0, "step": 0, "run_id": "b"}],
        [{"key": "acc", "value": 1.0, "timestamp": 0, "step": 0, "run_id": "a"}],
        [{"key": "loss", "value": 1.0, "timestamp": 0, "step": 0.5, "run_id": "a"}],
        [{"key": "loss", "value": None, "timestamp": 0, "step": 0, "run_id": "a"}],
        [{"key": "loss", "value": 1.0, "timestamp": 0, "step": 0}],
        7,
    ],
    ids=repr,
)  # fmt: skip
def test_points_that_were_not_asked_for_are_refused(fake, address, points):
    fake.run("a", loss=[1.0])
    fake.instead[BULK] = json_of({"metrics": points})
    refused(address, "what MLflow would not")


def test_half_characters_can_be_written(fake, address):
    run = fake.run("a")
    run["data"] |= {"tags": [{"key": "t\ud800", "value": "\udc80"}], "params": [{"key": "\ud800"}]}
    run["info"]["run_name"] = "\ud800"
    (read_back,) = read(address)
    repr(read_back).encode()
    assert read_back.name == "\\ud800"
    assert dict(read_back.parameters) == {"\\ud800": ""}


def test_an_error_of_the_caller_stays_what_it_is(fake, address):
    fake.run("a")
    with (
        pytest.raises(ValueError, match="of the caller"),
        MlflowImporter().open(address, experiment=MAIN, artefacts=None) as session,
    ):
        next(iter(session))
        raise ValueError("of the caller")


def test_without_a_temporary_folder_nothing_is_read(address, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mlflow_rest.tempfile, "TemporaryDirectory", full)
    assert "TMPDIR" in refused(address, "No space left").remedy


def test_a_run_is_found_by_name(fake, address):
    fake.run("a")["data"]["tags"] = [{"key": "mlflow.runName", "value": "renamed"}]
    assert named(address, "renamed").source.run_id == "a"
    with pytest.raises(SourceError):
        read(address, "nope")
