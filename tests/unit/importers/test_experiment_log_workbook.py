"""XLSX workbooks: the types that cells have by themselves, formulas, merged cells, and files that want to do harm."""

from __future__ import annotations

import zipfile
from xml.sax.saxutils import escape

import pytest

from bundler.importers.experiment_log import ExperimentLogImporter
from bundler.importers.experiment_log import sheet as experiment_log_sheet
from bundler.importers.experiment_log import workbook as experiment_log_book
from bundler.importers.experiment_log.workbook import style_of
from tests.unit.importers.support import flags
from tests.unit.importers.test_experiment_log import LOGS, declared, read_log, refused_log

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
STRICT = "http://purl.oclc.org/ooxml/spreadsheetml/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
STYLES = ["General", "yyyy-mm-dd", "[h]:mm:ss", "0.0%", "@", '"d"0.00', "hh:mm"]
COLUMNS = declared(
    id="ID",
    date="Date",
    duration={"column": "Time", "unit": "clock"},
    commit="Commit",
    dirty="Dirty",
    seed="Seed",
    parameters={
        "t": {"column": "Text", "type": "text"},
        "n": {"column": "Number", "type": "number"},
    },
    metrics={"auc": "AUC"},
)
TITLES = ["ID", "Date", "Time", "Commit", "Dirty", "Seed", "Text", "Number", "AUC"]


def text(value):
    return f't="inlineStr"><is><t xml:space="preserve">{escape(value)}</t></is>'


def row(number, *cells, more=""):
    """A row; a cell is what follows its reference, such as ``><v>1</v>``, or None."""
    found = "".join(
        f'<c r="{"ABCDEFGHIJKLMNOPQRSTUVWXYZ"[at]}{number}" {cell}</c>'
        for at, cell in enumerate(cells)
        if cell is not None
    )
    return f'<row r="{number}"{more}>{found}</row>'


def header(number=1):
    return row(number, *map(text, TITLES))


def workbook(folder, *rows, after="", before="", main=MAIN, strings=(), **more):
    """A workbook by hand with one sheet; ``more``: other members, or ``None`` for one that is left out."""
    sheet = f'<worksheet xmlns="{main}">{before}<sheetData>{"".join(rows)}</sheetData>{after}</worksheet>'
    formats = "".join(
        f'<numFmt numFmtId="{200 + at}" formatCode="{escape(code, {chr(34): "&quot;"})}"/>'
        for at, code in enumerate(STYLES)
    )
    styles = "".join(f'<xf numFmtId="{200 + at}"/>' for at in range(len(STYLES)))
    members = {
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}"><Relationship Id="r" Type="{OFFICE}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{OFFICE}"><sheets><sheet name="S" sheetId="1" r:id="rId1"/>'
        "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}">'
        f'<Relationship Id="rId1" Type="{OFFICE}/worksheet" Target="/xl/worksheets/sheet1.xml"/>'
        f'<Relationship Id="rId2" Type="{OFFICE}/worksheet" Target="worksheets/sheet2.xml"/>'
        f'<Relationship Id="rId3" Type="{OFFICE}/styles" Target="styles.xml"/>'
        f'<Relationship Id="rId4" Type="{OFFICE}/sharedStrings" Target="sharedStrings.xml"/>'
        f'<Relationship Id="rId5" Type="{OFFICE}/externalLink" TargetMode="External" Target="file:///etc/passwd"/>'
        "</Relationships>",
        "xl/styles.xml": f'<styleSheet xmlns="{main}"><numFmts>{formats}</numFmts>'
        f'<cellStyleXfs><xf numFmtId="14"/></cellStyleXfs><cellXfs>{styles}</cellXfs></styleSheet>',
        "xl/sharedStrings.xml": f'<sst xmlns="{main}">{"".join(f"<si>{each}</si>" for each in strings)}</sst>',
        "xl/worksheets/sheet1.xml": sheet,
        "xl/vbaProject.bin": "Sub Auto_Open()",
        **more,
    }
    target = folder / "log.xlsx"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)
    return target


def one(folder, columns=COLUMNS, **cells):
    """The run of a workbook whose second row has these cells."""
    (run,) = read_log(with_cells(folder, **cells), columns)
    return run


def with_cells(folder, **cells):
    found = {"ID": text("run-1"), **cells}
    return workbook(folder, header(), row(2, *(found.get(title) for title in TITLES)))


