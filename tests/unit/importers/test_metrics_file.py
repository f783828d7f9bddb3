"""Metrics that a script wrote into plain files: as pandas and json read them, and what such files do not hold."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.errors import SourceError
from bundler.importers import find
from bundler.importers.dvc import metrics as dvc_metrics
from bundler.importers.metrics_file import MetricsFileImporter, rows
from bundler.importers.model import ImportedRun
from tests.unit.importers.support import flags, state, write

FUZZ = settings(deadline=None)

FIXTURES = Path(__file__).parents[2] / "fixtures" / "metrics-file"
STORY = FIXTURES / "story"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
LINES = (STORY / "lines" / "metrics.jsonl").read_bytes()
TABLE = (STORY / "table" / "metrics.csv").read_bytes()
SUMMARY = (STORY / "lists" / "metrics.json").read_bytes()


def read(store: Path, artefacts: Path | None = None) -> dict[str, ImportedRun]:
    with MetricsFileImporter().open(store, experiment=None, artefacts=artefacts) as session:
        runs = list(session)
        assert len(session) == len(runs)
    return {run.source.run_id: run for run in runs}


def the_run(store: Path) -> ImportedRun:
    (run,) = read(store).values()
    return run


def refused(store: Path, match: str) -> SourceError:
    with pytest.raises(SourceError, match=match) as error:
        read(store)
    assert error.value.remedy
    assert (error.value.message + error.value.remedy).isprintable()
    return error.value


def values(run: ImportedRun) -> set[tuple[str, int, str]]:
    return {(point.metric, point.step, repr(point.value)) for point in run.points}


def series(run: ImportedRun, metric: str) -> list[str]:
    return [repr(point.value) for point in run.points if point.metric == metric]


@pytest.mark.parametrize(
    ("run", "step"),
    [("lines", "step"), ("table", "epoch"), ("frame", "epoch"), ("crashed", "epoch")],
)
def test_every_number_is_the_one_that_pandas_reads_to_the_last_bit(run, step):
    found = read(STORY)[run]
    compared = 0
    for metric, numbers in EXPECTED[run].items():
        if metric in {step, "timestamp"} or metric.startswith("Unnamed"):
            continue
        # pandas writes NaN as an empty cell, and reads any empty cell as NaN.
        assert series(found, metric) == [
            each for each in numbers if run != "frame" or each != "nan"
        ]
        compared += 1
    assert compared >= 2


def test_a_cell_that_is_empty_may_be_no_number_and_is_flagged():
    assert ("metrics.train_loss", "null_ambiguous") in flags(read(STORY)["frame"])
    assert ("metrics", "column_without_name") in flags(read(STORY)["frame"])


def test_steps_and_times_are_those_of_the_lines():
    run = read(STORY)["lines"]
    losses = [(p.step, p.timestamp) for p in run.points if p.metric == "train_loss"]
    assert losses == [(10 * n, 1_760_000_000_250 + 1000 * n) for n in range(5)]
    assert (run.started, run.ended) == (1_760_000_000_250, 1_760_000_004_250)
    assert ("run", "times_of_values") in flags(run)


def test_lists_of_values_and_of_pairs_are_read_and_positions_are_flagged():
    run = read(STORY)["lists"]
    summary = json.loads(SUMMARY)
    assert series(run, "train_loss") == [repr(each) for each in summary["train_loss"]]
    assert series(run, "val_auc") == [repr(each["value"]) for each in summary["val_auc"]]
    assert ("metrics.train_loss", "no_step") in flags(run)
    assert ("metrics.val_auc", "no_step") not in flags(run)
    losses = [point.value for point in run.points if point.metric == "train_loss"]
    assert math.isnan(losses[3])
    assert losses[4] == math.inf


def test_final_values_stand_at_the_step_that_they_name():
    assert ("holdout_auc", 4, "0.752") in values(read(STORY)["table"])
    assert ("holdout.brier", 4, "0.18") in values(read(STORY)["table"])
    assert ("holdout_auc", 0, "0.751") in values(read(STORY)["lines"])


def test_parameters_keep_their_types_and_those_of_yaml_are_the_same_as_those_of_json():
    found = read(STORY)
    assert found["lines"].parameters == {
        "lr": 0.1, "seed": 7, "layers": "[8,4]", "optimiser.name": "sgd", "optimiser.nesterov": True
    }  # fmt: skip
    assert {**found["lines"].parameters, "lr": 0.2} == found["table"].parameters


def test_nothing_says_that_a_run_ended_and_a_line_that_is_cut_is_flagged():
    run = read(STORY)["crashed"]
    assert {each.status for each in read(STORY).values()} == {"unknown"}
    assert ("metrics", "truncated_file") in flags(run)
    assert len(series(run, "train_loss")) == 3


def test_all_files_are_artefacts_and_files_elsewhere_are_added(tmp_path):
    write(tmp_path / "lines" / "report.txt", "hello")
    run = read(STORY, tmp_path)["lines"]
    assert {each.path for each in run.artefacts} == {
        *("environment.json", "metrics.json", "metrics.jsonl", "model.bin", "params.json"),
        "report.txt",
    }


def test_a_run_and_a_folder_of_runs_can_be_given_and_reading_twice_gives_the_same():
    before = state(FIXTURES)
    alone = the_run(STORY / "table")
    assert (alone.source.run_id, alone.name) == (".", "table")
    assert alone.points == read(STORY)["table"].points
    with MetricsFileImporter().open(STORY, experiment="story", artefacts=None) as session:
        first, second = list(session), list(session)
    assert repr(first) == repr(second)
    # By start; those that have none come first, by name.
    assert [run.source.run_id for run in first] == ["crashed", "frame", "lists", "table", "lines"]
    assert state(FIXTURES) == before


def test_what_lies_below_a_run_belongs_to_it(tmp_path):
    write(tmp_path / "a" / "metrics.json", '{"auc": 0.5}')
    write(tmp_path / "a" / "fold-1" / "metrics.json", '{"auc": 0.9}')
    write(tmp_path / "a" / "fold-1" / "deep" / "params.json", '{"x": 1}')
    assert values(read(tmp_path)["a"]) == {("auc", 0, "0.5")}
    assert {each.path for each in read(tmp_path)["a"].artefacts} >= {"fold-1/metrics.json"}
    write(tmp_path / "params.yaml", "")
    run = the_run(tmp_path)
    assert (run.source.run_id, run.points) == (".", ())
    assert ("metrics", "missing") in flags(run)


def test_a_run_that_crashed_before_its_first_value_is_a_run(tmp_path):
    write(tmp_path / "a" / "params.json", '{"seed": 3}')
    run = read(tmp_path)["a"]
    assert (run.parameters, run.points) == ({"seed": 3}, ())
    assert ("metrics", "missing") in flags(run)


def test_two_files_with_one_metric_and_two_with_one_parameter_are_flagged(tmp_path):
    write(tmp_path / "metrics.jsonl", '{"step": 1, "loss": 0.5}\n')
    write(tmp_path / "metrics.csv", "step,loss,auc\n1,0.7,0.9\n")
    write(tmp_path / "metrics.json", '{"loss": [1, 2], "auc": 0.95, "bias": [3]}')
    write(tmp_path / "params.json", '{"lr": 1}')
    write(tmp_path / "params.yaml", "lr: 2\nseed: 3\n")
    run = the_run(tmp_path)
    assert values(run) == {
        *(("loss", 1, "0.5"), ("auc", 1, "0.9"), ("auc", 1, "0.95"), ("bias", 0, "3.0"))
    }
    assert run.parameters == {"lr": 1, "seed": 3}
    assert {
        ("metrics.loss", "history_not_taken"),
        ("metrics.auc", "summary_differs"),
        ("parameters.lr", "name_conflict"),
    } <= flags(run)


@pytest.mark.parametrize(
    ("name", "text", "expected", "flag"),
    [
        ("jsonl", '{"a": 1}\n\n{"a": 2}\n', {("a", 0, "1.0"), ("a", 1, "2.0")}, "no_step"),
        ("jsonl", '{"step": 3, "a": 1}\n{"b": 2}\n', {("a", 3, "1.0"), ("b", 3, "2.0")}, "step_inherited"),
        ("jsonl", '{"step": 3.0, "epoch": 0.5, "a": 1}', {("a", 3, "1.0"), ("epoch", 3, "0.5")}, ""),
        ("jsonl", '{"epoch": 0.5, "a": 1}\n', {("a", 0, "1.0"), ("epoch", 0, "0.5")}, "no_step"),
        ("jsonl", '{"step": true, "a": 1}\n', {("a", 0, "1.0")}, "no_step not_a_number"),
        ("jsonl", '{"step": 9007199254740993, "a": 1}\n', {("a", 0, "1.0"), ("step", 0, "9007199254740992.0")}, "no_step rounded"),
        ("jsonl", '{"step": 1, "a": "tensor(1)", "b": {"c": 2}}\n', {("b.c", 1, "2.0")}, "not_a_number"),
        ("jsonl", '{"step": 1, "a": null, "b": "NaN"}\n', {("b", 1, "nan")}, "null_ambiguous"),
        ("jsonl", '{"step": 1, "a": 1, "timestamp": "tomorrow"}\n', {("a", 1, "1.0")}, "time_unknown"),
        ("csv", "epoch;loss\r\n0;1.5\r\n1;-inf\r\n", {("loss", 0, "1.5"), ("loss", 1, "-inf")}, ""),
        ("csv", "\ufeffstep\tloss\n2\t1_0\n", set(), "missing not_a_number"),
        ("csv", "step,loss\n1,5e-1\n2,0.", {("loss", 1, "0.5"), ("loss", 2, "0.0")}, "truncated_file"),
        ("csv", "step,loss\n1,5e-1\n2", {("loss", 1, "0.5")}, "truncated_file"),
        ("csv", "step, loss\n\n1,2\nstep,loss\n2,4\n", {("loss", 1, "2.0"), ("loss", 2, "4.0")}, "restarted"),
        ("csv", "step,loss\n1,12345678901234567890123\n", {("loss", 1, "1.2345678901234568e+22")}, ""),
        ("json", '{"a": [{"epoch": 2, "value": 1, "step": 5, "note": "x"}, {"step": 6}]}', {("a", 5, "1.0")}, "null_ambiguous"),
        ("json", '{"a": 1, "timestamp": 1760000000}', {("a", 0, "1.0")}, "time_not_taken"),
        ("json", '{"epoch": [1, 2], "a": {"b": [true]}}', {("epoch", 0, "1.0"), ("epoch", 1, "2.0")}, "no_step not_a_number"),
    ],
)  # fmt: skip
def test_what_scripts_write_is_read_and_what_is_lost_is_flagged(
    tmp_path, name, text, expected, flag
):
    write(tmp_path / f"metrics.{name}", text)
    run = the_run(tmp_path)
    assert values(run) == expected
    found = {each for field, each in flags(run) if (field, each) != ("metrics", "no_time")}
    # A last value that stands nowhere else is known to have no time.
    if name == "json":
        found.discard("time_unknown")
    assert found == set(flag.split())


def test_a_time_may_be_text_and_a_line_without_one_has_that_of_the_line_before(tmp_path):
    lines = [{"timestamp": "2026-03-04T10:00:00Z", "a": 1}, {"a": 2}, {"timestamp": 1e12, "a": 3}]
    write(tmp_path / "metrics.jsonl", "".join(json.dumps(each) + "\n" for each in lines))
    run = the_run(tmp_path)
    assert {point.timestamp for point in run.points} == {1_772_618_400_000}
    assert ("metrics", "time_unknown") in flags(run)


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("metrics.jsonl", "[]\n", "line 1: the value is no object"),
        ("metrics.jsonl", '{"a": 1}\n{"a": \n{"a": 2}\n', "line 2: no JSON at character"),
        ("metrics.jsonl", '{"a": 1, "a": 2}\n', "line 1: the name 'a' twice"),
        ("metrics.jsonl", '{"a": 1e999}\n', "line 1: the number '1e999' is too large"),
        ("metrics.jsonl", '{"a.b": 1, "a": {"b": 2}}\n', "line 1: two values are called 'a.b'"),
        ("metrics.jsonl", '{"a":' * 30 + "1" + "}" * 30 + "\n", "line 1: nested too deep"),
        ("metrics.jsonl", b'{"a": "\xff"}\n', "line 1: not UTF-8"),
        ("metrics.csv", "step,loss\n1\n2,3\n", "line 2 has 1 cells, the first 2"),
        ("metrics.csv", "a,a\n1,2\n", "two columns are called 'a'"),
        ("metrics.csv", 'a,b\n"1,2\n', "line 2: unexpected end of data"),
        ("metrics.csv", "a\n1e999\n", "the number '1e999' is too large"),
        ("metrics.json", "[1]", "the file is no object"),
        ("metrics.json", "{", "no JSON at character 1"),
        ("metrics.json", "[" * 100_000, "nested too deep"),
        ("params.json", "[1]", "not a mapping"),
        ("params.json", "{", "no JSON"),
        ("params.yaml", "a: !!python/object/apply:os.system [x]", "tags are not read"),
    ],
)
def test_what_is_not_as_its_name_says_is_refused_with_the_place(tmp_path, name, text, match):
    write(tmp_path / name, text)
    assert name in refused(tmp_path, match).message


def test_bounds_hold(tmp_path, monkeypatch):
    write(tmp_path / "metrics.jsonl", '{"a": 1, "b": 2}\n{"a": 1, "b": 2}\n')
    write(tmp_path / "metrics.json", '{"c": [1, 2, 3, 4]}')
    with monkeypatch.context() as patch:
        patch.setattr(rows, "MAX_POINTS", 3)
        refused(tmp_path, "more than 3 metric points")
        patch.setattr(dvc_metrics, "MAX_POINTS", 3)
        refused(tmp_path, "more than 3 metric points")
    for name, bound, match in (
        ("MAX_ROW", 5, "line 1 has more than 5 bytes"),
        ("MAX_SERIES", 20, "more than 20 bytes"),
        ("MAX_SUMMARY", 10, "more than 10 bytes"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(rows, name, bound)
            refused(tmp_path, match)
    (tmp_path / "metrics.jsonl").unlink()
    write(tmp_path / "metrics.csv", "a,b,c,d\n")
    monkeypatch.setattr(rows, "MAX_ROW", 5)
    refused(tmp_path, "line 1 has more than 5 bytes")


def test_more_runs_than_anybody_makes_are_refused(monkeypatch):
    monkeypatch.setattr("bundler.importers.metrics_file.MAX_RUNS", 2)
    refused(STORY, "more than 2 runs")


@pytest.mark.parametrize("store", ["absent", "empty"])
def test_what_holds_no_metrics_is_refused(tmp_path, store):
    (tmp_path / "empty").mkdir()
    assert "metrics.jsonl" in refused(tmp_path / store, "no ").remedy


def test_a_file_that_is_a_link_is_not_read_and_an_unreadable_one_is_an_error(tmp_path, monkeypatch):
    write(tmp_path / "elsewhere" / "metrics.json", '{"secret": 1}')
    write(tmp_path / "store" / "params.json", "{}")
    (tmp_path / "store" / "metrics.json").symlink_to(tmp_path / "elsewhere" / "metrics.json")
    run = the_run(tmp_path / "store")
    assert run.points == ()
    assert ("artefacts", "symlink_skipped") in flags(run)

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    refused(tmp_path / "store", "cannot be read: Permission denied")


def test_detect_finds_lines_and_leaves_a_lone_summary_to_others(tmp_path):
    importer = find("metrics")
    assert importer.detect(tmp_path / "absent") == ()
    write(tmp_path / "a" / "metrics.json", "{}")
    assert importer.detect(tmp_path) == ()
    write(tmp_path / "b" / "metrics.csv", "a\n1\n")
    assert importer.detect(tmp_path) == (tmp_path / "b",)
    write(tmp_path / "metrics.jsonl", "{}\n")
    assert importer.detect(tmp_path) == (tmp_path, tmp_path / "b")
    assert importer.experiments(STORY) == ("story",)


NUMBERS = st.floats() | st.integers(-(2**60), 2**60)


@FUZZ
@given(st.lists(st.fixed_dictionaries({"step": st.integers(0, 9), "a": NUMBERS}), max_size=6))
def test_any_numbers_come_back_from_lines_from_a_table_and_from_a_list(
    tmp_path_factory, given_rows
):
    folder = tmp_path_factory.mktemp("numbers")
    write(folder / "l" / "metrics.jsonl", "".join(json.dumps(each) + "\n" for each in given_rows))
    table = "".join(f"{each['step']},{each['a']!r}\n" for each in given_rows)
    write(folder / "t" / "metrics.csv", f"step,a\n{table}")
    pairs = [{"step": each["step"], "value": each["a"]} for each in given_rows]
    write(folder / "p" / "metrics.json", json.dumps({"a": pairs}))
    found = read(folder)
    # Of equal steps in the order of logging.
    wanted = sorted(given_rows, key=lambda each: each["step"])
    for run in found.values():
        assert series(run, "a") == [repr(float(each["a"])) for each in wanted]


@FUZZ
@given(
    st.sampled_from([("metrics.jsonl", LINES), ("metrics.csv", TABLE), ("metrics.json", SUMMARY)]),
    st.integers(0, 600),
    st.integers(0, 8),
    st.binary(max_size=12),
)
def test_a_changed_file_gives_points_or_a_source_error(tmp_path_factory, file, place, gone, junk):
    name, data = file
    folder = tmp_path_factory.mktemp("changed")
    write(folder / name, data[:place] + junk + data[place + gone :])
    survives(folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4)
    ),
    max_leaves=12,
)


@FUZZ
@given(
    st.lists(
        JSON | st.fixed_dictionaries({"step": JSON, "timestamp": JSON, "a": JSON}), max_size=4
    ),
    JSON,
    st.text(),
)
def test_any_values_give_points_or_a_source_error(tmp_path_factory, given_rows, value, words):  # fmt: skip
    folder = tmp_path_factory.mktemp("any")
    write(folder / "l" / "metrics.jsonl", "".join(json.dumps(each) + "\n" for each in given_rows))
    write(
        folder / "s" / "metrics.json", json.dumps({"a": value, "epoch": value, "timestamp": value})
    )
    write(folder / "p" / "params.json", json.dumps({"a": value}))
    write(folder / "t" / "metrics.csv", words.encode("utf-8", "replace"))
    for each in folder.iterdir():
        survives(each)


def survives(folder: Path) -> None:
    try:
        texts = [repr(run) for run in read(folder).values()]
    except SourceError as error:
        texts = [error.message, error.remedy]
    for text in texts:
        text.encode()
