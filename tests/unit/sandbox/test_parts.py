"""The parts of the sandbox on their own: filter, cgroups, interpreter, output, keeper, probe, messages."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest

from bundler.errors import HostileOutputError, SandboxUnavailableError, UsageError
from bundler.sandbox import (
    Limits,
    cgroups,
    collect,
    diagnosis,
    find,
    interpreter,
    keeper,
    output,
    probe,
    process,
    seccomp,
    selftest,
)
from bundler.sandbox import (
    bubblewrap as bubblewrap_module,
)
from bundler.sandbox import (
    sandlock as sandlock_module,
)

from .conftest import PYTHON, SMALL

# --- the self-test -----------------------------------------------------------------------------


def test_isolation_says_what_was_measured(box):
    isolation = box.isolation(SMALL)
    assert isolation.kind == box.kind
    assert isolation.seccomp
    assert isolation.network == (box.kind == "bubblewrap")
    assert isolation.landlock == (box.kind == "sandlock")
    assert isolation.version
    assert {p.name for p in isolation.probes if p.blocked} >= set(probe.REQUIRED)
    named = {text.split(" ")[0] for text in isolation.limits_applied} | set(
        isolation.limits_missing
    )
    assert named == set(Limits.__slots__)


def test_without_a_sandbox_nothing_is_claimed(unconfined, job):
    isolation = unconfined.isolation(SMALL)
    assert (isolation.network, isolation.seccomp, isolation.landlock) == (False, False, False)
    assert isolation.probes == ()
    assert isolation.limits_missing == ("memory_bytes", "processes")
    made = job(
        "import os, sys; print(sys.argv, os.environ['D'], os.getcwd()); open(sys.argv[1] + '/x', 'w')"
    )
    made = replace(
        made,
        command=(*made.command, "/out", "--data=/bundle/a"),
        environment={"D": "file:///out/mlruns"},
    )
    assert unconfined.run(made).exit_code == 0
    log = made.log.read_text()
    assert f"'{made.output}', '--data={made.mounts[0].source}/a'" in log
    assert f"file://{made.output}/mlruns {made.mounts[0].source}" in log
    assert (made.output / "x").exists()


def test_without_a_sandbox_or_prlimit_less_is_claimed(unconfined, job, monkeypatch):
    monkeypatch.setattr(process, "rlimits", lambda *_, **__: ())
    outcome = unconfined.run(job(command=("/no/such/program",)))
    assert (outcome.ended, outcome.exit_code) == ("exited", 127)
    assert unconfined.isolation(SMALL).limits_missing == (
        "cpu_seconds",
        "memory_bytes",
        "processes",
        "file_bytes",
    )


def test_the_probe_gets_through_where_nothing_confines(unconfined):
    with pytest.raises(SandboxUnavailableError, match="got through the sandbox") as caught:
        selftest.measure("none", unconfined.run, SMALL, elsewhere={})
    for name in ("loopback", "abstract unix socket", "canary", "processes of the verifier"):
        assert name in caught.value.message
    assert "throw-away machine" in caught.value.remedy


@pytest.mark.parametrize("said", [b"", b"not json"])
def test_a_probe_that_does_not_answer_is_a_failure(said):
    def run(_job, *, on_output):
        on_output(said)
        return process.could_not_start("" if said else "no room")

    with pytest.raises(SandboxUnavailableError, match="the self-test could not start"):
        selftest.measure("x", run, SMALL, elsewhere={})


def test_limits_that_are_not_in_force_are_missing():
    limits = replace(SMALL, cpu_seconds=5)
    rlimits = {
        "cpu_seconds": 6,
        "file_bytes": limits.file_bytes,
        "memory_bytes": -1,
        "processes": limits.processes,
    }
    found = {"rlimits": rlimits, "processes": False}
    applied, missing = selftest._limits(limits, found, {"memory_bytes": "cgroup v2"})
    assert missing == ("cpu_seconds", "processes")
    assert "memory_bytes (cgroup v2)" in applied
    assert "file_bytes (rlimit, each process)" in applied


def _plan(tmp_path, **changes):
    (tmp_path / "canary").write_text("x")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.ssh").mkdir()
    (tmp_path / "home/z").write_text("")
    start = int(Path("/proc/self/stat").read_bytes().rpartition(b") ")[2].split()[19])
    plan = {
        "outside": "127.0.0.1", "port": 1, "abstract": "aisdp-nobody", "canary": str(tmp_path / "canary"),
        "home": str(tmp_path / "home"), "given": [], "variables": [], "unwritable": ["/nowhere", str(tmp_path)],
        "pid": os.getpid(), "start": start,
    }  # fmt: skip
    return plan | changes


def test_each_attempt_of_the_probe_can_fail_and_succeed(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "process_limit_binds", lambda: True)
    found = {p["name"]: p for p in probe.main(_plan(tmp_path))["probes"]}
    assert found["canary file outside the mounts"]["blocked"] is False
    assert found["home folder and keys"]["detail"] == f"opened {tmp_path}/home/.ssh"
    assert found["names of files in the home folder"]["detail"] == "2 names visible"
    assert found["environment of the verifier"]["blocked"] is False
    assert found["write outside /out and the working folder"]["detail"] == f"wrote into {tmp_path}"
    assert found["processes of the verifier"]["detail"] == "could be signalled"
    assert found["resource limits of the verifier"]["detail"] == "could be lowered"
    assert found["network: loopback of the host"]["detail"] == "ECONNREFUSED"
    assert found["system call unshare(CLONE_NEWUSER)"]["detail"] in ("succeeded", "EPERM", "ENOSPC")
    plan = _plan(
        tmp_path / "home",
        home="/nowhere",
        given=[".ssh", "z"],
        variables=list(os.environ),
        unwritable=[],
    )
    assert probe.home(plan) == (True, "ENOENT")
    assert probe.home_names(plan) == (True, "ENOENT")
    assert probe.home(plan | {"home": str(tmp_path / "home/home"), "given": [".ssh"]})[1].endswith(
        "/z"
    )
    assert probe.home(plan | {"home": str(tmp_path / "home/home/.ssh")}) == (True, "nothing there")
    assert probe.writes(plan) == (True, "tried 0 folders")
    assert probe.processes(plan | {"start": 1}) == (True, "another process has that pid")
    assert probe.processes(plan | {"pid": 2**22 + 1}) == (True, "ENOENT")
    assert probe.limits_of_the_verifier(plan | {"pid": 2**22 + 1}) == (True, "ENOENT")
    assert probe.canary(plan | {"canary": "/nowhere"}) == (True, "ENOENT")


def test_the_probe_reports_what_it_could_not_try(tmp_path, monkeypatch):
    monkeypatch.setattr(probe.platform, "machine", lambda: "riscv64")
    found = {p["name"]: p for p in probe.main(_plan(tmp_path))["probes"]}
    assert found["system call keyctl"]["blocked"] is False
    assert found["system call keyctl"]["detail"].startswith("could not be tried: KeyError")


def test_the_probe_tells_unusual_results_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(
        probe.socket.socket, "connect", lambda *_: (_ for _ in ()).throw(TimeoutError)
    )
    assert probe.loopback(_plan(tmp_path)) == (False, "the packets left (no answer)")
    monkeypatch.setattr(probe.socket.socket, "connect", lambda *_: None)
    assert probe.outside({"outside": "192.0.2.1"}) == (False, "connected")
    assert probe._system_call(60, 0) == (
        True,
        "killed",
    )  # exit(2) on x86_64: the child says nothing
    read, write = os.pipe()
    kept = os.dup(read)
    try:
        assert probe._is_open(read)  # a pipe opened anew is the same pipe, its path is not a path
        assert not probe._is_open(2**20)
    finally:
        for fd in (read, write, kept):
            os.close(fd)
    memory = os.memfd_create("sandlock-exec")
    plain = os.open(tmp_path / "canary", os.O_RDONLY)
    assert not probe._is_open(memory)
    assert not probe._is_open(plain)
    os.close(memory)
    os.close(plain)
    monkeypatch.setattr(
        "builtins.open", lambda *_, **__: (_ for _ in ()).throw(PermissionError(errno.EACCES, ""))
    )
    monkeypatch.setattr(
        probe.os, "kill", lambda *_: (_ for _ in ()).throw(PermissionError(errno.EPERM, ""))
    )
    assert probe.processes({"pid": 1, "start": 0}) == (True, "EPERM")
    assert probe.limits_of_the_verifier({"pid": 2**22 + 1, "start": 0}) == (True, "ESRCH")


def test_the_process_limit_is_tried_for_real():
    code = "import bundler.sandbox.probe as p; print(p.process_limit_binds())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(probe.__file__).parents[2],
    )
    assert done.stdout.strip() == str(os.geteuid() != 0)
    assert probe.process_limit_binds() is (os.geteuid() != 0)


# --- choosing a sandbox ------------------------------------------------------------------------


def test_none_demands_trust():
    with pytest.raises(SandboxUnavailableError, match="trusted") as caught:
        find("none")
    assert "--i-trust-this-code" in caught.value.remedy
    assert find("none", trusted=True).kind == "none"


def test_the_message_lists_what_was_tried(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sandlock_module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SandboxUnavailableError) as caught:
        find()
    assert "bwrap is not on PATH" in caught.value.message
    assert "sandlock: it is not installed" in caught.value.message
    for remedy in (
        "apt-get install bubblewrap",
        "dnf install bubblewrap",
        "pip install aisdp-bundler[sandlock]",
    ):
        assert remedy in caught.value.remedy
    assert caught.value.exit_code == 5
    with pytest.raises(SandboxUnavailableError) as caught:
        find("bubblewrap", trusted=True)
    assert "sandlock" not in caught.value.message


def test_auto_prefers_bubblewrap_and_falls_back(bubblewrap, sandlock, monkeypatch):
    assert find().kind == "bubblewrap"
    monkeypatch.setattr(seccomp, "supported", lambda: False)
    assert find().kind == "sandlock"


def _fake_bwrap(tmp_path, monkeypatch, body, *, setpriv=False):
    program = tmp_path / "bin/bwrap"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\ncase $1 in --version) echo bubblewrap 0.4.1;; --help) echo ;; *) {body};; esac\n"
    )
    program.chmod(0o755)
    if setpriv:
        (tmp_path / "bin/setpriv").symlink_to(shutil.which("setpriv"))
    monkeypatch.setenv("PATH", str(program.parent))


def test_a_bwrap_that_fails_is_diagnosed(tmp_path, monkeypatch):
    _fake_bwrap(tmp_path, monkeypatch, "echo 'bwrap: No permissions' >&2; exit 1", setpriv=True)
    with pytest.raises(SandboxUnavailableError, match=r"bubblewrap: .*bwrap: No permissions"):
        find("bubblewrap")


def test_an_old_bwrap_gets_no_option_it_lacks(tmp_path, monkeypatch, job):
    _fake_bwrap(tmp_path, monkeypatch, "exit 0")
    box = find("bubblewrap")
    assert box.version == "0.4.1"
    assert box.user == (
        "uid 0 (root, without capabilities, in a user namespace)"
        if os.geteuid() == 0
        else f"uid {os.geteuid()}"
    )
    group = cgroups.Cgroup(version=2)
    command = box._command(job(""), {PurePosixPath("/x"): tmp_path}, 11, {}, group)
    bwrap = next(i for i, word in enumerate(command) if word.endswith("/bwrap"))
    assert not {"--size", "--clearenv", "--disable-userns", "--setpriv"} & set(command)
    assert command[command.index("/x") - 1] == str(tmp_path)
    for limit in (f"as={SMALL.memory_bytes}:{SMALL.memory_bytes}", "cpu=20:20"):
        assert f"--{limit}" in command[:bwrap]  # its own pid 1 is inside, too
    assert "--nproc=64:64" in command[bwrap:]
    outcome = box.run(job(""))
    assert outcome.ended == "could not start"  # it never let the job give its sign
    assert outcome.detail == "no message"


def test_bwrap_works_without_dropping_the_uid(bubblewrap, run, monkeypatch):
    monkeypatch.setattr(bubblewrap, "_setpriv", None)
    outcome, log = run(bubblewrap, "import os; print(os.getuid())")
    assert (outcome.exit_code, log) == (0, "65534\n")


def test_a_claimed_cgroup_must_exist_for_each_job(box, job, monkeypatch):
    monkeypatch.setattr(cgroups, "create", lambda *_: cgroups.Cgroup(version=2))
    monkeypatch.setattr(box, "_controllers", frozenset({"memory"}), raising=False)
    monkeypatch.setattr(box, "_mechanism", "cgroup v2", raising=False)
    assert "cgroup" in box.run(job("")).detail


def test_system_folders_may_be_real_ones(monkeypatch, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "bin").symlink_to("usr/bin")
    monkeypatch.setattr(
        bubblewrap_module, "_ROOT_FOLDERS", tuple(str(tmp_path / n) for n in ("lib", "bin", "none"))
    )
    shown = bubblewrap_module._system()
    assert shown[3:9] == [
        "--ro-bind",
        str(tmp_path / "lib"),
        str(tmp_path / "lib"),
        "--symlink",
        "usr/bin",
        str(tmp_path / "bin"),
    ]


@pytest.mark.parametrize(
    ("files", "cause", "remedy"),
    [
        (
            {"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"},
            "AppArmor",
            "bwrap-userns-restrict",
        ),
        (
            {"proc/sys/user/max_user_namespaces": "0\n"},
            "refuse user namespaces",
            "max_user_namespaces",
        ),
        (
            {"proc/sys/kernel/unprivileged_userns_clone": "0\n"},
            "refuse user namespaces",
            "userns_clone=1",
        ),
        ({".dockerenv": ""}, "container", "seccomp=unconfined"),
        ({"proc/self/status": "A:\t1\nSeccomp:\t2\nB:\t1\n"}, "container", "sandlock"),
        ({}, "cannot make a sandbox", "bwrap"),
    ],
)
def test_each_cause_has_its_remedy(tmp_path, files, cause, remedy):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    message, advice = diagnosis.why_bubblewrap_fails("bwrap: no", root=tmp_path)
    assert cause in message
    assert "bwrap: no" in message
    assert remedy in advice


def test_sandlock_says_why_it_cannot(sandlock, monkeypatch):
    module = SimpleNamespace(
        landlock_abi_version=lambda: -1, min_landlock_abi=lambda: 6, __version__="9"
    )
    monkeypatch.setattr(sandlock_module.importlib, "import_module", lambda _: module)
    with pytest.raises(SandboxUnavailableError, match="Landlock ABI 0, 6 is needed"):
        find("sandlock")
    module.landlock_abi_version = lambda: 6
    monkeypatch.setattr(sandlock_module.os, "geteuid", lambda: 0)
    monkeypatch.setattr(sandlock_module.shutil, "which", lambda _: None)
    with pytest.raises(SandboxUnavailableError, match="setpriv"):
        find("sandlock")
    monkeypatch.setattr(sandlock_module.os, "geteuid", lambda: 1000)
    assert find("sandlock")._prefix() == ()
    monkeypatch.setattr(sandlock_module.importlib, "import_module", lambda _: 1 / 0)
    with pytest.raises(SandboxUnavailableError, match="cannot be loaded"):
        find("sandlock")


# --- seccomp -----------------------------------------------------------------------------------


def _evaluate(code: bytes, number: int, *arguments: int, arch: int = 0xC000003E) -> int:
    """Run the filter as the kernel would and return its verdict."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *padded)
    instructions = list(struct.iter_unpack("<HBBI", code))
    counter = accumulator = 0
    while True:
        operation, yes, no, constant = instructions[counter]
        counter += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, constant)[0]
        elif operation == 0x06:
            return constant
        else:
            test = {
                0x15: accumulator == constant,
                0x35: accumulator >= constant,
                0x45: accumulator & constant,
            }
            counter += yes if test[operation] else no


