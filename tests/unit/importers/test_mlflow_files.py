"""MLflow's file store: as it is, also where it is broken, and never anything outside its own folder."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from bundler.errors import SourceError
from bundler.importers.mlflow import MlflowImporter
from bundler.importers.mlflow import files as mlflow_files
from bundler.importers.mlflow import metrics as mlflow_metrics
from tests.unit.importers.support import (
    copy_of,
    flags,
    make_run,
    named,
    read,
    refused,
    write,
)

SECRET = "root-secret"


@pytest.fixture
def store(tmp_path) -> Path:
    return copy_of("files", tmp_path / "store")


@pytest.fixture
def by_hand(tmp_path) -> Path:
    return tmp_path / "outside" / "mlruns"


def one(store: Path, **more):
    (run,) = read(store, None, **more)
    return run


def refused_by_hand(store: Path, match: str) -> SourceError:
    return refused(store, match, None)


def folder_of(store: Path, name: str) -> Path:
    """The folder of the run called ``name`` in a copy of the fixture."""
    (found,) = store.glob(f"*/{named(store, name).source.run_id}")
    return found


def replace_in(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")


# --- metric rows ------------------------------------------------------------------------------------------------------


def test_rows_are_points_in_order(by_hand):
    run = make_run(by_hand)
    write(run / "metrics" / "a" / "b", "2000 2.0 1\n1000 1.5 0\n2000 1.0 1\n")
    write(run / "metrics" / "a.b", "1 0.1 0\n")
    points = one(by_hand).points
    assert [(p.metric, p.timestamp, p.step, p.value) for p in points] == [
        ("a.b", 1, 0, 0.1),
        ("a/b", 1000, 0, 1.5),
        ("a/b", 2000, 1, 2.0),
        ("a/b", 2000, 1, 1.0),
    ]


def test_what_is_not_finite_is_kept_and_nothing_was_replaced(by_hand):
    run = make_run(by_hand)
    write(run / "metrics" / "m", "1 nan 0\n2 inf 1\n3 -inf 2\n4 1.7976931348623157e+308 3\n")
    made = one(by_hand)
    assert math.isnan(made.points[0].value)
    assert [p.value for p in made.points[1:]] == [math.inf, -math.inf, 1.7976931348623157e308]
    assert flags(made) == set()


def test_a_row_of_an_old_store_has_step_zero(by_hand):
    write(make_run(by_hand) / "metrics" / "m", "1000 0.5\n")
    assert [(p.step, p.value) for p in one(by_hand).points] == [(0, 0.5)]


def test_rows_that_are_no_points_are_flagged(by_hand):
    run = make_run(by_hand)
    rows = b"10 0.5\n9 nan 1\nrubbish\n\n11 -inf 2\n12 1 x\n13 0.25 3 two words abc\n14 0.125 4"
    write(run / "metrics" / "m", rows)
    made = one(by_hand)
    assert [(p.timestamp, p.step, repr(p.value)) for p in made.points] == [
        (9, 1, "nan"), (10, 0, "0.5"), (11, 2, "-inf"), (13, 3, "0.25"), (14, 4, "0.125"),
    ]  # fmt: skip
    assert {(each.field, each.flag, each.detail) for each in made.fidelity} == {
        ("metrics.m", "truncated", "line 3 is no point"),
        ("metrics.m", "truncated", "line 6 is no point"),
        ("metrics.m", "truncated", "line 8 may be cut"),
        ("metrics.m", "dataset_link_dropped", "1 points"),
    }


def test_junk_among_the_rows_is_no_point(by_hand):
    run = make_run(by_hand)
    junk = b"1 2\nx y z\n1\n\xff\xfe 1 1\n\n1 1 1.5\n" + b"9" * 3000 + b" 1 1\n7 0.5 7\n"
    write(run / "metrics" / "m", junk)
    made = one(by_hand)
    assert [p.step for p in made.points] == [0, 7]
    assert {("metrics.m", "truncated"), ("metrics.m", "not_utf8")} <= flags(made)


def test_a_row_that_lost_its_step_is_no_point(by_hand):
    write(make_run(by_hand) / "metrics" / "m", "10 0.5 7\n11 0.2")
    made = one(by_hand)
    assert [p.step for p in made.points] == [7]
    assert flags(made) == {("metrics.m", "truncated")}


def test_a_number_that_no_bundle_can_carry_is_no_point(by_hand):
    write(make_run(by_hand) / "metrics" / "m", f"1 1 {10**30}\n{10**30} 1 1\n1 2 3\n")
    assert [p.value for p in one(by_hand).points] == [2.0]


def test_many_bad_rows_are_few_flags(by_hand):
    write(make_run(by_hand) / "metrics" / "m", "x\n" * 50_000)
    details = [each.detail for each in one(by_hand).fidelity]
    shown = [f"line {number} is no point" for number in range(1, 6)]
    assert details == ["49995 more lines are no points", *shown]


# --- what is missing or broken ----------------------------------------------------------------------------------------


def test_a_run_with_missing_folders_is_read(by_hand):
    run = make_run(by_hand)
    (run / "metrics").rmdir()
    made = one(by_hand)
    assert (made.points, dict(made.parameters), made.artefacts) == ((), {}, ())
    assert made.status == "finished"


BROKEN = {
    "binary": b"\x00\xff\xfe" * 50,
    "a tag": b"!!python/object/apply:os.system ['touch /tmp/pwned']\n",
    "a bomb": b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n",
    "a list": b"- 1\n",
    "text": b"hello",
    "nothing": b"",
    "deep": b"[" * 1000,
    "no date": b"start_time: 2026-02-30\n",
    "a long number": b"start_time: " + b"9" * 5000 + b"\n",
    "an odd key": b"? [a]\n: 1\n",
    "a merge": b"<<: {run_id: x}\n",
    "an open list": b"a: [",
    "an anchor": b"a: &a 1\n",
    "an alias": b"b: *a\n",
}


@pytest.mark.parametrize("content", [None, *BROKEN.values()], ids=["missing", *BROKEN])
def test_a_run_whose_description_is_broken_is_kept_and_flagged(by_hand, content):
    make_run(by_hand)
    run = make_run(by_hand, run="b" * 32)
    write(run / "params" / "p", "0.1")
    write(run / "metrics" / "m", "1 2 3\n")
    (run / "meta.yaml").unlink()
    if content is not None:
        write(run / "meta.yaml", content)
    made, _ = read(by_hand, None)  # without a start, it comes first
    assert (made.source.run_id, made.status, made.deleted) == (run.name, "unknown", False)
    assert made.started is None
    assert made.parameters["p"] == "0.1"
    assert len(made.points) == 1
    assert ("run", "unreadable") in flags(made)


NO_EXPERIMENT = BROKEN | {"no id": b"name: x\n", "an id of the wrong kind": b"experiment_id: [1]\n"}


@pytest.mark.parametrize(
    "content", [None, *NO_EXPERIMENT.values()], ids=["missing", *NO_EXPERIMENT]
)
def test_an_experiment_whose_description_is_broken_is_refused(by_hand, content):
    """Leaving it out would leave out its runs in silence."""
    make_run(by_hand)
    described = by_hand / "1" / "meta.yaml"
    described.unlink()
    if content is not None:
        write(described, content)
    assert "meta.yaml" in refused_by_hand(by_hand, "does not describe an experiment").message


def test_a_folder_without_runs_and_description_is_no_experiment(by_hand):
    make_run(by_hand)
    (by_hand / "notes").mkdir()
    assert one(by_hand)


def test_a_status_may_be_a_word(by_hand):
    make_run(by_hand, status="FINISHED")
    assert one(by_hand).status == "finished"


def test_values_of_the_wrong_kind_in_a_description_are_unknown(by_hand):
    make_run(by_hand, status="[3]", start_time="soon", end_time="true", run_name="7")
    made = one(by_hand)
    assert (made.status, made.started, made.ended) == ("unknown", None, None)


def test_what_is_no_time_is_flagged_and_a_whole_number_is_one(by_hand):
    make_run(by_hand, run="a" * 32, start_time="1700000000000.0", end_time="1700000000000.5")
    make_run(by_hand, run="b" * 32, start_time="soon", end_time=str(2**60))
    make_run(by_hand, run="c" * 32, start_time="999999999999999")
    second, third, first = read(by_hand, None)
    assert (first.started, first.ended) == (1_700_000_000_000, None)
    assert flags(first) == {("run", "time_unreadable")}
    assert flags(second) == {("run", "time_unreadable"), ("run", "time_out_of_range")}
    assert flags(third) == {("run", "time_out_of_range")}


def test_what_a_description_says_can_be_written_as_utf8(by_hand):
    make_run(by_hand, run_name='"\\ud800"')
    write(by_hand / "1" / "meta.yaml", 'experiment_id: "1"\nname: "\\ud800"\n')
    made = one(by_hand)
    for text in (made.name or "", made.source.experiment, made.source.run_id):
        text.encode()


def test_text_that_is_not_utf8_is_escaped_and_flagged(by_hand):
    run = make_run(by_hand)
    write(run / "params" / "p", b"\xffA")
    write(run / "tags" / "t", b"\xfe")
    write(run / "tags" / os.fsdecode(b"t\xfd"), "x")
    made = one(by_hand)
    assert made.parameters["p"] == "\\xffA"
    assert dict(made.tags) == {"t": "\\xfe", "t\\xfd": "x"}
    marked = {each for each in flags(made) if each[1] == "not_utf8"}
    assert marked == {("parameters.p", "not_utf8"), ("tags.t", "not_utf8"), ("tags", "not_utf8")}


def test_a_run_folder_whose_name_is_not_utf8_gets_a_name(by_hand):
    make_run(by_hand).rename(by_hand / "1" / os.fsdecode(b"r\xff"))
    assert one(by_hand).source.run_id == "r\\xff"


@pytest.mark.parametrize("identity", ["..", "../../../secret", "/etc", ".", "", "x\\0y", "[1]"])
def test_a_data_set_is_looked_for_only_among_the_data_sets(by_hand, identity):
    outside = write(by_hand.parent / "secret" / "meta.yaml", f"name: {SECRET}\n")
    run = make_run(by_hand)
    (by_hand / "1" / "datasets").mkdir()
    described = f'source_type: DATASET\nsource_id: "{identity}"\ndestination_id: "{identity}"\n'
    write(run / "inputs" / "i" / "meta.yaml", described)
    assert outside.exists()
    made = one(by_hand)
    assert all(SECRET not in each.name for each in made.data)
    assert [each.rows for each in made.data] == [None]
    assert ("data", "unreadable") in flags(made)


def test_a_data_set_without_a_description_is_named_and_flagged(by_hand):
    run = make_run(by_hand)
    write(run / "inputs" / "i" / "meta.yaml", "source_type: DATASET\nsource_id: gone\n")
    write(run / "inputs" / "broken" / "meta.yaml", "]")
    write(run / "inputs" / "model" / "meta.yaml", "source_type: MODEL_INPUT\nsource_id: m-1\n")
    made = one(by_hand)
    assert [each.name for each in made.data] == ["gone"]
    unreadable = [each.detail for each in made.fidelity if each.flag == "unreadable"]
    assert unreadable == ["datasets/gone", "inputs/broken/meta.yaml"]


def test_a_data_set_without_tags_has_no_role(store):
    for described in (folder_of(store, "files") / "inputs").glob("*/meta.yaml"):
        replace_in(described, "tags:", "tags: []\nother:")
    assert [each.role for each in named(store, "files").data] == [None, None, None]


def test_an_empty_folder_is_no_store(tmp_path):
    refused_by_hand(tmp_path, "holds no MLflow experiment")
    assert MlflowImporter().detect(tmp_path) == ()


def test_a_run_folder_is_no_experiment(by_hand):
    make_run(by_hand)
    refused_by_hand(by_hand / "1", "holds no MLflow experiment")
    assert MlflowImporter().detect(by_hand / "1") == ()


@pytest.mark.parametrize("place", ["", "1", "1/RUN/inputs"])
def test_a_folder_that_cannot_be_listed_is_refused(by_hand, place, monkeypatch):
    run = make_run(by_hand)
    (run / "inputs").mkdir()
    closed = by_hand / place.replace("RUN", run.name)
    scandir = os.scandir

    def denied(path):
        if os.fspath(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert closed.name in refused_by_hand(by_hand, "Permission denied").message
    assert (MlflowImporter().detect(by_hand.parent) == ()) == (place == "")


def test_a_store_that_vanishes_is_refused(by_hand, monkeypatch):
    make_run(by_hand)

    def gone(path):
        raise OSError(5, "Input/output error")

    with MlflowImporter().open(by_hand, experiment=None, artefacts=None) as session:
        with monkeypatch.context() as patch, pytest.raises(SourceError, match="Input/output error"):
            patch.setattr(os, "scandir", gone)
            list(session)
        assert len(list(session)) == 1


@pytest.mark.parametrize("group", ["params", "tags", "metrics"])
def test_a_run_of_which_one_folder_is_left_is_kept_and_flagged(by_hand, group):
    make_run(by_hand)
    write(by_hand / "1" / ("b" * 32) / group / "x", "1 2 3\n")
    made, _ = read(by_hand, None)
    assert (made.source.run_id, made.status) == ("b" * 32, "unknown")
    assert ("run", "unreadable") in flags(made)


def rewritten(store: Path) -> None:
    write(store / "1" / ("b" * 32) / "metrics" / "loss", "1 0.1 0\n")


def removed(store: Path) -> None:
    (store / "1" / ("a" * 32) / "metrics" / "loss").unlink()


def described_anew(store: Path) -> None:
    write(store / "1" / "meta.yaml", "experiment_id: '1'\nname: other\n")


def one_more(store: Path) -> None:
    make_run(store, run="c" * 32)


@pytest.mark.parametrize("change", [rewritten, removed, described_anew, one_more])
def test_a_store_that_changes_while_it_is_read_is_refused(by_hand, change):
    for name in "ab":
        write(make_run(by_hand, run=name * 32) / "metrics" / "loss", "1 0.5 0\n")
    with (
        pytest.raises(SourceError, match="changed while it was being read") as error,
        MlflowImporter().open(by_hand, experiment=None, artefacts=None) as session,
    ):
        runs = iter(session)
        next(runs)
        change(by_hand)
        list(runs)
    assert "import a copy" in error.value.remedy


def test_runs_that_come_after_they_were_counted_are_noticed(by_hand):
    make_run(by_hand)
    with (
        pytest.raises(SourceError, match="changed while it was being read"),
        MlflowImporter().open(by_hand, experiment=None, artefacts=None) as session,
    ):
        one_more(by_hand)
        list(session)


def test_what_is_no_part_of_a_run_may_change(by_hand):
    run = make_run(by_hand)
    write(run / "metrics" / "artifacts" / "x", "1 2 3\n")
    for name in ("traces", "models/m"):
        write(by_hand / "1" / name / "meta.yaml", "a: 1\n")
    with MlflowImporter().open(by_hand, experiment=None, artefacts=None) as session:
        list(session)
        write(run / "artifacts" / "late.bin", "x")
        write(by_hand / "1" / "traces" / "t" / "x", "x")
        write(by_hand / "1" / "models" / "m" / "artifacts" / "x", "x")
        list(session)


def test_an_experiment_that_is_there_twice_is_refused(by_hand):
    make_run(by_hand)
    make_run(by_hand, experiment="2")
    write(by_hand / "2" / "meta.yaml", "experiment_id: '1'\nname: hand\n")
    refused_by_hand(by_hand, "twice")


def test_a_run_folder_that_was_renamed_is_flagged(by_hand):
    folder = make_run(by_hand)
    folder.rename(folder.with_name("copy"))
    made = one(by_hand)
    assert made.source.run_id == "copy"
    assert ("run", "id_mismatch") in flags(made)


def test_a_row_that_is_longer_than_any_of_mlflow_is_refused(by_hand):
    write(make_run(by_hand) / "metrics" / "m", "1 1 1" + " " * 100_000 + "\n")
    refused_by_hand(by_hand, "in one row")


def test_artefacts_that_a_server_keeps_in_the_store_are_read(by_hand):
    run = make_run(by_hand, artifact_uri=f"mlflow-artifacts:/1/{'a' * 32}/artifacts")
    file = write(run / "artifacts" / "model.bin", "x")
    made = one(by_hand)
    assert [each.file for each in made.artefacts] == [file]
    assert made.fidelity == ()


# --- artefacts --------------------------------------------------------------------------------------------------------


def test_artefacts_elsewhere_are_flagged(by_hand):
    make_run(by_hand, artifact_uri="s3://bucket/1/r/artifacts")
    (flag,) = one(by_hand).fidelity
    assert (flag.field, flag.flag) == ("artefacts", "artefacts_unreachable")
    assert "s3" in flag.detail


def test_artefacts_on_a_server(store, tmp_path):
    """MLflow makes the run's own folder for them all the same, and leaves it empty."""
    run = folder_of(store, "files")

    def own(**more):
        made = named(store, "files", **more)
        return [each.path for each in made.artefacts if not each.path.startswith("models/")]

    paths = own()
    text = (run / "meta.yaml").read_text("utf-8")
    write(run / "meta.yaml", re.sub("artifact_uri: .*", "artifact_uri: mlflow-artifacts:/7/run/artifacts", text))  # fmt: skip
    served = store.parent / "mlartifacts"
    (served / "7" / "run").mkdir(parents=True)
    (run / "artifacts").rename(served / "7" / "run" / "artifacts")
    (run / "artifacts").mkdir()
    assert own() == paths
    served.rename(tmp_path / "given")
    assert own() == []
    assert ("artefacts", "artefacts_unreachable") in flags(named(store, "files"))
    assert own(artefacts=tmp_path / "given") == paths


