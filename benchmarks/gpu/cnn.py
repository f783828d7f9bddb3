"""Train a small convolutional network on pictures that it makes itself, and write what came out as JSON.

One training a process, since a process is what a verifier repeats. Its pooling adds up pixels by index: on CUDA that
is done by atomic additions in any order, unless torch is asked for deterministic algorithms. Needs torch alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import time
from pathlib import Path

# cuBLAS reads it when it starts, and torch demands it in deterministic mode.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch
from torch import nn
from torch.nn import functional

CLASSES = 10
SIDE = 24
REGIONS = 16


class Network(nn.Module):
    """Two convolutions, sums over regions of pixels, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 32, 3, padding=1)
        self.last = nn.Linear(32 * REGIONS, CLASSES)
        regions = torch.randint(REGIONS, (SIDE * SIDE,), generator=torch.Generator().manual_seed(0))
        self.register_buffer("regions", regions)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Scores of the classes for a batch of pictures."""
        maps = functional.relu(self.second(functional.relu(self.first(pictures)))).flatten(2)
        empty = torch.zeros(*maps.shape[:2], REGIONS, device=maps.device)
        sums = empty.index_add(2, self.regions, maps) / (SIDE * SIDE / REGIONS)
        return self.last(sums.flatten(1))


def pictures(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``count`` noisy pictures of ten shapes, and which shape each shows; made on the processor for every device."""
    shapes = torch.randn(CLASSES, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    noise = torch.randn(count, 1, SIDE, SIDE, generator=generator)
    return shapes[labels] * 0.25 + noise, labels


def train(options: argparse.Namespace) -> dict[str, object]:
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    data, labels = (each.to(device) for each in pictures(options.examples, seed=2))
    network = Network().to(device)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    order = torch.Generator().manual_seed(options.seed)
    _wait(device)
    begun = time.perf_counter()
    loss = torch.zeros(())
    for _ in range(options.epochs):
        for batch in torch.randperm(options.examples, generator=order).split(128):
            at = batch.to(device)
            optimiser.zero_grad()
            loss = functional.cross_entropy(network(data[at]), labels[at])
            loss.backward()
            optimiser.step()
    _wait(device)
    seconds = time.perf_counter() - begun
    with torch.no_grad():
        held_out, truth = (each.to(device) for each in pictures(4_000, seed=3))
        scores = torch.cat([network(part) for part in held_out.split(500)])
    weights = torch.cat([each.detach().cpu().flatten() for each in network.parameters()])
    raw = weights.numpy().astype("<f4").tobytes()
    if options.weights:
        options.weights.write_bytes(raw)
    return {
        "accuracy": float((scores.argmax(1) == truth).double().mean()),
        "log_loss": float(functional.cross_entropy(scores, truth)),
        "last_loss": float(loss.detach()),
        "seconds": seconds,
        "sha256": hashlib.sha256(raw).hexdigest(),
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def hardware(device: str) -> dict[str, object]:
    """What the figures depend on: names and versions, no identifiers."""
    found: dict[str, object] = {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "processor": _processor(),
    }
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        driver = Path("/proc/driver/nvidia/version")
        said = driver.read_text() if driver.exists() else ""
        version = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", said)
        found |= {
            "gpu": card.name,
            "compute_capability": f"{card.major}.{card.minor}",
            "memory_bytes": card.total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": version[0] if version else None,
            "tf32_in_cudnn": torch.backends.cudnn.allow_tf32,
            "tf32_in_matmul": torch.backends.cuda.matmul.allow_tf32,
        }
    return found


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        "unknown",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(1)
    torch.use_deterministic_algorithms(options.deterministic)
    torch.backends.cudnn.benchmark = not options.deterministic
    made = {**train(options), "hardware": hardware(options.device)}
    options.output.write_text(json.dumps(made))


if __name__ == "__main__":
    main()