def bad(folder, match, **cells):
    error = refused_log(with_cells(folder, **cells), match, COLUMNS)
    (title,) = cells
    place = f"log.xlsx', sheet 'S', row 2, column {'ABCDEFGHI'[TITLES.index(title)]} ('{title}'): "
    assert place in error.message
    return error.remedy


# --- types ------------------------------------------------------------------------------------------------------------


def test_cells_have_types_of_their_own(tmp_path):
    run = one(
        tmp_path,
        Date='s="1"><v>46085.5</v>',
        Time='s="2"><v>1.5</v>',
        Commit=text("1234e5"),
        Dirty='t="b"><v>1</v>',
        Seed="><v>7</v>",
        Text=text("adam"),
        Number="><v>1E-3</v>",
        AUC='t="n" s="5"><v>0.91200000000000003</v>',
    )
    assert run.source.store == "xlsx"
    assert (run.started, run.ended) == (1_772_625_600_000, 1_772_755_200_000)
    assert (run.code.commit, run.code.dirty) == ("1234e5", True)
    assert run.parameters == {"seed": 7, "t": "adam", "n": 0.001}
    assert run.points[0].value == 0.912
    assert flags(run) == set()


@pytest.mark.parametrize(
    "cell", ["><v>123400000</v>", 's="1"><v>46085</v>', 't="b"><v>1</v>', 's="4"><v>12</v>']
)
def test_a_commit_that_is_no_text_is_refused(cell, tmp_path):
    assert "Format the column as text" in bad(tmp_path, "not text", Commit=cell)


def test_other_texts_that_are_none_are_taken_and_flagged(tmp_path):
    for cell, value in (("><v>3</v>", "3"), ("><v>0.5</v>", "0.5"), ('t="b"><v>0</v>', "false"), ('s="1"><v>46085</v>', "2026-03-04")):  # fmt: skip
        run = one(tmp_path, Text=cell)
        assert run.parameters == {"t": value}
        assert flags(run) == {("parameters.t", "type_lost")}
    assert one(tmp_path, ID="><v>12</v>").source.run_id == "12"


def test_a_number_in_the_date_column_is_no_date_unless_declared(tmp_path):
    assert "format: serial" in bad(
        tmp_path, "46085.0 is a number, not a date", Date="><v>46085</v>"
    )
    from dataclasses import replace

    from bundler.importers.experiment_log.columns import DateColumn

    columns = replace(COLUMNS, date=DateColumn(column="Date", format="serial"))
    assert one(tmp_path, columns, Date="><v>46085</v>").started == 1_772_582_400_000
    assert one(tmp_path, columns, Date='s="1"><v>46085</v>').started == 1_772_582_400_000
    refused_log(with_cells(tmp_path, Date=text("2026-03-04")), "is no number of a day", columns)
    refused_log(with_cells(tmp_path, Date="><v>1e300</v>"), "is no number of a day", columns)


def test_a_day_alone_is_flagged(tmp_path):
    assert ("times", "day_only") in flags(one(tmp_path, Date='s="1"><v>46085</v>'))
    assert one(tmp_path, Date='t="d"><v>2026-03-04T10:00:00Z</v>').started == 1_772_618_400_000


@pytest.mark.parametrize("serial", ["60", "60.5", "1e7", "-700000"])
def test_days_that_never_were(serial, tmp_path):
    assert "the error" in refused_log(with_cells(tmp_path, Date=f's="1"><v>{serial}</v>'), "formatted as a date", COLUMNS).message  # fmt: skip


@pytest.mark.parametrize("serial", ["0", "1", "59", "61"])
def test_days_of_1900_are_no_starts_of_trainings(serial, tmp_path):
    bad(tmp_path, "is before 1970", Date=f's="1"><v>{serial}</v>')


def test_days_are_numbered_as_in_excel():
    book = experiment_log_book.Book(
        file=LOGS, archive=None, sheets=(), strings=(), styles=(), since_1904=False
    )
    days = {1: "1900-01-01", 59: "1900-02-28", 60: None, 61: "1900-03-01", 1e9: None, -1e9: None}
    assert {serial: book.day(serial) for serial in days} == days


