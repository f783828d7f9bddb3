"""``bundler init`` on a training repository, with and without git, locks and stores."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from bundler import importers
from bundler.config import SourceConfig, load
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


def test_versions_are_those_that_the_project_and_the_runs_name(repository, provider):
    (repository / "pyproject.toml").write_text('[project]\nrequires-python = ">=3.11"\n')
    environment = b'{"python": "3.12.1", "versions": {"torch": "2.9.0"}}'
    (provider.root / "artefacts" / "run-b" / "environment.json").write_bytes(environment)
    text, _ = written(repository)
    for words in (
        "# python: >=3.11 is asked for by requires-python in pyproject.toml",
        "# python: 3.11.7 from environment.json of 7 of 9 runs",
        "# python: 3.12.1 from environment.json of 1 of 9 runs",
        "# torch: 2.9.0 from environment.json of 1 of 9 runs",
    ):
        assert words in text, words


@pytest.mark.parametrize(
    "project", ["[project]\nname = 'x'\n", "project = 1\n", "[", "\xff", "project = []\n"]
)
def test_a_project_that_asks_for_nothing(project, repository):
    (repository / "pyproject.toml").write_bytes(project.encode("latin-1"))
    assert "pyproject.toml" not in written(repository)[0]


def test_an_environment_that_is_not_there_says_nothing(repository, provider):
    for path in provider.root.glob("artefacts/*/environment.json"):
        path.unlink()
    assert "# python" not in written(repository)[0]


# --- the data -----------------------------------------------------------------------------------------------------------


def test_the_file_with_the_recorded_digest_is_an_input(repository):
    text, _ = written(repository)
    assert load(repository / "bundle.yaml").training.inputs == {"data": "data.csv"}
    (line,) = [each for each in text.splitlines() if each.startswith("  inputs:")]
    assert "SHA-256 is tags.data.sha256 of 9 of 9 runs" in line
    assert "TODO" not in line


def test_other_data_of_other_runs_is_named(repository, provider, monkeypatch):
    (repository / "old.csv").write_text("old")
    tiny_git(repository, "add", ".")
    old = "sha256:" + hashlib.sha256(b"old").hexdigest().upper()
    runs = [
        replace(run, tags={**run.tags, "data.sha256": old}) if number == 0 else run
        for number, run in enumerate(provider.runs)
    ]
    monkeypatch.setattr(tiny.FakeImporter, "runs", runs)
    text, _ = written(repository)
    assert load(repository / "bundle.yaml").training.inputs == {"data": "data.csv"}
    assert "of 8 of 9 runs; use {input.data} in the command; TODO: other runs had: old.csv" in text


@pytest.mark.parametrize(
    "kind", ["not in git", "a link", "in the store", "large", "odd name", "no git"]
)
def test_what_cannot_be_shipped_is_no_input(kind, repository, monkeypatch):
    data = repository / "data.csv"
    if kind == "not in git":
        tiny_git(repository, "rm", "-q", "--cached", "data.csv")
    elif kind == "a link":
        data.symlink_to(data.rename(repository.parent / "data.csv"))
    elif kind in {"in the store", "odd name"}:
        place = "store/data.csv" if kind == "in the store" else "the data.csv"
        data.rename(repository / place)
        tiny_git(repository, "add", ".")
    elif kind == "large":
        monkeypatch.setattr("bundler.starter.detection.MAX_DATA", 10)
    else:
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(repository.parent))
        shutil.rmtree(repository / ".git")
    text, _ = written(repository)
    assert load(repository / "bundle.yaml").training.inputs == {}
    assert "TODO: no file in git has the SHA-256 that runs recorded (tags.data.sha256)" in text


def tiny_git(folder, *arguments):
    subprocess.run(["git", "-C", str(folder), *arguments], check=True)


# --- words and numbers --------------------------------------------------------------------------------------------------


def test_lists_say_how_much_they_leave_out(repository, provider, monkeypatch):
    names = [f"val_{number}" for number in range(7)]
    runs = [
        replace(
            run,
            parameters={**run.parameters, "seed": str(number)},
            points=(*run.points, *(MetricPoint(name, 0, 0, 1.0) for name in names)),
        )
        for number, run in enumerate(provider.runs)
    ]
    monkeypatch.setattr(tiny.FakeImporter, "runs", runs)
    text, _ = written(repository)
    assert re.search(
        r"# seeds found in the parameters: (\d in 1 run, ){4}\d in 1 run and 4 more\n", text
    )
    assert "validation metrics are: val_auc, val_0, val_1, val_2, val_3 and 4 more" in text
    assert "  #   … and 3 more\n" in text


def test_one_run_is_one_run(repository, provider, monkeypatch):
    monkeypatch.setattr(tiny.FakeImporter, "runs", provider.runs[:1])
    text, _ = written(repository)
    assert "has 1 run, which is imported" in text
    assert "seeds found in the parameters: 42 in 1 run\n" in text
    assert "an artefact of the only run" in text
    assert "1 runs" not in text


@pytest.mark.parametrize(
    ("names", "metric", "sampling"),
    [
        (["holdout_accuracy"], "holdout_accuracy", "{kind: proportion, dataset_role: holdout}"),
        (
            ["holdout_a", "test_AUC"],
            "test_AUC",
            "{kind: auc, dataset_role: holdout, positives: 60}",
        ),
        (["holdout_brier"], "holdout_brier", "{kind: proportion, dataset_role: holdout}"),
        ([], "holdout_auc", "{kind: auc, dataset_role: holdout, positives: 60}"),
    ],
)
def test_the_sample_of_a_gate_fits_its_metric(
    names, metric, sampling, repository, provider, monkeypatch
):
    points = tuple(MetricPoint(name, 0, 0, 1.0) for name in names)
    monkeypatch.setattr(
        tiny.FakeImporter, "runs", [replace(run, points=points) for run in provider.runs]
    )
    text, _ = written(repository)
    assert f'#    metric: "{metric}"\n' in text
    assert f"#    sampling: {sampling}\n" in text


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
    assert "tracker: TODO           # known: clearml, comet, " in text
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


# --- other sources --------------------------------------------------------------------------------------------------


def test_given_sources_stand_instead_of_the_found_ones(repository, provider):
    target = repository / "bundle.yaml"
    given = [
        SourceConfig(tracker="tiny", store="elsewhere", experiment="one"),
        SourceConfig(tracker="tiny", store="https://host/x"),
    ]
    write_starter(repository, target, None, given)
    config = load(target)
    assert [(each.store, each.experiment) for each in config.sources] == [
        ("elsewhere", "one"),
        ("https://host/x", "tiny"),
    ]
    text = target.read_text()
    assert 'store: "elsewhere"  # given with --from' in text
    assert "in 18 of 18 runs" in text  # both sources together


def test_a_path_inside_the_folder_is_written_relative_to_it(repository):
    target = repository / "bundle.yaml"
    given = [SourceConfig(tracker="tiny", store=str(repository / "store"))]
    write_starter(repository, target, None, given)
    assert load(target).sources[0].store == "store"
    target.unlink()
    write_starter(repository, target, None, [SourceConfig(tracker="tiny", store="/srv/store")])
    assert load(target).sources[0].store == "/srv/store"


def test_what_the_tracker_itself_records_needs_no_fact(repository, provider, monkeypatch):
    runs = [
        replace(
            run,
            tags={},
            artefacts=(),
            code=replace(run.code, dirty=False),
            environment={"python": "3.11.7"},
            data=(replace(run.data[0], sha256="0" * 64, version="1"),),
        )
        for run in provider.runs
    ]
    monkeypatch.setattr(tiny.FakeImporter, "runs", runs)
    text, _ = written(repository)
    for key in ("code_dirty", "data_sha256", "data_version", "environment"):
        (line,) = [each for each in text.splitlines() if each.startswith(f"  {key}:")]
        assert "null  # the tracker itself says it of 9 of 9 runs" in line
        assert "TODO" not in line


def test_a_tracker_is_told_to_write_into_the_output_folder(repository, provider, monkeypatch):
    class Wandb(Tracker):
        def detect(self, folder):
            return (folder / "store",)

    monkeypatch.setattr(importers, "names", lambda: ("wandb",))
    monkeypatch.setattr(importers, "find", lambda name, *, built_in_only=False: Wandb())
    written(repository)
    config = load(repository / "bundle.yaml")
    assert config.training.environment["WANDB_MODE"] == "offline"
    assert (config.training.outputs.tracker, config.training.outputs.location) == ("wandb", "wandb")


@pytest.mark.parametrize("name", ["uv.lock", "Pipfile.lock"])
def test_a_lock_that_cannot_be_read_is_named_and_nothing_else(name, repository):
    (repository / name).write_text("[[broken")
    text, _ = written(repository)
    assert f'lock: "{name}"' in text
    assert "every dependency pinned" not in text


def test_of_a_loss_the_lowest_is_the_best(repository, provider, monkeypatch):
    runs = [
        replace(
            run,
            points=tuple(
                point._replace(metric="val_loss") if point.metric == "val_auc" else point
                for point in run.points
                if point.metric != "val_disparity"
            ),
        )
        for run in provider.runs
    ]
    monkeypatch.setattr(tiny.FakeImporter, "runs", runs)
    text, _ = written(repository)
    assert "  direction: minimise       # TODO: or maximise" in text
    listed = re.findall(r"^  #   run-\S+  (\S+)", text, re.MULTILINE)
    assert listed == sorted(listed, key=float)


def test_a_log_with_titles_of_its_own_asks_what_they_mean(tmp_path):
    (tmp_path / "log.csv").write_text("Versuch;Genauigkeit\nA1;0,91\n")
    source = SourceConfig(tracker="experiment-log", store="log.csv")
    write_starter(tmp_path, tmp_path / "bundle.yaml", None, [source])
    text = (tmp_path / "bundle.yaml").read_text()
    assert "    # TODO: say what each column holds" in text
    assert '        "Genauigkeit": {column: "Genauigkeit", type: TODO}' in text
    parse_yaml(text.encode())


# --- what a gate needs --------------------------------------------------------------------------------------------------


def measuring(provider, monkeypatch, metric, **parameters):
    """The runs with ``metric`` as their hold-out metric."""
    runs = [
        replace(
            run,
            points=(MetricPoint(metric, 1, 1, 0.5), MetricPoint("val_rmse", 1, 1, 0.5)),
            parameters={**run.parameters, **parameters},
            data=(),
        )
        for run in provider.runs
    ]
    monkeypatch.setattr(tiny.FakeImporter, "runs", runs)


@pytest.mark.parametrize(
    ("metric", "comparator", "sampling"),
    [
        ("holdout_rmse", "<=", "kind: predictions, dataset_role: holdout, statistic: rmse,"),
        ("holdout_brier", "<=", "kind: proportion, dataset_role: holdout}"),
        ("holdout_auc", ">=", "kind: auc, dataset_role: holdout, positives: 60}"),
        ("holdout_accuracy", ">=", "kind: proportion, dataset_role: holdout}"),
        ("holdout_balanced_accuracy", ">=", "statistic: balanced_accuracy,"),
        ("holdout_disparity", "<=", "kind: difference, dataset_role: holdout, groups:"),
        ("holdout_lift", ">=", "statistic: TODO,"),
    ],
)
def test_the_gate_that_is_proposed_fits_its_metric(
    repository, provider, monkeypatch, metric, comparator, sampling
):
    measuring(provider, monkeypatch, metric)
    text, _ = written(repository)
    assert f'#    comparator: "{comparator}"' in text
    assert "#    threshold: TODO" in text
    assert sampling in text
    assert "direction: minimise" in text


def test_the_rows_of_the_hold_out_are_looked_for(repository, provider, monkeypatch):
    measuring(provider, monkeypatch, "holdout_rmse")
    assert "data_rows: {}             # TODO: rows of the hold-out" in written(repository)[0]
    (repository / "bundle.yaml").unlink()
    measuring(provider, monkeypatch, "holdout_rmse", holdout_rows=400)
    text, _ = written(repository)
    assert load(repository / "bundle.yaml").facts.data_rows == {
        "holdout": "parameters.holdout_rows"
    }
    assert "in 9 of 9 runs; check it" in text


def test_rows_that_the_tracker_knows_need_no_name(repository):
    text, _ = written(repository)
    assert load(repository / "bundle.yaml").facts.data_rows == {}
    assert "data_rows: {}  # the tracker itself says it of 9 of 9 runs" in text
