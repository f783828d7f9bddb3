"""Experiment logs that we write: what goes in comes back, and nothing in them runs."""

from __future__ import annotations

import csv
import io
import math
import shutil
import zipfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from bundler import canonical
from bundler.cli.logs import log_export, log_template
from bundler.config import load
from bundler.errors import AuthenticityError, MalformedError, OutputError, UsageError
from bundler.evidence import intact_files, read_contents
from bundler.experiment_log import export, log_columns, type_of, wanted_by
from bundler.experiment_log_files import Column, csv_bytes, guarded, xlsx_bytes
from bundler.facts import timestamp
from bundler.importers.experiment_log import ExperimentLogImporter
from bundler.records import DatasetVersion
from bundler.signers import generate
from bundler.spec import FactMap
from bundler.storage import open_bag
from tests import tiny
from tests.conformance.harness import KEYS, VALID
from tests.unit.importers.test_experiment_log import CASES, LOGS

DEMO = Path(__file__).parents[2] / "build" / "demo" / "bundle"
FORMS = ["log.csv", "log.xlsx"]
FORMULAS = [
    "=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "'x", "\nx", "\n=1", "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20SUM(A1)",
    " =1", "  +1", " -1", " @x", "\u00a0=1", "\u3000\uff1d1", "\v=1", "\u200b=1", "\ufeff =1", " \n=1",
]  # fmt: skip


def read_back(log: Path) -> dict:
    with ExperimentLogImporter().open(log, experiment=None, artefacts=None) as session:
        return {run.source.run_id: run for run in session}


def contents_of(bundle: Path):
    return read_contents(intact_files(open_bag(bundle)))


def same_facts(record, run, facts: FactMap, selected: str) -> None:
    """``run``, as read from the exported log, has the facts of ``record``."""
    assert run.name == (record.name.strip() if record.name else None)
    assert (run.status, run.deleted) == (record.status, record.deleted)
    assert timestamp(run.started) == record.started_at
    assert timestamp(run.ended) == record.ended_at
    for field in ("commit", "dirty", "repository", "branch", "entry_point"):
        assert getattr(run.code, field) == getattr(record.code, field), field
    assert sorted(run.data, key=repr) == sorted(record.data, key=repr)
    seed = facts.seed.removeprefix("parameters.")
    without = {name: value for name, value in record.parameters.items() if name != seed}
    assert {name: value for name, value in run.parameters.items() if name != "seed"} == without
    assert run.parameters["seed"] == record.seed
    finite = {each.name: each.last for each in record.metrics if each.last != "NaN"}
    assert {point.metric: point.value for point in run.points} == {
        name: float(value) for name, value in finite.items()
    }
    digests = {each.path: each.sha256 for each in record.artefacts}
    assert run.tags.get("model.sha256") == digests.get(facts.model)
    assert run.tags["outcome"] == ("selected" if record.id == selected else "rejected")


def round_trip(bundle: Path, target: Path) -> None:
    contents = contents_of(bundle)
    assert export(open_bag(bundle), (), target) == len(contents.records)
    runs = read_back(target)
    assert set(runs) == {record.id for record in contents.records}
    index = contents.index
    for record in contents.records:
        same_facts(record, runs[record.id], index.facts, index.selection.run)


# --- round trips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMS)
def test_the_log_of_a_bundle_gives_its_facts_back(name, provider: tiny.Provider, tmp_path):
    provider.build(tmp_path / "bundle")
    round_trip(tmp_path / "bundle", tmp_path / name)
    reasons = {key: run.tags["reason"] for key, run in read_back(tmp_path / name).items()}
    assert reasons["run-c"] == "candidate"
    assert reasons["run-d"] == "constraint failed: val_disparity is 0.4, wanted <= 0.2"
    assert reasons["run-e"] == "not finished: status failed"
    assert reasons["run-c1"] == "repetition: seed is 1"


