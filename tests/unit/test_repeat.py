"""The provider's own repetitions: real processes, a real git repository, a script that writes plain files."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from bundler import repeat_runs
from bundler.cli.repeat import rerun
from bundler.config import load
from bundler.errors import OutputError, SourceError, UsageError
from bundler.progress import Silence
from bundler.repeat import Request, conclude, plan, repeated
from bundler.repeat_runs import Attempt, Repeated, Training

TRAIN = """\
import argparse, json, os, pathlib, random, sys, time
p = argparse.ArgumentParser()
for name in ("seed", "rate", "data", "out"):
    p.add_argument(f"--{name}")
a = p.parse_args()
out = pathlib.Path(a.out)
out.mkdir(parents=True)
mood = os.environ.get("MOOD", "")
(out / "params.json").write_text(json.dumps({"rate": a.rate, "seed": int(a.seed)}))
print("training with seed", a.seed, flush=True)
if "CODE" in os.environ:
    code = {"commit": os.environ["CODE"], "dirty": False}
    words = {"format": "urn:aisdp-bundler:environment:1", "code": code}
    (out / "environment.json").write_text(json.dumps(words))
if mood == f"fail {a.seed}":
    sys.exit("cannot \\x1b[31m go on")
if mood == f"hang {a.seed}":
    pathlib.Path(os.environ["PID"]).write_text(str(os.getpid()))
    time.sleep(600)
if mood == f"die {a.seed}":
    os.kill(os.getpid(), 9)
if mood == f"forget {a.seed}":
    (out / "params.json").unlink()
    sys.exit()
if mood == f"elsewhere {a.seed}":
    (out / "params.json").write_text(json.dumps({"rate": "5", "seed": int(a.seed)}))
if mood.split()[-1:] == [a.seed] and mood.split()[0] in ("deaf", "copy", "mute"):
    its = {"deaf": 99, "copy": 7, "mute": None}[mood.split()[0]]
    (out / "params.json").write_text(json.dumps({"rate": a.rate, "seed": its}))
