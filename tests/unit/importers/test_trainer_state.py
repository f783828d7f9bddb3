"""What the Trainer of Hugging Face saves: as transformers reads it back, and what it does not hold."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler.errors import SourceError
from bundler.importers import find, trainer_state
from bundler.importers.model import ImportedRun
from bundler.importers.trainer_state import TrainerStateImporter
from tests.unit.importers.support import flags, state, write

FUZZ = settings(deadline=None)

FIXTURES = Path(__file__).parents[2] / "fixtures" / "trainer-state"
RUNS = FIXTURES / "runs"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
STATE = (RUNS / "finished" / "trainer_state.json").read_bytes()
HISTORY = [{"step": 1, "epoch": 0.5, "loss": 0.25}, {"step": 2, "epoch": 1.0, "eval_loss": 0.5}]


def read(store: Path, artefacts: Path | None = None) -> dict[str, ImportedRun]:
    with TrainerStateImporter().open(store, experiment=None, artefacts=artefacts) as session:
        runs = list(session)
        assert len(session) == len(runs)
    return {run.source.run_id: run for run in runs}


def the_run(store: Path) -> ImportedRun:
    (run,) = read(store).values()
    return run


def saved(folder: Path, history: Any = HISTORY, **more: Any) -> Path:
    """A state in ``folder``; returns its file."""
    text = json.dumps({"log_history": history, "global_step": 2, "max_steps": 4, **more})
    return write(folder / "trainer_state.json", text)


def refused(store: Path, match: str) -> SourceError:
    with pytest.raises(SourceError, match=match) as error:
        read(store)
    assert error.value.remedy
    assert (error.value.message + error.value.remedy).isprintable()
    return error.value


def values(run: ImportedRun) -> set[tuple[str, int, str]]:
    return {(point.metric, point.step, repr(point.value)) for point in run.points}


@pytest.mark.parametrize(
    ("run", "latest"),
    [
        ("finished", "finished/trainer_state.json"),
        ("second", "second/trainer_state.json"),
        ("broken", "broken/checkpoint-8/trainer_state.json"),
    ],
)
def test_the_history_is_that_of_the_latest_state_as_transformers_reads_it(run, latest):
    expected = {
        (name, entry["step"], repr(float(value)))
        for entry in EXPECTED[latest]["log_history"]
        for name, value in entry.items()
        if name != "step"
    }
    found = read(RUNS)[run]
    assert values(found) == expected
    assert len(found.points) == len(expected)
    assert found.tags["global_step"] == str(EXPECTED[latest]["global_step"])
    assert found.tags["best_metric"] == str(EXPECTED[latest]["best_metric"])
    assert found.tags["best_model_checkpoint"] == EXPECTED[latest]["best_model_checkpoint"]


def test_bare_words_for_no_number_and_infinity_are_read():
    odd = [point.value for point in read(RUNS)["finished"].points if point.metric == "odd"]
    assert math.isnan(odd[0])
    assert odd[1] == math.inf


def test_a_run_that_made_all_its_steps_is_finished_and_of_another_nothing_is_known(tmp_path):
    assert {name: run.status for name, run in read(RUNS).items()} == {
        "finished": "finished",
        "second": "finished",
        "broken": "unknown",
    }
    saved(tmp_path / "a" / "checkpoint-4", global_step=4)
    saved(tmp_path / "b", [{"step": 2, "train_runtime": 1.5}])
    saved(tmp_path / "c", max_steps=0)
    assert [run.status for run in read(tmp_path).values()] == ["finished", "finished", "unknown"]


def test_no_point_has_a_time_and_no_run_a_seed_and_both_are_said():
    run = read(RUNS)["finished"]
    assert {point.timestamp for point in run.points} == {0}
    assert (run.started, run.ended) == (None, None)
    said = {("metrics", "no_time"), ("seed", "not_recorded"), ("parameters", "incomplete")}
    assert said <= flags(run)


def test_speeds_are_flagged_as_rounded_and_losses_only_where_they_are(tmp_path):
    assert ("metrics.eval_runtime", "rounded") in flags(read(RUNS)["finished"])
    assert ("metrics.loss", "rounded") not in flags(read(RUNS)["finished"])
    saved(tmp_path, [{"step": 1, "loss": 0.1234}, {"step": 2, "loss": math.nan}])
    assert ("metrics.loss", "rounded") in flags(the_run(tmp_path))


def test_the_epoch_is_a_metric_once_a_step(tmp_path):
    history = [{"step": 1, "epoch": 0.5, "loss": 1}, {"step": 1, "epoch": 0.5, "eval_loss": 1}]
    saved(tmp_path, history)
    assert values(the_run(tmp_path)) == {
        ("epoch", 1, "0.5"),
        ("loss", 1, "1.0"),
        ("eval_loss", 1, "1.0"),
    }
    assert not any(flag == "duplicate_step" for _, flag in flags(the_run(tmp_path)))


def test_parameters_are_those_that_the_state_has_and_of_a_trial(tmp_path):
    trial = {"learning_rate": 0.1, "betas": [0.9, 0.99], "name": "größe", "\ud800": None}
    saved(
        tmp_path, num_train_epochs=5, train_batch_size=None, trial_params=trial, trial_name="run-1"
    )
    run = the_run(tmp_path)
    assert run.parameters == {
        "betas": "[0.9,0.99]",
        "learning_rate": 0.1,
        "max_steps": 4,
        "name": "größe",
        "num_train_epochs": 5,
        "\\ud800": None,
    }
    assert run.tags["trial_name"] == "run-1"


def test_all_files_are_artefacts_and_a_pickle_is_only_listed():
    run = read(RUNS)["finished"]
    files = {each.path: each.file for each in run.artefacts}
    assert files["training_args.bin"] == RUNS / "finished" / "training_args.bin"
    assert {"model.safetensors", "config.json", "checkpoint-20/optimizer.pt"} <= set(files)
    assert run.environment == {"packages.transformers": "5.24.0"}


def test_files_elsewhere_are_added(tmp_path):
    write(tmp_path / "finished" / "report.txt", "hello")
    write(tmp_path / "finished" / "config.json", "other")
    files = {each.path: each.file for each in read(RUNS, tmp_path)["finished"].artefacts}
    assert files["report.txt"] == tmp_path / "finished" / "report.txt"
    assert files["config.json"] == RUNS / "finished" / "config.json"


def test_a_link_on_the_way_to_files_elsewhere_is_flagged_and_not_followed(tmp_path):
    saved(tmp_path / "store" / "a" / "b")
    write(tmp_path / "elsewhere" / "b" / "secret", "not yours")
    (tmp_path / "artefacts").mkdir()
    (tmp_path / "artefacts" / "a").symlink_to(tmp_path / "elsewhere")
    run = read(tmp_path / "store", tmp_path / "artefacts")["a/b"]
    assert [each.path for each in run.artefacts] == ["trainer_state.json"]
    assert ("artefacts", "symlink_skipped") in flags(run)


@pytest.mark.parametrize("text", ["[]", "{", '{"transformers_version": 5}', "{}"])
def test_a_configuration_that_does_not_tell_the_version_is_only_an_artefact(tmp_path, text):
    saved(tmp_path)
    write(tmp_path / "config.json", text)
    assert the_run(tmp_path).environment == {}


def test_a_file_a_run_and_a_folder_of_runs_can_be_given(tmp_path):
    whole = read(RUNS)["finished"]
    alone = the_run(RUNS / "finished")
    file = the_run(RUNS / "finished" / "trainer_state.json")
    assert whole.points == alone.points or repr(whole.points) == repr(alone.points)
    assert repr(file.points) == repr(alone.points)
    assert (alone.source.run_id, alone.name, file.name) == (".", "finished", "finished")
    assert [each.path for each in file.artefacts] == ["trainer_state.json"]
    shutil.copytree(RUNS / "broken" / "checkpoint-8", tmp_path / "only")
    assert the_run(tmp_path / "only").tags["global_step"] == "8"


def test_a_checkpoint_with_another_history_is_flagged(tmp_path):
    saved(tmp_path / "checkpoint-1", HISTORY[:1], global_step=1)
    saved(tmp_path / "checkpoint-2")
    assert ("metrics", "overwritten") not in flags(the_run(tmp_path))
    saved(tmp_path / "checkpoint-1", [{"step": 1, "loss": 9}], global_step=1)
    run = the_run(tmp_path)
    (detail,) = [each.detail for each in run.fidelity if each.flag == "overwritten"]
    assert detail.startswith("checkpoint-1/trainer_state.json")


def test_runs_come_by_name_and_reading_twice_gives_the_same():
    before = state(FIXTURES)
    with TrainerStateImporter().open(RUNS, experiment="runs", artefacts=None) as session:
        first, second = list(session), list(session)
    assert repr(first) == repr(second)
    assert [run.source.run_id for run in first] == ["broken", "finished", "second"]
    assert state(FIXTURES) == before


def test_detect_finds_states_and_does_not_raise(tmp_path):
    importer = find("trainer-state")
    assert importer.detect(tmp_path) == importer.detect(tmp_path / "absent") == ()
    for folder in (RUNS, RUNS / "broken", RUNS / "finished"):
        assert importer.detect(folder) == (folder,)
    assert importer.experiments(RUNS) == ("runs",)


@pytest.mark.parametrize(
    ("entry", "flag"),
    [
        ({"loss": 1.0}, ("metrics", "no_step")),
        ({"step": "1", "loss": 1.0}, ("metrics", "no_step")),
        ({"step": True, "loss": 1.0}, ("metrics", "no_step")),
        ({"step": 2**60, "loss": 1.0}, ("metrics", "no_step")),
        ("text", ("metrics", "no_step")),
        ({"step": 1, "loss": "0.5"}, ("metrics.loss", "not_a_number")),
        ({"step": 1, "loss": None}, ("metrics.loss", "not_a_number")),
        ({"step": 1, "loss": True}, ("metrics.loss", "not_a_number")),
        ({"step": 1, "loss": {"a": 1}}, ("metrics.loss", "not_a_number")),
    ],
)
def test_rows_that_hold_no_point_are_flagged(tmp_path, entry, flag):
    saved(tmp_path, [entry])
    run = the_run(tmp_path)
    assert run.points == ()
    assert flag in flags(run)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 5000])
def test_a_number_beyond_all_doubles_is_refused(tmp_path, number):
    write(tmp_path / "trainer_state.json", f'{{"log_history": [{{"step": 1, "a": {number}}}]}}')
    refused(tmp_path, "is too large")


def test_an_integer_of_many_digits_is_the_nearest_double(tmp_path):
    saved(tmp_path, [{"step": 1, "a": 10**30}])
    assert values(the_run(tmp_path)) == {("a", 1, "1e+30")}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "Expecting value at character 0"),
        ("[]", "no log_history"),
        ('{"log_history": {}}', "no log_history"),
        ('{"log_history": [}', "Expecting value at character 17"),
        ('{"log_history": [], "log_history": []}', "stands twice"),
        ('{"log_history": ' + "[" * 100_000, "nested too deeply"),
        (b'{"log_history": [\xff]}', "utf-8"),
    ],
)
def test_what_is_no_state_is_refused(tmp_path, text, match):
    write(tmp_path / "trainer_state.json", text)
    refused(tmp_path, match)


def test_bounds_hold(tmp_path, monkeypatch):
    saved(tmp_path)
    monkeypatch.setattr(trainer_state, "MAX_POINTS", 3)
    refused(tmp_path, "more than 3 metric points")
    monkeypatch.setattr(trainer_state, "MAX_STATE", 20)
    refused(tmp_path, "more than 20 bytes")


@pytest.mark.parametrize("store", ["absent", "empty"])
def test_what_holds_no_state_is_refused(tmp_path, store):
    (tmp_path / "empty").mkdir()
    assert "trainer_state.json" in refused(tmp_path / store, "no ").remedy


def test_a_place_that_cannot_be_looked_at_is_an_error_of_the_source(monkeypatch):
    def denied(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", denied)
    monkeypatch.setattr(Path, "is_dir", denied)
    refused(RUNS, "cannot be read: Permission denied")


def test_an_address_is_refused():
    with (
        pytest.raises(SourceError, match="no folder"),
        TrainerStateImporter().open("https://example.org", experiment=None, artefacts=None),
    ):
        pass


def test_a_state_that_is_a_link_is_not_read(tmp_path):
    saved(tmp_path / "elsewhere")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "trainer_state.json").symlink_to(
        tmp_path / "elsewhere" / "trainer_state.json"
    )
    refused(tmp_path / "store", "holds no trainer_state.json")


def test_a_state_that_went_away_is_an_error_of_the_source(tmp_path):
    with pytest.raises(SourceError, match="cannot be read"):
        trainer_state.read_state(tmp_path / "trainer_state.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4)
    ),
    max_leaves=12,
)


@FUZZ
@given(st.lists(JSON | st.fixed_dictionaries({"step": JSON, "loss": JSON}), max_size=4), JSON)
def test_any_history_gives_points_or_a_source_error(tmp_path_factory, history, value):
    folder = tmp_path_factory.mktemp("any")
    saved(
        folder, history, trial_params=value, best_metric=value, global_step=value, max_steps=value
    )
    survives(folder)


@FUZZ
@given(st.integers(0, len(STATE)), st.integers(0, 8), st.binary(max_size=12))
def test_a_changed_state_gives_points_or_a_source_error(tmp_path_factory, place, gone, junk):
    folder = tmp_path_factory.mktemp("changed")
    write(folder / "trainer_state.json", STATE[:place] + junk + STATE[place + gone :])
    survives(folder)


def survives(folder: Path) -> None:
    try:
        texts = [repr(run) for run in read(folder).values()]
    except SourceError as error:
        texts = [error.message, error.remedy]
    for text in texts:
        text.encode()
