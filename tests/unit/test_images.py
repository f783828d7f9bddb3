"""The identity of a container image: against what skopeo reads, then trap by trap."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundler import codec
from bundler.errors import SourceError
from bundler.images import identify, of_reference
from bundler.spec import ImageIdentity

FIXTURES = Path(__file__).parent.parent / "fixtures" / "images"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text())
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
TAR = "application/vnd.oci.image.layer.v1.tar"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("layout v1", {"reference": "v1"}),
        ("layout v1-arm", {"reference": "v1-arm"}),
        ("oci-archive.tar", {}),
        ("docker-archive.tar", {}),
        ("platforms-synthetic linux/amd64", {"platform": "linux/amd64"}),
        ("platforms-synthetic linux/arm64", {"platform": "linux/arm64"}),
    ],
)
def test_what_skopeo_reads(name, options):
    path = FIXTURES / name.partition(" ")[0]
    before = fingerprint(path)
    identity = identify(path, **options)
    expected = EXPECTED[name]
    assert identity.resolved
    assert identity.supplied
    assert identity.config_digest == expected["config"]
    assert identity.platform == expected["platform"]
    assert [each.digest for each in identity.layers] == expected["layers"]
    assert identity.index_digest == expected.get("index")
    if identity.form == "docker-archive":
        # skopeo makes one up; the image has none.
        assert identity.manifest_digest is None
        assert "does not keep the manifest" in identity.reasons[0]
    elif "manifest" in expected:
        assert identity.manifest_digest == expected["manifest"]
    assert identify(path, **options) == identity
    assert fingerprint(path) == before


def fingerprint(path):
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [(each, hashlib.sha256(each.read_bytes()).digest()) for each in files if each.is_file()]


def test_the_two_digests_are_never_the_same_and_the_archive_keeps_one():
    layout = identify(FIXTURES / "layout", reference="v1")
    archive = identify(FIXTURES / "docker-archive.tar")
    assert layout.config_digest == archive.config_digest
    assert layout.manifest_digest != layout.config_digest
    # The layers of a layout are compressed, those of an archive are not.
    assert {each.digest for each in layout.layers}.isdisjoint(
        each.digest for each in archive.layers
    )
    assert archive.reference == "docker.io/library/training:v1"


def test_the_platforms_of_an_index_are_all_listed():
    identity = identify(FIXTURES / "platforms-synthetic")
    assert not identity.resolved
    assert identity.manifest_digest is None
    assert identity.reasons == (
        "2 images of the index may be meant: say which one by platform (such as linux/amd64), name or digest.",
    )
    assert {each.platform for each in identity.manifests} == {"linux/amd64", "linux/arm64"}
    assert {each.digest for each in identity.manifests} == {
        EXPECTED["layout v1"]["manifest"],
        EXPECTED["layout v1-arm"]["manifest"],
    }


@pytest.mark.parametrize(
    ("options", "resolved"),
    [
        ({"reference": "v1"}, False),
        ({"reference": "v1", "platform": "linux/amd64"}, True),
        ({"reference": EXPECTED["layout v1"]["manifest"]}, True),
        ({"reference": "repo@" + EXPECTED["layout v1-arm"]["manifest"]}, True),
        ({"reference": EXPECTED["platforms-synthetic linux/amd64"]["index"]}, False),
        ({"reference": "v2", "platform": "linux/amd64"}, False),
        ({"platform": "windows/amd64"}, False),
    ],
)
def test_which_image_is_meant(options, resolved):
    assert identify(FIXTURES / "platforms-synthetic", **options).resolved is resolved


def test_an_identity_goes_through_json_and_back():
    identity = identify(FIXTURES / "layout", reference="v1")
    assert (
        codec.from_json(ImageIdentity, json.loads(json.dumps(codec.to_json(identity)))) == identity
    )


def test_a_name_with_a_digest_is_resolved_and_not_supplied():
    digest = "sha256:" + "a" * 64
    identity = of_reference(f"registry.example.org:5000/team/train:v1@{digest}")
    assert (identity.resolved, identity.supplied, identity.manifest_digest) == (True, False, digest)


@pytest.mark.parametrize("text", ["train", "train:v1", "registry.example.org:5000/train"])
def test_a_tag_alone_is_unresolved(text):
    identity = of_reference(text)
    assert (identity.resolved, identity.manifest_digest) == (False, None)
    assert "A tag can be moved" in identity.reasons[0]


@pytest.mark.parametrize(
    "text", ["", "a b", "x@sha256:12", "x@md5:" + "a" * 32, "x@sha256:" + "A" * 64, "-x"]
)
def test_what_is_no_reference(text):
    with pytest.raises(SourceError, match="no reference"):
        of_reference(text)


class Layout:
    """A layout that is put together blob by blob, so that any part of it can be wrong."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "blobs" / "sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, data, media_type=TAR, algorithm="sha256", **more):
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        digest = hashlib.new(algorithm, data).hexdigest()
        place = self.folder / "blobs" / algorithm
        place.mkdir(exist_ok=True)
        (place / digest).write_bytes(data)
        return {
            "mediaType": media_type,
            "digest": f"{algorithm}:{digest}",
            "size": len(data),
            **more,
        }

    def config(self, *layers, **more):
        inner = [each["digest"] for each in layers]
        value = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": inner}, **more}
        return self.blob(value, CONFIG)

    def manifest(self, *layers, config=None, **more):
        value = {"schemaVersion": 2, "config": config or self.config(*layers), "layers": [*layers]}
        return self.blob({**value, **more}, MANIFEST)

    def index(self, *manifests, **more):
        (self.folder / "index.json").write_text(json.dumps({"manifests": manifests, **more}))
        return self.folder

    def path(self, entry):
        return self.folder / "blobs" / entry["digest"].replace(":", "/")


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "layout")


