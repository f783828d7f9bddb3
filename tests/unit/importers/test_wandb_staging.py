"""Where the bytes of W&B's artefacts are looked for, and where never."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from bundler import importers
from bundler.importers.wandb import WandbImporter, staging
from tests.unit.importers.wandb_records import done, field, flags, only, record, run, write_log

MODEL = b"model"


@pytest.fixture
def store(tmp_path) -> Path:
    """A folder ``wandb`` with a run that logged a model."""
    digest = base64.b64encode(hashlib.md5(MODEL).digest()).decode()
    place = "/somewhere/artifacts/staging/tmpabc"
    entry = field(4, field(1, "model.bin") + field(2, digest) + field(4, 5) + field(6, place))
    body = field(4, "model") + field(5, "m") + field(12, entry)
    folder = tmp_path / "project" / "wandb"
    write_log(folder, run(), record(8, body), done())
    return folder


def stage(folder: Path, data: bytes = MODEL) -> Path:
    """A data folder of W&B with a staged file."""
    file = folder / "artifacts" / "staging" / "tmpabc"
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    return file


def model(store: Path, importer: WandbImporter | None = None) -> Path | None:
    with (importer or WandbImporter()).open(store, experiment=None, artefacts=None) as session:
        (found,) = session
    (artefact,) = found.artefacts
    assert artefact.path == "artifacts/m/model.bin"
    return artefact.file


@pytest.mark.parametrize("place", [".", ".."])
def test_a_staging_folder_in_or_beside_the_store_is_searched(store, place):
    file = stage((store / place).resolve())
    assert model(store) == file.parents[2].joinpath("artifacts", "staging", "tmpabc")


def test_no_other_bytes_are_taken_from_it(store):
    stage(store, b"medel")
    assert model(store) is None


def test_it_is_not_looked_for_above_the_folder_of_the_store(store):
    stage(store.parent.parent)
    stage(store.parent)
    (run_folder,) = store.iterdir()
    assert model(run_folder) is None


@pytest.mark.parametrize("link", ["artifacts", "artifacts/staging"])
def test_a_link_to_a_staging_folder_is_not_followed(store, tmp_path, link):
    target = stage(tmp_path / "home").parents[1]
    place = store / link
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(target if link == "artifacts" else target / "staging")
    assert model(store) is None


def test_a_verifier_never_searches_a_home_and_the_provider_may(store, tmp_path, monkeypatch):
    file = stage(tmp_path / "data")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    built_in = importers.find("wandb", built_in_only=True)
    with built_in.open(store, experiment=None, artefacts=None) as session:
        assert [each.file for run in session for each in run.artefacts] == [None]
    assert model(store, WandbImporter(search_home=True)) == file
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "nowhere"))
    assert model(store, WandbImporter(search_home=True)) is None


def test_what_was_not_found_says_where_was_looked_and_what_to_name(store, tmp_path):
    stage(store, b"medel")
    said = flags(only(store, artefacts=tmp_path))["artefacts", "not_staged_here"]
    assert said.startswith(
        "looked in sources.artefacts, artifacts/staging beside the runs, files of the run; W&B keeps"
    )
    assert "sources.artefacts can name that folder" in said
    assert str(tmp_path) not in said


@pytest.mark.parametrize(
    ("platform", "name", "environment", "expected"),
    [
        ("linux", "posix", {"HOME": "/h"}, "/h/.local/share/wandb"),
        ("linux", "posix", {"HOME": "/h", "XDG_DATA_HOME": "/x"}, "/x/wandb"),
        ("linux", "posix", {"HOME": "/h", "WANDB_DATA_DIR": "/w"}, "/w"),
        ("darwin", "posix", {"HOME": "/h"}, "/h/Library/Application Support/wandb"),
        ("win32", "nt", {"LOCALAPPDATA": "/l"}, "/l/wandb/wandb"),
    ],
)
def test_the_data_folder_is_that_of_wandb(platform, name, environment, expected, monkeypatch):
    monkeypatch.setattr(staging, "sys", type("sys", (), {"platform": platform}))
    monkeypatch.setattr(staging, "os", type("os", (), {"name": name}))
    assert staging.data_folder(environment) == Path(expected)
