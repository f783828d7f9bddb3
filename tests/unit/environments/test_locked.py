"""An environment is recreated from exactly the wheels that the bundle lists, offline, and nothing of them runs."""

from __future__ import annotations

import os
import stat
import sys
import zipfile
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from bundler import sandbox
from bundler.environments import interpreters, locked, prepare
from bundler.environments.wheels import requirements
from bundler.errors import EnvironmentNotRecreatableError, MalformedError
from tests.unit.environments.support import PYTHON, Bundle, listing, make_wheel, of_file

RUN_BY_PTH = "import pathlib; pathlib.Path({marker!r}).touch()\n"


@pytest.fixture(params=["uv", "pip"])
def installer(request, monkeypatch):
    """Both installers do the same; pip is what is left where there is no uv."""
    assert interpreters.find_uv(), "uv is a development dependency"
    if request.param == "pip":
        monkeypatch.setattr(interpreters, "find_uv", lambda: None)
    return request.param


@pytest.fixture
def wheelhouse(tmp_path):
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    return folder


def recreate(bundle, wheelhouse, place, python=PYTHON):
    return prepare(
        "locked", python=python, files=bundle, spec=bundle.spec, wheelhouse=wheelhouse, place=place
    )


def refused(bundle, wheelhouse, place, match):
    with pytest.raises(EnvironmentNotRecreatableError, match=match) as caught:
        recreate(bundle, wheelhouse, place)
    assert caught.value.exit_code == 4
    assert caught.value.remedy
    return caught.value


def test_the_environment_has_exactly_the_listed_wheels(installer, wheelhouse, tmp_path):
    wheels = [make_wheel(wheelhouse), make_wheel(wheelhouse, "labelled", "2.0+cpu")]
    make_wheel(wheelhouse, "extra")
    make_wheel(wheelhouse, "tiny", "9.0")
    bundle = Bundle(listing(*wheels), lock="tiny==1.0\nlabelled==2.0\n")
    runtime = recreate(bundle, wheelhouse, tmp_path / "runtime")
    assert (runtime.mode, runtime.software) == ("locked", ())
    assert runtime.interpreter == tmp_path / "runtime" / "venv" / "bin" / "python"
    assert runtime.python == str(runtime.interpreter)
    venv = tmp_path / "runtime" / "venv"
    assert locked.installed_below(venv) == {"tiny": "1.0", "labelled": "2.0+cpu"}
    facts = dict(runtime.facts)
    assert (facts["packages"], facts["packages_compared"], facts["wheels"]) == (2, 2, 2)
    assert (facts["installer"], facts["python"]) == (installer, sys.version.split()[0])
    assert len(facts["wheels_sha256"]) == 64
    # What was needed on the way is gone.
    assert [each.name for each in (tmp_path / "runtime").iterdir()] == ["venv"]


def test_nothing_of_a_wheel_has_run_when_the_environment_is_ready(installer, wheelhouse, tmp_path):
    marker = tmp_path / "it-ran"
    files = {
        "tiny.pth": RUN_BY_PTH.format(marker=str(marker)).encode(),
        "sitecustomize.py": RUN_BY_PTH.format(marker=str(marker)).encode(),
        "tiny-1.0.dist-info/entry_points.txt": b"[console_scripts]\ntiny = tiny:main\n",
    }
    wheel = make_wheel(wheelhouse, files=files)
    bundle = Bundle(listing(wheel))
    runtime = recreate(bundle, wheelhouse, tmp_path / "runtime")
    (landed,) = (tmp_path / "runtime").glob("venv/lib/python*/site-packages/tiny.pth")
    assert landed.is_file()
    assert not marker.exists()
    assert not list((tmp_path / "runtime").rglob("tiny/__pycache__"))
    # The trap was a real one: starting the interpreter springs it.
    interpreters.identify(runtime.interpreter)
    assert marker.exists()


def test_an_altered_wheel_is_refused_before_the_installer_sees_it(wheelhouse, tmp_path):
    wheel = make_wheel(wheelhouse)
    bundle = Bundle(listing(wheel))
    path = wheelhouse / wheel.filename
    path.write_bytes(path.read_bytes().replace(b"1.0", b"1.1", 1))
    error = refused(bundle, wheelhouse, tmp_path / "runtime", "SHA-256 differs: tiny-1.0")
    assert "get them anew" in error.remedy
    assert not (tmp_path / "runtime" / "venv").exists()


