"""Tiny wheels made by hand, lists of them, and bundles that name the lists."""

from __future__ import annotations

import base64
import hashlib
import sys
import sysconfig
import zipfile
from collections.abc import Mapping
from pathlib import Path

from bundler.environments.wheels import WHEELS_FORMAT, Wheel, WheelList, serialise
from bundler.errors import MalformedError
from bundler.spec import TRAINING_FORMAT, Outputs, TrainingSpec

LIST = "data/environment/wheels.json"
LOCK = "data/environment/requirements.txt"
PYTHON = Path(sys.executable)


def make_wheel(
    folder: Path,
    name: str = "tiny",
    version: str = "1.0",
    files: Mapping[str, bytes] | None = None,
    *,
    tag: str = "py3-none-any",
    metadata: bytes | None = None,
    record: bool = True,
) -> Wheel:
    """A wheel of one module, as a build backend would write it; ``files`` come on top."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    plain = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    members = {
        f"{name.replace('-', '_')}/__init__.py": f"version = {version!r}\n".encode(),
        f"{info}/METADATA": plain if metadata is None else metadata,
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
        **(files or {}),
    }
    if record:
        lines = [f"{path},{_digest(data)},{len(data)}\n" for path, data in members.items()]
        members[f"{info}/RECORD"] = "".join([*lines, f"{info}/RECORD,,\n"]).encode()
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            # A fixed time: the same wheel has the same bytes.
            archive.writestr(zipfile.ZipInfo(member), data)
    return of_file(path, name, version)


def of_file(path: Path, name: str, version: str) -> Wheel:
    data = path.read_bytes()
    return Wheel(
        name=name,
        version=version,
        filename=path.name,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
    )


def listing(*wheels: Wheel, python: str = sys.version.split()[0], **more) -> WheelList:
    values = {
        "implementation": sys.implementation.name,
        "platform": sysconfig.get_platform(),
        "libc": "",
        **more,
    }
    return WheelList(
        format=WHEELS_FORMAT,
        python=python,
        wheels=tuple(sorted(wheels, key=lambda wheel: wheel.name)),
        **values,
    )


class Bundle:
    """The two lists of a bundle, as its verified files give them."""

    def __init__(self, wheels: WheelList | None = None, lock: str | None = None) -> None:
        self.files = {}
        if wheels is not None:
            self.files[LIST] = serialise(wheels)
        if lock is not None:
            self.files[LOCK] = lock.encode()

    def read(self, path: str) -> bytes:
        if path not in self.files:
            raise MalformedError("file-missing", f"{path} is not in the bundle")
        return self.files[path]

    @property
    def spec(self) -> TrainingSpec:
        return TrainingSpec(
            format=TRAINING_FORMAT,
            run="run-1",
            seed=1,
            command=("{python}", "train.py"),
            code="data/code",
            parameters={},
            environment={},
            inputs=(),
            outputs=Outputs(tracker="mlflow", location="mlruns"),
            lock=LOCK if LOCK in self.files else None,
            wheels=LIST if LIST in self.files else None,
        )


def _digest(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
    return f"sha256={digest.rstrip('=')}"
