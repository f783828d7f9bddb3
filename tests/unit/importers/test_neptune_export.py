"""Exports of neptune-exporter, against what pyarrow reads in them."""

from __future__ import annotations

import io
import json
import math
import random
import shutil
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.errors import SourceError
from bundler.importers import find
from bundler.importers.model import ImportedRun
from bundler.importers.neptune import NeptuneImporter
from bundler.importers.neptune import parquet as neptune_parquet
from bundler.importers.neptune import reader as neptune_reader
from tests.unit.importers.support import flags, state, write

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

FUZZ = settings(deadline=None, max_examples=12)  # each starts a process

FIXTURES = Path(__file__).parents[2] / "fixtures" / "neptune"
STORE = FIXTURES / "export_synthetic"
ROWS = json.loads((FIXTURES / "expected_export.json").read_text(encoding="utf-8"))
PARTS = sorted(STORE.rglob("*.parquet"))
SCHEMA = pq.read_schema(PARTS[0])


def read(
    store: Path, artefacts: Path | None = None, experiment: str | None = None
) -> dict[str, ImportedRun]:
    with NeptuneImporter().open(store, experiment=experiment, artefacts=artefacts) as session:
        runs = list(session)
        assert len(session) == len(runs)
    return {run.source.run_id: run for run in runs}


def the_run(store: Path, **more: Any) -> ImportedRun:
    (run,) = read(store, **more).values()
    return run


def refused(store: Path, match: str) -> SourceError:
    with pytest.raises(SourceError, match=match) as error:
        read(store)
    assert error.value.remedy
    assert (error.value.message + error.value.remedy).isprintable()
    return error.value


def row(
    path: str | None, kind: str | None, column: str = "int_value", value: Any = None, **more: Any
) -> Any:
    return {
        "project_id": "p",
        "run_id": "r",
        "attribute_path": path,
        "attribute_type": kind,
        column: value,
        **more,
    }


def export(
    store: Path, *rows: Any, name: str = "r_part_0.parquet", schema: Any = SCHEMA, **more: Any
) -> Path:
    """An export with these rows; returns its folder."""
    file = write(store / "data" / "p" / name, "")
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), file, **more)
    return store


@pytest.mark.parametrize("run", ["DEMO-1", "DEMO-2", "DEMO-3"])
def test_values_are_those_that_pyarrow_reads(run):
    found = read(STORE)[run]
    expected: dict[str, list[tuple[int, str]]] = {}
    for each in ROWS:
        if each["run_id"] != run:
            continue
        path, kind = each["attribute_path"], each["attribute_type"]
        if kind == "float_series" and not path.startswith("monitoring/"):
            expected.setdefault(path, []).append((each["timestamp"], each["float_value"]))
        elif path.startswith("parameters/") and kind != "datetime":
            value = each[f"{kind}_value"]
            value = float(value) if kind == "float" else value
            name = path.removeprefix("parameters/").replace("/", ".")
            assert found.parameters[name] == value
            assert type(found.parameters[name]) is type(value)
    points: dict[str, list[tuple[int, str]]] = {}
    for point in found.points:
        points.setdefault(point.metric, []).append((point.timestamp, repr(point.value)))
    assert points == expected | {"accuracy": [(0, "0.875")], "odd": [(0, "nan")]}


def test_facts_of_a_run():
    run = read(STORE)["DEMO-1"]
    assert (run.name, run.status, run.deleted) == ("run DEMO-1", "finished", False)
    assert (run.started, run.ended) == (1760000100000, 1760000160000)
    assert run.code.commit == "0123456789abcdef0123456789abcdef01234567"
    assert (run.code.repository, run.code.branch) == ("https://example.org/repo.git", "main")
    assert (run.code.dirty, run.code.patch) == (True, "source_code/diff")
    assert run.environment == {"host": "host", "user": "owner"}
    assert run.tags["email"] == "demo@example.org"
    assert run.source.experiment == "team/demo"
    others = read(STORE)
    assert (others["DEMO-2"].status, others["DEMO-2"].code.dirty) == ("failed", False)
    assert others["DEMO-3"].deleted