ALLOW, KILL = 0x7FFF0000, 0x80000000


def test_the_filter_denies_what_it_names_and_allows_the_rest():
    for machine, column, arch in (("x86_64", 0, 0xC000003E), ("aarch64", 1, 0xC00000B7)):
        code = seccomp.program(machine)
        assert len(code) // 8 <= 4096  # BPF_MAXINSNS
        for name, numbers in seccomp.NUMBERS.items():
            if numbers[column] is not None:
                refusal = errno.ENOSYS if name in seccomp._NOT_IMPLEMENTED else errno.EPERM
                assert _evaluate(code, numbers[column], arch=arch) == 0x50000 | refusal, name
        assert _evaluate(code, 63, arch=arch) == ALLOW  # uname, read
        assert _evaluate(code, 63, arch=0x40000003) == KILL  # i386
        assert set(seccomp.NUMBERS) >= seccomp._NOT_IMPLEMENTED


def test_the_filter_looks_at_arguments():
    code = seccomp.program("x86_64")
    refused = 0x50000 | errno.EPERM
    no_family = 0x50000 | errno.EAFNOSUPPORT
    assert _evaluate(code, 0x40000000 + 1) == 0x50000 | errno.ENOSYS  # x32
    assert _evaluate(code, 56, 0x3D0F00) == ALLOW  # a thread
    assert _evaluate(code, 56, 17) == ALLOW  # fork
    assert _evaluate(code, 56, 0x10000000 | 17) == refused
    assert _evaluate(code, 272, 0x400) == ALLOW  # unshare(CLONE_FILES)
    assert _evaluate(code, 272, 0x80) == refused
    assert _evaluate(code, 272, 0x20000) == refused
    for family in (1, 2, 10):
        assert _evaluate(code, 41, family, 1, 6) == ALLOW
    for family in (0, 3, 17, 38, 40):
        assert _evaluate(code, 41, family, 1, 0) == no_family
    assert _evaluate(code, 41, 16, 3, 0) == ALLOW
    assert _evaluate(code, 41, 16, 3, 12) == no_family
    assert _evaluate(code, 16, 0, 0x5412) == refused
    assert _evaluate(code, 16, 0, 0x541C) == refused
    assert _evaluate(code, 16, 0, 0x5413) == ALLOW


