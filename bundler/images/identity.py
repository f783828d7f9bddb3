"""The identity of an image from its bytes: index, manifest, configuration and layers, each held against its digest."""

from __future__ import annotations

from pathlib import Path

from bundler.images.blobs import files_of
from bundler.images.docker import of_archive
from bundler.images.oci import of_layout
from bundler.spec import ImageForm, ImageIdentity


def identify(
    path: Path, *, reference: str | None = None, platform: str | None = None
) -> ImageIdentity:
    """The identity of the image in an OCI layout (folder or tar) or an archive of ``docker save``.

    ``reference`` (name, tag or digest) and ``platform`` (``linux/amd64``) say which of several images is meant. Where
    that stays open, the result is not ``resolved``. Raises :class:`bundler.errors.SourceError` for an image whose bytes
    are missing or not what their digests say.
    """
    with files_of(path) as files:
        # Docker writes both since version 25: only the layout keeps the manifest.
        if "oci-layout" in files and "index.json" in files:
            form: ImageForm = "oci-layout" if path.is_dir() else "oci-archive"
            return of_layout(files, form, reference, platform)
        if "manifest.json" not in files:
            files.refuse("it has neither oci-layout and index.json nor manifest.json")
        return of_archive(files, reference, platform)