def test_a_percentage_has_to_be_declared_though_its_value_is_known(tmp_path):
    assert "percent: true" in bad(tmp_path, "is a percentage", AUC='s="3"><v>0.912</v>')
    columns = declared(id="ID", metrics={"auc": {"column": "AUC", "percent": True}})
    assert one(tmp_path, columns, AUC='s="3"><v>0.912</v>').points[0].value == 0.912
    refused_log(with_cells(tmp_path, AUC="><v>91.2</v>"), "has no percent sign", columns)


@pytest.mark.parametrize(
    ("cells", "match"),
    [
        ({"AUC": 't="b"><v>1</v>'}, "is a truth value, not a number"),
        ({"AUC": 's="1"><v>46085</v>'}, "is a day, not a number"),
        ({"AUC": 's="2"><v>1</v>'}, "is a time, not a number"),
        ({"AUC": text("0,912")}, "is no number"),
        ({"Seed": "><v>7.5</v>"}, "is no whole number"),
        ({"Seed": 's="3"><v>7</v>'}, "is a number, not a whole number|no whole number"),
        ({"Dirty": "><v>2</v>"}, "neither true nor false"),
        ({"Dirty": 's="1"><v>1</v>'}, "neither true nor false"),
        ({"Time": "><v>5400</v>"}, "no time h:mm:ss"),
        ({"Time": 's="1"><v>46085</v>'}, "no time h:mm:ss"),
        ({"Date": 's="2"><v>1</v>'}, "is a time, not a date"),
    ],
)
def test_a_cell_of_another_type_is_refused(cells, match, tmp_path):
    bad(tmp_path, match, **cells)


def test_a_clock_time_is_no_number_of_minutes(tmp_path):
    columns = declared(id="ID", duration={"column": "Time", "unit": "minutes"})
    error = refused_log(with_cells(tmp_path, Time='s="6"><v>0.0625</v>'), "clock time", columns)
    assert "unit: clock" in error.remedy


def test_more_digits_than_a_spreadsheet_keeps_are_flagged(tmp_path):
    run = one(tmp_path, Seed="><v>1234567890123450</v>")
    assert run.parameters["seed"] == 1_234_567_890_123_450
    assert flags(run) == {("seed", "precision_lost")}


@pytest.mark.parametrize(
    ("code", "style"),
    [
        ("General", "number"), ("0.00E+00", "number"), ("#,##0", "number"), ("0%", "percent"), ("@", "number"),
        ("yyyy-mm-dd", "date"), ("mmm", "date"), ("[$-409]d/m/yy h:mm AM/PM;@", "date"), ("DD.MM.YYYY", "date"),
        ("h:mm", "time"), ("[h]:mm:ss", "time"), ("mm:ss.0", "time"), ("[mm]:ss", "time"), ('0.0" days"', "number"),
        ("0\\d", "number"), ("[Red]0", "number"), ("_-* 0_-", "number"), ("", "number"), ("0;[Red]yy", "number"),
    ],
)  # fmt: skip
def test_number_formats(code, style):
    assert style_of(code) == style


# --- texts ------------------------------------------------------------------------------------------------------------


def test_texts_of_the_shared_table_may_be_rich_and_have_readings(tmp_path):
    strings = [
        "<t>run</t>",
        "<r><t>ad</t></r><r><t>am</t></r><rPh><t>reading</t></rPh>",
        "<t>a_x0009_b_x005F_x0041_</t>",
    ]
    cells = ['t="s"><v>0</v>', None, None, 't="s"><v>2</v>', None, None, 't="s"><v>1</v>']
    (run,) = read_log(workbook(tmp_path, header(), row(2, *cells), strings=strings), COLUMNS)
    assert (run.source.run_id, run.parameters["t"]) == ("run", "adam")
    assert run.code.commit == "a\tb_x0041_"


def test_half_a_character_becomes_an_escape(tmp_path):
    assert one(tmp_path, Text=text("a_xD800_b")).parameters == {"t": "a\\ud800b"}


def test_a_text_of_spaces_is_an_empty_cell(tmp_path):
    run = one(tmp_path, Text=text("  "), AUC='t="str"><v></v>', Number='t="s"><v></v>')
    assert (run.parameters, run.points) == ({}, ())