def test_only_known_machines_have_a_filter():
    assert seccomp.supported("aarch64")
    assert not seccomp.supported("riscv64")
    with pytest.raises(KeyError):
        seccomp.program("riscv64")


# --- cgroups -----------------------------------------------------------------------------------


def _hierarchy(tmp_path, kind, options, own):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"1 2 0:1 / / rw - ext4 /dev/x rw\n30 2 0:5 /outer {tmp_path}/fs rw shared:1 - {kind} x {options}\n"
    )
    membership = tmp_path / "membership"
    membership.write_text(own)
    (tmp_path / "fs/inner").mkdir(parents=True)
    return {"mounts": mounts, "membership": membership}


def test_version_2_is_used_where_it_is_delegated(tmp_path, monkeypatch):
    where = _hierarchy(tmp_path, "cgroup2", "rw", "0::/outer/inner\n")
    assert cgroups.create(100, 5, **where).folders == {}
    (tmp_path / "fs/cgroup.subtree_control").write_text("cpu memory pids\n")
    group = cgroups.create(100, 5, **where)
    assert group.version == 2
    folder = group.folders["memory"]
    assert folder.parent == tmp_path / "fs"  # the nearest one that hands its controllers down
    assert (folder / "memory.max").read_text() == "100"
    assert (folder / "pids.max").read_text() == "13"
    assert group.joins == (folder / "cgroup.procs",)
    assert group.cpu_seconds() is None
    assert group.out_of_memory() is False
    (folder / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    (folder / "memory.events").write_text("oom 1\noom_kill 1\n")
    assert group.cpu_seconds() == 1.5
    assert group.out_of_memory()
    monkeypatch.setattr(time, "sleep", lambda _: None)
    group.remove()  # not empty here: it gives up quietly
    shutil.rmtree(folder)
    group.remove()
    group.kill()


def test_a_controller_that_is_not_handed_down_is_not_claimed(tmp_path):
    where = _hierarchy(tmp_path, "cgroup2", "rw", "0::/outer\n")
    (tmp_path / "fs/cgroup.subtree_control").write_text("cpu pids\n")
    assert set(cgroups.create(100, 5, **where).folders) == {"pids", "cpu"}
    (tmp_path / "fs/cgroup.subtree_control").write_text("cpu\n")
    assert cgroups.create(100, 5, **where).folders == {}


def test_version_1_has_a_folder_for_each_controller(tmp_path):
    where = _hierarchy(tmp_path, "cgroup", "rw,memory", "4:memory:/outer/inner\n")
    group = cgroups.create(100, 5, **where)
    assert group.folders["memory"].parent == tmp_path / "fs/inner"
    assert (group.folders["memory"] / "memory.limit_in_bytes").read_text() == "100"
    assert group.cpu_seconds() is None


def test_what_may_not_be_written_is_not_claimed(tmp_path, monkeypatch):
    where = _hierarchy(tmp_path, "cgroup", "rw,memory", "4:memory:/outer/inner\n")

    def refuse(self, _text):
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    assert cgroups.create(100, 5, **where).folders == {}
    assert list((tmp_path / "fs/inner").iterdir()) == []
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert cgroups.create(100, 5, mounts=tmp_path / "none").folders == {}


def test_a_folder_that_cannot_be_made_is_passed_over(tmp_path):
    assert not cgroups._make(tmp_path / "a/b", {})


def test_a_real_cgroup_kills_its_members():
    group = cgroups.create(1 << 30, 10)
    if not group.folders:
        pytest.skip("no cgroup can be made here")
    child = subprocess.Popen(["sleep", "60"])
    for path in group.joins:
        path.write_text(str(child.pid))
    group.kill()
    assert child.wait() == -signal.SIGKILL
    group.remove()
    assert not any(folder.exists() for folder in group.folders.values())


def test_a_killed_keeper_leaves_nothing_behind(bubblewrap, job):
    if not bubblewrap._controllers:
        pytest.skip("without a cgroup only the kernel's parent-death signal works")
    made = job("import os; print(1); import time; time.sleep(60)")

    def kill(_chunk):
        for pid in sorted(keeper._descendants(os.getpid()))[:1]:  # the keeper is the oldest
            os.kill(pid, signal.SIGKILL)

    outcome = bubblewrap.run(made, on_output=kill)
    assert (outcome.ended, outcome.exit_code) == ("killed", None)
    assert "watches over" in outcome.detail


# --- the interpreter ---------------------------------------------------------------------------


def _installation(folder: Path) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "lib/python3.11").mkdir(parents=True)
    (folder / "lib/python3.11/os.py").touch()
    (folder / "bin/python3.11").touch()
    return folder / "bin/python3.11"