@pytest.mark.parametrize("name", FORMS)
def test_awkward_facts_come_back_as_well(name, provider: tiny.Provider, tmp_path):
    awkward = {"a": "", "b": None, "c": " x ", "d": "=1+1", "e": "null", "f": -3, "g": 0.1 + 0.2, "h": True, "i": "a\0b\x07_x0041_\r\n"}  # fmt: skip
    data = (
        DatasetVersion(name="d", role="training", version="1"),
        DatasetVersion(name="d", role="training", tracker_digest="md5:1", rows=2),
        DatasetVersion(name="data", sha256="0" * 64, source="=s"),
        DatasetVersion(name="x y", role="hold-out"),
    )
    provider.edit(
        "run-a",
        lambda run: replace(
            run,
            parameters={**run.parameters, **awkward, "mixed": 1},
            data=data,
            name="-name",
            tags={"dirty": "true", "notes": "+1 (see @me)\nand\tmore", "hypothesis": "'quoted'"},
            points=tuple(point._replace(value=math.inf) if point.metric == "val_auc" else point
                         for point in run.points),
        ),
    )  # fmt: skip
    provider.edit("run-b", lambda run: replace(run, parameters={**run.parameters, "mixed": "one"}))
    provider.edit("run-b", lambda run: tiny.with_value(run, "val_auc", math.nan))
    provider.build(tmp_path / "bundle")
    round_trip(tmp_path / "bundle", tmp_path / name)
    run = read_back(tmp_path / name)["run-a"]
    assert run.tags["notes"] == "+1 (see @me)\nand\tmore"
    assert run.tags["hypothesis"] == "'quoted'"


@pytest.mark.skipif(not DEMO.exists(), reason="make demo builds it")
@pytest.mark.parametrize("name", FORMS)
def test_the_log_of_the_demo_comes_back(name, tmp_path):
    round_trip(DEMO, tmp_path / name)


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**53) + 1, 2**53 - 1))
def test_numbers_keep_every_digit(tmp_path_factory, real, whole):
    folder = tmp_path_factory.mktemp("log")
    columns = [
        Column(title="Experiment ID", values=["a"]),
        Column(title="param: x (number)", values=[real]),
        Column(title="metric: x", values=[real]),
        Column(title="Random seed", values=[whole]),
    ]
    for name, data in (("log.csv", csv_bytes(columns)), ("log.xlsx", xlsx_bytes(columns))):
        (folder / name).write_bytes(data)
        run = read_back(folder / name)["a"]
        assert run.parameters == {"x": real, "seed": whole}
        assert math.copysign(1, run.parameters["x"]) == math.copysign(1, real)
        assert run.points[0].value == real


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_texts_keep_every_character(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("log")
    kind = type_of([text])
    value = text if kind == "text" else canonical.serialise(text).decode()
    columns = [
        Column(title="Experiment ID", values=["a"]),
        Column(title=f"param: x ({kind})", values=[value]),
    ]
    for name, data in (("log.csv", csv_bytes(columns)), ("log.xlsx", xlsx_bytes(columns))):
        (folder / name).write_bytes(data)
        assert read_back(folder / name)["a"].parameters == {"x": text}


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1)))  # noqa: DTZ001
def test_times_keep_their_milliseconds(tmp_path_factory, when):
    when = when.replace(microsecond=when.microsecond // 1000 * 1000)
    folder = tmp_path_factory.mktemp("log")
    columns = [
        Column(title="Experiment ID", values=["a"]),
        Column(title="Date (UTC)", values=[when], look="date"),
    ]
    wanted = f"{when.isoformat(timespec='milliseconds')}Z"
    for name, data in (("log.csv", csv_bytes(columns)), ("log.xlsx", xlsx_bytes(columns))):
        (folder / name).write_bytes(data)
        assert timestamp(read_back(folder / name)["a"].started) == wanted


# --- what the columns are ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], "integer"), ([1, 0.5], "number"), ([True, False], "boolean"), (["a", "1"], "text"), ([True, 1], "json"),
        (["a", None], "json"), ([""], "json"), ([" a"], "json"), (["a\0"], "json"), ([], "text"), ([1, "a"], "json"),
    ],
)  # fmt: skip
def test_the_type_of_a_column_is_the_narrowest_that_loses_nothing(values, kind):
    assert type_of(values) == kind


def test_a_run_that_was_logged_as_a_baseline_stays_one(provider: tiny.Provider, tmp_path):
    provider.edit("run-a", lambda run: replace(run, tags={**run.tags, "outcome": "Baseline"}))
    provider.edit("run-b", lambda run: replace(run, tags={**run.tags, "outcome": "selected"}))
    provider.build(tmp_path / "bundle")
    export(open_bag(tmp_path / "bundle"), (), tmp_path / "log.csv")
    runs = read_back(tmp_path / "log.csv")
    outcomes = {key: run.tags["outcome"] for key, run in runs.items()}
    assert (outcomes["run-a"], outcomes["run-b"], outcomes["run-c"]) == (
        "baseline",
        "rejected",
        "selected",
    )


