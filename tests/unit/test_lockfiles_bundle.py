"""A lock of any format on its way through a bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from bundler.errors import SourceError
from bundler.evidence import intact_files, lock_of, read_contents
from bundler.storage import open_bag
from bundler.verify import verify
from tests import tiny

FIXTURES = Path(__file__).parent.parent / "fixtures" / "lockfiles"


def with_lock(provider, name, target):
    shutil.copy(FIXTURES / name, provider.root / target)
    provider.config["training"]["lock"] = target
    return provider


@pytest.mark.parametrize(
    ("name", "target", "path"),
    [
        ("uv.lock", "uv.lock", "uv.lock"),
        ("pylock.uv.toml", "pylock.train.toml", "pylock.toml"),
        ("synthetic-explicit.lock", "linux.lock", "conda-explicit.txt"),
        ("uv-export.txt", "locked.txt", "requirements.txt"),
    ],
)
def test_a_lock_is_shipped_as_it_is_under_the_name_of_its_format(
    provider, tmp_path, name, target, path
):
    with_lock(provider, name, target).build(tmp_path / "b")
    spec = json.loads((tmp_path / "b/data/spec/training.json").read_text())
    assert spec["lock"] == f"data/environment/{path}"
    assert (tmp_path / "b" / spec["lock"]).read_bytes() == (FIXTURES / name).read_bytes()


@pytest.mark.parametrize(("name", "hashed"), [("uv.lock", True), ("Pipfile.lock", False)])
def test_provider_and_verifier_read_the_same(provider, tmp_path, name, hashed):
    built = with_lock(provider, name, name).build(tmp_path / "b")
    codes = {gap.code for gap in built.index.gaps}
    assert ("lock-hashed" in codes) is not hashed
    assert "lock" not in codes
    report = verify(
        lambda: open_bag(tmp_path / "b"), "b", tiny.TRUST, clock=lambda: "2026-11-25T00:00:00.000Z"
    )
    assert not [
        each.code for check in report.checks for each in check.findings if each.severity == "error"
    ]


def test_a_lock_that_cannot_be_read_is_the_providers_to_mend(provider, tmp_path):
    (provider.root / "uv.lock").write_text("version = 9\n")
    provider.config["training"]["lock"] = "uv.lock"
    with pytest.raises(
        SourceError, match=r"training\.lock: uv\.lock: it is not version 1"
    ) as caught:
        provider.build(tmp_path / "b")
    assert "uv" in caught.value.remedy


def test_a_lock_that_a_verifier_cannot_read_shows_nothing(provider, tmp_path):
    with_lock(provider, "uv.lock", "uv.lock").build(tmp_path / "b")
    files = intact_files(open_bag(tmp_path / "b"))
    evidence = SimpleNamespace(files=files, contents=read_contents(files))
    assert lock_of(evidence.files, evidence.contents).answer == "yes"
    evidence.files = Damaged(files)
    assert lock_of(evidence.files, evidence.contents) is None


class Damaged:
    """Files of which the lock is another one."""

    def __init__(self, files):
        self._files = files

    def __contains__(self, path):
        return path in self._files

    def read(self, path):
        return b"version = 9\n" if path.endswith("uv.lock") else self._files.read(path)
