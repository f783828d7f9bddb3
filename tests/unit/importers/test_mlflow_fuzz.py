"""Whatever the bytes of a store are: runs come out, or a SourceError that says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler.errors import SourceError
from bundler.importers.mlflow import MlflowImporter
from bundler.importers.mlflow import http as mlflow_http
from bundler.importers.mlflow import pages as mlflow_pages
from bundler.importers.model import Store
from tests.unit.importers.support import FIXTURES, MAIN, FakeMlflow, make_run, write

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


def survives(store: Store) -> None:
    """Reading gives runs or a :class:`SourceError` in text that can be written, and nothing else."""
    importer = MlflowImporter()
    if isinstance(store, Path):
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


# --- a server's answers -----------------------------------------------------------------------------------------------


class Wire:
    """In place of the network: what a server would answer to each question."""

    def __init__(self, monkeypatch) -> None:
        self.place = ""
        self.body: bytes | None = None
        self.fake = FakeMlflow()
        self.fake.run("a", loss=[1.0, 2.0], acc=[0.5])
        self.fake.run("b")["inputs"] = {
            "dataset_inputs": [
                {"tags": [{"key": "mlflow.data.context", "value": "training"}],
                 "dataset": {"name": "d", "digest": "0", "source": "{}", "profile": "{}"}}
            ]
        }  # fmt: skip
        self.fake.files = {"1/a/artifacts/x/m.bin": b"1"}
        self.changed: tuple[int, int, bytes] | None = None
        monkeypatch.setattr(
            mlflow_http.Server, "_exchange", lambda _, *asked: self.exchange(*asked)
        )
        monkeypatch.setattr(mlflow_pages, "MAX_PAGES", 5)

    def exchange(self, method: str, target: str, body: bytes | None, read: Any) -> Any:
        path, _, query = target.partition("?")
        if self.body is not None and self.place in path:
            return self.body
        question = json.loads(body) if body else {}
        if query:
            pairs = [each.split("=") for each in query.split("&")]
            question = dict(mlflow_unquoted(pair) for pair in pairs)
            question["run_id"] = ",".join(
                value for key, value in map(mlflow_unquoted, pairs) if key == "run_id"
            )
        status, data, *_ = self.fake.answer(path, question)
        if "artifacts/1/" in path:
            return len(data)  # a download; nothing is kept
        if self.changed and status == 200 and self.place in path:
            start, length, junk = self.changed
            start %= len(data) + 1
            data = data[:start] + junk + data[start + length :]
        return data


def mlflow_unquoted(pair: list[str]) -> tuple[str, str]:
    from urllib.parse import unquote_plus

    return unquote_plus(pair[0]), unquote_plus(pair[1])


@pytest.fixture
def wire(monkeypatch) -> Wire:
    return Wire(monkeypatch)


PLACES = st.sampled_from(
    ["experiments/search", "runs/search", "get-history-bulk", "logged-models", "mlflow-artifacts", ""]
)  # fmt: skip
KEYS = st.sampled_from(
    ["experiments", "runs", "metrics", "models", "files", "info", "data", "inputs", "outputs", "params", "tags", "key",
     "value", "step", "timestamp", "run_id", "experiment_id", "name", "path", "is_dir", "next_page_token",
     "start_time", "artifact_uri", "dataset_inputs", "dataset", "model_outputs", "model_id"]
)  # fmt: skip
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(
        ["1", MAIN, "a", "loss", "NaN", "mlflow-artifacts:/1/a", "..", "\ud800", "9" * 30, "-", "²"]
    )
)
ANSWERS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=25
)  # fmt: skip


@FUZZ
@given(PLACES, st.dictionaries(KEYS, ANSWERS, max_size=8))
def test_any_json_of_a_server(wire, place, answer):
    wire.place, wire.body = place, json.dumps(answer).encode()
    survives("http://server")


@FUZZ
@given(PLACES, st.binary(max_size=200))
def test_any_bytes_of_a_server(wire, place, body):
    wire.place, wire.body = place, body
    survives("http://server")


@FUZZ
@given(
    PLACES,
    st.integers(0, 2000),
    st.integers(0, 40),
    TOKENS | st.binary(max_size=20) | st.sampled_from([b"null", b"1e400", b"-1", b'""', b"true", b"{}"]),
)  # fmt: skip
def test_changed_answers_of_a_server(wire, place, start, length, junk):
    wire.place, wire.changed = place, (start, length, junk)
    survives("http://server")


def test_the_wire_is_read_when_nothing_is_changed(wire):
    with MlflowImporter().open("http://server", experiment=MAIN, artefacts=None) as session:
        with pytest.raises(SourceError, match="temporary folder"):
            list(session)
        wire.fake.files = {}
        assert [len(run.points) for run in session] == [3, 0]