source = random.Random(int(a.seed))
rows = len(pathlib.Path(a.data).read_text().splitlines())
auc = 0.8 + float(a.rate) * source.random() / rows
result = {} if mood == f"short {a.seed}" else {"val_auc": auc, "holdout_auc": auc - 0.01}
(out / "metrics.json").write_text(json.dumps(result))
"""

CONFIG = {
    "version": 1,
    "system": {"name": "s", "version": "1", "provider": "p", "intended_purpose": "p"},
    "sources": [{"tracker": "metrics", "store": "runs"}],
    "facts": {"finished_with": "holdout_auc", "metrics": {"hold-out": ["holdout_*"]}},
    "selection": {"run": "chosen", "metric": "val_auc", "direction": "maximise", "rationale": "r"},
    "reproducibility": {
        "level": "statistical",
        "tolerances": [{"metric": "holdout_auc", "margin": 0.02}, {"metric": "none", "margin": 1}],
    },
    "gates": [
        {"name": "auc", "category": "performance", "metric": "val_auc", "comparator": ">=", "threshold": 0.9}
    ],
    "training": {
        "code": "code",
        "command": ["{python}", "train.py", "--seed={seed}", "--rate={parameter.rate}", "--data={input.data}", "--out={out}/run"],
        "environment": {"WHERE": "{out}"},
        "inputs": {"data": "data.csv"},
        "outputs": {"tracker": "metrics", "location": "run"},
    },
}  # fmt: skip


class Watch:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.lines: set[str] = set()

    def begun(self, seed: int) -> None:
        self.told.append(("begun", seed))

    def said(self, seed: int, line: str) -> None:
        self.lines.add(line)

    def ended(self, attempt: Attempt) -> None:
        self.told.append(("ended", attempt.seed))


@pytest.fixture
def base(tmp_path, monkeypatch) -> Path:
    """A provider's folder with one run, of seed 7."""
    monkeypatch.delenv("MOOD", raising=False)
    folder = tmp_path / "provider"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "train.py").write_text(TRAIN)
    (folder / "data.csv").write_text("1\n2\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "training")
    train(folder, seed=7, name="chosen")
    configure(folder)
    return folder


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", folder, *who, *words], check=True, capture_output=True)


def train(folder: Path, *, seed: int, name: str, **more: str) -> None:
    words = [f"--seed={seed}", "--rate=0.1", f"--data={folder}/data.csv", f"--out={folder}/runs/{name}"]  # fmt: skip
    subprocess.run(
        [sys.executable, folder / "code" / "train.py", *words],
        env={**os.environ, **more},
        check=not more,
        capture_output=True,
    )


def configure(folder: Path, **changes: object) -> Path:
    config = json.loads(json.dumps(CONFIG))
    for path, value in changes.items():
        place = config
        *above, last = path.split("__")
        for each in above:
            place = place[each]
        place[last] = value
    file = folder / "bundle.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def request(base: Path, **more) -> Request:
    output = more.pop("output", base / "repetitions")
    config = load(base / "bundle.yaml")
    return Request(config=config, base=base, output=output, python=Path(sys.executable), **more)


def repeat(base: Path, watch: Watch | None = None, parallel: int = 1, **more):
    planned = plan(request(base, **more), Silence())
    attempts = repeated(planned).run(watch or Watch(), parallel)
    return planned, attempts, conclude(planned, attempts, Silence())


def add(base: Path, conclusion) -> None:
    """Put the entries into bundle.yaml, as the provider is told to."""
    entries = [{"tracker": each.tracker, "store": each.store} for each in conclusion.sources]
    configure(base, sources=[*CONFIG["sources"], *entries])


def test_five_independent_runs_come_together_and_count_in_the_log(base):
    watch = Watch()
    planned, attempts, conclusion = repeat(base, watch)
    assert planned.before == 1
    assert [each.seed for each in attempts] == [1, 2, 3, 4]
    assert watch.told == [(what, seed) for seed in (1, 2, 3, 4) for what in ("begun", "ended")]
    assert conclusion.problems == ()
    assert conclusion.runs == 5
    assert [each.store for each in conclusion.sources] == [f"repetitions/seed-{n}" for n in (1, 2, 3, 4)]  # fmt: skip
    add(base, conclusion)
    again = plan(request(base), Silence())
    assert (again.before, again.trainings) == (5, ())


def test_mean_and_interval_are_those_of_student(base):
    _, _, conclusion = repeat(base)
    (found,) = conclusion.intervals[:1]
    values = [json.loads(each.read_text())["holdout_auc"] for each in sorted(base.rglob("metrics.json"))]  # fmt: skip
    mean = sum(values) / 5
    deviation = (sum((each - mean) ** 2 for each in values) / 4) ** 0.5
    assert (found.metric, found.runs) == ("holdout_auc", 5)
    assert found.mean == pytest.approx(mean, rel=1e-12)
    # The 97.5 % point of t with 4 degrees of freedom, from the tables.
    assert found.half == pytest.approx(2.7764451 * deviation / 5**0.5, rel=1e-6)
    assert [each.metric for each in conclusion.intervals] == ["holdout_auc", "val_auc"]
    (gate,) = conclusion.gates
    assert (gate.verdict, gate.runs) == ("not met", 5)


def test_a_failed_run_is_kept_and_does_not_stop_the_others_and_the_next_call_tries_it_again(
    base, monkeypatch
):
    monkeypatch.setenv("MOOD", "fail 2")
    _, attempts, conclusion = repeat(base, seeds=(1, 2, 3))
    assert [each.exit_code for each in attempts] == [0, 1, 0]
    (words,) = conclusion.problems
    assert words == "seed 2: the training failed: exit code 1; cannot \\x1b[31m go on"
    assert conclusion.runs == 3
    # It left its parameters, so it is a run of the log like any other.
    assert [each.store for each in conclusion.sources][1] == "repetitions/seed-2"
    log = base / "repetitions" / "seed-2.log"
    before = log.read_bytes()
    monkeypatch.delenv("MOOD")
    watch = Watch()
    _, _, conclusion = repeat(base, watch, seeds=(1, 2, 3))
    assert watch.told == [("begun", 2), ("ended", 2)]
    assert (base / "repetitions" / "seed-2-earlier-1.log").read_bytes() == before
    assert (conclusion.runs, conclusion.problems) == (4, ())
    assert [each.store for each in conclusion.sources] == [
        f"repetitions/{each}" for each in ("seed-1", "seed-2", "seed-2-earlier-1", "seed-3")
    ]
    add(base, conclusion)
    assert plan(request(base), Silence()).before == 4


@pytest.mark.parametrize(
    ("mood", "problem"),
    [
        ("die 1", "seed 1: the training failed: killed by SIGKILL; training with seed 1"),
        ("forget 1", "seed 1: its record cannot be read: .* holds no metrics.json"),
        ("elsewhere 1", "seed-1 is no repetition: other parameters than the selected run: 'rate'"),
        ("deaf 1", "seed-1 records the seed 99"),
        ("copy 1", "seed-1 is no repetition: a run with its seed 7 is in the log already"),
        ("mute 1", "seed-1 is no repetition: it records no seed"),
        ("short 1", r"seed-1 is no repetition: its status is unknown; .*finished_with"),
    ],
)
def test_a_run_that_does_not_count_is_said_to_be_none_and_why(base, monkeypatch, mood, problem):
    monkeypatch.setenv("MOOD", mood)
    _, _, conclusion = repeat(base, seeds=(1, 2))
    (words,) = conclusion.problems
    assert re.search(problem, words)
    # A run that records seed 99 is one more run, but not the one that was asked for.
    assert conclusion.runs == (3 if mood == "deaf 1" else 2)


def test_runs_can_go_on_at_once(base):
    watch = Watch()
    _, attempts, _ = repeat(base, watch, parallel=4, seeds=(3, 1, 2))
    assert [each.seed for each in attempts] == [3, 1, 2]
    assert watch.told[:3] == [("begun", 3), ("begun", 1), ("begun", 2)]


def test_a_run_that_is_interrupted_leaves_no_process_and_is_run_again(base, monkeypatch, tmp_path):
    monkeypatch.setenv("MOOD", "hang 2")
    monkeypatch.setenv("PID", str(tmp_path / "pid"))

    class Impatient(Watch):
        def said(self, seed, line):
            super().said(seed, line)
            if seed == 2 and (tmp_path / "pid").exists() and line:
                raise KeyboardInterrupt

    planned = plan(request(base, seeds=(1, 2)), Silence())
    watch = Impatient()
    with pytest.raises(KeyboardInterrupt):
        repeated(planned).run(watch)
    assert "training with seed 2" in watch.lines
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    monkeypatch.delenv("MOOD")
    watch = Watch()
    _, _, conclusion = repeat(base, watch, seeds=(1, 2))
    assert watch.told == [("begun", 2), ("ended", 2)]
    assert (conclusion.runs, conclusion.problems) == (3, ())


def test_a_training_that_does_not_listen_is_killed(monkeypatch, tmp_path):
    monkeypatch.setattr(repeat_runs, "GRACE", 0.5)
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); time.sleep(600)"
    training = Training(
        seed=1,
        command=(sys.executable, "-c", script),
        environment={},
        folder=tmp_path,
        identity="i",
    )

    class Impatient(Watch):
        def said(self, seed, line):
            if line == "x":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Repeated(tmp_path / "out", [training], lambda _: "").run(Impatient())
    with (tmp_path / "out" / "seed-1.log").open("rb") as log:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_run_of_an_earlier_call_that_goes_on_is_not_met_by_a_second_one(base):
    (base / "repetitions").mkdir()
    with (base / "repetitions" / "seed-1.log").open("wb") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="is still going on"):
            repeat(base, seeds=(1,))


