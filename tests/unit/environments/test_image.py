"""An image as the environment of a re-run: the very one that the bundle declares, and its interpreter."""

from __future__ import annotations

import json
import os
import platform
import shutil
from dataclasses import replace
from pathlib import PurePosixPath

import pytest

from bundler.environments import image as image_module
from bundler.environments.image import prepare
from bundler.errors import EnvironmentNotRecreatableError, OutputError
from bundler.images import identify, of_reference
from bundler.sandbox import Job, find
from tests.unit.sandbox.conftest import SMALL
from tests.unit.sandbox.image_builder import Image, file, folder, python_image, symlink

PROGRAM = {"data": b"#!", "mode": 0o755}


def made(tmp_path, *entries, **settings):
    image = Image(tmp_path / "image").add(*entries or [file("usr/bin/python3", **PROGRAM)])
    settings.setdefault("Env", ["PATH=/usr/bin"])
    return image, image.write(**settings)


def refused(said, *arguments, **options):
    with pytest.raises(EnvironmentNotRecreatableError, match=said) as caught:
        prepare(*arguments, **options)
    assert caught.value.remedy
    assert caught.value.message.isprintable()
    return caught.value.message


def test_the_declared_image_is_prepared(tmp_path):
    image, path = made(tmp_path)
    runtime = prepare(path, (identify(path),), tmp_path / "root")
    assert (runtime.mode, runtime.python, runtime.interpreter) == (
        "image",
        "/usr/bin/python3",
        None,
    )
    assert runtime.root == tmp_path / "root"
    assert runtime.facts == {
        "image.manifest_digest": image.manifest_digest,
        "image.config_digest": image.config_digest,
        "image.platform": f"linux/{image_module._ARCHITECTURES[platform.machine()]}",
        "image.files": 1,
    }


def test_another_image_names_both_digests(tmp_path):
    image, path = made(tmp_path)
    other = Image(tmp_path / "other").add(file("usr/bin/python3", b"#!other", mode=0o755))
    declared = identify(other.write(Env=["PATH=/usr/bin"]))
    message = refused("and the bundle declares", path, (declared,), tmp_path / "root")
    assert image.manifest_digest in message
    assert other.manifest_digest in message
    assert not (tmp_path / "root").exists()


def test_what_docker_saved_is_the_same_image_by_its_configuration(tmp_path):
    image, path = made(tmp_path)
    archive = image.docker_archive(tmp_path / "saved.tar")
    for number, (given, declared) in enumerate(
        [(archive, path), (path, archive), (archive, archive)]
    ):
        runtime = prepare(given, (identify(declared),), tmp_path / f"root{number}")
        assert runtime.facts["image.config_digest"] == image.config_digest


def test_a_reference_by_digest_is_a_declaration_and_a_tag_is_none(tmp_path):
    image, path = made(tmp_path)
    by_digest = of_reference(f"registry.example.org/train:v1@{image.manifest_digest}")
    assert prepare(path, (by_digest,), tmp_path / "root").python == "/usr/bin/python3"
    by_tag = of_reference("registry.example.org/train:v1")
    refused("declares no container image by its digest", path, (by_tag,), tmp_path / "r2")
    refused("declares no container image by its digest", path, (), tmp_path / "r3")


def test_of_an_index_of_several_platforms_the_declared_one_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(image_module.platform, "machine", lambda: "x86_64")
    images = {}
    layout = Image(tmp_path / "image")
    for architecture in ("amd64", "arm64"):
        layout.layers, layout.diff_ids = [], []
        layout.add(file("usr/bin/python3", architecture.encode(), mode=0o755))
        layout.write(architecture=architecture, Env=["PATH=/usr/bin"])
        manifest = json.loads((layout.place / "index.json").read_text())["manifests"][0]
        manifest["platform"] = {"os": "linux", "architecture": architecture}
        images[architecture] = manifest
    media_type = "application/vnd.oci.image.index.v1+json"
    value = {"schemaVersion": 2, "mediaType": media_type, "manifests": list(images.values())}
    index = layout.blob(json.dumps(value).encode(), media_type)
    (layout.place / "index.json").write_text(json.dumps({"manifests": [index]}))
    declared = {a: identify(layout.place, platform=f"linux/{a}") for a in images}
    by_index = of_reference(f"repo@{index['digest']}")
    for number, each in enumerate([declared["amd64"], by_index]):
        runtime = prepare(layout.place, (each,), tmp_path / f"root{number}")
        assert (runtime.root / "usr/bin/python3").read_bytes() == b"amd64"
    # Declared was the other one: that this machine could run its sibling does not help.
    refused("made for 'linux/arm64'", layout.place, (declared["arm64"],), tmp_path / "r2")
    odd = replace(declared["amd64"], manifest_digest="sha256:" + "1" * 64, config_digest=None)
    message = refused("and the bundle declares", layout.place, (odd,), tmp_path / "r3")
    assert all(manifest["digest"] in message for manifest in images.values())