# --- formulas, errors, merged and hidden cells ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell", ["><f>A1</f><v>0.5</v>", "><f>A1</f>", "><f>A1</f><v/>", 't="str"><f>A1</f><v>0.5</v>', '><f t="shared" si="0"/><v>1</v>']
)  # fmt: skip
def test_a_formula_is_no_metric(cell, tmp_path):
    assert "values only" in bad(tmp_path, "a formula: what it gives depends", AUC=cell)


def test_a_formula_elsewhere_gives_its_last_value_and_a_flag(tmp_path):
    run = one(tmp_path, Seed="><f>3+4</f><v>7</v>", Text='t="str"><f>"ad"&amp;"am"</f><v>adam</v>')
    assert run.parameters == {"seed": 7, "t": "adam"}
    assert flags(run) == {("seed", "formula"), ("parameters.t", "formula")}


def test_a_formula_that_was_never_calculated_has_no_value(tmp_path):
    assert "Open and save" in bad(tmp_path, "never calculated", Seed="><f>3+4</f><v></v>")


def test_the_cells_of_an_array_formula_are_formulas_as_well(tmp_path):
    rows = [
        row(2, text("a"), *[None] * 6, '><f t="array" ref="H2:I3">X</f><v>1</v>'),
        row(3, text("b"), *[None] * 7, "><v>1</v>"),
    ]
    refused_log(
        workbook(tmp_path, header(), *rows), r"row 3, column I \('AUC'\): a formula", COLUMNS
    )


def test_libre_office_spells_truth_as_a_formula(tmp_path):
    run = one(tmp_path, Dirty='t="b"><f aca="false">FALSE()</f><v>0</v>')
    assert run.code.dirty is False
    assert flags(run) == set()


@pytest.mark.parametrize("title", ["AUC", "Seed", "Date", "Text", "ID"])
def test_an_error_is_no_value(title, tmp_path):
    assert "Correct the formula" in bad(
        tmp_path, "the error '#DIV/0!'", **{title: 't="e"><v>#DIV/0!</v>'}
    )


def test_merged_cells_are_refused_from_the_titles_on(tmp_path):
    rows = (header(), row(2, text("a")), row(3, text("b")))
    merged = '<mergeCells><mergeCell ref="H2:H3"/></mergeCells>'
    error = refused_log(
        workbook(tmp_path, *rows, after=merged),
        "row 2, column H: the merged cells 'H2:H3'",
        COLUMNS,
    )
    assert "Unmerge" in error.remedy
    banner = '<mergeCells><mergeCell ref="A1:I1"/></mergeCells>'
    rows = (row(1, text("Experiments of 2026")), header(2), row(3, text("a")))
    from dataclasses import replace

    assert len(read_log(workbook(tmp_path, *rows, after=banner), replace(COLUMNS, header=2))) == 1


def test_hidden_sheets_are_read_and_flagged(tmp_path):
    sheets = (
        f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets>'
        '<sheet name="Front" sheetId="2" r:id="rId2"/><sheet name="Log" state="veryHidden" r:id="rId1"/>'
        '<sheet name="Chart" r:id="rId9"/></sheets></workbook>'
    )
    other = (
        f'<worksheet xmlns="{MAIN}"><sheetData>{row(1, text("Welcome"))}</sheetData></worksheet>'
    )
    log = workbook(
        tmp_path, header(), row(2, text("a")), row(3, text("b"), more=' hidden="1"'),
        **{"xl/workbook.xml": sheets, "xl/worksheets/sheet2.xml": other},
    )  # fmt: skip
    shown, hidden = read_log(log, COLUMNS)
    assert flags(shown) == {("run", "hidden_sheet")}
    assert flags(hidden) == {("run", "hidden_sheet"), ("run", "hidden_row")}
    assert ExperimentLogImporter(COLUMNS).experiments(log) == ("Log",)
    assert "'Log' (id Log, 2 runs)" in refused_log(log, "no experiment 'X'", COLUMNS, "X").remedy
    assert "Its titles are 'Welcome'" in refused_log(log, "no column 'ID'", COLUMNS, "Front").remedy
    # Without a declaration no sheet is known to be a log, so one has to be named.
    assert "'Front'" in refused_log(log, "several experiments").remedy


def test_cells_beside_the_table_are_flagged(tmp_path):
    log = workbook(tmp_path, header(), row(2, text("a"), *[None] * 11, text("stray")))
    (run,) = read_log(log, COLUMNS)
    assert flags(run) == {("run", "column_ignored")}


