"""GPUs in a sandbox: with devices that pose as such on a machine that has none, and with real ones where there are."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from bundler.errors import SandboxUnavailableError
from bundler.sandbox import Limits, cgroups, gpus

from .conftest import PYTHON, SMALL, bubblewrap_command

NAMES = (
    "nvidia-caps",
    "nvidia-modeset",
    "nvidia-uvm",
    "nvidia-uvm-tools",
    "nvidia0",
    "nvidia1",
    "nvidiactl",
)


@pytest.fixture
def dev():
    """A folder like /dev of a machine with two GPUs, whose devices are /dev/null; every user can reach it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        Path(place).chmod(0o755)
        yield _dev(Path(place))


def _dev(folder):
    (folder / "nvidia-caps").mkdir()
    (folder / "dri").mkdir()
    for name in (*NAMES[1:], "null", "nvidia-nvswitch0", "nvidiax"):
        (folder / name).symlink_to("/dev/null")
    return folder


@pytest.fixture
def posing(dev, monkeypatch):
    found = gpus.devices(dev)
    monkeypatch.setattr(gpus, "devices", lambda: found)
    monkeypatch.setattr("bundler.sandbox.selftest.devices", lambda: found)
    return [str(path) for path in found]


def test_the_devices_for_computing_are_found(dev):
    assert [path.name for path in gpus.devices(dev)] == list(NAMES)
    for name in ("nvidia0", "nvidia1"):
        (dev / name).unlink()
    assert gpus.devices(dev) == ()  # a driver without a GPU
    assert gpus.devices(dev / "nowhere") == ()


def test_what_keeps_a_job_from_using_them_is_said(dev, tmp_path):
    assert gpus.problem(gpus.devices(dev), another_user=True) == ""
    assert "no CUDA device" in gpus.problem((), another_user=False)
    (dev / "nvidia-uvm").unlink()
    assert "nvidia-modprobe" in gpus.problem(gpus.devices(dev), another_user=False)
    (dev / "nvidia-uvm").touch(mode=0o600)
    (dev / "nvidia-uvm").chmod(0o600)
    assert gpus.problem(gpus.devices(dev), another_user=False) == ""
    assert f"chmod a+rw {dev}/nvidia-uvm" in gpus.problem(gpus.devices(dev), another_user=True)


def test_the_libraries_of_the_driver_are_found_with_their_links_resolved(tmp_path):
    for name in (
        "libcuda.so.570.86",
        "libnvidia-ml.so.1",
        "libnvidia-ptxjitcompiler.so.1",
        "libcudart.so.12",
        "libGL.so.1",
    ):
        (tmp_path / name).touch()
    assert gpus.libraries([str(tmp_path)]) == {}
    (tmp_path / "libcuda.so.1").symlink_to("libcuda.so.570.86")
    (tmp_path / "libnvidia-nvvm.so.4").symlink_to("nowhere")
    found = gpus.libraries([str(tmp_path / "none"), str(tmp_path)])
    assert set(found) == {
        "libcuda.so.1",
        "libcuda.so.570.86",
        "libnvidia-ml.so.1",
        "libnvidia-ptxjitcompiler.so.1",
    }
    assert found["libcuda.so.1"] == tmp_path / "libcuda.so.570.86"


def test_cuda_gets_room_for_its_threads():
    assert gpus.limits(Limits()).processes == 4096
    assert gpus.limits(replace(SMALL, processes=9000)) == replace(SMALL, processes=9000)


def test_the_devices_are_shown_after_dev_and_memory_is_left_to_the_cgroup(bubblewrap, job, posing):
    made = replace(job("print(1)"), gpus=True)
    command = list(bubblewrap_command(bubblewrap, made))
    own = command.index("--dev", command.index("--unshare-user"))
    for path in posing:
        at = command.index(path)
        assert command[at - 1 : at + 2] == ["--dev-bind", path, path]
        assert own < at < command.index("--remount-ro", own + 8)
    at = command.index("/sys")
    assert command[at - 1 : at + 2] == ["--ro-bind", "/sys", "/sys"]
    assert not any(word.startswith("--as=") for word in command)  # which CUDA does not survive
    plain = list(bubblewrap_command(bubblewrap, replace(made, gpus=False)))
    assert f"--as={SMALL.memory_bytes}:{SMALL.memory_bytes}" in plain
    assert not {"/sys", *posing} & set(plain)


