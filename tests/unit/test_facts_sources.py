"""What makes several sources speak of one thing: other names, and metric histories from artefacts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bundler.errors import SourceError
from bundler.facts import renamed, with_histories
from bundler.history import write_points
from bundler.importers.model import ArtefactFile, MetricPoint
from bundler.records import FidelityFlag
from tests import tiny


@pytest.fixture
def run(provider: tiny.Provider):
    return provider.runs[1]


def test_names_are_changed_and_each_change_is_flagged(run):
    names = {
        "parameters.rate": "parameters.lr",
        "tags.dirty": "tags.git.dirty",
        "metrics.val_auc": "metrics.a_auc",
        "metrics.absent": "metrics.other",
    }
    changed = renamed(run, names)
    assert changed.parameters == {"lr": "0.1", "model": "mlp", "seed": "42"}
    assert changed.tags["git.dirty"] == "false"
    assert "dirty" not in changed.tags
    assert {each.field: each.detail for each in changed.fidelity if each.flag == "renamed"} == {
        "parameters.lr": "was rate",
        "tags.git.dirty": "was dirty",
        "metrics.a_auc": "was val_auc",
    }
    assert [point.metric for point in changed.points] == sorted(p.metric for p in changed.points)
    values = [point.value for point in run.points if point.metric == "val_auc"]
    assert [point.value for point in changed.points if point.metric == "a_auc"] == values


def test_nothing_is_changed_without_names(run):
    assert renamed(run, {}) == run


@pytest.mark.parametrize(
    "names",
    [
        {"parameters.rate": "parameters.seed"},
        {"tags.dirty": "tags.data.sha256"},
        {"metrics.val_auc": "metrics.train_loss"},
    ],
)
def test_a_name_that_is_taken_is_refused(run, names):
    with pytest.raises(SourceError, match=r"run run-b: rename .* already"):
        renamed(run, names)


# --- histories ------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_file(run, tmp_path):
    """The run with a metrics.csv among its artefacts that holds ``points``."""

    def make(*points: MetricPoint):
        file = tmp_path / "metrics.csv"
        file.write_bytes(write_points(points))
        artefact = ArtefactFile(path="logs/metrics.csv", file=file)
        return replace(run, artefacts=(*run.artefacts, artefact))

    return make


def test_a_history_in_an_artefact_belongs_to_the_run(with_file):
    run = with_file(MetricPoint("eval_loss", 1, 5, 0.5), MetricPoint("eval_loss", 2, 6, 0.25))
    found = with_histories(run, ["logs/*.csv"])
    assert [point for point in found.points if point.metric == "eval_loss"] == [
        MetricPoint("eval_loss", 1, 5, 0.5),
        MetricPoint("eval_loss", 2, 6, 0.25),
    ]
    assert (
        FidelityFlag(
            field="metrics.eval_loss", flag="read_from_artefact", detail="logs/metrics.csv"
        )
        in found.fidelity
    )
    assert list(found.points) == sorted(
        found.points, key=lambda point: (point.metric, point.timestamp, point.step)
    )


def test_what_the_tracker_has_itself_stays(with_file):
    run = with_file(MetricPoint("val_auc", 1, 5, 0.999))
    found = with_histories(run, ["logs/*.csv"])
    assert found.points == run.points
    assert (
        FidelityFlag(field="metrics.val_auc", flag="history_not_taken", detail="logs/metrics.csv")
        in found.fidelity
    )


def test_no_pattern_no_history(with_file):
    run = with_file(MetricPoint("eval_loss", 1, 5, 0.5))
    assert with_histories(run, ()) == run


def test_an_artefact_that_is_no_history_is_refused(run):
    with pytest.raises(SourceError, match=r"environment\.json"):
        with_histories(run, ["*.json"])


def test_a_history_that_is_missing_is_none(run):
    artefact = ArtefactFile(path="logs/metrics.csv", file=None)
    run = replace(run, artefacts=(artefact,))
    assert with_histories(run, ["logs/*"]).points == run.points