def test_a_virtual_environment_needs_itself_and_its_base_under_all_names(tmp_path):
    real = _installation(tmp_path / "versions/3.11.7")
    (tmp_path / "versions/3.11").symlink_to("3.11.7")
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").symlink_to(tmp_path / "versions/3.11/bin/python3.11")
    (venv / "pyvenv.cfg").write_text(f"home = {tmp_path}/versions/3.11/bin\nversion = 3.11.7\n")
    base = real.parent.parent
    expected = {venv: venv, base: base, tmp_path / "versions/3.11": base}
    assert interpreter.prefixes(venv / "bin/python") == expected
    assert interpreter.prefixes(real) == {base: base}


def test_the_systems_python_needs_nothing():
    if not Path("/usr/bin/python3").exists():
        pytest.skip("needs the system's Python")
    assert interpreter.prefixes(Path("/usr/bin/python3")) == {}
    assert interpreter._in_usr(Path("/"))


def test_a_home_folder_is_never_shown(tmp_path, monkeypatch):
    python = _installation(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match="not a folder that holds only"):
        interpreter.prefixes(python)
    with pytest.raises(UsageError, match="no Python interpreter"):
        interpreter.prefixes(tmp_path / "bin/nothing")
    (tmp_path / "loop").symlink_to("loop")
    assert len(interpreter._link_prefixes(tmp_path / "loop")) == 40


