"""Unpacking an image into a root file system: every layer, held against its digests, within bounds.

After the layer specification of the Open Container Initiative: layers in order, whiteouts hide what lower layers have.
Nothing of the image is executed, and nothing is written outside of the folder.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bundler import canonical
from bundler.errors import EnvironmentNotRecreatableError, MalformedError, SourceError, quoted
from bundler.images.blobs import MAX_JSON, Files, files_of, read_json
from bundler.images.blobs import place as _blob
from bundler.images.layers import Layer, RefusedError
from bundler.images.references import DIGEST
from bundler.images.tree import Bounds, Tree
from bundler.spec import ImageIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """What came out of an image. ``skipped`` counts devices, pipes and sockets, which are not made."""

    configuration: Mapping[str, Any]
    files: int
    skipped: int
    size: int


def unpack(
    path: Path, identity: ImageIdentity, place: Path, *, bounds: Bounds | None = None
) -> Unpacked:
    """Write the root file system of the image into ``place``, an empty folder of the caller.

    ``identity`` is what :func:`bundler.images.identify` said of ``path``. Sizes are bytes. Raises
    :class:`bundler.errors.EnvironmentNotRecreatableError` for an image that is not what its digests say, that tries to
    leave the folder, or is larger than ``bounds``; what was written until then is left for the caller to remove.
    """
    bounds = bounds or Bounds()
    total = _Total()
    try:
        with closing(Tree(place, bounds)) as tree, files_of(path) as files:
            configuration = _unpack(files, identity, tree, total, bounds)
    except RefusedError as error:
        where = f"layer {total.layers}: " if total.layers else ""
        _refuse(path, f"{where}{error}")
    except SourceError as error:
        raise EnvironmentNotRecreatableError(error.message, remedy=error.remedy) from None
    except OSError as error:
        _refuse(path, f"{place} is no folder to write into: {error.strerror}")
    return Unpacked(
        configuration=configuration, files=total.files, skipped=total.skipped, size=total.size
    )


@dataclass(slots=True)
class _Total:
    layers: int = 0
    files: int = 0
    skipped: int = 0
    size: int = 0


def _unpack(
    files: Files, identity: ImageIdentity, tree: Tree, total: _Total, bounds: Bounds
) -> Mapping[str, Any]:
    if not (identity.resolved and identity.supplied):
        raise RefusedError(" ".join(identity.reasons) or "its layers were not supplied")
    configuration, names = _contents(files, identity)
    diff_ids = _diff_ids(configuration)
    if not len(names) == len(diff_ids) == len(identity.layers):
        raise RefusedError("it has another number of layers than a moment ago")
    for name, known, diff_id in zip(names, identity.layers, diff_ids, strict=True):
        total.layers += 1
        left = bounds.size - total.size
        layer = Layer(files.chunks(name), digest=known.digest, diff_id=diff_id, limit=left)
        try:
            _write(layer, tree, total)
        except OSError as error:
            raise RefusedError(f"it could not be written: {error.strerror or error}") from None
        total.size += layer.tell()
    return configuration


def _write(layer: Layer, tree: Tree, total: _Total) -> None:
    tree.begin_layer()
    for entry in layer.entries():
        tree.count()
        parts = tree.parts(entry.name)
        if parts and tree.hide(parts):
            continue
        _write_entry(layer, entry, parts, tree, total)
    layer.finish()


def _write_entry(
    layer: Layer, entry: tarfile.TarInfo, parts: tuple[str, ...], tree: Tree, total: _Total
) -> None:
    if entry.issparse():
        raise RefusedError(f"a sparse file, which layers should not have: {quoted(entry.name)}")
    if entry.isdir():
        if parts:
            tree.folder(parts)
    elif not parts:
        raise RefusedError("the root is no folder")
    elif entry.issym():
        tree.symlink(parts, entry.linkname)
    elif entry.islnk():
        tree.hard_link(parts, tree.parts(entry.linkname))
    elif entry.isreg():
        total.files += 1
        pieces = layer.data(entry.size)
        tree.file(parts, pieces, program=bool(entry.mode & 0o111), time=entry.mtime)
    elif entry.ischr() or entry.isblk() or entry.isfifo() or entry.type == b"s":
        total.skipped += 1
    else:
        raise RefusedError(f"an entry of the unknown type {entry.type!r}: {quoted(entry.name)}")


def _contents(files: Files, identity: ImageIdentity) -> tuple[Mapping[str, Any], list[str]]:
    """The configuration, and the names of the files of the layers."""
    digest = identity.config_digest or ""
    if identity.form != "docker-archive":
        names = [_blob(layer.digest) for layer in identity.layers]
        return _configuration(files, _blob(digest), digest), names
    listed = read_json(files, "manifest.json")
    for image in listed if isinstance(listed, list) else []:
        name, layers = (image.get(key) for key in ("Config", "Layers"))
        if isinstance(layers, list) and _digest(files, str(name)) == digest:
            names = [str(each) for each in layers]
            return _configuration(files, str(name), digest), names
    raise RefusedError("it is another image than a moment ago")


def _digest(files: Files, name: str) -> str:
    return f"sha256:{hashlib.sha256(b''.join(_bounded(files, name))).hexdigest()}"


def _bounded(files: Files, name: str) -> Iterator[bytes]:
    size = 0
    for piece in files.chunks(name):
        size += len(piece)
        if size > MAX_JSON:
            raise RefusedError("its configuration is too large")
        yield piece


def _configuration(files: Files, name: str, digest: str) -> Mapping[str, Any]:
    data = b"".join(_bounded(files, name))
    algorithm = digest.partition(":")[0]
    if f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}" != digest:
        raise RefusedError("its configuration is another one than a moment ago")
    try:
        value = canonical.parse(data, name="the configuration")
    except MalformedError as error:
        raise RefusedError(error.message) from None
    if not isinstance(value, dict):
        raise RefusedError("its configuration is no object")
    return value


def _diff_ids(configuration: Mapping[str, Any]) -> list[str]:
    """The digests of the unpacked layers; :func:`identify` has compared their number."""
    found = configuration["rootfs"]["diff_ids"]
    if not all(isinstance(each, str) and DIGEST.fullmatch(each) for each in found):
        raise RefusedError("its configuration names the layers by no SHA-256 or SHA-512")
    return list(found)


def _refuse(path: Path, problem: str) -> NoReturn:
    raise EnvironmentNotRecreatableError(
        f"the image {quoted(str(path), 200)} cannot be unpacked: {problem}",
        remedy="Ask the provider for the image as it was built, or write it anew with gzip layers:"
        " `skopeo copy --dest-compress-format gzip --dest-force-compress-format … oci:FOLDER`. There must be room"
        " for it unpacked.",
    )
