"""The wheel by itself: schemas and templates travel inside it, and a bundle built from it is the same."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conformance.harness import KEYS, VALID

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """A folder that holds what the wheel installs, and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(unpacked: Path, entry: str, *words, cwd: Path) -> subprocess.CompletedProcess:
    program = (
        "import bundler, sys; assert bundler.__file__.startswith(sys.argv.pop(1)), bundler.__file__;"
        f"from bundler.cli import {entry}; {entry}()"
    )
    return subprocess.run(
        [sys.executable, "-c", program, str(unpacked), *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
    )


def test_schemas_and_templates_are_inside(unpacked):
    inside = {path.name for path in (unpacked / "bundler" / "_resources").rglob("*")}
    for folder in ("schemas", "site_templates"):
        assert {path.name for path in (ROOT / folder).rglob("*")} <= inside


def test_a_bundle_is_verified_and_rendered_from_the_wheel_alone(unpacked, tmp_path):
    trust = ["--trust", KEYS / "trust.pem"]
    report = tmp_path / "report.json"
    done = run(unpacked, "verify_bundle", VALID, *trust, "--report", report, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words = ["site", VALID, *trust, "--report", report, "-o", tmp_path / "site"]
    done = run(unpacked, "main", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "index.html").exists()