# --- other forms of workbooks -----------------------------------------------------------------------------------------


def test_the_strict_form_is_read_too(tmp_path):
    log = workbook(tmp_path, header(), row(2, text("a"), 't="d"><v>2026-03-04</v>'), main=STRICT)
    assert read_log(log, COLUMNS)[0].started == 1_772_582_400_000


def test_references_may_be_left_out(tmp_path):
    rows = (header(), f'<row><c {text("a")}</c></row><row r="5"><c {text("b")}</c></row>')
    log = workbook(tmp_path, *rows)
    assert [run.source.run_id for run in read_log(log, COLUMNS)] == ["a", "b"]


def test_a_workbook_may_lack_texts_and_styles(tmp_path):
    log = workbook(
        tmp_path, header(), row(2, text("a"), 's="9"><v>1</v>'),
        **{"xl/styles.xml": None, "xl/sharedStrings.xml": None},
    )  # fmt: skip
    refused_log(log, "is a number, not a date", COLUMNS)


def test_what_openpyxl_writes_is_read(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    from datetime import datetime, timedelta

    book = openpyxl.Workbook()
    book.active.append(TITLES)
    started = datetime(2026, 3, 4, 9, 30)  # noqa: DTZ001
    book.active.append(["a", started, timedelta(hours=26), "1234e5", True, 7, "x", -0.5, 0.25])
    book.active.append(["b", None, None, None, None, None, None, None, "=1/3"])
    book.save(tmp_path / "log.xlsx")
    refused_log(tmp_path / "log.xlsx", "row 3, column I .*a formula", COLUMNS)
    book.active.delete_rows(3)
    book.save(tmp_path / "log.xlsx")
    (run,) = read_log(tmp_path / "log.xlsx", COLUMNS)
    assert (run.started, run.ended) == (1_772_616_600_000, 1_772_710_200_000)
    assert run.parameters == {"t": "x", "n": -0.5, "seed": 7}
    assert (run.code.commit, run.code.dirty, run.points[0].value) == ("1234e5", True, 0.25)


# --- harm -------------------------------------------------------------------------------------------------------------

BOMB = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    f'<worksheet xmlns="{MAIN}"><sheetData><row r="1"><c t="str"><v>&b;</v></c></row></sheetData></worksheet>'
)
OUTSIDE = BOMB.replace('<!ENTITY a "ha">', '<!ENTITY a SYSTEM "file:///etc/passwd">')


@pytest.mark.parametrize(
    "text_",
    [BOMB, OUTSIDE, BOMB.encode("utf-16"), '<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd"><a/>'],
)
@pytest.mark.parametrize(
    "member",
    ["_rels/.rels", "xl/workbook.xml", "xl/_rels/workbook.xml.rels", "xl/styles.xml", "xl/sharedStrings.xml", "xl/worksheets/sheet1.xml"],
)  # fmt: skip
def test_a_document_type_is_refused_wherever_it_stands(member, text_, tmp_path):
    log = workbook(tmp_path, header(), **{member: text_})
    assert f"'{member}' at byte" in refused_log(log, r"a document type \(DTD\)", COLUMNS).message


@pytest.mark.parametrize(
    ("sheet", "match"),
    [
        ("<a>" * 100, "nested too deeply"),
        ("<a", "unclosed token"),
        ("", "no element found"),
        ("<a></b>", "mismatched tag"),
        ("<a>&b;</a>", "undefined entity"),
        ('<?xml version="1.0" encoding="rot13"?><a/>', "encoding|rot13"),
        (b"\xff\xfe<\0", "unclosed token|no element"),
        ("<a>\x01</a>", "invalid token"),
    ],
)
def test_broken_xml_is_named_with_member_and_byte(sheet, match, tmp_path):
    log = workbook(tmp_path, **{"xl/worksheets/sheet1.xml": sheet})
    assert "'xl/worksheets/sheet1.xml' at byte" in refused_log(log, match, COLUMNS, "S").message


