"""The environment of a training, written down from inside it: what is seen, what is not, and nothing disturbed."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from bundler import canonical, records
from bundler.capture import capture, collect, determinism, hardware, software
from bundler.capture import code as code_of
from bundler.capture.privacy import Privacy, without_credentials
from bundler.capture.sheet import NotRecordedError, Sheet
from bundler.errors import OutputError
from bundler.facts import read_environment


@pytest.fixture
def captured(tmp_path):
    def run(**options):
        target = tmp_path / "environment.json"
        returned = capture(target, code=tmp_path, **options)
        data = target.read_bytes()
        assert canonical.parse(data) == returned
        return returned

    return run


@pytest.fixture
def torch_settings():
    """What a training sets, and back to what was."""
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.set_num_threads(before[1])
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_default_dtype(torch.float32)


def flat(value):
    return read_environment(json.dumps(value).encode(), [])


def test_the_settings_in_force_are_seen(captured, torch_settings):
    torch.manual_seed(11)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    facts = flat(captured(seed=7))
    assert facts["determinism.seed"] == 7
    assert facts["determinism.torch.initial_seed"] == 11
    assert facts["determinism.torch.deterministic_algorithms"] is True
    assert facts["determinism.torch.deterministic_warn_only"] is True
    assert facts["determinism.torch.cudnn.benchmark"] is True
    assert facts["determinism.torch.cudnn.deterministic"] is True
    assert facts["determinism.torch.matmul.allow_tf32"] is True
    assert facts["determinism.torch.matmul.fp32_precision"] == "tf32"
    assert facts["determinism.torch.float32_matmul_precision"] == "high"
    assert facts["determinism.torch.default_dtype"] == "torch.float64"
    assert facts["threads.torch_intra_op"] == 1
    assert facts["determinism.torch.autocast.cpu"] is False


def test_a_cast_in_force_names_its_type(captured):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert flat(captured())["determinism.torch.autocast.cpu"] == "torch.bfloat16"


def test_the_defaults_are_seen_too(captured):
    facts = flat(captured())
    assert facts["determinism.torch.deterministic_algorithms"] is False
    assert facts["determinism.torch.cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert facts["determinism.numpy.simd"] != ""
    assert "determinism.seed" not in facts


def test_no_generator_moves_and_no_state_changes(captured):
    states = lambda: (  # noqa: E731
        random.getstate(),
        [str(each) for each in np.random.get_state()],  # noqa: NPY002
        torch.get_rng_state().tolist(),
        torch.cuda.is_initialized(),
        torch.get_num_threads(),
        Path.cwd(),
        dict(os.environ),
        sorted(name for name in sys.modules if name.partition(".")[0] in {"torch", "numpy"}),
    )
    before = states()
    captured(seed=7, identify=True, command=True)
    assert states() == before


def test_nothing_is_imported_that_the_training_has_not_and_thread_counts_can_still_be_set(tmp_path):
    script = (
        "import sys\n"
        "from bundler.capture import capture\n"
        "capture(sys.argv[1])\n"
        "heavy = {'torch', 'numpy', 'click', 'rfc8785', 'yaml', 'threadpoolctl'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "import torch\n"
        "capture(sys.argv[1])\n"
        "torch.set_num_interop_threads(1); torch.set_num_threads(1)\n"
        "assert torch.get_num_interop_threads() == 1\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "e.json")], check=True)


def test_the_machine_is_described(captured):
    facts = flat(captured())
    assert facts["format"] == "urn:aisdp-bundler:environment:1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", facts["captured_at"])
    assert facts["python"] == sys.version.split()[0]
    assert facts["architecture"] == os.uname().machine
    assert facts["kernel"] == os.uname().release
    assert facts["libc"] == os.confstr("CS_GNU_LIBC_VERSION")
    assert facts["cpu.model"]
    assert facts["cpu.flags"].split() == sorted(facts["cpu.flags"].split())
    assert facts["cpu.count"] == os.cpu_count()
    assert facts["memory_bytes"] > 1 << 28
    assert facts["packages.torch"] == version("torch")
    assert facts["packages.typing-extensions"] == version("typing-extensions")
    assert facts["package_origins.aisdp-bundler"] == "editable"
    assert facts["cuda.runtime"] is None  # torch for the CPU


def test_names_are_sorted_and_a_repetition_differs_in_its_time_only(tmp_path):
    def without_time():
        capture(tmp_path / "e.json", seed=1, code=tmp_path)
        return re.sub(rb'"captured_at": "[^"]*"', b"", (tmp_path / "e.json").read_bytes())

    first = without_time()
    assert without_time() == first
    value = json.loads((tmp_path / "e.json").read_bytes())
    assert list(value) == sorted(value)
    assert list(value["packages"]) == sorted(value["packages"])


@pytest.mark.parametrize(
    ("seed", "written"),
    [
        (7, {"determinism.seed": 7}),
        (np.int64(7), {"determinism.seed": 7}),
        (torch.tensor(7), {"determinism.seed": 7}),
        (2**64 - 1, {"determinism.seed": "18446744073709551615"}),
        ({"numpy": 1, "torch": 2}, {"determinism.seed.numpy": 1, "determinism.seed.torch": 2}),
    ],
)
def test_seeds_as_callers_have_them(captured, seed, written):
    assert flat(captured(seed=seed)).items() >= written.items()


def test_a_seed_that_is_none_does_not_end_the_training(captured):
    value = captured(seed=object())
    assert "seed" not in value["determinism"]
    assert "TypeError" in value["not_recorded"]["determinism.seed"]


# What is left out.


def test_neither_host_nor_account_nor_other_variables(captured, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setenv("USER", "wilhelmina")
    monkeypatch.setenv("LOGNAME", "wilhelmina")
    monkeypatch.setenv("HOME", "/home/wilhelmina")
    monkeypatch.setenv(
        "XLA_FLAGS", "--xla_dump_to=/home/wilhelmina/d --xla_gpu_deterministic_ops=true"
    )
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/tmp/wilhelmina")
    monkeypatch.setenv("NCCL_COMM_ID", "10.1.2.3:4000")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "10.1.2.3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6")
    monkeypatch.setattr(sys, "prefix", "/home/wilhelmina/venv")
    monkeypatch.setattr("platform.node", lambda: "castle.example.org")
    value = captured()
    text = json.dumps(value)
    for private in ("hush", "wilhelmina", "castle", "10.1.2.3", "8932f937"):
        assert private not in text
    facts = flat(value)
    assert facts["prefix"] == "~/venv"
    assert facts["determinism.XLA_FLAGS"] == "--xla_dump_to=… --xla_gpu_deterministic_ops=true"
    assert facts["determinism.CUDA_VISIBLE_DEVICES"] == "GPU"
    assert facts["not_recorded.determinism.NCCL_COMM_ID"].startswith("may name")
    assert facts["not_recorded.determinism.TORCHINDUCTOR_CACHE_DIR"].startswith("may name")


@pytest.mark.parametrize(
    ("value", "recorded"),
    [
        ("--a=/scratch/anna.meier/x --b=true", "--a=… --b=true"),
        ("--a='/scratch/anna meier/x' --b", "--a=… --b"),
        ("--a=runs/anna --b=2", "--a=… --b=2"),
        (r"--a=D:\anna --b=2", "--a=… --b=2"),
        ("--a=x --b=1,2:3", "--a=x --b=1,2:3"),
        ("--a=anna@example.org", None),
        ("--a=anna%40example.org", None),
    ],
)
def test_paths_and_people_among_flags(captured, monkeypatch, value, recorded):
    monkeypatch.setenv("XLA_FLAGS", value)
    facts = flat(captured())
    assert facts.get("determinism.XLA_FLAGS") == recorded
    assert ("not_recorded.determinism.XLA_FLAGS" in facts) is (recorded is None)


def test_host_account_and_command_on_request(captured, monkeypatch):
    monkeypatch.setenv("LOGNAME", "wilhelmina")
    monkeypatch.setattr("platform.node", lambda: "castle")
    monkeypatch.setattr(sys, "orig_argv", ["python", "train.py", "--note", "two words"])
    facts = flat(captured(identify=True, command=True))
    assert (facts["host"], facts["user"]) == ("castle", "wilhelmina")
    assert facts["command"] == "python train.py --note 'two words'"


@pytest.mark.parametrize(
    ("home", "text", "cleaned"),
    [
        ("/home/ann", "/home/ann/venv", "~/venv"),
        ("/home/ann", "/home/ann", "~"),
        ("/home/ann", "/home/anna/venv", "~/venv"),
        ("/home/ann", "/Users/bob/venv", "~/venv"),
        ("/home/ann", r"C:\Users\bob\venv", r"~\venv"),
        ("/home/ann", "file:///home/ann/code", "file://~/code"),
        ("/home/ann", "/data/ann/venv", "/data/USER/venv"),
        ("/home/ann", "/data/anna/venv", "/data/anna/venv"),
        ("/root", "/opt/root/venv", "/opt/root/venv"),
        ("/", "/opt/venv", "/opt/venv"),
    ],
)
def test_paths_name_nobody(monkeypatch, home, text, cleaned):
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("LOGNAME", "ann")
    assert Privacy().cleaned(text) == cleaned


def test_an_account_without_a_name(monkeypatch):
    def nobody():
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert Privacy().user == ""
    assert Privacy().cleaned("/data/x") == "/data/x"


@pytest.mark.parametrize(
    ("address", "bare"),
    [
        ("https://ann:pass?word@example.org/a/b.git?token=1#x", "https://example.org/a/b.git"),
        ("ssh://git@example.org/a.git", "ssh://example.org/a.git"),
        ("git@example.org:a/b.git", "git@example.org:a/b.git"),
        ("ann@example.org:a/b.git", "example.org:a/b.git"),
        ("../other", "../other"),
        ("image@sha256:00ff", "image@sha256:00ff"),
        ("example.org/image:1@sha256:00ff", "example.org/image:1@sha256:00ff"),
    ],
)
def test_addresses_without_credentials(address, bare):
    assert without_credentials(address) == bare


@pytest.mark.parametrize(
    "address",
    ["git@github.com:o/r", "ssh://git@host/x", "https://a:b@c@host/x?y#z", "/srv/x", "host:x"],
)
def test_a_remote_reads_as_in_a_record(address):
    assert without_credentials(address) == records.without_credentials(address)


def test_text_that_json_cannot_carry(captured, monkeypatch):
    monkeypatch.setenv("OMP_SCHEDULE", os.fsdecode(b"a\xff"))
    monkeypatch.setenv("XLA_FLAGS", "x" * 9000)
    monkeypatch.setenv("ONEDNN_VERBOSE", "1")
    facts = flat(captured())
    assert facts["threads.OMP_SCHEDULE"] == "a\\udcff"
    assert facts["determinism.XLA_FLAGS"] is None
    assert facts["not_recorded.determinism.XLA_FLAGS"] == "longer than 8192 characters"
    assert facts["determinism.ONEDNN_VERBOSE"] == "1"


def test_a_value_that_cannot_be_spelt(monkeypatch, tmp_path):
    class Mute:
        def __str__(self):
            raise RuntimeError("no words")

    monkeypatch.setattr("platform.python_implementation", Mute)
    value = collect.collect(folder=str(tmp_path))
    assert "implementation" not in value
    assert value["not_recorded"]["implementation"] == "RuntimeError: no words"
    sheet = Sheet()
    sheet.put("x", float("nan"))
    sheet.put("y", 2.5)
    assert collect._written(sheet, Privacy()) == {"x": "nan", "y": 2.5, "not_recorded": {}}


# Where things fail.


def test_every_probe_fails_and_the_file_is_written(captured, monkeypatch):
    def broken(*arguments, **names):
        raise PermissionError(1, "not allowed")

    for name in ("cpu_count", "sched_getaffinity", "confstr", "listdir"):
        monkeypatch.setattr(os, name, broken)
    monkeypatch.setattr("platform.libc_ver", broken)
    monkeypatch.setattr("importlib.metadata.distributions", broken)
    monkeypatch.setattr(subprocess, "Popen", broken)
    monkeypatch.setattr(torch, "get_num_threads", broken)
    monkeypatch.setattr(Sheet, "read", broken)
    monkeypatch.setattr(torch, "version", None)
    value = captured()
    for name in ("cpu", "cpu.count", "memory_bytes", "packages", "libc", "code", "gpu", "os"):
        assert value["not_recorded"][name], name
    assert value["not_recorded"]["threads.torch_intra_op"].startswith("PermissionError")
    assert value["determinism"]["torch"]["deterministic_algorithms"] is False
    assert value["python"]


@pytest.mark.parametrize("part", ["software", "hardware", "determinism", "code"])
def test_a_whole_part_fails(captured, monkeypatch, part):
    def broken(*arguments):
        raise MemoryError

    monkeypatch.setattr(getattr(collect, part), "record", broken)
    assert captured()["not_recorded"][part].startswith("MemoryError")


def test_a_directory_that_is_gone(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert capture(tmp_path / "e.json")["python"]
    with pytest.raises(OutputError, match="cannot write"):
        capture("e.json")


@pytest.mark.parametrize("name", ["", ".", "a\0b", "file/e.json", "pipe"])
def test_what_cannot_be_written(tmp_path, name):
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match="cannot write") as caught:
        capture(f"{tmp_path}/{name}")
    assert caught.value.exit_code == 8
    assert sorted(tmp_path.iterdir()) == before


def test_an_earlier_file_is_replaced_whole_or_stays(tmp_path, monkeypatch):
    target = tmp_path / "new" / "e.json"
    capture(target, seed=1)
    capture(target, seed=2)
    assert json.loads(target.read_bytes())["determinism"]["seed"] == 2

    def full(source, destination):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        capture(target, seed=3)
    assert json.loads(target.read_bytes())["determinism"]["seed"] == 2
    assert os.listdir(target.parent) == ["e.json"]


# Programs that are asked.


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Make a program that comes first on the search path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return make


def test_a_program_that_hangs_with_its_children(program, monkeypatch, tmp_path):
    program(
        "nvidia-smi",
        f"sleep 61 & echo $! > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/child; wait",
    )

    def hangs(self, timeout):
        until((tmp_path / "child").exists)
        raise subprocess.TimeoutExpired("nvidia-smi", timeout)

    monkeypatch.setattr(subprocess.Popen, "communicate", hangs)
    sheet = Sheet()
    with pytest.raises(NotRecordedError, match=r"nvidia-smi did not answer in 5\.0 s"):
        sheet.ask("nvidia-smi")
    status = Path(f"/proc/{int((tmp_path / 'child').read_text())}/stat")
    until(lambda: not status.exists() or " Z " in status.read_text())


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_program_that_cannot_be_killed_is_not_waited_for(program, monkeypatch):
    monkeypatch.setattr("bundler.capture.sheet.PATIENCE", 0.1)
    program("nvidia-smi", "exec sleep 2")
    monkeypatch.setattr(os, "killpg", lambda group, number: None)
    with pytest.raises(NotRecordedError, match="did not answer"):
        Sheet().ask("nvidia-smi")


def test_all_programs_together_have_a_limit(monkeypatch):
    monkeypatch.setattr("bundler.capture.sheet.BUDGET", 0.0)
    with pytest.raises(NotRecordedError, match="others took too long"):
        Sheet().ask("git", "--version")


def test_a_program_that_fails(program):
    program("nvidia-smi", "echo 'Failed to initialize NVML: Driver mismatch' >&2; exit 18")
    sheet = Sheet()
    with pytest.raises(NotRecordedError, match="ended with 18: Failed to initialize NVML"):
        sheet.ask("nvidia-smi")
    program("nvidia-smi", "exit 3")
    with pytest.raises(NotRecordedError, match=r"nvidia-smi ended with 3$"):
        sheet.ask("nvidia-smi")


def test_ctrl_c_while_a_program_is_asked_is_ctrl_c(program, monkeypatch):
    def stopped(self, timeout):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", stopped)
    with pytest.raises(KeyboardInterrupt):
        Sheet().record("x", lambda: Sheet().ask("git", "--version"))


# Processor and accelerators of other machines; the files are synthetic, in the kernel's form.


def sheet_of(root, files):
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return Sheet(f"{root}/")


ARM = {
    "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 2000.00\nFeatures\t: fp asimd sve bf16\n"
    "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd4f\nCPU revision\t: 0\n\nprocessor\t: 1\n",
    "proc/meminfo": "MemTotal:       1000 kB\n",
    "sys/devices/system/cpu/cpu0/topology/thread_siblings_list": "0-1",
    "sys/devices/system/cpu/cpu1/topology/thread_siblings_list": "0-1",
    "sys/devices/system/cpu/cpu2/topology/thread_siblings_list": "2",
    "sys/devices/system/cpu/cpufreq/boost": "1",
}


def test_an_arm_processor_has_numbers_and_no_name(tmp_path):
    sheet = sheet_of(tmp_path, ARM)
    hardware.record(sheet)
    assert sheet.facts["cpu"]["model"] == "0x41 0xd4f"
    assert sheet.facts["cpu"]["flags"] == "asimd bf16 fp sve"
    assert sheet.facts["cpu"]["physical"] == 2
    assert sheet.facts["memory_bytes"] == 1_024_000
    assert sheet.not_recorded["cpu.cache"]


def test_no_proc_and_no_sys(tmp_path):
    sheet = sheet_of(tmp_path, {"proc/meminfo": "nothing"})
    hardware.record(sheet)
    assert sheet.not_recorded["cpu"] == "/proc/cpuinfo: No such file or directory"
    assert sheet.not_recorded["cpu.physical"] == "no processor topology in /sys"
    assert sheet.not_recorded["memory_bytes"] == "no MemTotal in /proc/meminfo"
    sheet = sheet_of(tmp_path, {"proc/cpuinfo": "processor : 0\n"})
    hardware.record(sheet)
    assert sheet.not_recorded["cpu.model"] == sheet.not_recorded["cpu.flags"]


@pytest.mark.parametrize("system", ["Darwin", "Windows"])
def test_other_systems_do_not_crash(tmp_path, monkeypatch, program, system):
    monkeypatch.setattr("platform.system", lambda: system)
    for name in ("sched_getaffinity", "confstr", "killpg", "uname"):
        monkeypatch.delattr(os, name)
    program(
        "sysctl",
        "case $2 in *brand*) echo Apple M9;; *cpu) echo 8;; *memsize) echo 9;; *) exit 1;; esac",
    )
    monkeypatch.setenv("PROCESSOR_IDENTIFIER", "AMD64 Family 25")
    value = collect.collect(folder=str(tmp_path), root=f"{tmp_path}/none/")
    facts = flat(value)
    assert facts["not_recorded.cpu.usable"] == "this system does not tell"
    assert facts["python"]
    if system == "Darwin":
        assert (facts["cpu.model"], facts["cpu.physical"], facts["memory_bytes"]) == (
            "Apple M9",
            8,
            9,
        )
        assert facts["os"].startswith("macOS")
        assert facts["not_recorded.cpu.flags"].startswith("sysctl ended with 1")
    else:
        assert facts["cpu.model"] == "AMD64 Family 25"
        assert facts["os"].startswith("Windows")


def test_a_hanging_program_where_there_are_no_groups(program, monkeypatch):
    monkeypatch.delattr(os, "killpg")
    monkeypatch.setattr("bundler.capture.sheet.PATIENCE", 0.1)
    program("nvidia-smi", "exec sleep 61")
    with pytest.raises(NotRecordedError, match="did not answer"):
        Sheet().ask("nvidia-smi")


SMI = """case "$*" in
*index,name*) {list};;
*driver_version*) echo 580.82.07;;
--version) {version};;
esac"""


def test_gpus_as_nvidia_smi_lists_them(program, tmp_path):
    rows = 'printf "0, NVIDIA H100 80GB HBM3, 81559\\n1, NVIDIA GB10, [N/A]\\n"'
    program("nvidia-smi", SMI.format(list=rows, version='echo "CUDA Version        : 13.0"'))
    sheet = Sheet(f"{tmp_path}/")
    hardware.record(sheet)
    gpu = sheet.facts["gpu"]
    assert gpu["0"] == {"model": "NVIDIA H100 80GB HBM3", "memory_bytes": 81559 << 20}
    assert gpu["1"] == {"model": "NVIDIA GB10"}
    assert (gpu["count"], gpu["driver"], gpu["source"]) == (2, "580.82.07", "nvidia-smi")
    assert sheet.facts["cuda"] == {"driver": "13.0"}
    assert sheet.not_recorded["gpu.1.memory_bytes"] == "nvidia-smi says [N/A]"
    assert "gpu" not in sheet.not_recorded


@pytest.mark.parametrize(
    ("said", "version"), [("CUDA UMD version    : 13.3", "13.3"), ("Deprecated", None)]
)
def test_the_cuda_version_that_a_driver_serves(program, tmp_path, said, version):
    program("nvidia-smi", SMI.format(list="echo 0, A, 1", version=f'echo "{said}"'))
    sheet = Sheet(f"{tmp_path}/")
    hardware.record(sheet)
    assert sheet.facts.get("cuda", {}).get("driver") == version
    assert ("cuda.driver" in sheet.not_recorded) is (version is None)


@pytest.mark.parametrize(
    ("rows", "reason"), [("echo No devices were found", "something else"), ("true", "lists none")]
)
def test_an_nvidia_smi_without_gpus(program, tmp_path, rows, reason):
    program("nvidia-smi", SMI.format(list=rows, version="true"))
    sheet = Sheet(f"{tmp_path}/")
    hardware.record(sheet)
    assert reason in sheet.not_recorded["gpu"]
    assert "gpu" not in sheet.facts


def test_gpus_without_nvidia_smi(tmp_path):
    information = "Model: \t\t NVIDIA A100-SXM4-40GB\nIRQ:   \t\t 1\nGPU UUID: \t GPU-1\n"
    version = (
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n"
    )
    sheet = sheet_of(
        tmp_path,
        {
            "proc/driver/nvidia/gpus/0000:01:00.0/information": information,
            "proc/driver/nvidia/gpus/0000:02:00.0/information": "nothing",
            "proc/driver/nvidia/version": version,
        },
    )
    hardware.record(sheet)
    assert sheet.facts["gpu"] == {
        "0": {"model": "NVIDIA A100-SXM4-40GB"},
        "count": 1,
        "driver": "535.104.05",
        "source": "/proc/driver/nvidia",
    }
    assert sheet.not_recorded["cuda.driver"] == "nvidia-smi is not installed"
    sheet_of(tmp_path, {"proc/driver/nvidia/version": "nothing"})
    hardware.record(sheet)
    assert sheet.not_recorded["gpu.driver"] == "no version in what the driver says"


class Cuda:
    """CUDA in use by a torch that is not here."""

    def __init__(self, *, broken=False):
        self.broken = broken

    def is_initialized(self):
        return True

    def device_count(self):
        return 1

    def get_device_properties(self, number):
        if self.broken:
            raise RuntimeError("CUDA error: unspecified launch failure")
        return type(
            "Properties",
            (),
            {
                "name": "H100",
                "total_memory": 5,
                "multi_processor_count": 132,
                "major": 9,
                "minor": 0,
            },
        )


def test_gpus_as_a_training_on_cuda_sees_them(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "cuda", Cuda())
    monkeypatch.setattr(torch._C, "_cuda_getDriverVersion", lambda: 12040, raising=False)
    sheet = sheet_of(
        tmp_path, {"proc/driver/nvidia/version": "Kernel Module for x86_64  610.43.02 "}
    )
    hardware.record(sheet)
    assert sheet.facts["gpu"] == {
        "0": {
            "model": "H100",
            "memory_bytes": 5,
            "multiprocessors": 132,
            "compute_capability": "9.0",
        },
        "count": 1,
        "driver": "610.43.02",
        "source": "torch",
    }
    assert sheet.facts["cuda"] == {"driver": "12.4"}


def test_a_broken_cuda_leaves_the_other_sources(monkeypatch, tmp_path, program):
    monkeypatch.setattr(torch, "cuda", Cuda(broken=True))
    program("nvidia-smi", SMI.format(list="echo 0, A, 1", version="echo CUDA Version : 12.1"))
    sheet = Sheet(f"{tmp_path}/")
    hardware.record(sheet)
    assert sheet.facts["gpu"]["source"] == "nvidia-smi"
    assert sheet.facts["cuda"] == {"driver": "12.1"}


def test_versions_of_a_torch_for_cuda(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 27, 3))
    sheet = Sheet()
    software.record(sheet)
    assert sheet.facts["cuda"] == {"runtime": "12.8"}
    assert sheet.facts["cudnn"] == 91002
    assert sheet.facts["nccl"] == "2.27.3"


# Software around the training.


def test_packages_from_elsewhere_and_broken_ones(tmp_path, monkeypatch):
    origins = {
        "plain": None,
        "from_git": {
            "url": "https://t@example.org/x",
            "vcs_info": {"vcs": "git", "commit_id": "ab"},
        },
        "from.file": {"url": "file:///x", "archive_info": {"hashes": {"sha256": "00"}}},
        "from-url": {"url": "https://example.org/x", "archive_info": {}},
        "from-folder": {"url": "file:///x", "dir_info": {}},
    }
    for name, origin in origins.items():
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0+cpu\n")
        if origin:
            (folder / "direct_url.json").write_text(json.dumps(origin))
    for name, text in (("broken", ""), ("nameless", "Name: x\n")):
        (tmp_path / f"{name}-1.0.dist-info").mkdir()
        (tmp_path / f"{name}-1.0.dist-info" / "METADATA").write_text(text)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    sheet = Sheet()
    software.record(sheet)
    assert sheet.facts["packages"] == dict.fromkeys(
        ["plain", "from-git", "from-file", "from-url", "from-folder"], "1.0+cpu"
    )
    assert sheet.facts["package_origins"] == {
        "from-git": "git ab",
        "from-file": "archive sha256:00",
        "from-url": "archive",
        "from-folder": "folder",
    }
    assert sheet.not_recorded["packages"].startswith("2 of them")


@pytest.mark.parametrize(
    ("files", "limits"),
    [
        (
            {"sys/fs/cgroup/cpu.max": "250000 100000\n", "sys/fs/cgroup/memory.max": "1024\n"},
            (2.5, 1024),
        ),
        (
            {"sys/fs/cgroup/cpu.max": "max 100000\n", "sys/fs/cgroup/memory.max": "max\n"},
            (None, None),
        ),
        (
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "1\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            (None, None),
        ),
        ({}, (None, None)),
    ],
)
def test_limits_of_a_container(tmp_path, files, limits):
    sheet = sheet_of(tmp_path, files)
    software._record_container(sheet)
    found = sheet.facts.get("container", {})
    assert (found.get("cpu_quota"), found.get("memory_limit_bytes")) == limits


def test_hints_of_a_container(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("CONTAINER_IMAGE", "https://u:p@registry.example.org/train@sha256:ff")
    sheet = sheet_of(tmp_path, {".dockerenv": "", "run/.containerenv": ""})
    software._record_container(sheet)
    assert sheet.facts["container"] == {
        "docker": True,
        "podman": True,
        "kubernetes": True,
        "CONTAINER_IMAGE": "https://registry.example.org/train@sha256:ff",
    }


@pytest.mark.parametrize(
    ("text", "system"), [("ID=x\nPRETTY_NAME='Some OS 1'\n", "Some OS 1"), ("ID=x\n", None)]
)
def test_the_name_of_the_system(tmp_path, text, system):
    sheet = sheet_of(tmp_path, {"etc/os-release": text})
    software.record(sheet)
    assert sheet.facts.get("os") == system
    assert ("os" in sheet.not_recorded) is (system is None)


def test_a_c_library_without_a_name(monkeypatch):
    monkeypatch.setattr(os, "confstr", lambda name: None)
    sheet = Sheet()
    software.record(sheet)
    assert sheet.not_recorded["libc"] == "this system does not tell"


# Modules that are imported, or not.


def test_without_torch_numpy_and_threadpoolctl(monkeypatch, tmp_path):
    for name in ("torch", "numpy", "threadpoolctl"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    value = collect.collect(folder=str(tmp_path))
    assert value["not_recorded"]["determinism.torch"] == "torch is not imported in this process"
    assert value["not_recorded"]["threads.blas"] == "numpy is not imported in this process"
    assert "torch" not in sys.modules


def test_numerical_libraries_as_built_and_as_loaded(monkeypatch):
    monkeypatch.delitem(sys.modules, "threadpoolctl", raising=False)
    sheet = Sheet()
    determinism.record(sheet)
    assert sheet.facts["threads"]["blas"]["library"]
    pytest.importorskip("threadpoolctl")
    sheet = Sheet()
    determinism.record(sheet)
    pools = sheet.facts["threads"]["pools"]
    assert {"api", "library", "threads"} <= pools["0"].keys()
    assert "filepath" not in json.dumps(pools)


def test_a_group_of_processes_and_the_compiler(monkeypatch):
    class Group:
        initialized = False
        is_available = staticmethod(lambda: True)
        is_initialized = staticmethod(lambda: Group.initialized)
        get_world_size = staticmethod(lambda: 4)
        get_rank = staticmethod(lambda: 3)
        get_backend = staticmethod(lambda: "nccl")

    class Config:
        fallback_random = True

    monkeypatch.setitem(sys.modules, "torch.distributed", Group)
    monkeypatch.setitem(sys.modules, "torch._inductor.config", Config)
    monkeypatch.setenv("RANK", "3")
    sheet = Sheet()
    determinism.record(sheet)
    assert sheet.facts["determinism"]["torch"]["distributed"] == {"initialized": False}
    assert sheet.facts["determinism"]["torch"]["inductor"] == {"fallback_random": True}
    assert sheet.facts["determinism"]["RANK"] == "3"
    Group.initialized = True
    determinism.record(sheet)
    assert sheet.facts["determinism"]["torch"]["distributed"] == {
        "initialized": True,
        "world_size": 4,
        "rank": 3,
        "backend": "nccl",
    }


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"])
def test_variables_of_threads(monkeypatch, name):
    monkeypatch.setenv(name, "3")
    sheet = Sheet()
    determinism.record(sheet)
    assert sheet.facts["threads"][name] == "3"


@pytest.mark.parametrize(
    "name",
    ["PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG", "ATEN_CPU_CAPABILITY", "MKL_CBWR", "NCCL_ALGO"],
)
def test_variables_of_determinism(monkeypatch, name):
    monkeypatch.setenv(name, "x")
    monkeypatch.setenv(f"X_{name}", "x")
    sheet = Sheet()
    determinism.record(sheet)
    assert sheet.facts["determinism"][name] == "x"
    assert f"X_{name}" not in sheet.facts["determinism"]


# The code that is trained with.


def git(folder, *arguments):
    identity = (
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@example.org",
        "-c",
        "protocol.file.allow=always",
    )
    done = subprocess.run(
        ["git", *identity, "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "train.py").write_text("1")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "x")
    return folder


def test_a_clean_tree_stays_clean_by_our_own_file(repository):
    for _ in range(2):
        value = capture(repository / "out.json", code=repository)["code"]
    assert value == {
        "commit": git(repository, "rev-parse", "HEAD"),
        "tree": git(repository, "rev-parse", "HEAD^{tree}"),
        "branch": "main",
        "dirty": False,
        "untracked": 0,
    }


def test_changes_of_every_kind(repository, tmp_path):
    (repository / "train.py").write_text("2")
    (repository / "new.py").write_text("2")
    git(repository, "remote", "add", "origin", "https://ann:secret@example.org/ann/code.git")
    git(repository, "checkout", "-q", "--detach")
    sub = repository / "sub"
    sub.mkdir()
    value = capture(tmp_path / "e.json", code=sub)["code"]
    assert (value["dirty"], value["untracked"], value["branch"]) == (True, 1, None)
    assert value["remote"] == "https://example.org/ann/code.git"
    git(repository, "checkout", "-q", "main", "--", "train.py")
    git(repository, "mv", "train.py", "moved name.py")
    value = capture(tmp_path / "e.json", code=repository)["code"]
    assert (value["dirty"], value["untracked"]) == (True, 1)


def test_submodules(repository, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    (other / "x").write_text("1")
    git(other, "add", ".")
    git(other, "commit", "-qm", "x")
    git(repository, "submodule", "add", "-q", str(other), "libs/other")
    git(repository, "submodule", "add", "-q", str(other), "libs/second")
    git(repository, "commit", "-qm", "y")
    git(repository, "submodule", "deinit", "-f", "libs/second")
    sheet = Sheet()
    code_of.record(sheet, str(repository / "libs"))
    assert sheet.facts["code"]["submodules"] == {
        "libs/other": git(other, "rev-parse", "HEAD"),
        "libs/second": "not checked out",
    }
    assert sheet.facts["code"]["dirty"] is False
    (repository / "libs" / "other" / "x").write_text("2")
    code_of.record(sheet, str(repository))
    assert sheet.facts["code"]["dirty"] is True


def test_no_repository_no_commit_no_git(tmp_path, repository, monkeypatch):
    sheet = Sheet()
    code_of.record(sheet, str(tmp_path))
    assert "not a git repository" in sheet.not_recorded["code"]
    git(tmp_path, "init", "-q")
    code_of.record(sheet, str(tmp_path))
    assert sheet.not_recorded["code"].startswith("git ended with 128: fatal:")
    # A hook's variables lead to another repository.
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    code_of.record(sheet, str(tmp_path))
    assert "code" not in sheet.facts
    monkeypatch.setenv("PATH", str(tmp_path))
    code_of.record(sheet, str(repository))
    assert sheet.not_recorded["code"] == "git is not installed"
