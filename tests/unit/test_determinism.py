"""Same inputs, same bytes: whatever the folder, working directory, umask, times and kind of disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from bundler.errors import UsageError
from tests import tiny


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def umask():
    old = os.umask(0o022)
    yield os.umask
    os.umask(old)


def elsewhere(provider: tiny.Provider, place: Path) -> tiny.Provider:
    """The same provider in another folder; git objects keep their names."""
    shutil.copytree(provider.root, place)
    moved = tiny.make_provider(place.with_name(place.name + "-made-anew"))
    assert moved.commit == provider.commit
    return moved


def test_twice(provider, tmp_path):
    first = provider.build(tmp_path / "a")
    second = provider.build(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert first.tag_manifest_sha256 == second.tag_manifest_sha256


def test_another_folder_umask_and_working_directory(provider, tmp_path, monkeypatch, umask):
    provider.build(tmp_path / "a")
    moved = elsewhere(provider, tmp_path / "deep" / "er" / "place")
    umask(0o077)
    monkeypatch.chdir("/")
    moved.build(tmp_path / "x" / "y" / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "x" / "y" / "b")


def test_other_times_of_the_files(provider, tmp_path):
    provider.build(tmp_path / "a")
    for path in provider.root.rglob("*"):
        if ".git" not in path.parts:
            os.utime(path, (1, 1))
    provider.build(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_tar(provider, tmp_path, umask):
    provider.build(tmp_path / "a.tar", as_tar=True)
    umask(0o077)
    provider.build(tmp_path / "b.tar", as_tar=True)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_an_archive_may_be_called_bag(provider, tmp_path):
    provider.build(tmp_path / "bag", as_tar=True)
    assert (tmp_path / "bag").is_file()
    assert [path.name for path in tmp_path.iterdir() if path.name != "provider"] == ["bag"]


def test_the_order_in_which_the_tracker_lists(provider, tmp_path):
    provider.build(tmp_path / "a")
    provider.runs = list(reversed(provider.runs))
    provider.build(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_language_and_time_zone(provider, tmp_path, monkeypatch):
    import time

    provider.build(tmp_path / "a")
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    time.tzset()
    try:
        provider.build(tmp_path / "b")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_source_date_epoch(provider, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    built = provider.build(tmp_path / "a")
    assert built.index.created == "2023-11-14T22:13:20.000Z"
    assert b"Bagging-Date: 2023-11-14\n" in (tmp_path / "a/bag-info.txt").read_bytes()


@pytest.mark.parametrize("epoch", ["", "now", "-1", "1.5", "١", "9" * 12, "9" * 5000])
def test_source_date_epoch_that_is_none(epoch, provider, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        provider.build(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_created_is_the_newest_evidence(provider, tmp_path):
    built = provider.build(tmp_path / "a")
    newest = max(run.ended for run in provider.runs)
    assert built.index.created.endswith(f".{newest % 1000:03d}Z")


def test_without_times_the_epoch_itself(provider, tmp_path):
    from dataclasses import replace

    provider.runs = [replace(run, started=None, ended=None) for run in provider.runs]
    assert provider.build(tmp_path / "a").index.created == "1970-01-01T00:00:00.000Z"
