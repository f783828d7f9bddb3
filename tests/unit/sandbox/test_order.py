"""Limits are in force before foreign code runs, and no helper sees the job's variables."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

import bundler
from bundler.errors import SandboxUnavailableError, UsageError
from bundler.sandbox import Mount, find, process

from .conftest import PYTHON, SMALL

_PRELOAD = r"""
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

static void look(FILE *log, const char *program, const char *name, int resource) {
    struct rlimit now, more;
    getrlimit(resource, &now);
    more = now;
    more.rlim_cur = more.rlim_max = RLIM_INFINITY;
    int hard = setrlimit(resource, &more);
    more = now;
    more.rlim_cur += 1;
    int soft = setrlimit(resource, &more);
    fprintf(log, "%s %s %lld %lld %d %d\n", program, name, (long long)now.rlim_cur,
            (long long)now.rlim_max, hard, soft);
}

__attribute__((constructor)) static void first(int argc, char **argv, char **environment) {
    const char *path = getenv("PRELOAD_LOG");
    FILE *log = fopen(path ? path : "/out/preload.log", "a");
    if (log == NULL) return;
    look(log, argv[0], "cpu", RLIMIT_CPU);
    look(log, argv[0], "fsize", RLIMIT_FSIZE);
    look(log, argv[0], "core", RLIMIT_CORE);
    look(log, argv[0], "nproc", RLIMIT_NPROC);
    fclose(log);
}
"""


@pytest.fixture
def preload(tmp_path, job):
    """Put a shared object into the bundle whose constructor looks at the limits."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no gcc to compile the preloaded object with")
    source = tmp_path / "preload.c"
    source.write_text(_PRELOAD)
    target = tmp_path / "bundle/x.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(target), str(source)], check=True)
    target.chmod(0o755)
    return target


@pytest.fixture(params=["bubblewrap", "sandlock", "none"])
def any_box(request):
    try:
        return find(request.param, trusted=True)
    except SandboxUnavailableError as error:
        pytest.skip(str(error))


def _preloaded(box, made):
    """Run ``made`` and return the lines of the constructor, each split."""
    outcome = box.run(made)
    assert (outcome.ended, outcome.exit_code) == ("exited", 0), made.log.read_text()
    return [line.split(" ") for line in (made.output / "preload.log").read_text().splitlines()]


_LIMITS = {"cpu": SMALL.cpu_seconds, "fsize": SMALL.file_bytes, "core": 0}


def test_limits_are_in_force_when_foreign_code_first_runs(box, job, preload):
    made = job(
        "import resource as r, subprocess\n"
        "print([r.getrlimit(x) for x in (r.RLIMIT_CPU, r.RLIMIT_FSIZE, r.RLIMIT_CORE)], r.getrlimit(r.RLIMIT_NPROC))\n"
        "subprocess.run(['/bin/sh', '-c', 'true'])",
        LD_PRELOAD="/bundle/x.so",
    )
    expected = _LIMITS | ({"nproc": SMALL.processes} if box.kind == "bubblewrap" else {})
    lines = [line for line in _preloaded(box, made) if line[1] in expected]
    for program, name, soft, hard, raised_hard, raised_soft in lines:
        assert int(soft) == int(hard) == expected[name], (program, name)
        assert (raised_hard, raised_soft) == ("-1", "-1"), (program, name)
    programs = list(dict.fromkeys(line[0] for line in lines))
    assert programs == [str(PYTHON), "/bin/sh"]  # the job's own two, and no helper of ours
    log = made.log.read_text()
    assert log.startswith(str([(value, value) for value in _LIMITS.values()]))
    if box.kind == "bubblewrap":
        assert "(64, 64)" in log


def test_without_a_sandbox_the_order_is_the_same(unconfined, job, preload):
    made = job("", LD_PRELOAD="/bundle/x.so", PRELOAD_LOG="/out/preload.log")
    lines = [line for line in _preloaded(unconfined, made) if line[1] in _LIMITS]
    assert {line[0] for line in lines} == {str(PYTHON)}
    assert all(int(line[2]) == int(line[3]) == _LIMITS[line[1]] for line in lines)
    applied = " ".join(unconfined.isolation(SMALL).limits_applied)
    assert ("root may raise it" in applied) == (os.geteuid() == 0)


