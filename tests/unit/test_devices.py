"""What recorded facts say of the device, and what a re-run on CUDA is given."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.devices import cuda_environment, device_of
from bundler.sandbox.gpus import devices


@pytest.mark.parametrize(
    ("facts", "device"),
    [
        # The example, and what scripts write by hand.
        ({"cuda": None, "versions.torch": "2.13.0+cpu", "cpu_model": "x"}, "cpu"),
        ({"cuda": None}, "cpu"),
        ({"cuda": False}, "cpu"),
        ({"cuda_available": False}, "cpu"),
        ({"torch.cuda.is_available": "False"}, "cpu"),
        ({"device": "cpu"}, "cpu"),
        ({"device": "cuda:0"}, "cuda"),
        ({"device": "cuda"}, "cuda"),
        ({"accelerator": "gpu"}, "cuda"),
        ({"torch_device": "CUDA:1", "cuda": None}, "cuda"),  # said outright
        ({"device": "mps"}, "unknown"),
        ({"device": "mps", "cuda": False}, "cpu"),
        ({"device": "cpu", "train_device": "cuda"}, "unknown"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "cpu"),
        ({"variables.CUDA_VISIBLE_DEVICES": "-1", "gpu_count": 1}, "cpu"),
        ({"CUDA_VISIBLE_DEVICES": "0"}, "unknown"),
        ({"versions.torch": "2.13.0+cpu"}, "cpu"),
        ({"torch": "2.13.0+cu128"}, "unknown"),
        # A version of CUDA is often that of the build, and says nothing of its use.
        ({"cuda": "12.8"}, "unknown"),
        ({"cuda": "12.8", "gpu": "NVIDIA H100 80GB HBM3"}, "cuda"),
        ({"cuda": "12.8", "gpu_count": 0}, "cpu"),
        ({"cuda_available": True, "versions.torch": "2.13.0+cpu", "gpu": "x"}, "unknown"),
        # Weights & Biases and ClearML.
        ({"gpu.count": 2, "gpu.0.model": "NVIDIA A100-SXM4-40GB", "cuda": "12.4"}, "cuda"),
        ({"gpu.count": 1, "gpu.0.model": "NVIDIA T4"}, "unknown"),
        # bundler capture.
        ({"gpu.source": "torch", "gpu.0.model": "NVIDIA H100", "cuda.runtime": "12.8"}, "cuda"),
        ({"gpu.source": "nvidia-smi", "gpu.0.model": "NVIDIA H100", "cuda": "12.8"}, "unknown"),
        ({"not_recorded.gpu": "torch does not use CUDA; no nvidia-smi; no GPU in /proc"}, "cpu"),
        ({"not_recorded.gpu": "x", "gpu.source": "torch"}, "cuda"),
        # The default device of torch is the CPU whatever the model is moved to.
        ({"determinism.torch.default_device": "cpu"}, "unknown"),
        ({}, "unknown"),
    ],
)  # fmt: skip
def test_the_device_that_facts_speak_of(facts, device):
    assert device_of(facts) == device


_SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8)


@given(st.dictionaries(st.sampled_from(["device", "cuda", "gpu", "gpu.count", "gpu.source", "torch", "", "Ü"]) | st.text(max_size=6), _SCALARS))  # fmt: skip
def test_any_facts_give_one_of_three_answers(facts):
    assert device_of(facts) in {"cpu", "cuda", "unknown"}


def test_only_chance_is_taken_out_of_cuda():
    given_variables = cuda_environment()
    assert given_variables["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert given_variables["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    # These would change numbers, or hide an error, and are the provider's to set.
    assert (
        not {"NVIDIA_TF32_OVERRIDE", "CUDA_LAUNCH_BLOCKING", "XLA_FLAGS"} & given_variables.keys()
    )


# --- the benchmark that measures it, in small --------------------------------------------------

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_the_benchmark_goes_its_whole_way_without_a_gpu(tmp_path):
    pytest.importorskip("torch")
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    command = [sys.executable, str(BENCHMARKS / "gpu/measure.py"), "--device", "cpu", "--runs", "2"]
    size = ["--examples", "200", "--epochs", "1", "--results", str(tmp_path)]
    (tmp_path / "example-cpu.json").write_text('{"exit_code": 0, "reruns": [{"verdict": "X"}]}')
    done = subprocess.run(
        [*command, *size, "--reports", str(tmp_path)], check=True, capture_output=True, text=True
    )
    figures = json.loads((tmp_path / "gpu_cpu.json").read_text())
    assert figures["same_seed_deterministic"]["distinct_weights"] == 1
    assert figures["seeds_deterministic"]["distinct_weights"] == 2
    assert figures["in_the_sandbox"]["same_weights"] is True
    assert set(figures["hardware"]) == {"torch", "threads", "processor"}  # nothing of a GPU
    assert 0 <= figures["seeds_deterministic"]["accuracy_mean"] <= 1
    assert figures["example"] == {"cpu": {"exit_code": 0, "verdict": None, "reruns": ["X"]}}
    assert "deterministic mode takes" in done.stdout


@pytest.mark.parametrize(
    "command", [[str(BENCHMARKS / "gpu.sh")], [sys.executable, str(BENCHMARKS / "gpu/measure.py")]]
)
def test_without_a_gpu_the_benchmark_says_so(command):
    if devices():
        pytest.skip("there is a GPU")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3
    assert "there is no cuda device on this machine" in done.stderr.lower()