# --- output ------------------------------------------------------------------------------------


def test_collect_returns_plain_files_sorted(tmp_path):
    (tmp_path / "b/c").mkdir(parents=True)
    (tmp_path / "b/c/métrique 1.json").write_text("{}")
    (tmp_path / "a").write_text("x")
    found = collect(tmp_path, limits=SMALL)
    assert found.files == (tmp_path / "a", tmp_path / "b/c/métrique 1.json")
    assert found.links == 0


def test_collect_removes_links_and_never_what_they_point_at(tmp_path):
    out, outside = tmp_path / "out", tmp_path / "outside"
    (out / "run/files").mkdir(parents=True)
    outside.mkdir()
    (outside / "kept").write_text("x")
    (out / "run/a").write_text("x")
    (out / "latest-run").symlink_to("run")
    (out / "run/files/up").symlink_to(outside)
    (out / "run/debug.log").symlink_to(outside / "kept")
    (out / "dangling").symlink_to("/nowhere")
    (out / "odd\n\u202e").symlink_to("loop")
    found = collect(out, limits=SMALL)
    assert (found.files, found.links) == ((out / "run/a",), 5)
    assert sorted(path.name for path in out.rglob("*")) == ["a", "files", "run"]
    assert (outside / "kept").read_text() == "x"