@pytest.mark.parametrize(
    ("facts", "parameters", "titles"),
    [
        ("parameters.seed", {"seed": "42"}, ["Random seed"]),
        ("parameters.random_state", {"random_state": 42}, ["Random seed"]),
        ("parameters.random_state", {"random_state": 42, "seed": 1}, ["param: random_state (integer)", "param: seed (integer)"]),
        ("tags.seed", {"lr": 1}, ["Random seed", "param: lr (integer)"]),
        ("tags.seed", {"seed": "no"}, ["param: seed (text)"]),
        ("parameters.seed", {"seed": "x42"}, ["param: seed (text)"]),
    ],
)  # fmt: skip
def test_the_seed_has_one_column(facts, parameters, titles):
    contents = contents_of(VALID)
    seed = next((value for value in parameters.values() if value == 42), 42)
    records = tuple(
        replace(
            record, parameters=parameters, seed=None if "x42" in parameters.values() else int(seed)
        )
        for record in contents.records
    )
    index = replace(contents.index, facts=replace(contents.index.facts, seed=facts))
    columns = log_columns(replace(contents, index=index, records=records))
    found = [each.title for each in columns if each.title.startswith(("Random", "param:"))]
    assert found == titles


def test_a_negative_duration_is_left_out_and_a_derived_id_explained():
    contents = contents_of(VALID)
    first = contents.records[0]
    backwards = replace(
        first, ended_at="1970-01-01T00:00:00.000Z", source=replace(first.source, run_id="a/b")
    )
    columns = log_columns(replace(contents, records=(backwards, *contents.records[1:])))
    by_title = {each.title: each.values for each in columns}
    assert by_title["Duration (s)"][0] is None
    assert by_title["Tracker run ID"][0] == "a/b"


def test_names_that_would_give_one_title_twice_are_refused():
    contents = contents_of(VALID)
    first = contents.records[0]
    data = (
        DatasetVersion(name="a", role="b", version="1"),
        DatasetVersion(name="a [b]", version="1"),
    )
    with pytest.raises(OutputError, match="the same title"):
        log_columns(replace(contents, records=(replace(first, data=data), *contents.records[1:])))


# --- the files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", FORMULAS)
def test_nothing_that_we_write_is_taken_for_a_formula(text):
    columns = [Column(title="Experiment ID", values=[text])]
    assert guarded(text) == f"'{text}"
    assert guarded(f"a{text}") == f"a{text}"
    (_, (cell,)) = csv.reader(io.StringIO(csv_bytes(columns).decode("utf-8-sig"), newline=""))
    assert cell == f"'{text}"
    with zipfile.ZipFile(io.BytesIO(xlsx_bytes(columns))) as archive:
        sheet = archive.read("xl/worksheets/sheet1.xml").decode()
    assert "<f>" not in sheet
    assert f">'{text}".replace("\r", "_x000D_").replace("\v", "_x000B_") in sheet


@pytest.mark.parametrize("text", FORMULAS)
def test_the_importer_takes_the_apostrophe_away_again(text, tmp_path):
    columns = [
        Column(title="Experiment ID", values=["a"]),
        Column(title="Name", values=[text]),
        Column(title="Notes", values=[f"'{text}"]),
    ]
    for name, data in (("log.csv", csv_bytes(columns)), ("log.xlsx", xlsx_bytes(columns))):
        (tmp_path / name).write_bytes(data)
        run = read_back(tmp_path / name)["a"]
        assert (run.name, run.tags["notes"]) == (text, f"'{text}")


@pytest.mark.parametrize("text", ["x=1", " x", "\u2212", "a\n=1", "1+1", ""])
def test_other_texts_stay_as_they_are(text):
    assert guarded(text) == text


def test_a_negative_number_is_no_formula():
    assert csv_bytes([Column(title="x", values=[-0.5, -3])]).decode("utf-8-sig") == "x\n-0.5\n-3\n"


def test_the_same_log_gives_the_same_bytes(provider: tiny.Provider, tmp_path):
    provider.build(tmp_path / "bundle")
    for name in FORMS:
        for folder in ("one", "two"):
            export(open_bag(tmp_path / "bundle"), (), tmp_path / folder / name)
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    with zipfile.ZipFile(tmp_path / "one" / "log.xlsx") as archive:
        assert archive.testzip() is None
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert not any("docProps" in name for name in archive.namelist())


