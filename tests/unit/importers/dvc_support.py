"""The repositories that real DVC made, unpacked, and small ones made by hand with git."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from bundler.errors import SourceError
from bundler.importers.dvc import DvcImporter
from bundler.importers.model import ImportedRun

FIXTURES = Path(__file__).parents[2] / "fixtures" / "dvc"
LIVE = Path(__file__).parents[2] / "fixtures" / "dvclive"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
LIVE_EXPECTED = json.loads((LIVE / "expected.json").read_text(encoding="utf-8"))["runs"]


def unpack(archive: Path, target: Path) -> Path:
    """The repository in ``archive`` (``*.tar.xz``), in the new folder ``target``."""
    target.mkdir(parents=True)
    with tarfile.open(archive) as packed:
        packed.extractall(target, filter="data")
    return target


def read(
    store: Path, artefacts: Path | None = None, experiment: str | None = None
) -> list[ImportedRun]:
    """All runs of a repository."""
    with DvcImporter().open(store, experiment=experiment, artefacts=artefacts) as session:
        runs = list(session)
        assert len(session) == len(runs)
    return runs


def named(store: Path, name: str, **more: Any) -> ImportedRun:
    """The run called ``name``."""
    (run,) = [each for each in read(store, **more) if each.name == name]
    return run


def refused(store: Path, match: str, **more: Any) -> SourceError:
    """Reading ``store`` is refused with a remedy, in words that cannot steer a terminal."""
    with pytest.raises(SourceError, match=match) as error:
        read(store, **more)
    assert error.value.remedy
    assert (error.value.message + error.value.remedy).isprintable()
    return error.value


def flags(run: ImportedRun) -> set[tuple[str, str]]:
    """Field and flag of all the fidelity flags of a run."""
    return {(each.field, each.flag) for each in run.fidelity}


def details(run: ImportedRun, field: str, flag: str) -> list[str]:
    """Details of the flags with this name."""
    return [each.detail for each in run.fidelity if (each.field, each.flag) == (field, flag)]


def write(file: Path, text: str | bytes) -> Path:
    """Write a file and the folders that it needs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def git(folder: Path, *arguments: str, data: bytes | None = None) -> str:
    """What git says."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    person = {
        f"GIT_{role}_{what}": word
        for role in ("AUTHOR", "COMMITTER")
        for what, word in {
            "NAME": "T",
            "EMAIL": "t@example.org",
            "DATE": "1760000000 +0200",
        }.items()
    }
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        input=data,
        env=kept | person | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull},
    )
    return done.stdout.decode().strip()


def repository(folder: Path, **files: str) -> Path:
    """A repository made by hand, with one commit; a name's ``__`` is a slash, ``_`` before the suffix a dot."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    write(folder / ".dvc" / "config", "")
    return commit(folder, **files)


def commit(folder: Path, message: str = "Change", **files: str) -> Path:
    """One more commit with these files."""
    for name, text in files.items():
        head, _, suffix = name.replace("__", "/").rpartition("_")
        write(folder / f"{head}.{suffix}", text)
    git(folder, "add", "-A", "-f", ".")
    git(folder, "commit", "-q", "--allow-empty", "-m", message)
    return folder


def experiment(folder: Path, name: str, **files: str) -> str:
    """An experiment on HEAD with these files changed; returns its commit."""
    baseline = git(folder, "rev-parse", "HEAD")
    commit(folder, f"dvc: commit experiment {name}", **files)
    made = git(folder, "rev-parse", "HEAD")
    git(folder, "update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", made)
    git(folder, "reset", "-q", "--hard", baseline)
    return made


def lock(params: str = "", outs: str = "", deps: str = "") -> str:
    """A ``dvc.lock`` of one stage ``train``."""
    text = "schema: '2.0'\nstages:\n  train:\n    cmd: python train.py\n"
    text += f"    deps:\n{deps}" if deps else ""
    text += f"    params:\n      params.yaml:\n{params}" if params else ""
    return text + (f"    outs:\n{outs}" if outs else "")


def entry(path: str, data: bytes) -> str:
    """An entry of a ``dvc.lock`` for a file with these bytes."""
    md5 = hashlib.md5(data).hexdigest()
    return f"    - path: {path}\n      hash: md5\n      md5: {md5}\n      size: {len(data)}\n"


def cached(folder: Path, data: bytes) -> Path:
    """A file of DVC's cache."""
    md5 = hashlib.md5(data).hexdigest()
    return write(folder / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:], data)


def contents(folder: Path) -> dict[str, tuple[int, int, str]]:
    """``folder`` and everything below it: size, time of change, digest."""
    found = {}
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (status.st_size, status.st_mtime_ns, digest)
    return found
