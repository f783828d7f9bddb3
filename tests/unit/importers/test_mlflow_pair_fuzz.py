"""Whatever the bytes of a store are: runs come out, or a SourceError that says what to do."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler.errors import SourceError
from bundler.importers.mlflow import MlflowImporter

from . import pair_stores as stores

DATABASE = stores.SQL.read_bytes()
TEXTS = sorted(
    path.relative_to(stores.FILES)
    for path in stores.FILES.rglob("*")
    if path.is_file() and "artifacts" not in path.parts
)
QUIET = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
TOKENS = st.sampled_from(
    [
        b"\xff",
        b"\0",
        b"\n",
        b" ",
        b"nan",
        b"1e999",
        b"[",
        b"{",
        b"&a ",
        b"*a",
        b"!!",
        b"9" * 5000,
        b"2024-13-45",
        b'"\\ud800"',
        b"..",
        b"?",
    ]
)


def survives(store: Path, change: Callable[[Path], None]) -> None:
    importer = MlflowImporter()
    change(store)
    importer.detect(store.parent)
    for experiment in (stores.EXPERIMENT, None):
        try:
            importer.experiments(store)
            with importer.open(store, experiment=experiment, artefacts=None) as session:
                texts = [repr(run) for run in session]
        except SourceError as error:
            texts = [error.message, error.remedy]
        for text in texts:
            assert text
            text.encode()


@QUIET
@given(
    st.lists(
        st.tuples(st.integers(0, len(DATABASE) - 1), st.binary(min_size=1, max_size=40)),
        min_size=1,
        max_size=8,
    )
)
def test_overwritten_bytes_of_the_database(changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(DATABASE)
    for place, junk in changes:
        data[place : place + len(junk)] = junk
    with tempfile.TemporaryDirectory() as folder:
        survives(Path(folder) / "mlflow.db", lambda store: store.write_bytes(data) and None)


@QUIET
@given(st.integers(0, len(DATABASE)), st.integers(0, len(DATABASE)), st.binary(max_size=2000))
def test_cut_and_spliced_databases(start: int, end: int, junk: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = DATABASE[:start] + junk + DATABASE[end:]
        survives(Path(folder) / "mlflow.db", lambda store: store.write_bytes(data) and None)


@QUIET
@given(st.binary(max_size=3000))
def test_any_write_ahead_log(log: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "mlflow.db"
        store.write_bytes(DATABASE)
        store.with_name("mlflow.db-wal").write_bytes(log)
        survives(store, lambda _: None)


@QUIET
@given(st.data())
def test_changed_texts_of_the_file_store(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        mlruns = Path(folder) / "mlruns"
        shutil.copytree(stores.FILES, mlruns)
        for name in data.draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=5)):
            text = (mlruns / name).read_bytes()
            place = data.draw(st.integers(0, len(text)))
            keep = data.draw(st.booleans())
            junk = data.draw(TOKENS | st.binary(max_size=30))
            (mlruns / name).write_bytes(text[:place] + junk + (text[place:] if keep else b""))
        survives(mlruns, lambda _: None)
