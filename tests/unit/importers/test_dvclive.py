"""DVCLive's folders: what its own readers say (expected.json), what it lets through, and what others could write."""

from __future__ import annotations

import math
import os
import shutil
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler.errors import SourceError
from bundler.importers.dvc import dvclive
from bundler.importers.dvc import metrics as dvc_metrics
from bundler.importers.dvc.dvclive import DvcliveImporter
from tests.unit.importers.dvc_support import LIVE, LIVE_EXPECTED, contents, details, flags, write

FUZZ = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TSV = "step\tloss\n0\t1.0\n1\t0.5\n"


def read(store: Path, experiment: str | None = None):
    with DvcliveImporter().open(store, experiment=experiment, artefacts=None) as session:
        runs = list(session)
        assert len(session) == len(runs)
    return runs


@cache
def fixtures():
    found = {f"story/{run.source.run_id}": run for run in read(LIVE / "story")}
    (found["odd"],) = read(LIVE / "odd")
    return found


def made(folder: Path, summary: str = '{"loss": 0.5, "step": 1}', series: str = TSV) -> Path:
    write(folder / "metrics.json", summary)
    write(folder / "plots" / "metrics" / "loss.tsv", series)
    return folder


def refused(store: Path, match: str) -> SourceError:
    with pytest.raises(SourceError, match=match) as error:
        read(store)
    assert error.value.remedy
    assert (error.value.message + error.value.remedy).isprintable()
    return error.value


# --- the oracle ---------------------------------------------------------------------------------------------------------


def flat(value, separator, prefix=""):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat(item, separator, f"{prefix}{key}{separator}")
    else:
        yield prefix[: -len(separator)], value


@pytest.mark.parametrize("name", LIVE_EXPECTED)
def test_every_row_of_every_series_is_that_of_dvclive(name):
    run = fixtures()[name]
    numbers = {
        metric: rows for metric, rows in LIVE_EXPECTED[name]["series"].items() if metric != "word"
    }
    for metric, rows in numbers.items():
        theirs = []
        for row in rows:
            cells = [c for cell in row.values() for c in (cell if isinstance(cell, list) else [cell]) if c]  # fmt: skip
            theirs.append((int(cells[-2]), repr(float(cells[-1]))))
            if len(cells) == 3:
                assert int(cells[0]) in {point.timestamp for point in run.points}
        mine = [(point.step, repr(point.value)) for point in run.points if point.metric == metric]
        added = len(mine) - len(theirs)
        assert sorted(mine[: len(theirs)]) == sorted(theirs)
        assert added == (metric == "back")


@pytest.mark.parametrize("name", LIVE_EXPECTED)
def test_last_values_are_those_of_dvclive(name):
    summary = dict(flat(LIVE_EXPECTED[name]["summary"], "/"))
    expected = {
        key: repr(float(value))
        for key, value in summary.items()
        if key not in {"step", "word", "list", "flag"}
    }
    last = {point.metric: repr(point.value) for point in fixtures()[name].points}
    assert last == expected


@pytest.mark.parametrize("name", LIVE_EXPECTED)
def test_parameters_are_those_of_dvclive_with_their_types(name):
    for key, value in flat(LIVE_EXPECTED[name]["parameters"], "."):
        mine = fixtures()[name].parameters[key]
        if isinstance(value, list):
            assert mine == "[0.9,0.999]"
        else:
            assert value in (mine, repr(mine))
            assert isinstance(mine, float) or type(mine) is type(value)


def test_artefacts_are_the_other_files():
    runs = fixtures()
    assert [each.path for each in runs["story/baseline"].artefacts] == ["model.bin"]
    assert runs["story/baseline"].artefacts[0].file.read_bytes() == b"model 0.1"
    assert runs["story/crashed"].artefacts == ()


# --- what it does not say -----------------------------------------------------------------------------------------------


def test_nobody_knows_whether_a_run_ended():
    """DVCLive leaves the same files after an exception."""
    assert {run.status for run in fixtures().values()} == {"unknown"}


def test_times_are_those_of_the_values_or_unknown(tmp_path):
    run = fixtures()["story/baseline"]
    times = [point.timestamp for point in run.points if point.timestamp]
    assert (run.started, run.ended) == (min(times), max(times))
    assert ("run", "times_of_values") in flags(run)
    assert ("metrics.val_loss", "time_unknown") in flags(run)
    (run,) = read(made(tmp_path))
    assert (run.started, run.ended, run.name) == (None, None, tmp_path.name)
    assert ("run", "times_of_values") not in flags(run)


def test_nan_and_infinity_are_numbers():
    values = [p.value for p in fixtures()["story/diverged"].points if p.metric == "val_loss"]
    assert math.isnan(values[3])
    assert values[4] == math.inf


