"""What hostile training code tries, against each real sandbox."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from bundler import sandbox
from bundler.errors import HostileOutputError, SandboxUnavailableError, UsageError
from bundler.sandbox import Mount, collect

from .conftest import MIB, SMALL


def test_the_exit_code_and_the_log_come_back(box, job):
    made = job(
        "import sys, os; print('hello', os.getcwd()); open('/out/a', 'w').write('x'); sys.exit(7)"
    )
    chunks = []
    outcome = box.run(made, on_output=chunks.append)
    assert (outcome.ended, outcome.exit_code, outcome.detail) == ("exited", 7, "")
    assert made.log.read_bytes() == b"".join(chunks) == b"hello /bundle\n"
    assert 0 < outcome.cpu_seconds < 5
    assert 0 < outcome.wall_seconds < 20
    assert MIB < outcome.peak_memory_bytes < 512 * MIB
    assert collect(made.output, limits=SMALL).files == (made.output / "a",)
    assert (made.output / "a").stat().st_uid == os.geteuid()
    assert made.output.stat().st_uid == os.geteuid()


def test_the_environment_is_only_what_was_given(box, run, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    code = (
        "import os, glob\nprint(sorted(os.environ))\n"
        "for f in glob.glob('/proc/*/environ'):\n"
        " try: print(open(f).read())\n"
        " except OSError: pass"
    )
    outcome, log = run(box, code, SEED="42")
    assert outcome.exit_code == 0
    assert "SEED" in log
    assert "AWS" not in log
    assert "hunter2" not in log


def test_the_network_is_out_of_reach(box, run):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = (
            "import socket\n"
            f"for a in (('127.0.0.1', {port}), ('192.0.2.1', 443)):\n"
            " s = socket.socket(); s.settimeout(2)\n"
            " print('code', s.connect_ex(a))\n"
        )
        outcome, log = run(box, code)
    assert outcome.exit_code == 0
    assert log.count("code") == 2
    assert "code 0\n" not in log
    assert "code 11\n" not in log  # EAGAIN is how a timeout looks


def test_files_outside_the_mounts_cannot_be_read(box, run, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("canary")
    secret.chmod(0o644)
    code = (
        f"for p in ({str(secret)!r}, '/etc/shadow', '/proc/1/root/etc/shadow', '/proc/1/environ'):\n"
        " try: open(p).read(); print('READ', p)\n"
        " except OSError as e: print(type(e).__name__)"
    )
    outcome, log = run(box, code)
    assert outcome.exit_code == 0
    assert "READ /etc" not in log
    assert "READ " + str(secret) not in log
    assert "READ /proc/1/root" not in log


def test_nothing_outside_out_and_tmp_can_be_written(box, run):
    code = (
        "import os\n"
        "for d in ('/', '/usr', '/etc', '/dev', '/bundle', '/var/tmp', os.path.dirname(os.__file__)):\n"
        " try: open(d + '/x-aisdp', 'w'); print('WROTE', d)\n"
        " except OSError as e: print(type(e).__name__)\n"
        "open(os.environ['TMPDIR'] + '/x-aisdp', 'w').write('1'); open('/out/x', 'w').write('1')"
    )
    outcome, log = run(box, code)
    assert outcome.exit_code == 0, log
    assert "WROTE" not in log
    assert not Path("/tmp/x-aisdp").exists()


_TRIES = """
import os
def attempt(path):
    try: open(path, "w").write("x"); print("WROTE", path)
    except OSError: pass
for path in ("/bundle/x", "/bundle/data/x", "/bundle/inputs/x", "/bundle/inputs/given.csv", "../x",
             "../../x", "../../inputs/given.csv", "/bundle/data/code/../x", HOST + "/bundle/data/code/train.py",
             HOST + "/code/x", HOST + "/x"):
    attempt(path)
