"""MLflow's file store when it is odd, old, broken or hostile."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import pytest

from bundler.errors import SourceError
from bundler.importers.mlflow import MlflowImporter
from bundler.importers.model import ImportedRun

from . import pair_stores as stores


@pytest.fixture
def mlruns(tmp_path: Path) -> Path:
    return stores.copy_files(tmp_path)


def rich(mlruns: Path) -> ImportedRun:
    return stores.only(stores.read(mlruns), "baseline ü")


def refused(mlruns: Path, match: str) -> None:
    with pytest.raises(SourceError, match=match) as caught:
        stores.read(mlruns)
    assert caught.value.remedy


def replace_in(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")


def test_reading_leaves_no_trace(mlruns: Path) -> None:
    before = stores.snapshot(mlruns.parent)
    stores.read(mlruns)
    assert MlflowImporter().experiments(mlruns)
    assert MlflowImporter().detect(mlruns.parent) == (mlruns,)
    assert MlflowImporter().detect(mlruns) == (mlruns,)
    assert stores.snapshot(mlruns.parent) == before


def test_a_folder_without_mlflow_is_refused(tmp_path: Path, mlruns: Path) -> None:
    refused(tmp_path, "holds no MLflow experiment")
    (experiment,) = [path for path in mlruns.iterdir() if (path / "datasets").is_dir()]
    refused(experiment, "holds no MLflow experiment")  # one level too deep
    assert MlflowImporter().detect(experiment) == ()


@pytest.mark.parametrize(
    "text",
    [b"", b"a: [", b"\xff", b"- 1\n", b"experiment_id: [1]\n", b"a: 2024-13-45\n", b"? [a]\n: 1\n"],
)
def test_a_broken_experiment_is_refused(mlruns: Path, text: bytes) -> None:
    """Leaving it out would leave out its runs in silence."""
    (stores.rich_run(mlruns).parent / "meta.yaml").write_bytes(text)
    refused(mlruns, "does not describe an experiment")


def test_an_experiment_without_meta_is_refused_if_it_has_runs(mlruns: Path) -> None:
    (mlruns / "notes").mkdir()
    assert len(stores.read(mlruns)) == 7
    (stores.rich_run(mlruns).parent / "meta.yaml").unlink()
    refused(mlruns, "does not describe an experiment")


@pytest.mark.parametrize(
    "text", [None, b"", b"a: [", b"x: !!python/object:os.system {}\n", b"a: &a 1\nb: *a\n"]
)
def test_a_run_with_broken_meta_is_kept_and_flagged(mlruns: Path, text: bytes | None) -> None:
    meta = stores.rich_run(mlruns) / "meta.yaml"
    meta.unlink()
    if text is not None:
        meta.write_bytes(text)
    run = rich(mlruns)
    assert (run.status, run.started, run.deleted) == ("unknown", None, False)
    assert ("run", "unreadable") in stores.flags(run)
    assert run.parameters["lr"] == "0.1"
    assert stores.read(mlruns)[0] is not run
    assert stores.read(mlruns)[0].source.run_id == run.source.run_id


def test_a_run_folder_that_was_renamed_is_flagged(mlruns: Path) -> None:
    folder = stores.rich_run(mlruns)
    folder.rename(folder.with_name("copy"))
    run = rich(mlruns)
    assert run.source.run_id == "copy"
    assert ("run", "id_mismatch") in stores.flags(run)


def test_status_as_a_word_and_times_of_the_wrong_type(mlruns: Path) -> None:
    meta = stores.rich_run(mlruns) / "meta.yaml"
    replace_in(meta, "status: 3", "status: FINISHED")
    replace_in(meta, "end_time: ", "end_time: noon # ")
    run = rich(mlruns)
    assert (run.status, run.ended) == ("finished", None)
    replace_in(meta, "status: FINISHED", "status: [3]")
    assert rich(mlruns).status == "unknown"


def test_rows_of_metrics(mlruns: Path) -> None:
    file = stores.rich_run(mlruns) / "metrics" / "auc"
    file.write_bytes(
        b"10 0.5\n9 nan 1\nrubbish\n\n11 -inf 2\n12 1 x\n13 0.25 3 two words abc\n14 0.125 4"
    )
    run = rich(mlruns)
    points = [(p.timestamp, p.step, repr(p.value)) for p in run.points if p.metric == "auc"]
    assert points == [
        (9, 1, "nan"),
        (10, 0, "0.5"),
        (11, 2, "-inf"),
        (13, 3, "0.25"),
        (14, 4, "0.125"),
    ]
    details = {each.detail for each in run.fidelity if each.field == "metrics.auc"}
    assert details == {"line 3 is no point", "line 6 is no point", "line 8 may be cut", "1 points"}
    assert not math.isinf(points[0][0])


def test_a_row_that_lost_its_step_is_no_point(mlruns: Path) -> None:
    file = stores.rich_run(mlruns) / "metrics" / "auc"
    file.write_bytes(b"10 0.5 7\n11 0.2")
    run = rich(mlruns)
    assert [p.step for p in run.points if p.metric == "auc"] == [7]
    assert ("metrics.auc", "truncated") in stores.flags(run)


def test_texts_and_names_that_are_not_utf8(mlruns: Path) -> None:
    folder = stores.rich_run(mlruns)
    (folder / "params" / "lr").write_bytes(b"a\xff")
    Path(os.fsdecode(os.fsencode(folder / "tags") + b"/t\xfe")).write_text("x")
    (folder / "metrics" / "auc").write_bytes(b"1 0.5 1\n\xff\xfe\n")
    run = rich(mlruns)
    assert run.parameters["lr"] == "a\\xff"
    assert run.tags["t\\xfe"] == "x"
    assert {
        ("parameters.lr", "not_utf8"),
        ("tags", "not_utf8"),
        ("metrics.auc", "not_utf8"),
    } <= stores.flags(run)


def test_links_are_never_followed(mlruns: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    folder = stores.rich_run(mlruns)
    (folder / "params" / "stolen").symlink_to(secret / "key")
    (folder / "params" / "all").symlink_to(secret)
    shutil.rmtree(folder / "artifacts")
    (folder / "artifacts").symlink_to(secret)
    run = rich(mlruns)
    assert "secret" not in run.parameters.values()
    assert run.artefacts == ()
    assert {("parameters", "symlink_skipped"), ("artefacts", "symlink_skipped")} <= stores.flags(
        run
    )


def test_a_linked_run_or_experiment_is_refused(mlruns: Path, tmp_path: Path) -> None:
    folder = stores.rich_run(mlruns)
    (mlruns / "stale").symlink_to(tmp_path)  # leads to no meta.yaml
    assert len(stores.read(mlruns)) == 7
    moved = folder.rename(tmp_path / "moved")
    folder.symlink_to(moved)
    refused(mlruns, "is a link")
    assert not MlflowImporter().detect(folder.parent)


def test_a_linked_meta_is_not_read(mlruns: Path, tmp_path: Path) -> None:
    meta = stores.rich_run(mlruns) / "meta.yaml"
    meta.rename(tmp_path / "meta.yaml")
    meta.symlink_to(tmp_path / "meta.yaml")
    assert ("run", "unreadable") in stores.flags(rich(mlruns))


def test_broken_inputs_are_flagged(mlruns: Path) -> None:
    folder = stores.rich_run(mlruns)
    first, second, third = sorted((folder / "inputs").iterdir())
    (first / "meta.yaml").write_text("a: [")
    replace_in(second / "meta.yaml", "source_type: DATASET", "source_type: MODEL")
    replace_in(third / "meta.yaml", "source_id: ", "source_id: ../../")
    run = rich(mlruns)
    assert [each.rows for each in run.data] == [None]
    assert ("data", "unreadable") in stores.flags(run)
    assert sum(each.flag == "unreadable" for each in run.fidelity) == 2


def test_inputs_without_tags(mlruns: Path) -> None:
    for meta in (stores.rich_run(mlruns) / "inputs").glob("*/meta.yaml"):
        meta.write_text(meta.read_text("utf-8").replace("tags:", "tags: []\nother:"), "utf-8")
    assert [each.role for each in rich(mlruns).data] == [None, None, None]


def test_artefacts_on_a_server(mlruns: Path) -> None:
    """MLflow makes the run's own folder for them all the same, and leaves it empty."""
    folder = stores.rich_run(mlruns)
    names = [each.path for each in rich(mlruns).artefacts]
    meta = folder / "meta.yaml"
    (line,) = [
        line for line in meta.read_text("utf-8").splitlines() if line.startswith("artifact_uri")
    ]
    replace_in(meta, line, "artifact_uri: mlflow-artifacts:/7/run/artifacts")
    served = mlruns.parent / "mlartifacts" / "7" / "run"
    served.mkdir(parents=True)
    (folder / "artifacts").rename(served / "artifacts")
    (folder / "artifacts").mkdir()
    assert [each.path for each in rich(mlruns).artefacts] == names
    served.parents[1].rename(mlruns.parent / "elsewhere")
    run = rich(mlruns)
    assert run.artefacts == ()
    assert ("artefacts", "artefacts_unreachable") in stores.flags(run)
    run = stores.only(stores.read(mlruns, artefacts=mlruns.parent / "elsewhere"), "baseline ü")
    assert [each.path for each in run.artefacts] == names


def test_a_store_that_was_renamed_finds_its_own_files(mlruns: Path) -> None:
    moved = mlruns.rename(mlruns.with_name("copy of mlruns"))
    assert len(rich(moved).artefacts) == 4
    assert len(stores.only(stores.read(moved), "model").artefacts) == 2


@pytest.mark.parametrize("where", ["metrics", "inputs"])
def test_a_folder_that_cannot_be_listed_is_refused(
    mlruns: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir
    inside = str(stores.rich_run(mlruns)) if where == "inputs" else str(mlruns)

    def denied(path: object) -> object:
        if str(path) == (f"{inside}/inputs" if where == "inputs" else inside):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    refused(mlruns, "Permission denied")
    assert not (where == "metrics" and MlflowImporter().detect(mlruns))


def test_a_store_that_vanishes_is_refused(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir
    importer = MlflowImporter()
    with importer.open(mlruns, experiment=stores.EXPERIMENT, artefacts=None) as session:

        def denied(path: object) -> object:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "scandir", denied)
        with pytest.raises(SourceError, match="Input/output error"):
            list(session)
        monkeypatch.setattr(os, "scandir", scandir)
        assert len(list(session)) == 7