def test_the_training_itself_holds_its_log(base, monkeypatch, tmp_path):
    """So that one whose `bundler rerun` was killed is not met by a second one."""
    monkeypatch.setenv("MOOD", "hang 1")
    monkeypatch.setenv("PID", str(tmp_path / "pid"))
    command = [sys.executable, "-c", "from bundler.cli.repeat import rerun; rerun()"]
    first = subprocess.Popen(
        [*command, base / "bundle.yaml", "-o", base / "repetitions", "--seeds", "1"],
        stderr=subprocess.DEVNULL,
    )
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert first.poll() is None
        time.sleep(0.05)
    first.kill()
    first.wait()
    with pytest.raises(UsageError, match="still going on"):
        repeat(base, seeds=(1,))
    os.killpg(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_runs_of_another_training_are_not_taken_for_ours(base):
    repeat(base, seeds=(1,))
    configure(base, training__environment={"WHERE": "elsewhere"})
    with pytest.raises(UsageError, match="is of another training"):
        repeat(base, seeds=(1,))
    (base / "repetitions" / "seed-1.json").write_text("{}")
    with pytest.raises(UsageError, match="cannot be read"):
        repeat(base, seeds=(1,))


def test_results_in_the_repository_do_not_make_its_tree_dirty(base):
    git(base, "add", ".")
    git(base, "commit", "-qm", "runs")
    repeat(base, output=base / "code" / "repetitions", seeds=(1,))
    (words,) = plan(request(base, seeds=(2,)), Silence()).warnings
    assert "records no commit" in words


def test_uncommitted_changes_and_another_commit_are_warned_of(base):
    (base / "code" / "train.py").write_text(TRAIN + "# changed\n")
    (dirty, unknown) = plan(request(base), Silence()).warnings
    assert "uncommitted changes" in dirty
    assert "records no commit" in unknown


def test_code_of_another_commit_than_the_selected_run_is_warned_of(provider):
    config = provider.config
    config["training"]["command"] = ["{python}", "train.py", "{seed}", "{out}/run"]
    provider.config["training"]["outputs"] = {"tracker": "tiny", "location": "run"}
    from tests import tiny

    tiny.FakeImporter.runs = provider.runs
    provider.write_config()
    planned = plan(request(provider.root), Silence())
    assert (planned.before, [each.seed for each in planned.trainings]) == (4, [4])
    assert planned.warnings == ()
    (provider.root / "repository" / "more.py").write_text("")
    git(provider.root / "repository", "add", ".")
    git(provider.root / "repository", "commit", "-qm", "more")
    (words,) = plan(request(provider.root), Silence()).warnings
    assert "is not at the code of the selected run" in words
    tiny.FakeImporter.runs = [
        replace(each, code=replace(each.code, commit="f" * 40)) for each in provider.runs
    ]
    (words,) = plan(request(provider.root), Silence()).warnings
    assert "is not in the repository" in words


def test_runs_of_another_commit_do_not_count_and_are_said_not_to(base, monkeypatch):
    commit = subprocess.run(
        ["git", "-C", base, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    shutil.rmtree(base / "runs")
    train(base, seed=7, name="chosen", CODE=commit)
    facts = {**CONFIG["facts"], "environment": "artefacts.environment.json"}
    configure(base, facts=facts)
    monkeypatch.setenv("CODE", commit)
    assert plan(request(base), Silence()).warnings == ()
    (base / "code" / "train.py").write_text(TRAIN + "# longer\n")
    git(base, "add", "code")
    git(base, "commit", "-qm", "longer")
    (words,) = plan(request(base), Silence()).warnings
    assert f"not at the code of the selected run, commit {commit[:12]}" in words
    assert "do not count as repetitions" in words
    monkeypatch.setenv("CODE", "b" * 40)
    result = CliRunner().invoke(
        rerun, [str(base / "bundle.yaml"), "-o", str(base / "out"), "--seeds", "1,2"],
        standalone_mode=False,
    )  # fmt: skip
    assert result.return_value == 1, result.output
    why = f"no repetition: it is a run of commit '{'b' * 12}' instead of '{commit[:12]}'"
    assert f"seed-1 is {why}" in result.output
    assert "independent runs: 1 (1 before)" in result.output


def test_bundle_yaml_stores_and_repetitions_are_no_code(base):
    """As bundler init and trackers leave them in the code folder; whatever else is new there is code."""
    code = base / "code"
    shutil.copytree(base / "runs", code / "logs" / "runs")
    configure(base, training__code=".", sources=[{"tracker": "metrics", "store": "logs/runs"}],
              training__inputs={"data": "../data.csv"})  # fmt: skip
    shutil.move(base / "bundle.yaml", code / "bundle.yaml")
    output = code / "repetitions"
    output.mkdir()
    (output / "seed-1.log").write_text("")
    (words,) = plan(request(code, output=output), Silence()).warnings
    assert "records no commit" in words
    (code / "helper.py").write_text("")
    (words, _) = plan(request(code, output=output), Silence()).warnings
    assert "uncommitted changes" in words


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"training__command": ["{python}", "train.py", "--seed=7"]}, "does not use {seed}"),
        ({"training__command": ["x", "{seed}", "{parameter.seed}"]}, "uses {parameter.seed}"),
        ({"training__command": ["x", "{seed}", "{parameter.lr}"]}, "parameter.lr.* is unknown"),
        ({"facts__seed": "parameters.none"}, "records no seed"),
        ({"training": None}, "does not say how to train"),
        ({"selection__run": "absent"}, "means none of the 1 imported runs"),
    ],
)
def test_what_cannot_be_repeated_is_refused_before_anything_runs(base, changes, match):
    configure(base, **changes)
    with pytest.raises(UsageError, match=match) as error:
        plan(request(base), Silence())
    assert error.value.remedy


