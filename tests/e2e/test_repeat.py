"""`bundler rerun` on the real example: the repetitions are in another store than the runs, and count all the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("repeat")]


def command(*words: object, cwd: Path) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [BIN / str(words[0]), *map(str, words[1:])], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


TRAINED = "9980b14322fa9f65358cbdf0758fadd7fa2ce5ee"
"""The commit that the runs of the example record."""


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_repetitions_of_the_example_in_a_file_store_count_beside_its_database(tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--shared", ROOT, clone], check=True)
    example = clone / "example_bundle"
    # The results were committed after the training, so HEAD has moved on: back to the code of the selected run.
    store = ("bundle.yaml", "credit_scoring/mlflow.db", "credit_scoring/mlartifacts")
    head = git(clone, "rev-parse", "HEAD")
    git(clone, "checkout", "-q", TRAINED)
    git(example, "checkout", "-q", head, "--", *store)
    before = git(clone, "status", "--porcelain")
    said = command("bundler", "rerun", "-o", "repetitions", "--seeds", "6,7", cwd=example)
    # The results lie in the repository, and the training looks at its working tree.
    assert git(clone, "status", "--porcelain") == before
    assert "warning" not in said.stderr
    entries = yaml.safe_load(said.stdout[said.stdout.index("  - tracker") :])
    assert entries == [
        {"tracker": "mlflow", "store": f"repetitions/seed-{seed}/mlruns"} for seed in (6, 7)
    ]
    config = yaml.safe_load((example / "bundle.yaml").read_text())
    config["sources"] += entries
    (example / "bundle.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    command("bundler", "keygen", "-o", tmp_path / "keys", cwd=tmp_path)
    key = tmp_path / "keys" / "key.pem"
    command("build-bundle", "-o", tmp_path / "bundle", "--key", key, "--strict", cwd=example)
    lines = (tmp_path / "bundle" / "data" / "records.jsonl").read_text().splitlines()
    runs = [json.loads(line)["run"] for line in lines]
    index = json.loads((tmp_path / "bundle" / "data" / "bundle.json").read_bytes())
    selected = next(run for run in runs if run["id"] == index["selection"]["run"])

    def configuration(run):
        return {name: value for name, value in run["parameters"].items() if name != "seed"}

    seeds = {run["seed"] for run in runs if configuration(run) == configuration(selected)}
    assert {6, 7} < seeds
    assert len({run["id"] for run in runs}) == len(runs)
    assert {result["runs"] for result in index["gate_results"]} == {len(seeds)}
    assert f"independent runs: {len(seeds)} ({len(seeds) - 2} before)" in said.stdout