def test_the_installer_itself_refuses_an_altered_wheel(
    installer, wheelhouse, tmp_path, monkeypatch
):
    """The second line: were it swapped after our check, uv and pip hold it against the hash again."""
    wheel = make_wheel(wheelhouse)
    bundle = Bundle(listing(wheel))
    make_wheel(wheelhouse, files={"tiny/more.py": b""})
    monkeypatch.setattr(locked.wheels, "is_whole", lambda path, wheel: True)
    error = refused(bundle, wheelhouse, tmp_path / "runtime", "could not install the wheels")
    # What pip says of it is cut to its last lines.
    assert any(word in error.message.lower() for word in ("hash", "tampered"))


def test_a_missing_wheel_is_named(wheelhouse, tmp_path):
    wheels = [make_wheel(wheelhouse, f"p{number}") for number in range(10)]
    for wheel in wheels:
        (wheelhouse / wheel.filename).unlink()
    error = refused(Bundle(listing(*wheels)), wheelhouse, tmp_path / "runtime", "lacks 10 wheels")
    assert "p0-1.0-py3-none-any.whl" in error.message
    assert "and 2 more" in error.message
    assert "--listed" in error.remedy


def test_a_wheel_can_lie_below_its_digest(wheelhouse, tmp_path):
    """Two bundles can need two wheels of the same file name."""
    wheel = make_wheel(wheelhouse / "other")
    own = wheelhouse / wheel.sha256
    own.mkdir()
    (wheelhouse / "other" / wheel.filename).replace(own / wheel.filename)
    make_wheel(wheelhouse, files={"tiny/another.py": b""})
    runtime = recreate(Bundle(listing(wheel)), wheelhouse, tmp_path / "runtime")
    assert runtime.facts["packages"] == 1
    assert not list((tmp_path / "runtime").rglob("another.py"))


