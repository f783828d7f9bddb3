"""NVIDIA devices in a sandbox: which there are, and what a job needs to use them.

Whoever is given these devices can send any request to the driver in the kernel: the sandbox does not filter them.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from bundler.sandbox.model import Limits

_DEVICE = re.compile(r"nvidia(\d+|ctl|-uvm|-uvm-tools|-modeset|-caps)")
_COMPUTE = re.compile(r"nvidia\d+")
_FOLDERS = (
    *("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"),
    *("/usr/lib64", "/usr/lib", "/usr/lib/wsl/lib"),
)
_LIBRARIES = (
    *("libcuda", "libcudadebugger", "libnvidia-ml", "libnvidia-ptxjitcompiler", "libnvidia-nvvm"),
    *("libnvidia-gpucomp", "libnvidia-tileiras", "libnvidia-fatbinaryloader"),
)
"""What a driver brings for computing; an image has CUDA itself, but never the libraries of a driver."""

PROCESSES = 4096
"""CUDA starts threads for each device and each process, and loaders of data some for each core."""


def devices(folder: Path = Path("/dev")) -> tuple[Path, ...]:
    """The device nodes for computing, or none if there is no GPU (not those for screens, ``/dev/dri``)."""
    try:
        names = sorted(each.name for each in folder.iterdir() if _DEVICE.fullmatch(each.name))
    except OSError:
        return ()
    return tuple(folder / name for name in names) if any(map(_COMPUTE.fullmatch, names)) else ()


def problem(found: Iterable[Path], *, another_user: bool) -> str:
    """Why a job cannot use the devices ``found``; empty if it can, as far as can be seen."""
    paths = {path.name: path for path in found}
    if not paths:
        return "the job needs a GPU, and there is no CUDA device: no /dev/nvidia0 on this machine"
    if "nvidia-uvm" not in paths or "nvidiactl" not in paths:
        return "the NVIDIA driver is not fully loaded: run `nvidia-modprobe -u -c 0` as root, then again"
    for path in paths.values():
        mode = path.stat().st_mode
        if another_user and not stat.S_ISDIR(mode) and mode & 0o006 != 0o006:
            return (
                f"{path} is not for everybody, and the job runs as another user: chmod a+rw {path}"
            )
    return ""


def libraries(folders: Iterable[str] = _FOLDERS) -> dict[str, Path]:
    """The libraries of the driver, by name; empty if there is none."""
    for folder in map(Path, folders):
        if (folder / "libcuda.so.1").exists():
            return {
                path.name: path.resolve()
                for name in _LIBRARIES
                for path in sorted(folder.glob(f"{name}.so*"))
                if path.is_file()
            }
    return {}


def limits(given: Limits) -> Limits:
    """``given`` with room for the threads of CUDA."""
    return replace(given, processes=max(given.processes, PROCESSES))
