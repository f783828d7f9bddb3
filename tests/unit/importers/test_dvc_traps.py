"""What a DVC repository says that is not so, or is easily read wrong; and what others could do with one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bundler.errors import SourceError
from bundler.importers.dvc import DvcImporter
from bundler.importers.dvc import git as dvc_git
from bundler.importers.dvc import metrics as dvc_metrics
from bundler.importers.dvc import origins as dvc_origins
from bundler.importers.dvc import results as dvc_results
from bundler.importers.dvc.git import Blob, Repository
from bundler.importers.dvc.trees import WorkingTree
from tests.unit.importers.dvc_support import (
    FIXTURES,
    cached,
    commit,
    contents,
    details,
    entry,
    experiment,
    flags,
    git,
    lock,
    named,
    read,
    refused,
    repository,
    unpack,
    write,
)

TSV = "step\tloss\n0\t1.0\n1\t0.5\n"
STAGE = "stages:\n  train:\n    cmd: python train.py\n"


@pytest.fixture
def pipeline(tmp_path) -> Path:
    return unpack(FIXTURES / "pipeline.tar.xz", tmp_path / "pipeline")


def made(tmp_path: Path, **files: str) -> Path:
    """A repository with a set-up commit and an experiment ``x`` that has these files."""
    folder = repository(tmp_path / "made", train_py="train()\n", params_yaml="lr: 0.1\n")
    experiment(folder, "x", **files)
    return folder


# --- values -------------------------------------------------------------------------------------------------------------


def test_a_parameter_that_was_changed_after_the_run_is_that_of_the_lock(tmp_path):
    folder = made(
        tmp_path,
        dvc_yaml=STAGE,
        dvc_lock=lock(params="        lr: 0.5\n        gone: 1\n"),
        params_yaml="lr: 0.1\nother: 2\n",
    )
    run = named(folder, "x")
    assert run.parameters == {"lr": 0.5, "other": 2, "gone": 1}
    assert details(run, "parameters.lr", "stale") == ["params.yaml has 0.1, the run had 0.5"]
    assert run.status == "unknown"


def test_code_that_was_changed_after_the_run_makes_the_tree_dirty(tmp_path):
    deps = entry("train.py", b"train()\n")
    folder = made(tmp_path, dvc_yaml=STAGE, dvc_lock=lock(deps=deps))
    run = named(folder, "x")
    assert (run.status, run.code.dirty, run.data) == ("finished", False, ())
    folder = made(tmp_path / "b", dvc_yaml=STAGE, dvc_lock=lock(deps=deps), train_py="other()\n")
    run = named(folder, "x")
    assert (run.status, run.code.dirty) == ("unknown", True)
    assert details(run, "code", "stale") == ["train.py changed after dvc.lock was written"]


def test_a_folder_of_code_is_compared_whole(tmp_path):
    files = {"src__a_py": "a\n", "src__b__c_py": "c\n"}
    listing = [
        {"md5": hashlib.md5(b"a\n").hexdigest(), "relpath": "a.py"},
        {"md5": hashlib.md5(b"c\n").hexdigest(), "relpath": "b/c.py"},
    ]
    md5 = hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest()
    deps = f"    - path: src\n      hash: md5\n      md5: {md5}.dir\n"
    folder = made(tmp_path, dvc_yaml=STAGE, dvc_lock=lock(deps=deps), **files)
    assert named(folder, "x").code.dirty is False
    folder = made(tmp_path / "b", dvc_yaml=STAGE, dvc_lock=lock(deps=deps), src__a_py="a\n")
    assert named(folder, "x").code.dirty is True


def test_results_that_are_not_those_of_the_lock_are_stale(tmp_path):
    outs = entry("metrics.json", b'{"loss": 0.5}')
    text = STAGE + "    metrics:\n    - metrics.json:\n        cache: false\n"
    run = named(
        made(tmp_path, dvc_yaml=text, dvc_lock=lock(outs=outs), metrics_json='{"loss": 0.25}'), "x"
    )
    assert run.status == "unknown"
    assert details(run, "run", "stale") == ["metrics.json changed after dvc.lock was written"]
    assert [point.value for point in run.points] == [0.25]


def test_a_stage_that_never_ran_leaves_the_run_unfinished(tmp_path):
    text = STAGE + "  evaluate:\n    cmd: python evaluate.py\n"
    run = named(made(tmp_path, dvc_yaml=text, dvc_lock=lock()), "x")
    assert run.status == "unknown"
    assert run.code.entry_point == "python train.py"


@pytest.mark.parametrize("text", ["a\r\nb\r\n", "a\nb\n"])
def test_code_is_compared_with_a_lock_of_dvc_2_by_its_own_digest(text, tmp_path):
    md5 = hashlib.md5(b"a\nb\n").hexdigest()
    deps = f"    - path: train.py\n      md5: {md5}\n"
    folder = made(tmp_path, dvc_yaml=STAGE, dvc_lock=lock(deps=deps), train_py=text)
    assert named(folder, "x").code.dirty is False
    folder = made(tmp_path / "b", dvc_yaml=STAGE, dvc_lock=lock(deps=deps), train_py="c\n")
    assert named(folder, "x").code.dirty is True


def test_a_dependency_without_a_digest_settles_nothing(tmp_path):
    deps = "    - path: train.py\n"
    folder = made(tmp_path, dvc_yaml=STAGE, dvc_lock=lock(deps=deps))
    assert named(folder, "x").status == "finished"


def test_files_with_too_many_values_are_flagged(tmp_path, monkeypatch):
    files = {"params_yaml": "lr: [1, 2, 3, 4]\n", "m_json": '{"a": 1, "b": 2, "c": 3}'}
    folder = made(
        tmp_path,
        dvc_yaml=STAGE + "metrics: [m.json]\n",
        dvc_lock=lock(params="        lr: [1, 2, 3, 4]\n"),
        **files,
    )
    monkeypatch.setattr("bundler.importers.dvc.values.MAX_VALUES", 3)
    run = named(folder, "x")
    assert run.parameters == {}
    assert len(details(run, "parameters", "unreadable")) == 2
    assert details(run, "metrics", "unreadable") == ["m.json: more than 3 values"]
    monkeypatch.setattr(dvc_results, "MAX_FILE", 3)
    assert "m.json: more than 3 bytes" in details(named(folder, "x"), "metrics", "unreadable")


def test_so_many_verdicts_are_remembered_and_no_more(tmp_path, monkeypatch):
    deps = entry("a.csv", b"a") + entry("b.csv", b"b") + entry("c.csv", b"c")
    folder = made(tmp_path, dvc_yaml=STAGE, dvc_lock=lock(deps=deps))
    for data in (b"a", b"b", b"c"):
        cached(folder, data)
    monkeypatch.setattr("bundler.importers.dvc._REMEMBERED", 1)
    assert all(each.sha256 for each in named(folder, "x").data)


def test_metrics_of_one_name_in_two_files_are_told_apart(tmp_path):
    text = "metrics: [a.json, b.yaml, sub]\n"
    folder = made(
        tmp_path,
        dvc_yaml=text,
        a_json='{"loss": 1, "deep": {"er": 2}}',
        b_yaml="loss: 3\n",
        sub__c_json='{"only": NaN}',
        dvc_lock=lock(),
    )
    run = named(folder, "x")
    values = {point.metric: point.value for point in run.points}
    assert repr(values.pop("only")) == "nan"
    assert values == {"a.json:loss": 1.0, "b.yaml:loss": 3.0, "deep.er": 2.0}


def test_parameters_of_one_name_are_told_apart_where_they_differ(tmp_path):
    folder = made(
        tmp_path,
        dvc_yaml="params: [a.toml, b.json]\n",
        a_toml="lr = 0.1\nseed = 7\n",
        b_json='{"seed": 8}',
        metrics_json="{}",
    )
    assert named(folder, "x").parameters == {"lr": 0.1, "a.toml:seed": 7, "b.json:seed": 8}


def test_metrics_and_series_in_dvcs_cache_are_read_from_there(tmp_path):
    summary, series = b'{"loss": 0.5, "step": 1, "acc": 0.75}', TSV.encode()
    listing = [
        {"md5": hashlib.md5(summary).hexdigest(), "relpath": "metrics.json"},
        {"md5": hashlib.md5(b"image").hexdigest(), "relpath": "plots/images/a.png"},
        {"md5": hashlib.md5(series).hexdigest(), "relpath": "plots/metrics/loss.tsv"},
    ]
    text = json.dumps(listing, sort_keys=True).encode()
    md5 = hashlib.md5(text).hexdigest()
    outs = f"    - path: live\n      hash: md5\n      md5: {md5}.dir\n"
    folder = made(
        tmp_path,
        dvc_yaml=STAGE + "    outs: [live]\nmetrics: [live/metrics.json]\n",
        dvc_lock=lock(outs=outs),
    )
    for data in (summary, series, b"image"):
        cached(folder, data)
    write(folder / ".dvc/cache/files/md5" / md5[:2] / f"{md5[2:]}.dir", text)
    run = named(folder, "x")
    assert [(point.metric, point.step, point.value) for point in run.points] == [
        ("acc", 1, 0.75), ("loss", 0, 1.0), ("loss", 1, 0.5),
    ]  # fmt: skip
    assert [each.path for each in run.artefacts] == ["live/plots/images/a.png"]
    shutil.rmtree(folder / ".dvc" / "cache")
    run = named(folder, "x")
    assert run.points == ()
    assert ("metrics", "missing") in flags(run)
    assert [(each.path, each.file) for each in run.artefacts] == [("live", None)]
    assert details(run, "artefacts", "missing") == ["live"]


def test_a_model_with_other_bytes_than_its_digest_is_no_artefact(tmp_path):
    outs = entry("model.bin", b"model")
    folder = made(tmp_path, dvc_yaml=STAGE, dvc_lock=lock(outs=outs))
    file = cached(folder, b"model")
    assert named(folder, "x").artefacts[0].file == file
    file.write_bytes(b"medel")
    run = named(folder, "x")
    assert [(each.path, each.file) for each in run.artefacts] == [("model.bin", None)]
    assert ("artefacts", "digest_mismatch") in flags(run)


def test_data_with_other_bytes_has_no_sha256(tmp_path):
    folder = made(tmp_path, dvc_yaml=STAGE, dvc_lock=lock(deps=entry("d.csv", b"data")))
    assert [each.sha256 for each in named(folder, "x").data] == [None]
    assert details(named(folder, "x"), "data", "missing") == ["d.csv"]
    file = cached(folder, b"data")
    (data,) = named(folder, "x").data
    assert data.sha256 == hashlib.sha256(b"data").hexdigest()
    file.write_bytes(b"date")
    run = named(folder, "x")
    assert [each.sha256 for each in run.data] == [None]
    assert ("data", "digest_mismatch") in flags(run)


def test_data_that_was_replaced_after_the_run_is_that_of_the_lock(tmp_path):
    other = hashlib.md5(b"new").hexdigest()
    folder = made(
        tmp_path,
        dvc_yaml=STAGE,
        dvc_lock=lock(deps=entry("d.csv", b"data")),
        d_csv_dvc=f"outs:\n- md5: {other}\n  hash: md5\n  path: d.csv\n",
    )
    git(folder, "mv", "d.csv.dvc", "e") if (folder / "d.csv.dvc").exists() else None
    run = named(folder, "x")
    assert run.data[0].tracker_digest == "md5:" + hashlib.md5(b"data").hexdigest()
    assert details(run, "data", "stale") == [f"d.csv is another one now: {other}"]


def test_what_a_stage_made_is_an_artefact_and_no_data_set(tmp_path):
    deps = entry("made/part.csv", b"part") + entry("raw.csv", b"raw")
    outs = entry("made/part.csv", b"part")
    run = named(made(tmp_path, dvc_yaml=STAGE, dvc_lock=lock(deps=deps, outs=outs)), "x")
    assert [each.name for each in run.data] == ["raw.csv"]
    assert [each.path for each in run.artefacts] == ["made/part.csv"]


def test_an_output_that_git_keeps_is_an_artefact_with_bytes_while_the_session_is_open(tmp_path):
    text = STAGE + "    outs:\n    - model.txt: {cache: false}\n"
    files = {"dvc_yaml": text, "dvc_lock": lock(outs=entry("model.txt", b"m")), "model_txt": "m"}
    folder = made(tmp_path, **files)
    with DvcImporter().open(folder, experiment=None, artefacts=None) as session:
        (run,) = session
        (model,) = run.artefacts
        assert (model.path, model.file.read_bytes()) == ("model.txt", b"m")
        assert [each.artefacts for each in session] == [run.artefacts]
    assert not model.file.exists()


def test_what_cannot_be_read_is_flagged_and_the_rest_counts(tmp_path):
    folder = made(
        tmp_path,
        dvc_yaml="stages: {train: [}",
        dvc_lock="<<<<<<< HEAD\n",
        params_yaml="lr: !!python/none x\n",
        metrics_json='{"loss": 1, "loss": 2}',
        plots__metrics__acc_tsv="epoch\tvalue\n",
        plots__metrics__loss_tsv=TSV,
    )
    run = named(folder, "x")
    assert [point.metric for point in run.points] == ["loss", "loss"]
    assert {("run", "unreadable"), ("parameters", "unreadable"), ("metrics", "unreadable")} <= flags(run)  # fmt: skip
    assert details(run, "metrics", "unreadable") == [
        "metrics.json: the name 'loss' twice in one object",
        "plots/metrics/acc.tsv: the first row is not [timestamp] step NAME",
    ]
    assert run.status == "unknown"


def test_templates_are_named_and_not_guessed(tmp_path):
    text = "vars: [name: x]\nstages:\n  train:\n    foreach: [1, 2]\n    do:\n      cmd: python\n      metrics: ['${item}.json']\n"
    locked = "schema: '2.0'\nstages:\n  train@1:\n    cmd: [python a, python b]\n  train@2:\n    cmd: python\n"
    run = named(made(tmp_path, dvc_yaml=text, dvc_lock=locked), "x")
    assert details(run, "run", "template_not_resolved") == ["${item}.json"]
    assert run.tags["dvc.stage.train@1"] == "python a && python b"
    assert run.code.entry_point is None


def test_python_parameters_are_those_of_the_lock_and_never_run(tmp_path):
    text = STAGE + "    params:\n    - config.py: [lr]\n"
    locked = lock() + "    params:\n      config.py:\n        lr: 1e-3\n"
    run = named(made(tmp_path, dvc_yaml=text, dvc_lock=locked, config_py="raise SystemExit"), "x")
    assert run.parameters == {"config.py:lr": 0.001, "params.yaml:lr": 0.1}
    assert ("parameters", "unreadable") in flags(run)


def test_a_pipeline_in_a_folder_has_its_own_paths(tmp_path):
    text = STAGE + "    wdir: work\n    metrics: [m.json]\n    params: [p.yaml: [lr]]\n"
    folder = made(
        tmp_path,
        sub__dvc_yaml=text,
        sub__dvc_lock=lock(),
        sub__work__m_json='{"loss": 0.5}',
        sub__work__p_yaml="lr: 1\n",
    )
    run = named(folder, "x")
    assert [(point.metric, point.value) for point in run.points] == [("loss", 0.5)]
    assert run.tags["dvc.stage.sub/dvc.yaml:train"] == "python train.py"


def test_a_repository_in_a_folder_of_a_repository_is_read_alone(tmp_path):
    whole = repository(tmp_path / "whole", other__params_yaml="a: 1\n")
    commit(whole, inner__dvc_yaml=STAGE, inner__dvc_lock=lock(), inner__params_yaml="lr: 3\n")
    (run,) = read(whole / "inner")
    assert run.parameters == {"lr": 3}


def test_each_commit_with_new_results_is_a_run_and_a_change_of_the_rest_is_none(tmp_path):
    folder = repository(tmp_path / "made", dvc_yaml="metrics: [m.json]\n", m_json='{"a": 1}')
    commit(folder, "Explain", README_md="x\n")
    commit(folder, "Better", m_json='{"a": 2}')
    git(folder, "tag", "v1")
    commit(folder, "Back", m_json='{"a": 1}')
    git(folder, "checkout", "-q", "-b", "side", "v1")
    commit(folder, "Aside", m_json='{"a": 3}')
    git(folder, "checkout", "-q", "main")
    runs = {run.tags["dvc.subject"]: run for run in read(folder)}
    assert runs.keys() == {"Change", "Better", "Aside"}
    assert {run.name for run in runs.values()} == {None, "v1", "side"}
    assert [p.value for p in runs["Aside"].points] == [3.0]
    # The committer's own zone does not matter.
    assert {run.ended for run in runs.values()} == {1_760_000_000_000}


def test_a_baseline_that_no_branch_has_any_more_still_counts(tmp_path):
    folder = repository(tmp_path / "made", a_txt="a")
    git(folder, "checkout", "-q", "-b", "side")
    commit(folder, "Lost", metrics_json='{"a": 1}', dvc_yaml="metrics: [metrics.json]\n")
    experiment(folder, "x", metrics_json='{"a": 2}')
    git(folder, "checkout", "-q", "main")
    git(folder, "branch", "-q", "-D", "side")
    assert {run.tags["dvc.kind"] for run in read(folder)} == {"commit", "experiment"}


def test_two_names_of_one_experiment_are_one_run(tmp_path):
    folder = made(tmp_path, dvc_lock=lock(), dvc_yaml=STAGE)
    (ref,) = git(folder, "for-each-ref", "--format=%(refname)", "refs/exps").split()
    git(folder, "update-ref", f"{ref}y", ref)
    git(folder, "update-ref", "refs/exps/exec/EXEC_HEAD", "HEAD")
    git(folder, "update-ref", "refs/exps/ab/cd/short", "HEAD")
    (run,) = read(folder)
    assert run.name == "x, xy"


def test_before_the_first_commit_only_the_working_tree_has_results(tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    write(folder / "dvc.yaml", "metrics: [m.json]\n")
    assert read(folder) == []
    assert DvcImporter().experiments(folder) == ("dvc",)
    write(folder / "m.json", '{"a": 1}')
    (run,) = read(folder)
    assert (run.code.commit, run.code.tree, run.ended, run.name) == (None, None, None, "workspace")
    assert [point.value for point in run.points] == [1.0]


def test_the_last_values_time_is_the_end_where_the_commit_seems_to_come_before_it(tmp_path):
    def ended(time: int) -> int:
        text = f"timestamp\tstep\tloss\n{time}\t0\t1.0\n"
        folder = made(tmp_path / str(time), dvc_lock=lock(), plots__metrics__loss_tsv=text, dvc_yaml=STAGE)  # fmt: skip
        return named(folder, "x").ended

    second = 1_760_000_000_000
    assert ended(second + 999) == second + 999
    assert ended(second - 5) == second
    # A clock that was wrong is not repaired.
    assert ended(second + 5000) == second


def test_a_reports_and_parameters_of_dvclive_are_no_artefacts(tmp_path):
    text = STAGE + "    outs:\n    - live: {cache: false}\n"
    files = {
        "live__metrics_json": '{"loss": 0.5, "step": 1}',
        "live__plots__metrics__loss_tsv": TSV,
        "live__report_html": "x",
        "live__params_yaml": "deep: {er: 1}\n",
        "live__plots__images__a_png": "image",
    }
    entries = sorted(
        (name.removeprefix("live__").replace("__", "/"), data) for name, data in files.items()
    )
    listing = [
        {"md5": hashlib.md5(data.encode()).hexdigest(), "relpath": ".".join(path.rsplit("_", 1))}
        for path, data in entries
    ]
    listing.sort(key=lambda each: each["relpath"])
    md5 = hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest()
    outs = f"    - path: live\n      hash: md5\n      md5: {md5}.dir\n"
    folder = made(tmp_path, dvc_yaml=text, dvc_lock=lock(outs=outs), **files)
    with DvcImporter().open(folder, experiment=None, artefacts=None) as session:
        (run,) = session
    assert run.status == "finished"
    assert [each.path for each in run.artefacts] == ["live/plots/images/a.png"]
    assert run.parameters == {"lr": 0.1, "deep.er": 1}


# --- stores that are none -----------------------------------------------------------------------------------------------


def test_an_address_and_a_folder_without_dvc_or_git_are_refused(tmp_path):
    refused("https://example.org/repo.git", "no folder of a DVC repository")
    refused(tmp_path / "nowhere", "no folder of a DVC repository")
    refused(tmp_path, "neither .dvc nor dvc.yaml")
    write(tmp_path / "dvc.yaml", "")
    assert "full, intact git clone" in refused(tmp_path, "not a git repository").remedy
    assert DvcImporter().detect(tmp_path) == ()
    assert DvcImporter().detect(tmp_path / "dvc.yaml") == ()
    refused(repository(tmp_path / "made", dvc_lock=lock()), "no experiment", experiment="other")


def test_detecting_never_raises(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", denied)
    assert DvcImporter().detect(tmp_path) == ()


def test_without_git_it_is_said(tmp_path, monkeypatch):
    folder = repository(tmp_path / "made", dvc_lock=lock())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refused(folder, "git is not installed").remedy == "Install git."


# --- repositories that want more than to be read --------------------------------------------------------------------------


def test_nothing_that_the_repository_configures_is_run(pipeline, tmp_path):
    trap = write(tmp_path / "trap.sh", f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    for key in (
        "core.fsmonitor", "core.pager", "core.editor", "core.sshCommand", "core.askPass", "gpg.program",
        "diff.external", "pager.log", "filter.x.clean", "filter.x.smudge", "filter.x.process", "credential.helper",
        "uploadpack.packObjectsHook", "diff.x.textconv", "diff.x.command", "core.gitProxy",
    ):  # fmt: skip
        git(pipeline, "config", key, str(trap))
    git(pipeline, "config", "core.hooksPath", str(tmp_path))
    git(pipeline, "config", "log.showSignature", "true")
    git(pipeline, "config", "core.attributesFile", str(write(tmp_path / "attr", "* filter=x diff=x\n")))  # fmt: skip
    for hook in ("post-index-change", "post-checkout", "reference-transaction", "pre-auto-gc"):
        shutil.copy(trap, tmp_path / hook)
    assert len(read(pipeline)) == 8
    assert not (tmp_path / "sprung").exists()


def test_missing_objects_are_not_fetched(pipeline, tmp_path):
    sprung = tmp_path / "sprung"
    trap = write(tmp_path / "trap.sh", f"#!/bin/sh\ntouch {sprung}\n")
    trap.chmod(0o755)
    git(pipeline, "config", "remote.origin.url", f"ext::{trap}")
    git(pipeline, "config", "protocol.ext.allow", "always")
    git(pipeline, "config", "remote.origin.promisor", "true")
    git(pipeline, "config", "extensions.partialClone", "origin")
    git(pipeline, "config", "core.repositoryFormatVersion", "1")
    for pack in (pipeline / ".git" / "objects" / "pack").iterdir():
        write(pack.with_suffix(".promisor"), "")
    steeper = named(pipeline, "steeper").source.run_id
    _remove(pipeline, git(pipeline, "rev-parse", f"{steeper}:params.yaml"))
    refused(pipeline, "lacks the bytes of 'params.yaml'|git in .*pipeline")
    assert not sprung.exists()
    # Without what keeps it from it, git would have fetched.
    subprocess.run(["git", "-C", pipeline, "show", f"{steeper}:params.yaml"], capture_output=True)
    assert sprung.exists()


def _remove(folder: Path, victim: str) -> None:
    """Remove one object."""
    packs = [*(folder / ".git" / "objects" / "pack").glob("*.pack")]
    data = [pack.read_bytes() for pack in packs]
    for each in (folder / ".git" / "objects" / "pack").iterdir():
        each.unlink()
    for pack in data:
        git(folder, "unpack-objects", "-q", data=pack)
    (folder / ".git" / "objects" / victim[:2] / victim[2:]).unlink()


def test_an_object_that_was_replaced_is_read_as_it_was(pipeline):
    before = named(pipeline, "steeper")
    git(pipeline, "config", "core.useReplaceRefs", "true")
    other = git(pipeline, "hash-object", "-w", "--stdin", data=b"lr: 99\n")
    blob = git(pipeline, "rev-parse", f"{before.source.run_id}:params.yaml")
    git(pipeline, "update-ref", f"refs/replace/{blob}", other)
    assert repr(named(pipeline, "steeper")) == repr(before)


def test_an_object_with_other_bytes_than_its_id_says_is_refused(tmp_path):
    folder = made(tmp_path, dvc_lock=lock(), dvc_yaml=STAGE, params_yaml="lr: 0.5\n")
    (ref,) = git(folder, "for-each-ref", "--format=%(refname)", "refs/exps").split()
    blob = git(folder, "rev-parse", f"{ref}:params.yaml")
    other = git(folder, "hash-object", "-w", "--stdin", data=b"lr: 0.9\n")
    objects = folder / ".git" / "objects"
    target = objects / blob[:2] / blob[2:]
    target.chmod(0o644)
    target.write_bytes((objects / other[:2] / other[2:]).read_bytes())
    assert "git fsck" in refused(folder, "other bytes than its id says|git in").remedy


def test_variables_of_git_lead_nowhere_else(tmp_path, monkeypatch):
    folder = made(tmp_path, dvc_lock=lock(), dvc_yaml=STAGE)
    other = repository(tmp_path / "other", a_txt="a")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_CONFIG_GLOBAL"):  # fmt: skip
        monkeypatch.setenv(name, str(other / ".git"))
    assert [run.name for run in read(folder)] == ["x"]


def test_a_tree_that_names_itself_many_times_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(dvc_git, "MAX_ENTRIES", 10_000)
    folder = repository(tmp_path / "made", dvc_lock=lock())
    tree = git(folder, "mktree", data=b"100644 blob %s\tdvc.lock\n" % git(folder, "rev-parse", "HEAD:dvc.lock").encode())  # fmt: skip
    for _ in range(10):
        lines = "".join(f"040000 tree {tree}\t{name}\n" for name in range(10))
        tree = git(folder, "mktree", data=lines.encode())
    bomb = git(folder, "commit-tree", tree, "-m", "x")
    head = git(folder, "rev-parse", "HEAD")
    git(folder, "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/bomb", bomb)
    refused(folder, "more than 10,000 files")


def test_a_history_without_end_is_refused(tmp_path, monkeypatch):
    folder = repository(tmp_path / "made", dvc_lock=lock())
    monkeypatch.setattr(dvc_git, "MAX_ENTRIES", 0)
    refused(folder, "more than 0")


def test_a_run_with_too_many_points_is_refused(tmp_path, monkeypatch):
    folder = made(tmp_path, dvc_lock=lock(), dvc_yaml=STAGE, plots__metrics__loss_tsv=TSV)
    monkeypatch.setattr(dvc_metrics, "MAX_POINTS", 1)
    refused(folder, "more than 1 metric points")


def test_large_files_of_git_are_not_read(tmp_path, monkeypatch):
    text = STAGE + "    outs:\n    - model.txt: {cache: false}\n"
    files = {"dvc_lock": lock(outs=entry("model.txt", b"m" * 99)), "model_txt": "m" * 99}
    folder = made(tmp_path, dvc_yaml=text, plots__metrics__loss_tsv=TSV * 4, **files)
    monkeypatch.setattr(dvc_results, "MAX_BLOB", 50)
    monkeypatch.setattr("bundler.importers.dvc.MAX_BLOB", 50)
    refused(folder, "model.txt")
    monkeypatch.setattr("bundler.importers.dvc.MAX_BLOB", 500)
    run = named(folder, "x")
    assert run.points == ()
    assert details(run, "metrics", "unreadable") == ["plots/metrics/loss.tsv: more than 50 bytes"]
    assert ("run", "stale") in flags(run)


def test_links_in_commits_and_in_the_tree_are_left_out(tmp_path):
    secret = write(tmp_path / "secret.json", '{"secret": 1}')
    folder = repository(tmp_path / "made", dvc_yaml="metrics: [m.json]\n", a_txt="a")
    (folder / "m.json").symlink_to(secret)
    commit(folder, "Link")
    assert read(folder) == []
    git(folder, "rm", "-q", "--cached", "m.json")
    assert read(folder) == []


def test_names_that_are_no_text_and_values_that_steer_a_terminal_come_out_as_text(tmp_path):
    folder = repository(tmp_path / "made", dvc_yaml="metrics: [m.json]\n")
    name = os.fsdecode(b"n\xff\x1b[31m.json")
    write(folder / name, '{"a": 1}')
    write(folder / "dvc.yaml", 'metrics: ["m.json", "n"]\n')
    write(folder / "m.json", '{"\\ud800": 1, "\\u001b[31m": 2}')
    commit(folder, "\x1b[31m red")
    (run,) = read(folder)
    repr(run).encode()
    assert {point.metric for point in run.points} == {"\\ud800", "\x1b[31m"}


def test_a_commit_with_an_odd_header_has_no_time(tmp_path):
    folder = repository(tmp_path / "made", dvc_lock=lock(), dvc_yaml=STAGE)
    tree, head = git(folder, "rev-parse", "HEAD^{tree}"), git(folder, "rev-parse", "HEAD")
    text = f"tree {tree}\nparent {head}\nauthor A <a> 1 +0000\ncommitter nobody\n\nodd\xff\n"
    odd = git(folder, "hash-object", "-t", "commit", "-w", "--literally", "--stdin", data=text.encode("latin-1"))  # fmt: skip
    git(folder, "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/odd", odd)
    run = named(folder, "odd")
    assert run.ended is None
    with Repository(folder).objects() as objects:
        assert objects.commit(odd).subject == "odd\\xff"
        with pytest.raises(SourceError, match="is no commit"):
            objects.commit(git(folder, "rev-parse", "HEAD:dvc.lock"))
        with pytest.raises(SourceError, match="is not there"):
            objects.commit("0" * 40)
        with pytest.raises(SourceError, match="gave '--all' for an object"):
            objects.commit("--all")
        # Each of these left the process in step.
        assert objects.commit(head).parents == ()


def test_a_repository_with_sha256_objects_is_read(tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main", "--object-format=sha256")
    commit(folder, dvc_yaml=STAGE, dvc_lock=lock(), params_yaml="lr: 1\n")
    experiment(folder, "x", params_yaml="lr: 2\n", dvc_lock=lock(params="        lr: 2\n"))
    runs = read(folder)
    assert {run.parameters["lr"] for run in runs} == {1, 2}
    assert {len(run.source.run_id) for run in runs} == {64}
    assert len(runs) == 2


def test_a_file_that_vanishes_from_the_working_tree_is_flagged(pipeline, monkeypatch):
    tree = WorkingTree(Repository(pipeline), pipeline, "0" * 40)
    with pytest.raises(ValueError, match="more than 3 bytes"):
        tree.read("params.yaml", 3)
    (pipeline / "params.yaml").unlink()
    with pytest.raises(ValueError, match="no longer there"):
        tree.read("params.yaml", 100)

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(SourceError, match="cannot be read"):
        tree.read("dvc.yaml", 100)


def test_a_cached_file_that_cannot_be_read_is_an_error(tmp_path):
    results = dvc_results.Results.__new__(dvc_results.Results)
    results.tree = type("Tree", (), {"files": {}})()
    results.cached = {"x": tmp_path / "nowhere"}
    with pytest.raises(SourceError, match="cannot be read"), results.opened("x"):
        pass


def test_git_that_fails_midway_is_an_error(pipeline):
    repository_ = Repository(pipeline)
    shutil.rmtree(pipeline / ".git" / "objects" / "pack")
    with pytest.raises(SourceError, match="fatal"):
        repository_.files(git_head(pipeline))
    with pytest.raises(SourceError, match="git in"):
        list(repository_._lines("files", "ls-files", "--bad-option"))


@pytest.mark.parametrize("name", ["MAX_OUTPUT", "MAX_ENTRIES"])
def test_what_git_says_is_bounded(name, pipeline, monkeypatch):
    repository_ = Repository(pipeline)
    monkeypatch.setattr(dvc_git, name, 1)
    for ask in (
        lambda: repository_.refs("refs"),
        lambda: list(repository_.working()),
        lambda: repository_.changing((":(glob)**",), set()),
        lambda: repository_.files(git(pipeline, "rev-parse", "HEAD")),
    ):
        with pytest.raises(SourceError, match="more than 1 "):
            ask()
    monkeypatch.setattr(dvc_git, "_MAX_ANSWER", 1)
    with pytest.raises(SourceError, match="more than 1 bytes from log"):
        repository_.subject(git(pipeline, "rev-parse", "HEAD"))


def test_each_commit_is_listed_once_while_there_is_room(pipeline, monkeypatch):
    asked = []
    before = Repository._lines
    monkeypatch.setattr(Repository, "_lines", lambda self, *a, **k: asked.append(a[-1]) or before(self, *a, **k))  # fmt: skip
    assert len(read(pipeline)) == 8
    listed = [each for each in asked if each.endswith(":./")]
    assert len(listed) == len(set(listed))
    asked.clear()
    monkeypatch.setattr(dvc_git, "_MAX_KEPT", 0)
    assert len(read(pipeline)) == 8
    assert len([each for each in asked if each.endswith(":./")]) > len(listed)


def test_a_warning_for_every_line_does_not_stop_git(pipeline):
    """More on its error output than a pipe holds, before it ends."""
    script = "while :; do echo warning >&2; n=x$n; [ ${#n} -gt 9000 ] && break; done; echo a"
    repository_ = Repository(pipeline)
    repository_._command = lambda *_: ["sh", "-c", script]
    assert repository_._git("x") == "a\n"


def test_without_a_temporary_folder_it_is_said(tmp_path, monkeypatch):
    folder = made(tmp_path, dvc_lock=lock(), dvc_yaml=STAGE)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert "TMPDIR" in refused(folder, "temporary folder").remedy


# --- the queue ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["failed", "stash"])
def test_an_entry_of_the_queue_without_a_log_is_a_run_as_in_a_mirror_clone(kind, pipeline):
    before = {run.source.run_id: run for run in read(pipeline)}
    (pipeline / ".git" / "logs" / "refs" / "exps" / "celery" / kind).unlink()
    after = {run.source.run_id: run for run in read(pipeline)}
    assert after.keys() == before.keys()
    name = {"failed": "crashed", "stash": "later"}[kind]
    (run,) = [each for each in after.values() if each.name == name]
    assert run.tags == before[run.source.run_id].tags
    assert ("run", "queue_log_missing") in flags(run)


def test_an_entry_with_another_message_and_a_log_that_ends_earlier_lose_nothing(tmp_path):
    folder = made(tmp_path, dvc_lock=lock(), dvc_yaml=STAGE)
    ref, ids = "refs/exps/celery/failed", []
    for number in range(3):
        commit(folder, f"other {number}")
        ids.append(git(folder, "rev-parse", "HEAD"))
        git(folder, "update-ref", "--create-reflog", "-m", "something else", ref, ids[-1])
    log = folder / ".git" / "logs" / ref
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:2]))
    failed = {run.source.run_id: run for run in read(folder) if run.status == "failed"}
    assert failed.keys() == set(ids)
    words = [{flag for _, flag in flags(failed[each])} & {"queue_log_missing", "queue_entry_unnamed"} for each in ids]  # fmt: skip
    assert words == [{"queue_entry_unnamed"}] * 2 + [{"queue_log_missing"}]


def test_an_entry_of_the_queue_whose_commit_is_gone_is_an_error(tmp_path):
    folder = made(tmp_path, dvc_lock=lock(), dvc_yaml=STAGE)
    head = git(folder, "rev-parse", "HEAD")
    git(folder, "update-ref", "--create-reflog", "-m", "x", "refs/exps/celery/failed", head)
    log = folder / ".git" / "logs" / "refs/exps/celery/failed"
    log.write_text(f"{'0' * 40} {'1' * 40} T <t> 1 +0000\tx\n" + log.read_text())
    refused(folder, "1" * 40)
    log.write_text("junk\n" + log.read_text())
    refused(folder, "for an object")


# --- whose repository -----------------------------------------------------------------------------------------------------


def test_a_repository_that_a_file_or_a_link_names_is_not_read(tmp_path):
    other = made(tmp_path, dvc_lock=lock(), dvc_yaml=STAGE)
    write(tmp_path / "store" / ".dvc" / "config", "")
    entry_ = write(tmp_path / "store" / ".git", f"gitdir: {other}/.git\n")
    assert "ordinary clone" in refused(tmp_path / "store", "does not name it").remedy
    entry_.unlink()
    entry_.symlink_to(other / ".git")
    refused(tmp_path / "store", "does not name it")


def test_a_repository_that_leads_elsewhere_is_not_read(tmp_path):
    other = made(tmp_path, dvc_lock=lock(), dvc_yaml=STAGE)
    for number, change in enumerate(("core.worktree", "commondir", "refs", "objects")):
        store = repository(tmp_path / f"store{number}", dvc_lock=lock())
        place = store / ".git" / change
        if change == "core.worktree":
            git(store, "config", change, str(other))
        elif change == "commondir":
            place.write_text(f"{other}/.git\n")
        else:
            place.rename(tmp_path / f"kept{number}")
            place.symlink_to(other / ".git" / change)
        refused(store, "does not name it|has a link")


def test_worktrees_and_submodules_are_read(tmp_path):
    folder = repository(tmp_path / "made", dvc_lock=lock(), dvc_yaml=STAGE)
    git(folder, "worktree", "add", "-q", str(tmp_path / "tree"))
    assert {run.name for run in read(tmp_path / "tree")} == {run.name for run in read(folder)}
    above = repository(tmp_path / "above", a_txt="a")
    git(above, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(folder), "sub")
    assert (above / "sub" / ".git").is_file()
    assert [run.source.run_id for run in read(above / "sub")] == [git(folder, "rev-parse", "HEAD")]


def test_what_the_configuration_includes_is_not_shown(tmp_path):
    folder = made(tmp_path, dvc_lock=lock(), dvc_yaml=STAGE)
    secret = write(tmp_path / "secret", '[remote "origin"]\n\turl = ssh://host.example/secret\n')
    git(folder, "config", "include.path", str(secret))
    assert {run.code.repository for run in read(folder)} == {None}


# --- many -----------------------------------------------------------------------------------------------------------------


def test_a_path_that_begins_with_a_slash_has_an_end():
    assert list(dvc_origins.upwards("/a/b")) == ["/a/b", "/a"]
    assert list(dvc_origins.upwards("a/b/c")) == ["a/b/c", "a/b", "a"]
    assert list(dvc_origins.upwards("")) == [""]
    assert not dvc_origins.LiveFolders().is_left("/a/b")


def test_a_git_process_that_has_ended_is_an_error(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as stdin:
        objects = dvc_git.Objects(tmp_path, stdin, io.BytesIO())
        with pytest.raises(SourceError, match="git has ended"):
            objects.commit("0" * 40)


def git_head(folder: Path) -> str:
    return (folder / ".git" / "packed-refs").read_text().splitlines()[-1].split()[0]


def test_blobs_are_named_as_git_names_them(tmp_path):
    folder = repository(tmp_path / "made", a_txt="abc")
    assert dvc_git.blob_id(b"abc", "0" * 40) == git(folder, "rev-parse", "HEAD:a.txt")
    assert Repository(folder).files(git(folder, "rev-parse", "HEAD"))["a.txt"] == Blob(git(folder, "rev-parse", "HEAD:a.txt"), 3)  # fmt: skip


def test_a_url_with_a_password_is_kept_without_it(tmp_path):
    folder = made(tmp_path, dvc_lock=lock(), dvc_yaml=STAGE)
    git(folder, "remote", "add", "origin", "https://user:word@example.org/x.git?token=1")
    assert named(folder, "x").code.repository == "https://example.org/x.git"


def test_reading_leaves_a_hand_made_repository_alone(tmp_path):
    folder = made(tmp_path, dvc_lock=lock(), dvc_yaml=STAGE)
    before = contents(folder)
    read(folder)
    assert contents(folder) == before


def test_no_process_is_left_over(pipeline):
    with DvcImporter().open(pipeline, experiment=None, artefacts=None) as session:
        next(iter(session))
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(pipeline) not in listed
