"""A job in the root file system of an image: it sees the image and not this machine, and is confined as any other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from bundler.errors import SandboxUnavailableError, UsageError
from bundler.sandbox import Mount, helpers, process, roots

from .conftest import SMALL, bubblewrap_command
from .image_builder import PREFIX, PYTHON


@pytest.fixture(params=["as this user", "without dropping the uid"])
def box(request, bubblewrap):
    if request.param == "without dropping the uid":
        bubblewrap._setpriv = None
    return bubblewrap


def ran(box, made):
    outcome = box.run(made)
    log = made.log.read_text("utf-8", "replace")
    assert (outcome.ended, outcome.exit_code) == ("exited", 0), (outcome, log)
    return log


SEES = """
import json, os, sys
print(json.dumps({
    "root": sorted(os.listdir("/")), "etc": sorted(os.listdir("/etc")), "prefix": sys.prefix,
    "release": open("/etc/os-release").read(), "hosts": open("/etc/hosts").read(),
    "host": [p for p in sys.argv[1:] if os.path.lexists(p)], "bundle": os.listdir("/bundle"),
    "through the link": sorted(os.listdir("/host-etc")),
    "variables": dict(os.environ), "uid": os.getuid(), "lib": os.listdir("/opt/python/lib")[:1],
}))
"""


def test_the_job_sees_the_image_and_not_this_machine(box, inside, unpacked):
    mine = [
        "/usr/bin/git",
        "/usr/bin/env",
        "/bin/sh",
        "/usr",
        "/home",
        "/root",
        "/var",
        "/mnt",
        "/sys",
    ]
    assert any(map(os.path.exists, mine[:3]))
    made = inside(
        command=(PYTHON, "-I", "-S", "-c", SEES, *mine, str(unpacked), str(Path(__file__)))
    )
    seen = json.loads(ran(box, made))
    assert seen["host"] == []
    assert seen["release"] == 'NAME="An image of the tests"\n'
    assert seen["prefix"] == f"/{PREFIX}"
    assert seen["bundle"] == ["train.py"]  # the mount, and not the folder of the image
    own = {"bundle", "dev", "etc", "out", "proc", "tmp", ".verifier"}
    of_the_image = {
        "host-etc",
        "opt",
        *(name for name in ("lib", "lib64") if (unpacked / name).exists()),
    }
    assert set(seen["root"]) == own | of_the_image
    assert "6.6.6.6" not in seen["hosts"]  # /etc/hosts is the sandbox's own
    assert set(seen["etc"]) == {"os-release", "passwd", "group", "hosts", "nsswitch.conf"}
    assert seen["through the link"] == seen["etc"]  # no link of an image leads to this machine
    assert seen["variables"] == process.environment(made)
    assert seen["uid"] == 65534


def test_the_image_cannot_be_written_to_and_the_output_can(box, inside, unpacked):
    code = (
        "import os\n"
        "for p in ('/', '/opt', '/etc', '/etc/os-release', '/opt/python/bin', '/.verifier', '/.verifier/bin', '/bundle'):\n"
        "  try:\n"
        "    if os.path.isdir(p): open(p + '/x', 'w')\n"
        "    else: open(p, 'a')\n"
        "    print('WROTE', p)\n"
        "  except OSError: pass\n"
        "open('/out/result', 'w').write('done'); open('/tmp/x', 'w')"
    )
    before = sorted(str(path) for path in unpacked.rglob("*"))
    made = inside(code)
    assert ran(box, made) == ""
    assert (made.output / "result").read_text() == "done"
    assert sorted(str(path) for path in unpacked.rglob("*")) == before


def test_limits_and_network_are_those_of_every_job(box, inside):
    code = (
        "import resource as r, socket, os\n"
        "print([r.getrlimit(x) for x in (r.RLIMIT_NPROC, r.RLIMIT_CPU, r.RLIMIT_FSIZE, r.RLIMIT_CORE)])\n"
        "try: socket.create_connection(('192.0.2.1', 443), 2); print('OUT')\n"
        "except OSError: pass\n"
        "print([l for l in open('/proc/self/status') if l.startswith(('Seccomp:', 'CapEff', 'NoNewPrivs'))])"
    )
    wanted = [SMALL.processes, SMALL.cpu_seconds, SMALL.file_bytes, 0]
    log = ran(box, inside(code)).splitlines()
    assert log[0] == str([(each, each) for each in wanted])
    assert log[1] == r"['CapEff:\t0000000000000000\n', 'NoNewPrivs:\t1\n', 'Seccomp:\t2\n']"


def test_the_working_folder_is_the_throw_away_copy(box, inside, tmp_path):
    (tmp_path / "copy").mkdir()
    code = "open('here', 'w').write('x'); import os; print(os.getcwd(), os.path.exists('/bundle/train.py'))"
    made = inside(
        code, workspace=tmp_path / "copy", working_directory=PurePosixPath("/bundle/code")
    )
    (made.mounts[0].source / "code").mkdir(mode=0o755)
    (made.mounts[0].source / "code").chmod(0o755)
    assert ran(box, made) == "/bundle/code True\n"
    assert (tmp_path / "copy/here").read_text() == "x"


def test_programs_of_the_image_that_pose_as_helpers_are_never_run(box, inside, unpacked, tmp_path):
    """Not even to set a limit: they could leave it out."""
    root = tmp_path / "root"
    shutil.copytree(unpacked, root, symlinks=True)
    (root / "usr/bin").mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    for name in ("sh", "env", "nice", "prlimit", "ldd"):
        shutil.copy(root / f"{PREFIX}/bin/python3", root / "usr/bin" / name)
    (root / ".verifier/bin").mkdir(parents=True)
    (root / ".verifier/bin/sh").write_text("#!/bin/sh\necho hooked\n")
    (root / "etc/ld.so.preload").write_text("/bundle/x.so\n")
    (root / "etc/ld.so.cache").write_bytes(b"\xff" * 100)
    subprocess.run(["chmod", "-R", "a+rX", str(root)], check=True)
    log = ran(
        box,
        inside(
            "import os; print(sorted(os.listdir('/.verifier')), os.listdir('/bin')[0] != '')",
            root=root,
        ),
    )
    assert log == "['bin', 'ld.so', 'lib'] True\n"
    made = inside("import resource as r; print(r.getrlimit(r.RLIMIT_NPROC))", root=root)
    assert ran(box, made) == f"({SMALL.processes}, {SMALL.processes})\n"
    odd = tmp_path / "bundle/a=b"
    shutil.copy(root / f"{PREFIX}/bin/python3", odd)
    odd.chmod(0o755)
    assert ran(box, inside(command=("/bundle/a=b", "-V"), root=root)).startswith("Python")


def test_a_program_that_the_image_lacks_is_the_jobs_own_failure(box, inside):
    outcome = box.run(made := inside(command=("/usr/bin/python3", "-c", "1")))
    assert (outcome.ended, outcome.exit_code) == ("exited", 127)
    assert "No such file" in made.log.read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"interpreter": Path("/usr/bin/python3")}, "has the image's interpreter"),
        ({"root": Path("/nowhere")}, "cannot be read"),
        ({"mounts": (Mount(source=Path("/etc"), target=PurePosixPath("/.verifier/bin")),)}, "nothing can be mounted"),
        ({"mounts": (Mount(source=Path("/etc"), target=PurePosixPath("/sys")),)}, "nothing can be mounted"),
    ],
)  # fmt: skip
def test_jobs_that_cannot_be_meant(bubblewrap, inside, changes, said):
    with pytest.raises(UsageError, match=said):
        bubblewrap.run(inside(**changes))


def test_an_empty_folder_is_no_image(bubblewrap, inside, tmp_path):
    (tmp_path / "empty/proc").mkdir(parents=True)
    with pytest.raises(UsageError, match="is not the root file system of an image"):
        bubblewrap.run(inside(root=tmp_path / "empty"))


def test_an_image_that_the_jobs_user_cannot_read_is_said(bubblewrap, inside, tmp_path):
    if bubblewrap._setpriv is None:
        pytest.skip("the job runs as this user")
    (tmp_path / "closed/usr").mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    outcome = bubblewrap.run(inside(root=tmp_path / "closed"))
    assert outcome.ended == "could not start"
    assert f"chmod -R a+rX {tmp_path / 'closed'}" in outcome.detail


@pytest.mark.parametrize("kind", ["sandlock", "unconfined"])
def test_the_other_kinds_refuse_an_image(request, kind, inside):
    box = request.getfixturevalue(kind)
    with pytest.raises(SandboxUnavailableError, match="root file system of an image") as caught:
        box.run(inside())
    assert "bubblewrap" in caught.value.remedy


# --- the parts ---------------------------------------------------------------------------------


def test_the_view_of_a_root(tmp_path):
    for name in ("usr", "etc/ssl", "bundle", "proc", "data"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "tmp").symlink_to("/etc")
    (tmp_path / "etc/hosts").touch()
    (tmp_path / "etc/mtab").symlink_to("/proc/mounts")
    os.mkfifo(tmp_path / "pipe")
    shown = roots.view(tmp_path, "/mnt/root", mounts=["/bundle/a", "/data"], etc=["hosts"])
    assert shown == [
        *("--symlink", "usr/lib", "/lib", "--ro-bind", "/mnt/root/usr", "/usr"),
        *("--symlink", "/proc/mounts", "/etc/mtab", "--ro-bind", "/mnt/root/etc/ssl", "/etc/ssl"),
    ]
    shutil.rmtree(tmp_path / "etc")
    (tmp_path / "etc").symlink_to("usr/etc")
    assert not any("/etc" in word for word in roots.view(tmp_path, "/x", mounts=[], etc=[]))


def test_a_root_with_too_many_entries_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(roots, "_MAX_ENTRIES", 1)
    for name in "ab":
        (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match="more than 1 entries"):
        roots.view(tmp_path, "/x", mounts=[], etc=[])


LDD = """/usr/bin/dash:
\tlinux-vdso.so.1 (0x00007ffd)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f)
/usr/bin/prlimit:
\tlibsmartcols.so.1 => /lib/x86_64-linux-gnu/libsmartcols.so.1 (0x00007f)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)
"""
MUSL = "\t/lib/ld-musl-x86_64.so.1 (0x7f)\n\tlibc.musl-x86_64.so.1 => /lib/ld-musl-x86_64.so.1 (0x7f)\n"


def test_the_closure_of_the_helpers():
    found = helpers.closure({"sh": Path("/usr/bin/dash")}, LDD)
    assert {name: str(path) for name, path in found.shown.items()} == {
        "/.verifier/bin/sh": "/usr/bin/dash",
        "/.verifier/lib/libc.so.6": "/lib/x86_64-linux-gnu/libc.so.6",
        "/.verifier/lib/libsmartcols.so.1": "/lib/x86_64-linux-gnu/libsmartcols.so.1",
        "/.verifier/ld.so": "/lib64/ld-linux-x86-64.so.2",
    }
    assert found.words("sh") == (
        "/.verifier/ld.so",
        "--library-path",
        "/.verifier/lib",
        "/.verifier/bin/sh",
    )
    assert found.words("prlimit") == ()
    assert helpers.closure({}, MUSL).shown["/.verifier/ld.so"] == Path("/lib/ld-musl-x86_64.so.1")
    static = helpers.closure({"sh": Path("/bin/busybox")}, "\tnot a dynamic executable\n")
    assert static.words("sh") == ("/.verifier/bin/sh",)


def test_a_machine_without_helpers_says_so(monkeypatch):
    helpers.find.cache_clear()
    monkeypatch.setattr(helpers.shutil, "which", lambda *_, **__: None)
    with pytest.raises(SandboxUnavailableError, match="no sh, env or ldd"):
        helpers.find()


def test_the_helpers_come_from_this_machine(bubblewrap, inside):
    made = inside()
    command = bubblewrap_command(bubblewrap, made)
    last = command[command.index("--seccomp") :]
    assert not any(word.startswith(("/usr/bin/", "/bin/")) for word in last)
    assert last.count("/.verifier/ld.so") == 3  # prlimit, sh, env
