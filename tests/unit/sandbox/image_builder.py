"""Container images that are put together by hand, entry by entry; and a real one, with the Python that runs the tests."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import subprocess
import sys
import tarfile
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
TAR = "application/vnd.oci.image.layer.v1.tar"
HERE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
TIME = 1_600_000_000


def entry(name, kind=tarfile.REGTYPE, data=b"", **fields):
    """One entry of a tar: (TarInfo, data)."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mtime = kind, len(data), TIME
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def file(name, data=b"", **fields):
    return entry(name, tarfile.REGTYPE, data, **fields)


def folder(name, **fields):
    return entry(name, tarfile.DIRTYPE, mode=fields.pop("mode", 0o755), **fields)


def symlink(name, target):
    return entry(name, tarfile.SYMTYPE, linkname=target)


def hard_link(name, target):
    return entry(name, tarfile.LNKTYPE, linkname=target)


def tar(*entries, form=tarfile.PAX_FORMAT):
    """The bytes of a tar with those entries; names are written as they are."""
    stream = io.BytesIO()
    for info, data in entries:
        stream.write(info.tobuf(form, "utf-8", "surrogateescape"))
        stream.write(data + b"\0" * (-len(data) % 512))
    return stream.getvalue() + b"\0" * 1024


def sha256(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Image:
    """An OCI layout with one image."""

    def __init__(self, place):
        self.place = Path(place)
        (self.place / "blobs/sha256").mkdir(parents=True)
        (self.place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.layers = []
        self.diff_ids = []
        self.manifest_digest = ""
        self.config_digest = ""

    def blob(self, data, media_type):
        digest = sha256(data)
        (self.place / "blobs/sha256" / digest.removeprefix("sha256:")).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def add(self, *entries, data=None, pack=gzip.compress, diff_id=None):
        """Add a layer, of ``entries`` or of the tar ``data``."""
        data = tar(*entries) if data is None else data
        suffix = "" if pack is None else "+gzip"
        self.layers.append(self.blob(data if pack is None else pack(data), TAR + suffix))
        self.diff_ids.append(diff_id or sha256(data))
        return self

    def write(self, *, architecture=HERE, **settings):
        """Write configuration, manifest and index; ``settings`` are those of the container (Env)."""
        config = {
            "os": "linux",
            "architecture": architecture,
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
        }
        described = self.blob(json.dumps(config).encode(), CONFIG)
        value = {"schemaVersion": 2, "config": described, "layers": self.layers}
        manifest = self.blob(json.dumps(value).encode(), MANIFEST)
        self.manifest_digest, self.config_digest = manifest["digest"], described["digest"]
        (self.place / "index.json").write_text(json.dumps({"manifests": [manifest]}))
        return self.place

    def docker_archive(self, path):
        """The same image as ``docker save`` writes it: a tar with the layers uncompressed, and no manifest."""
        blobs = self.place / "blobs/sha256"
        config = (blobs / self.config_digest.removeprefix("sha256:")).read_bytes()
        entries, names = [], []
        for number, layer in enumerate(self.layers):
            data = (blobs / layer["digest"].removeprefix("sha256:")).read_bytes()
            data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
            names.append(f"{number}/layer.tar")
            entries.append(file(names[-1], data))
        name = f"{self.config_digest.removeprefix('sha256:')}.json"
        listed = [{"Config": name, "RepoTags": ["train:v1"], "Layers": names}]
        entries += [file(name, config), file("manifest.json", json.dumps(listed).encode())]
        path.write_bytes(tar(*entries))
        return path


_LEFT_OUT = {
    *("test", "idlelib", "ensurepip", "tkinter", "lib2to3", "pydoc_data", "turtledemo", "unittest"),
    *("site-packages", "__pycache__", "distutils", "sqlite3", "asyncio", "xml", "curses", "dbm"),
}
PREFIX = "opt/python"
ENVIRONMENT = [
    f"PATH=/{PREFIX}/bin",
    f"LD_LIBRARY_PATH=/{PREFIX}/lib",
    "LANG=C.UTF-8",
    "HOME=/root",
]

PYTHON = f"/{PREFIX}/bin/python3"
VARIABLES = dict(each.split("=", 1) for each in ENVIRONMENT if not each.startswith("HOME"))


def python_entries():
    """The interpreter of the tests, the part of its library that scripts need, and the shared objects it links to."""
    real = Path(sys.executable).resolve()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = Path(json.__file__).parents[1]
    yield folder(f"{PREFIX}/bin/")
    yield file(f"{PREFIX}/bin/{version}", real.read_bytes(), mode=0o755)
    yield symlink(f"{PREFIX}/bin/python3", version)
    for path in sorted(library.rglob("*")):
        inside = path.relative_to(library)
        wanted = path.suffix == ".py" or inside.parts[0] == "lib-dynload"
        if wanted and path.is_file() and not _LEFT_OUT & set(inside.parts):
            yield file(f"{PREFIX}/lib/{version}/{inside}", path.read_bytes())
    said = subprocess.run(["ldd", str(real)], capture_output=True, text=True, check=True).stdout
    for words in map(str.split, said.splitlines()):
        if "=>" in words and words[2].startswith("/"):
            yield file(f"{PREFIX}/lib/{words[0]}", Path(words[2]).read_bytes(), mode=0o755)
        elif words[0].startswith("/"):  # the loader, by the path that is written in the interpreter
            yield file(words[0].removeprefix("/"), Path(words[0]).read_bytes(), mode=0o755)


def python_image(place):
    """A small real image: nothing in it but Python and what it needs to start."""
    image = Image(place).add(*python_entries(), pack=None)
    image.add(
        folder("etc"),
        file("etc/os-release", b'NAME="An image of the tests"\n'),
        file("etc/hosts", b"6.6.6.6 localhost\n"),
        symlink("host-etc", "../../../../../../../../etc"),
        folder("bundle"),
        file("bundle/of-the-image", b"x"),
    )
    image.write(Env=ENVIRONMENT)
    return image
