from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bundler.config import load
from bundler.errors import GapsError, MalformedError, OutputError, SourceError, UsageError
from bundler.records import MetricPoint
from bundler.storage import open_bag
from bundler.verify import verify
from tests import tiny

NOTES = {
    "gap-recommended",
    "artefact-not-supplied",
    "mechanism-not-shown",
    "selection-better-run-constrained",
    "training-code-commit",
}
"""Notes about the tiny provider's honest bundle."""


def verified(path: Path) -> tuple[int, set[str]]:
    report = verify(
        lambda: open_bag(path), path.name, tiny.TRUST, clock=lambda: "2026-11-25T00:00:00.000Z"
    )
    return report.exit_code, {finding.code for finding in report.findings()}


def refused(provider, tmp_path, error=UsageError, **options):
    folder = tmp_path / "out"
    folder.mkdir(exist_ok=True)
    with pytest.raises(error) as caught:
        provider.build(folder / "bundle", **options)
    assert list(folder.iterdir()) == []
    assert caught.value.remedy
    return caught.value.message


@pytest.mark.parametrize("as_tar", [False, True])
def test_what_is_built_is_verified(as_tar, provider, tmp_path):
    built = provider.build(tmp_path / "b", as_tar=as_tar)
    assert verified(tmp_path / "b") == (0, NOTES)
    assert built.path == tmp_path / "b"
    assert built.files == 19
    assert [result.verdict for result in built.index.gate_results] == ["met", "met"]


# --- which run ------------------------------------------------------------------------------------------------------


def test_unknown_run(provider, tmp_path):
    provider.config["selection"]["run"] = "run-x"
    message = refused(provider, tmp_path)
    assert message == "selection.run 'run-x' means none of the 9 imported runs"


def test_named_by_its_name(provider, tmp_path):
    provider.config["selection"]["run"] = "name of run-c"
    assert provider.build(tmp_path / "b").index.selection.run == "run-c"
    assert (tmp_path / "b/data/artefacts/run-c/model.safetensors").exists()


def test_a_name_that_two_runs_have(provider, tmp_path):
    provider.edit("run-a", lambda run: replace(run, name="name of run-c"))
    provider.config["selection"]["run"] = "name of run-c"
    assert "means 2 of the 9" in refused(provider, tmp_path)


def test_an_id_comes_before_a_name(provider, tmp_path):
    provider.edit("run-a", lambda run: replace(run, name="run-c"))
    assert provider.build(tmp_path / "b").index.selection.run == "run-c"
    assert verified(tmp_path / "b")[0] == 0


def test_no_runs_at_all(provider, tmp_path):
    provider.runs = []
    assert "none of the 0" in refused(provider, tmp_path)


# --- sources --------------------------------------------------------------------------------------------------------


def test_unknown_tracker(provider, tmp_path):
    provider.config["sources"][0]["tracker"] = "excel"
    with pytest.raises(UsageError, match="no importer for 'excel'"):
        provider.build(tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_missing_store(provider, tmp_path):
    provider.config["sources"][0] = {"tracker": "mlflow", "store": "missing.db"}
    assert "missing.db" in refused(provider, tmp_path, SourceError)


def test_a_source_listed_twice(provider, tmp_path):
    provider.config["sources"] = [dict(provider.config["sources"][0]) for _ in range(2)]
    assert "is imported twice" in refused(provider, tmp_path, SourceError)


def test_two_sources_with_the_same_ids(provider, tmp_path):
    """Numbers as ids are unique in one log only; the second run of that id gets one that is derived."""
    twin = replace(provider.runs[0], source=replace(provider.runs[0].source, experiment_id="2"))
    provider.add(twin)
    provider.build(tmp_path / "b")
    folders = sorted(path.name for path in (tmp_path / "b/data/runs").iterdir())
    assert len(folders) == 10
    assert len([name for name in folders if len(name) == 28 and name.startswith("run-")]) == 1
    assert verified(tmp_path / "b")[0] == 0


@pytest.mark.parametrize("run_id", ["../../x", "", "a b", "ä", "x" * 65, ".hidden", "RUN-C", "a/b"])
def test_ids_that_cannot_name_a_folder(run_id, provider, tmp_path):
    provider.edit("run-a", lambda run: replace(run, source=replace(run.source, run_id=run_id)))
    built = provider.build(tmp_path / "b")
    assert built.files == 19
    assert verified(tmp_path / "b")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "provider"]


