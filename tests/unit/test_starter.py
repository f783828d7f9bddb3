"""``bundler init`` on a training repository, with and without git, locks and stores."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bundler import importers
from bundler.config import load
from bundler.errors import OutputError, UsageError
from bundler.records import CodeVersion, MetricPoint
from bundler.starter import compose, detect, write_starter
from bundler.strict_yaml import parse_yaml
from tests import tiny

EXAMPLE = Path(__file__).parents[2] / "example_bundle" / "credit_scoring"


class Tracker(tiny.FakeImporter):
    """A store is a folder called store."""

    def detect(self, folder: Path) -> tuple[Path, ...]:
        return tuple(path for path in (folder / "store", folder / "store2") if path.is_dir())


@pytest.fixture
def repository(provider: tiny.Provider, monkeypatch) -> Path:
    """The tiny provider's repository with its runs in a store."""
    monkeypatch.setattr(importers, "names", lambda: ("tiny",))
    monkeypatch.setattr(importers, "find", lambda name, *, built_in_only=False: Tracker())
    monkeypatch.setattr(tiny.FakeImporter, "runs", provider.runs)
    folder = provider.root / "repository"
    (folder / "store").mkdir()
    return folder


def written(folder: Path, experiment=None) -> tuple[str, int]:
    target = folder / "bundle.yaml"
    todo = write_starter(folder, target, experiment)
    return target.read_text(), todo


def test_what_is_written_can_be_loaded(repository):
    text, _ = written(repository)
    config = load(repository / "bundle.yaml")
    assert config.sources[0].tracker == "tiny"
    assert config.sources[0].store == "store"
    assert config.sources[0].experiment == "tiny"
    assert config.facts.seed == "parameters.seed"
    assert config.facts.code_dirty == "tags.dirty"
    assert config.facts.data_sha256 == "tags.data.sha256"
    assert config.facts.environment == "artefacts.environment.json"
    assert config.facts.model == "model.safetensors"
    assert config.facts.metrics["hold-out"] == ("holdout_auc", "holdout_disparity")
    assert config.selection.metric == "val_auc"
    assert config.selection.run == "TODO"
    assert config.training.command[:2] == ("{python}", "train.py")
    assert "{seed}" in config.training.command
    assert "{parameter.rate}" in config.training.command
    assert config.training.lock == "requirements.txt"
    assert text.endswith("\n")


def test_each_detected_value_says_where_it_came_from(repository):
    (repository / ".python-version").write_text("3.11.7\n")
    (repository / "requirements.txt").write_text("torch==2.13.0\n")
    (repository / "data.csv.dvc").write_text("outs: []\n")
    (repository / ".dvc").mkdir()
    (repository / "store2").mkdir()
    text, _ = written(repository)
    for words in (
        "# git: HEAD ",
        "working tree with uncommitted changes",
        "# git: remote origin not set",
        "# python: 3.11.7 from .python-version",
        "# torch: 2.13.0 from requirements.txt",
        "# DVC pointers: data.csv.dvc (",
        "# another store: tiny store2",
        'store: "store"  # found in this folder',
        "has 9 runs, all are imported",
        "in 9 of 9 runs",
        "an artefact of 8 of 9 runs",
        "found: requirements.txt",
        "entry point and parameters recorded by the runs",
        "seeds found in the parameters: 42 in 6 runs",
        "hold-out metrics in the store: holdout_auc, holdout_disparity",
    ):
        assert words in text, words


def test_the_best_runs_are_shown_and_none_is_chosen(repository):
    text, _ = written(repository)
    assert "best by val_auc, highest first" in text
    lines = [line for line in text.splitlines() if line.startswith("  #   run-")]
    assert [line.split()[1] for line in lines] == ["run-d", "run-c", "run-c3", "run-c2", "run-c1"]


def test_the_number_of_places_for_a_human(repository):
    text, todo = written(repository)
    assert todo == sum("TODO" in line for line in text.splitlines() if not line.startswith("# "))
    assert todo > 12


def test_nothing_but_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    text, todo = written(tmp_path)
    assert "no git repository here" in text
    assert "no tracker store found in this folder" in text
    assert "tracker: TODO           # known: mlflow" in text
    assert "lock: null" in text
    assert todo > 15
    config = load(tmp_path / "bundle.yaml")
    assert config.training.outputs.tracker == "TODO"


