"""Python, the operating system, the container around it, and every installed package."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import sys
from importlib import metadata

from .privacy import without_credentials
from .sheet import NotRecordedError, Sheet, imported

_IMAGES = ("CONTAINER_IMAGE", "DOCKER_IMAGE", "IMAGE_NAME", "CI_JOB_IMAGE")
_DIGESTS = ("IMAGE_DIGEST", "CONTAINER_IMAGE_DIGEST", "DOCKER_IMAGE_DIGEST")


def record(sheet: Sheet) -> None:
    """Write down the software."""
    sheet.put("python", platform.python_version())
    sheet.put("implementation", platform.python_implementation())
    sheet.record("compiler", platform.python_compiler)
    sheet.put("prefix", sys.prefix)
    sheet.record("platform", platform.platform)
    sheet.record("os", lambda: _system(sheet))
    sheet.record("kernel", platform.release)
    sheet.record("architecture", platform.machine)
    sheet.record("libc", _libc)
    sheet.record("cuda.runtime", lambda: imported("torch").version.cuda)
    sheet.record("cudnn", _cudnn)
    sheet.record("nccl", _nccl)
    sheet.attempt("packages", lambda: _record_packages(sheet))
    sheet.attempt("container", lambda: _record_container(sheet))


def _system(sheet: Sheet) -> str:
    if platform.system() == "Darwin":
        return f"macOS {platform.mac_ver()[0]}"
    if platform.system() == "Windows":
        return f"Windows {platform.release()} {platform.version()}"
    for line in sheet.read("etc/os-release").splitlines():
        name, _, value = line.partition("=")
        if name == "PRETTY_NAME":
            return " ".join(shlex.split(value))
    raise NotRecordedError("no PRETTY_NAME in /etc/os-release")


def _libc() -> str:
    try:
        found = os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, OSError, ValueError):
        found = " ".join(platform.libc_ver())
    if not found or not found.strip():
        raise NotRecordedError("this system does not tell")
    return found


def _cudnn() -> object:
    return imported("torch").backends.cudnn.version()


def _nccl() -> str | None:
    torch = imported("torch")
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        return None
    version = imported("torch.cuda.nccl").version()
    return ".".join(map(str, version)) if isinstance(version, tuple) else str(version)


def _record_packages(sheet: Sheet) -> None:
    """Name → version, and where a package came from if that was no index: its version says little then."""
    packages: dict[str, str] = {}
    origins: dict[str, str] = {}
    broken = 0
    # What comes first on the path is what is imported; in a dict, the last of a name stays.
    for distribution in list(metadata.distributions())[::-1]:
        try:
            head = distribution.metadata
            name = re.sub(r"[-_.]+", "-", head["Name"]).lower()
            version = head["Version"]
            origin = _origin(distribution.read_text("direct_url.json"))
        except Exception:  # noqa: BLE001  # one broken folder among packages must not hide the others
            broken += 1
            continue
        if not name or not version:
            broken += 1
            continue
        packages[name] = version
        origins.pop(name, None)
        if origin:
            origins[name] = origin
    sheet.put("packages", packages)
    if origins:
        sheet.put("package_origins", origins)
    if broken:
        sheet.missing("packages", f"{broken} of them without a readable name and version")


def _origin(text: str | None) -> str | None:
    """What PEP 610 says of an origin, without its address."""
    if not text:
        return None
    value = json.loads(text)
    if "vcs_info" in value:
        return f"{value['vcs_info'].get('vcs')} {value['vcs_info'].get('commit_id')}"
    if "archive_info" in value:
        hashes = value["archive_info"].get("hashes") or {}
        return f"archive sha256:{hashes['sha256']}" if "sha256" in hashes else "archive"
    return "editable" if value.get("dir_info", {}).get("editable") else "folder"


def _record_container(sheet: Sheet) -> None:
    hints = {
        "docker": ".dockerenv" in sheet.listed(""),
        "podman": ".containerenv" in sheet.listed("run"),
        "kubernetes": "KUBERNETES_SERVICE_HOST" in os.environ,
        "apptainer": "APPTAINER_NAME" in os.environ or "SINGULARITY_NAME" in os.environ,
    }
    for kind, seen in hints.items():
        if seen:
            sheet.put(f"container.{kind}", True)  # noqa: FBT003
    for name in _IMAGES + _DIGESTS:
        value = os.environ.get(name)
        if value:
            sheet.put(f"container.{name}", without_credentials(value))
    for name, probe in (("cpu_quota", _cpu_quota), ("memory_limit_bytes", _memory_limit)):
        try:
            limit = probe(sheet)
        except (NotRecordedError, ValueError, ZeroDivisionError):
            continue
        if limit is not None:
            sheet.put(f"container.{name}", limit)


def _cpu_quota(sheet: Sheet) -> float | None:
    """Processors' worth of time that the control group grants, if it limits it."""
    try:
        quota, period = sheet.read("sys/fs/cgroup/cpu.max").split()[:2]
    except NotRecordedError:
        quota = sheet.read("sys/fs/cgroup/cpu/cpu.cfs_quota_us").strip()
        period = sheet.read("sys/fs/cgroup/cpu/cpu.cfs_period_us").strip()
    return None if quota in {"max", "-1"} else int(quota) / int(period)


def _memory_limit(sheet: Sheet) -> int | None:
    try:
        limit = sheet.read("sys/fs/cgroup/memory.max").strip()
    except NotRecordedError:
        limit = sheet.read("sys/fs/cgroup/memory/memory.limit_in_bytes").strip()
    # Version 1 says "no limit" with a number near 2^63.
    return None if limit == "max" or int(limit) >= 1 << 60 else int(limit)