def test_refused_output_stays_as_it_is(tmp_path):
    (tmp_path / "link").symlink_to("x")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(HostileOutputError, match="FIFO"):
        collect(tmp_path, limits=SMALL)
    assert (tmp_path / "link").is_symlink()


def test_a_folder_that_becomes_a_link_is_not_entered(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "d").symlink_to("outside")
    with pytest.raises(NotADirectoryError), output._parent(tmp_path, "d/x"):
        pass


def test_links_count_as_files(tmp_path):
    for number in range(SMALL.output_files + 1):
        (tmp_path / str(number)).symlink_to("x")
    with pytest.raises(HostileOutputError, match="more than 100 files"):
        collect(tmp_path, limits=SMALL)


def _deep(folder: Path) -> None:
    (folder / "/".join("d" * 20)).mkdir(parents=True)


def _sparse(size):
    def make(folder: Path) -> None:
        with (folder / "f").open("wb") as file:
            file.truncate(size)

    return make


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda p: os.mkfifo(p / "f"), "FIFO: 'f'"),
        (lambda p: ((p / "a").touch(), os.link(p / "a", p / "b")), "2 hard links"),
        (lambda p: ((p / "a").touch(), (p / "a").chmod(0o4755)), "set-uid or set-gid: 'a'"),
        (lambda p: (p / "a\u202eb").touch(), "forbidden characters"),
        (lambda p: (p / "a\\b").touch(), "forbidden characters"),
        (lambda p: Path(os.fsdecode(bytes(p) + b"/\xff")).touch(), "forbidden characters"),
        (_deep, "nested more than 16"),
        (lambda p: [(p / str(i)).touch() for i in range(101)], "more than 100 files"),
        (_sparse(SMALL.output_bytes + 1), "bytes in total"),
    ],
)
def test_collect_refuses_the_rest(tmp_path, make, problem):
    make(tmp_path)
    with pytest.raises(HostileOutputError) as caught:
        collect(tmp_path, limits=SMALL)
    assert problem in caught.value.message
    assert caught.value.exit_code == 6


