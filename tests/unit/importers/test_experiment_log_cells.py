"""What a cell may say under each declared type, in text and in a workbook's own types; and CSV files as files."""

from __future__ import annotations

import math
import tracemalloc

import pytest

from bundler.importers.experiment_log import ExperimentLogImporter
from bundler.importers.experiment_log import table as experiment_log_table
from tests.unit.importers.support import flags, write
from tests.unit.importers.test_experiment_log import SHA, declared, read_log, refused_log

TITLES = [
    "ID", "Date", "Time", "Seed", "Commit", "Dirty", "Outcome", "Version", "SHA", "Rows",
    "Number", "Integer", "Boolean", "Text", "Json", "AUC",
]  # fmt: skip
TYPED = {
    "id": "ID",
    "date": {"column": "Date"},
    "duration": {"column": "Time", "unit": "minutes"},
    "seed": "Seed",
    "commit": "Commit",
    "dirty": "Dirty",
    "outcome": "Outcome",
    "data": {"d": {"version": "Version", "sha256": "SHA", "rows": "Rows"}},
    "parameters": {
        "n": {"column": "Number", "type": "number"},
        "i": {"column": "Integer", "type": "integer"},
        "b": {"column": "Boolean", "type": "boolean"},
        "t": {"column": "Text", "type": "text"},
        "j": {"column": "Json", "type": "json"},
    },
    "metrics": {"auc": "AUC"},
}


def log_of(folder, **cells):
    """A CSV file with one run, whose cells are given by title."""

    def cell(text):
        return '"' + text.replace('"', '""') + '"'

    rows = [TITLES, [{"ID": "run-1", **cells}.get(title, "") for title in TITLES]]
    return write(folder / "log.csv", "".join(",".join(map(cell, row)) + "\n" for row in rows))


def one(folder, columns=None, **cells):
    (run,) = read_log(log_of(folder, **cells), columns or declared(**TYPED))
    return run


def bad(folder, match, columns=None, **cells):
    error = refused_log(log_of(folder, **cells), match, columns or declared(**TYPED))
    (title,) = cells
    assert (
        f"log.csv', row 2, column {'ABCDEFGHIJKLMNOP'[TITLES.index(title)]} ('{title}'): "
        in error.message
    )
    return error.remedy


# --- identifiers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("commit", ["1234e5", "0012345", "1e400", "v1.2", "0x10", "é"])
def test_a_commit_is_the_text_that_was_typed(commit, tmp_path):
    assert one(tmp_path, Commit=commit).code.commit == commit


@pytest.mark.parametrize("commit", ["1.234E+08", "1,234E+08", "1E+05", "1E5"])
def test_a_commit_that_a_spreadsheet_made_a_number_of_is_refused(commit, tmp_path):
    assert "Format the column as text" in bad(tmp_path, "looks like a number", Commit=commit)


def test_a_version_keeps_its_zeros(tmp_path):
    (data,) = one(tmp_path, Version="1.10", Rows="600", SHA=f"SHA256:{SHA.upper()}").data
    assert (data.name, data.version, data.rows, data.sha256) == ("d", "1.10", 600, SHA)


def test_a_digest_that_is_no_sha256_is_none(tmp_path):
    run = one(tmp_path, SHA="abc")
    assert run.data == ()
    assert flags(run) == {("data", "not_a_sha256")}


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.912", 0.912),
        ("-1", -1.0),
        ("+1e-3", 0.001),
        (".5", 0.5),
        ("5.", 5.0),
        ("0", 0.0),
        ("1E3", 1000.0),
    ],
)
def test_numbers(text, value, tmp_path):
    run = one(tmp_path, Number=text, AUC=text)
    assert run.parameters == {"n": value}
    assert isinstance(run.parameters["n"], float)
    assert [point.value for point in run.points] == [value]