def test_a_tag_without_an_end_is_refused(tmp_path, monkeypatch):
    from bundler.importers.experiment_log import xml as experiment_log_xml

    monkeypatch.setattr(experiment_log_xml, "MAX_TOKEN", 1000)
    log = workbook(tmp_path, **{"xl/worksheets/sheet1.xml": '<a b="' + "x" * 500_000})
    refused_log(log, "a tag without an end", COLUMNS, "S")


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ('<row r="0"/>', "row '0' after row 0"),
        (header() + '<row r="3"/><row r="2"/>', "row '2' after row 3"),
        ('<row r="9999999"/>', "row '9999999'"),
        ('<row r="1"><c r="A2"><v>1</v></c></row>', "cell 'A2' in row 1"),
        ('<row r="1"><c r="B1"><v>1</v></c><c r="A1"><v>1</v></c></row>', "not to the right"),
        ('<row r="1"><c r="ZZZ1"><v>1</v></c></row>', "not to the right"),
        ('<row r="1"><c r="1A"><v>1</v></c></row>', "no cells '1A'"),
        ('<row r="1"><c t="s"><v>7</v></c></row>', "no text '7'"),
        ('<row r="1"><c t="s"><v>x</v></c></row>', "no text 'x'"),
        ('<row r="1"><c><v>1_0</v></c></row>', "'1_0' is no value"),
        ('<row r="1"><c><v>1e999</v></c></row>', "'1e999' is no value"),
        ('<row r="1"><c><v>nan</v></c></row>', "'nan' is no value"),
        ('<row r="1"><c t="z"><v>1</v></c></row>', r"is no value of a workbook \(type 'z'\)"),
        ('<row r="1"><c><f t="array" ref="A">1</f></c></row>', "no cells 'A'"),
        (
            '<row r="1"><c t="str"><v>' + "x" * 140_000 + "</v></c></row>",
            "more than 131,072 characters",
        ),
    ],
)
def test_sheets_that_no_program_writes_are_refused(rows, match, tmp_path):
    refused_log(workbook(tmp_path, rows), match, COLUMNS, "S")


def test_too_many_array_formulas_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment_log_sheet, "MAX_RANGES", 2)
    cells = ['><f t="array" ref="A1">1</f><v>1</v>'] * 3
    refused_log(workbook(tmp_path, row(1, *cells)), "more than 2 array formulas", COLUMNS, "S")


@pytest.mark.parametrize(
    ("name", "limit", "match"),
    [("MAX_PART", 10, "'_rels/.rels'"), ("MAX_STRINGS", 10, "'xl/sharedStrings.xml'"), ("MAX_SHEETS", 0, "more than 0 sheets"),
     ("MAX_STYLES", 2, "more than 2 cell styles")],
)  # fmt: skip
def test_parts_are_bounded(name, limit, match, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment_log_book, name, limit)
    if name == "MAX_PART":
        monkeypatch.setattr(experiment_log_book.part, "__defaults__", (limit,))
    refused_log(workbook(tmp_path, header(), row(2, text("a"))), match, COLUMNS)


def test_a_sheet_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment_log_sheet, "MAX_SHEET", 1000)
    log = workbook(tmp_path, header(), *(row(number, text("a" * 1000)) for number in range(2, 50)))
    refused_log(log, "'xl/worksheets/sheet1.xml'", COLUMNS)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"_rels/.rels": None}, "it has no '_rels/.rels'"),
        ({"_rels/.rels": f'<Relationships xmlns="{PACKAGE}"/>'}, "it names '' as its contents"),
        ({"xl/workbook.xml": None}, "it names 'xl/workbook.xml'"),
        ({"xl/workbook.xml": f'<workbook xmlns="{MAIN}"/>'}, "has no worksheet"),
        ({"xl/_rels/workbook.xml.rels": None}, "has no worksheet"),
        ({"xl/worksheets/sheet1.xml": None}, "no member"),
    ],
)
def test_a_zip_file_that_is_no_workbook_is_refused(change, match, tmp_path):
    refused_log(workbook(tmp_path, header(), row(2, text("a")), **change), match, COLUMNS, "S")


def test_a_file_that_is_no_zip_file_is_refused(tmp_path):
    (tmp_path / "log.xlsx").write_bytes(b"ID,X\n")
    refused_log(tmp_path / "log.xlsx", "zip file", COLUMNS)


def test_two_sheets_of_one_name_are_refused(tmp_path):
    twice = (
        f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets><sheet name="S" r:id="rId1"/>'
        '<sheet name="S" r:id="rId1"/></sheets></workbook>'
    )
    log = workbook(tmp_path, header(), **{"xl/workbook.xml": twice})
    refused_log(log, "two sheets of the same name", COLUMNS)