def test_a_store_that_was_renamed_finds_its_own_files(store):
    paths = [each.path for each in named(store, "files").artefacts]
    moved = store.rename(store.with_name("copy of mlruns"))
    assert [each.path for each in named(moved, "files").artefacts] == paths


# --- hostile stores ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri", ["file:///etc", "/etc", "../../../../etc", "mlflow-artifacts:/../../etc", "file:../.."]
)
def test_a_foreign_store_cannot_point_at_the_readers_files(by_hand, uri):
    write(by_hand.parent / "secret", SECRET)
    make_run(by_hand, artifact_uri=f'"{uri}"')
    write(
        by_hand / "1" / "models" / "m-1" / "meta.yaml",
        f'source_run_id: {"a" * 32}\nartifact_location: "{uri}"\n',
    )
    for each in one(by_hand, confined=True).artefacts:
        assert by_hand in each.file.resolve().parents


LINKS = [
    "1/RUN/metrics/m",
    "1/RUN/params/p",
    "1/RUN/tags/t",
    "1/RUN/artifacts/a",
    "1/RUN/meta.yaml",
    "1/RUN/metrics",
    "1/RUN/params",
    "1/RUN/tags",
    "1/RUN/artifacts",
    "1/RUN/inputs",
    "1/datasets",
    "1/models",
    "1/other",
    "2",
    ".trash",
]