def test_no_process_of_the_job_can_raise_a_limit(box, run):
    code = (
        "import resource as r, os, ctypes\n"
        "def attempt():\n"
        " for x in (r.RLIMIT_CPU, r.RLIMIT_FSIZE, r.RLIMIT_CORE, *NPROC):\n"
        "  soft, hard = r.getrlimit(x)\n"
        "  assert soft == hard, (x, soft, hard)\n"
        "  for want in ((soft + 1, hard), (soft + 1, hard + 1), (-1, -1)):\n"
        "   for raise_it in (lambda: r.setrlimit(x, want), lambda: r.prlimit(0, x, want)):\n"
        "    try: raise_it(); print('RAISED', x, want)\n"
        "    except (OSError, ValueError): pass\n"
        "attempt()\n"
        "if os.fork() == 0:\n"
        " os.setsid(); attempt(); os._exit(0)\n"
        "assert os.wait()[1] == 0\n"
        "print('done')"
    )
    inside = "(6,)" if box.kind == "bubblewrap" else "()"
    outcome, log = run(box, f"NPROC = {inside}\n" + code)
    assert (outcome.exit_code, log) == (0, "done\n")


def test_the_process_of_bubblewrap_itself_is_out_of_reach(bubblewrap, run):
    code = (
        "import ctypes, os\n"
        "print(sorted(p for p in os.listdir('/proc') if p.isdigit()) == ['1', str(os.getpid())])\n"
        "c = ctypes.CDLL(None, use_errno=True)\n"
        "print(c.umount2(b'/proc/1', 2), ctypes.get_errno())\n"
        "print(os.listdir('/proc/1'))\n"
        "for p in ('1/mem', '1/task/1/mem', 'self/../1/mem', '1/limits'):\n"
        " try: open('/proc/' + p, 'r+b'); print('OPEN', p)\n"
        " except FileNotFoundError: pass\n"
        "try: open('/proc/1/x', 'w'); print('WROTE')\n"
        "except OSError: pass\n"
    )
    outcome, log = run(bubblewrap, code)
    assert (outcome.exit_code, log) == (0, "True\n-1 1\n[]\n")


def test_a_marked_job_has_its_limits(bubblewrap, job):
    """Where prlimit fails, nothing of the job ran, and the outcome says so."""
    outcome = bubblewrap.run(job("print(1)", limits=replace(SMALL, processes=1 << 21)))
    assert (outcome.ended, outcome.exit_code) == ("could not start", None)
    assert "prlimit" in outcome.detail


@pytest.mark.parametrize(
    "variables",
    [
        {"BASH_ENV": "/bundle/hook.sh"},
        {"ENV": "/bundle/hook.sh"},
        {"LD_LIBRARY_PATH": "/bundle/lib"},
        {"PYTHONPATH": "/bundle/lib", "PYTHONHOME": "/bundle", "PYTHONSTARTUP": "/bundle/hook.py"},
        {"PATH": "/bundle/bin", "CDPATH": "/bundle", "IFS": "/", "PS4": "$(/bundle/hook.sh)"},
        {"GCONV_PATH": "/bundle/lib", "LOCPATH": "/bundle/lib", "POSIXLY_CORRECT": "1"},
        {"BASH_FUNC_exec%%": "() { /bundle/hook.sh; }", "SHELLOPTS": "xtrace"},
    ],
    ids=lambda variables: next(iter(variables)),
)
def test_no_helper_is_influenced(any_box, job, preload, tmp_path, variables):
    hook = "#!/bin/sh\n: > /out/hooked\n"
    bundle = tmp_path / "bundle"
    (bundle / "hook.sh").write_text(hook)
    for folder in ("lib", "bin"):
        (bundle / folder).mkdir()
    for name in ("sh", "env", "prlimit", "setpriv", "bwrap", "nice"):
        (bundle / "bin" / name).write_text(hook)
    for name in ("json.py", "sitecustomize.py", "ctypes.py"):
        (bundle / "lib" / name).write_text("open('/out/hooked', 'w')\n")
    for name in ("libsmartcols.so.1", "libcap-ng.so.0", "libcap.so.2", "libselinux.so.1"):
        shutil.copy(preload, bundle / "lib" / name)
    subprocess.run(["chmod", "-R", "a+rX,u+x,go+x", str(bundle)], check=True)
    code = "import os; print(sorted(os.environ.items()))"
    given = {"PRELOAD_LOG": "/out/hooked"} | variables
    made = replace(job(code), environment=given)
    outcome = any_box.run(made)
    assert (outcome.ended, outcome.exit_code) == ("exited", 0), made.log.read_text()
    assert list(made.output.iterdir()) == []
    if any_box.kind != "none":  # which rewrites paths
        log = made.log.read_text()
        assert all(str(pair) in log for pair in given.items())


def test_the_environment_is_exactly_what_was_given(box, job):
    given = {"-u": "a=b", "with.dot": "two\nlines", "--": "", "é": "ü", "HOME": "/elsewhere"}
    code = "import os; print(sorted(os.environ)); print([os.environ.get(n) for n in %r])"
    made = replace(job(code % list(given)), environment=given)
    assert box.run(made).exit_code == 0
    names = sorted({*process.environment(made), *given})
    assert made.log.read_text("utf-8") == f"{names}\n{list(given.values())}\n"


