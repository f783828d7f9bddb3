"""A training of two processes that torchrun starts: repeated by its provider, and by a verifier in the sandbox."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

BIN = Path(sys.executable).parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("distributed"),
    pytest.mark.skipif(find_spec("torch") is None, reason="needs torch, as the example does"),
]

TRAIN = """\
import argparse, gc, json, pathlib

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int)
parser.add_argument("--lr", type=float)
parser.add_argument("--out", type=pathlib.Path)
a = parser.parse_args()

dist.init_process_group("gloo")
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

source = torch.Generator().manual_seed(0)
x = torch.randn(400, 8, generator=source)
y = ((x @ torch.randn(8, generator=source) + 0.5 * torch.randn(400, generator=source)) > 0).float()

torch.manual_seed(a.seed)
net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
model = DistributedDataParallel(net)
optimiser = torch.optim.SGD(model.parameters(), lr=a.lr)
train = TensorDataset(x[:200], y[:200])
sampler = DistributedSampler(train, seed=a.seed)
lines = []
for epoch in range(4):
    sampler.set_epoch(epoch)
    total = torch.zeros(1)
    for batch, label in DataLoader(train, batch_size=25, sampler=sampler):
        optimiser.zero_grad()
        loss = binary_cross_entropy_with_logits(model(batch)[:, 0], label)
        loss.backward()
        optimiser.step()
        total += loss.detach()
    dist.all_reduce(total)
    lines.append({"epoch": epoch, "train_loss": total.item()})

if dist.get_rank() == 0:
    a.out.mkdir(parents=True)
    world = {"seed": a.seed, "lr": a.lr, "world_size": dist.get_world_size()}
    (a.out / "params.json").write_text(json.dumps(world))
    (a.out / "metrics.jsonl").write_text("".join(json.dumps(each) + "\\n" for each in lines))
    with torch.no_grad():
        score = net(x)[:, 0].sigmoid()
    brier = (score - y) ** 2
    last = {"val_brier": brier[200:300].mean().item(), "holdout_brier": brier[300:].mean().item()}
    (a.out / "metrics.json").write_text(json.dumps(last))
    save_file(net.state_dict(), a.out / "model.safetensors")

# The model holds the process group: threads of gloo that outlive it would abort the process at its end.
del model, optimiser, loss
gc.collect()
dist.barrier()
dist.destroy_process_group()
"""

COMMAND = [
    *("{python}", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
    *("train_ddp.py", "--seed={seed}", "--lr={parameter.lr}", "--out={out}/run"),
]

CONFIG = {
    "version": 1,
    "system": {"name": "tiny", "version": "1", "provider": "p", "intended_purpose": "p"},
    "sources": [{"tracker": "metrics", "store": "first"}],
    "facts": {
        "finished_with": "holdout_brier",
        "model": "model.safetensors",
        "metrics": {"hold-out": ["holdout_*"], "validation": ["val_*"], "training": ["train_*"]},
    },
    "selection": {
        "run": "first",
        "metric": "val_brier",
        "direction": "minimise",
        "rationale": "The only candidate.",
    },
    "reproducibility": {
        "level": "bitwise",
        "tolerances": [{"metric": "holdout_brier", "margin": 0.02}],
    },
    "training": {
        "code": "code",
        "command": COMMAND,
        "outputs": {"tracker": "metrics", "location": "run", "tensors": ["model.safetensors"]},
        "resources": {"cpus": 2},
    },
}


def command(*words: object, expected: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [BIN / str(words[0]), *map(str, words[1:])], capture_output=True, text=True
    )
    assert done.returncode in expected, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A provider with two runs of a training of two processes, and the bundle."""
    base = tmp_path_factory.mktemp("distributed")
    code = base / "code"
    code.mkdir()
    (code / "train_ddp.py").write_text(TRAIN)
    git = ["git", "-C", code, "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "training"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    values = {"{python}": sys.executable, "--seed={seed}": "--seed=42", "--lr={parameter.lr}": "--lr=0.5"}  # fmt: skip
    values["--out={out}/run"] = f"--out={base}/first"
    done = subprocess.run([values.get(word, word) for word in COMMAND], cwd=code, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr

    config = base / "bundle.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    said = command("bundler", "rerun", config, "-o", base / "repetitions", "--runs", "2")
    entries = yaml.safe_load(said.stdout[said.stdout.index("  - tracker") :])
    config.write_text(yaml.safe_dump(CONFIG | {"sources": [*CONFIG["sources"], *entries]}))
    command("bundler", "keygen", "-o", base / "keys")
    command("build-bundle", config, "-o", base / "bundle", "--key", base / "keys" / "key.pem")
    return base


def test_two_processes_that_talk_to_each_other_give_the_same_bits_in_the_sandbox(base, tmp_path):
    report = tmp_path / "report.json"
    command(
        *("verify-bundle", base / "bundle", "--trust", base / "keys" / "trust.pem"),
        *("--report", report, "--rerun", "--runs", "0", "--sandbox", "bubblewrap"),
        *("--state", tmp_path / "state"),
        # Gaps there are: what a hurried provider leaves out is not what this is about.
        expected=(0, 1, 6),
    )
    found = json.loads(report.read_bytes())
    codes = {each["code"] for check in found["checks"] for each in check["findings"]}
    assert not codes & {"training-command-elsewhere", "training-code-elsewhere", "rerun-failed"}
    (rerun,) = found["reruns"]
    assert rerun["exit_code"] == 0
    assert rerun["isolation"]["kind"] == "bubblewrap"
    assert len(rerun["tensors"]) == 4
    assert {each["metric"] for each in rerun["metrics"]} == {"holdout_brier", "train_loss", "val_brier"}  # fmt: skip
    # One core type, one thread a process: the order of every sum is fixed, the exchanged ones included.
    assert all(each["equal"] for each in rerun["tensors"])
    assert all(each["points_differing"] == 0 for each in rerun["metrics"])
    assert rerun["verdict"] == "bitwise"


def test_the_record_says_how_many_processes_there_were(base):
    lines = (base / "bundle" / "data" / "records.jsonl").read_text().splitlines()
    runs = [json.loads(line)["run"] for line in lines]
    assert [(run["seed"], run["parameters"]["world_size"]) for run in runs] == [(42, 2), (1, 2)]
    assert {run["status"] for run in runs} == {"finished"}