def test_decimal_steps_are_never_cut():
    run = read(STORE)["DEMO-1"]
    assert [point.step for point in run.points if point.metric == "val/val_loss"] == [
        25,
        125,
        225,
        325,
        425,
    ]
    assert [point.step for point in run.points if point.metric == "train/train_loss"] == [
        0,
        1,
        2,
        3,
        4,
        4,
    ]
    assert {
        ("metrics.val/val_loss", "step_not_whole"),
        ("metrics.train/train_loss", "duplicate_step"),
    } <= flags(run)


def test_no_number_and_infinity_are_values():
    values = [point.value for point in read(STORE)["DEMO-1"].points]
    assert any(map(math.isnan, values))
    assert math.inf in values


def test_series_that_are_no_metrics_are_counted():
    details = {each.detail for each in read(STORE)["DEMO-1"].fidelity if each.flag == "skipped"}
    assert details == {
        "histogram_series: 1 values of 1 series",
        "monitoring: 5 values of 1 series",
        "string_series: 5 values of 1 series",
    }


def test_files_of_every_kind_are_artefacts_and_a_lost_one_is_a_gap():
    run = read(STORE)["DEMO-1"]
    files = {each.path: each.file for each in run.artefacts}
    assert set(files) == {
        "dataset",
        "lost",
        "model",
        "pictures/1.000000.png",
        "source_code/diff",
        "sources/train.py",
    }
    assert [path for path, file in files.items() if file is None] == ["lost"]
    assert files["model"].read_bytes() == b"weights\n"
    assert ("artefacts", "missing") in flags(run)


def test_the_folder_of_the_files_can_be_given(tmp_path):
    shutil.copytree(STORE / "data", tmp_path / "data")
    run = read(tmp_path)["DEMO-1"]
    assert all(each.file is None for each in run.artefacts)
    assert ("artefacts", "artefacts_unreachable") in flags(run)
    files = {each.path: each.file for each in read(tmp_path, STORE / "files")["DEMO-1"].artefacts}
    assert files["model"] is not None


@pytest.mark.parametrize("inside", ["", "data", "data/team_demo-daf2db54c59b6232"])
def test_the_export_its_data_or_a_project_can_be_given(inside):
    runs = read(STORE / inside, STORE / "files", experiment="team/demo")
    assert repr(runs) == repr(read(STORE))
    assert NeptuneImporter().experiments(STORE / inside) == ("team/demo",)


def test_files_above_what_was_given_are_not_looked_for():
    for inside in ("data", "data/team_demo-daf2db54c59b6232"):
        assert all(each.file is None for each in read(STORE / inside)["DEMO-1"].artefacts)


def test_files_that_are_a_link_out_of_the_export_are_flagged_and_not_read(tmp_path):
    write(tmp_path / "elsewhere" / "secret", "not yours")
    store = export(
        tmp_path / "store", row("source_code/diff", "file", "file_value", {"path": "secret"})
    )
    (store / "files").symlink_to(tmp_path / "elsewhere")
    run = the_run(store)
    assert [(each.path, each.file) for each in run.artefacts] == [("source_code/diff", None)]
    assert (run.code.patch, run.code.dirty) == (None, None)
    assert ("artefacts", "symlink_skipped") in flags(run)


@pytest.mark.parametrize("copy", ["e2/p/r_part_0.parquet", "e1/p/r (copy)_part_0.parquet"])
def test_a_run_that_was_exported_twice_is_refused_and_both_places_are_named(tmp_path, copy):
    point = row("loss", "float_series", "float_value", 0.5, step=Decimal(3))
    first = export(tmp_path / "made", point) / "data" / "p" / "r_part_0.parquet"
    for place in ("e1/p/r_part_0.parquet", copy):
        write(tmp_path / "store" / place, first.read_bytes())
    message = refused(tmp_path / "store", "part 0 of run 'r' is in").message
    assert "e1/p/r_part_0.parquet" in message
    assert copy in message


