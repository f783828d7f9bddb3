"""Artefacts that are not what they should be: missing is a gap, unreadable is an error, and none is passed over."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from bundler.errors import SourceError
from bundler.importers.model import ArtefactFile
from tests import tiny


def adding(provider: tiny.Provider, file: Path | None) -> None:
    extra = ArtefactFile(path="extra.bin", file=file)
    provider.edit("run-a", lambda run: replace(run, artefacts=(*run.artefacts, extra)))


def record(folder: Path) -> dict:
    lines = map(json.loads, (folder / "data/records.jsonl").read_text().splitlines())
    (found,) = [each["run"] for each in lines if each["run"]["id"] == "run-a"]
    return found


@pytest.mark.parametrize(
    ("kind", "flag"),
    [
        ("gone", "missing"),
        ("below a file", "missing"),
        ("broken link", "missing"),
        ("pipe", "special_skipped"),
        ("device", "special_skipped"),
    ],
)
def test_a_file_that_is_not_there_is_flagged_and_a_gap(kind, flag, provider, tmp_path):
    file = tmp_path / "extra"
    if kind == "below a file":
        file.write_text("")
        file /= "x"
    elif kind == "broken link":
        file.symlink_to("nowhere")
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file = Path("/dev/zero")
    adding(provider, file)
    built = provider.build(tmp_path / "b")
    made = record(tmp_path / "b")
    assert {"path": "extra.bin", "sha256": None, "size": None} in made["artefacts"]
    assert {"field": "artefacts", "flag": flag, "detail": "extra.bin"} in made["fidelity"]
    (gap,) = [each for each in built.index.gaps if each.code == "artefact-missing"]
    assert (gap.level, gap.subject) == ("recommended", "1 of 9 runs: run-a")


def test_a_file_that_cannot_be_looked_at_is_an_error(provider, tmp_path, monkeypatch):
    adding(provider, tmp_path / "extra")
    stat = Path.stat

    def denied(path, **options):
        if path.name == "extra":
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(SourceError, match="extra cannot be read: Permission denied") as refused:
        provider.build(tmp_path / "b")
    assert "chmod" in refused.value.remedy
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("name", "words"), [("typo", "No such file"), ("file", "is not a folder"), ("file/x", "Not a")]
)
def test_a_configured_folder_of_artefacts_that_is_none_is_an_error(name, words, provider, tmp_path):
    (provider.root / "file").write_text("")
    provider.config["sources"][0]["artefacts"] = name
    with pytest.raises(SourceError, match=words) as refused:
        provider.build(tmp_path / "b")
    assert refused.value.message.startswith("sources.artefacts: ")
    assert str(provider.root / name) in refused.value.message
    assert refused.value.remedy