@pytest.mark.parametrize("architecture", ["s390x", "wasm", ""])
def test_another_architecture_is_said_before_anything_is_unpacked(tmp_path, architecture):
    image = Image(tmp_path / "image").add(file("usr/bin/python3", **PROGRAM))
    path = image.write(architecture=architecture)
    refused("is made for", path, (identify(path),), tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_an_image_that_cannot_be_read(tmp_path):
    image, path = made(tmp_path)
    declared = identify(path)
    (path / "blobs" / image.layers[0]["digest"].replace(":", "/")).write_bytes(b"")
    refused("has 0 bytes", path, (declared,), tmp_path / "root")
    refused("cannot be read as a container image", tmp_path / "no", (declared,), tmp_path / "root")


def test_the_place_must_be_empty(tmp_path):
    _, path = made(tmp_path)
    (tmp_path / "root").mkdir()
    assert prepare(path, (identify(path),), tmp_path / "root").root == tmp_path / "root"
    with pytest.raises(OutputError, match="is not empty"):
        prepare(path, (identify(path),), tmp_path / "root")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be unpacked to"):
        prepare(path, (identify(path),), tmp_path / "file")


# --- variables ---------------------------------------------------------------------------------


def test_the_variables_are_those_of_the_image_but_for_where_and_as_whom_it_runs(tmp_path):
    listed = [
        *("PATH=/usr/bin", "LANG=C.UTF-8", "CUDA_VERSION=12.8", "A=b=c", "EMPTY=", "unset"),
        *("HOME=/root", "USER=root", "TMPDIR=/var/tmp", "HOSTNAME=x", "LD_LIBRARY_PATH=/opt/lib"),
    ]
    _, path = made(tmp_path, Env=listed)
    runtime = prepare(path, (identify(path),), tmp_path / "root")
    assert runtime.environment == {
        "PATH": "/usr/bin",
        "LANG": "C.UTF-8",
        "CUDA_VERSION": "12.8",
        "A": "b=c",
        "EMPTY": "",
        "LD_LIBRARY_PATH": "/opt/lib",
    }


@pytest.mark.parametrize("settings", [{"Env": None}, {"Env": []}, {}])
def test_an_image_without_variables_has_the_usual_path(tmp_path, settings):
    image = Image(tmp_path / "image").add(file("usr/local/bin/python3", **PROGRAM))
    path = image.write(**settings)
    runtime = prepare(path, (identify(path),), tmp_path / "root")
    assert runtime.python == "/usr/local/bin/python3"
    assert runtime.environment == {"PATH": image_module._PATH}


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ("PATH=/bin", "no proper list"),
        ([f"A{n}=1" for n in range(1001)], "no proper list"),
        ([7], "impossible variable: 7"),
        (["=x"], "impossible variable"),
        (["A=\0"], "impossible variable"),
    ],
)
def test_variables_that_no_process_can_have(tmp_path, listed, said):
    _, path = made(tmp_path, Env=listed)
    refused(said, path, (identify(path),), tmp_path / "root")


# --- the interpreter ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "python", "found"),
    [
        ([file("opt/bin/python3", **PROGRAM), file("usr/bin/python3", **PROGRAM)], "python3", "/opt/bin/python3"),
        ([file("usr/bin/python", **PROGRAM)], "python3", "/usr/bin/python"),
        ([file("opt/bin/python3"), file("usr/bin/python3", **PROGRAM)], "python3", "/usr/bin/python3"),
        ([file("x/py", **PROGRAM)], "/x/py", "/x/py"),
        ([file("usr/bin/python3.11", **PROGRAM)], "python3.11", "/usr/bin/python3.11"),
        # A virtual environment goes by the name of the link.
        ([file("real/py", **PROGRAM), symlink("opt/bin", "/venv/bin"), symlink("venv/bin/python3", "../../real/py")], "python3", "/opt/bin/python3"),
        ([file("real/py", **PROGRAM), symlink("usr/bin/python3", "../../../../../real/./py")], "python3", "/usr/bin/python3"),
    ],
)  # fmt: skip
def test_the_interpreter_is_found_as_a_container_would(tmp_path, entries, python, found):
    _, path = made(tmp_path, *entries, Env=["PATH=relative::/opt/bin:/usr/bin"])
    runtime = prepare(path, (identify(path),), tmp_path / "root", python=python)
    assert runtime.python == found


@pytest.mark.parametrize(
    ("entries", "python"),
    [
        ([file("x")], "python3"),
        ([folder("usr/bin/python3")], "python3"),
        ([symlink("usr/bin/python3", "/nowhere")], "python3"),
        ([symlink("usr/bin/python3", "python3")], "python3"),
        ([symlink("usr/bin/python3", os.path.realpath("/bin/sh"))], "python3"),  # of this machine
        ([file("x", **PROGRAM)], "/y"),
        ([file("x", **PROGRAM)], "/x/y"),
        ([file("x", **PROGRAM)], "/a\0b"),
        ([file("x", **PROGRAM)], "/"),
    ],
)
def test_no_interpreter(tmp_path, entries, python):
    _, path = made(tmp_path, *entries)
    refused("it has no program", path, (identify(path),), tmp_path / "root", python=python)


# --- for real ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_training_runs_in_a_real_image_as_prepared(tmp_path):
    """From the layout to the output, with the interpreter and the variables of the image."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    image = python_image(tmp_path / "image")
    runtime = prepare(image.place, (identify(image.place),), tmp_path / "root")
    job = Job(
        command=(runtime.python, "-c", "import os, sys; print(sys.prefix, os.environ['LANG'])"),
        working_directory=PurePosixPath("/out"),
        mounts=(),
        output=tmp_path / "out",
        log=tmp_path / "log",
        environment=runtime.environment,
        limits=SMALL,
        root=runtime.root,
    )
    outcome = find("bubblewrap").run(job)
    log = (tmp_path / "log").read_text()
    assert (outcome.ended, outcome.exit_code, log) == ("exited", 0, "/opt/python C.UTF-8\n")