def test_a_part_with_hundreds_of_runs_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(neptune_parquet, "MAX_RUNS_OF_PART", 2)
    rows = [row("a", "int", value=1) | {"run_id": f"r{number}"} for number in range(3)]
    export(tmp_path, *rows[:2])
    assert len(read(tmp_path)) == 2
    export(tmp_path, *rows)
    refused(tmp_path, "more than 2 runs")


def test_runs_come_by_time_and_reading_twice_gives_the_same():
    before = state(STORE)
    with NeptuneImporter().open(STORE, experiment=None, artefacts=None) as session:
        first, second = list(session), list(session)
    assert repr(first) == repr(second)
    assert [run.source.run_id for run in first] == ["DEMO-1", "DEMO-2", "DEMO-3"]
    assert state(STORE) == before


def test_detect_finds_exports(tmp_path):
    importer = find("neptune")
    assert importer.detect(STORE) == importer.detect(STORE) == (STORE,)
    assert importer.detect(STORE / "data") == (STORE / "data",)
    shutil.copytree(STORE, tmp_path / "exports")
    assert importer.detect(tmp_path) == (tmp_path / "exports",)


def test_several_runs_and_projects_in_one_part(tmp_path):
    began = row("sys/creation_time", "datetime", "datetime_value", datetime(2025, 1, 1, tzinfo=UTC))
    rows = [
        row("a", "int", value=1),
        began | {"run_id": "s"},
        row("a", "int", value=2) | {"project_id": "q"},
    ]
    export(tmp_path, *rows, name="part_7.parquet")
    assert NeptuneImporter().experiments(tmp_path) == ("p", "q")
    assert list(read(tmp_path, experiment="p")) == ["r", "s"]
    assert the_run(tmp_path, experiment="q").parameters == {"a": 2}
    refused(tmp_path, "several experiments")


def test_a_part_that_is_missing_is_flagged(tmp_path):
    shutil.copytree(STORE, tmp_path / "export")
    next((tmp_path / "export").rglob("DEMO-1*part_0.parquet")).unlink()
    assert ("run", "truncated") in flags(read(tmp_path / "export")["DEMO-1"])
    assert ("run", "truncated") not in flags(read(tmp_path / "export")["DEMO-2"])


def test_an_export_that_was_not_finished_is_refused(tmp_path):
    shutil.copytree(STORE, tmp_path / "export")
    write(tmp_path / "export" / "data" / "p" / "r_part_0.parquet.tmp", b"PAR1")
    refused(tmp_path / "export", "export was not finished")


def test_rows_that_say_nothing_are_flagged(tmp_path):
    export(
        tmp_path,
        row(None, "int"),
        row("a", None),
        row("loss", "float_series"),
        row("loss", "float_series", "float_value", 0.5, step=Decimal(3)),
        row("date", "datetime"),
        row("set", "string_set"),
        row("members", "string_set", "string_set_value", ["b", None, "a"]),
        row("number", "int"),
        row("strange", "git_ref"),
        row("file", "file"),
        row("files", "file_series", step=Decimal(1)),
    )
    run = the_run(tmp_path)
    assert run.parameters == {"date": None, "members": '["a","b"]', "number": None, "set": "[]"}
    assert [tuple(point) for point in run.points] == [("loss", 3, 0, 0.5)]
    assert [(each.path, each.file) for each in run.artefacts] == [
        ("file", None),
        ("files/1.000000", None),
    ]
    assert {
        ("run", "unreadable"),
        ("metrics.loss", "no_value"),
        ("metrics.loss", "no_time"),
    } <= flags(run)