def test_another_reader_opens_the_workbook(provider: tiny.Provider, tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    provider.build(tmp_path / "bundle")
    export(open_bag(tmp_path / "bundle"), (), tmp_path / "log.xlsx")
    book = openpyxl.load_workbook(tmp_path / "log.xlsx")
    titles, *rows = book["Experiments"].iter_rows(values_only=True)
    found = {row[0]: dict(zip(titles, row, strict=True)) for row in rows}
    record = contents_of(tmp_path / "bundle").record("run-c")
    row = found["run-c"]
    assert isinstance(row["Date (UTC)"], datetime)
    assert row["Duration (s)"] == 1
    assert row["Code commit"] == record.code.commit
    assert row["metric: val_auc [validation]"] == record.value("val_auc") == 0.78
    assert row["Uncommitted changes"] is False


@pytest.mark.parametrize(
    "columns",
    [
        [Column(title="x", values=["a" * 32_768])],
        [Column(title="x", values=[math.inf])],
        [Column(title=str(i), values=[1]) for i in range(16_385)],
        [Column(title="x", values=range(1 << 20))],
    ],
)
def test_what_a_worksheet_cannot_hold_is_refused(columns):
    with pytest.raises(OutputError, match="a worksheet cannot hold") as error:
        xlsx_bytes(columns)
    assert "CSV" in error.value.remedy


# --- the commands -----------------------------------------------------------------------------------------------------


def command(which, *words):
    return CliRunner().invoke(which, [str(word) for word in words], catch_exceptions=False)


@pytest.mark.parametrize("name", FORMS)
def test_a_template_can_be_filled_in(name, tmp_path):
    target = tmp_path / name
    done = command(
        log_template, "-o", target, "--parameter", "lr:number", "--parameter", "opt:sgd:text", "--metric", "val_auc"
    )  # fmt: skip
    assert done.exit_code == 0
    assert "#example" in done.output
    assert read_back(target) == {}
    if name == "log.csv":
        # Not utf-8-sig when appending: it would put another mark in the middle.
        with target.open("a", encoding="utf-8") as file:
            file.write(
                "exp-1,2026-03-04T10:00:00Z,60,finished,selected,h,1.10,,1234e5,no,7,0.1,adam,0.5,n\n"
            )
    else:
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.load_workbook(target)
        sheet = book["Experiments"]
        assert sheet.freeze_panes == "B2"
        lists = {str(each.sqref): each.formula1 for each in sheet.data_validations.dataValidation}
        assert '"selected,rejected,baseline"' in lists.values()
        titles = [cell.value for cell in sheet[1]]
        assert sheet.column_dimensions["I"].number_format == "@"
        assert titles[8] == "Code commit"
        notes = [row[0] for row in book["Instructions"].iter_rows(values_only=True)]
        assert set(titles) <= set(notes)
        sheet.append(["exp-1", datetime(2026, 3, 4, 10), 60, "finished", "selected", "h", "1.10", None, "1234e5", False, 7, 0.1, "adam", 0.5, "n"])  # noqa: DTZ001  # fmt: skip
        sheet["B3"].number_format = "yyyy-mm-dd hh:mm"
        book.save(target)
    (run,) = read_back(target).values()
    assert run.started == 1_772_618_400_000
    assert run.ended == run.started + 60_000
    assert run.parameters == {"lr": 0.1, "opt:sgd": "adam", "seed": 7}
    assert (run.code.commit, run.code.dirty, run.data[0].version) == ("1234e5", False, "1.10")
    assert [(point.metric, point.value) for point in run.points] == [("val_auc", 0.5)]
    assert run.tags == {"hypothesis": "h", "notes": "n", "outcome": "selected"}


def test_a_template_has_what_bundle_yaml_names(provider: tiny.Provider, tmp_path):
    provider.config["selection"]["eligible"]["parameters.model"] = ["mlp"]
    provider.config["facts"]["metrics"]["other"] = ["plain"]
    wanted = wanted_by(load(provider.write_config()))
    assert wanted.parameters == {"rate": "text", "model": "text"}
    assert wanted.metrics == {
        "val_auc": "validation",
        "val_disparity": "validation",
        "holdout_auc": "hold-out",
        "holdout_disparity": "hold-out",
        "plain": "other",
    }
    done = command(
        log_template, "-o", tmp_path / "log.csv", "--config", provider.root / "bundle.yaml",
        "--parameter", "rate:number", "--metric", "val_auc", "--metric", "more",
    )  # fmt: skip
    assert done.exit_code == 0
    titles = (tmp_path / "log.csv").read_text("utf-8-sig").splitlines()[0].split(",")
    assert titles[11:-1] == [
        "param: rate (number)", "param: model (text)", "metric: val_auc [validation]", "metric: val_disparity [validation]",
        "metric: holdout_auc [hold-out]", "metric: holdout_disparity [hold-out]", "metric: plain [other]", "metric: more",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["lr", "lr:float", ":text", "lr:json"])
def test_a_parameter_needs_its_type(text, tmp_path):
    with pytest.raises(UsageError, match="is not NAME:TYPE"):
        command(log_template, "-o", tmp_path / "log.csv", "--parameter", text)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        *(("--metric", text) for text in ["", " ", "a\nb", "a\rb", "a\u2028b", "a\tb", " a", "a ", "a\u200b", "a [validation]"]),
        *(("--parameter", f"{text}:number") for text in ["", " ", "a\nb", "a\r\nb", " a", "a\x00", "seed"]),
    ],
)  # fmt: skip
def test_a_name_that_no_title_can_give_back_is_refused(option, text, tmp_path):
    for name in FORMS:
        with pytest.raises(UsageError) as error:
            command(log_template, "-o", tmp_path / name, option, text)
        assert error.value.exit_code == 2
        assert str(error.value).startswith(f"{option} {text!r}")
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["a b", "a [x]", "a (text)", "=a", "'a", "ü", "a:b", "auc@0.5"])
def test_unusual_names_make_a_log_that_is_read(name, tmp_path):
    target = tmp_path / "log.csv"
    command(log_template, "-o", target, "--metric", name, "--parameter", f"{name}:number")
    assert read_back(target) == {}


