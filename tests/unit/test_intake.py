"""Artefacts that are not what they should be: missing is a gap, unreadable is an error, and none is passed over."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from bundler.errors import SourceError, UsageError
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


# --- personal data --------------------------------------------------------------------------------------------------


def personal(provider: tiny.Provider) -> None:
    tags = {"mlflow.user": "anna", "note": "by anna@example.org in /home/anna/p"}
    provider.edit("run-a", lambda run: replace(run, tags={**run.tags, **tags}))


def test_personal_data_is_taken_out_and_listed(provider, tmp_path):
    personal(provider)
    built = provider.build(tmp_path / "b")
    tags = record(tmp_path / "b")["tags"]
    assert tags["mlflow.user"] == "[redacted user-name]"
    assert tags["note"] == "by [redacted e-mail] in ~/p"
    assert [(each.kind, each.field, each.runs) for each in built.index.redactions] == [
        ("e-mail", "tags.note", 1),
        ("home-path", "tags.note", 1),
        ("user-name", "tags.mlflow.user", 1),
    ]


def test_personal_data_is_kept_by_explicit_choice(provider, tmp_path):
    personal(provider)
    provider.config["keep_personal_data"] = ["user-name", "home-path"]
    built = provider.build(tmp_path / "b")
    tags = record(tmp_path / "b")["tags"]
    assert tags["mlflow.user"] == "anna"
    assert tags["note"] == "by [redacted e-mail] in /home/anna/p"
    assert [each.kind for each in built.index.redactions] == ["e-mail"]


def test_personal_data_in_an_embedded_artefact_is_a_gap(provider, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("ask anna@example.org")
    extra = ArtefactFile(path="notes.txt", file=file)
    provider.edit("run-c", lambda run: replace(run, artefacts=(*run.artefacts, extra)))
    built = provider.build(tmp_path / "b")
    (gap,) = [each for each in built.index.gaps if each.code == "personal-data-embedded"]
    assert gap.subject == "1 file: data/artefacts/run-c/notes.txt"
    assert "e-mail" in gap.message
    provider.config["keep_personal_data"] = ["e-mail"]
    built = provider.build(tmp_path / "kept")
    assert "personal-data-embedded" not in {each.code for each in built.index.gaps}


def test_the_patch_of_uncommitted_changes_is_kept_for_every_run(provider, tmp_path):
    patch = tmp_path / "diff.patch"
    patch.write_text("--- a\n+++ b\n")
    extra = ArtefactFile(path="diff.patch", file=patch)

    def dirty(run):
        code = replace(run.code, dirty=True, patch="diff.patch")
        return replace(run, code=code, artefacts=(*run.artefacts, extra))

    provider.edit("run-a", dirty)
    provider.build(tmp_path / "b")
    assert (tmp_path / "b/data/artefacts/run-a/diff.patch").read_bytes() == patch.read_bytes()
    assert not (tmp_path / "b/data/artefacts/run-a/environment.json").exists()


# --- names and columns ----------------------------------------------------------------------------------------------


def test_names_of_a_source_are_changed_on_the_way_in(provider, tmp_path):
    provider.config["sources"][0]["rename"] = {"tags.dirty": "tags.git.dirty"}
    provider.config["facts"]["code_dirty"] = "tags.git.dirty"
    provider.build(tmp_path / "b")
    assert record(tmp_path / "b")["code"]["dirty"] is False


def test_only_a_log_has_columns(provider, tmp_path):
    provider.config["sources"][0]["columns"] = {"id": "Experiment ID"}
    with pytest.raises(UsageError, match="tiny has no columns"):
        provider.build(tmp_path / "b")