@pytest.mark.parametrize(
    "text",
    [
        "0,912",
        "1,234.5",
        "1 234",
        "1'234",
        "1_000",
        "12%",
        "0x10",
        "1e",
        "--1",
        "abc",
        "1.2.3",
        "٣",
        "1e999",
    ],
)
def test_what_is_no_number_is_refused_in_a_metric_as_well_as_in_a_parameter(text, tmp_path):
    bad(tmp_path, "row 2", Number=text)
    bad(tmp_path, "row 2", AUC=text)


def test_a_decimal_comma_has_to_be_declared(tmp_path):
    assert "declare decimal: ','" in bad(tmp_path, "'0,912' is no number", AUC="0,912")
    columns = declared(**TYPED, decimal=",")
    assert one(tmp_path, columns, AUC="0,912").points[0].value == 0.912
    assert "has a decimal point" in bad(tmp_path, "no number", columns, AUC="0.912")
    assert "separator of thousands" in bad(tmp_path, "no number", columns, AUC="1.234,5")


def test_a_percentage_has_to_be_declared(tmp_path):
    assert "percent: true" in bad(tmp_path, "'91.2%' is a percentage", AUC="91.2%")
    metrics = {"auc": {"column": "AUC", "percent": True}}
    columns = declared(**{**TYPED, "metrics": metrics})
    assert one(tmp_path, columns, AUC="91.2%").points[0].value == 0.912
    assert one(tmp_path, columns, AUC="91.2 %").points[0].value == 0.912
    assert "percent sign" in bad(tmp_path, "'91.2' has no percent sign", columns, AUC="91.2")


def test_an_empty_metric_was_not_logged_and_is_not_zero(tmp_path):
    assert one(tmp_path, AUC="").points == ()
    assert flags(one(tmp_path, AUC=" ")) == set()


def test_nan_was_not_logged_either_and_is_flagged(tmp_path):
    run = one(tmp_path, AUC="NaN")
    assert run.points == ()
    assert flags(run) == {("metrics.auc", "nan_dropped")}


@pytest.mark.parametrize(("text", "value"), [("inf", math.inf), ("-Infinity", -math.inf)])
def test_infinity_is_a_value(text, value, tmp_path):
    assert one(tmp_path, AUC=text).points[0].value == value


@pytest.mark.parametrize(
    ("text", "value"), [("7", 7), ("-7", -7), ("7.0", 7), ("9" * 30, int("9" * 30))]
)
def test_whole_numbers(text, value, tmp_path):
    run = one(tmp_path, Integer=text, Seed=text)
    assert run.parameters == {"i": value, "seed": value}
    assert all(isinstance(each, int) for each in run.parameters.values())


@pytest.mark.parametrize("text", ["7.5", "7e1", "seven", "1,000", "9" * 500, "true", "0b1"])
def test_what_is_no_whole_number_is_no_seed(text, tmp_path):
    bad(tmp_path, "no whole number|is no number", Seed=text)


# --- other types ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("YES", True), ("1", True), ("0", False), ("No", False)]
)
def test_truth_values(text, value, tmp_path):
    run = one(tmp_path, Boolean=text, Dirty=text)
    assert run.parameters == {"b": value}
    assert run.code.dirty is value


def test_words_of_another_language_have_to_be_declared(tmp_path):
    assert "booleans" in bad(tmp_path, "neither true nor false", Dirty="FALSCH")
    columns = declared(**TYPED, booleans={"FALSCH": False})
    assert one(tmp_path, columns, Dirty="FALSCH").code.dirty is False


@pytest.mark.parametrize(
    ("text", "value"),
    [("null", None), ("3", 3), ("0.5", 0.5), ("true", True), ('" a\\u0000"', " a\0")],
)
def test_json_keeps_what_no_other_type_can(text, value, tmp_path):
    held = one(tmp_path, Json=text).parameters
    assert held == {"j": value}
    assert type(held["j"]) is type(value)


@pytest.mark.parametrize("text", ["[1]", "{}", "NaN", "adam", '"a', "1e400"])
def test_json_is_one_strict_value(text, tmp_path):
    bad(tmp_path, "row 2", Json=text)