@pytest.mark.parametrize("place", LINKS)
def test_a_link_is_never_followed(by_hand, place):
    """Whatever is a link, nothing of what it leads to comes in (or the store is refused)."""
    outside = by_hand.parent.parent / "readers"
    for name in ("m", "p", "t", "a"):
        write(outside / "flat" / name, f"1 4711.0 1\n{SECRET}\n")
    elsewhere = make_run(outside / "tree", experiment="9", run=SECRET)
    write(elsewhere / "params" / "p", SECRET)
    write(outside / "i" / "meta.yaml", f"source_type: DATASET\nsource_id: {SECRET}\n")
    run = make_run(by_hand)
    link = by_hand / place.replace("RUN", run.name)
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    targets = {
        "meta.yaml": elsewhere / "meta.yaml",
        "inputs": outside,
        "datasets": outside / "tree",
        "models": outside / "tree" / "9",
        "other": elsewhere,
        "2": elsewhere.parent,
        ".trash": outside / "tree",
    }
    default = outside / "flat" if len(place.split("/")) < 4 else outside / "flat" / link.name
    link.symlink_to(targets.get(link.name, default))
    try:
        runs = [
            run
            for name in MlflowImporter().experiments(by_hand)
            for run in read(by_hand, name, confined=True)
        ]
    except SourceError:
        return
    shown = repr([(r, [a.file and a.file.read_text() for a in r.artefacts]) for r in runs])
    assert SECRET not in shown
    assert "4711" not in shown