def test_an_image_gets_the_libraries_of_this_machines_driver(
    bubblewrap, inside, posing, monkeypatch
):
    monkeypatch.setattr(
        gpus, "libraries", lambda: {"libcuda.so.1": Path("/usr/lib/libcuda.so.570")}
    )
    made = replace(inside(), gpus=True)
    command = list(bubblewrap_command(bubblewrap, made))
    at = command.index("/usr/lib/libcuda.so.570")
    assert command[at : at + 2] == ["/usr/lib/libcuda.so.570", "/.verifier/driver/libcuda.so.1"]
    assert "LD_LIBRARY_PATH=/.verifier/driver:/opt/python/lib" in command
    bare = list(bubblewrap_command(bubblewrap, replace(made, environment={})))
    assert "LD_LIBRARY_PATH=/.verifier/driver" in bare


@pytest.mark.parametrize("image", [False, True], ids=["this machine", "an image"])
def test_a_job_can_open_what_poses_as_a_gpu(bubblewrap, job, inside, posing, image):
    code = (
        f"import os, sys\nfor p in {posing[1:]}: os.close(os.open(p, os.O_RDWR))\n"
        "print(sorted(os.listdir(sys.argv[1])), os.path.isdir('/sys/devices'))\n"
        "try: open('/sys/x', 'w'); print('WROTE')\n"
        "except OSError: pass"
    )
    folder = str(Path(posing[0]).parent)
    made = inside() if image else job()
    python = made.command[0]
    made = replace(made, gpus=True, command=(python, "-I", "-S", "-c", code, folder))
    outcome = bubblewrap.run(made)
    log = made.log.read_text()
    assert (outcome.ended, outcome.exit_code, log) == ("exited", 0, f"{list(NAMES)} True\n")


def test_without_a_gpu_the_job_does_not_start(bubblewrap, job):
    if gpus.devices():
        pytest.skip("there is a GPU")
    outcome = bubblewrap.run(replace(job("print(1)"), gpus=True))
    assert (outcome.ended, outcome.exit_code) == ("could not start", None)
    assert "no CUDA device" in outcome.detail


def _driver(isolation):
    return next(each for each in isolation.probes if each.name == "driver of the GPUs")


def test_the_verdict_says_that_the_driver_is_within_reach(bubblewrap, posing):
    isolation = bubblewrap.isolation(SMALL, gpus=True)
    assert _driver(isolation).blocked is False
    assert "ioctl" in _driver(isolation).detail
    assert isolation.network  # and all that is required still holds
    shut = _driver(bubblewrap.isolation(SMALL))
    assert (shut.blocked, shut.detail) == (True, "none can be opened")


def test_memory_counts_as_missing_where_only_the_cgroup_could_limit_it(
    bubblewrap, posing, monkeypatch
):
    monkeypatch.setattr(cgroups, "create", lambda *_: cgroups.Cgroup(version=2))
    monkeypatch.setattr(bubblewrap, "_controllers", frozenset())
    assert "memory_bytes" in bubblewrap.isolation(SMALL, gpus=True).limits_missing
    assert "memory_bytes" not in bubblewrap.isolation(SMALL).limits_missing


def test_sandlock_says_that_it_cannot(sandlock, job):
    for attempt in (
        lambda: sandlock.run(replace(job(""), gpus=True)),
        lambda: sandlock.isolation(SMALL, gpus=True),
    ):
        with pytest.raises(SandboxUnavailableError, match="cannot give a job a GPU") as caught:
            attempt()
        assert "bubblewrap" in caught.value.remedy


def test_without_a_sandbox_the_devices_are_there_anyway(unconfined, job):
    made = replace(job("print(1)"), gpus=True)
    assert unconfined.run(made).exit_code == 0
    assert unconfined.isolation(SMALL, gpus=True).kind == "none"


_CUDA = """
import torch
torch.use_deterministic_algorithms(True)
x = torch.ones(256, 256, device="cuda")
print(torch.cuda.get_device_name(0), float((x @ x).sum()))
"""


@pytest.mark.slow
def test_a_real_gpu_computes_inside(bubblewrap, job):
    if not gpus.devices():
        pytest.skip("no CUDA device")
    pytest.importorskip("torch")
    wide = replace(gpus.limits(SMALL), memory_bytes=16 << 30, wall_seconds=120, cpu_seconds=120)
    made = job(command=(str(PYTHON), "-c", _CUDA), limits=wide, CUBLAS_WORKSPACE_CONFIG=":4096:8")
    made = replace(made, gpus=True)
    outcome = bubblewrap.run(made)
    log = made.log.read_text()
    assert (outcome.ended, outcome.exit_code) == ("exited", 0), log
    assert log.endswith("16777216.0\n")
    assert _driver(bubblewrap.isolation(wide, gpus=True)).blocked is False
    assert os.listdir(made.output) == []
