"""Whatever the bytes of a log are: runs come out, or a SourceError that says what to do."""

from __future__ import annotations

import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler.errors import SourceError
from bundler.importers.experiment_log import ExperimentLogImporter
from bundler.importers.experiment_log.titles import from_titles
from tests.unit.importers.test_experiment_log import CASES, LOGS, of_case

FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
WORKBOOK = LOGS / "experiments.xlsx"
with zipfile.ZipFile(WORKBOOK) as _archive:
    MEMBERS = {info.filename: _archive.read(info) for info in _archive.infolist()}
PARTS = sorted(
    name for name in MEMBERS if name.endswith((".xml", ".rels")) and "docProps" not in name
)


def survives(store, columns) -> None:
    """Reading gives runs or a :class:`SourceError` in text that can be written, and nothing else."""
    for importer in (ExperimentLogImporter(), ExperimentLogImporter(columns)):
        importer.detect(store.parent)
        for experiment in ("Experiments", None):
            try:
                importer.experiments(store)
                with importer.open(store, experiment=experiment, artefacts=None) as session:
                    texts = [repr(run) for run in session]
            except SourceError as error:
                texts = [error.message, error.remedy]
            for text in texts:
                assert text
                text.encode()


edits = st.lists(
    st.tuples(st.integers(0, 1 << 16), st.integers(0, 8), st.binary(max_size=8)),
    min_size=1,
    max_size=6,
)


def edited(data: bytes, changes) -> bytes:
    """``data`` with some of its bytes replaced, taken out or added."""
    for at, length, new in changes:
        place = at % (len(data) + 1)
        data = data[:place] + new + data[place + length :]
    return data


@FUZZ
@given(st.binary(max_size=400))
@pytest.mark.parametrize("name", ["log.csv", "log.xlsx"])
def test_any_bytes(name, tmp_path, data):
    (tmp_path / name).write_bytes(data)
    survives(tmp_path / name, of_case("experiments.csv"))


@FUZZ
@given(edits)
@pytest.mark.parametrize("name", sorted(name for name in CASES if name.endswith(".csv")))
def test_edited_csv_files(name, tmp_path, changes):
    (tmp_path / "log.csv").write_bytes(edited((LOGS / name).read_bytes(), changes))
    survives(tmp_path / "log.csv", of_case(name))


@FUZZ
@given(edits)
def test_edited_workbooks(tmp_path, changes):
    (tmp_path / "log.xlsx").write_bytes(edited(WORKBOOK.read_bytes(), changes))
    survives(tmp_path / "log.xlsx", of_case("experiments.xlsx"))


@settings(FUZZ, max_examples=100)
@given(st.sampled_from(PARTS), edits)
def test_edited_parts_of_workbooks(tmp_path, member, changes):
    with zipfile.ZipFile(tmp_path / "log.xlsx", "w") as archive:
        for name, data in MEMBERS.items():
            archive.writestr(name, edited(data, changes) if name == member else data)
    survives(tmp_path / "log.xlsx", of_case("experiments.xlsx"))


# Texts of XML that mean something in a worksheet, in any order.
PIECES = [
    '<row r="2">', "<row>", "</row>", '<c r="A2" t="s">', "<c>", '<c t="n" s="1">', '<c t="inlineStr">', "</c>",
    "<v>", "</v>", "<f>", '<f t="array" ref="A1:B9">', "</f>", "<is><t>", "</t></is>", "1", "-1e5", "nan", "x",
    '<mergeCell ref="A1:A2"/>', '<mergeCell ref="A1"/>', '<row r="1048577"/>', '<c t="e"><v>#N/A</v></c>',
]  # fmt: skip


@FUZZ
@given(st.lists(st.sampled_from(PIECES), max_size=14))
def test_worksheets_in_any_order(tmp_path, pieces):
    sheet = MEMBERS["xl/worksheets/sheet1.xml"].decode()
    start, end = sheet.split("</sheetData>")
    with zipfile.ZipFile(tmp_path / "log.xlsx", "w") as archive:
        for name, data in MEMBERS.items():
            new = start + "".join(pieces) + "</sheetData>" + end
            archive.writestr(name, new if name.endswith("/sheet1.xml") else data)
    survives(tmp_path / "log.xlsx", of_case("experiments.xlsx"))


@FUZZ
@given(
    st.lists(
        st.text("param: [](#)12metricdatag textnumb", max_size=20)
        | st.sampled_from(["Experiment ID", "data: a [b] #2 (rows)", "metric: x", "tag: y"]),
        max_size=5,
        unique=True,
    )
)
def test_titles_are_all_understood_or_not_at_all(titles):
    columns = from_titles(titles)
    if columns is not None:
        assert set(columns.titles) == set(filter(None, titles))
