"""What kind of device a training computed on, and the variables that make CUDA repeat itself (docs/gpu.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from bundler.records import Scalar

Device = Literal["cpu", "cuda", "unknown"]

_SAID = ("device", "torch_device", "training_device", "train_device", "accelerator", "device_type")
_AVAILABLE = ("cuda", "cuda_available", "cuda_is_available", "torch_cuda_available", "torch_cuda_is_available",
              "gpu_available", "use_cuda")  # fmt: skip
_COUNTS = ("gpu_count", "num_gpus", "n_gpu", "n_gpus", "cuda_device_count")
_NONE = frozenset({"", "none", "null", "no", "false", "0", "n/a", "cpu"})
_HIDDEN = frozenset({"", "-1", "none", "nodevfiles", "void"})
_CPU_BUILD = re.compile(r"(?:.*_)?torch")
_MODEL = re.compile(r"gpu(?:_\d+)?_(?:model|name|type)|(?:cuda_)?device_name|gpu|gpu_name")


def cuda_environment() -> Mapping[str, str]:
    """The variables that a re-run on CUDA gets, unless the training specification sets them itself.

    Only what removes chance: none of them changes a number that the provider's own run had fixed. docs/gpu.md says why
    each is here, and why others are not.
    """
    return {
        # cuBLAS from CUDA 10.2 on; torch refuses deterministic mode without it.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        # Otherwise device 0 is the one that CUDA believes to be the fastest.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def device_of(environment: Mapping[str, Scalar]) -> Device:
    """The device that recorded facts speak of, by the names that `bundler capture`, trackers and scripts give them.

    ``unknown`` where they say nothing or contradict each other. A GPU that was only present is not one that was used:
    it counts where CUDA was available to the framework as well.
    """
    facts = {_key(name): value for name, value in environment.items()}
    said = {_named(facts[name]) for name in _SAID if name in facts} - {None}
    if not said:
        said = {*_signs_of_cpu(facts), *_signs_of_cuda(facts)}
    return said.pop() or "unknown" if len(said) == 1 else "unknown"


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _named(value: Scalar) -> Device | None:
    """The device that a value such as ``cuda:0`` names; others, such as ``mps``, are neither."""
    text = str(value).lower()
    if re.match(r"(cuda|gpu|nvidia)\b", text):
        return "cuda"
    return "cpu" if re.match(r"cpu\b", text) else None


def _signs_of_cpu(facts: Mapping[str, Scalar]) -> Iterable[Device]:
    off = [facts[name] for name in _AVAILABLE if name in facts]
    count = [facts[name] for name in _COUNTS if name in facts]
    hidden = next((v for k, v in facts.items() if k.endswith("cuda_visible_devices")), None)
    # What `bundler capture` says where neither torch, nvidia-smi nor the driver shows a GPU.
    none_found = "not_recorded_gpu" in facts and "gpu_source" not in facts
    built_for = any(
        _CPU_BUILD.fullmatch(name) and str(value).endswith("+cpu") for name, value in facts.items()
    )
    if (
        any(_is_none(value) for value in off)
        or any(str(value) == "0" for value in count)
        or (hidden is not None and str(hidden).lower() in _HIDDEN)
        or none_found
        or built_for
    ):
        yield "cpu"


def _signs_of_cuda(facts: Mapping[str, Scalar]) -> Iterable[Device]:
    source = facts.get("gpu_source")
    if source is not None:
        # `bundler capture`: torch lists devices only if it uses CUDA by then; others list what is built in.
        if source == "torch":
            yield "cuda"
        return
    available = any(name in facts and not _is_none(facts[name]) for name in _AVAILABLE)
    present = any(_MODEL.fullmatch(name) and not _is_none(value) for name, value in facts.items())
    counted = any(name in facts and not _is_none(facts[name]) for name in _COUNTS)
    if available and (present or counted):
        yield "cuda"


def _is_none(value: Scalar) -> bool:
    return value is None or str(value).strip().lower() in _NONE
