"""What lies in the folder of a W&B run beside its record log: ``files/`` with metadata, requirements and patches."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bundler.importers.files import too_large, unreadable_artefact, walk
from bundler.importers.model import ArtefactFile
from bundler.importers.protobuf import WireError
from bundler.importers.values import Flag, clean, integer, text
from bundler.importers.wandb.items import parsed
from bundler.records import Scalar

METADATA = "wandb-metadata.json"
REQUIREMENTS = "requirements.txt"
PATCH = "diff.patch"

MAX_METADATA = 4 << 20
MAX_REQUIREMENTS = 4 << 20

_PLAIN = {
    "os": "platform",
    "docker": "docker",
    "cpu_count": "cpu.count",
    "cpu_count_logical": "cpu.logical",
    "gpu_count": "gpu.count",
    "cuda": "cuda",
    "cudaVersion": "cuda",
    "executable": "executable",
    "program": "program",
    "root": "root",
    "host": "host",
    "username": "user",
    "email": "email",
}
"""W&B's names and ours."""


def run_files(folder: Path | None, prefix: str, flag: Flag) -> list[ArtefactFile]:
    """All files of a run. Links are not followed, but flagged."""
    return [] if folder is None else list(walk(folder / "files", prefix, flag))


def metadata(files: Mapping[str, Path], flag: Flag) -> dict[str, Any]:
    """What ``wandb-metadata.json`` says (wandb 0.17 and 0.19); nothing if there is none."""
    data = _read(files.get(METADATA), MAX_METADATA)
    if data is None:
        return {}
    try:
        found = parsed(data)
    except WireError:
        found = None
    if not isinstance(found, dict):
        flag("environment", "unreadable", METADATA)
        return {}
    return found


def environment(said: Mapping[str, Any]) -> dict[str, Scalar]:
    """Facts of metadata, or of environment records in the same form, under our names."""
    found: dict[str, Scalar] = {}
    for theirs, ours in _PLAIN.items():
        value = said.get(theirs)
        if isinstance(value, str | int | float) and value != "":
            found[ours] = clean(value) if isinstance(value, str) else value
    python = said.get("python")
    if isinstance(python, str):
        implementation, _, version = python.rpartition(" ")
        found["python"] = clean(version)
        if implementation:
            found["python.implementation"] = clean(implementation)
    arguments = said.get("args")
    if isinstance(arguments, list) and arguments:
        found["arguments"] = clean(json.dumps(arguments, separators=(",", ":")))
    found |= _hardware(said)
    return found


def _hardware(said: Mapping[str, Any]) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    cpu, memory = said.get("cpu"), said.get("memory")
    if isinstance(cpu, dict) and isinstance(cpu.get("model"), str) and cpu["model"]:
        found["cpu.model"] = clean(cpu["model"])
    total = _bytes(memory.get("total")) if isinstance(memory, dict) else None
    if total:
        found["memory_bytes"] = total
    devices = said.get("gpu_nvidia") or said.get("gpu_devices") or said.get("gpu_amd")
    if not isinstance(devices, list):
        devices = [{"name": said["gpu"]}] if isinstance(said.get("gpu"), str) else []
    for index, device in enumerate(devices[:1024]):
        if isinstance(device, dict) and isinstance(device.get("name"), str):
            found[f"gpu.{index}.model"] = clean(device["name"])
            size = _bytes(device.get("memoryTotal", device.get("memory_total")))
            if size:
                found[f"gpu.{index}.memory_bytes"] = size
    return found


def _bytes(value: Any) -> int | None:
    """A size: 0.17 writes GiB as a float, 0.19 bytes as text."""
    if isinstance(value, float):
        return int(value * (1 << 30)) if 0 < value < 1 << 20 else None
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"[0-9]{1,15}", value) else None
    return integer(value)


def packages(files: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """``packages.NAME`` and version of each line of ``requirements.txt``, as ``pip freeze`` writes it."""
    data = _read(files.get(REQUIREMENTS), MAX_REQUIREMENTS)
    for line in text(data or b"").splitlines():
        found = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:==|@)\s*(\S.*)", line)
        if found:
            yield f"packages.{found[1]}", found[2].strip()


def patch(files: Mapping[str, Path]) -> str | None:
    """The file with the uncommitted changes, where there were some."""
    file = files.get(PATCH)
    try:
        return PATCH if file is not None and file.stat().st_size else None
    except OSError as error:
        raise unreadable_artefact(file or Path(PATCH), error) from None


def _read(file: Path | None, limit: int) -> bytes | None:
    if file is None:
        return None
    try:
        with file.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise unreadable_artefact(file, error) from None
    if len(data) > limit:
        raise too_large(file, f"{limit:,} bytes")
    return data
