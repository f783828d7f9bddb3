"""The whole re-execution with the real commands, real trainings and the real sandbox, on an honest provider."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import small

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("reexecution")]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> small.Provider:
    """An honest provider and its bundle."""
    provider = small.make_provider(tmp_path_factory.mktemp("honest"))
    done = provider.build()
    assert done.returncode == 0, done.stderr
    return provider


@pytest.fixture
def honest(built, tmp_path) -> small.Provider:
    """A copy, so that what one verification leaves is not in the way of another."""
    root = tmp_path / "provider"
    shutil.copytree(built.root, root)
    return small.Provider(root, commit=built.commit)


def test_the_same_bits_and_other_seeds_within_the_margins_are_verified(honest):
    """With seeds from chance, as an assessor would: the margins of the small provider hold for all but 1 in 10,000."""
    code, report = honest.verify("--rerun")
    assert code == 0, report["terminal"]
    judgement = report["judgement"]
    assert judgement["verdict"] == "BITWISE"
    assert {each["verdict"] for each in judgement["metrics"]} == {"CONSISTENT"}
    assert {each["metric"] for each in judgement["metrics"]} == {"holdout_auc", "holdout_brier"}
    declared = {each["metric"]: each["declared"] for each in judgement["metrics"]}
    assert len(declared["holdout_auc"]) == len(small.SEEDS)
    seeds = [trial["seed"] for trial in judgement["trials"]]
    assert len(seeds) in {3, 5, 8}
    assert not {*seeds} & {*small.SEEDS}
    assert seeds == judgement["plan"]["own_seeds"][: len(seeds)]
    assert not (honest.root / "state").exists()


def test_each_verification_has_seeds_that_nobody_could_know(honest):
    first = honest.verify("--rerun", "--runs", 2)[1]["judgement"]["plan"]["own_seeds"]
    second = honest.verify("--rerun", "--runs", 2)[1]["judgement"]["plan"]["own_seeds"]
    assert len(first) == len(second) == 2
    assert first != second


def test_the_verifier_may_name_the_seeds_but_not_the_provider_s(honest):
    _, report = honest.verify("--rerun", "--seeds", "11,12,13")
    assert [trial["seed"] for trial in report["judgement"]["trials"]] == [11, 12, 13]
    refused = small.command(
        "verify-bundle", honest.root / "bundle", "--trust", honest.root / "keys/trust.pem", "--rerun",
        "--state", honest.root / "state", "--seeds", "11,42",
    )  # fmt: skip
    assert refused.returncode == 2
    assert "seed 42 is one of the provider's" in refused.stderr


def test_a_plan_says_what_would_run_and_runs_nothing(honest):
    done = small.command(
        "verify-bundle", honest.root / "bundle", "--trust", honest.root / "keys/trust.pem", "--plan",
        "--state", honest.root / "state",
    )  # fmt: skip
    assert done.returncode == 0
    for words in (
        "train.py --seed=42",
        "own seeds",
        "judged after 3, 5 and 8",
        "margin 0.02",
        "90 %",
    ):
        assert words in " ".join(done.stdout.split()), words
    assert "only planned" in done.stdout
    assert "Training …" not in done.stderr


def test_blind_results_are_committed_before_a_declared_value_is_opened(honest):
    code, report = honest.verify("--rerun", "--blind", "--seeds", "11,12,13,14")
    assert code == 0, report["terminal"]
    commitment = report["judgement"]["commitment"]
    data = (honest.root / "bundle.blind-results.json").read_bytes()
    assert commitment["sha256"] == hashlib.sha256(data).hexdigest()
    results = json.loads(data)
    assert results["bundle"] == report["subject"]["tag_manifest_sha256"]
    assert len(results["results"]) == 5
    # Neither records nor histories nor artefacts had been read.
    assert commitment["opened"] == [
        "data/code/data.csv",
        "data/code/evaluate.py",
        "data/code/requirements.txt",
        "data/code/train.py",
        "data/datasets/data/data.csv",
        "data/environment/requirements.txt",
        "data/spec/training.json",
    ]
    assert report["started_at"] <= commitment["committed_at"] <= report["ended_at"]
    # One look, because stopping early would need the declared values; the bits are told by their hashes.
    assert report["judgement"]["plan"]["looks"] == [4]
    assert report["reruns"][0]["verdict"] == "bitwise"


def test_a_policy_caps_a_margin_that_would_let_anything_pass(honest):
    (honest.root / "policy.yaml").write_text("version: 1\nmargins: {holdout_auc: 0.0001}\n")
    code, report = honest.verify("--rerun", "--policy", honest.root / "policy.yaml")
    assert code == 6
    (auc,) = [each for each in report["judgement"]["metrics"] if each["metric"] == "holdout_auc"]
    assert (auc["declared_margin"], auc["margin"]) == (0.02, 0.0001)
    assert auc["verdict"] == "INCONCLUSIVE"
    assert "rerun-inconclusive" in small.codes(report)
    notes = {each["code"] for check in report["checks"] for each in check["findings"]}
    assert "rerun-margin-capped" in notes


def test_a_policy_can_forbid_running_without_a_sandbox(honest):
    (honest.root / "policy.yaml").write_text("version: 1\nisolation: [bubblewrap]\n")
    code, report = honest.verify(
        "--rerun", "--policy", honest.root / "policy.yaml", "--sandbox", "none", "--i-trust-this-code"
    )  # fmt: skip
    assert code == 5
    assert "does not allow isolation by none" in report["claims"][-1]["summary"]


def test_no_own_seeds_leaves_the_bits_and_says_what_they_do_not_show(honest):
    code, report = honest.verify("--rerun", "--runs", 0)
    assert code == 0
    assert report["judgement"]["trials"] == []
    assert report["judgement"]["explanation"].endswith("no other seed was tried")
    notes = {each["code"] for check in report["checks"] for each in check["findings"]}
    assert "rerun-bitwise-scope" in notes


def test_two_verifications_in_one_folder_do_not_mix(honest):
    held = honest.root / "state"
    held.mkdir(mode=0o700)
    with (held / "lock").open("wb") as lock:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
        done = small.command(
            "verify-bundle", honest.root / "bundle", "--trust", honest.root / "keys/trust.pem",
            "--rerun", "--state", held,
        )  # fmt: skip
    assert done.returncode == 2
    assert "another verification is at work" in done.stderr


def lasting(provider: small.Provider, seconds: float, *, edit=lambda line: line) -> None:
    """Make the declared run look as if it had taken ``seconds``, its first point soon after the start."""
    path = provider.root / "runs/seed-42/metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    start = lines[0]["timestamp"]
    for number, line in enumerate(lines):
        line["timestamp"] = start + seconds * number / (len(lines) - 1)
    path.write_text("".join(json.dumps(edit(line)) + "\n" for line in lines))


def test_the_canary_of_a_long_training_passes_where_its_first_steps_come_out(tmp_path):
    provider = small.make_provider(tmp_path / "provider")
    lasting(provider, 400)
    assert provider.build().returncode == 0
    _, report = provider.verify("--rerun", "--runs", 0)
    bird = report["judgement"]["canary"]
    assert (bird["verdict"], bird["points"] > 3) == ("passed", True)


def test_a_canary_that_fails_names_what_differs_before_the_long_run(tmp_path):
    provider = small.make_provider(tmp_path / "provider")
    run = provider.root / "runs/seed-42"
    lasting(
        provider,
        400,
        edit=lambda line: {**line, "train_loss": 0.5} if "train_loss" in line else line,
    )
    (run / "environment.json").write_text(json.dumps({"threads": 2}))
    provider.config["reproducibility"]["mechanisms"] = ["seeds"]
    assert provider.build().returncode == 0
    _, report = provider.verify("--rerun", "--runs", 0)
    bird = report["judgement"]["canary"]
    assert bird["verdict"] == "failed"
    assert "train_loss at step 1" in bird["explanation"]
    assert "threads" in {knob["name"] for knob in bird["knobs"]}


def test_what_bundler_capture_recorded_names_the_knob_before_the_training_says_anything(tmp_path):
    """The canary is stopped before the script writes its environment, so this machine is asked."""
    provider = small.make_provider(tmp_path / "provider", seeds=())
    script = provider.repository / "train.py"
    text = script.read_text().replace(
        "    weights = fit(",
        "    (out / 'metrics.jsonl').write_text(lines[0])\n    import time as t; t.sleep(float(os.environ.get('PAUSE', 0)))\n    weights = fit(",
    )
    script.write_text(
        text.replace(
            'log({"step": 0, "started": 1.0})',
            'log({"step": 0, "started": 1.0, "holdout_auc": 0.5})',
        )
    )
    provider.commit_all()
    shutil.rmtree(provider.root / "runs")
    for seed in small.SEEDS:
        provider.train(seed)
    run = provider.root / "runs/seed-42"
    done = small.command(
        "bundler", "capture", "-o", run / "environment.json", "--python", sys.executable
    )
    assert done.returncode == 0
    facts = json.loads((run / "environment.json").read_text())
    facts["cpu"]["model"] = "a processor that is not here"
    (run / "environment.json").write_text(json.dumps(facts))
    lasting(
        provider, 400, edit=lambda line: {**line, "started": 2.0} if "started" in line else line
    )
    provider.config["training"]["environment"] = {"PAUSE": "30"}
    provider.config["reproducibility"]["mechanisms"] = ["seeds"]
    assert provider.build().returncode == 0
    _, report = provider.verify("--rerun", "--runs", 0, "--time-limit", 12)
    bird = report["judgement"]["canary"]
    assert bird["verdict"] == "failed", bird
    assert "cpu.model" in {knob["name"] for knob in bird["knobs"]}
    assert "what differs here: " in bird["explanation"]


def test_a_verification_that_is_killed_goes_on_where_it_was(tmp_path):
    provider = small.make_provider(tmp_path / "provider", seeds=())
    script = provider.repository / "train.py"
    script.write_text(
        script.read_text().replace(
            "    args = parse_args()\n    out",
            "    import time; time.sleep(0.8)\n    args = parse_args()\n    out",
        )
    )
    provider.commit_all()
    shutil.rmtree(provider.root / "runs")
    for seed in small.SEEDS:
        provider.train(seed)
    assert provider.build().returncode == 0
    state = provider.root / "state"
    words = [
        small.BIN / "verify-bundle", provider.root / "bundle", "--trust", provider.root / "keys/trust.pem",
        "--rerun", "--state", state, "--parallel", "1", "--runs", "3",
    ]  # fmt: skip
    with subprocess.Popen(
        list(map(str, words)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 60
        while len(done := _stored(state)) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert len(done) >= 2
    before = _stored(state)
    code, report = provider.verify("--rerun", "--parallel", 1, "--runs", 3)
    assert code in {0, 6}, report["terminal"]
    trials = report["judgement"]["trials"]
    assert len(trials) == 3
    # The declared seed's result is one of those that were there.
    assert sum(trial["resumed"] for trial in trials) == len(before) - 1
    assert report["reruns"][0]["verdict"] == "bitwise"
    assert not state.exists()


def _stored(state: Path) -> list[Path]:
    return [path for path in state.glob("*.json") if path.name != "session.json"]


def test_a_command_without_a_seed_can_be_repeated_but_not_varied(tmp_path):
    provider = small.make_provider(tmp_path / "provider")
    provider.config["training"]["command"][2] = "--seed=42"
    assert provider.build().returncode == 0
    code, report = provider.verify("--rerun")
    assert code == 6
    assert report["judgement"]["verdict"] == "BITWISE"
    assert report["judgement"]["trials"] == []
    assert "rerun-seed-fixed" in small.codes(report)


def test_other_numerics_with_the_same_results_are_consistent(tmp_path):
    """The declared bits cannot come out here, and a recorded fact says why: the statistical rule decides."""
    provider = small.make_provider(tmp_path / "provider")
    for run in provider.root.glob("runs/*"):
        weights = bytearray((run / "model.safetensors").read_bytes())
        weights[-1] ^= 0x00
        weights[-4] ^= 0x01  # the last bit of the bias
        (run / "model.safetensors").write_bytes(bytes(weights))
        (run / "environment.json").write_text(
            json.dumps({"threads": 2, "deterministic_algorithms": True, "cpu_model": "another"})
        )
    provider.config["reproducibility"]["mechanisms"] = ["seeds", "deterministic algorithms"]
    assert provider.build().returncode == 0
    code, report = provider.verify("--rerun", "--seeds", "11,12,13,14,15,16,17,18")
    assert code == 0, report["terminal"]
    assert report["judgement"]["verdict"] == "CONSISTENT"
    rerun = report["reruns"][0]
    assert rerun["verdict"] == "not bitwise"
    (tensor,) = rerun["tensors"]
    assert tensor["equal_fraction"] == 0.8
    assert (tensor["ulp_median"], tensor["ulp_p99"]) == (0, 1)
    assert tensor["cosine"] > 0.999999
    assert {knob["name"] for knob in rerun["knobs"]} == {"threads", "cpu_model"}


def test_other_predictions_than_declared_are_found_blind_as_in_the_open(tmp_path):
    provider = small.make_provider(tmp_path / "provider")
    path = provider.root / "runs/seed-42/predictions.csv"
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join([lines[0], *(f"{line.rsplit(',', 1)[0]},0.5" for line in lines[1:])]) + "\n"
    )
    assert provider.build().returncode == 0
    for mode in (("--blind", "--runs", "3"), ("--runs", "0")):
        code, report = provider.verify("--rerun", *mode)
        assert code == 1
        assert report["reruns"][0]["verdict"] == "not bitwise"
        assert "rerun-predictions-contradict" in small.codes(report)
        assert report["judgement"]["verdict"] == "INCONSISTENT"


def test_blind_other_numerics_with_the_same_results_are_consistent(tmp_path):
    """The last digit of a score is no other result; the file was committed to, so it can be compared afterwards."""
    provider = small.make_provider(tmp_path / "provider")
    for run in provider.root.glob("runs/*"):
        weights = bytearray((run / "model.safetensors").read_bytes())
        weights[-4] ^= 0x01  # the last bit of the bias
        (run / "model.safetensors").write_bytes(bytes(weights))
        lines = (run / "predictions.csv").read_text().splitlines()
        scores = [(line.rpartition(",")[0], float(line.rpartition(",")[2])) for line in lines[1:]]
        changed = [f"{rest},{math.nextafter(score, 1)!r}" for rest, score in scores]
        (run / "predictions.csv").write_text("\n".join([lines[0], *changed]) + "\n")
        (run / "environment.json").write_text(
            json.dumps({"threads": 2, "deterministic_algorithms": True, "cpu_model": "another"})
        )
    provider.config["reproducibility"]["mechanisms"] = ["seeds", "deterministic algorithms"]
    assert provider.build().returncode == 0
    code, report = provider.verify("--rerun", "--blind", "--seeds", "11,12,13,14,15,16,17,18")
    assert code == 0, report["terminal"]
    assert report["judgement"]["verdict"] == "CONSISTENT"
    (predicted,) = report["reruns"][0]["predictions"]
    assert 0 < predicted["max_absolute_difference"] < 1e-12
    committed = json.loads((provider.root / "bundle.blind-results.json").read_bytes())["results"]
    assert [each["kept"] is not None for each in committed] == [True] + 8 * [False]


def test_an_evaluation_that_was_asked_for_and_cannot_be_made_leaves_the_claim_open(tmp_path):
    provider = small.make_provider(tmp_path / "provider")
    del provider.config["training"]["evaluation"]
    assert provider.build().returncode == 0
    for words, code in (
        (("--evaluate",), 6),
        (("--rerun", "--evaluate", "--runs", "0"), 6),
        (("--rerun", "--runs", "0"), 0),
        (("--rerun", "--no-evaluate", "--runs", "0"), 0),
    ):
        got, report = provider.verify(*words)
        assert got == code, (words, report["terminal"])
        assert ("asked for and not done" in report["claims"][-1]["summary"]) == (code == 6)


def test_a_report_of_a_plan_alone_holds_the_plan(honest):
    code, report = honest.verify("--plan", "--seeds", "11,12,13")
    assert code == 0
    assert report["plan"]["own_seeds"] == [11, 12, 13]
    assert report["judgement"] is None
    assert honest.verify()[1]["plan"] is None


def recording_itself(root: Path, seeds=small.SEEDS) -> small.Provider:
    """A provider whose script records its environment with what `bundler capture` is made of."""
    provider = small.make_provider(root, seeds=())
    facts = provider.repository / "facts"
    facts.mkdir()
    for module in (Path(small.HERE).parent.parent / "bundler" / "capture").glob("*.py"):
        text = "" if module.name == "__init__.py" else module.read_text()
        (facts / module.name).write_text(text)
    script = provider.repository / "train.py"
    before = '        json.dumps({"threads": 1, "deterministic_algorithms": True})\n'
    assert before in script.read_text()
    script.write_text(
        script.read_text().replace(
            before, "        collect.render(collect.collect(seed=args.seed)).decode()\n"
        ).replace("import time\n", "import time\n\nfrom facts import collect\n", 1)
    )  # fmt: skip
    provider.commit_all()
    shutil.rmtree(provider.root / "runs")
    for seed in seeds:
        provider.train(seed)
    provider.train(42, name="slow", rate=0.0005)
    provider.config["reproducibility"]["mechanisms"] = ["seeds"]
    return provider


@pytest.fixture
def plain_variables(monkeypatch):
    """Only what every shell has: libraries that other tests import leave variables of threads behind."""
    for name in list(os.environ):
        if not name.startswith(("PATH", "HOME", "LANG", "LC_", "TMP", "COV", "PYTEST")):
            monkeypatch.delenv(name)


OWN_SEEDS = ("--seeds", "11,12,13,14,15,16,17,18")


def test_what_the_sandbox_hides_from_capture_is_no_difference_between_machines(
    tmp_path, plain_variables
):
    provider = recording_itself(tmp_path / "provider")
    assert provider.build().returncode == 0
    code, report = provider.verify("--rerun", *OWN_SEEDS)
    assert code == 0, report["terminal"]
    (rerun,) = report["reruns"]
    assert rerun["environment"]["format"].startswith("urn:")
    assert any(name.startswith("not_recorded.") for name in rerun["environment"])
    assert {knob["name"] for knob in rerun["knobs"]} <= {"container.docker"}


def test_another_seed_is_not_excused_by_what_the_sandbox_hides_from_capture(
    tmp_path, plain_variables
):
    provider = recording_itself(tmp_path / "provider", seeds=(7, 1, 2, 3, 4))
    run = (provider.root / "runs/seed-7").rename(provider.root / "runs/seed-42")
    params = json.loads((run / "params.json").read_text())
    (run / "params.json").write_text(json.dumps({**params, "seed": 42}))
    assert provider.build().returncode == 0
    code, report = provider.verify("--rerun", *OWN_SEEDS)
    assert code == 6, report["terminal"]
    assert small.codes(report)["rerun-not-bitwise"]["severity"] == "warning"


def test_blind_a_file_with_the_tensors_of_the_model_does_not_stand_for_the_model(tmp_path):
    """Two files with tensors of the same names: the model, which is swapped, and a checkpoint beside it."""
    provider = small.make_provider(tmp_path / "provider", seeds=())
    script = provider.repository / "train.py"
    saving = '    save(out / "model.safetensors", weights)\n'
    script.write_text(
        script.read_text().replace(
            saving, saving + saving.replace("model", "zcheckpoint")
        )
    )  # fmt: skip
    provider.commit_all()
    shutil.rmtree(provider.root / "runs")
    for seed in small.SEEDS:
        provider.train(seed)
    provider.train(42, name="slow", rate=0.0005)
    run = provider.root / "runs/seed-42"
    shutil.copy(provider.root / "runs/seed-1/model.safetensors", run / "model.safetensors")
    provider.config["training"]["outputs"]["tensors"].append("zcheckpoint.safetensors")
    del provider.config["training"]["evaluation"]
    assert provider.build().returncode == 0
    code, report = provider.verify("--rerun", "--blind", "--seeds", "11,12,13,14")
    assert code == 6, report["terminal"]
    assert report["reruns"][0]["verdict"] == "not bitwise"
    assert "model-unproven" in small.codes(report)


@pytest.mark.parametrize("blind", [(), ("--blind",)], ids=["open", "blind"])
def test_a_model_that_is_only_referenced_is_no_accusation(honest, blind):
    honest.config["embed"] = "none"
    shutil.rmtree(honest.root / "bundle")
    assert honest.build().returncode == 0
    code, report = honest.verify("--rerun", "--seeds", "11,12,13,14", *blind)
    assert code == 6, report["terminal"]
    assert len(report["judgement"]["trials"]) >= 3
    assert "model-unproven" in small.codes(report)