@pytest.mark.parametrize(
    "change",
    [
        lambda run: replace(run, points=(*run.points, MetricPoint("step", 2**60, 0, 1.0))),
        lambda run: replace(run, points=(*run.points, MetricPoint("\ud800", 0, 0, 1.0))),
        lambda run: replace(run, tags={"x": "\udcff"}),
    ],
)
def test_values_that_a_record_cannot_carry_are_named(change, provider, tmp_path):
    provider.edit("run-b", change)
    assert "run run-b" in refused(provider, tmp_path, SourceError)


# --- artefacts --------------------------------------------------------------------------------------------------------


def with_artefact(provider, run_id, path, file):
    def add(run):
        first = run.artefacts[0]
        return replace(run, artefacts=(*run.artefacts, replace(first, path=path, file=file)))

    provider.edit(run_id, add)


def artefacts_of(folder, run_id="run-c"):
    lines = (folder / "data/records.jsonl").read_text().splitlines()
    runs = {each["run"]["id"]: each["run"] for each in map(json.loads, lines)}
    return {each["path"]: each for each in runs[run_id]["artefacts"]}


def test_a_missing_artefact_is_recorded_as_missing(provider, tmp_path):
    with_artefact(provider, "run-c", "gone.bin", None)
    provider.build(tmp_path / "b")
    assert artefacts_of(tmp_path / "b")["gone.bin"] == {
        "path": "gone.bin",
        "sha256": None,
        "size": None,
    }
    assert verified(tmp_path / "b")[0] == 0


def test_a_missing_model_is_a_gap(provider, tmp_path):
    provider.edit(
        "run-a",
        lambda run: replace(
            run, artefacts=tuple(replace(each, file=None) for each in run.artefacts)
        ),
    )
    codes = {gap.code for gap in provider.build(tmp_path / "b").index.gaps}
    assert {"run-model", "run-environment"} <= codes


def test_an_artefact_that_cannot_be_read(provider, tmp_path):
    with_artefact(provider, "run-a", "folder", provider.root)
    message = refused(provider, tmp_path, SourceError)
    assert "cannot be read: Is a directory" in message


def test_an_environment_that_cannot_be_read(provider, tmp_path, monkeypatch):
    def change(run):
        rest = tuple(each for each in run.artefacts if each.path != "environment.json")
        return replace(
            run,
            artefacts=(
                replace(run.artefacts[0], path="environment.json", file=provider.root),
                *rest,
            ),
        )

    monkeypatch.setattr("bundler.intake.Intake._artefact", lambda *_: tiny_artefact())
    provider.edit("run-a", change)
    assert "cannot be read" in refused(provider, tmp_path, SourceError)


def tiny_artefact():
    from bundler.records import Artefact

    return Artefact(path="x", sha256=None, size=None)


@pytest.mark.parametrize(
    "name", ["../../../escape", "/abs/olute", "modèle finale.pt", "a\nb", "d/" * 14 + "x"]
)
def test_artefact_names_that_a_bag_cannot_hold(name, provider, tmp_path):
    file = provider.root / "odd.bin"
    file.write_bytes(b"odd")
    with_artefact(provider, "run-c", name, file)
    provider.build(tmp_path / "b")
    digest = artefacts_of(tmp_path / "b")[name]["sha256"]
    assert (tmp_path / "b/data/artefacts/run-c" / digest).read_bytes() == b"odd"
    assert verified(tmp_path / "b")[0] == 0
    assert not (tmp_path / "escape").exists()


def test_artefacts_that_differ_by_case_alone(provider, tmp_path):
    file = provider.root / "odd.bin"
    file.write_bytes(b"odd")
    with_artefact(provider, "run-c", "MODEL.safetensors", file)
    provider.build(tmp_path / "b")
    assert len(artefacts_of(tmp_path / "b")) == 3
    assert len(list((tmp_path / "b/data/artefacts/run-c").iterdir())) == 2
    assert verified(tmp_path / "b")[0] == 0


def test_an_artefact_that_changes_while_it_is_read(provider, tmp_path, monkeypatch):
    from bundler import intake

    def changed(source, target):
        target.write(source.read())
        return "0" * 64

    monkeypatch.setattr(intake, "copy_and_digest", changed)
    assert "changed while it was being read" in refused(provider, tmp_path, SourceError)


def test_a_full_disk_while_an_artefact_is_copied_is_no_fault_of_the_artefact(
    provider, tmp_path, monkeypatch
):
    from bundler import intake

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(intake, "copy_and_digest", full)
    message = refused(provider, tmp_path, OutputError)
    assert "No space left on device" in message
    assert "cannot be read" not in message


@pytest.mark.parametrize(("embed", "files"), [("selected", 2), ("all", 16), ("none", 0)])
def test_what_is_embedded(embed, files, provider, tmp_path):
    provider.config["embed"] = embed
    built = provider.build(tmp_path / "b")
    folder = tmp_path / "b/data/artefacts"
    assert len([path for path in folder.rglob("*") if path.is_file()]) == files
    assert ("tensors-missing" in {gap.code for gap in built.index.gaps}) is (embed == "none")
    assert verified(tmp_path / "b")[0] == 0


