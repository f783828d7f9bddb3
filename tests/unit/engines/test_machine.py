"""How much of a machine may be used: real kernel files, written by hand."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.engines import EngineOptions, open_engine
from bundler.engines.machine import Machine, this_machine, with_gpus
from bundler.sandbox import Limits
from bundler.spec import Resources
from tests.unit.engines.conftest import a_trial

GIB = 1 << 30


@pytest.fixture(autouse=True)
def four_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def kernel(tmp_path):
    proc, dev = tmp_path / "proc", tmp_path / "dev"
    (proc / "self").mkdir(parents=True)
    dev.mkdir()
    (proc / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable: {16 * GIB // 1024} kB\n")

    def ask(**files):
        return this_machine(proc, dev)

    return proc, dev, ask


def mounted(proc, kind, options, point, own):
    point.mkdir(parents=True, exist_ok=True)
    (proc / "self/mountinfo").write_text(f"1 0 0:1 / {point} rw - {kind} none {options}\n")
    (proc / "self/cgroup").write_text(own)


def test_without_limits_all_of_it_may_be_used(kernel):
    _, _, ask = kernel
    assert ask() == Machine(cores=4, memory_bytes=16 * GIB, gpus=(), devices=0)


def test_a_quota_and_a_memory_limit_of_cgroup_2_bind_also_where_a_folder_above_has_them(kernel):
    proc, _, ask = kernel
    point = proc / "cg"
    (point / "box/job").mkdir(parents=True)
    mounted(proc, "cgroup2", "rw", point, "0::/box/job\n")
    (point / "box/cpu.max").write_text("150000 100000\n")
    (point / "box/job/cpu.max").write_text("max 100000\n")
    (point / "box/memory.max").write_text(f"{4 * GIB}\n")
    (point / "box/memory.current").write_text(f"{2 * GIB}\n")
    (point / "box/memory.stat").write_text(f"anon 5\ninactive_file {GIB}\n")
    (point / "box/job/memory.max").write_text("max\n")
    found = ask()
    assert (found.cores, found.memory_bytes) == (2, 3 * GIB)


def test_a_quota_of_cgroup_1_binds(kernel):
    proc, _, ask = kernel
    point = proc / "cpu"
    mounted(proc, "cgroup", "rw,cpu", point, "1:cpu:/\n")
    (point / "cpu.cfs_quota_us").write_text("50000\n")
    (point / "cpu.cfs_period_us").write_text("100000\n")
    assert ask().cores == 1
    (point / "cpu.cfs_quota_us").write_text("-1\n")
    assert ask().cores == 4


def test_a_memory_limit_of_cgroup_1_binds(kernel):
    proc, _, ask = kernel
    point = proc / "memory"
    mounted(proc, "cgroup", "rw,memory", point, "1:memory:/\n")
    (point / "memory.limit_in_bytes").write_text(f"{GIB}\n")
    (point / "memory.usage_in_bytes").write_text(f"{2 * GIB}\n")
    (point / "memory.stat").write_text("total_inactive_file 0\n")
    assert ask().memory_bytes == 0


def test_a_kernel_that_tells_nothing_is_asked_for_its_pages(kernel):
    proc, _, ask = kernel
    (proc / "meminfo").write_text("MemTotal: 1 kB\n")
    assert ask().memory_bytes > GIB
    (proc / "meminfo").unlink()
    assert ask().memory_bytes > GIB


def test_gpus_are_counted_by_their_devices_and_chosen_by_cuda_s_variable(kernel, monkeypatch):
    _, dev, ask = kernel
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (dev / name).touch()
    assert (ask().gpus, ask().devices) == (("0", "1"), 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert (ask().gpus, ask().devices) == (("1",), 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert ask().gpus == ()
    dev.rename(dev.with_name("gone"))
    assert ask().devices == 0


@pytest.mark.parametrize(
    ("need", "room"),
    [
        (Resources(cpus=1), 8),
        (Resources(cpus=3), 2),
        (Resources(cpus=16), 1),
        (Resources(cpus=1, memory_bytes=5 * GIB), 3),
        (Resources(cpus=1, memory_bytes=50 * GIB), 1),
        (Resources(cpus=1, gpus=1), 2),
        (Resources(cpus=1, gpus=2), 1),
        (Resources(cpus=1, gpus=4), 1),
    ],
)
def test_room_is_what_the_scarcest_resource_allows(need, room):
    machine = Machine(cores=8, memory_bytes=16 * GIB, gpus=("0", "1"), devices=2)
    assert machine.room(need) == room


def test_limits_of_all_that_run_at_once_fit_whatever_is_declared(staged, monkeypatch):
    """A bundle that says "one byte" on a machine with 64 cores and 16 GiB."""
    big = Machine(cores=64, memory_bytes=16 * GIB, gpus=(), devices=0)
    monkeypatch.setattr("bundler.engines.machine.this_machine", lambda: big)
    options = EngineOptions(limits=Limits(memory_bytes=3 * GIB))
    with open_engine(options, staged, Resources(cpus=1, memory_bytes=1)) as engine:
        assert engine.parallel == 5


def test_without_gpus_here_they_set_no_limit():
    machine = Machine(cores=8, memory_bytes=16 * GIB, gpus=(), devices=0)
    assert machine.room(Resources(cpus=1, gpus=1)) == 8


@given(st.integers(1, 64), st.integers(0, 1 << 40), st.integers(1, 64), st.integers(1, 1 << 40))
def test_what_runs_at_once_never_needs_more_than_there_is(cores, memory, cpus, need):
    machine = Machine(cores=cores, memory_bytes=memory, gpus=(), devices=0)
    room = machine.room(Resources(cpus=cpus, memory_bytes=need))
    assert room == 1 or (room * cpus <= cores and room * need <= memory)


def test_a_trial_is_told_its_gpus_only_where_it_does_not_get_all():
    trial = a_trial(environment={"CUDA_VISIBLE_DEVICES": "0", "A": "b"})
    assert with_gpus(trial, ("3",), 4).environment == {"CUDA_VISIBLE_DEVICES": "3", "A": "b"}
    assert with_gpus(trial, ("0",), 1) is trial
    assert with_gpus(trial, (), 4) is trial