def test_a_wheelhouse_on_another_disk_is_copied_from(wheelhouse, tmp_path, monkeypatch):
    wheel = make_wheel(wheelhouse)

    def no_links(source, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(locked.os, "link", no_links)
    assert recreate(Bundle(listing(wheel)), wheelhouse, tmp_path / "r").facts["wheels"] == 1


def test_a_wheel_that_cannot_be_read_is_an_error_that_names_it(wheelhouse, tmp_path, monkeypatch):
    wheel = make_wheel(wheelhouse)

    def denied(source, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(locked.os, "link", denied)
    monkeypatch.setattr(locked.shutil, "copyfile", denied)
    error = refused(Bundle(listing(wheel)), wheelhouse, tmp_path / "r", "cannot read .*tiny-1.0")
    assert "permissions" in error.remedy


@pytest.mark.parametrize("member", ["tiny-1.0.data/data/pyvenv.cfg", "../../../outside.py"])
def test_a_wheel_that_reaches_out_is_not_unpacked(installer, wheelhouse, tmp_path, member):
    wheel = make_wheel(wheelhouse, files={member: b"home = /root\n"})
    error = refused(Bundle(listing(wheel)), wheelhouse, tmp_path / "runtime", "not safe to unpack")
    assert "provider" in error.remedy
    assert not (tmp_path / "runtime" / "venv").exists()


PATHS = ["{outside}/PWNED", "../../../PWNED", "../PWNED"]


@pytest.mark.parametrize("name", PATHS)
def test_a_program_that_is_a_path_is_written_nowhere(installer, wheelhouse, tmp_path, name):
    wheel = with_program(wheelhouse, name.format(outside=tmp_path))
    refused(Bundle(listing(wheel)), wheelhouse, tmp_path / "runtime", "no program with a plain")
    assert not (tmp_path / "runtime" / "venv").exists()
    assert not list(tmp_path.rglob("PWNED"))


@pytest.mark.parametrize("name", PATHS)
def test_the_installer_itself_refuses_a_program_that_is_a_path(
    installer, wheelhouse, tmp_path, monkeypatch, name
):
    """The second line, and why old versions of uv and pip are not used."""
    wheel = with_program(wheelhouse, name.format(outside=tmp_path))
    monkeypatch.setattr(locked.wheels, "examine", lambda path, name, version: 0)
    refused(Bundle(listing(wheel)), wheelhouse, tmp_path / "runtime", "could not install")
    assert not list(tmp_path.rglob("PWNED"))


def with_program(wheelhouse, name):
    text = f"[console_scripts]\n{name} = tiny:main\n".encode()
    return make_wheel(wheelhouse, files={"tiny-1.0.dist-info/entry_points.txt": text})


@pytest.mark.parametrize(
    "member", ["tiny-1.0.data/purelib/numpy-9.dist-info/METADATA", "numpy.egg-info/PKG-INFO"]
)
@pytest.mark.parametrize(
    "text", [b"Name: numpy\nVersion: 1.26.4\n", b"Name: \xff\xfe\nVersion: 9\n"]
)
def test_a_wheel_cannot_invent_another_package(wheelhouse, tmp_path, member, text):
    wheel = make_wheel(wheelhouse, files={member: text})
    refused(Bundle(listing(wheel)), wheelhouse, tmp_path / "runtime", "not safe to unpack")


def test_a_hostile_environment_is_read_without_a_traceback(tmp_path):
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    for folder, text in {
        "good-1.dist-info": b"Name: Good\nVersion: 1\n",
        "bytes-1.dist-info": b"Name: \xff\xfe\nVersion: 9\n",
        "nameless-1.dist-info": b"Version: 9\n",
        "versionless-1.dist-info": b"Name: versionless\n",
        "none-1.dist-info": None,
    }.items():
        (site / folder).mkdir(parents=True)
        if text is not None:
            (site / folder / "METADATA").write_bytes(text)
    (site / "folder-1.dist-info" / "METADATA").mkdir(parents=True)
    (site / "loop-1.dist-info").mkdir()
    (site / "loop-1.dist-info" / "METADATA").symlink_to("METADATA")
    (site / "file.egg-info").write_bytes(b"\xff")
    assert locked.installed_below(tmp_path) == {"good": "1"}


@pytest.mark.parametrize("member", ["data/pyvenv.cfg", "data/bin/python"])
def test_an_interpreter_that_was_replaced_all_the_same_is_noticed(
    installer, wheelhouse, tmp_path, monkeypatch, member
):
    wheel = make_wheel(wheelhouse, files={f"tiny-1.0.data/{member}": b"home = /root\n"})
    monkeypatch.setattr(locked.wheels, "examine", lambda path, name, version: 0)
    refused(
        Bundle(listing(wheel)),
        wheelhouse,
        tmp_path / "runtime",
        "replaced a part|could not install",
    )


def test_a_wheel_that_lies_about_its_unpacked_size_is_never_unpacked(wheelhouse, tmp_path):
    make_wheel(wheelhouse)
    path = wheelhouse / "tiny-1.0-py3-none-any.whl"
    size = 5 << 20
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny/bomb.bin", bytes(size))
    data = path.read_bytes().replace(size.to_bytes(4, "little"), (100).to_bytes(4, "little"))
    path.write_bytes(data)
    bundle = Bundle(listing(of_file(path, "tiny", "1.0")))
    refused(bundle, wheelhouse, tmp_path / "runtime", "not safe to unpack")
    assert list((tmp_path / "runtime").iterdir()) == []


def test_an_environment_larger_than_the_disk_is_not_begun(wheelhouse, tmp_path, monkeypatch):
    wheel = make_wheel(wheelhouse)
    monkeypatch.setattr(locked.wheels, "examine", lambda path, name, version: 1 << 60)
    refused(Bundle(listing(wheel)), wheelhouse, tmp_path / "runtime", "MiB left")


def test_wheels_for_another_platform_are_an_error_that_says_so(installer, wheelhouse, tmp_path):
    wheel = make_wheel(wheelhouse, tag="cp311-cp311-win_arm64")
    bundle = Bundle(listing(wheel, platform="win-arm64", libc=""))
    error = refused(bundle, wheelhouse, tmp_path / "runtime", "could not install")
    assert "made for win-arm64" in error.remedy
    assert "--environment image" in error.remedy


def test_no_setting_or_variable_of_this_machine_changes_what_is_installed(
    installer, wheelhouse, tmp_path, monkeypatch
):
    home = tmp_path / "home"
    for path, text in (
        (home / ".config" / "uv" / "uv.toml", "no-binary = true\n"),
        (home / ".config" / "pip" / "pip.conf", "[global]\nno-binary = :all:\n"),
    ):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    dead = "http://127.0.0.1:9"
    for name, value in {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "HTTPS_PROXY": dead,
        "HTTP_PROXY": dead,
        "ALL_PROXY": dead,
        "PIP_INDEX_URL": dead,
        "PIP_NO_BINARY": ":all:",
        "PIP_REQUIRE_VIRTUALENV": "1",
        "PIP_TARGET": str(tmp_path / "elsewhere"),
        "UV_INDEX_URL": dead,
        "UV_NO_BINARY": "1",
        "UV_COMPILE_BYTECODE": "1",
        "UV_TARGET": str(tmp_path / "elsewhere"),
        "UV_PYTHON": "3.99",
    }.items():
        monkeypatch.setenv(name, value)
    wheel = make_wheel(wheelhouse)
    runtime = recreate(Bundle(listing(wheel)), wheelhouse, tmp_path / "runtime")
    assert runtime.facts["packages"] == 1
    assert not (tmp_path / "elsewhere").exists()


def test_every_user_can_read_the_environment_and_no_set_uid_bit_is_left(wheelhouse, tmp_path):
    wheel = make_wheel(wheelhouse, files={"tiny-1.0.data/scripts/tool": b"#!/bin/sh\n"})
    before = os.umask(0o077)
    try:
        recreate(Bundle(listing(wheel)), wheelhouse, tmp_path / "runtime")
    finally:
        os.umask(before)
    program = tmp_path / "runtime" / "venv" / "bin" / "tool"
    assert stat.S_IMODE(program.stat().st_mode) == 0o755
    for path in (tmp_path / "runtime" / "venv").rglob("*"):
        if not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o755 if path.is_dir() or mode & 0o100 else 0o644), path
    program.chmod(0o6755)
    locked._open_to_all(tmp_path / "runtime")
    assert stat.S_IMODE(program.stat().st_mode) == 0o755


# --- what is needed before anything is made -------------------------------------------------------------------------


def test_the_wheelhouse_has_to_be_given_and_nothing_is_fetched(tmp_path, wheelhouse):
    bundle = Bundle(listing(make_wheel(wheelhouse)))
    for missing in (None, tmp_path / "none"):
        error = refused(bundle, missing, tmp_path / "runtime", "recreated offline")
        assert "--wheelhouse" in error.remedy
        assert "--listed BUNDLE/data/environment/wheels.json" in error.remedy


def test_a_bundle_that_lists_nothing_cannot_be_recreated(wheelhouse, tmp_path):
    error = refused(Bundle(), wheelhouse, tmp_path / "runtime", "neither wheels nor packages")
    assert "--environment current" in error.remedy


def test_a_list_that_is_not_valid_is_a_fault_of_the_bundle(wheelhouse, tmp_path):
    bundle = Bundle(listing(make_wheel(wheelhouse)))
    bundle.files["data/environment/wheels.json"] = b"{}"
    with pytest.raises(MalformedError) as caught:
        recreate(bundle, wheelhouse, tmp_path / "runtime")
    assert caught.value.exit_code == 3


def test_a_list_without_a_package_of_the_lock_is_another_environment(wheelhouse, tmp_path):
    wheel = make_wheel(wheelhouse)
    lock = "tiny==1.0\nnumpy==2.0\npywin32==1 ; sys_platform == 'win32'\n"
    error = refused(
        Bundle(listing(wheel), lock=lock), wheelhouse, tmp_path / "r", "lacks 1 packages"
    )
    assert "numpy" in error.message
    assert "pywin32" not in error.message


def test_another_version_than_the_locks_is_shown(wheelhouse, tmp_path):
    bundle = Bundle(listing(make_wheel(wheelhouse, version="1.1")), lock="tiny==1.0\n")
    (knob,) = recreate(bundle, wheelhouse, tmp_path / "runtime").software
    assert (knob.name, knob.declared, knob.rerun) == ("package tiny", "1.0", "1.1")


def test_a_wheel_that_the_lock_does_not_know_is_shown(wheelhouse, tmp_path):
    wheel, other = make_wheel(wheelhouse), make_wheel(wheelhouse, "other")
    lock = f"tiny==1.0 --hash=sha256:{'ab' * 32}\n" + requirements([other]) + "third==1\n"
    bundle = Bundle(listing(wheel, other, make_wheel(wheelhouse, "third", "1")), lock=lock)
    (knob,) = recreate(bundle, wheelhouse, tmp_path / "runtime").software
    assert (knob.name, knob.rerun) == ("wheel tiny", f"{wheel.filename}, sha256:{wheel.sha256}")


def test_an_interpreter_of_another_patch_release_and_libc_is_shown(wheelhouse, tmp_path):
    minor = ".".join(sys.version.split()[0].split(".")[:2])
    listed = listing(make_wheel(wheelhouse), python=f"{minor}.99", libc="glibc 1.0")
    knobs = {
        knob.name: knob.declared
        for knob in recreate(Bundle(listed), wheelhouse, tmp_path / "runtime").software
    }
    assert knobs == {"environment python": f"{minor}.99", "environment libc": "glibc 1.0"}


def test_an_interpreter_that_nobody_has_is_named(wheelhouse, tmp_path):
    listed = listing(make_wheel(wheelhouse), python="3.99.1")
    error = refused(Bundle(listed), wheelhouse, tmp_path / "runtime", "needs cpython 3.99")
    assert "uv python install 3.99" in error.remedy


@pytest.mark.parametrize(
    ("name", "value"),
    [("locked._PIP", ("-I", "-m", "no_such_module")), ("interpreters.OLDEST_PIP", (10_000,))],
)
def test_without_uv_and_pip_that_are_new_enough_the_remedy_is_uv(
    wheelhouse, tmp_path, monkeypatch, name, value
):
    monkeypatch.setattr(interpreters, "find_uv", lambda: None)
    monkeypatch.setattr(f"bundler.environments.{name}", value)
    error = refused(
        Bundle(listing(make_wheel(wheelhouse))), wheelhouse, tmp_path / "r", "neither uv .* nor pip"
    )
    assert "aisdp-bundler[locked]" in error.remedy


def test_an_installer_that_does_not_start_is_an_error(wheelhouse, tmp_path, monkeypatch):
    monkeypatch.setattr(interpreters, "find_uv", lambda: str(tmp_path / "no-uv"))
    refused(Bundle(listing(make_wheel(wheelhouse))), wheelhouse, tmp_path / "r", "could not inst")


# --- from the hashes of a requirements file ---------------------------------------------------------------------------


def test_a_requirements_file_with_hashes_is_enough(installer, wheelhouse, tmp_path):
    wheels = [make_wheel(wheelhouse), make_wheel(wheelhouse, "other-one", "2.0")]
    make_wheel(wheelhouse, "extra")
    bundle = Bundle(lock=requirements(wheels))
    runtime = recreate(bundle, wheelhouse, tmp_path / "runtime")
    assert runtime.facts["packages"] == 2
    assert runtime.software == ()


# --- real ------------------------------------------------------------------------------------------------------------


def test_the_environment_works_inside_the_real_sandbox(installer, wheelhouse, tmp_path):
    wheel = make_wheel(wheelhouse, files={"tiny.pth": b"import os; open('/out/pth', 'w')\n"})
    runtime = recreate(Bundle(listing(wheel)), wheelhouse, tmp_path / "runtime")
    (tmp_path / "out").mkdir()
    job = sandbox.Job(
        command=(runtime.python, "-c", "import tiny, sys; print(tiny.version, sys.prefix)"),
        working_directory=PurePosixPath("/tmp"),
        mounts=(),
        output=tmp_path / "out",
        log=tmp_path / "log.txt",
        interpreter=runtime.interpreter,
    )
    outcome = sandbox.find().run(job)
    log = (tmp_path / "log.txt").read_text()
    assert (outcome.ended, outcome.exit_code) == ("exited", 0), log
    assert log.split() == ["1.0", str(Path(runtime.python).parent.parent)]
    # There, and only there, the .pth file ran.
    assert (tmp_path / "out" / "pth").exists()


def test_the_digest_of_the_list_is_a_fact_of_the_report(wheelhouse, tmp_path):
    wheel = make_wheel(wheelhouse)
    one = recreate(Bundle(listing(wheel)), wheelhouse, tmp_path / "one").facts
    bundle = Bundle(replace(listing(wheel), libc="glibc 2.36"))
    other = recreate(bundle, wheelhouse, tmp_path / "two").facts
    assert one["wheels_sha256"] != other["wheels_sha256"]
    assert one["packages_sha256"] == other["packages_sha256"]


def test_the_same_wheels_elsewhere_are_the_same_software_and_another_interpreter_is_not(
    wheelhouse, tmp_path, monkeypatch
):
    bundle = Bundle(listing(make_wheel(wheelhouse)))
    one = recreate(bundle, wheelhouse, tmp_path / "one").facts
    assert one == recreate(bundle, wheelhouse, tmp_path / "two").facts
    assert str(tmp_path) not in str(one)
    patched = Bundle(listing(make_wheel(wheelhouse / "other", files={"tiny/more.py": b""})))
    other = recreate(patched, wheelhouse / "other", tmp_path / "three").facts
    assert one["packages_sha256"] == other["packages_sha256"]
    assert one["software_sha256"] != other["software_sha256"]
    find = interpreters.find
    monkeypatch.setattr(interpreters, "find", lambda *a: replace(find(*a), build="another"))
    other = recreate(bundle, wheelhouse, tmp_path / "four").facts
    assert {name for name in one if one[name] != other[name]} == {"software_sha256"}
