"""Experiment logs: what a spreadsheet program saved, against an independent reader; places, order, artefacts, columns."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from bundler import codec
from bundler.errors import MalformedError, SourceError
from bundler.importers.experiment_log import ExperimentLogImporter
from bundler.importers.experiment_log.columns import LogColumns
from bundler.importers.experiment_log.table import letters
from bundler.importers.experiment_log.titles import (
    data_title,
    from_titles,
    metric_title,
    parameter_title,
)
from bundler.importers.model import ImportedRun
from tests.unit.importers.support import flags, state, write

LOGS = Path(__file__).parents[2] / "fixtures" / "experiment-log"
CASES = {case["store"]: case for case in json.loads((LOGS / "case.json").read_text())}
ROWS = json.loads((LOGS / "expected.json").read_text(encoding="utf-8"))
SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def declared(**columns: Any) -> LogColumns:
    """Columns as bundle.yaml declares them."""
    return codec.from_json(LogColumns, columns)


def of_case(store: str) -> LogColumns | None:
    columns = CASES[store].get("columns")
    return None if columns is None else declared(**columns)


def read_log(
    store: Path,
    columns: LogColumns | None = None,
    experiment: str | None = None,
    artefacts: Path | None = None,
) -> list[ImportedRun]:
    """All runs of a log."""
    importer = ExperimentLogImporter()
    importer = importer if columns is None else importer.mapped(columns)
    with importer.open(store, experiment=experiment, artefacts=artefacts) as session:
        runs = list(session)
        assert len(session) == len(runs)
        assert list(session) == runs
    return runs


def refused_log(
    store: Path, match: str, columns: LogColumns | None = None, experiment: str | None = None
) -> SourceError:
    """Reading ``store`` is refused with a remedy, in words that cannot steer a terminal."""
    with pytest.raises(SourceError, match=match) as error:
        read_log(store, columns, experiment)
    assert error.value.remedy
    assert (error.value.message + error.value.remedy.replace("\n", "")).isprintable()
    return error.value


def by_id(runs: list[ImportedRun]) -> dict[str, ImportedRun]:
    return {run.source.run_id: run for run in runs}


# --- against an independent reader ------------------------------------------------------------------------------------


def expected_runs(name: str) -> dict[str, dict[str, Any]]:
    """The rows that calamine reads, by ID and title; empty cells left out."""
    titles, *rows = ROWS[name]
    found = [dict(zip(titles, row, strict=True)) for row in rows]
    return {
        row["Experiment ID"]: {title: value for title, value in row.items() if value != ""}
        for row in found
        if row["Experiment ID"]
    }


@pytest.mark.parametrize("name", ["experiments.xlsx", "macintosh.xlsx"])
def test_every_cell_is_what_another_reader_reads(name):
    columns = of_case("experiments.xlsx")
    runs = by_id(read_log(LOGS / name, columns, "Experiments"))
    expected = expected_runs(name)
    assert set(runs) == set(expected)
    for run_id, row in expected.items():
        run = runs[run_id]
        local = datetime.fromisoformat(row["Date"]).replace(tzinfo=ZoneInfo("Europe/Berlin"))
        assert run.started == round(local.timestamp() * 1000)
        assert run.ended == run.started + row["Training time"] * 1000
        assert run.status == {"done": "finished", "crashed": "failed"}[row["State"]]
        assert run.code.commit == row["Commit"] == "1234e5"
        (data,) = run.data
        assert (data.name, data.role, data.version, data.sha256) == (
            "credit",
            "training",
            row["Data"],
            row["Data SHA-256"],
        )
        assert run.parameters == {
            "lr": row["Learning rate"],
            "layers": row["Layers"],
            "optimiser.name": row["Optimiser"].strip(),
            "early_stopping": row["Early stopping"],
            "seed": row["Seed"],
        }
        assert isinstance(run.parameters["layers"], int)
        assert isinstance(run.parameters["seed"], int)
        assert isinstance(run.parameters["early_stopping"], bool)
        tags = {"hypothesis": "Hypothesis", "notes": "Notes", "outcome": "Outcome"}
        assert run.tags == {tag: row[title] for tag, title in tags.items() if title in row}
        metrics = {
            "train_loss": "Train loss",
            "val_loss": "Val loss",
            "holdout_accuracy": "Hold-out accuracy",
        }
        assert {point.metric: point.value for point in run.points} == {
            metric: row[title] for metric, title in metrics.items() if title in row
        }
        assert all((point.step, point.timestamp) == (0, run.ended) for point in run.points)


def test_days_since_1904_are_the_same_days():
    columns = of_case("experiments.xlsx")
    windows = read_log(LOGS / "experiments.xlsx", columns, "Experiments")
    mac = read_log(LOGS / "macintosh.xlsx", columns, "Experiments")
    assert windows == mac


def test_a_german_csv_holds_the_same_as_the_workbook_that_it_came_from():
    def facts(runs):
        return [
            replace(
                run,
                source=replace(run.source, store="", experiment="", experiment_id=""),
                fidelity=(),
            )
            for run in runs
        ]

    workbook = read_log(LOGS / "experiments.xlsx", of_case("experiments.xlsx"), "Experiments")
    text = read_log(LOGS / "experiments.csv", of_case("experiments.csv"))
    assert facts(workbook) == facts(text)


def test_our_own_template_needs_no_declaration():
    runs = by_id(read_log(LOGS / "template.csv", artefacts=LOGS / "artefacts"))
    assert list(runs) == ["exp-001", "exp-002", "exp-003"]
    failed = runs["exp-002"]
    assert failed.status == "failed"
    assert [(point.metric, point.value) for point in failed.points] == [
        ("train_loss", float("inf"))
    ]
    assert ("metrics.val_loss", "nan_dropped") in flags(failed)
    best = runs["exp-003"]
    assert best.tags["notes"] == "=not a formula"
    assert best.parameters == {
        "lr": 0.001,
        "layers": 3,
        "note": 'a, "b"',
        "optimiser.name": "adam",
        "seed": 7,
    }
    assert best.code.dirty is False
    assert [each.path for each in best.artefacts] == ["environment.json", "model.bin"]
    assert (best.data[0].name, best.data[0].version, best.data[0].sha256) == ("data", "1.10", SHA)


# --- flags ------------------------------------------------------------------------------------------------------------


def test_what_is_hidden_trimmed_or_calculated_is_read_and_flagged():
    runs = by_id(read_log(LOGS / "experiments.xlsx", of_case("experiments.xlsx"), "Experiments"))
    assert flags(runs["exp-004"]) == {("run", "hidden_row"), ("seed", "formula")}
    assert flags(runs["exp-002"]) == {("parameters.optimiser.name", "spaces_trimmed")}
    assert flags(runs["exp-001"]) == set()


def test_columns_that_nobody_declared_are_flagged_where_they_hold_something():
    columns = replace(of_case("experiments.xlsx"), ignore=())
    runs = by_id(read_log(LOGS / "experiments.xlsx", columns, "Experiments"))
    assert ("run", "column_ignored") in flags(runs["exp-001"])
    assert ("run", "column_ignored") not in flags(runs["exp-003"])


# --- order, repetition, the source untouched --------------------------------------------------------------------------


def test_runs_come_by_start_and_reading_changes_nothing(tmp_path):
    copy = tmp_path / "logs"
    shutil.copytree(LOGS, copy)
    before = state(copy)
    importer = ExperimentLogImporter(of_case("experiments.xlsx"))
    runs = read_log(copy / "experiments.xlsx", of_case("experiments.xlsx"), "Experiments")
    assert [run.source.run_id for run in runs] == ["exp-004", "exp-001", "exp-002", "exp-003"]
    assert importer.experiments(copy / "experiments.xlsx") == ("Experiments",)
    importer.detect(copy)
    assert state(copy) == before
    assert runs == read_log(copy / "experiments.xlsx", of_case("experiments.xlsx"), "Experiments")


def test_runs_without_a_date_come_first_by_id(tmp_path):
    log = write(tmp_path / "log.csv", "Experiment ID,Date (UTC)\nb,\nc,2026-01-01\na,\n")
    assert [run.source.run_id for run in read_log(log)] == ["a", "b", "c"]


# --- artefacts --------------------------------------------------------------------------------------------------------


def test_the_files_of_a_run_lie_in_the_folder_of_its_id(tmp_path):
    text = (
        "Experiment ID,Status\nexp-001,\nmissing,finished\nbroken,failed\n../exp-003,\na/b,\n.,\n"
    )
    log = write(tmp_path / "log.csv", text + "x" * 300 + ",\n")
    runs = by_id(read_log(log, artefacts=LOGS / "artefacts"))
    assert [each.path for each in runs["exp-001"].artefacts] == ["environment.json", "model.bin"]
    assert flags(runs["missing"]) == {("artefacts", "missing")}
    assert flags(runs["broken"]) == set()
    for unreachable in ("../exp-003", "a/b", "."):
        assert runs[unreachable].artefacts == ()
        assert flags(runs[unreachable]) == {("artefacts", "artefacts_unreachable")}
    assert flags(runs["x" * 300]) == {("artefacts", "missing")}


def test_a_linked_folder_is_not_followed(tmp_path):
    log = write(tmp_path / "log.csv", "Experiment ID\nexp-001\n")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "exp-001").symlink_to(LOGS / "artefacts" / "exp-001")
    (run,) = read_log(log, artefacts=tmp_path / "files")
    assert run.artefacts == ()
    assert flags(run) == {("artefacts", "symlink_skipped")}


# --- which file, which sheet ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("log.ods", "neither"),
        ("log.xls", "neither"),
        ("nowhere.csv", "No such file"),
        ("folder.csv", "no file"),
    ],
)
def test_what_is_no_log_is_named_with_what_to_give_instead(tmp_path, name, problem):
    (tmp_path / "folder.csv").mkdir()
    assert name in refused_log(tmp_path / name, problem).message


def test_an_address_is_refused():
    with pytest.raises(SourceError, match="is an address") as error:
        ExperimentLogImporter().experiments("https://docs.example.org/spreadsheet")
    assert ".xlsx" in error.value.remedy


def test_a_csv_file_has_one_experiment_of_its_own_name(tmp_path):
    log = write(tmp_path / "log.csv", "Experiment ID\na\n")
    assert ExperimentLogImporter().experiments(log) == ("log",)
    assert len(read_log(log, experiment="log")) == 1
    assert "'log' (id log, 1 runs)" in refused_log(log, "no experiment 'x'", None, "x").remedy


def test_logs_are_detected_by_the_title_of_their_id(tmp_path):
    shutil.copytree(LOGS, tmp_path / "logs")
    write(tmp_path / "logs" / "data.csv", "a,b\n1,2\n")
    write(tmp_path / "logs" / "wide.csv", "Experiment ID;x\n".encode("utf-16"))
    write(tmp_path / "logs" / "no.xlsx", b"PK no zip file")
    (tmp_path / "logs" / "folder.csv").mkdir()
    found = ExperimentLogImporter().detect(tmp_path / "logs")
    names = ["experiments.csv", "experiments.xlsx", "macintosh.xlsx", "template.csv", "wide.csv"]
    assert [path.name for path in found] == names
    assert ExperimentLogImporter().detect(tmp_path / "nowhere") == ()


# --- declared columns -------------------------------------------------------------------------------------------------


def test_without_a_declaration_one_to_start_from_is_printed():
    error = refused_log(LOGS / "experiments.csv", "no columns are declared")
    for line in (
        '  id: "Experiment ID"',
        '  separator: ";"',
        '  commit: "Commit"',
        '    "Learning rate": {column: "Learning rate", type: TODO}',
    ):
        assert line in error.remedy.splitlines()
    titles = ROWS["experiments.xlsx"][0]
    assert all(json.dumps(title) in error.remedy for title in titles)


def test_what_is_printed_has_to_be_finished_by_a_human(tmp_path):
    from bundler.strict_yaml import parse_yaml

    log = write(tmp_path / "log.csv", "Run,Date,Epochs\na,2026-01-01,3\n")
    remedy = refused_log(log, "no columns").remedy
    value = parse_yaml(remedy.split("\n", 1)[1].encode())["columns"]
    with pytest.raises(MalformedError, match=r"parameters\.Epochs\.type: expected one of text"):
        declared(**value)
    value["parameters"]["Epochs"]["type"] = "integer"
    assert "date.format" in next(declared(**value).problems())
    value["date"]["format"] = "%Y-%m-%d"
    (run,) = read_log(log, declared(**value))
    assert run.parameters == {"Epochs": 3}


def test_very_many_titles_are_counted(tmp_path):
    titles = ",".join(f"column {i}" for i in range(150))
    remedy = refused_log(
        write(tmp_path / "log.csv", f"{titles},{'y' * 500}\n"), "no columns"
    ).remedy
    assert "and 50 more" in remedy
    assert "yyy" not in remedy
    assert 'id: "TODO"' in remedy


@pytest.mark.parametrize(
    ("columns", "place"),
    [
        ({}, "id: missing"),
        ({"id": "a", "dat": "b"}, "dat: unknown"),
        ({"id": "a", "parameters": {"lr": "b"}}, r"parameters\.lr: expected an object"),
        (
            {"id": "a", "parameters": {"lr": {"column": "b", "type": "float"}}},
            "one of text, integer",
        ),
        ({"id": "a", "date": {"column": "b", "fmt": "x"}}, r"date\.fmt: unknown"),
        ({"id": "a", "duration": "b"}, "duration: expected an object"),
        ({"id": "a", "metrics": {"m": 3}}, r"metrics\.m: expected an object"),
        ({"id": "a", "encoding": "rot13"}, "encoding: expected one of"),
    ],
)
def test_a_declaration_is_read_strictly(columns, place):
    with pytest.raises(MalformedError, match=place):
        declared(**columns)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"header": 0}, "header: 0 is no row"),
        ({"seed": "s", "parameters": {"seed": {"column": "s", "type": "integer"}}}, "declared as well"),
        ({"tags": {"notes": "n"}}, "tags.notes: has a key of its own"),
        ({"date": {"column": "d", "format": "%d/%m"}}, "the year stands 0 times"),
        ({"date": {"column": "d", "format": "%Y-%m-%d %y"}}, "the year stands 2 times"),
        ({"date": {"column": "d", "format": "%Y-%m-%d %H%H"}}, "a directive stands twice"),
        ({"date": {"column": "d", "format": "%Y-%m-%d %Q"}}, "unknown directive %Q"),
        ({"status": {"column": "s", "words": {"ok": "fine"}}}, "status.words: 'fine' .* is none of"),
        ({"outcome": {"column": "s", "words": {"ok": "won"}}}, "outcome.words: 'won' .* is none of"),
        ({"parameters": {"p": {"column": "s", "type": "text", "percent": True}}}, "only a number"),
    ],
)  # fmt: skip
def test_a_declaration_that_cannot_work_is_refused_before_the_file_is_read(
    columns, problem, tmp_path
):
    error = refused_log(tmp_path / "nowhere.csv", problem, declared(id="a", **columns))
    assert error.message.startswith("columns.")


def test_a_declared_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    log = write(tmp_path / "log.csv", "Run,LR\na,1\n")
    columns = declared(id="Run", seed="Seed", metrics={"auc": {"column": "AUC"}})
    error = refused_log(log, r"row 1: no column 'Seed', 'AUC'", columns)
    assert "Its titles are 'Run', 'LR'" in error.remedy


def test_all_titles_of_a_declaration_are_known():
    columns = of_case("experiments.xlsx")
    assert set(columns.titles) == set(ROWS["experiments.xlsx"][0]) - {"Reviewed by"}


def test_an_unknown_time_zone_is_refused(tmp_path):
    log = write(tmp_path / "log.csv", "Run,D\na,2026-01-01\n")
    columns = declared(id="Run", date={"column": "D", "zone": "Mars/Olympus"})
    refused_log(log, "'Mars/Olympus' is no time zone", columns)


# --- our own titles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lr", "a (text)", "x: y", "ü [z]", "a\nb"])
def test_names_come_back_from_their_titles(name):
    titles = [
        "Experiment ID",
        parameter_title(name, "number"),
        metric_title(name, "validation"),
        data_title(name, "train", "sha256"),
        data_title(name, "train", "version", 2),
        f"tag: {name}",
    ]
    columns = from_titles(titles)
    assert list(columns.parameters) == [name]
    assert list(columns.metrics) == [name]
    assert list(columns.tags) == [name]
    assert [(each.name, each.role) for each in columns.data.values()] == [(name, "train")] * 2


@pytest.mark.parametrize(
    "titles",
    [
        ["Name"],
        ["Experiment ID", "Something else"],
        ["Experiment ID", "metric: a", "metric: a [training]"],
        ["Experiment ID", "param: a (text)", "param: a (number)"],
        ["Experiment ID", "param: a (float)"],
        ["Experiment ID", "Data rows", "data: data (rows)"],
    ],
)
def test_titles_that_are_not_ours_or_say_two_things_are_not_taken_for_ours(titles):
    assert from_titles(titles) is None


def test_columns_are_called_as_in_a_spreadsheet():
    assert [letters(at) for at in (0, 25, 26, 701, 702, 16383)] == [
        "A",
        "Z",
        "AA",
        "ZZ",
        "AAA",
        "XFD",
    ]
