"""Processor, memory and accelerators. No serial number and no other identifier of a device."""

from __future__ import annotations

import csv
import os
import platform
import re

from .sheet import NotRecordedError, Sheet, imported

MIB = 1 << 20

_CPUINFO = {
    "vendor": ("vendor_id", "CPU implementer"),
    "family": ("cpu family", "CPU architecture"),
    "model_id": ("model", "CPU part"),
    "stepping": ("stepping", "CPU revision"),
    "cache": ("cache size",),
    "flags": ("flags", "Features"),
    "model": ("model name", "cpu"),
}
"""Fact → its names on x86 and on Arm. Libraries choose kernels and block sizes by them."""


def record(sheet: Sheet) -> None:
    """Write down the hardware."""
    sheet.record("cpu", lambda: _cpu(sheet))
    sheet.record("cpu.count", os.cpu_count)
    sheet.record("cpu.usable", _usable)
    sheet.record("cpu.physical", lambda: _physical(sheet))
    sheet.record("memory_bytes", lambda: _memory(sheet))
    _record_gpus(sheet)


def _cpu(sheet: Sheet) -> dict[str, str]:
    system = platform.system()
    if system == "Darwin":
        model = sheet.ask("sysctl", "-n", "machdep.cpu.brand_string").strip()
        sheet.record("cpu.flags", lambda: _sorted_words(_sysctl(sheet, "machdep.cpu.features")))
        return {"model": model}
    if system == "Windows":
        sheet.missing("cpu.flags", "Windows does not list them")
        return {"model": os.environ.get("PROCESSOR_IDENTIFIER") or platform.processor()}
    first = _first_processor(sheet)
    found: dict[str, str] = {}
    for fact, names in _CPUINFO.items():
        value = next((first[name] for name in names if first.get(name)), None)
        if value is None and fact == "model":
            # Arm has numbers there, no name.
            value = " ".join(found[each] for each in ("vendor", "model_id") if each in found)
        if value:
            found[fact] = _sorted_words(value) if fact == "flags" else value
        else:
            sheet.missing(f"cpu.{fact}", "not in /proc/cpuinfo")
    return found


def _first_processor(sheet: Sheet) -> dict[str, str]:
    block = sheet.read("proc/cpuinfo").strip().split("\n\n")[0]
    pairs = (line.partition(":") for line in block.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _sorted_words(text: str) -> str:
    return " ".join(sorted(set(text.lower().split())))


def _sysctl(sheet: Sheet, name: str) -> str:
    return sheet.ask("sysctl", "-n", name).strip()


def _usable() -> int:
    if not hasattr(os, "sched_getaffinity"):
        raise NotRecordedError("this system does not tell")
    return len(os.sched_getaffinity(0))


def _physical(sheet: Sheet) -> int:
    if platform.system() == "Darwin":
        return int(_sysctl(sheet, "hw.physicalcpu"))
    processors = "sys/devices/system/cpu"
    cores = {
        sheet.read(f"{processors}/{name}/topology/thread_siblings_list")
        for name in sheet.listed(processors)
        if re.fullmatch(r"cpu\d+", name)
        and "thread_siblings_list" in sheet.listed(f"{processors}/{name}/topology")
    }
    if not cores:
        raise NotRecordedError("no processor topology in /sys")
    return len(cores)


def _memory(sheet: Sheet) -> int:
    if platform.system() == "Linux":
        found = re.search(r"^MemTotal:\s*(\d+) kB", sheet.read("proc/meminfo"), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
        raise NotRecordedError("no MemTotal in /proc/meminfo")
    if platform.system() == "Darwin":
        return int(_sysctl(sheet, "hw.memsize"))
    raise NotRecordedError("this system does not tell")


def _record_gpus(sheet: Sheet) -> None:
    """What the training sees if it uses CUDA by now, else what the driver lists."""
    reasons = []
    for source, probe in (
        ("torch", _gpus_of_torch),
        ("nvidia-smi", lambda: _gpus_of_smi(sheet)),
        ("/proc/driver/nvidia", lambda: _gpus_of_proc(sheet)),
    ):
        if sheet.record("gpu", probe):
            sheet.put("gpu.source", source)
            sheet.not_recorded.pop("gpu", None)
            sheet.record("gpu.driver", lambda: _driver(sheet))
            sheet.record("cuda.driver", lambda: _cuda_driver(sheet))
            return
        reasons.append(sheet.not_recorded["gpu"])
    sheet.missing("gpu", "; ".join(reasons))


def _gpus_of_torch() -> dict[str, object]:
    cuda = imported("torch").cuda
    # Every other question would initialise CUDA, after which the training can no longer fork.
    if not cuda.is_initialized():
        raise NotRecordedError("torch does not use CUDA")
    found: dict[str, object] = {"count": cuda.device_count()}
    for number in range(cuda.device_count()):
        device = cuda.get_device_properties(number)
        found[str(number)] = {
            "model": device.name,
            "memory_bytes": device.total_memory,
            "multiprocessors": device.multi_processor_count,
            "compute_capability": f"{device.major}.{device.minor}",
        }
    return found


def _gpus_of_smi(sheet: Sheet) -> dict[str, object]:
    text = sheet.ask(
        "nvidia-smi", "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits"
    )
    found: dict[str, object] = {}
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) != 3 or not row[0].isdigit():
            raise NotRecordedError("nvidia-smi printed something else than was asked for")
        number, name, memory = row
        found[number] = {"model": name.strip()}
        # With memory that is shared with the processor it says [N/A].
        if memory.strip().isdigit():
            found[number] = {"model": name.strip(), "memory_bytes": int(memory) * MIB}
        else:
            sheet.missing(f"gpu.{number}.memory_bytes", f"nvidia-smi says {memory.strip()}")
    if not found:
        raise NotRecordedError("nvidia-smi lists none")
    return {**found, "count": len(found)}


def _gpus_of_proc(sheet: Sheet) -> dict[str, object]:
    found: dict[str, object] = {}
    for bus in sheet.listed("proc/driver/nvidia/gpus"):
        text = sheet.read(f"proc/driver/nvidia/gpus/{bus}/information")
        model = re.search(r"^Model:\s*(.+?)\s*$", text, re.MULTILINE)
        if model:
            found[str(len(found))] = {"model": model[1]}
    if not found:
        raise NotRecordedError("no GPU in /proc/driver/nvidia")
    return {**found, "count": len(found)}


def _driver(sheet: Sheet) -> str:
    try:
        text = sheet.read("proc/driver/nvidia/version")
    except NotRecordedError:
        text = sheet.ask("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    version = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    if version is None:
        raise NotRecordedError("no version in what the driver says")
    return version[0]


def _cuda_driver(sheet: Sheet) -> str:
    """The newest CUDA that the driver can serve."""
    try:
        torch = imported("torch")
        if torch.cuda.is_initialized():
            number = torch._C._cuda_getDriverVersion()  # noqa: SLF001  # there is no public name
            return f"{number // 1000}.{number % 1000 // 10}"
    except (NotRecordedError, AttributeError):
        pass
    text = sheet.ask("nvidia-smi", "--version")
    version = re.search(r"CUDA(?: UMD)? version\s*:\s*(\d[\d.]*)", text, re.IGNORECASE)
    if version is None:
        raise NotRecordedError("no CUDA version in what nvidia-smi says")
    return version[1]
