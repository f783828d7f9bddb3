"""``sha256sum`` reads our manifests, and writes them byte for byte."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from bundler.storage import open_bag
from tests.conformance.harness import VALID, Bundle

MANIFESTS = ["manifest-sha256.txt", "tagmanifest-sha256.txt"]

pytestmark = pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")


def sha256sum(*arguments: str, cwd) -> subprocess.CompletedProcess:
    return subprocess.run(["sha256sum", *arguments], cwd=cwd, capture_output=True, timeout=60)


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_sha256sum_accepts_both_manifests(manifest):
    result = sha256sum("--strict", "-c", manifest, cwd=VALID)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.count(b": OK\n") == len((VALID / manifest).read_bytes().splitlines())


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_sha256sum_writes_the_same_manifest(manifest):
    names = [line[66:] for line in (VALID / manifest).read_text().splitlines()]
    assert sha256sum(*names, cwd=VALID).stdout == (VALID / manifest).read_bytes()


def test_sha256sum_sees_a_changed_file(tmp_path):
    bundle = Bundle(tmp_path)
    bundle.do_flip("data/code/train.py", 0)
    assert sha256sum("--strict", "-c", MANIFESTS[0], cwd=bundle.path).returncode != 0
    assert sha256sum("--strict", "-c", MANIFESTS[1], cwd=bundle.path).returncode == 0


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs tar")
def test_tar_unpacks_our_archive_to_the_same_bundle(provider, tmp_path):
    provider.build(tmp_path / "bag.tar", as_tar=True)
    (tmp_path / "unpacked").mkdir()
    command = ["tar", "-xf", str(tmp_path / "bag.tar"), "-C", str(tmp_path / "unpacked")]
    assert subprocess.run(command, capture_output=True, check=True).stderr == b""
    assert open_bag(tmp_path / "unpacked").entries() == open_bag(tmp_path / "bag.tar").entries()
    for manifest in MANIFESTS:
        assert sha256sum("--strict", "-c", manifest, cwd=tmp_path / "unpacked").returncode == 0
