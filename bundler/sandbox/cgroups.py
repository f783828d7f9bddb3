"""Limits and metering for a whole process tree, where this user may make a cgroup (v1 or v2)."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

_numbers = itertools.count(1)
_V1 = ("memory", "pids", "cpuacct")
# The keeper and the monitors of bubblewrap live in the cgroup beside the job.
_OWN_PROCESSES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroup:
    """A cgroup of our own; ``folders`` maps each usable controller to its folder."""

    version: int
    folders: dict[str, Path] = field(default_factory=dict)

    @property
    def joins(self) -> tuple[Path, ...]:
        """The files into which a process writes its pid to join."""
        return tuple(sorted({folder / "cgroup.procs" for folder in self.folders.values()}))

    def cpu_seconds(self) -> float | None:
        """CPU seconds of all processes that ever were in it, or None without that controller."""
        try:
            if self.version == 1:
                return int((self.folders["cpuacct"] / "cpuacct.usage").read_text()) / 1e9
            return _value(self.folders["cpu"] / "cpu.stat", "usage_usec") / 1e6
        except (OSError, KeyError, ValueError):
            return None

    def out_of_memory(self) -> bool:
        """Whether the kernel killed something here for exceeding ``memory_bytes``."""
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        try:
            return _value(self.folders["memory"] / name, "oom_kill") > 0
        except (OSError, KeyError, ValueError):
            return False

    def kill(self, *, seconds: float = 5.0) -> None:
        """SIGKILL whatever is in it, until it is empty or ``seconds`` are over."""
        deadline = time.monotonic() + seconds
        for path in self.joins[:1]:  # each hierarchy has the same members
            with contextlib.suppress(OSError):
                while (pids := path.read_text().split()) and time.monotonic() < deadline:
                    for pid in pids:
                        with contextlib.suppress(ProcessLookupError, PermissionError):
                            os.kill(int(pid), signal.SIGKILL)
                    time.sleep(0.005)

    def remove(self) -> None:
        """Delete it; its last process may still be on its way out, so try for a second."""
        for folder in set(self.folders.values()):
            for _ in range(100):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.01)
                else:
                    break


def _value(path: Path, key: str) -> int:
    fields = dict(line.split() for line in path.read_text().splitlines())
    return int(fields[key])


def create(
    memory_bytes: int,
    processes: int,
    *,
    mounts: Path = Path("/proc/self/mountinfo"),
    membership: Path = Path("/proc/self/cgroup"),
) -> Cgroup:
    """Make a cgroup with the controllers that this user may use; without any, ``folders`` is empty.

    ``memory_bytes`` and ``processes`` (tasks) become its limits; swap counts as memory.
    """
    name = f"aisdp-{os.getpid()}-{next(_numbers)}"
    try:
        places = folders(mounts.read_text(), membership.read_text())
    except OSError:
        return Cgroup(version=2)
    group = _create_v2(places.pop("", []), name, memory_bytes, processes)
    if group.folders:
        return group
    v1 = Cgroup(version=1)
    for controller in _V1:
        for place in places.get(controller, []):
            settings = {
                "memory": {"memory.limit_in_bytes": str(memory_bytes)},
                "pids": {"pids.max": str(processes + _OWN_PROCESSES)},
            }.get(controller, {})
            if _make(place / name, settings):
                v1.folders[controller] = place / name
                break
    if "memory" in v1.folders:
        with contextlib.suppress(OSError):  # exists only where swap accounting is on
            swap = v1.folders["memory"] / "memory.memsw.limit_in_bytes"
            swap.write_text(str(memory_bytes))
    return v1


def _create_v2(places: list[Path], name: str, memory_bytes: int, processes: int) -> Cgroup:
    for place in places:
        try:
            enabled = (place / "cgroup.subtree_control").read_text().split()
        except OSError:
            continue
        settings: dict[str, str] = {}
        if "memory" in enabled:
            settings["memory.max"] = str(memory_bytes)
        if "pids" in enabled:
            settings["pids.max"] = str(processes + _OWN_PROCESSES)
        if settings and _make(place / name, settings):
            with contextlib.suppress(OSError):  # exists only where swap accounting is on
                (place / name / "memory.swap.max").write_text("0")
            usable = [*(set(enabled) & {"memory", "pids"}), "cpu"]  # cpu.stat is always there
            return Cgroup(version=2, folders=dict.fromkeys(usable, place / name))
    return Cgroup(version=2)


def _make(folder: Path, settings: dict[str, str]) -> bool:
    try:
        folder.mkdir()
    except OSError:
        return False
    try:
        for file, value in settings.items():
            (folder / file).write_text(value)
        with (folder / "cgroup.procs").open("a"):  # may we move a process here at all?
            pass
    except OSError:
        folder.rmdir()
        return False
    return True


def folders(mountinfo: str, membership: str) -> dict[str, list[Path]]:
    """Map each v1 controller, and "" for v2, to the folders to try: our own, then its parents."""
    own: dict[str, str] = {}
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        own |= dict.fromkeys(controllers.split(","), path)
    places: dict[str, list[Path]] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, point = left.split(" ")[3:5]
        for controller in [""] if kind == "cgroup2" else options.split(","):
            if controller in own:
                # Without a cgroup namespace the membership is told from the host's root.
                inside = own[controller].removeprefix(root.rstrip("/")).strip("/")
                base = Path(point)
                chain = [base / inside, *(base / inside).parents] if inside else [base]
                places[controller] = [p for p in chain if p.is_relative_to(base) and p.is_dir()]
    return places