def test_collect_refuses_one_file_too_large_and_a_missing_folder(tmp_path):
    _sparse(11)(tmp_path)
    with pytest.raises(HostileOutputError, match="more than 10 bytes: 'f'"):
        collect(tmp_path, limits=replace(SMALL, file_bytes=10))
    with pytest.raises(HostileOutputError, match="unreadable"):
        collect(tmp_path / "none", limits=SMALL)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(HostileOutputError, match="unreadable"):
        collect(tmp_path / "link", limits=SMALL)


def test_excess_sees_what_a_running_job_does(tmp_path, monkeypatch):
    def now(**limits):
        return output.excess(tmp_path, **({"max_bytes": 10**6, "max_files": 50} | limits))

    (tmp_path / "a").write_text("abc")
    assert now() == ""
    assert now(max_bytes=2) == "more than 2 bytes"
    assert now(max_files=0) == "more than 0 files"
    given = output.size(tmp_path)
    assert (given.files, given.depth) == (1, 1)
    assert now(max_bytes=0, max_files=0, given=given) == ""
    (tmp_path / "b").touch()
    assert now(max_files=0, given=given) == "more than 1 files"
    _deep(tmp_path)
    assert "nested" in now()
    assert "cannot be read" in output.excess(tmp_path / "none", max_bytes=1, max_files=1)
    monkeypatch.setattr(output, "walk", lambda _, **__: (_ for _ in ()).throw(PermissionError))
    assert now() == "a folder that the verifier cannot read"


def test_walking_survives_what_vanishes(tmp_path, monkeypatch):
    (tmp_path / "d").mkdir()
    gone = SimpleNamespace(name="gone", stat=lambda **_: (_ for _ in ()).throw(FileNotFoundError))
    swapped = SimpleNamespace(name="swapped", stat=lambda **_: (tmp_path / "d").stat())

    class Entries(list):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(output.os, "scandir", lambda _: Entries([gone, swapped]))
    assert [path for path, _ in output.walk(tmp_path)] == ["swapped"]


# --- the log -----------------------------------------------------------------------------------


def test_the_last_lines_of_a_log_cannot_steer_a_terminal(tmp_path):
    (tmp_path / "log").write_text("x" * 5000 + "\nfirst\n\n\x1b[2Jübel\n")
    assert diagnosis.last_lines(tmp_path / "log")[1:] == ["first", "\\x1b[2J\\xfcbel"]
    assert diagnosis.last_lines(tmp_path / "none") == []


def test_the_usual_causes_of_a_failure_are_quoted():
    lines = [
        "OSError: [Errno 30] Read-only file system: 'older'",
        "OSError: [Errno 30] Read-only file system: '/x'",
        "ModuleNotFoundError: No module named 'torch'",
    ]
    read_only, missing = diagnosis.why_training_fails(lines, PYTHON)
    assert "Read-only file system: '/x'\": only {out}" in read_only
    assert f"'torch'\": install it for the interpreter of the re-run, {PYTHON}" in missing
    assert list(diagnosis.why_training_fails(["Killed"], PYTHON)) == []


# --- keeper and watch --------------------------------------------------------------------------