def test_an_input_that_is_not_there_and_a_seed_that_the_log_has_are_refused(base):
    with pytest.raises(UsageError, match="with seed 7 already"):
        plan(request(base, seeds=(7,)), Silence())
    (base / "data.csv").unlink()
    with pytest.raises(SourceError, match=r"training.inputs.data"):
        plan(request(base), Silence())


def test_a_program_that_is_none_and_a_folder_that_cannot_be_written(base):
    configure(base, training__command=["no-such-program", "{seed}"])
    with pytest.raises(UsageError, match="'no-such-program': No such file"):
        repeat(base)
    (base / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        repeat(base, output=base / "file" / "out")


def test_a_repository_without_a_commit_is_refused(base):
    subprocess.run(["rm", "-rf", base / ".git"], check=True)
    git(base, "init", "-q")
    with pytest.raises(SourceError, match="has no commit"):
        plan(request(base), Silence())


def test_seeds_that_failed_are_not_chosen_again_where_they_stand_in_the_log(base):
    train(base, seed=1, name="broken", MOOD="fail 1")
    assert [each.seed for each in plan(request(base, runs=3), Silence()).trainings] == [2, 3]


def command(*words: object):
    done = CliRunner().invoke(rerun, [str(each) for each in words], standalone_mode=False)
    return done.return_value, done.output, done.exception


def test_the_command_says_what_to_add_and_what_the_log_then_shows(base, monkeypatch):
    words = (base / "bundle.yaml", "-o", base / "repetitions")
    code, said, _ = command(*words, "--runs", "3")
    assert code == 0
    assert "repeating run chosen with seed 1, 2" in said
    assert "seed 1: finished in" in said
    assert "independent runs: 3 (1 before)" in said
    assert "holdout_auc: 0.8" in said
    assert "gate ✗ not met  auc: lower 95% bound" in said
    entries = yaml.safe_load(said[said.index("  - tracker") :])
    assert entries == [
        {"tracker": "metrics", "store": f"repetitions/seed-{seed}"} for seed in (1, 2)
    ]
    configure(base, sources=[*CONFIG["sources"], *entries])
    code, said, _ = command(*words, "--runs", "3")
    assert (code, said.splitlines()[-1]) == (
        0,
        "the log has 3 independent runs of this configuration already; --runs or --seeds asks for more",
    )
    monkeypatch.setenv("MOOD", "fail 4")
    code, said, _ = command(*words, "--seeds", "4")
    assert code == 1
    assert "failed: seed 4: the training failed: exit code 1; cannot \\x1b[31m go on" in said


def test_few_runs_are_said_to_be_few_and_dirty_code_is_warned_of(base):
    (base / "code" / "new.py").write_text("")
    _, said, _ = command(base / "bundle.yaml", "-o", base / "repetitions", "--runs", "2")
    assert "warning: " in said
    assert "fewer than 3 give no interval that says anything" in said


@pytest.mark.parametrize(
    "words",
    [("--seeds", "1,1"), ("--seeds", "a"), ("--seeds", "-1"), ("--seeds", "1", "--runs", "5")],
)
def test_a_command_line_that_says_nothing_sensible_is_refused(base, words):
    _, _, error = command(base / "bundle.yaml", "-o", base / "r", *words)
    assert isinstance(error, UsageError)


def test_on_a_terminal_a_run_shows_its_last_line(base):
    from rich.console import Console
    from rich.progress import Progress, TextColumn
    from rich.text import Text

    from bundler.cli.repeat import _Live

    console = Console(force_terminal=True, width=80, record=True)
    with Progress(TextColumn("{task.description}"), console=console) as progress:
        live = _Live(progress)
        live.begun(3)
        live.said(3, "epoch [red]1")
        assert Text.from_markup(progress.tasks[0].description).plain == "seed 3  epoch [red]1"
        attempt = Attempt(seed=3, exit_code=0, seconds=1.25, problem="", identity="i")
        live.ended(attempt)
        assert progress.tasks == []
    assert "seed 3: finished in 1.2 s" in console.export_text()


def test_a_terminal_gets_live_lines_and_a_pipe_plain_ones(monkeypatch, capsys):
    from bundler.cli import repeat as door

    with door._watching() as watch:
        assert isinstance(watch, door._Lines)
        watch.begun(3)
        watch.said(3, "epoch 1")
    assert capsys.readouterr().err == "seed 3 …\n"
    monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda _: True))
    with door._watching() as watch:
        assert isinstance(watch, door._Live)