def test_outcomes_are_three_words(tmp_path):
    assert one(tmp_path, Outcome="Selected").tags == {"outcome": "selected"}
    assert "words" in bad(
        tmp_path, "'winner' is none of selected, rejected, baseline", Outcome="winner"
    )
    columns = declared(
        **{**TYPED, "outcome": {"column": "Outcome", "words": {"winner": "selected"}}}
    )
    assert one(tmp_path, columns, Outcome="winner").tags == {"outcome": "selected"}


def test_spaces_around_a_text_are_left_out_and_flagged(tmp_path):
    run = one(tmp_path, ID="run-1 ", Text="\u00a0adam\t", AUC=" 0.5")
    assert run.source.run_id == "run-1"
    assert run.parameters == {"t": "adam"}
    assert run.points[0].value == 0.5
    assert flags(run) == {
        ("run", "spaces_trimmed"),
        ("parameters.t", "spaces_trimmed"),
        ("metrics.auc", "spaces_trimmed"),
    }


def test_an_apostrophe_stays_in_a_log_that_is_not_ours(tmp_path):
    assert one(tmp_path, Text="'=1").parameters == {"t": "'=1"}
    own = write(tmp_path / "own.csv", "Experiment ID,param: t (text),Notes\n'=a,'=1,'x\n")
    (run,) = read_log(own)
    assert (run.source.run_id, run.parameters, run.tags) == ("=a", {"t": "=1"}, {"notes": "'x"})


# --- dates and durations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "started", "day_only"),
    [
        ("2026-03-04", 1_772_582_400_000, True),
        ("2026-03-04T10:00:00Z", 1_772_618_400_000, False),
        ("2026-03-04 11:00:00+01:00", 1_772_618_400_000, False),
        ("2026-03-04T10:00:00.123", 1_772_618_400_123, False),
    ],
)
def test_dates_in_the_form_of_iso_8601_need_no_declaration(text, started, day_only, tmp_path):
    run = one(tmp_path, Date=text)
    assert run.started == started
    assert (("times", "day_only") in flags(run)) is day_only


@pytest.mark.parametrize(
    "text", ["04/03/2026", "4.3.2026", "46085", "March 4, 2026", "2026-02-30", "9999-99-99"]
)
def test_any_other_date_needs_one(text, tmp_path):
    assert "04/03/2026 may be in March or in April" in bad(
        tmp_path, "is no date such as", Date=text
    )


@pytest.mark.parametrize(
    ("form", "text", "day"),
    [("%d/%m/%Y", "04/03/2026", "2026-03-04"), ("%m/%d/%Y", "04/03/2026", "2026-04-03"), ("%d.%m.%y", "4.3.26", "2026-03-04")],
)  # fmt: skip
def test_a_declared_form_settles_it(form, text, day, tmp_path):
    columns = declared(**{**TYPED, "date": {"column": "Date", "format": form}})
    assert one(tmp_path, columns, Date=text).started == one(tmp_path, Date=day).started
    bad(tmp_path, f"is no date in the form {form}", columns, Date="2026-03-04")


def test_a_time_zone_can_be_declared(tmp_path):
    columns = declared(**{**TYPED, "date": {"column": "Date", "zone": "Europe/Berlin"}})
    assert one(tmp_path, columns, Date="2026-07-01T12:00").started == 1_782_900_000_000
    assert one(tmp_path, columns, Date="2026-07-01T12:00Z").started == 1_782_907_200_000


@pytest.mark.parametrize("text", ["1969-12-31", "0001-01-01", "0001-01-01T00:00:00+14:00"])
def test_dates_before_computers_logged_anything_are_refused(text, tmp_path):
    bad(tmp_path, "is before 1970|is no date", Date=text)


def test_the_number_of_a_day_means_nothing_without_a_workbook(tmp_path):
    columns = declared(**{**TYPED, "date": {"column": "Date", "format": "serial"}})
    bad(tmp_path, "is no number of a day", columns, Date="46085")


@pytest.mark.parametrize(("unit", "text", "seconds"), [("minutes", "1.5", 90), ("hours", "2", 7200), ("days", "1", 86400),
    ("clock", "1:30:00", 5400), ("clock", "26:05:00.5", 93900.5)])  # fmt: skip