print(os.getcwd(), sorted(os.listdir()), open("/bundle/inputs/given.csv").read())
open("train.py", "a").write("changed"); os.makedirs("a/b"); os.rename("train.py", "a/b/c")
open("/bundle/data/code/dvc.yaml", "w").write("x")
print(sorted(os.listdir("/bundle/data/code")))
"""


@pytest.fixture
def with_workspace(job, tmp_path):
    """Make a job with a bundle that is only to be read and, in it, a folder to work in."""

    def make(code="", **options):
        for name in ("bundle/data/code", "bundle/inputs", "code"):
            (tmp_path / name).mkdir(parents=True)
        (tmp_path / "bundle/inputs/given.csv").write_text("1,2")
        for name in ("bundle/data/code", "code"):
            (tmp_path / name / "train.py").write_text("pass\n")
        subprocess.run(["chmod", "-R", "a+rX", str(tmp_path / "bundle")], check=True)
        return replace(
            job(code, **options),
            working_directory=PurePosixPath("/bundle/data/code"),
            workspace=tmp_path / "code",
        )

    return make


def test_the_working_folder_can_be_written_and_nothing_else_of_the_bundle(
    box, with_workspace, tmp_path
):
    made = with_workspace(f"HOST = {str(tmp_path)!r}\n" + _TRIES)
    assert box.run(made).exit_code == 0, made.log.read_text()
    assert made.log.read_text().splitlines() == [
        "/bundle/data/code ['train.py'] 1,2",
        "['a', 'dvc.yaml']",
    ]
    assert (tmp_path / "code/a/b/c").read_text() == "pass\nchanged"
    assert (tmp_path / "bundle/data/code/train.py").read_text() == "pass\n"
    assert [path.name for path in (tmp_path / "bundle/data/code").iterdir()] == ["train.py"]
    # And all of it belongs to the verifier again.
    left = [made.workspace, *made.workspace.rglob("*")]
    assert {path.lstat().st_uid for path in left} == {os.geteuid()}


def test_without_a_sandbox_the_working_folder_is_the_copy_too(unconfined, with_workspace, tmp_path):
    made = with_workspace("import os; print(os.getcwd()); open('x', 'w')")
    assert unconfined.run(made).exit_code == 0
    assert made.log.read_text() == f"{tmp_path}/code\n"
    assert (tmp_path / "code/x").exists()


def test_the_working_folder_and_the_output_have_one_limit_together(box, with_workspace):
    made = with_workspace(
        "import time\n"
        "for name in ('/out/a', 'a'): open(name, 'wb').write(bytes(25 << 20))\n"
        "time.sleep(30)"
    )
    outcome = box.run(made)
    assert (outcome.ended, outcome.exit_code) == ("output limit", None)
    assert outcome.detail.startswith("/out and /bundle/data/code: more than")


def test_what_the_working_folder_held_before_is_not_charged(box, with_workspace):
    made = with_workspace("import time; time.sleep(0.3)")
    (made.workspace / "weights").write_bytes(bytes(SMALL.output_bytes))
    folder = made.workspace / "/".join("d" * 20)
    folder.mkdir(parents=True)
    for number in range(SMALL.output_files):
        (folder / str(number)).touch()
    assert box.run(made).ended == "exited"


@pytest.mark.parametrize("place", [".", "/out"])
def test_what_a_job_nests_with_its_last_breath_is_measured_too(box, with_workspace, place):
    made = with_workspace(
        "import os, time, sys\n"
        "os.mkdir('m')\n"
        "for i in range(90): open(f'm/{i}', 'w').close()\n"
        "time.sleep(0.2)\n"
        f"os.chdir({place!r})\n"
        "for _ in range(90): os.mkdir('d'); os.chdir('d')\n"
        "os._exit(0)\n",
    )
    outcome = box.run(made)
    assert (outcome.ended, outcome.exit_code) == ("output limit", None)
    assert "/out and /bundle/data/code: " in outcome.detail


def test_a_working_folder_that_cannot_be_measured_starts_nothing(unconfined, with_workspace):
    made = replace(with_workspace("print(1)"), workspace=Path("/nowhere"))
    outcome = unconfined.run(made)
    assert (outcome.ended, outcome.exit_code) == ("could not start", None)
    assert "cannot be measured" in outcome.detail


def test_a_link_from_the_working_folder_to_the_output_leads_nowhere(box, with_workspace):
    made = with_workspace(
        "import os\n"
        "open('secret', 'w').write('x')\n"
        "os.symlink('/bundle/data/code/secret', '/out/a'); os.symlink('/out', '/out/loop')\n"
        "try: os.link('secret', '/out/b')\n"
        "except OSError: pass\n"
    )
    assert box.run(made).exit_code == 0, made.log.read_text()
    if (made.output / "b").exists():  # where both are mounted as one file system
        with pytest.raises(HostileOutputError, match="2 hard links"):
            collect(made.output, limits=SMALL)
        (made.output / "b").unlink()
    found = collect(made.output, limits=SMALL)
    assert (found.files, found.links) == ((), 2)
    assert (made.workspace / "secret").exists()


def test_a_fork_bomb_is_contained(box, run):
    code = (
        "import os, time\n"
        "n = 0\n"
        "try:\n"
        " while n < 500:\n"
        "  if os.fork() == 0: time.sleep(30); os._exit(0)\n"
        "  n += 1\n"
        "except OSError as e: print('refused', n, e)\n"
    )
    begun = time.monotonic()
    outcome, log = run(box, code, limits=replace(SMALL, processes=20))
    assert "refused" in log, (outcome, log)
    assert int(log.split()[1]) < 25
    assert time.monotonic() - begun < 10  # what it left behind was killed


def test_filling_the_disk_ends_the_job(box, run):
    code = (
        "import os; b = b'x' * (1 << 20)\n"
        "for i in range(10**6):\n"
        " with open(f'/out/{i % 50}', 'ab') as f: f.write(b)"
    )
    outcome, _ = run(box, code)
    assert (outcome.ended, outcome.exit_code) == ("output limit", None)
    assert "/out: more than" in outcome.detail


def test_a_swarm_of_files_ends_the_job(box, run):
    outcome, _ = run(
        box, "import time\nfor i in range(200): open(f'/out/{i}', 'w')\ntime.sleep(30)"
    )
    assert (outcome.ended, outcome.detail) == ("output limit", "/out: more than 100 files")


def test_filling_tmp_is_limited(box, run):
    code = (
        "import os; b = b'x' * (1 << 20)\n"
        "f = open(os.environ['TMPDIR'] + '/big', 'wb')\n"
        "try:\n"
        " for i in range(190): f.write(b); f.flush()\n"
        "except OSError as e: print('refused', e)\n"
        "import time; time.sleep(5)"
    )
    outcome, log = run(box, code, limits=replace(SMALL, wall_seconds=3))
    if box.kind == "bubblewrap":
        assert "No space left" in log
    else:
        assert outcome.ended == "output limit"


def test_one_file_cannot_outgrow_its_limit(box, run):
    code = (
        "import signal; signal.signal(25, signal.SIG_IGN)\nopen('/out/f', 'wb').truncate(201 << 20)"
    )
    outcome, log = run(box, code)
    assert outcome.exit_code == 1
    assert "File too large" in log


def test_memory_is_limited(box, run):
    outcome, log = run(
        box, "b = bytearray(900 << 20); print('GOT')", limits=replace(SMALL, memory_bytes=256 * MIB)
    )
    assert "GOT" not in log
    assert outcome.exit_code != 0
    assert outcome.ended in ("killed", "exited")


def test_time_kills_the_tree_and_its_daemons(box, run):
    marker = f"aisdp-daemon-{os.getpid()}-{box.kind}"
    code = (
        "import os, time, sys\n"
        "for _ in range(3):\n"
        " if os.fork() == 0:\n"
        "  os.setsid()\n"
        "  if os.fork() == 0:\n"
        f"   os.execv(sys.executable, [sys.executable, '-I', '-S', '-c', 'import time; time.sleep(60)', '{marker}'])\n"
        "  os._exit(0)\n"
        "print('started', flush=True); time.sleep(60)"
    )
    outcome, log = run(box, code, limits=replace(SMALL, wall_seconds=1.0))
    assert "started" in log
    assert (outcome.ended, outcome.exit_code) == ("timed out", None)
    assert outcome.wall_seconds < 6
    assert not _running(marker)


def test_daemons_die_when_the_job_ends_by_itself(box, run):
    marker = f"aisdp-left-{os.getpid()}-{box.kind}"
    code = (
        "import os, sys\n"
        "if os.fork() == 0:\n"
        " os.setsid()\n"
        " if os.fork() == 0:\n"
        f"  os.execv(sys.executable, [sys.executable, '-I', '-S', '-c', 'import time; time.sleep(60)', '{marker}'])\n"
        " os._exit(0)\n"
        "os.wait()"
    )
    outcome, _ = run(box, code)
    assert (outcome.ended, outcome.exit_code) == ("exited", 0)
    assert outcome.wall_seconds < 10
    assert not _running(marker)


def _running(marker: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if marker.encode() in words:
            return True
    return False


def test_a_log_flood_is_capped(box, job):
    made = job("import os\nfor _ in range(50): os.write(1, b'x' * (1 << 20))")
    outcome = box.run(made)
    assert (outcome.ended, outcome.exit_code) == ("log limit", None)
    assert made.log.stat().st_size == SMALL.log_bytes


def test_the_verifier_cannot_be_signalled(box, run):
    code = (
        "import os\n"
        f"for p in ({os.getpid()}, {os.getppid()}):\n"
        " try:\n"
        f"  os.kill(p, 0) if os.path.exists('/proc/{os.getpid()}/exe') else os.kill(p, 9)\n"
        "  print('HIT')\n"
        " except OSError as e: print(type(e).__name__)\n"
    )
    outcome, log = run(box, code)
    assert outcome.exit_code == 0
    assert "HIT" not in log


def test_dangerous_system_calls_are_refused(box, run):
    code = (
        "import ctypes\n"
        "c = ctypes.CDLL(None, use_errno=True)\n"
        "for n, a in ((425, (1, 0)), (250, (0, -3, 0)), (272, (0x10000000,)), (165, (0,)*5), (321, (0,)*3)):\n"
        " r = c.syscall(n, *a); print(n, r, ctypes.get_errno())"
    )
    outcome, log = run(box, code)
    assert outcome.exit_code == 0
    for line in log.splitlines():
        assert line.split()[1] == "-1"
        assert line.split()[2] in ("1", "38"), line


def test_a_killed_job_says_so(box, run):
    outcome, _ = run(box, "import os; os.kill(os.getpid(), 11)")
    assert (outcome.ended, outcome.exit_code) == ("killed", 139)
    assert "SIGSEGV" in outcome.detail


def test_under_sandlock_there_is_no_shared_memory(run):
    """It would be that of the host: sandlock changes files there by their names on the host."""
    try:
        box = sandbox.find("sandlock")
    except SandboxUnavailableError as error:
        pytest.skip(str(error))
    code = (
        "from multiprocessing.shared_memory import SharedMemory as S\n"
        "try: S(create=True, size=1)\nexcept OSError as e: print(type(e).__name__)\n"
    )
    outcome, log = run(box, code)
    assert (outcome.exit_code, log) == (0, "PermissionError\n")


@pytest.mark.parametrize("exposed", ["/out", "/scratch"])
def test_sandlock_starts_nothing_where_this_machine_has_the_folder(exposed, tmp_path, monkeypatch):
    try:
        box = sandbox.find("sandlock")
    except SandboxUnavailableError as error:
        pytest.skip(str(error))
    real = os.path.lexists
    monkeypatch.setattr("os.path.lexists", lambda path: str(path) == exposed or real(path))
    job = sandbox.Job(
        command=("/bin/true",),
        working_directory=PurePosixPath("/"),
        mounts=(),
        output=tmp_path / "out",
        log=tmp_path / "log",
    )
    outcome = box.run(job)
    assert outcome.ended == "could not start"
    assert f"this machine has {exposed}" in outcome.detail


def test_threads_multiprocessing_and_shared_memory_work(bubblewrap, run):
    box = bubblewrap
    code = (
        "import multiprocessing as m, threading, socket\n"
        "t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n"
        "with m.get_context('fork').Pool(2) as p: print(p.map(abs, [-1, 2]))\n"
        "from multiprocessing.shared_memory import SharedMemory as S\n"
        "s = S(create=True, size=1 << 20); s.close(); s.unlink(); print('shm')\n"
        "a, b = socket.socketpair(); a.send(b'x'); print(b.recv(1))\n"
    )
    outcome, log = run(box, code)
    assert outcome.exit_code == 0, log
    assert log == "thread\n[1, 2]\nshm\nb'x'\n"


def test_the_loopback_inside_works_for_distributed_training(bubblewrap, run):
    code = (
        "import socket\n"
        "s = socket.create_server(('localhost', 0)); c = socket.create_connection(s.getsockname())\n"
        "print(socket.if_nameindex())"
    )
    outcome, log = run(bubblewrap, code)
    assert (outcome.exit_code, log) == (0, "[(1, 'lo')]\n")


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("os.mkfifo('/out/pipe')", "FIFO: 'pipe'"),
        ("import socket; socket.socket(socket.AF_UNIX).bind('/out/s')", "socket: 's'"),
        ("open('/out/a', 'w'); os.link('/out/a', '/out/b')", "2 hard links"),
        (
            "os.mkdir('/out/d'); open('/out/d/a\\nb', 'w')",
            "forbidden characters in the name: 'd/a\\nb'",
        ),
    ],
)
def test_hostile_output_is_refused(bubblewrap, job, code, named):
    made = job("import os\n" + code)
    assert bubblewrap.run(made).exit_code == 0
    with pytest.raises(HostileOutputError, match="must not be read") as caught:
        collect(made.output, limits=SMALL)
    assert named in caught.value.message


def test_a_failing_callback_kills_the_job(box, job):
    marker = f"aisdp-callback-{os.getpid()}-{box.kind}"
    made = job(
        command=(
            sys.executable,
            "-I",
            "-S",
            "-u",
            "-c",
            "import time; print(1); time.sleep(60)",
            marker,
        )
    )

    def fail(_chunk):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        box.run(made, on_output=fail)
    assert not _running(marker)


def test_jobs_run_side_by_side(bubblewrap, job, tmp_path):
    made = [
        replace(
            job("import time; time.sleep(0.3); open('/out/a', 'w')"),
            output=tmp_path / f"o{i}",
            log=tmp_path / f"l{i}",
        )
        for i in range(4)
    ]
    outcomes = []
    threads = [
        threading.Thread(target=lambda j=j: outcomes.append(bubblewrap.run(j))) for j in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [o.exit_code for o in outcomes] == [0] * 4


def test_a_missing_program_fails_inside(box, job):
    outcome = box.run(job(command=("/no/such/program",)))
    assert outcome.ended == "exited"
    assert outcome.exit_code in (126, 127)


def test_a_setup_that_fails_never_started(bubblewrap, job):
    made = replace(job("print('no')"), working_directory=PurePosixPath("/nowhere"))
    outcome = bubblewrap.run(made)
    assert (outcome.ended, outcome.exit_code) == ("could not start", None)
    assert "bwrap" in outcome.detail


@pytest.mark.parametrize(
    "target", ["relative", "/", "/usr/x", "/a/../b", "/proc", "/out/x", "/tmp/a"]
)
def test_mount_targets_are_checked(box, job, tmp_path, target):
    made = job("")
    bad = replace(made, mounts=(Mount(source=tmp_path, target=PurePosixPath(target)),))
    with pytest.raises(UsageError, match="nothing can be mounted"):
        box.run(bad)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another uid")
def test_root_is_told_about_unreadable_sources(bubblewrap, job, tmp_path):
    (tmp_path / "bundle").chmod(0o700)
    outcome = bubblewrap.run(job("print(1)"))
    assert outcome.ended == "could not start"
    assert f"chmod -R a+rX {tmp_path / 'bundle'}" in outcome.detail


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another uid")
def test_root_really_drops_its_uid(bubblewrap, job):
    made = job("import time; time.sleep(30)")
    seen = []

    def look():
        deadline = time.monotonic() + 5
        while not seen and time.monotonic() < deadline:
            for path in Path("/proc").glob("[0-9]*"):
                try:
                    words = (path / "cmdline").read_bytes().split(b"\0")
                    if (
                        words[0] == sys.executable.encode()
                        and b"import time; time.sleep(30)" in words
                    ):
                        seen.append(path.stat().st_uid)
                except OSError:
                    continue
            time.sleep(0.02)

    thread = threading.Thread(target=look)
    thread.start()
    bubblewrap.run(replace(made, limits=replace(SMALL, wall_seconds=1.5)))
    thread.join()
    assert seen[0] == 65534


_UNPRIVILEGED = """
import os, sys
from pathlib import Path, PurePosixPath
from bundler.sandbox import Job, Limits, find
work = Path(sys.argv[1])
assert os.geteuid() == 65534
box = find(sys.argv[2])
limits = Limits(wall_seconds=10, processes=30, memory_bytes=1 << 30)
print(box.isolation(limits))
code = '''
import os
open("/out/a", "w")
n = 0
try:
    while n < 100:
        if os.fork() == 0: import time; time.sleep(9); os._exit(0)
        n += 1
except OSError: print("refused", n)
'''
job = Job(command=("/usr/bin/python3", "-c", code), working_directory=PurePosixPath("/out"), mounts=(),
          output=work / "out", limits=limits, log=work / "log", interpreter=Path("/usr/bin/python3"))
print(box.run(job))
print((work / "log").read_text())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="needs the system's Python")
def test_an_unprivileged_user_can_use_it(bubblewrap, tmp_path_factory):
    import bundler

    source = Path(bundler.__file__).parent.parent
    work = Path("/var/tmp") / f"aisdp-test-{os.getpid()}"
    work.mkdir()
    os.chown(work, 65534, 65534)
    try:
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c",
             _UNPRIVILEGED, str(work), "bubblewrap"],
            env={"PYTHONPATH": str(source), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True, text=True, timeout=60, cwd="/",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "user='uid 65534'" in done.stdout
        assert "'memory_bytes (rlimit, each process)'" in done.stdout
        assert "'processes (rlimit)'" in done.stdout
        assert "ended='exited'" in done.stdout
        assert "refused" in done.stdout
        assert (work / "out/a").stat().st_uid == 65534
    finally:
        subprocess.run(["rm", "-rf", str(work)], check=True)