def refused(path, match, **options):
    with pytest.raises(SourceError, match=match) as caught:
        identify(path, **options)
    assert caught.value.remedy
    assert caught.value.message.isprintable()


def test_a_layout_put_together_by_hand(layout):
    layer = layout.blob(b"layer")
    identity = identify(layout.index(layout.manifest(layer)))
    assert identity.resolved
    assert identity.platform == "linux/amd64"
    assert identity.layers[0].size == 5


def test_sha512_is_an_algorithm_of_the_specification(layout):
    layer = layout.blob(b"layer", algorithm="sha512")
    assert identify(layout.index(layout.manifest(layer))).layers[0].digest.startswith("sha512:")


@pytest.mark.parametrize(
    "digest", ["sha1:" + "a" * 40, "sha256:../../x", "sha256:" + "A" * 64, "sha256:12", 7, None]
)
def test_digests_of_no_known_kind(layout, digest):
    layer = layout.blob(b"layer")
    refused(layout.index({**layout.manifest(layer), "digest": digest}), "no SHA-256 or SHA-512")


@pytest.mark.parametrize("part", ["layer", "config", "manifest"])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda file: file.write_bytes(b"x" * file.stat().st_size), "another digest|JSON"),
        (lambda file: file.write_bytes(file.read_bytes() + b" "), "bytes and not"),
        (lambda file: file.write_bytes(b""), "has 0 bytes"),
        (lambda file: file.unlink(), "is missing"),
        (lambda file: (file.rename(file.parent / "x"), file.symlink_to("x")), "cannot be read"),
        (lambda file: (file.unlink(), file.mkdir()), "no file|cannot be read"),
        (lambda file: (file.unlink(), os.mkfifo(file)), "is no file"),
    ],
)
def test_blobs_that_are_not_what_they_should_be(layout, part, change, match):
    layer = layout.blob(b"layer")
    config = layout.config(layer)
    manifest = layout.manifest(layer, config=config)
    # With a platform, nothing is read before the image is chosen.
    manifest["platform"] = {"os": "linux", "architecture": "amd64"}
    change(layout.path({"layer": layer, "config": config, "manifest": manifest}[part]))
    refused(layout.index(manifest), match)


@pytest.mark.parametrize("size", [True, -1, "5", None, 5.5])
def test_layers_without_a_size(layout, size):
    layer = {**layout.blob(b"layer"), "size": size}
    refused(layout.index(layout.manifest(layer, config=layout.config(layer))), "has no size")


def test_a_folder_of_blobs_that_is_a_link(layout):
    path = layout.index(layout.manifest(layout.blob(b"layer")))
    (path / "blobs").rename(path / "elsewhere")
    (path / "blobs").symlink_to("elsewhere")
    refused(path, "blobs is a link")


def test_a_layer_that_the_configuration_does_not_name(layout):
    layer, other = layout.blob(b"layer"), layout.blob(b"other")
    config = layout.config(other)
    refused(layout.index(layout.manifest(layer, config=config)), "layer 1 is not the one")
    refused(layout.index(layout.manifest(layer, other, config=config)), "does not name the 2")