def test_a_link_inside_a_run_is_flagged(by_hand, tmp_path):
    secret = write(tmp_path / "secret" / "key", SECRET)
    run = make_run(by_hand)
    (run / "params").mkdir()
    (run / "params" / "stolen").symlink_to(secret)
    (run / "params" / "all").symlink_to(secret.parent)
    (run / "artifacts").symlink_to(secret.parent)
    made = one(by_hand)
    assert (dict(made.parameters), made.artefacts) == ({}, ())
    assert {(each.field, each.flag, each.detail) for each in made.fidelity} == {
        ("parameters", "symlink_skipped", "all"),
        ("parameters", "symlink_skipped", "stolen"),
        ("artefacts", "symlink_skipped", "."),
    }


def test_a_linked_description_is_not_read(by_hand, tmp_path):
    described = make_run(by_hand) / "meta.yaml"
    described.symlink_to(described.rename(tmp_path / "meta.yaml"))
    assert flags(one(by_hand)) == {("run", "unreadable")}


def test_a_linked_run_is_refused_and_a_link_to_no_run_is_not(by_hand, tmp_path):
    run = make_run(by_hand)
    (by_hand / "stale").symlink_to(tmp_path)
    assert one(by_hand)
    run.symlink_to(run.rename(tmp_path / "moved"))
    refused_by_hand(by_hand, "is a link")
    assert MlflowImporter().detect(by_hand / "1") == ()