# --- target -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_tar", [False, True])
def test_an_existing_target_is_left_alone(as_tar, provider, tmp_path):
    target = tmp_path / "b"
    target.write_text("mine")
    with pytest.raises(OutputError, match="never overwritten"):
        provider.build(target, as_tar=as_tar)
    assert target.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "provider"]


@pytest.mark.parametrize("as_tar", [False, True])
@pytest.mark.parametrize(
    "step",
    [
        "bundler.build.sign_payload",
        "bundler.build.ship_training",
        "bundler.build.judge",
        "bundler.intake.record_of",
    ],
)
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_behind(error, step, as_tar, provider, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(step, fail)
    folder = tmp_path / "out"
    folder.mkdir()
    expected = OutputError if isinstance(error, OSError) and "intake" not in step else type(error)
    with pytest.raises((expected, OutputError)):
        provider.build(folder / "bundle", as_tar=as_tar)
    assert list(folder.iterdir()) == []


def test_paths_that_differ_by_case_alone_are_refused(provider, tmp_path):
    (provider.root / "x.csv").write_bytes(tiny.DATA)
    provider.config["training"]["inputs"] = {"data": "x.csv", "Data": "x.csv"}
    assert "differ only by upper and lower case" in refused(provider, tmp_path)


# --- previous ---------------------------------------------------------------------------------------------------------


def log(folder: Path) -> list[str]:
    return [
        json.loads(line)["run"]["id"]
        for line in (folder / "data/records.jsonl").read_text().splitlines()
    ]


@pytest.fixture
def first(provider, tmp_path) -> Path:
    provider.build(tmp_path / "first")
    provider.config["system"]["version"] = "2.0.0"
    return tmp_path / "first"


def test_the_log_goes_on(provider, tmp_path, first):
    provider.add(
        tiny.make_run(
            "run-new", provider.commit, provider.root / "artefacts", rate="7", val_auc=0.5
        )
    )
    built = provider.build(tmp_path / "second", previous=first)
    assert log(tmp_path / "second") == [*log(first), "run-new"]
    old, new = (folder / "data/records.jsonl" for folder in (first, tmp_path / "second"))
    assert new.read_bytes().startswith(old.read_bytes())
    assert built.index.previous.version == "1.0.0"
    assert built.index.previous.log.size == 9
    assert verified(tmp_path / "second")[0] == 0


def test_nothing_new_adds_no_line(provider, tmp_path, first):
    provider.build(tmp_path / "second", previous=first)
    assert log(tmp_path / "second") == log(first)
    assert verified(tmp_path / "second")[0] == 0


def test_a_previous_archive(provider, tmp_path):
    provider.build(tmp_path / "first.tar", as_tar=True)
    provider.build(tmp_path / "second", previous=tmp_path / "first.tar")
    assert verified(tmp_path / "second")[0] == 0


def test_an_edited_run_is_an_amendment(provider, tmp_path, first):
    provider.edit("run-a", lambda run: replace(run, tags={**run.tags, "note": "renamed"}))
    provider.build(tmp_path / "second", previous=first)
    assert log(tmp_path / "second")[-1] == "run-a"
    assert verified(tmp_path / "second") == (
        0,
        {*NOTES, "log-amended"},
    )


def test_a_better_run_cannot_be_edited_away(provider, tmp_path):
    """Release 1 shows a run that beats the selected one; release 2 says that its value was another."""
    provider.add(
        tiny.make_run(
            "run-best", provider.commit, provider.root / "artefacts", rate="7", val_auc=0.9
        )
    )
    provider.build(tmp_path / "first")
    assert "selection-better-run" in verified(tmp_path / "first")[1]
    provider.edit("run-best", lambda run: tiny.with_value(run, "val_auc", 0.5))
    provider.build(tmp_path / "second", previous=tmp_path / "first")
    code, codes = verified(tmp_path / "second")
    assert "log-result-amended" in codes
    assert code != 0


def test_a_run_that_vanished_is_carried_over(provider, tmp_path, first):
    provider.runs = [run for run in provider.runs if run.source.run_id != "run-d"]
    provider.build(tmp_path / "second", previous=first)
    assert "run-d" in log(tmp_path / "second")
    assert (tmp_path / "second/data/runs/run-d/metrics.csv").exists()
    assert verified(tmp_path / "second")[0] == 0


def test_a_better_run_that_vanished_still_competes(provider, tmp_path):
    provider.add(
        tiny.make_run(
            "run-best", provider.commit, provider.root / "artefacts", rate="7", val_auc=0.9
        )
    )
    provider.build(tmp_path / "first")
    provider.runs = provider.runs[:-1]
    provider.build(tmp_path / "second", previous=tmp_path / "first")
    assert "selection-better-run" in verified(tmp_path / "second")[1]


def test_a_broken_previous_bundle(provider, tmp_path, first):
    file = first / "data/records.jsonl"
    file.write_bytes(file.read_bytes()[:-5])
    assert "is not intact" in refused(provider, tmp_path, MalformedError, previous=first)
    assert "is not intact" in refused(
        provider, tmp_path, MalformedError, previous=tmp_path / "missing"
    )


def test_the_log_of_another_system(provider, tmp_path, first):
    provider.config["system"]["name"] = "other"
    message = refused(provider, tmp_path, UsageError, previous=first)
    assert "'tiny-scoring'" in message
    assert "'other'" in message


# --- the whole file ----------------------------------------------------------------------------------------------------


def test_the_configuration_is_found_beside_its_paths(provider, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(provider.write_config()).training.code == "repository"
    provider.build(Path("relative"))
    assert verified(tmp_path / "relative")[0] == 0


# --- what a verifier will find --------------------------------------------------------------------------------------


def test_an_honest_build_has_no_findings(provider, tmp_path):
    assert provider.build(tmp_path / "b").findings == ()


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (lambda config: config["training"].update(inputs={}), "training-data"),
        (lambda config: config["selection"].update(metric="nope"), "selection-run-ineligible"),
        (lambda config: config["gates"][0].update(metric="nope"), "gate-unknown-metric"),
        (lambda config: config["gates"][0].update(threshold=0.99), "gate-not-met"),
        (
            lambda config: config["reproducibility"]["tolerances"][0].update(metric="nope"),
            "tolerance-unknown-metric",
        ),
    ],
)
def test_what_a_verifier_would_not_accept_is_said_and_strict_refuses_it(
    edit, code, provider, tmp_path
):
    edit(provider.config)
    assert code in {finding.code for finding in provider.build(tmp_path / "b").findings}
    assert "would not accept" in refused(provider, tmp_path, GapsError, strict=True)


