"""Real sandboxes; a test is skipped only where the tool itself is absent or cannot work."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from bundler.errors import SandboxUnavailableError
from bundler.images import identify
from bundler.images.unpack import unpack
from bundler.sandbox import Job, Limits, Mount, Sandbox, cgroups, find
from bundler.sandbox import bubblewrap as bubblewrap_module

from . import image_builder

PYTHON = Path(sys.executable)
MIB = 1 << 20
SMALL = Limits(
    wall_seconds=20,
    cpu_seconds=20,
    memory_bytes=512 * MIB,
    processes=64,
    file_bytes=200 * MIB,
    output_bytes=40 * MIB,
    output_files=100,
    log_bytes=MIB,
)


@pytest.fixture(params=["bubblewrap", "sandlock"])
def box(request) -> Sandbox:
    return _find(request.param)


@pytest.fixture
def bubblewrap() -> Sandbox:
    return _find("bubblewrap")


@pytest.fixture
def sandlock() -> Sandbox:
    return _find("sandlock")


@pytest.fixture
def unconfined() -> Sandbox:
    return find("none", trusted=True)


def _find(kind):
    try:
        return find(kind)
    except SandboxUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def job(tmp_path):
    """Make a job that runs Python code; the bundle is at /bundle."""
    bundle = tmp_path / "bundle"
    bundle.mkdir(mode=0o755)
    bundle.chmod(0o755)
    (bundle / "train.py").write_text("print('trained')\n")
    (bundle / "train.py").chmod(0o644)

    def make(
        code: str = "", *, command: tuple[str, ...] = (), limits: Limits = SMALL, **environment
    ):
        return Job(
            command=command or (str(PYTHON), "-I", "-S", "-u", "-c", code),
            working_directory=PurePosixPath("/bundle"),
            mounts=(Mount(source=bundle, target=PurePosixPath("/bundle")),),
            output=tmp_path / "out",
            environment=environment,
            limits=limits,
            log=tmp_path / "log.txt",
            interpreter=PYTHON,
        )

    return make


@pytest.fixture
def run(job):
    """Run Python code in a sandbox and return its outcome and its log."""

    def go(sandbox: Sandbox, code: str, **options):
        made = job(code, **options)
        outcome = sandbox.run(made)
        return outcome, made.log.read_text("utf-8", "replace")

    return go


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory):
    """The root file system of a real image, with nothing but Python in it."""
    base = tmp_path_factory.mktemp("image")
    base.chmod(0o700)  # the folders above it need not be readable for the job's user
    image = image_builder.python_image(base / "image")
    root = base / "root"
    root.mkdir()
    unpack(image.place, identify(image.place), root)
    assert sum(path.stat().st_size for path in image.place.rglob("*")) < 80 << 20
    return root


@pytest.fixture
def inside(job, unpacked):
    """Make a job that runs Python code in the image."""

    def make(code="", *, root=unpacked, command=(), **changes):
        command = command or (image_builder.PYTHON, "-I", "-S", "-u", "-c", code)
        made = replace(
            job(command=command), root=root, interpreter=None, environment=image_builder.VARIABLES
        )
        return replace(made, **changes)

    return make


def bubblewrap_command(box, made):
    """The argv for a job on a machine without cgroups."""
    files = dict.fromkeys(bubblewrap_module._FILES, 12)
    return box._command(
        made, bubblewrap_module._sources(made), 11, files, cgroups.Cgroup(version=2)
    )
