"""Re-execution with the real sandbox and a training script that uses nothing but the standard library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from bundler import importers, sandbox, storage
from bundler.errors import EnvironmentNotRecreatableError, MalformedError, SandboxUnavailableError
from bundler.importers.model import ArtefactFile, MetricPoint
from bundler.progress import Silence
from bundler.rerun import Reexecution
from bundler.session import RerunOptions
from bundler.staging import stage
from bundler.verify import verify
from tests import tiny

TRAIN = """\
import json, pathlib, struct, sys
seed, rate, out = int(sys.argv[1]), float(sys.argv[2]), pathlib.Path(sys.argv[3])
out.mkdir(parents=True)
weights = [float(i * seed) for i in range(6)]
tensors = {"bias": ([3], weights[:3]), "weight": ([2, 3], weights)}
header, data = {}, b""
for name, (shape, values) in tensors.items():
    raw = struct.pack(f"<{len(values)}f", *values)
    header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
    data += raw
text = json.dumps(header).encode()
(out / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
(out / "environment.json").write_text('{"python":"3.11.7","threads":1}')
(out / "result.json").write_text(json.dumps({"seed": seed, "rate": sys.argv[2]}))
"""


class ReadsBack(tiny.FakeImporter):
    """The fake tracker, which also reads what :data:`TRAIN` left."""

    change = staticmethod(lambda run: run)

    @contextmanager
    def open(self, store: Path, *, experiment, artefacts):
        if not (store / "result.json").exists():
            with super().open(store, experiment=experiment, artefacts=artefacts) as runs:
                yield runs
            return
        result = json.loads((store / "result.json").read_text())
        declared = next(run for run in tiny.FakeImporter.runs if run.source.run_id == "run-c")
        files = tuple(
            ArtefactFile(path=name, file=store / name)
            for name in ("environment.json", "model.safetensors")
        )
        parameters = {**declared.parameters, "seed": str(result["seed"]), "rate": result["rate"]}
        yield [self.change(replace(declared, artefacts=files, parameters=parameters))]


@pytest.fixture
def trainer(provider: tiny.Provider, monkeypatch):
    """An honest provider whose training can be repeated; ``trainer.rerun()`` builds, verifies and re-runs."""
    monkeypatch.setattr(importers, "find", lambda name, built_in_only=False: ReadsBack())
    return Trainer(provider)


class Trainer:
    def __init__(self, provider: tiny.Provider) -> None:
        self.provider = provider
        self.script(TRAIN)

    def script(self, text: str) -> None:
        repository = self.provider.root / "repository"
        (repository / "train.py").write_text(text)
        (repository / "requirements.txt").write_text(f"safetensors=={version('safetensors')}\n")
        git = ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run([*git, "commit", "-qam", "again"], check=True)
        done = subprocess.run(
            [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
        )
        commit = done.stdout.strip()
        # As short as the script: a re-run in a tenth of the recorded time is suspicious.
        self.provider.runs = [
            replace(run, code=replace(run.code, commit=commit), ended=run.started + 100)
            for run in self.provider.runs
        ]

    def rerun(self, **options):
        """Build, verify, re-run."""
        target = self.provider.root / "bundle"
        self.provider.build(target)
        options = {"runs": 0, "state": self.provider.root / "state", **options}
        how = RerunOptions(python=Path(sys.executable), **options)
        return verify(
            lambda: storage.open_bag(target),
            "bundle",
            tiny.TRUST,
            clock=lambda: "2026-01-01T00:00:00.000Z",
            rerunner=Reexecution(how, Silence(), clock=lambda: "2026-01-01T00:00:00.000Z"),
        )


def findings(report):
    return {finding.code: finding for finding in report.findings() if finding.severity != "note"}


def test_the_same_bits_are_bitwise_and_meet_the_claim(trainer):
    report = trainer.rerun()
    assert report.exit_code == 0
    assert report.claim("reproduction").status == "met"
    (rerun,) = report.reruns
    assert rerun.verdict == "bitwise"
    assert [tensor.tensor for tensor in rerun.tensors] == ["bias", "weight"]
    assert rerun.isolation["kind"] in {"bubblewrap", "sandlock"}
    assert rerun.isolation["probes"]


def test_other_weights_are_inconclusive_and_name_the_first_tensor_and_the_knobs(trainer):
    text = TRAIN.replace("float(i * seed)", "float(i * seed) + 0.5").replace(
        '"threads":1', '"threads":2'
    )
    trainer.script(text)
    report = trainer.rerun()
    assert report.exit_code == 6
    assert report.claim("reproduction").status == "inconclusive"
    (rerun,) = report.reruns
    assert rerun.verdict == "not bitwise"
    assert [(knob.name, knob.declared, knob.rerun) for knob in rerun.knobs] == [("threads", 1, 2)]
    message = findings(report)["rerun-not-bitwise"].message
    assert "tensor bias differs first by at most 0.5" in message
    assert "threads" in message


def test_the_declared_weights_with_other_metrics_contradict_the_claim(trainer, monkeypatch):
    monkeypatch.setattr(
        ReadsBack, "change", staticmethod(lambda run: tiny.with_value(run, "holdout_auc", 0.6))
    )
    report = trainer.rerun()
    assert report.exit_code == 1
    assert findings(report)["rerun-metric-contradicts"].severity == "error"


def test_a_specification_that_trains_with_other_parameters_is_not_met(trainer):
    trainer.provider.config["training"]["command"][3] = "0.7"
    report = trainer.rerun()
    assert report.exit_code == 1
    assert (
        "parameter rate is declared as '0.01'"
        in findings(report)["rerun-parameters-differ"].message
    )


def test_a_specification_that_trains_with_another_seed_is_not_met(trainer):
    trainer.provider.config["training"]["command"][2] = "7"
    report = trainer.rerun()
    assert report.exit_code == 1
    assert "rerun-seed-differs" in findings(report)


def test_a_training_that_fails_is_inconclusive_and_shows_why(trainer):
    trainer.script("raise SystemExit('no such file: data.bin')")
    report = trainer.rerun()
    assert report.exit_code == 6
    assert report.reruns[0].verdict == "failed"
    assert "no such file: data.bin" in findings(report)["rerun-failed"].message


def test_what_a_failed_training_prints_cannot_steer_the_terminal(trainer):
    trainer.script("import sys; print('\\x1b[2Jverified'); sys.exit(3)")
    message = findings(trainer.rerun())["rerun-failed"].message
    assert "\x1b" not in message
    assert "exit code 3" in message


def test_a_training_that_leaves_nothing_is_inconclusive(trainer):
    trainer.script("pass")
    report = trainer.rerun()
    assert report.exit_code == 6
    assert "rerun-output" in findings(report)


def test_output_left_in_the_working_folder_is_found_out(trainer):
    trainer.script("import os; os.mkdir('store')")
    remedy = findings(trainer.rerun())["rerun-output"].remedy
    assert "cd {out} && exec {python}" in remedy


def test_links_in_the_output_are_removed_and_a_note_says_how_many(trainer):
    trainer.script(TRAIN + "[(out / n).symlink_to('/etc/passwd') for n in 'ab']\n")
    report = trainer.rerun()
    assert report.exit_code == 0
    (note,) = [each for each in report.findings() if each.code == "rerun-links-removed"]
    assert note.severity == "note"
    assert "symbolic links in the output: 2" in note.message


def test_a_link_in_place_of_the_weights_is_a_missing_file(trainer):
    trainer.script(
        TRAIN + "(out / 'model.safetensors').rename(out / 'real')\n"
        "(out / 'model.safetensors').symlink_to('real')\n"
    )
    report = trainer.rerun()
    assert report.exit_code == 6
    assert "rerun-output" in findings(report)
    assert "rerun-links-removed" in {each.code for each in report.findings()}


def test_devices_and_pipes_in_the_output_are_still_refused(trainer):
    trainer.script(TRAIN + "import os; os.mkfifo(out / 'pipe')\n")
    assert "FIFO" in findings(trainer.rerun())["rerun-output"].message


@pytest.mark.parametrize("confinement", ["bubblewrap", "sandlock", "none"])
def test_a_training_may_write_beside_its_script(trainer, tmp_path, confinement):
    try:
        sandbox.find(confinement, trusted=True)
    except SandboxUnavailableError as error:
        pytest.skip(str(error))
    trainer.script(
        TRAIN + "pathlib.Path('dvc.yaml').write_text('x')\n"
        "here = pathlib.Path(__file__).parent\n"
        "(here / 'checkpoints').mkdir()\n"
        "(here / 'checkpoints' / '1').write_text('x')\n"
        "(here / 'train.py').write_text('changed')\n"
    )
    kept = tmp_path / "kept"
    report = trainer.rerun(confinement=confinement, trusted=True, keep=kept)
    assert report.exit_code == 0
    assert report.reruns[0].verdict == "bitwise"
    assert kept.stat().st_mode & 0o777 == 0o700
    assert (kept / "runs/seed-42/code/dvc.yaml").exists()
    assert (kept / "runs/seed-42/code/checkpoints/1").exists()
    assert (kept / "runs/seed-42/code/train.py").read_text() == "changed"
    # What was verified is kept as it was.
    assert (kept / "package/bundle/data/code/train.py").read_text().startswith(TRAIN)
    assert not (kept / "package/bundle/data/code/dvc.yaml").exists()


def test_a_failure_to_write_elsewhere_says_where_one_may_write(trainer):
    trainer.script("open('/bundle/x', 'w')")
    remedy = findings(trainer.rerun(confinement="bubblewrap"))["rerun-failed"].remedy
    assert "Read-only file system: '/bundle/x'\": only {out}" in remedy
    assert "--keep DIR" in remedy


def test_a_module_that_is_not_there_is_named(trainer):
    trainer.script("import no_such_module")
    remedy = findings(trainer.rerun())["rerun-failed"].remedy
    assert "No module named 'no_such_module'" in remedy
    assert f"interpreter of the re-run, {sys.executable}" in remedy


def test_variables_that_differ_can_be_set_by_the_provider(trainer):
    text = TRAIN.replace("float(i * seed)", "float(i * seed) + 0.5")
    text = text.replace(
        '{"python":"3.11.7","threads":1}',
        '{"python":"3.11.7","threads":1,"threads.OMP_NUM_THREADS":"2","threads.torch_intra_op":2}',
    )
    trainer.script(text)
    remedy = findings(trainer.rerun())["rerun-not-bitwise"].remedy
    assert "training.environment" in remedy
    assert "OMP_NUM_THREADS (not set in the declared run)" in remedy
    assert "torch_intra_op" not in remedy


def test_a_specification_without_code_is_not_staged(tmp_path):
    evidence = SimpleNamespace(files=SimpleNamespace(below=lambda _folder: []))
    with pytest.raises(MalformedError, match="no files below"):
        stage(evidence.files, SimpleNamespace(code="../elsewhere", inputs=()), tmp_path / "place")
    assert list(tmp_path.iterdir()) == []


def test_what_git_has_as_executable_can_be_started(trainer):
    program = trainer.provider.root / "repository/train.py"
    program.chmod(0o755)
    trainer.script("#!/usr/bin/python3\n" + TRAIN)
    command = trainer.provider.config["training"]["command"]
    command[:2] = ["./train.py"]
    assert trainer.rerun().reruns[0].verdict == "bitwise"


def test_only_what_git_has_as_executable_is_staged_as_such(tmp_path):
    modes = {
        "run.sh": 0o755,
        "train.py": 0o644,
        "lib/go": 0o755,
        "lib/run.sh": 0o644,
        "a/b/c": 0o755,
    }
    files = SimpleNamespace(
        below=lambda _folder: [f"data/code/{name}" for name in modes],
        copy=lambda name, file: file.write(name.encode()),
    )

    def tree(at, **entries):
        listed = (SimpleNamespace(path=path, mode=mode) for path, mode in entries.items())
        return SimpleNamespace(at=at, entries=tuple(listed))

    spec = SimpleNamespace(
        code="data/code",
        inputs=(SimpleNamespace(path="data/inputs/run.sh"),),
        code_trees=(
            tree("", **{"run.sh": "100755", "train.py": "100644", "a/b/c": "100755"}),
            tree("lib", **{"go": "100755", "run.sh": "100644"}),
        ),
    )
    before = os.umask(0o077)
    try:
        stage(files, spec, tmp_path)
    finally:
        os.umask(before)
    for name, mode in modes.items():
        for copy in (tmp_path / "code" / name, tmp_path / "bundle/data/code" / name):
            assert copy.stat().st_mode & 0o777 == mode
            assert copy.parent.stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "bundle/data/inputs/run.sh").stat().st_mode & 0o777 == 0o644


def test_a_job_that_nests_folders_with_its_last_breath_fails_and_leaves_nothing(
    trainer, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    trainer.script(
        TRAIN
        + "import os\nfor _ in range(1500):\n    os.mkdir('d')\n    os.chdir('d')\nos._exit(0)\n"
    )
    report = trainer.rerun()
    assert report.exit_code == 6
    assert "nested more than" in findings(report)["rerun-failed"].message
    assert not list(tmp_path.glob("aisdp-rerun-*"))


def test_weights_that_are_no_safetensors_are_inconclusive(trainer):
    trainer.script(TRAIN + "(out / 'model.safetensors').write_bytes(b'no')\n")
    assert "rerun-output" in findings(trainer.rerun())


def test_weights_that_are_missing_are_inconclusive(trainer, monkeypatch):
    monkeypatch.setattr(
        ReadsBack, "change", staticmethod(lambda run: replace(run, artefacts=run.artefacts[:1]))
    )
    assert "left no artefact model.safetensors" in findings(trainer.rerun())["rerun-output"].message


def test_two_runs_in_the_output_are_inconclusive(trainer, monkeypatch):
    @contextmanager
    def two(self, store, **options):
        yield list(tiny.FakeImporter.runs[:2]) if "out" in store.parts else tiny.FakeImporter.runs

    monkeypatch.setattr(ReadsBack, "open", two)
    assert "left 2 runs instead of one" in findings(trainer.rerun())["rerun-output"].message


def test_an_output_location_cannot_leave_the_output_folder(trainer):
    trainer.provider.config["training"]["outputs"]["location"] = "../bundle"
    report = trainer.rerun()
    assert report.exit_code == 1
    assert report.reruns == ()
    assert "no plain path" in findings(report)["training-unrunnable"].message


def test_a_link_in_place_of_the_output_is_not_followed(trainer):
    trainer.script("import os; os.symlink('/bundle', '/out/store')")
    assert "rerun-output" in findings(trainer.rerun())


def test_a_result_in_a_small_part_of_the_recorded_time_needs_an_explanation(trainer):
    trainer.provider.runs = [
        replace(run, ended=run.started + 10**7) for run in trainer.provider.runs
    ]
    report = trainer.rerun()
    assert report.exit_code == 6
    assert "the recorded run 10000.0 s" in findings(report)["rerun-too-fast"].message


def test_a_run_without_times_is_not_too_fast(trainer):
    trainer.provider.runs = [
        replace(run, started=None) if run.source.run_id == "run-c" else run
        for run in trainer.provider.runs
    ]
    assert "rerun-too-fast" not in findings(trainer.rerun())


def test_an_artefact_far_larger_than_the_declared_one_is_not_read(trainer):
    trainer.script(TRAIN + "open(out / 'model.safetensors', 'ab').write(bytes(2 << 20))\n")
    assert "far larger" in findings(trainer.rerun())["rerun-output"].message


def test_a_training_that_is_handed_its_result_reproduces_nothing(trainer):
    artefact = next(run for run in trainer.provider.runs if run.source.run_id == "run-c").artefacts[
        1
    ]
    (trainer.provider.root / "repository" / "weights.bin").write_bytes(artefact.file.read_bytes())
    trainer.provider.config["training"]["inputs"]["weights"] = "repository/weights.bin"
    report = trainer.rerun()
    assert report.claim("reproduction").status == "inconclusive"
    assert "training-given-result" in findings(report)


def test_trouble_of_this_machine_is_inconclusive(trainer, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bundler.session.stage", full)
    report = trainer.rerun()
    assert report.exit_code == 6
    assert "No space left" in findings(report)["rerun-failed"].message


def test_no_declared_tensors_can_never_be_bitwise(trainer):
    trainer.provider.config["training"]["outputs"]["tensors"] = []
    report = trainer.rerun()
    assert report.exit_code == 6
    assert {"rerun-no-tensors", "rerun-not-bitwise"} <= findings(report).keys()


def test_an_unknown_placeholder_is_a_gap_of_the_bundle_and_a_finding_of_the_rerun(trainer):
    trainer.provider.config["training"]["command"].append("{home}")
    report = trainer.rerun()
    assert report.exit_code == 1
    assert "{home}" in findings(report)["gap-required"].message
    assert "{home}" in findings(report)["training-unrunnable"].message


def test_a_bundle_without_a_specification_is_not_rerun(trainer):
    del trainer.provider.config["training"]
    report = trainer.rerun()
    assert report.reruns == ()
    assert "rerun-no-specification" in findings(report)


def test_a_missing_package_is_refused_before_anything_runs(trainer):
    (trainer.provider.root / "repository" / "requirements.txt").write_text("no-such-package==1.0\n")
    report = trainer.rerun()
    assert report.exit_code == EnvironmentNotRecreatableError.exit_code
    assert report.claim("reproduction").status == "not run"
    assert "no-such-package==1.0" in report.claim("reproduction").summary


def test_another_version_of_a_package_is_a_knob(trainer):
    (trainer.provider.root / "repository" / "requirements.txt").write_text("safetensors==0.0.1\n")
    report = trainer.rerun()
    assert [knob.name for knob in report.reruns[0].knobs] == ["package safetensors"]


def test_without_a_sandbox_nothing_runs(trainer, monkeypatch):
    def refuse(preference, *, trusted):
        raise SandboxUnavailableError("no sandbox works here", remedy="apt-get install bubblewrap")

    monkeypatch.setattr("bundler.sandbox.find", refuse)
    report = trainer.rerun()
    assert report.exit_code == 5
    assert "apt-get install bubblewrap" in report.claim("reproduction").summary


def test_no_sandbox_on_demand_is_written_into_the_verdict(trainer):
    report = trainer.rerun(confinement="none", trusted=True)
    assert report.exit_code == 0
    assert report.reruns[0].isolation["kind"] == "none"


def test_inputs_output_and_log_can_be_kept(trainer, tmp_path):
    trainer.rerun(keep=tmp_path / "kept")
    run = tmp_path / "kept" / "runs" / "seed-42"
    assert (run / "log.txt").exists()
    assert (run / "out" / "store" / "result.json").exists()
    assert (tmp_path / "kept" / "package" / "bundle" / "data" / "code" / "train.py").exists()


def test_missing_metrics_count_as_different(trainer, monkeypatch):
    extra = MetricPoint("val_extra", 0, 0, 1.0)
    monkeypatch.setattr(
        ReadsBack, "change", staticmethod(lambda run: replace(run, points=(*run.points, extra)))
    )
    report = trainer.rerun()
    assert report.exit_code == 6
    compared = {each.metric: each for each in report.reruns[0].metrics}
    assert compared["val_extra"].declared is None