def test_a_text_that_is_index_and_manifest_at_once(layout):
    layer = layout.blob(b"layer")
    refused(layout.index(layout.manifest(layer, manifests=[])), "an index as well")
    refused(layout.index(layout.manifest(layer), layers=[]), "a manifest as well")
    refused(layout.index(layout.manifest(layer, mediaType=INDEX)), "calls itself")


def test_indexes_in_indexes(layout):
    inner = layout.manifest(layout.blob(b"layer"))
    for _ in range(3):
        inner = layout.blob({"manifests": [inner]}, INDEX)
    assert identify(layout.index(inner)).resolved
    refused(layout.index(layout.blob({"manifests": [inner]}, INDEX)), "nested deeper than 4")


def test_an_index_that_multiplies(layout):
    inner = layout.blob({"manifests": []}, INDEX)
    inner = layout.blob({"manifests": [inner] * 100}, INDEX)
    refused(layout.index(*[inner] * 100), "more than 1,000 manifests")


def test_an_image_of_too_many_layers(layout):
    layer = layout.blob(b"layer")
    refused(layout.index(layout.manifest(*[layer] * 1001)), "more than 1,000 layers")


def test_a_manifest_beyond_the_bound(layout):
    big = layout.blob(b"[" + b" " * (4 << 20) + b"]", MANIFEST)
    refused(layout.index(big), "more than 4 MiB")


def test_an_attestation_is_no_image_and_other_entries_are_none(layout):
    manifest = layout.manifest(layout.blob(b"layer"))
    attested = {**manifest, "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
    other = layout.blob({}, "application/x")
    identity = identify(layout.index(manifest, attested, other))
    assert identity.resolved
    assert len(identity.manifests) == 1
    assert identify(layout.index(attested)).reasons == ("The index names no image.",)


def test_what_is_stored_like_an_image_and_is_none(layout):
    config = layout.blob({}, "application/vnd.cncf.helm.config.v1+json")
    identity = identify(layout.index(layout.manifest(layout.blob(b"x"), config=config)))
    assert not identity.resolved
    assert "no container image" in identity.reasons[0]


def test_index_and_configuration_that_name_two_platforms(layout):
    manifest = layout.manifest(layout.blob(b"layer"))
    manifest["platform"] = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    identity = identify(layout.index(manifest))
    assert not identity.resolved
    assert identity.reasons == ("The index says linux/arm64/v8 and the configuration linux/amd64.",)


def test_a_variant_may_be_left_out_and_a_platform_unknown(layout):
    layer = layout.blob(b"layer")
    manifest = layout.manifest(layer)
    manifest["platform"] = {"os": "linux", "architecture": "amd64", "variant": "v1"}
    assert identify(layout.index(manifest)).resolved
    unknown = layout.manifest(layer, config=layout.config(layer, os=None))
    assert identify(layout.index(unknown)).platform is None


def test_a_layer_that_may_not_be_passed_on(layout):
    layer = {**layout.blob(b"layer", TAR + "+gzip"), "urls": ["https://example.org/layer"]}
    path = layout.index(layout.manifest(layer))
    assert identify(path).supplied
    layout.path(layer).unlink()
    identity = identify(path)
    assert (identity.resolved, identity.supplied) == (True, False)
    assert identity.reasons == ("Layer 1 lies elsewhere and was not supplied.",)


def test_an_image_of_which_one_platform_was_kept(layout):
    kept = layout.manifest(layout.blob(b"layer"))
    gone = layout.manifest(layout.blob(b"other"))
    layout.path(gone).unlink()
    path = layout.index(kept, gone)
    assert identify(path, platform="linux/amd64").manifest_digest == kept["digest"]
    refused(path, "is missing", reference=gone["digest"])


def test_names_of_images(layout):
    names = {
        "io.containerd.image.name": "registry.example.org/train:v1",
        "org.opencontainers.image.ref.name": "v1",
    }
    first = {**layout.manifest(layout.blob(b"1")), "annotations": names}
    second = {**layout.manifest(layout.blob(b"2")), "annotations": {"x": 1}}
    path = layout.index(first, second)
    for reference in ("v1", "registry.example.org/train:v1", "train:v1"):
        assert identify(path, reference=reference).manifest_digest == first["digest"]
    assert identify(path, reference="v1").manifests[0].reference == "registry.example.org/train:v1"


@pytest.mark.parametrize(
    ("file", "text", "match"),
    [
        ("oci-layout", "{}", "not version 1.0.0"),
        ("oci-layout", "[]", "no object"),
        ("index.json", "[]", "no object"),
        ("index.json", "{", "json|JSON|index"),
        ("index.json", '{"manifests": {}}', "no list"),
        ("index.json", '{"manifests": [1]}', "no object"),
        ("index.json", '{"manifests": [], "manifests": []}', "stands twice"),
        ("index.json", '{"manifests": [{"annotations": 1}]}', "no object"),
        ("index.json", "[" * 100_000, "nested deeper"),
    ],
)
def test_layouts_that_are_none(layout, file, text, match):
    path = layout.index()
    (path / file).write_text(text)
    refused(path, match)


def test_what_is_no_image(tmp_path):
    refused(tmp_path / "nothing", "No such file")
    refused(tmp_path, "neither oci-layout and index.json nor manifest.json")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "neither a folder nor a file")
    (tmp_path / "text").write_text("hello")
    refused(tmp_path / "text", "no tar")
    (tmp_path / "empty").write_bytes(b"")
    refused(tmp_path / "empty", "no tar")