@pytest.mark.parametrize(
    "stored",
    [
        "../secret",
        "/etc/hostname",
        "linked",
        "linked/secret",
        "a\0b",
        "",
        "absent",
        "x" * 5000,
        ".",
        "./.",
        "a//b",
    ],
)
def test_files_elsewhere_are_not_read(tmp_path, stored):
    write(tmp_path / "secret", "not yours")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "linked").symlink_to(tmp_path)
    export(tmp_path, row("../a//./b", "file", "file_value", {"path": stored}))
    run = the_run(tmp_path)
    assert [(each.path, each.file) for each in run.artefacts] == [("a/b", None)]


def test_a_row_without_run_is_refused(tmp_path):
    export(tmp_path, row("a", "int") | {"run_id": None})
    refused(tmp_path, "a row without project or run")


@pytest.mark.parametrize(
    ("column", "kind", "match"),
    [
        ("step", pa.float64(), "column step is double, not decimal"),
        ("timestamp", pa.timestamp("us", tz="UTC"), "column timestamp is"),
        ("project_id", pa.int64(), "column project_id is int64"),
        ("file_value", pa.string(), "column file_value is"),
        ("run_id", None, "no column run_id"),
    ],
)
def test_other_columns_are_refused(tmp_path, column, kind, match):
    fields = [
        pa.field(each.name, kind) if each.name == column else each
        for each in SCHEMA
        if each.name != column or kind is not None
    ]
    write(tmp_path / "data" / "p" / "r_part_0.parquet", "")
    table = pa.table([pa.nulls(1, each.type) for each in fields], schema=pa.schema(fields))
    pq.write_table(table, tmp_path / "data" / "p" / "r_part_0.parquet")
    refused(tmp_path, match)


def test_without_pyarrow_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(neptune_parquet, "find_spec", lambda name: None)
    assert "pip install 'aisdp-bundler[parquet]'" in refused(STORE, "needs pyarrow").remedy


def test_bounds_hold(tmp_path, monkeypatch):
    export(tmp_path, *[row("s", "string_set", "string_set_value", ["a"] * 5)] * 3)
    monkeypatch.setattr(neptune_parquet, "MAX_VALUES", 9)
    refused(tmp_path, "more than 9 members of sets")
    for name, unit in (
        ("MAX_DECODED", "bytes when decompressed"), ("MAX_ROWS", "rows"), ("MAX_PART", "bytes"), ("MAX_RUNS", "runs")
    ):  # fmt: skip
        with monkeypatch.context() as bounded:
            bounded.setattr(neptune_parquet, "MAX_VALUES", 99)
            bounded.setattr(neptune_parquet, name, 0)
            refused(tmp_path, f"more than 0 {unit}")


def test_a_set_that_says_to_be_enormous_is_refused_unread(tmp_path):
    length = 3_000_000
    columns = {each.name: pa.nulls(1, each.type) for each in SCHEMA}
    columns["string_set_value"] = pa.ListArray.from_arrays(
        pa.array([0, length], pa.int32()), pa.nulls(length, pa.string())
    )
    write(tmp_path / "data" / "r_part_0.parquet", "")
    pq.write_table(pa.table(columns), tmp_path / "data" / "r_part_0.parquet")
    assert (tmp_path / "data" / "r_part_0.parquet").stat().st_size < 10_000
    refused(tmp_path, "more than 1,000,000 members of sets")


def test_one_long_text_in_many_rows_is_one_text_in_memory(tmp_path):
    count = 20_000
    once = {
        "project_id": "p", "run_id": "r", "attribute_path": "log", "attribute_type": "string_series",
        "string_value": "x" * 900_000,
    }  # fmt: skip
    columns = {each.name: pa.nulls(count, each.type) for each in SCHEMA}
    for name, text in once.items():
        places = pa.array([0] * count, pa.int32())
        columns[name] = pa.DictionaryArray.from_arrays(places, pa.array([text]))
    file = write(tmp_path / "data" / "r_part_0.parquet", "")
    pq.write_table(pa.table(columns), file, store_schema=False)
    assert file.stat().st_size < 200_000  # of 18 GB
    (skipped,) = [each.detail for each in the_run(tmp_path).fidelity if each.flag == "skipped"]
    assert skipped == "string_series: 20000 values of 1 series"


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", b"PAR1PAR1", b"\0" * 100, b"PAR1" + b"\xff" * 8 + b"PAR1"]
)
def test_what_is_no_parquet_is_refused(tmp_path, data):
    write(tmp_path / "data" / "r_part_0.parquet", data)
    refused(tmp_path, "r_part_0.parquet' cannot be read as a part of a Neptune export")