def test_what_was_written_is_never_overwritten(repository):
    target = repository / "bundle.yaml"
    target.write_text("mine")
    with pytest.raises(OutputError, match="never overwritten"):
        write_starter(repository, target, None)
    assert target.read_text() == "mine"


def test_a_link_that_leads_nowhere_is_not_followed(repository, tmp_path):
    target = repository / "bundle.yaml"
    target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="cannot write"):
        write_starter(repository, target, None)
    assert not (tmp_path / "elsewhere").exists()


def test_a_target_that_cannot_be_written(repository):
    with pytest.raises(OutputError, match="cannot write"):
        write_starter(repository, repository / "no" / "bundle.yaml", None)


def test_no_folder(tmp_path):
    with pytest.raises(UsageError, match="is not a folder"):
        write_starter(tmp_path / "missing", tmp_path / "b.yaml", None)


HOSTILE = 'x\ntraining: {command: ["rm", "-rf", "/"]} # TODO \u2028\x85\x07 \U0001f600 "\\ {a: [b'


def test_names_in_the_store_cannot_write_yaml(repository, provider, monkeypatch):
    def spoil(run):
        return replace(
            run,
            name=HOSTILE,
            parameters={**run.parameters, HOSTILE: "1"},
            tags={**run.tags, "dirty " + HOSTILE: "1"},
            code=CodeVersion(entry_point=HOSTILE),
            points=tuple(
                p._replace(
                    metric=p.metric + HOSTILE
                    if p.metric.startswith(("val", "holdout"))
                    else p.metric
                )
                for p in run.points
            ),
        )

    monkeypatch.setattr(tiny.FakeImporter, "runs", [spoil(run) for run in provider.runs])
    monkeypatch.setattr(Tracker, "experiments", lambda self, store: (HOSTILE, "b\nversion: 2"))
    written(repository)
    config = load(repository / "bundle.yaml")
    assert config.version == 1
    assert config.sources[0].experiment == HOSTILE
    assert config.selection.metric == "val_auc" + HOSTILE
    assert config.training.command[1] == HOSTILE


def test_several_answers_are_listed(repository, provider, monkeypatch):
    def more(run):
        artefacts = tuple(
            replace(each, path="best.pt") if each.path.startswith("env") else each
            for each in run.artefacts
        )
        return replace(run, artefacts=artefacts, tags={**run.tags, "git.dirty": "0"})

    monkeypatch.setattr(tiny.FakeImporter, "runs", [more(run) for run in provider.runs])
    text, _ = written(repository)
    assert "also: model.safetensors" in text or "also: best.pt" in text
    assert "also: git.dirty" in text
    assert "environment: null  # TODO: not found among the artefacts" in text


def test_an_empty_store(repository, monkeypatch):
    monkeypatch.setattr(tiny.FakeImporter, "runs", [])
    text, _ = written(repository)
    assert "validation metrics are: none" in text
    assert "model: null" in text
    assert load(repository / "bundle.yaml").selection.metric == "TODO"


def test_runs_without_a_number_are_not_best(repository, provider, monkeypatch):
    nan = MetricPoint("val_auc", 9, 9, float("nan"))
    runs = [replace(run, points=(*run.points, nan)) for run in provider.runs]
    monkeypatch.setattr(tiny.FakeImporter, "runs", runs)
    assert "run-d  0.8" not in compose(detect(repository, None))


def test_an_experiment_may_be_named(repository):
    text, _ = written(repository, experiment="other")
    assert 'experiment: "other"' in text


@pytest.mark.skipif(not (EXAMPLE / "mlflow.db").exists(), reason="the example has no store")
def test_a_real_mlflow_store(tmp_path):
    folder = tmp_path / "credit_scoring"
    shutil.copytree(EXAMPLE, folder)
    before = (folder / "mlflow.db").read_bytes()
    text, _ = written(folder)
    config = load(folder / "bundle.yaml")
    assert (config.sources[0].tracker, config.sources[0].store) == ("mlflow", "mlflow.db")
    assert config.sources[0].experiment == "credit-scoring"
    assert config.sources[0].artefacts == "mlartifacts"
    assert config.facts.data_sha256 == "tags.data.sha256"
    assert config.facts.model == "model.safetensors"
    assert config.selection.metric == "best_val_auc"
    assert config.training.outputs.tensors == ("model.safetensors",)
    assert config.training.environment["MLFLOW_TRACKING_URI"] == "file://{out}/mlruns"
    assert "has 40 runs, all are imported" in text
    assert parse_yaml(text.encode())
    assert (folder / "mlflow.db").read_bytes() == before
