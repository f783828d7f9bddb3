"""Whatever the bytes of a store are: runs come out, or a SourceError that says what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler.errors import SourceError
from bundler.importers.mlflow import MlflowImporter
from tests.unit.importers.support import FIXTURES, MAIN, make_run, write

DATABASE = (FIXTURES / "store.db").read_bytes()
PAGE = 512
TEXTS = sorted(
    path.relative_to(FIXTURES / "mlruns")
    for path in (FIXTURES / "mlruns").rglob("*")
    if path.is_file() and "artifacts" not in path.parts
)
FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def survives(store: Path) -> None:
    """Reading gives runs or a :class:`SourceError` in text that can be written, and nothing else."""
    importer = MlflowImporter()
    importer.detect(store.parent)
    for experiment in (MAIN, None):
        try:
            importer.experiments(store)
            with importer.open(store, experiment=experiment, artefacts=None) as session:
                texts = [repr(run) for run in session]
        except SourceError as error:
            texts = [error.message, error.remedy]
        for text in texts:
            assert text
            text.encode()


def database_survives(data: bytes, folder: Path) -> None:
    survives(write(folder / "store.db", data))


JUNK = st.tuples(st.integers(0, len(DATABASE) - 1), st.binary(min_size=1, max_size=40))


@FUZZ
@given(st.lists(JUNK, min_size=1, max_size=40))
def test_overwritten_bytes_of_the_database(tmp_path, changes):
    data = bytearray(DATABASE)
    for place, junk in changes:
        data[place : place + len(junk)] = junk
    database_survives(bytes(data), tmp_path)


@FUZZ
@given(st.integers(0, len(DATABASE) // PAGE - 1), st.binary(min_size=1, max_size=PAGE))
def test_overwritten_pages_of_the_database(tmp_path, page, content):
    data = bytearray(DATABASE)
    data[page * PAGE : page * PAGE + len(content)] = content
    database_survives(bytes(data), tmp_path)


@FUZZ
@given(st.integers(0, 4096), st.binary(min_size=1, max_size=64))
def test_a_damaged_schema(tmp_path, place, content):
    data = bytearray(DATABASE)
    data[place : place + len(content)] = content
    database_survives(bytes(data), tmp_path)


@FUZZ
@given(st.integers(0, len(DATABASE)), st.integers(0, len(DATABASE)), st.binary(max_size=2000))
def test_cut_and_spliced_databases(tmp_path, start, end, junk):
    database_survives(DATABASE[:start] + junk + DATABASE[end:], tmp_path)


@FUZZ
@given(st.integers(0, len(DATABASE)))
def test_a_cut_database(tmp_path, length):
    database_survives(DATABASE[:length], tmp_path)


@FUZZ
@given(st.sampled_from([b"", b"\x37\x7f\x06\x82"]), st.binary(max_size=4096))
def test_any_write_ahead_log(tmp_path, magic, log):
    (tmp_path / "store.db-wal").write_bytes(magic + log)
    database_survives(DATABASE, tmp_path)


TOKENS = st.sampled_from(
    [b"\xff", b"\0", b"\n", b" ", b"nan", b"1e999", b"[", b"{", b"&a ", b"*a", b"!!", b"9" * 5000, b"2024-13-45",
     b'"\\ud800"', b"..", b"?"]
)  # fmt: skip


@FUZZ
@given(st.data())
def test_changed_texts_of_the_file_store(tmp_path, data):
    store = tmp_path / "mlruns"
    if not store.exists():
        shutil.copytree(FIXTURES / "mlruns", store)
    files = data.draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=5, unique=True))
    try:
        for file in files:
            content = (FIXTURES / "mlruns" / file).read_bytes()
            start = data.draw(st.integers(0, len(content)))
            # How much goes: nothing, a little, or the rest.
            after = start + data.draw(st.integers(0, 8) | st.just(len(content)))
            junk = data.draw(TOKENS | st.binary(max_size=40))
            (store / file).write_bytes(content[:start] + junk + content[after:])
        survives(store)
    finally:
        for file in files:
            shutil.copyfile(FIXTURES / "mlruns" / file, store / file)


WORDS = st.sampled_from(
    ["experiment_id", "run_id", "name", "status", "start_time", "tags", "source_id", "a", "~", "1"]
)
PIECES = st.sampled_from(
    ["[]", "{}", "~", "-1", "1e400", ".nan", "0x", "2026-02-30", "1:99:99", "'", '"\\ud800"', "&a *a", "!!binary x",
     "9" * 4400, "..", "? [a]", "\t", "\x00", "|\n x", "=", "<<", "0o9", "0b2", "1_0", "true"]
)  # fmt: skip


@FUZZ
@given(st.lists(st.tuples(WORDS, PIECES), max_size=6), st.sampled_from(["1/meta.yaml", "RUN"]))
def test_odd_descriptions_of_the_file_store(tmp_path, lines, place):
    store = tmp_path / "mlruns"
    if store.exists():
        shutil.rmtree(store)
    run = make_run(store)
    text = "".join(f"{word}: {piece}\n" for word, piece in lines)
    write(run / "meta.yaml" if place == "RUN" else store / place, text)
    survives(store)