# Bytes that end the process that decodes them.


@pytest.mark.parametrize(
    ("part", "place", "byte"),
    [(0, 1902, 9), (0, 2102, 48), (1, 2606, 40), (2, 3028, 37), (2, 3221, 36), (3, 2977, 98)],
)
def test_a_footer_that_ends_the_decoder_is_an_error_of_the_source(tmp_path, part, place, byte):
    # With each of these pyarrow 26 aborts; another version may refuse them.
    content = bytearray(PARTS[part].read_bytes())
    content[place] = byte
    write(tmp_path / "data" / "r_part_0.parquet", bytes(content))
    refused(tmp_path, "cannot be read as a part of a Neptune export")


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.abort()",
        'import sys; sys.stdin.readline(); print(\'{"rows": {"run_id"\')',
        "import sys; sys.stdin.readline(); print('junk', flush=True); sys.stdin.readline()",
    ],
)
def test_a_decoder_that_breaks_off_is_an_error_of_the_source(tmp_path, monkeypatch, code):
    monkeypatch.setattr(
        neptune_parquet.neptune_reader, "__file__", str(write(tmp_path / "x.py", code))
    )
    refused(STORE, "the decoder broke off or took too much memory")


@pytest.mark.parametrize("said", ["", "print('{', end='', flush=True)"])
def test_a_decoder_that_does_not_answer_is_an_error_of_the_source(tmp_path, monkeypatch, said):
    code = f"import time\n{said}\ntime.sleep(600)"
    reader = write(tmp_path / "x.py", code)
    monkeypatch.setattr(neptune_parquet.neptune_reader, "__file__", str(reader))
    monkeypatch.setattr(neptune_parquet, "MAX_SECONDS", 0.2)
    refused(STORE, "the decoder took more than 0 seconds")


@pytest.mark.slow
def test_a_decoder_that_takes_too_much_memory_is_an_error_of_the_source(tmp_path):
    # Not a dictionary: 200 MB of text in one batch of rows, which say so honestly.
    code = Path(neptune_reader.__file__).read_text(encoding="utf-8")
    reader = write(tmp_path / "reader.py", code.replace("6 << 30", "1 << 30"))
    export(
        tmp_path,
        *[row("a", "string", "string_value", f"{number:09}" * 10**6) for number in range(60)],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neptune_reader, "__file__", str(reader))
        refused(tmp_path, "cannot be read as a part of a Neptune export")


def test_a_part_that_went_away_is_an_error_of_the_source(tmp_path):
    with neptune_parquet.PartReader() as reader, pytest.raises(SourceError, match="cannot be read"):
        list(reader.rows(tmp_path / "gone", ["run_id"]))


def test_after_an_error_the_reader_starts_anew(tmp_path):
    bad = write(tmp_path / "r_part_0.parquet", b"PAR1")
    with neptune_parquet.PartReader() as reader:
        for _ in range(2):
            with pytest.raises(SourceError):
                list(reader.rows(bad, ["run_id"]))
            rows = reader.rows(PARTS[0], ["run_id"])
            assert next(rows) == {"run_id": "DEMO-1"}
            rows.close()
        assert len(list(reader.rows(PARTS[0], ["run_id", "step"]))) > 20