def packed(path, members):
    """A tar of (name, bytes) or TarInfo."""
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def archived(path, **changes):
    """What docker save writes, with parts of it changed."""
    layer = b"layer"
    inner = "sha256:" + hashlib.sha256(layer).hexdigest()
    value = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [inner]}}
    config = json.dumps({**value, **changes.get("config", {})}).encode()
    name = changes.get("name", hashlib.sha256(config).hexdigest() + ".json")
    described = {"Config": name, "RepoTags": ["train:v1"], "Layers": ["1/layer.tar"]}
    listed = changes.get("listed", [{**described, **changes.get("image", {})}])
    members = [
        (name, config),
        ("1/layer.tar", changes.get("layer", layer)),
        ("manifest.json", json.dumps(listed).encode()),
        *changes.get("more", []),
    ]
    return packed(path, members)


@pytest.fixture
def image(tmp_path):
    return tmp_path / "image.tar"


def test_an_archive_put_together_by_hand(image):
    identity = identify(archived(image))
    assert (identity.resolved, identity.reference) == (True, "train:v1")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"layer": b"other"}, "layer 1 .* is not the one"),
        ({"name": "a" * 64 + ".json"}, "the bytes of the configuration"),
        ({"listed": {}}, "no list of images"),
        ({"listed": [7]}, "no list of images"),
        ({"listed": [{}] * 1001}, "more than 1,000 images"),
        ({"image": {"RepoTags": "x"}}, "not that of docker save"),
        ({"image": {"Config": "absent.json"}}, "'absent.json' is missing"),
        ({"image": {"Config": "../../etc/passwd"}}, "is missing"),
        ({"image": {"Layers": ["absent"]}}, "'absent' is missing"),
        ({"image": {"Layers": "x"}}, "does not name the layers"),
        ({"image": {"Layers": []}}, "does not name the layers"),
        ({"config": {"rootfs": {"diff_ids": ["x"] * 1001}}, "image": {"Layers": ["x"] * 1001}}, "more than 1,000 layers"),
        ({"config": {"rootfs": 1}}, "does not name the layers"),
        ({"more": [("../x", b"")]}, "could lead elsewhere"),
        ({"more": [("/etc/x", b"")]}, "could lead elsewhere"),
        ({"more": [("a/../../x", b"")]}, "could lead elsewhere"),
        ({"more": [("a\\b", b"")]}, "could lead elsewhere"),
        ({"more": [("1/layer.tar", b"")]}, "two members called"),
        ({"more": [("./1/layer.tar", b"")]}, "two members called"),
        ({"more": [(link("d", "x", tarfile.CHRTYPE), b"")], "image": {"Layers": ["d"]}}, "no plain file"),
        ({"more": [(link("d", "../../x"), b"")], "image": {"Layers": ["d"]}}, "is missing"),
        ({"more": [(link("d", "e"), b""), (link("e", "d"), b"")], "image": {"Layers": ["d"]}}, "no plain file"),
    ],
)  # fmt: skip
def test_archives_that_nobody_saved(image, changes, match):
    refused(archived(image, **changes), match)


@pytest.mark.parametrize(
    "each",
    [
        link("2/layer.tar", "../1/layer.tar"),
        link("2/layer.tar", "1/layer.tar", tarfile.LNKTYPE),
    ],
)
def test_docker_once_wrote_the_same_layer_as_a_link(image, each):
    changes = {"more": [(each, b"")], "image": {"Layers": ["2/layer.tar"]}}
    assert identify(archived(image, **changes)).resolved