def test_a_store_that_is_listed_already_is_not_named_again(base):
    _, _, conclusion = repeat(base, seeds=(1,))
    add(base, conclusion)
    _, _, conclusion = repeat(base, seeds=(2,))
    assert [each.store for each in conclusion.sources] == ["repetitions/seed-2"]
    configure(base, sources=[*CONFIG["sources"], {"tracker": "metrics", "store": "repetitions"}])
    _, _, conclusion = repeat(base, seeds=(3,))
    # All of the folder is one source: nothing is to be added, and the new run counts.
    assert (conclusion.sources, conclusion.runs) == ((), 4)


def test_runs_that_cannot_be_told_apart_are_refused(provider):
    """A tracker that gives every run the same name, whatever folder it is read from."""
    from tests import tiny

    provider.config["training"]["command"] = ["{python}", "train.py", "{seed}", "1", "{out}/run"]
    provider.config["training"]["outputs"] = {"tracker": "tiny", "location": "run"}
    tiny.FakeImporter.runs = provider.runs[2:3]
    provider.write_config()
    planned = plan(request(provider.root, seeds=(1,)), Silence())
    attempts = repeated(planned).run(Watch())
    with pytest.raises(SourceError, match="cannot be told apart"):
        conclude(planned, attempts, Silence())