def test_the_decoder_answers_requests_until_there_is_none(tmp_path):
    limits = {"rows": 99, "bytes when decompressed": 10**6, "members of sets": 99}
    requests = [
        {"part": str(PARTS[0]), "columns": list(neptune_reader.TYPES), "limits": limits},
        {"part": str(PARTS[0]), "columns": ["run_id"], "limits": limits | {"rows": 1}},
        {"part": "/absent", "columns": ["run_id"], "limits": limits},
    ]
    for column in ("run_id", "step"):
        other = pq.read_table(PARTS[0]).drop_columns([column])
        if column == "step":
            other = other.append_column("step", pa.nulls(len(other), pa.float64()))
        pq.write_table(other, tmp_path / column)
        part = str(tmp_path / column)
        requests.append({"part": part, "columns": ["run_id"], "limits": limits})
    answers = io.StringIO()
    neptune_reader.serve(
        io.StringIO("".join(json.dumps(each) + "\n" for each in requests)), answers
    )
    rows, end, *errors = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert rows["rows"]["run_id"] == {
        "texts": ["DEMO-1"],
        "places": [0] * len(rows["rows"]["step"]),
    }
    assert end == {"end": True}
    assert errors[0] == {"error": "more than 1 rows"}
    assert "/absent" in errors[1]["error"]
    assert errors[2:] == [
        {"error": "no column run_id"},
        {"error": "column step is double, not decimal128(18, 6)"},
    ]


# Damaged bytes of data pages, without compression: so that the changes reach the decoder.

PLAIN_ROWS = [
    *[
        row("loss", "float_series", "float_value", 0.5 * step, step=Decimal(step))
        for step in range(20)
    ],
    row("parameters/a", "string", "string_value", "text"),
    row("tags", "string_set", "string_set_value", ["a", "b"]),
    row("model", "file", "file_value", {"path": "x"}),
]


def changed_page(data: bytes, chance: random.Random) -> bytes:
    """``data`` with some bytes changed before the footer, which would be refused as a whole."""
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    out = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4, 20])):
        place = chance.randrange(4, footer)
        out[place] = chance.choice(
            [0, 0xFF, 0x7F, out[place] ^ 1 << chance.randrange(8), chance.randrange(256)]
        )
    return bytes(out)


@pytest.mark.slow
def test_a_thousand_parts_with_damaged_pages(tmp_path):
    chance = random.Random(7)
    originals = []
    for number, options in enumerate([{}, {"use_dictionary": False}, {"data_page_version": "2.0"}]):
        export(tmp_path / str(number), *PLAIN_ROWS, compression="none", **options)
        originals.append((tmp_path / str(number) / "data" / "p" / "r_part_0.parquet").read_bytes())
    part = write(tmp_path / "store" / "r_part_0.parquet", "")
    outcomes = set()
    with neptune_parquet.PartReader() as reader:
        for _ in range(1000):
            part.write_bytes(changed_page(chance.choice(originals), chance))
            try:
                runs = neptune_parquet.find(part.parent, reader)
                texts = [repr(neptune_parquet.read(run, part.parent, None, reader)) for run in runs]
            except SourceError as error:
                texts = [error.message, error.remedy]
            outcomes.add(len(texts))
            for text in texts:
                text.encode()
    assert len(outcomes) > 1


def survives(store: Path) -> None:
    try:
        texts = [repr(run) for run in read(store, experiment=None).values()]
    except SourceError as error:
        texts = [error.message, error.remedy]
    for text in texts:
        text.encode()


@FUZZ
@given(st.data())
def test_a_changed_part_gives_runs_or_a_source_error(tmp_path_factory, data):
    content = bytearray(data.draw(st.sampled_from(PARTS)).read_bytes())
    for place, byte in data.draw(
        st.lists(
            st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1, max_size=5
        )
    ):
        content[place] = byte
    folder = tmp_path_factory.mktemp("changed")
    write(folder / "data" / "r_part_0.parquet", bytes(content))
    survives(folder)
