"""Everything that wandb's own code reads from real record logs of three versions (expected.json), we read."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path

import pytest

from bundler.errors import SourceError
from bundler.importers.wandb import WandbImporter
from bundler.importers.wandb.datastore import RecordLog
from bundler.importers.wandb.staging import Places
from tests.unit.importers.support import state
from tests.unit.importers.wandb_records import (
    EXPECTED,
    FIXTURES,
    VERSIONS,
    fixture,
    flags,
    read,
    values,
)

LOGS = pytest.mark.parametrize("path", sorted(EXPECTED))
EACH = pytest.mark.parametrize("version", VERSIONS)
WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@LOGS
def test_the_records_are_those_of_wandbs_own_reader(path):
    expected = EXPECTED[path]
    log = RecordLog(FIXTURES / path)
    digest, count = hashlib.sha256(), 0
    for _, data in log.records():
        digest.update(len(data).to_bytes(4, "big") + data)
        count += 1
    assert (count, digest.hexdigest()) == (expected["records"], expected["sha256"])


def ours(path: str):
    folder = (FIXTURES / path).parents[1]
    return {run.source.run_id: run for run in read(folder)}[EXPECTED[path]["run"]["id"]]


def theirs_flat(name: str, value):
    """Numbers in a value of JSON, with their dotted names."""
    if isinstance(value, dict) and "_type" not in value:
        return [
            found for key, inner in value.items() for found in theirs_flat(f"{name}.{key}", inner)
        ]
    if isinstance(value, str) and value in WORDS:
        return [(name, WORDS[value])]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return []
    return [(name, float(value))]


def theirs(path: str):
    """(metric, step, milliseconds, value) of all items of the history."""
    found = []
    for row in EXPECTED[path]["history"]:
        media = {tuple(name[:-1]) for name, *_ in row["items"] if name[-1] == "_type"}
        texts = {name[0]: text for name, text, *_ in row["items"] if len(name) == 1}
        time = int(float(texts["_timestamp"]) * 1000)
        for name, text, *typed in row["items"]:
            if name[0].startswith("_") or text == "..." or tuple(name[:-1]) in media:
                continue
            if typed[:1] == ["text"]:
                continue  # a text, whatever it says
            flat = theirs_flat(".".join(name), json.loads(text))
            found += [(metric, row["step"], time, repr(value)) for metric, value in flat]
    return sorted(found)


@pytest.mark.parametrize(
    "path", sorted(path for path in EXPECTED if EXPECTED[path]["run"] and "resumed" not in path)
)
def test_every_point_is_that_of_wandb_to_the_last_bit(path):
    run = ours(path)
    added = {name.removeprefix("metrics.") for name, flag in flags(run) if flag == "from_summary"}
    mine = [
        (p.metric, p.step, p.timestamp, repr(p.value)) for p in run.points if p.metric not in added
    ]
    assert sorted(mine) == theirs(path)
    assert mine == [
        tuple(each) for each in sorted(mine, key=lambda each: (each[0], each[2], each[1]))
    ]


@pytest.mark.parametrize("path", sorted(path for path in EXPECTED if EXPECTED[path]["run"]))
def test_the_run_is_that_of_wandb(path):
    run, expected = ours(path), EXPECTED[path]
    said = expected["run"]
    assert run.name == said["name"]
    assert run.source.experiment == said["project"]
    assert (run.source.tracker, run.source.store) == ("wandb", "files")
    assert run.code.repository == said["remote"]
    assert run.code.commit == said["commit"]
    assert run.tags == {
        "entity": said["entity"],
        "group": said["group"],
        "job_type": said["job_type"],
        "notes": said["notes"],
        "tags": ", ".join(said["tags"]),
    }
    assert run.environment["python"] == said["python"]
    assert run.environment["wandb"] == said["wandb"]
    assert run.environment["host"] == said["host"]
    assert run.status == {None: "unknown", 0: "finished", 1: "failed"}[expected["exit"]]
    if "resumed" not in path:
        assert run.started == said["started"]


@pytest.mark.parametrize("path", sorted(path for path in EXPECTED if EXPECTED[path]["run"]))
def test_every_parameter_is_what_wandb_was_told_with_its_type(path):
    tuned = "tuned" in path
    expected = {
        "lr": 0.05 if tuned else 0.1,
        "seed": 7,
        "layers": 3 if tuned else 2,
        "note": "plain",
        "one": 1.0,
        "optimizer.name": "adam",
        "optimizer.betas": "[0.9,0.999]",
        "optimizer.extra": "{}",
        "flag": True,
        "none": None,
        "nan": None,
        "inf": math.inf,
        "big": 2**60 + 1,
        "late": 3,
    }
    assert {name: repr(value) for name, value in ours(path).parameters.items()} == {
        name: repr(value) for name, value in expected.items()
    }


@EACH
def test_every_summary_value_is_a_metric_or_agrees_with_one(version):
    run = fixture(f"tuned-{version.replace('.', '')}")
    assert values(run, "threshold") == [0.5]
    assert values(run, "holdout_accuracy.max") == [0.875]
    found = flags(run)
    assert found["metrics.train_loss", "summary_differs"] == "the summary says 0.125"
    assert ("metrics.threshold", "from_summary") in found
    assert ("metrics.val_loss", "summary_differs") not in found
    last = max(p.step for p in run.points)
    assert [p.step for p in run.points if p.metric == "threshold"] == [last]


@EACH
def test_nan_and_infinities_are_real_values(version):
    run = fixture(f"baseline-{version.replace('.', '')}")
    assert repr(values(run, "val_loss")) == "[1.0, 1.0, nan, inf, 1.0]"
    assert values(run, "größe") == [-math.inf]
    assert math.isnan(values(run, "nested.b.d")[0])
    assert math.isnan(values(run, "nan_text")[0])
    assert flags(run)["metrics.nan_text", "number_as_text"] == "1 points"


@EACH
def test_what_wandb_did_to_values_is_flagged(version):
    run = fixture(f"baseline-{version.replace('.', '')}")
    model = hashlib.md5(bytes(range(16))).hexdigest()
    assert flags(run) == {
        ("artefacts", "md5_only"): f"artifacts/model/model.bin: md5 {model}",
        ("artefacts", "not_staged_here"): Places().advice,
        ("metrics.big", "type_lost"): "1 points",
        ("metrics.flag", "not_a_number"): "1 points",
        ("metrics.list", "not_a_number"): "1 points",
        ("metrics.nan_text", "number_as_text"): "1 points",
        ("metrics.nothing", "not_a_number"): "1 points",
        ("metrics.word", "not_a_number"): "1 points",
        ("parameters.nan", "null_ambiguous"): "W&B writes NaN as null too",
        ("parameters.none", "null_ambiguous"): "W&B writes NaN as null too",
    }


@EACH
def test_logs_to_one_step_are_one_row_and_an_earlier_step_is_gone(version):
    run = fixture(f"baseline-{version.replace('.', '')}")
    # x was 1, then 5, then 6 at step 10; z was logged to step 3 afterwards.
    assert [(p.step, p.value) for p in run.points if p.metric in {"x", "y"}] == [
        (10, 6.0),
        (10, 2.0),
    ]
    assert values(run, "z") == []


def test_a_float_that_wandb_rewrote_as_an_integer_is_kept_and_flagged():
    found = flags(fixture("tuned-031"))
    assert ("parameters.one", "type_lost") in found
    assert [name for name, flag in flags(fixture("tuned-017")) if flag == "type_lost"] == []


def test_typed_fields_win_over_text():
    run = fixture("typed-031")
    assert values(run, "huge") == [1e300]
    assert values(run, "nan_text") == []
    assert flags(run)["metrics.nan_text", "not_a_number"] == "1 points"
    assert [p.value for p in run.points if p.metric == "val_loss"][3] == math.inf


@EACH
def test_uncommitted_changes_are_a_patch(version):
    short = version.replace(".", "")
    code = fixture(f"tuned-{short}").code
    assert (code.dirty, code.patch, code.entry_point) == (True, "diff.patch", "train.py")
    code = fixture(f"baseline-{short}").code
    # Without `save_code` nothing is recorded: unknown is not clean.
    assert (code.dirty, code.patch) == (None, None)


@EACH
def test_a_logged_data_set_has_its_md5_and_a_reference_its_place(version):
    (own, other) = fixture(f"tuned-{version.replace('.', '')}").data
    md5 = hashlib.md5(b"a,b\n1,2\n").hexdigest()
    assert (own.name, own.tracker_digest, own.source) == (
        "credit-data/data.csv",
        f"md5:{md5}",
        None,
    )
    assert (other.name, other.tracker_digest) == ("credit-data/more.csv", None)
    assert other.source == "https://example.org/more.csv"
    assert (own.sha256, other.sha256) == (None, None)


@EACH
def test_a_data_set_whose_bytes_are_there_has_their_sha256(version):
    runs = read(FIXTURES / version / "wandb", None, FIXTURES / version / "staging")
    (own, other) = next(run for run in runs if run.name == "tuned").data
    assert own.sha256 == hashlib.sha256(b"a,b\n1,2\n").hexdigest()
    assert other.sha256 is None


@EACH
def test_the_model_is_found_by_its_md5_and_else_is_a_gap(version, tmp_path):
    store, short = FIXTURES / version / "wandb", version.replace(".", "")

    def model(artefacts):
        runs = read(store, None, artefacts)
        (run,) = [each for each in runs if each.source.run_id == f"baseline-{short}"]
        (found,) = [each for each in run.artefacts if each.path == "artifacts/model/model.bin"]
        return found.file, flags(run)

    assert model(None)[0] is None
    staged, found = model(FIXTURES / version / "staging")
    assert staged.read_bytes() == bytes(range(16))
    assert ("artefacts", "md5_only") not in found
    (tmp_path / "model.bin").write_bytes(b"another")
    assert model(tmp_path)[0] is None
    assert model(tmp_path)[1]["artefacts", "other_content"].startswith("model.bin")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.bin").write_bytes(bytes(range(16)))
    assert model(tmp_path)[0] == tmp_path / "model" / "model.bin"


@EACH
def test_files_beside_the_log_are_artefacts(version):
    paths = [each.path for each in fixture(f"tuned-{version.replace('.', '')}").artefacts]
    assert "diff.patch" in paths
    assert any(path.startswith("media/table/") for path in paths)
    assert "artifacts/credit-data/data.csv" in paths
    assert "artifacts/credit-data/more.csv" not in paths  # a reference is no file


def test_environment_is_recorded_under_our_names():
    for name in ("baseline-017", "baseline-019", "baseline-031"):
        found = fixture(name).environment
        assert found["platform"] == "Linux-6.1.0-x86_64-with-glibc2.36"
        assert found["program"] == "/fixture/train.py"
        assert (found["user"], found["email"]) == ("fixture", "team@example.org")
    assert fixture("baseline-031").environment["packages.click"]


def test_a_killed_run_is_kept_with_what_was_flushed():
    for name, points in (("killed-017", 12), ("killed-019", 13), ("killed-031", 2)):
        run = fixture(name)
        assert (run.status, run.ended) == ("unknown", None)
        assert ("run", "no_exit_record") in flags(run)
        assert len(values(run, "train_loss")) == points
    assert flags(fixture("killed-017"))["run", "truncated_file"].startswith(
        "run-killed-017.wandb: cut off at byte "
    )
    assert ("run", "truncated_file") not in flags(fixture("killed-031"))


def test_a_run_that_was_killed_before_anything_was_flushed_is_still_a_run():
    run = fixture("lost-031")
    assert (run.name, run.status, run.started, run.points) == (None, "unknown", None, ())
    assert flags(run)["run", "truncated_file"] == (
        "run-lost-031.wandb: cut off before its first record of the run"
    )
    assert [each.path for each in run.artefacts] == ["requirements.txt"]


def test_a_resumed_run_is_one_run():
    run = fixture("resumed-031")
    assert run.status == "finished"
    assert len(values(run, "train_loss")) == 4
    assert flags(run)["metrics.train_loss", "duplicate_step"] == "2 points"
    first, second = [path for path in sorted(EXPECTED) if "resumed" in path]
    assert flags(run)["run", "resumed"] == f"{Path(first).parent.name}, {Path(second).parent.name}"
    assert run.started == EXPECTED[first]["run"]["started"]
    assert run.ended > EXPECTED[second]["run"]["started"]
    folder = Path(first).parent.name
    assert [each.path for each in run.artefacts] == [
        "artifacts/model.2/model.bin",
        "artifacts/model/model.bin",
        f"{folder}/output.log",
        f"{folder}/requirements.txt",
        "output.log",
        "requirements.txt",
    ]


@EACH
def test_runs_are_in_order_of_start_and_read_alike_twice(version, tmp_path):
    store = tmp_path / "wandb"
    shutil.copytree(FIXTURES / version / "wandb", store)
    newest = max(store.iterdir())
    (store / "latest-run").symlink_to(newest.name)
    before = state(store)
    runs = read(store)
    assert [(run.started or 0, run.source.run_id) for run in runs] == sorted(
        (run.started or 0, run.source.run_id) for run in runs
    )
    assert repr(read(store)) == repr(runs)
    assert state(store) == before
    assert WandbImporter().experiments(store) == ("credit-scoring",)
    assert WandbImporter().detect(tmp_path) == (store,)
    assert WandbImporter().detect(store) == (store,)


@EACH
def test_a_log_a_run_folder_and_the_folder_of_all_give_the_same_run(version):
    store = FIXTURES / version / "wandb"
    short = version.replace(".", "")
    (log,) = store.glob(f"*/run-tuned-{short}.wandb")
    whole = fixture(f"tuned-{short}")
    assert repr(read(log)) == repr(read(log.parent)) == repr([whole])
    assert repr(read(store.parent)) == repr(read(store))


def test_a_flipped_byte_anywhere_in_a_real_log_is_noticed(tmp_path):
    (log,) = (FIXTURES / "0.31" / "wandb").glob("*/run-crashed-031.wandb")
    data = log.read_bytes()
    copy = tmp_path / "run-crashed-031.wandb"
    for place in range(0, len(data), 3):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        copy.write_bytes(changed)
        with pytest.raises(SourceError, match="is damaged at byte") as error:
            read(copy)
        assert str(copy) in error.value.message


def test_every_cut_of_a_real_log_is_kept_and_flagged_or_ends_with_a_record(tmp_path):
    (log,) = (FIXTURES / "0.31" / "wandb").glob("*/run-crashed-031.wandb")
    data = log.read_bytes()
    ends = {offset for offset, _ in RecordLog(log).records()}
    copy = tmp_path / "run-crashed-031.wandb"
    for length in range(0, len(data), 3):
        copy.write_bytes(data[:length])
        (run,) = read(copy)
        assert run.status == "unknown"
        assert run.source.run_id == "crashed-031"
        found = flags(run)
        assert ("run", "no_exit_record") in found
        assert (("run", "truncated_file") in found) == (length not in ends or not run.name)


def test_the_fixture_is_small_and_names_no_machine():
    files = [path for path in FIXTURES.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 250_000
    for path in files:
        data = path.read_bytes().replace(b"/fixture/data/artifacts/staging/tmp", b"")
        assert not [word for word in (b"/root", b"/home", b"/work", b"api_key") if word in data]