def test_a_log_is_written_once_and_in_a_known_form(tmp_path):
    with pytest.raises(UsageError, match=r"a \.csv or an \.xlsx file"):
        command(log_template, "-o", tmp_path / "log.ods")
    (tmp_path / "log.csv").write_text("mine")
    with pytest.raises(OutputError, match="never overwritten"):
        command(log_template, "-o", tmp_path / "log.csv")
    assert (tmp_path / "log.csv").read_text() == "mine"


def test_an_export_says_what_was_checked(tmp_path):
    done = command(log_export, VALID, "-o", tmp_path / "a.csv")
    assert "signature was not checked" in done.output
    done = command(log_export, VALID, "-o", tmp_path / "b.csv", "--trust", KEYS / "trust.pem")
    assert "its signature is good" in done.output
    runs = len(contents_of(VALID).records)
    assert f"wrote {runs} runs to" in done.output


def test_an_export_is_made_of_an_intact_and_trusted_bundle_only(provider: tiny.Provider, tmp_path):
    provider.build(tmp_path / "bundle")
    generate(tmp_path / "other", "p256")
    with pytest.raises(AuthenticityError):
        command(
            log_export,
            tmp_path / "bundle",
            "-o",
            tmp_path / "log.csv",
            "--trust",
            tmp_path / "other" / "trust.pem",
        )
    with pytest.raises(UsageError, match="would change the bundle"):
        command(log_export, tmp_path / "bundle", "-o", tmp_path / "bundle" / "log.csv")
    with (tmp_path / "bundle" / "data" / "records.jsonl").open("ab") as file:
        file.write(b" ")
    with pytest.raises(MalformedError):
        command(log_export, tmp_path / "bundle", "-o", tmp_path / "log.csv")
    assert not (tmp_path / "log.csv").exists()


def test_a_signature_about_another_bundle_is_refused(provider: tiny.Provider, tmp_path):
    provider.build(tmp_path / "one")
    provider.config["system"]["version"] = "2.0.0"
    provider.build(tmp_path / "two")
    envelope = "signatures/release.dsse.json"
    (tmp_path / "two" / envelope).write_bytes((tmp_path / "one" / envelope).read_bytes())
    with pytest.raises(MalformedError, match="about another bundle"):
        export(open_bag(tmp_path / "two"), tiny.TRUST, tmp_path / "log.csv")


def test_a_log_beside_a_tracker_becomes_part_of_the_bundle(provider: tiny.Provider, tmp_path):
    case = next(each for each in CASES.values() if each["store"] == "experiments.xlsx")
    shutil.copytree(LOGS, provider.root / "log")
    source = {
        "tracker": "experiment-log",
        "store": "log/experiments.xlsx",
        "experiment": "Experiments",
        "artefacts": "log/artefacts",
        "columns": case["columns"],
    }
    provider.config["sources"].append(source)
    provider.build(tmp_path / "bundle")
    contents = contents_of(tmp_path / "bundle")
    record = contents.record("exp-003")
    assert (record.source.tracker, record.seed, record.code.commit) == (
        "experiment-log",
        7,
        "1234e5",
    )
    assert record.metric("holdout_accuracy").role == "hold-out"
    assert record.started_at == "2026-03-06T07:15:00.000Z"
    assert all(each.sha256 for each in record.artefacts)
    export(open_bag(tmp_path / "bundle"), (), tmp_path / "log.xlsx")
    assert read_back(tmp_path / "log.xlsx")["exp-003"].parameters == {
        **record.parameters,
        "seed": 7,
    }