def test_what_dvclive_lets_through_is_flagged():
    run = fixtures()["odd"]
    assert {("metrics.word", "not_a_number"), ("metrics.list", "not_a_number"),
            ("metrics.flag", "not_a_number"), ("metrics.back", "summary_differs"),
            ("metrics.deep/er/loss", "time_unknown")} <= flags(run)  # fmt: skip
    assert "word" not in {point.metric for point in run.points}


def test_a_step_that_was_logged_twice_is_flagged(tmp_path):
    (run,) = read(made(tmp_path, series=TSV + "1\t0.5\n"))
    assert details(run, "metrics.loss", "duplicate_step") == ["1 points"]


def test_a_folder_without_last_values_or_without_series_is_a_run(tmp_path):
    folder = made(tmp_path)
    (folder / "metrics.json").unlink()
    (run,) = read(folder)
    assert [point.value for point in run.points] == [1.0, 0.5]
    assert ("metrics", "missing") in flags(run)
    shutil.rmtree(made(tmp_path) / "plots")
    (run,) = read(folder)
    assert [(point.step, point.value) for point in run.points] == [(1, 0.5)]


# --- stores -------------------------------------------------------------------------------------------------------------


def test_runs_are_in_order_of_their_first_value_and_those_without_a_time_come_first(tmp_path):
    timed = "timestamp\tstep\tloss\n{}\t0\t1.0\n"
    for name, time in (("a", 900), ("b", 500), ("c", None), ("d", 500)):
        made(tmp_path / name, series=TSV if time is None else timed.format(time))
    write(tmp_path / "notes.txt", "")
    runs = read(tmp_path)
    assert [run.name for run in runs] == ["c", "b", "d", "a"]
    assert DvcliveImporter().experiments(tmp_path) == (tmp_path.name,)
    assert len(read(tmp_path, tmp_path.name)) == 4


def test_a_store_is_detected_by_what_is_in_it(tmp_path):
    importer = DvcliveImporter()
    assert importer.detect(LIVE / "odd") == (LIVE / "odd",)
    assert len(importer.detect(LIVE / "story")) == 3
    assert importer.detect(tmp_path) == ()
    assert importer.detect(tmp_path / "nowhere") == ()
    assert importer.detect(LIVE / "odd" / "metrics.json") == ()


def test_reading_twice_gives_the_same_and_changes_nothing():
    before = contents(LIVE)
    with DvcliveImporter().open(LIVE / "story", experiment=None, artefacts=None) as session:
        assert repr(list(session)) == repr(list(session))
    assert contents(LIVE) == before


def test_what_is_no_store_is_refused(tmp_path, monkeypatch):
    refused("https://studio.example.org/x", "no folder of DVCLive")
    refused(tmp_path / "nowhere", "no folder of DVCLive")
    refused(tmp_path, "no metrics.json")
    with pytest.raises(SourceError, match="no experiment 'other'"):
        read(LIVE / "story", "other")
    monkeypatch.setattr(dvclive, "MAX_RUNS", 2)
    refused(LIVE / "story", "more than 2 runs")


# --- broken and hostile -------------------------------------------------------------------------------------------------