def test_a_program_may_have_an_equals_sign_in_its_name(any_box, job, tmp_path):
    program = tmp_path / "bundle/a=b"
    program.write_text("#!/bin/sh\necho ran $1 $A\n")
    program.chmod(0o755)
    made = job(command=("/bundle/a=b", "x=y"), A="1")
    assert any_box.run(made).exit_code == 0
    assert made.log.read_text() == "ran x=y 1\n"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"environment": {"": "x"}}, "'' cannot be the name of an environment variable"),
        ({"environment": {"A=B": "x"}}, "'A=B' cannot be the name"),
        ({"environment": {"A": "x\0y"}}, "the value of 'A' holds a NUL character"),
        ({"environment": {"A\0": "x"}}, "the name 'A\\x00' holds a NUL character"),
        ({"environment": {"A": "\udcff"}}, "the value of 'A' is no Unicode text"),
        ({"command": ("/bin/echo", "a\0b")}, "word 1 of the command holds a NUL character"),
        ({"command": ()}, "the command is empty"),
        ({"command": ("",)}, "the command is empty"),
        ({"working_directory": PurePosixPath("/bundle\0")}, "the working folder holds a NUL"),
    ],
)
def test_what_no_process_can_be_given_is_refused(any_box, job, changes, said):
    outcome = any_box.run(replace(job("print(1)"), **changes))
    assert (outcome.ended, outcome.exit_code) == ("could not start", None)
    assert said in outcome.detail


def test_a_mount_target_with_a_nul_is_refused(any_box, job, tmp_path):
    bad = (Mount(source=tmp_path, target=PurePosixPath("/a\0b")),)
    with pytest.raises(UsageError, match="nothing can be mounted"):
        any_box.run(replace(job(""), mounts=bad))


def test_the_self_test_is_started_like_a_job(box, job, monkeypatch):
    launches = []
    real = process._start

    def start(launch, *others):
        launches.append(launch)
        return real(launch, *others)

    monkeypatch.setattr(process, "_start", start)
    box.isolation(SMALL)
    box.run(job("", LD_PRELOAD="/bundle/x.so"))
    helpers = []
    for launch in launches:
        assert "env" not in launch.options
        last = launch.argv.index("/usr/bin/env")
        assert launch.argv[last : last + 3] == ("/usr/bin/env", "-i", "--")
        before = launch.argv[:last]
        assert not any("LD_PRELOAD" in word or word == "--setenv" for word in before)
        words = (*launch.prefix, *before)
        known = ("bwrap", "setpriv", "prlimit", "sh")
        helpers.append([w for w in words if Path(w).name in known or w.startswith("--nproc")])
    assert helpers[0] == helpers[1]
    assert "/usr/bin/prlimit" in helpers[0]


_BELOW_TMP = """
import sys
from pathlib import Path, PurePosixPath
from bundler.sandbox import Job, Limits, find, probe
work = Path(sys.argv[1])
assert work in Path(sys.executable).parents, sys.executable
box = find(sys.argv[2], trusted=True)
limits = Limits(wall_seconds=20)
if box.kind != "none":
    assert all(p.blocked for p in box.isolation(limits).probes if p.name in probe.REQUIRED)
code = "import os, sys; open(os.environ['TMPDIR'] + '/x', 'w'); open(sys.argv[1] + '/a', 'w'); print(sys.prefix)"
job = Job(command=(sys.executable, "-c", code, "/out"), working_directory=PurePosixPath("/out"),
          mounts=(), output=work / "out", limits=limits, log=work / "log", interpreter=Path(sys.executable))
outcome = box.run(job)
assert outcome.exit_code == 0, (outcome, (work / "log").read_text())
assert (work / "out/a").exists()
print((work / "log").read_text())
"""


def test_a_checkout_below_tmp_works(any_box):
    site = getattr(any_box, "_site", "")
    with tempfile.TemporaryDirectory(prefix="aisdp-test-", dir="/tmp") as folder:
        work = Path(folder)
        work.chmod(0o755)
        venv = [sys.executable, "-m", "venv", "--without-pip", str(work / "venv")]
        subprocess.run(venv, check=True)
        source = Path(bundler.__file__).parent
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, work / "bundler", ignore=ignore)
        done = subprocess.run(
            [str(work / "venv/bin/python"), "-c", _BELOW_TMP, folder, any_box.kind],
            env={"PYTHONPATH": f"{folder}:{site}", "PATH": "/usr/bin:/bin", "HOME": "/root"},
            capture_output=True,
            text=True,
            timeout=60,
            cwd="/",
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(work / "venv")