def test_pipes_and_devices_are_not_opened(by_hand):
    run = make_run(by_hand)
    for place in ("metrics/m", "params/p", "tags/t"):
        (run / place).parent.mkdir(exist_ok=True)
        os.mkfifo(run / place)
    (run / "meta.yaml").unlink()
    os.mkfifo(run / "meta.yaml")
    made = one(by_hand)
    assert made.points == ()
    assert ("run", "unreadable") in flags(made)


def sparse(file: Path, size: int) -> None:
    write(file, "")
    os.truncate(file, size)


@pytest.mark.parametrize(
    "place", ["1/meta.yaml", "1/RUN/meta.yaml", "1/RUN/params/p", "1/RUN/tags/t", "1/RUN/metrics/m"]
)
def test_a_huge_file_is_refused_before_it_is_read(by_hand, place):
    run = make_run(by_hand)
    sparse(by_hand / place.replace("RUN", run.name), 4 << 30)
    tracemalloc.start()
    try:
        error = refused_by_hand(by_hand, "holds more than")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert Path(place).name in error.message
    assert peak < 64 << 20


def test_many_large_values_of_one_run_are_refused(by_hand, monkeypatch):
    monkeypatch.setattr(mlflow_files, "MAX_TEXT", 1000)
    run = make_run(by_hand)
    for number in range(5):
        write(run / "params" / f"p{number}", "x" * 300)
    refused_by_hand(by_hand, "1,000 bytes of parameters and tags")