BROKEN = {
    "a list": ("metrics.json", "[]", "not an object"),
    "no JSON": ("metrics.json", '{"a": 1', "no JSON at character 7"),
    "a name twice": ("metrics.json", '{"a": 1, "a": 2}', "twice"),
    "a huge number": ("metrics.json", '{"a": 1e400}', "too large"),
    "a long number": ("metrics.json", '{"a": ' + "9" * 5000 + "}", "digits"),
    "deep JSON": ("metrics.json", '{"a":' * 5000, "nested too deep"),
    "nested JSON": ("metrics.json", '{"a":' * 100 + "1" + "}" * 100, "nested too deep"),
    "many values": ("metrics.json", '{"a": [' + "1," * 100_000 + "1]}", "more than 100,000 values"),
    "no UTF-8": ("metrics.json", b"\xff", "not UTF-8"),
    "no mapping": ("params.yaml", "[1]", "not a mapping"),
    "a tag": ("params.yaml", "a: !!python/none x", "tags are not read"),
    "no series": ("plots/metrics/x.tsv", "<html>", "the first row is not"),
    "a long row": ("plots/metrics/x.tsv", "step\tx\n" + "1" * 70_000, "more than 65,536 bytes in row 2"),
    "a series twice": ("plots/metrics/loss.csv", TSV, "a second series of 'loss'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_dvclive_would_not_have_written_is_refused(name, tmp_path):
    path, text, words = BROKEN[name]
    write(made(tmp_path) / path, text)
    error = refused(tmp_path, words)
    assert "is not as DVCLive writes it" in error.message
    assert Path(path).parent.name in error.message


def test_an_empty_file_of_parameters_is_none(tmp_path):
    write(made(tmp_path) / "params.yaml", "")
    assert read(tmp_path)[0].parameters == {}


@pytest.mark.parametrize("path", ["metrics.json", "params.yaml"])
def test_links_are_refused(path, tmp_path):
    secret = write(tmp_path / "secret", "{}")
    folder = made(tmp_path / "run")
    (folder / path).unlink(missing_ok=True)
    (folder / path).symlink_to(secret)
    refused(folder, "a link")


def test_links_to_series_runs_and_artefacts_are_not_followed(tmp_path):
    made(tmp_path / "store" / "run")
    made(tmp_path / "other")
    (tmp_path / "store" / "latest").symlink_to(tmp_path / "store" / "run")
    (tmp_path / "store/run/plots/metrics/b.tsv").symlink_to(tmp_path / "other/plots/metrics/loss.tsv")  # fmt: skip
    (tmp_path / "store/run/model.bin").symlink_to(tmp_path / "other" / "metrics.json")
    (run,) = read(tmp_path / "store")
    assert {point.metric for point in run.points} == {"loss"}
    assert run.artefacts == ()
    assert ("artefacts", "symlink_skipped") in flags(run)


@pytest.mark.parametrize("target", ["other", "nowhere"])
def test_a_link_to_a_run_that_lies_elsewhere_or_to_nothing_is_refused(target, tmp_path):
    made(tmp_path / "store" / "run")
    made(tmp_path / "other")
    (tmp_path / "store" / "linked").symlink_to(tmp_path / target)
    assert "the run's folder itself" in refused(tmp_path / "store", "linked' is a link").remedy


def test_a_folder_above_the_series_that_is_a_link_is_not_followed(tmp_path):
    made(tmp_path / "other")
    write(tmp_path / "run" / "metrics.json", "{}")
    (tmp_path / "run" / "plots").symlink_to(tmp_path / "other" / "plots")
    (run,) = read(tmp_path / "run")
    assert run.points == ()
    assert "plots" in details(run, "artefacts", "symlink_skipped")


@pytest.mark.parametrize("name", ["params.yaml", "dvc.yaml", "report.html", "report.md"])
def test_a_run_that_crashed_before_its_first_metric_is_a_run(name, tmp_path):
    made(tmp_path / "whole")
    write(tmp_path / "crashed" / name, "lr: 0.9\n")
    runs = {run.name: run for run in read(tmp_path)}
    assert runs.keys() == {"whole", "crashed"}
    assert (runs["crashed"].status, runs["crashed"].points) == ("unknown", ())
    assert ("metrics", "missing") in flags(runs["crashed"])
    (alone,) = read(tmp_path / "crashed")
    assert alone.name == "crashed"
    assert DvcliveImporter().detect(tmp_path / "crashed") == ()


def test_sizes_and_points_are_bounded(tmp_path, monkeypatch):
    folder = made(tmp_path)
    for owner, name, words in (
        (dvclive, "MAX_FILE", "more than 3 bytes"),
        (dvc_metrics, "MAX_SERIES", "more than 3 bytes"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, 3)
            refused(folder, words)
    write(folder / "plots" / "metrics" / "more.tsv", TSV * 1)
    monkeypatch.setattr(dvc_metrics, "MAX_POINTS", 3)
    refused(folder, "more than 3 metric points")


@pytest.mark.parametrize("name", ["metrics.json", "loss.tsv"])
def test_a_file_that_cannot_be_read_is_an_error(name, tmp_path, monkeypatch):
    folder = made(tmp_path)
    before = Path.open

    def denied(self, *arguments, **more):
        if self.name == name:
            raise PermissionError(13, "Permission denied", str(self))
        return before(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", denied)
    refused(folder, f"{name}' cannot be read")


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    def denied(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", denied)
    refused(tmp_path, "cannot be read")


def test_a_run_that_holds_a_pipe_does_not_block(tmp_path):
    folder = made(tmp_path)
    os.mkfifo(folder / "plots" / "metrics" / "x.tsv")
    os.mkfifo(folder / "model.bin")
    (run,) = read(folder)
    assert ("artefacts", "special_skipped") in flags(run)
    (folder / "metrics.json").unlink()
    os.mkfifo(folder / "metrics.json")
    refused(folder, "no regular file")


def survives(store: Path) -> None:
    try:
        texts = [repr(run) for run in read(store)]
    except SourceError as error:
        texts = [error.message, error.remedy]
    for text in texts:
        text.encode()


FILES = sorted(
    path.relative_to(LIVE / "odd") for path in (LIVE / "odd").rglob("*") if path.is_file()
)


@FUZZ
@given(st.sampled_from(FILES), st.integers(0, 200), st.integers(0, 30), st.binary(max_size=20))
def test_changed_files_give_runs_or_an_error(tmp_path, file, start, length, junk):
    store = tmp_path / "odd"
    if not store.exists():
        shutil.copytree(LIVE / "odd", store)
    data = (LIVE / "odd" / file).read_bytes()
    try:
        write(store / file, data[:start] + junk + data[start + length :])
        survives(store)
    finally:
        write(store / file, data)