def test_the_end_is_the_start_and_the_duration(unit, text, seconds, tmp_path):
    columns = declared(**{**TYPED, "duration": {"column": "Time", "unit": unit}})
    run = one(tmp_path, columns, Date="2026-03-04T10:00:00Z", Time=text, AUC="0.5")
    assert run.ended == run.started + round(seconds * 1000)
    assert run.points[0].timestamp == run.ended


@pytest.mark.parametrize("text", ["1:30", "-1", "1 h", "inf", "NaN", "1e300"])
def test_a_duration_of_another_kind_is_refused(text, tmp_path):
    bad(tmp_path, "row 2", Time=text)
    columns = declared(**{**TYPED, "duration": {"column": "Time", "unit": "clock"}})
    bad(tmp_path, "is no time h:mm:ss", columns, Time=text)


def test_a_duration_without_a_date_has_no_end(tmp_path):
    run = one(tmp_path, Time="5")
    assert (run.started, run.ended) == (None, None)
    assert flags(run) == {("times", "no_start")}


# --- rows and the file ------------------------------------------------------------------------------------------------

ID_ONLY = declared(id="ID")


def test_an_id_that_stands_twice_is_refused_with_both_rows(tmp_path):
    log = write(tmp_path / "log.csv", "ID\na\nb\n\na \n")
    error = refused_log(log, "row 5: the experiment ID 'a' stands in row 2 as well", ID_ONLY)
    assert "ID of its own" in error.remedy


def test_empty_rows_are_no_runs_but_count_as_rows(tmp_path):
    log = write(tmp_path / "log.csv", "ID,X\n\n,\n  ,\na,1\n,2\n")
    columns = declared(id="ID", tags={"x": "X"})
    refused_log(log, r"row 6, column A \('ID'\): no experiment ID", columns)


def test_the_example_of_our_template_is_no_run(tmp_path):
    log = write(tmp_path / "log.csv", "Experiment ID\n#example\na\n")
    assert [run.source.run_id for run in read_log(log)] == ["a"]
    log = write(tmp_path / "log.csv", "ID\n#example\na\n")
    assert [run.source.run_id for run in read_log(log, ID_ONLY)] == ["#example", "a"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "row 1: no titles"),
        ("\n\n", "row 1: no titles"),
        (",,\na,b,c\n", "row 1: no titles"),
        ("ID,X,X\na,1,2\n", "columns B and C are both called 'X'"),
        ("ID, ID\na,1\n", "columns A and B are both called 'ID'"),
        ("ID\na,b\n", "row 2: 2 cells, but the row of the titles has 1"),
        ("ID,X\na,0,912\n", "row 2: 3 cells"),
        ('ID,X\na,"b\nc,d\ne,f\n', "row 2: a quote that is never closed"),
        ('ID,X\na,"b"c\n', "row 2: text follows a closing quote"),
        ("ID,X\na,b\0c\n", "row 2: a NUL character"),
        (b"ID,X\na,\xe9\n", "row 1: here or soon after, .*utf-8"),
        ("ID,X\na,1\n".encode("utf-16"), "begins with the mark of utf-16, and is read as utf-8"),
        ("ID,X\na,1\n".encode("utf-16-le"), "NUL character"),
        (b"PK\3\4...", "is a workbook"),
        ("ID,X\na," + "x" * 140_000, "a cell of more than 131,072 characters"),
    ],
)
def test_a_csv_file_that_is_none_is_refused_with_the_row(text, match, tmp_path):
    refused_log(write(tmp_path / "log.csv", text), match, ID_ONLY)


def test_the_titles_may_stand_in_another_row(tmp_path):
    log = write(tmp_path / "log.csv", 'Our experiments,,,,\n"2026"\nID,X\na,1\n')
    columns = declared(id="ID", tags={"x": "X"}, header=3)
    (run,) = read_log(log, columns)
    assert run.tags == {"x": "1"}
    refused_log(log, "row 9: no titles", declared(id="ID", header=9))