def test_other_data_than_the_selected_run_is_said(provider):
    from tests import tiny

    provider.config["training"]["command"] = ["{python}", "train.py", "{seed}", "1", "{out}/run"]
    provider.config["training"]["outputs"] = {"tracker": "tiny", "location": "run"}
    provider.write_config()
    tiny.FakeImporter.runs = provider.runs[2:3]
    planned = plan(request(provider.root, seeds=(1,)), Silence())
    (run,) = provider.runs[2:3]
    new = replace(
        run,
        source=replace(run.source, run_id="new"),
        parameters={**run.parameters, "seed": "1"},
        data=(),
    )
    tiny.FakeImporter.runs = [new]
    attempts = repeated(planned).run(Watch())
    planned = replace(planned, request=replace(planned.request, config=replace(planned.request.config, sources=())))  # fmt: skip
    conclusion = conclude(planned, attempts, Silence())
    assert conclusion.problems == ("seed-1 is no repetition: it records other data than the selected run",)  # fmt: skip
    assert conclusion.gates[0].verdict == "inconclusive"


def test_a_result_that_cannot_be_written_and_an_unknown_signal(tmp_path, monkeypatch):
    training = Training(
        seed=1, command=("sh", "-c", "kill -40 $$"), environment={}, folder=tmp_path, identity="i"
    )
    (attempt,) = Repeated(tmp_path / "out", [training], lambda _: "").run(Watch())
    assert attempt.problem == "the training failed: killed by signal 40; it printed nothing"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("rename", "write_bytes"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, full)
            with pytest.raises(OutputError, match="No space left on device"):
                Repeated(tmp_path / "out", [training], lambda _: "").run(Watch())


