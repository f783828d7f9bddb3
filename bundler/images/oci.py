"""An OCI image layout: from the index over the manifest to configuration and layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bundler.errors import quoted
from bundler.images.blobs import Files, check_blob, digest_of, json_blob, place, read_json
from bundler.spec import ImageForm, ImageIdentity, ImageLayer, PlatformManifest

INDEXES = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
}
MANIFESTS = {
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
}
CONFIGS = {
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
}
MAX_INDEX_DEPTH = 4
MAX_MANIFESTS = 1_000
MAX_LAYERS = 1_000

_TAG = "org.opencontainers.image.ref.name"
_NAME = "io.containerd.image.name"
_ATTESTATION = "vnd.docker.reference.type"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """An image of an index: its descriptor, and the names and digests by which one may ask for it."""

    manifest: PlatformManifest
    descriptor: dict[str, Any]
    names: tuple[str, ...]
    digests: tuple[str, ...]


def of_layout(
    files: Files, form: ImageForm, reference: str | None, platform: str | None
) -> ImageIdentity:
    """The identity of the image that ``reference`` and ``platform`` mean in a layout."""
    layout = table(files, read_json(files, "oci-layout"), "oci-layout")
    if layout.get("imageLayoutVersion") != "1.0.0":
        files.refuse("oci-layout is not version 1.0.0")
    index = _Index(files)
    index.walk(table(files, read_json(files, "index.json"), "index.json"))
    found = index.found
    meant = [each for each in found if _is_meant(each, reference, platform)]
    identity = ImageIdentity(
        form=form,
        reference=reference,
        manifest_digest=None,
        config_digest=None,
        platform=platform,
        manifests=tuple(each.manifest for each in found),
        supplied=False,
        resolved=False,
    )
    if len({each.manifest.digest for each in meant}) != 1:
        return replace(identity, reasons=(_open_question(len(meant), len(found)),))
    return _resolved(files, identity, meant[0])


def _open_question(meant: int, found: int) -> str:
    if not found:
        return "The index names no image."
    if not meant:
        return f"None of the {found} images of the index has that name and platform."
    return f"{meant} images of the index may be meant: say which one by platform (such as linux/amd64), name or digest."


class _Index:
    """Collects the images of an index and of the indexes in it, whose names and digests they inherit."""

    def __init__(self, files: Files) -> None:
        self.found: list[_Candidate] = []
        self._files = files
        self._platforms: dict[str, str | None] = {}
        self._entries = 0

    def walk(
        self, index: dict[str, Any], names: tuple[str, ...] = (), digests: tuple[str, ...] = ()
    ) -> None:
        """Take the images of ``index``."""
        if len(digests) >= MAX_INDEX_DEPTH:
            self._files.refuse(f"indexes nested deeper than {MAX_INDEX_DEPTH}")
        if "layers" in index or "config" in index:
            # Of a text that is both, one reader would take the one and another the other.
            self._files.refuse("an index that is a manifest as well")
        for entry in tables(self._files, index.get("manifests"), "manifests of the index"):
            self._entries += 1
            if self._entries > MAX_MANIFESTS:
                self._files.refuse(f"more than {MAX_MANIFESTS:,} manifests")
            self._take(entry, names, digests)

    def _take(
        self, entry: dict[str, Any], names: tuple[str, ...], digests: tuple[str, ...]
    ) -> None:
        annotations = table(self._files, entry.get("annotations", {}), "annotations of the index")
        # What a builder attests of an image is stored beside it as if it were one.
        if _ATTESTATION in annotations:
            return
        names += tuple(
            each for key in (_NAME, _TAG) if isinstance(each := annotations.get(key), str)
        )
        digests += (digest_of(self._files, entry, "entry of the index"),)
        if entry.get("mediaType") in INDEXES:
            self.walk(_of_type(self._files, entry, "index"), names, digests)
        elif entry.get("mediaType") in MANIFESTS:
            manifest = PlatformManifest(
                digest=digests[-1],
                platform=self._platform(entry, digests[-1]),
                reference=names[0] if names else None,
            )
            self.found.append(
                _Candidate(manifest=manifest, descriptor=entry, names=names, digests=digests)
            )

    def _platform(self, entry: dict[str, Any], digest: str) -> str | None:
        """What the index says; where it says nothing, what the configuration says."""
        if "platform" in entry:
            return platform_of(table(self._files, entry["platform"], "platform of the index"))
        if digest not in self._platforms:
            self._platforms[digest] = None
            if place(digest) in self._files:
                config = table(self._files, _manifest(self._files, entry).get("config"), "config")
                if config.get("mediaType") in CONFIGS:
                    value = table(
                        self._files,
                        json_blob(self._files, config, "configuration"),
                        "the configuration",
                    )
                    self._platforms[digest] = platform_of(value)
        return self._platforms[digest]


def _is_meant(candidate: _Candidate, reference: str | None, platform: str | None) -> bool:
    if platform is not None and candidate.manifest.platform != platform:
        return False
    if reference is None:
        return True
    digest = reference.rpartition("@")[2] if "@" in reference else reference
    return digest in candidate.digests or any(
        name == reference or name.endswith(f":{reference}") or reference.endswith(f":{name}")
        for name in candidate.names
    )


def _resolved(files: Files, identity: ImageIdentity, candidate: _Candidate) -> ImageIdentity:
    """Hold every blob of the image against its digest."""
    manifest = _manifest(files, candidate.descriptor)
    config = table(files, manifest.get("config"), "config of the manifest")
    layers, reasons = _layers(files, manifest)
    is_image = config.get("mediaType") in CONFIGS
    platform = candidate.manifest.platform
    if not is_image:
        check_blob(files, config, "configuration")
        kind = quoted(config.get("mediaType"))
        reasons.append(f"This is no container image: its configuration is of the type {kind}.")
    else:
        value = table(files, json_blob(files, config, "configuration"), "the configuration")
        _hold_against(files, value, layers)
        platform = platform_of(value)
        is_image = _agree(candidate.manifest.platform, platform)
        if not is_image:
            reasons.append(
                f"The index says {candidate.manifest.platform} and the configuration {platform}."
            )
    return replace(
        identity,
        reference=identity.reference or candidate.manifest.reference,
        manifest_digest=candidate.manifest.digest,
        index_digest=candidate.digests[0] if len(candidate.digests) > 1 else None,
        config_digest=digest_of(files, config, "configuration"),
        platform=platform,
        layers=layers,
        supplied=all(place(each.digest) in files for each in layers),
        resolved=is_image,
        reasons=tuple(reasons),
    )


def _layers(files: Files, manifest: dict[str, Any]) -> tuple[tuple[ImageLayer, ...], list[str]]:
    layers = []
    reasons = []
    listed = tables(files, manifest.get("layers"), "layers of the manifest")
    if len(listed) > MAX_LAYERS:
        files.refuse(f"more than {MAX_LAYERS:,} layers")
    for number, entry in enumerate(listed, start=1):
        digest, size = digest_of(files, entry, f"layer {number}"), entry.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            files.refuse(f"layer {number} has no size")
        if entry.get("urls") and place(digest) not in files:
            # Layers that may not be passed on (of Windows) lie elsewhere.
            reasons.append(f"Layer {number} lies elsewhere and was not supplied.")
        else:
            check_blob(files, entry, f"layer {number}")
        layers.append(ImageLayer(digest=digest, size=size, media_type=str(entry.get("mediaType"))))
    return tuple(layers), reasons


def _hold_against(
    files: Files, configuration: dict[str, Any], layers: Sequence[ImageLayer]
) -> None:
    """The configuration names the layers by the digest of what they unpack to: the same where nothing is compressed."""
    rootfs = table(files, configuration.get("rootfs"), "rootfs of the configuration")
    inner = rootfs.get("diff_ids")
    if not isinstance(inner, list) or len(inner) != len(layers):
        files.refuse(f"the configuration does not name the {len(layers)} layers of the manifest")
    for number, (layer, digest) in enumerate(zip(layers, inner, strict=True), start=1):
        if layer.media_type.endswith(".tar") and layer.digest != digest:
            files.refuse(f"layer {number} is not the one that the configuration names")


def _manifest(files: Files, descriptor: dict[str, Any]) -> dict[str, Any]:
    manifest = _of_type(files, descriptor, "manifest")
    if "manifests" in manifest:
        files.refuse("a manifest that is an index as well")
    return manifest


def _of_type(files: Files, descriptor: dict[str, Any], what: str) -> dict[str, Any]:
    """The index or manifest of ``descriptor``, which must not call itself anything else."""
    value = table(files, json_blob(files, descriptor, what), f"the {what}")
    if value.get("mediaType", descriptor.get("mediaType")) != descriptor.get("mediaType"):
        files.refuse(f"the {what} calls itself {quoted(value.get('mediaType'))}")
    return value


def platform_of(value: dict[str, Any]) -> str | None:
    """``os/architecture`` or ``os/architecture/variant``."""
    parts = [value.get(key) for key in ("os", "architecture", "variant")]
    words = [part for part in parts if isinstance(part, str) and part]
    return "/".join(words) if len(words) > 1 else None


def _agree(index: str | None, configuration: str | None) -> bool:
    """Whether both name the same platform; a variant is often left out of one of them."""
    if index is None or configuration is None:
        return True
    return all(
        one == other for one, other in zip(index.split("/"), configuration.split("/"), strict=False)
    )


def table(files: Files, value: object, what: str) -> dict[str, Any]:
    """``value`` if it is an object."""
    if not isinstance(value, dict):
        files.refuse(f"{what} is no object")
    return value


def tables(files: Files, value: object, what: str) -> list[dict[str, Any]]:
    """``value`` if it is a list of objects."""
    if not isinstance(value, list):
        files.refuse(f"{what} is no list")
    return [table(files, each, f"{what}[{number}]") for number, each in enumerate(value)]
