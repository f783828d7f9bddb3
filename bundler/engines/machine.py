"""How much of this machine may be used: processors, memory and GPUs, within affinity and cgroups."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bundler.sandbox.cgroups import folders as cgroup_folders
from bundler.spec import Resources
from bundler.trials import Trial

_DEVICE = re.compile(r"nvidia[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What may be used: processor cores, bytes of memory, GPUs by CUDA's names; ``devices`` counts all GPUs."""

    cores: int
    memory_bytes: int
    gpus: tuple[str, ...]
    devices: int

    def room(self, need: Resources) -> int:
        """How many trials fit at once; at least one, since a machine that is too small may still manage."""
        fits = [self.cores // max(1, need.cpus)]
        if need.memory_bytes:
            fits.append(self.memory_bytes // need.memory_bytes)
        if need.gpus and self.gpus:  # without any, the training runs on processors
            fits.append(len(self.gpus) // need.gpus)
        return max(1, min(fits))


def this_machine(proc: Path = Path("/proc"), dev: Path = Path("/dev")) -> Machine:
    """Ask the kernel."""
    cores, memory = len(os.sched_getaffinity(0)), _available(proc)
    with suppress(OSError, ValueError):
        membership = (proc / "self/cgroup").read_text()
        folders = cgroup_folders((proc / "self/mountinfo").read_text(), membership)
        for folder in {folder for chain in folders.values() for folder in chain}:
            cores = min(cores, *_quota(folder), cores)
            memory = min(memory, *_left(folder), memory)
    devices = _devices(dev)
    return Machine(cores=max(1, cores), memory_bytes=memory, gpus=_chosen(devices), devices=devices)


def with_gpus(trial: Trial, given: tuple[str, ...], devices: int) -> Trial:
    """``trial`` with the GPUs ``given`` to it alone; unchanged where those are all ``devices`` that a job is shown."""
    if not given or len(given) >= devices:
        return trial
    return replace(
        trial, environment={**trial.environment, "CUDA_VISIBLE_DEVICES": ",".join(given)}
    )


def _devices(dev: Path) -> int:
    with suppress(OSError):
        return sum(1 for entry in dev.iterdir() if _DEVICE.fullmatch(entry.name))
    return 0


def _chosen(devices: int) -> tuple[str, ...]:
    """The GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, or all."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if devices and chosen is not None:
        return tuple(word.strip() for word in chosen.split(",") if word.strip() not in {"", "-1"})
    return tuple(str(i) for i in range(devices))


def _available(proc: Path) -> int:
    with suppress(OSError):
        for line in (proc / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _quota(folder: Path) -> Iterator[int]:
    """Whole processors that the CPU quota of a cgroup allows, rounded up; nothing where it has none."""
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        yield max(1, -(-int(quota) // int(period)))
    with suppress(OSError, ValueError):
        v1 = int((folder / "cpu.cfs_quota_us").read_text())
        if v1 > 0:
            yield max(1, -(-v1 // int((folder / "cpu.cfs_period_us").read_text())))


def _left(folder: Path) -> Iterator[int]:
    """Bytes that the memory limit of a cgroup leaves, with the page cache that the kernel would give up."""
    for limit, usage, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with suppress(OSError, ValueError):
            most = int((folder / limit).read_text())
            used = int((folder / usage).read_text())
            fields = dict(
                line.split() for line in (folder / "memory.stat").read_text().splitlines()
            )
            yield max(0, most - used + int(fields.get(cache, 0)))
