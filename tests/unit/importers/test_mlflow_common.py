"""What holds for both of MLflow's stores: which experiment, which files, and nothing is written."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bundler.errors import SourceError
from bundler.importers.experiments import choose
from bundler.importers.mlflow import MlflowImporter
from bundler.importers.mlflow.artefacts import Places
from bundler.importers.mlflow.values import dataset, split_tags
from tests.unit.importers.support import (
    EXAMPLE,
    EXPECTED,
    FIXTURES,
    MAIN,
    STORE_OF,
    copy_of,
    execute,
    flags,
    named,
    read,
    refused,
    state,
    write,
)

KINDS = ["sqlite", "files"]


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def store(kind, tmp_path) -> Path:
    return copy_of(kind, tmp_path / "store")


# --- texts of a record -------------------------------------------------------------------------------------------------


def test_a_dirty_tag_is_believed_only_where_it_says_yes_or_no():
    for text, dirty in (("true", True), ("False", False), ("maybe", None)):
        code, tags = split_tags({"mlflow.source.git.dirty": text, "x": "y"})
        assert code.dirty is dirty
        assert ("mlflow.source.git.dirty" in tags) == (dirty is None)


@pytest.mark.parametrize(
    ("profile", "rows"),
    [
        ('{"num_rows": 7}', 7),
        ('{"num_rows": -1}', None),
        ('{"num_rows": true}', None),
        ('{"num_rows": 1e3}', None),
        ('{"num_rows": 99999999999999999999999}', None),
        ("[" * 100_000, None),
        ("[]", None),
        ("", None),
        (None, None),
    ],
)
def test_a_number_of_rows_is_a_whole_number_or_unknown(profile, rows):
    made = dataset(name="d", digest=None, source=None, profile=profile, role=None)
    assert made.rows == rows


def test_what_a_data_set_says_of_itself_can_be_written_as_utf8():
    made = dataset(
        name="\ud800", digest="\udc80", source='{"url": "\\ud800"}', profile="{}", role="\ud800"
    )
    for text in (made.name, made.tracker_digest, made.source, made.role):
        text.encode()


# --- which experiment -------------------------------------------------------------------------------------------------


def test_without_a_name_the_only_experiment_with_runs_is_taken(store, kind):
    ids = {each["name"]: key for key, each in EXPECTED[kind]["experiments"].items()}
    error = refused(store, "several experiments", None)
    assert f"{MAIN!r} (id {ids[MAIN]}, 7 runs)" in error.remedy
    assert f"'second' (id {ids['second']}, 1 runs)" in error.remedy
    assert f"'dropped' (id {ids['dropped']}, 1 runs, deleted)" in error.remedy
    if kind == "sqlite":
        execute(store, f"DELETE FROM runs WHERE experiment_id <> {ids[MAIN]}")
    else:
        shutil.rmtree(store / ".trash")
        shutil.rmtree(store / ids["second"])
    assert len(read(store, None)) == 7


def test_an_unknown_experiment_is_refused_with_the_known_ones(kind):
    assert MAIN in refused(FIXTURES / STORE_OF[kind], "has no experiment 'nope'", "nope").remedy


def test_an_empty_list_of_experiments_is_an_error():
    with pytest.raises(SourceError, match="no experiment") as error:
        choose([], None, Path("store"))
    assert error.value.remedy == "Name one of: none."


# --- stores and their artefacts ---------------------------------------------------------------------------------------


def test_stores_in_a_folder_are_detected(tmp_path):
    copy_of("sqlite", tmp_path)
    copy_of("files", tmp_path)
    write(tmp_path / "other.db", b"SQLite format 3\0 but no more")
    (tmp_path / "folder.db").mkdir()
    importer = MlflowImporter()
    assert importer.detect(tmp_path) == (tmp_path / "store.db", tmp_path / "mlruns")
    assert importer.detect(tmp_path / "mlruns") == (tmp_path / "mlruns",)
    assert importer.detect(tmp_path / "nowhere") == ()
    assert importer.detect(EXAMPLE) == (EXAMPLE / "mlflow.db",)


def test_a_store_may_be_moved(store, kind, tmp_path):
    moved = tmp_path / "ünd %41?#" / "deeper"
    shutil.copytree(store.parent, moved)
    shutil.rmtree(store.parent)
    run = named(moved / store.name, "files")
    assert len(run.artefacts) == len(EXPECTED[kind]["runs"][run.source.run_id]["files"])
    assert flags(run) == set()


@pytest.mark.parametrize("name", ["mlflow.db", "mlruns"])
def test_a_missing_store_is_named(tmp_path, name):
    assert name in refused(tmp_path / name, "no MLflow store").message


def test_a_place_that_cannot_be_looked_at_is_named(store, monkeypatch):
    def denied(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", denied)
    assert store.name in refused(store, "Permission denied").message


def test_reading_changes_nothing(store):
    before = state(store.parent)
    read(store)
    MlflowImporter().experiments(store)
    assert MlflowImporter().detect(store.parent) == (store,)
    assert state(store.parent) == before


def test_a_link_among_the_artefacts_is_not_followed(store):
    secret = write(store.parent.parent / "secret" / "key", "secret")
    before = named(store, "files")
    folder = next(each.file.parent for each in before.artefacts if each.path == "notes.txt")
    (folder / "link").symlink_to(secret)
    (folder / "loop").symlink_to(folder)
    run = named(store, "files")
    assert [each.path for each in run.artefacts] == [each.path for each in before.artefacts]
    skipped = [each.detail for each in run.fidelity if each.flag == "symlink_skipped"]
    assert skipped == ["link", "loop"]


def test_a_link_in_place_of_the_artefact_folder_is_not_followed(store):
    secret = write(store.parent.parent / "secret" / "key", "secret").parent
    before = named(store, "files")
    folder = next(each.file.parent for each in before.artefacts if each.path == "notes.txt")
    shutil.rmtree(folder)
    folder.symlink_to(secret)
    run = named(store, "files", confined=True)
    assert [each.path for each in run.artefacts if not each.path.startswith("models/")] == []


def test_special_files_among_the_artefacts_are_named(store):
    folder = next(e.file.parent for e in named(store, "files").artefacts if e.path == "notes.txt")
    os.mkfifo(folder / "pipe")
    (folder / "notes.txt").rename(folder / os.fsdecode(b"n\xff.txt"))
    run = named(store, "files")
    assert ("artefacts", "special_skipped") in flags(run)
    names = [each.path for each in run.artefacts]
    assert "n\\xff.txt" in names
    assert all(each.file.exists() for each in run.artefacts)


def test_a_file_that_cannot_be_read_is_an_error(store, monkeypatch):
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not str(path).endswith("notes.txt") and access(path, mode)
    )
    error = refused(store, "notes.txt' cannot be read: Permission denied")
    assert "chmod" in error.remedy


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_folder_that_cannot_be_read_is_an_error(number, store, monkeypatch):
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("/ordner"):
            raise OSError(number, os.strerror(number))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert "chmod" in refused(store, f"ordner' cannot be read: {os.strerror(number)}").remedy


def test_a_folder_that_vanishes_meanwhile_holds_nothing(store, monkeypatch):
    scandir = os.scandir

    def gone(path):
        if str(path).endswith("/ordner"):
            raise FileNotFoundError(2, "No such file or directory")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", gone)
    own = [each.path for each in named(store, "files").artefacts if "models/" not in each.path]
    assert own == ["notes.txt", "ordner-2.txt"]


WITHOUT_RIGHTS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]


@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is not installed")
@pytest.mark.parametrize("above", range(4))
def test_what_must_not_be_looked_at_is_not_taken_for_missing(above, store, kind):
    """A file, and the folders above it up to that of its experiment, without a right of any kind."""
    (file,) = [e.file for e in named(store, "files").artefacts if e.path == "notes.txt"]
    hidden = [file, *file.parents][above]
    before = hidden.stat().st_mode
    program = "import sys; from tests.unit.importers.support import *; read(Path(sys.argv[1]))"
    command = [sys.executable, "-c", program, str(store)]
    hidden.chmod(0)
    try:
        done = subprocess.run(
            [*WITHOUT_RIGHTS, *command] if os.geteuid() == 0 else command,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[3],
        )
    finally:
        hidden.chmod(before)
    assert "SourceError" in done.stderr, done.stderr
    assert "cannot be read: Permission denied" in done.stderr
    assert hidden.name in done.stderr


# --- where an address leads -------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path) -> Places:
    for folder in ("mlruns/1/r1/artifacts", "mlartifacts/1/r1/artifacts", "given/1/r2/artifacts"):
        (tmp_path / "here" / folder).mkdir(parents=True)
    (tmp_path / "elsewhere" / "1" / "r9" / "artifacts").mkdir(parents=True)
    return Places(beside=tmp_path / "here", given=None)


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("mlflow-artifacts:/1/r1/artifacts", "mlartifacts/1/r1/artifacts"),
        ("mlflow-artifacts://host:5000/1/r1/artifacts", "mlartifacts/1/r1/artifacts"),
        ("mlruns/1/r1/artifacts", "mlruns/1/r1/artifacts"),
        ("./mlruns/1/r1/artifacts", "mlruns/1/r1/artifacts"),
        ("file:///old/home/project/mlruns/1/r1/artifacts", "mlruns/1/r1/artifacts"),
        ("/old/home/other/1/r1/artifacts", "mlruns/1/r1/artifacts"),
        ("file:///C:/Users/x/mlruns/1/r1/artifacts", "mlruns/1/r1/artifacts"),
        ("C:\\Users\\x\\mlruns\\1\\r1\\artifacts", "mlruns/1/r1/artifacts"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("confined", [True, False])
def test_a_folder_is_found_where_it_was_or_beside_the_store(places, uri, found, confined):
    here = Places(beside=places.beside, given=None, confined=confined)
    folder, problem = here.find(uri)
    assert folder is not None
    assert folder.resolve() == (places.beside / found).resolve()
    assert problem == ""


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/1/r1/artifacts",
        "gs://bucket/1/r1/artifacts",
        "dbfs:/1/r1/artifacts",
        "http://[half",
        "/old/home/project/mlruns/7/r9/artifacts",
        "mlflow-artifacts:/../../etc",
        "/etc",
        "file:///etc",
        "..",
        "/old/../../../../../../../etc",
        "file:///%00/%00/artifacts",
        "x" * 5000 + "/1/artifacts",
    ],
)
def test_what_is_not_beside_the_store_is_unreachable_and_says_why(places, uri):
    here = Places(beside=places.beside, given=None, confined=True)
    folder, problem = here.find(uri)
    assert folder is None
    assert problem


def test_a_run_without_artefacts_is_not_unreachable(places):
    for uri in ("mlflow-artifacts:/1/r5/artifacts", "/old/mlruns/1/r5/artifacts"):
        assert places.find(uri) == (None, "")


def test_without_the_artefact_servers_folder_it_is_said(tmp_path):
    folder, problem = Places(beside=tmp_path, given=None).find("mlflow-artifacts:/1/r/artifacts")
    assert folder is None
    assert "artefact server" in problem


def test_a_given_folder_comes_first(places):
    given = places.beside / "given"
    here = Places(beside=places.beside, given=given, confined=True)
    for uri in ("mlflow-artifacts:/1/r2/artifacts", "file:///old/mlruns/1/r2/artifacts"):
        assert here.find(uri)[0] == given / "1" / "r2" / "artifacts"


def test_an_absolute_path_is_followed_only_where_the_store_is_trusted(places, tmp_path):
    outside = tmp_path / "elsewhere" / "1" / "r9" / "artifacts"
    trusted = Places(beside=places.beside, given=None, confined=False)
    assert trusted.find(str(outside))[0] == outside
    assert trusted.find(outside.as_uri())[0] == outside
    folder, problem = places.find(str(outside))
    assert folder is None
    assert "artefacts" in problem


def test_a_link_beside_a_foreign_store_leads_nowhere(places, tmp_path):
    (places.beside / "mlruns" / "1" / "r9").symlink_to(tmp_path / "elsewhere" / "1" / "r9")
    confined = Places(beside=places.beside, given=None, confined=True)
    assert confined.find("/old/mlruns/1/r9/artifacts")[0] is None