@pytest.mark.parametrize(("separator", "sign"), [(";", ";"), ("tab", "\t"), ("|", "|"), (",", ",")])
def test_separators_are_declared(separator, sign, tmp_path):
    log = write(tmp_path / "log.csv", f'ID{sign}X\r\na{sign}"1\n2{sign}"\r\n')
    (run,) = read_log(log, declared(id="ID", tags={"x": "X"}, separator=separator))
    assert flags(run) <= {("tags.x", "spaces_trimmed")}
    assert run.tags == {"x": f"1\n2{sign}".strip()}


@pytest.mark.parametrize(
    ("encoding", "codec"),
    [("utf-8", "utf-8"), ("utf-8", "utf-8-sig"), ("utf-16", "utf-16"), ("cp1252", "cp1252"), ("mac-roman", "mac-roman")],
)  # fmt: skip
def test_encodings_are_declared(encoding, codec, tmp_path):
    log = write(tmp_path / "log.csv", "ID,X\na,Größe é\n".encode(codec))
    (run,) = read_log(log, declared(id="ID", tags={"x": "X"}, encoding=encoding))
    assert run.tags == {"x": "Größe é"}


def test_a_mark_of_another_encoding_than_the_declared_one_is_refused(tmp_path):
    log = write(tmp_path / "log.csv", "ID\na\n".encode("utf-8-sig"))
    refused_log(log, "mark of utf-8, and is read as cp1252", declared(id="ID", encoding="cp1252"))


def test_a_row_that_is_cut_at_the_end_is_flagged(tmp_path):
    log = write(tmp_path / "log.csv", "ID,X,Y\na,1\nb,1")
    columns = declared(id="ID", tags={"x": "X", "y": "Y"})
    whole, cut = read_log(log, columns)
    assert flags(whole) == set()
    assert flags(cut) == {("run", "truncated")}


def test_an_endless_row_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment_log_table, "MAX_ROW", 1000)
    refused_log(
        write(tmp_path / "log.csv", "ID" + "," * 2000), "1,000 characters in row 1", ID_ONLY
    )
    lines = "ID,X\n" + "".join(f"a{i},{'x' * 90}\n" for i in range(50))
    assert len(read_log(write(tmp_path / "log.csv", lines), ID_ONLY)) == 50
    text = 'ID,X\na,"' + ("x" * 90 + "\n") * 50 + '"\n'
    refused_log(write(tmp_path / "log.csv", text), "1,000 characters in row 2", ID_ONLY)


def test_a_file_without_an_end_of_rows_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment_log_table, "MAX_ROWS", 3)
    refused_log(write(tmp_path / "log.csv", "ID\na\nb\nc\n"), "more than 3 rows", ID_ONLY)


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    log = write(tmp_path / "log.csv", "ID\na\n")

    def denied(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(log), "open", denied)
    refused_log(log, "log.csv' cannot be read: Permission denied", ID_ONLY)


def test_a_full_temporary_folder_is_named(tmp_path, monkeypatch):
    import tempfile

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    log = write(tmp_path / "log.csv", "ID\na\n")
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    refused_log(log, "No space left", ID_ONLY)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path):
    metrics = {f"m{i}": f"M{i}" for i in range(30)}
    columns = declared(id="ID", metrics=metrics)
    cells = ",".join(f"0.{i:015d}" for i in range(30))

    def peak(rows):
        lines = (f"run-{number},{cells}\n" for number in range(rows))
        text = ",".join(["ID", *metrics.values()]) + "\n" + "".join(lines)
        log = write(tmp_path / f"{rows}.csv", text)
        importer = ExperimentLogImporter(columns)
        tracemalloc.start()
        with importer.open(log, experiment=None, artefacts=None) as session:
            assert sum(len(run.points) for run in session) == rows * 30
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(50), peak(1050)
    # An index takes about 300 bytes a run; the text of a row 540, its cells 6,000.
    assert many - few < 500 * 1000