def test_a_compressed_layer_cannot_be_held_against_the_configuration(image):
    identity = identify(archived(image, layer=gzip.compress(b"layer")))
    assert not identity.resolved
    assert identity.reasons[1] == (
        "Layer 1 is compressed, so it was not held against the configuration."
    )


def test_an_archive_of_several_images(image):
    archived(image)
    with tarfile.open(image) as archive:
        (one,) = json.load(archive.extractfile("manifest.json"))
    listed = [one, {**one, "RepoTags": ["example.org/other:v2"]}]
    archived(image, listed=listed)
    assert not identify(image).resolved
    assert identify(image, reference="v2").reference == "v2"
    assert identify(image, reference="train:v1").resolved
    assert identify(image, platform="linux/arm64").reasons[0].startswith("0 of the 2 images")


def test_a_layout_in_an_archive_of_docker_is_preferred(image):
    """Docker writes both since version 25; the layout keeps the manifest."""
    members = [
        (path.relative_to(FIXTURES / "layout").as_posix(), path.read_bytes())
        for path in sorted((FIXTURES / "layout").rglob("*"))
        if path.is_file()
    ]
    identity = identify(packed(image, [*members, ("manifest.json", b"[]")]), reference="v1")
    assert identity.form == "oci-archive"
    assert identity.manifest_digest == EXPECTED["layout v1"]["manifest"]


def test_a_compressed_archive_is_not_decompressed(image):
    image.write_bytes(gzip.compress((FIXTURES / "oci-archive.tar").read_bytes()))
    refused(image, "compressed")


def test_an_archive_that_was_cut_off(image):
    data = (FIXTURES / "oci-archive.tar").read_bytes()
    for size in range(512, len(data) - 1024, 512):
        image.write_bytes(data[:size])
        try:
            identity = identify(image)
        except SourceError:
            continue
        # All blobs were before the cut.
        assert identity == identify(FIXTURES / "oci-archive.tar")


def test_a_member_that_claims_more_than_there_is(image):
    info = tarfile.TarInfo("manifest.json")
    info.size = 1 << 40
    image.write_bytes(info.tobuf() + b"[]" + b"\0" * 510)
    refused(image, "cut off")


@pytest.mark.parametrize("size", [1 << 20, 8**11 - 1])
def test_a_header_that_claims_to_be_large(image, size):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, size
    image.write_bytes(info.tobuf() + b"x" * 1024)
    refused(image, "a header of more than")


def test_a_header_with_a_number_that_takes_long_to_match(image):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2048
    image.write_bytes(info.tobuf() + b"1" * 2048 + b"\0" * 1024)
    refused(image, "200 digits")


def test_an_archive_of_too_many_members(image, monkeypatch):
    monkeypatch.setattr("bundler.images.blobs.MAX_MEMBERS", 3)
    refused(archived(image, more=[("x", b"")]), "more than 3 members")


def test_layers_are_read_in_pieces(layout, monkeypatch):
    monkeypatch.setattr("bundler.images.blobs._CHUNK", 3)
    assert identify(layout.index(layout.manifest(layout.blob(b"0123456789")))).resolved


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_image_that_may_not_be_read(tmp_path):
    target = shutil.copy(FIXTURES / "oci-archive.tar", tmp_path / "x.tar")
    Path(target).chmod(0)
    refused(Path(target), "Permission denied")


@pytest.mark.parametrize("name", ["oci-archive.tar", "docker-archive.tar"])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_archive_gives_the_same_identity_or_an_error(tmp_path_factory, name, data):
    """No change of a byte gives another digest: what is read is either what was there, or refused."""
    original = (FIXTURES / name).read_bytes()
    place = data.draw(st.integers(0, len(original) - 1))
    piece = data.draw(st.binary(min_size=1, max_size=4))
    file = tmp_path_factory.mktemp("damaged") / "image.tar"
    file.write_bytes(original[:place] + piece + original[place + len(piece) :])
    expected = identify(FIXTURES / name)
    try:
        identity = identify(file)
    except SourceError:
        return
    if identity.resolved:
        assert identity.config_digest == expected.config_digest
        assert identity.layers == expected.layers


@given(data=st.binary(max_size=2000))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_no_image(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("bytes") / "image.tar"
    file.write_bytes(data)
    with pytest.raises(SourceError):
        identify(file)