@pytest.fixture
def as_keeper():
    """Let this very process be a keeper for a moment; pytest's own use of START_FD survives it."""

    def keep(**spec):
        plain = {
            "argv": [],
            "cwd": "/",
            "fds": [],
            "marked": False,
            "site": "",
            "options": {},
        }
        before = signal.getsignal(signal.SIGTERM)
        with contextlib.suppress(OSError):
            saved = os.dup(keeper.START_FD)
        try:
            return keeper.keep(plain | {"cgroup": [], "parent": os.getppid()} | spec)
        finally:
            with contextlib.suppress(NameError, OSError):
                os.dup2(saved, keeper.START_FD)
                os.close(saved)
            prctl = ctypes.CDLL(None).prctl
            prctl(keeper._PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
            prctl(keeper._PR_SET_PDEATHSIG, 0, 0, 0, 0)
            signal.signal(signal.SIGTERM, before)

    return keep


def test_the_keeper_reports_and_sweeps(as_keeper):
    report = as_keeper(argv=["/bin/sh", "-c", "setsid sleep 60 & exit 3"])
    assert (report["started"], report["code"]) == (True, 3)
    assert report["cpu"] >= 0
    assert as_keeper(argv=["/bin/sh", "-c", "kill -9 $$"])["code"] == 137
    assert as_keeper(argv=["/bin/sh", "-c", "printf s >&9"], marked=True)["started"] is True
    assert as_keeper(argv=["/bin/true"], marked=True)["started"] is False
    left = as_keeper(argv=["/bin/sh", "-c", "sleep 60 & exit 0"], marked=True)
    assert left["started"] is False
    assert as_keeper(argv=["/nowhere"])["started"] is False
    assert "null byte" in as_keeper(argv=["/bin/true", "a\0b"])["error"]
    assert "cgroup" in as_keeper(cgroup=["/nowhere/cgroup.procs"])["error"]


def test_the_keeper_joins_cgroups_and_writes_its_report(as_keeper, tmp_path, monkeypatch):
    as_keeper(argv=["/bin/true"], cgroup=[str(tmp_path / "procs")])
    assert (tmp_path / "procs").read_text() == str(os.getpid())
    monkeypatch.setattr(keeper, "keep", lambda spec: {"code": spec["code"]})
    reading, writing = os.pipe()
    assert keeper.main([json.dumps({"report": writing, "code": 4})]) == 0
    assert os.read(reading, 99) == b'{"code": 4}'
    os.close(reading)
    os.close(writing)


def test_the_keeper_dies_with_its_parent(as_keeper, monkeypatch):
    ends = []
    monkeypatch.setattr(keeper.os, "_exit", ends.append)
    as_keeper(argv=["/bin/true"], parent=1)
    assert ends == [143]


def test_the_keeper_hosts_sandlock(as_keeper, sandlock, monkeypatch):
    options = {"fs_readable": ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache"]}
    site = sandlock._site
    assert as_keeper(argv=["/bin/sh", "-c", "exit 5"], site=site, options=options)["code"] == 5
    assert (
        as_keeper(argv=["/bin/sh", "-c", "kill -9 $$"], site=site, options=options)["code"] == 137
    )
    assert "sandlock" in as_keeper(argv=["/bin/true"], site=site, options={"no": 1})["error"]
    lost = SimpleNamespace(start=lambda: None, is_alive=lambda: False)
    monkeypatch.setattr(keeper.threading, "Thread", lambda **_: lost)
    assert (
        as_keeper(argv=["/bin/true"], site=site, options=options)["error"]
        == "sandlock lost the process"
    )


def test_sweeping_gives_up_in_the_end(monkeypatch):
    monkeypatch.setattr(keeper, "_descendants", lambda _: iter([2**22 + 5]))
    assert keeper.sweep(1, seconds=0.02) is False


def test_processes_that_end_meanwhile_are_left_out(monkeypatch):
    monkeypatch.setattr(keeper.os, "listdir", lambda _: ["x", str(2**22 + 5)])
    assert list(keeper._descendants(1)) == []


def test_a_keeper_that_cannot_start(unconfined, job, monkeypatch):
    monkeypatch.setattr(process.sys, "executable", "/nowhere/python")
    outcome = unconfined.run(job(command=("/bin/true",)))
    assert (outcome.ended, outcome.wall_seconds) == ("could not start", 0.0)


def test_a_stubborn_keeper_is_killed(unconfined, job, monkeypatch):
    monkeypatch.setattr(process, "_GRACE", 0.0)
    monkeypatch.setattr(keeper, "sweep", lambda _pid: True)
    limits = replace(SMALL, wall_seconds=0.2)
    outcome = unconfined.run(job(command=("/bin/sleep", "1"), limits=limits))
    assert outcome.ended == "timed out"
    time.sleep(1.1)


def test_an_almost_full_disk_ends_the_job(unconfined, job, monkeypatch):
    free = iter([10**9])
    monkeypatch.setattr(process, "_free", lambda _: next(free, 0))
    outcome = unconfined.run(job("import time; time.sleep(20)"))
    assert (outcome.ended, outcome.detail) == (
        "output limit",
        "the file system of the output is almost full",
    )


def test_an_odd_exit_status_is_named():
    assert process._signal_name(11) == "signal 11 (SIGSEGV)"
    assert process._signal_name(120) == "exit status 248"


def test_rlimits_need_util_linux(monkeypatch):
    monkeypatch.setattr(process.shutil, "which", lambda *_, **__: None)
    assert process.rlimits(SMALL, memory=True) == ()


def test_running_out_of_memory_is_named(unconfined, job):
    group = SimpleNamespace(
        joins=(), out_of_memory=lambda: True, cpu_seconds=lambda: 2.0, kill=lambda: None
    )
    launch = process.Launch(argv=("/bin/true",))
    made = job()
    made.output.mkdir()
    outcome = process.supervise(launch, made, group, None)
    assert (outcome.detail, outcome.cpu_seconds) == ("the memory limit was reached", 2.0)


def test_the_interpreter_of_this_test_is_found():
    assert interpreter.prefixes(PYTHON) is not None