def test_a_gate_over_predictions_is_judged_as_build_bundle_judges_it(base):
    predictions = {"path": "predictions.csv", "label": "label", "score": "score"}
    sampling = {"kind": "predictions", "dataset_role": "holdout", "statistic": "brier", "predictions": predictions}  # fmt: skip
    gate = {"name": "g", "category": "performance", "metric": "holdout_brier", "comparator": "<=", "threshold": 0.3, "sampling": sampling}  # fmt: skip
    parameters = {"rate": "0.1", "seed": 7, "rows": 4}
    (base / "runs" / "chosen" / "params.json").write_text(json.dumps(parameters))
    (base / "runs" / "chosen" / "metrics.json").write_text('{"val_auc": 1, "holdout_brier": 0.25}')
    facts = {"finished_with": "holdout_brier", "data_rows": {"holdout": "parameters.rows"}}
    configure(base, gates=[gate], facts=facts)
    planned = plan(request(base), Silence())
    (result,) = conclude(planned, (), Silence()).gates
    assert "predictions.csv" in result.explanation
    (base / "runs" / "chosen" / "predictions.csv").write_text("label,score\n0,0.5\n1,0.6\n0,0.4\n1,0.5\n")  # fmt: skip
    planned = plan(request(base), Silence())
    (result,) = conclude(planned, (), Silence()).gates
    assert result.holdout_variance is not None


def test_a_tracker_whose_runs_are_known_by_the_nearest_folder_only_needs_a_shallow_location(base):
    command = [*CONFIG["training"]["command"][:-1], "--out={out}/a/b"]
    outputs = {"tracker": "dvclive", "location": "a/b"}
    configure(base, training__command=command, training__outputs=outputs)
    with pytest.raises(SourceError, match=r"runs of dvclive .* cannot be told apart") as error:
        repeat(base, seeds=(1, 2))
    assert "one folder only" in error.value.remedy
    command[-1] = "--out={out}/live"
    configure(base, training__command=command, training__outputs={**outputs, "location": "live"})
    _, _, conclusion = repeat(base, seeds=(1, 2), output=base / "again")
    assert [each.store for each in conclusion.sources] == ["again/seed-1", "again/seed-2"]
