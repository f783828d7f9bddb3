"""What ``docker save`` and skopeo write: a list of images, each with configuration and layers, and no manifest."""

from __future__ import annotations

import re
from typing import Any

from bundler.errors import quoted
from bundler.images.blobs import Files, hashed, read_json
from bundler.images.oci import MAX_LAYERS, MAX_MANIFESTS, platform_of
from bundler.spec import ImageIdentity, ImageLayer

_NO_MANIFEST = (
    "An archive of docker save does not keep the manifest: its digest, by which a registry knows the image, is"
    " unknown."
)
_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")


def of_archive(files: Files, reference: str | None, platform: str | None) -> ImageIdentity:
    """The identity of the image that ``reference`` and ``platform`` mean in an archive."""
    listed = read_json(files, "manifest.json")
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        files.refuse("manifest.json is no list of images")
    if len(listed) > MAX_MANIFESTS:
        files.refuse(f"more than {MAX_MANIFESTS:,} images")
    configs: dict[str, Any] = {}
    meant = []
    for image in listed:
        tags = image.get("RepoTags") or []
        name = str(image.get("Config"))
        config = configs[name] if name in configs else read_json(files, name)
        configs[name] = config
        if not isinstance(config, dict) or not isinstance(tags, list):
            files.refuse("manifest.json is not that of docker save")
        named = reference is None or any(
            tag == reference or str(tag).endswith((f":{reference}", f"/{reference}"))
            for tag in tags
        )
        if named and platform in {None, platform_of(config)}:
            meant.append((image, config, str(tags[0]) if tags else None))
    if len(meant) != 1:
        return _unresolved(len(meant), len(listed), reference, platform)
    image, config, tag = meant[0]
    digest = _config_digest(files, str(image["Config"]))
    layers, reasons = _layers(files, image, config)
    return ImageIdentity(
        form="docker-archive",
        reference=reference or tag,
        manifest_digest=None,
        config_digest=digest,
        platform=platform_of(config),
        layers=layers,
        supplied=True,
        resolved=not reasons,
        reasons=(_NO_MANIFEST, *reasons),
    )


def _unresolved(
    meant: int, listed: int, reference: str | None, platform: str | None
) -> ImageIdentity:
    return ImageIdentity(
        form="docker-archive",
        reference=reference,
        manifest_digest=None,
        config_digest=None,
        platform=platform,
        supplied=False,
        resolved=False,
        reasons=(
            f"{meant} of the {listed} images of the archive may be meant: say which one by name or platform.",
        ),
    )


def _config_digest(files: Files, name: str) -> str:
    """The digest of the configuration, which is also its name."""
    digest, _, _ = hashed(files, name, "sha256")
    expected = re.search(r"([0-9a-f]{64})(\.json)?$", name)
    if expected is not None and digest != f"sha256:{expected[1]}":
        files.refuse(f"the bytes of the configuration {quoted(name, 120)} have the digest {digest}")
    return digest


def _layers(
    files: Files, image: dict[str, Any], config: dict[str, Any]
) -> tuple[tuple[ImageLayer, ...], list[str]]:
    """The layers, each held against the digest by which the configuration names it."""
    rootfs = config.get("rootfs")
    inner = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    names = image.get("Layers")
    if not isinstance(names, list) or not isinstance(inner, list) or len(names) != len(inner):
        files.refuse("the configuration does not name the layers of manifest.json")
    if len(names) > MAX_LAYERS:
        files.refuse(f"more than {MAX_LAYERS:,} layers")
    layers = []
    reasons = []
    for number, (name, expected) in enumerate(zip(names, inner, strict=True), start=1):
        digest, size, start = hashed(files, str(name), "sha256")
        if digest != expected and not start.startswith(_COMPRESSED):
            files.refuse(f"layer {number} ({digest}) is not the one that the configuration names")
        if digest != expected:
            reasons.append(
                f"Layer {number} is compressed, so it was not held against the configuration."
            )
        layers.append(ImageLayer(digest=digest, size=size, media_type=_LAYER))
    return tuple(layers), reasons