def test_too_many_points_of_one_run_are_refused(by_hand, monkeypatch):
    monkeypatch.setattr(mlflow_metrics, "MAX_POINTS", 10)
    run = make_run(by_hand)
    write(run / "metrics" / "a", "1 1 1\n" * 6)
    write(run / "metrics" / "b", "1 1 1\n" * 4)
    assert len(one(by_hand).points) == 10
    write(run / "metrics" / "c", "1 1 1\n")
    refused_by_hand(by_hand, "more than 10 metric points")


@pytest.mark.parametrize("group", ["artifacts", "metrics", "params"])
def test_folders_inside_one_another_have_an_end(by_hand, group):
    folder = make_run(by_hand) / group
    folder.mkdir(exist_ok=True)
    here = os.open(folder, os.O_RDONLY)
    try:
        # Longer than any path that the system takes at once.
        for _ in range(40):
            os.mkdir("d" * 200, dir_fd=here)
            deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
    finally:
        os.close(here)
    made = one(by_hand)
    assert made.points == ()
    assert "unreadable" in {each.flag for each in made.fidelity}


def test_a_tree_of_artefacts_may_be_deeper_than_pythons_stack(by_hand):
    root = make_run(by_hand) / "artifacts"
    root.mkdir()
    depth = sys.getrecursionlimit() + 100
    here = Path.cwd()
    try:
        os.chdir(root)
        for _ in range(depth):
            Path("d").mkdir()
            os.chdir("d")
        Path("leaf").touch()
        os.chdir(here)
        made = one(by_hand)
    finally:
        os.chdir(here)
        # Python's rmtree, which pytest uses, cannot.
        subprocess.run(["rm", "-rf", str(root)], check=True)
    assert [each.path for each in made.artefacts] == ["d/" * depth + "leaf"]
