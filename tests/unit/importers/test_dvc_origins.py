"""What a commit of DVC holds beside its run: outputs that look like data, and results of earlier runs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bundler.errors import SourceError
from bundler.importers.dvc import git as dvc_git
from bundler.importers.dvc import trees as dvc_trees
from tests.unit.importers.dvc_support import (
    cached,
    commit,
    details,
    experiment,
    flags,
    git,
    named,
    read,
    repository,
)

TSV = "step\tloss\n0\t1.0\n1\t{}\n"


def pointer(path: str, data: bytes) -> str:
    """A ``.dvc`` file."""
    return f"outs:\n- md5: {hashlib.md5(data).hexdigest()}\n  hash: md5\n  path: {path}\n"


def live(folder: str, value: float, lr: float) -> dict[str, str]:
    """What DVCLive writes into ``folder``, in the names of ``commit``."""
    return {
        f"{folder}__metrics_json": f'{{"loss": {value}}}',
        f"{folder}__params_yaml": f"lr: {lr}\n",
        f"{folder}__plots__metrics__loss_tsv": TSV.format(value),
    }


def declared(*folders: str) -> str:
    """The ``dvc.yaml`` that DVCLive writes at the root."""
    metrics = "".join(f"- {each}/metrics.json\n" for each in folders)
    return f"metrics:\n{metrics}params:\n{metrics.replace('metrics.json', 'params.yaml')}"


@pytest.fixture
def script(tmp_path) -> Path:
    """A repository without stages whose data was added before any training."""
    folder = repository(tmp_path / "made", train_py="train()", d_csv_dvc=pointer("d.csv", b"data"))
    git(folder, "mv", "-f", "d_csv.dvc", "d.csv.dvc")
    git(folder, "commit", "-q", "-m", "Name")
    return folder


def with_output(folder: Path, name: str, data: bytes = b"env", **files: str) -> None:
    """An experiment that logged ``environment.json`` with DVCLive."""
    baseline = git(folder, "rev-parse", "HEAD")
    (folder / "environment.json.dvc").write_text(pointer("environment.json", data))
    commit(folder, f"dvc: commit experiment {name}", **files)
    made = git(folder, "rev-parse", "HEAD")
    git(folder, "update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", made)
    git(folder, "reset", "-q", "--hard", baseline)


def test_what_dvclive_logged_is_an_output_and_no_data(script):
    with_output(script, "x", **live("dvclive", 0.5, 0.1))
    cached(script, b"env")  # git took it away with the rest
    run = named(script, "x")
    assert [each.name for each in run.data] == ["d.csv"]
    assert [(each.path, each.file.read_bytes()) for each in run.artefacts] == [
        ("environment.json", b"env")
    ]
    (doubt,) = details(run, "data", "data_not_proven")
    assert doubt.startswith("environment.json: it came with a run's results")


def test_an_output_that_a_later_run_left_as_it_was_is_no_data_of_that_run(script):
    (script / "environment.json.dvc").write_text(pointer("environment.json", b"env"))
    commit(script, "First", **live("dvclive", 0.5, 0.1))
    commit(script, "Second", **live("dvclive", 0.25, 0.2))
    runs = {run.tags["dvc.subject"]: run for run in read(script)}
    for run in runs.values():
        assert [each.name for each in run.data] == ["d.csv"]
        assert ("data", "data_not_proven") in flags(run)
    assert [each.path for each in runs["First"].artefacts] == ["environment.json"]
    assert runs["Second"].artefacts == ()


def test_data_that_changed_with_a_run_is_not_proven_for_it_alone(script):
    baseline = git(script, "rev-parse", "HEAD")
    (script / "d.csv.dvc").write_text(pointer("d.csv", b"more"))
    commit(script, "Changed", **live("dvclive", 0.5, 0.1))
    git(script, "branch", "side")
    git(script, "reset", "-q", "--hard", baseline)
    experiment(script, "x", **live("dvclive", 0.25, 0.2))
    assert [each.name for each in named(script, "x").data] == ["d.csv"]
    changed = named(script, "side")
    assert (changed.data, changed.artefacts) == ((), ())
    assert details(changed, "data", "data_not_proven")[0].startswith("d.csv: it was changed")


@pytest.mark.parametrize("kind", ["model", "plot"])
def test_what_dvc_yaml_lists_as_an_artefact_is_no_data_but_a_data_set(script, kind):
    text = "artifacts:\n  a: {path: d.csv, type: %s}\n"
    experiment(script, "x", dvc_yaml=text % kind, **live("dvclive", 0.5, 0.1))
    run = named(script, "x")
    assert (run.data, [each.path for each in run.artefacts]) == ((), ["d.csv"])
    assert details(run, "artefacts", "unchanged")[0].startswith("d.csv is as it was before")
    experiment(script, "y", dvc_yaml=text % "dataset", **live("dvclive", 0.25, 0.1))
    assert [each.name for each in named(script, "y").data] == ["d.csv"]


def test_what_lies_in_dvclives_folder_is_an_output(script):
    folder = script / "dvclive" / "artifacts"
    folder.mkdir(parents=True)
    (folder / "environment.json.dvc").write_text(pointer("environment.json", b"env"))
    commit(script, "First", **live("dvclive", 0.5, 0.1))
    (run,) = read(script)
    assert [each.path for each in run.artefacts] == ["dvclive/artifacts/environment.json"]
    assert [each.name for each in run.data] == ["d.csv"]
    assert ("data", "data_not_proven") not in flags(run)


def test_results_in_the_working_tree_are_held_against_head(script):
    for name, text in live("dvclive", 0.5, 0.1).items():
        file = script / (name.replace("__", "/").rpartition("_")[0] + "." + name.rpartition("_")[2])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (script / "environment.json.dvc").write_text(pointer("environment.json", b"env"))
    (run,) = read(script)
    assert run.name == "workspace"
    assert [each.name for each in run.data] == ["d.csv"]
    assert [each.path for each in run.artefacts] == ["environment.json"]


def test_a_file_too_large_to_be_compared_counts_as_changed(script, monkeypatch):
    (script / "metrics.json").write_text("{}")
    monkeypatch.setattr(dvc_trees, "_MAX_COMPARED", 10)
    (run,) = read(script)
    assert run.data == ()


def test_without_the_commit_before_nothing_is_proven(script, tmp_path):
    commit(script, "First", **live("dvclive", 0.5, 0.1))
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{script}", str(tmp_path / "shallow"))
    (run,) = read(tmp_path / "shallow")
    assert (run.data, run.artefacts) == ((), ())
    assert "the commit before the run is not there" in details(run, "data", "data_not_proven")[0]


def test_a_stage_that_reads_nothing_has_no_data(script):
    text = "stages:\n  train:\n    cmd: python train.py\n"
    experiment(script, "x", dvc_yaml=text, **live("dvclive", 0.5, 0.1))
    run = named(script, "x")
    assert run.data == ()
    assert not {("data", "not_declared"), ("data", "data_not_proven")} & flags(run)


def test_so_many_pointers_and_no_more(script, monkeypatch):
    with_output(script, "x", **live("dvclive", 0.5, 0.1))
    repository_of = dvc_git.Repository(script)
    made = git(script, "rev-parse", "refs/exps/" + git(script, "rev-parse", "HEAD")[:2] + "/"
               + git(script, "rev-parse", "HEAD")[2:] + "/x")  # fmt: skip
    assert repository_of.added([made], ":(glob)**/*.dvc") == {"environment.json.dvc"}
    monkeypatch.setattr(dvc_git, "MAX_ENTRIES", 0)
    with pytest.raises(SourceError, match="more than 0 pointers"):
        repository_of.added([made], ":(glob)**/*.dvc")


# --- folders of earlier runs ------------------------------------------------------------------------------------------


def test_folders_of_earlier_runs_are_left_out_with_their_parameters(script):
    commit(script, "First", dvc_yaml=declared("runs/a"), **live("runs__a", 0.5, 0.1))
    experiment(script, "x", dvc_yaml=declared("runs/a", "runs/b"), **live("runs__b", 0.25, 0.2))
    run = named(script, "x")
    assert run.parameters == {"lr": 0.2}
    assert [(p.metric, p.value) for p in run.points] == [("loss", 1.0), ("loss", 0.25)]
    assert details(run, "metrics", "of_another_run") == [
        "runs/a is as it was before the run: left out"
    ]


def test_models_of_earlier_runs_are_left_out(script):
    text = "artifacts:\n  a: {path: runs/a/model.bin}\n"
    commit(script, "First", dvc_yaml=text, runs__a__model_bin="m", **live("runs__a", 0.5, 0.1))
    (script / "runs" / "a" / "w.bin.dvc").write_text(pointer("w.bin", b"w"))
    commit(script, "Keep")
    experiment(script, "x", **live("runs__b", 0.25, 0.2))
    run = named(script, "x")
    assert (run.artefacts, [each.name for each in run.data]) == ((), ["d.csv"])


def test_a_folder_that_a_stage_wrote_is_the_runs_even_if_it_did_not_change(script):
    text = "stages:\n  train:\n    cmd: a\n    outs: [live]\n"
    locked = "schema: '2.0'\nstages:\n  train:\n    cmd: a\n    outs:\n    - path: live\n"
    commit(
        script,
        "First",
        dvc_yaml=text,
        dvc_lock=locked,
        **live("live", 0.5, 0.1),
        **live("old", 1, 1),
    )
    experiment(script, "x", **live("new", 0.25, 0.2))
    run = named(script, "x")
    assert {p.metric for p in run.points} == {"live:loss", "new:loss"}
    assert details(run, "metrics", "of_another_run") == [
        "old is as it was before the run: left out"
    ]


def test_a_run_with_the_same_values_is_known_by_its_parameters(script):
    commit(script, "First", **live("a", 0.5, 0.1), **live("b", 0.25, 0.2))
    experiment(script, "y", a__params_yaml="lr: 0.7\n")
    assert named(script, "y").parameters == {"lr": 0.7}


def test_where_no_folder_shows_whose_it_is_all_are_taken_and_flagged(script):
    commit(script, "First", **live("a", 0.5, 0.1), **live("b", 0.25, 0.2))
    experiment(script, "x", note_txt="n")
    run = named(script, "x")
    assert {p.metric for p in run.points} == {"a:loss", "b:loss"}
    assert ("metrics", "not_of_one_run") in flags(run)


def test_results_at_the_root_of_an_earlier_run_are_left_out(script):
    commit(script, "First", metrics_json='{"loss": 1}', dvc_yaml="metrics: [metrics.json]\n",
           plots__metrics__loss_tsv=TSV.format(1), params_yaml="lr: 1\n")  # fmt: skip
    experiment(script, "x", **live("b", 0.25, 0.2))
    run = named(script, "x")
    assert {p.value for p in run.points} == {1.0, 0.25}
    assert {p.metric for p in run.points} == {"loss"}
    assert [each.name for each in run.data] == ["d.csv"]