def test_a_fact_map_may_change_between_releases(provider, tmp_path):
    provider.build(tmp_path / "one")
    provider.runs = [run for run in provider.runs if run.source.run_id != "run-a"]
    provider.config["facts"]["metrics"]["training"] = []
    built = provider.build(tmp_path / "two", previous=tmp_path / "one")
    assert built.findings == ()
    code, codes = verified(tmp_path / "two")
    assert code == 0
    assert "history-roles" in codes


def test_a_fact_that_becomes_known_is_no_amendment_of_a_result(provider, tmp_path):
    del provider.config["facts"]["data_sha256"]
    provider.build(tmp_path / "one")
    provider.config["facts"]["data_sha256"] = "tags.data.sha256"
    built = provider.build(tmp_path / "two", previous=tmp_path / "one")
    assert built.findings == ()


@pytest.mark.parametrize("seed", ["007", "+7", " 7 "])
def test_a_seed_may_be_spelled_in_any_way_that_is_read(seed, provider, tmp_path):
    provider.edit("run-c1", lambda run: replace(run, parameters={**run.parameters, "seed": seed}))
    assert provider.build(tmp_path / "b").findings == ()


# --- container images -----------------------------------------------------------------------------------------------

IMAGES = Path(__file__).parents[1] / "fixtures" / "images"


def test_the_identity_of_an_image_is_in_the_bundle(provider, tmp_path):
    provider.config["images"] = [{"path": str(IMAGES / "oci-archive.tar")}]
    (image,) = provider.build(tmp_path / "b").index.images
    assert image.resolved
    assert image.supplied
    assert image.manifest_digest != image.config_digest


def test_an_image_by_tag_alone_is_a_gap(provider, tmp_path):
    provider.config["images"] = [{"reference": "registry.example.org/train:1.0"}]
    built = provider.build(tmp_path / "b")
    assert not built.index.images[0].resolved
    assert "image-unresolved" in {gap.code for gap in built.index.gaps}


def test_an_image_that_is_nowhere_is_an_error(provider, tmp_path):
    provider.config["images"] = [{"path": "nowhere.tar"}]
    with pytest.raises(SourceError, match="nowhere"):
        provider.build(tmp_path / "b")


def test_an_image_without_path_and_name_is_refused(provider, tmp_path):
    provider.config["images"] = [{"platform": "linux/amd64"}]
    with pytest.raises(UsageError, match="neither path nor reference"):
        provider.build(tmp_path / "b")
