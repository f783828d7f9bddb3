"""`bundler capture-wheels`: the wheels of what is installed, listed with their hashes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from click.testing import CliRunner

from bundler import sandbox
from bundler.cli.wheels import capture_wheels
from bundler.environments import pins, prepare, wheelhouse
from bundler.environments.wheelhouse import Request, fill, wanted
from bundler.environments.wheels import parse, serialise
from bundler.errors import OutputError, SourceError, UsageError
from bundler.progress import Silence
from tests.unit.environments.support import PYTHON, Bundle, listing, make_wheel


class Training:
    """A training's environment without pip, and a folder of wheels that stands for the index."""

    def __init__(self, folder: Path) -> None:
        self.index = folder / "index"
        self.index.mkdir()
        self.folder = folder / "training"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.folder], check=True)
        self.python = self.folder / "bin" / "python"
        (self.site,) = self.folder.glob("lib/python*/site-packages")
        self.house = folder / "wheelhouse"

    def install(self, wheel):
        with zipfile.ZipFile(self.index / wheel.filename) as archive:
            archive.extractall(self.site)
        return wheel

    def origin(self, name, url):
        (info,) = self.site.glob(f"{name}-*.dist-info")
        (info / "direct_url.json").write_text(json.dumps({"url": url}) if url else "[")

    def request(self, **changes) -> Request:
        values = {
            "python": self.python,
            "wheelhouse": self.house,
            "output": self.house / "wheels.json",
            "find_links": (self.index,),
            "offline": True,
            **changes,
        }
        return Request(**values)

    def fill(self, **changes):
        return fill(self.request(**changes), Silence())


@pytest.fixture
def training(tmp_path, monkeypatch):
    # The settings of the machine that tests run on are not those of the training.
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return Training(tmp_path)


def test_the_wheels_of_what_is_installed_are_collected_and_listed(training):
    tiny = training.install(make_wheel(training.index))
    labelled = training.install(make_wheel(training.index, "labelled", "2.0+cpu"))
    make_wheel(training.index, version="9.0")
    training.install(make_wheel(training.index, "pip", "1.0"))
    filled = training.fill()
    assert filled.fetched == 2
    assert filled.listed.wheels == (labelled, tiny)
    assert filled.listed.python == sys.version.split()[0]
    assert parse((training.house / "wheels.json").read_bytes()) == filled.listed
    assert sorted(each.name for each in training.house.iterdir()) == sorted(
        [
            labelled.filename,
            tiny.filename,
            "wheels.json",
        ]
    )


def test_what_is_there_is_not_fetched_again_and_what_was_altered_is(training):
    tiny = training.install(make_wheel(training.index))
    other = training.install(make_wheel(training.index, "other"))
    first = training.fill()
    (training.house / tiny.filename).write_bytes(b"altered")
    again = training.fill()
    assert (first.fetched, again.fetched) == (2, 1)
    assert again.listed == first.listed
    (training.index / other.filename).unlink()
    assert training.fill().fetched == 0


def test_another_wheel_of_that_name_is_not_overwritten(training):
    """A wheelhouse is shared: what another bundle lists stays."""
    theirs = make_wheel(training.house, files={"tiny/theirs.py": b""})
    ours = training.install(make_wheel(training.index))
    assert training.fill().listed.wheels == (ours,)
    assert (training.house / ours.sha256 / ours.filename).is_file()
    assert make_wheel(training.house, files={"tiny/theirs.py": b""}) == theirs
    assert training.fill().fetched == 0


def test_every_package_without_a_wheel_is_named_with_what_to_do(training):
    for name in ("tiny", "one", "two"):
        training.install(make_wheel(training.index, name))
    for name in ("one", "two"):
        (training.index / f"{name}-1.0-py3-none-any.whl").unlink()
    with pytest.raises(SourceError, match="2 of 3 wheels could not be had") as caught:
        training.fill()
    assert "one==1.0: there is no wheel" in caught.value.message
    assert "two==1.0: there is no wheel" in caught.value.message
    assert "pip wheel --no-deps" in caught.value.remedy
    assert not (training.house / "wheels.json").exists()
    # What could be had stays for the next time, and nothing else does.
    assert [each.name for each in training.house.iterdir()] == ["tiny-1.0-py3-none-any.whl"]
    assert [each.name for each in training.fill(skip=("one", "Two")).listed.wheels] == ["tiny"]


def test_a_version_with_a_label_does_not_stand_for_one_without(training):
    training.install(make_wheel(training.index))
    (training.index / "tiny-1.0-py3-none-any.whl").unlink()
    make_wheel(training.index, version="1.0+cpu")
    with pytest.raises(SourceError, match=r"tiny==1\.0: there is no wheel"):
        training.fill()


def test_another_build_of_the_same_version_is_noticed(training):
    training.install(make_wheel(training.index, files={"tiny/kernel.so": b"CUDA"}))
    make_wheel(training.index, files={"tiny/kernel.so": b"CPU"})
    with pytest.raises(SourceError, match=r"another build .* 'tiny/kernel\.so' differs"):
        training.fill()


def test_a_wheel_that_holds_something_else_is_not_taken(training):
    training.install(make_wheel(training.index))
    make_wheel(training.index, files={"../outside.py": b""})
    with pytest.raises(SourceError, match="leads out"):
        training.fill()
    assert list(training.house.iterdir()) == []


def test_a_package_from_a_folder_is_never_fetched_from_an_index(training, monkeypatch):
    """On an index, its name may be somebody else's."""
    training.install(make_wheel(training.index))
    training.origin("tiny", "file:///home/me/project")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert training.fill(offline=False).fetched == 1
    (training.house / "wheels.json").unlink()
    with pytest.raises(SourceError, match="installed from 'file:///home/me/project'"):
        training.fill(offline=False, find_links=())


def test_a_record_of_an_origin_that_cannot_be_read_is_one(training):
    training.install(make_wheel(training.index))
    training.origin("tiny", None)
    with pytest.raises(SourceError, match="installed from 'unknown'"):
        training.fill(find_links=())


def test_a_wheel_that_was_installed_by_its_address_is_fetched_from_there(training):
    wheel = training.install(make_wheel(training.index))
    training.origin("tiny", (training.index / wheel.filename).as_uri())
    assert training.fill(find_links=()).listed.wheels == (wheel,)


def test_an_index_that_cannot_be_reached_is_named_as_the_reason(training, monkeypatch):
    training.install(make_wheel(training.index))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(SourceError, match="the index cannot be reached"):
        training.fill(offline=False, find_links=())


def test_any_other_reason_of_pip_is_quoted(training, monkeypatch):
    training.install(make_wheel(training.index))
    monkeypatch.setenv("PIP_CONSTRAINT", "/no/such/file")
    with pytest.raises(SourceError, match=r"tiny==1.0: .*/no/such/file"):
        training.fill()
    assert (
        wheelhouse._why("ERROR: first\nERROR: \x1b[31mlast\n", _pin()) == r"'ERROR: \x1b[31mlast'"
    )
    assert wheelhouse._why("", _pin()) == "'pip gave no reason'"


def _pin():
    return pins.Pin(name="tiny", version="1.0", installed={})


def test_the_pip_of_the_training_is_used_where_it_has_one(training):
    """Its settings, such as those of its indexes, are its own."""
    assert wheelhouse._pip(training.python)[-2:] == ["--python", str(training.python)]
    assert wheelhouse._pip(PYTHON) == [str(PYTHON), "-I", "-m", "pip"]


def test_without_any_pip_the_remedy_names_one(training, monkeypatch, tmp_path):
    training.install(make_wheel(training.index))
    monkeypatch.setattr(sys, "executable", str(training.python))
    with pytest.raises(UsageError, match=r"pip works neither for .* No module named pip") as caught:
        training.fill()
    assert "ensurepip" in caught.value.remedy


# --- which packages --------------------------------------------------------------------------------------------------


def test_the_lock_chooses_the_packages_and_the_environment_the_label(training, tmp_path):
    training.install(make_wheel(training.index, "torchy", "2.13.0+cpu"))
    training.install(make_wheel(training.index, "extra"))
    lock = tmp_path / "requirements.txt"
    lock.write_text("-e .\ntorchy==2.13.0\nwin==1 ; sys_platform == 'win32'\n")
    found = {pin.name: pin.version for pin in wanted(training.request(lock=lock))}
    assert found == {"torchy": "2.13.0+cpu"}
    assert training.fill(lock=lock).fetched == 1


def test_what_the_packages_of_a_lock_need_comes_with_them(training, tmp_path):
    """A requirements file may name only what a person chose."""
    needs = {
        "web": "Requires-Dist: core (>=1)\nRequires-Dist: fast; extra == 'standard'\n"
        "Requires-Dist: docs; extra == \"docs\"\nRequires-Dist: win; sys_platform == 'win32'\n",
        "core": "Requires-Dist: web[Standard]\nRequires-Dist: ~nonsense\n",
    }
    for name in ("web", "core", "fast", "docs", "other"):
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs.get(name, '')}"
        training.install(make_wheel(training.index, name, metadata=head.encode()))
    lock = tmp_path / "requirements.txt"

    def names(text):
        lock.write_text(text)
        return [pin.name for pin in wanted(training.request(lock=lock))]

    assert names("web==1.0\n") == ["core", "fast", "web"]
    assert names("web[docs]==1.0\n") == ["core", "docs", "fast", "web"]
    assert names("other==1.0\n") == ["other"]


def test_a_lock_that_the_environment_contradicts_is_an_error(training, tmp_path):
    training.install(make_wheel(training.index))
    lock = tmp_path / "requirements.txt"
    lock.write_text("tiny==2.0\n")
    with pytest.raises(UsageError, match=r"tiny \(2.0 is locked, 1.0 is installed\)"):
        training.fill(lock=lock)
    lock.write_text("none==1 ; python_version < '3'\nnone==2\n")
    with pytest.raises(UsageError, match=r"none \(1 or 2 is locked, it is not installed\)"):
        training.fill(lock=lock)
    lock.write_text("tiny==2 ; python_version > '3'\n")
    with pytest.raises(UsageError, match=r"tiny \(2 is locked, 1.0 is installed\)"):
        training.fill(lock=lock)
    lock.write_text("tiny>=1\n")
    with pytest.raises(UsageError, match=r"tiny>=1 \(no exact version\)"):
        training.fill(lock=lock)


def test_a_lock_that_cannot_be_read_is_an_error(training, tmp_path):
    with pytest.raises(UsageError, match="--lock"):
        training.fill(lock=tmp_path / "none.txt")
    (tmp_path / "uv.lock").write_text("=")
    with pytest.raises(UsageError, match="--lock"):
        training.fill(lock=tmp_path / "uv.lock")


def test_an_empty_environment_is_not_a_training(training):
    with pytest.raises(UsageError, match="has no packages"):
        training.fill()


def test_what_is_no_interpreter_is_an_error(training):
    with pytest.raises(UsageError, match="not a Python interpreter"):
        training.fill(python=training.folder / "none")


def test_what_cannot_be_written_is_an_error(training):
    training.install(make_wheel(training.index))
    training.house.write_text("a file where a folder should be")
    with pytest.raises(OutputError, match="cannot write"):
        training.fill()
    training.house.unlink()
    training.house.mkdir()
    (training.house / "wheels.json").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        training.fill()
    assert not list(training.house.glob(".wheels.json.*"))


# --- the verifier's side ----------------------------------------------------------------------------------------------


def test_a_verifier_fetches_the_wheels_that_a_bundle_lists_and_no_others(training, tmp_path):
    wheel = make_wheel(training.index)
    listed = tmp_path / "wheels.json"
    listed.write_bytes(serialise(listing(wheel)))
    filled = training.fill(python=PYTHON, listed=listed)
    assert (filled.fetched, filled.listed.wheels) == (1, (wheel,))
    assert not (training.house / "wheels.json").exists()
    assert training.fill(python=PYTHON, listed=listed).fetched == 0


def test_a_verifier_gets_no_wheel_with_another_hash(training, tmp_path):
    wheel = make_wheel(training.index)
    make_wheel(training.index, files={"tiny/more.py": b""})
    listed = tmp_path / "wheels.json"
    listed.write_bytes(serialise(listing(wheel)))
    with pytest.raises(SourceError, match="no index has a wheel with the listed SHA-256"):
        training.fill(python=PYTHON, listed=listed)


def test_the_digest_is_held_against_the_list_whatever_pip_did(training):
    wheel = make_wheel(training.index)
    pin = pins.Pin(name="tiny", version="1.0", installed={}, sha256="00" * 32)
    with pytest.raises(wheelhouse._NoWheelError, match="another SHA-256"):
        wheelhouse._take(training.index / wheel.filename, training.request(), pin)


def test_a_list_that_is_none_is_an_error(training, tmp_path):
    with pytest.raises(UsageError, match=r"none\.json"):
        training.fill(listed=tmp_path / "none.json")
    (tmp_path / "list.json").write_text("{}")
    with pytest.raises(UsageError, match=r"list\.json"):
        training.fill(listed=tmp_path / "list.json")


# --- the command ------------------------------------------------------------------------------------------------------


def command(*arguments):
    return CliRunner().invoke(capture_wheels, [str(each) for each in arguments])


def test_the_command_says_what_it_did_and_what_comes_next(training):
    training.install(make_wheel(training.index))
    options = ("-o", training.house, "--find-links", training.index, "--offline")
    result = command(*options, "--python", training.python)
    assert result.exit_code == 0, result.output
    assert ": 1 (0 MB), 1 of them were fetched now" in result.output
    assert f"wheels: {training.house / 'wheels.json'}" in result.output
    result = command(*options, "--python", PYTHON, "--listed", training.house / "wheels.json")
    assert "0 of them were fetched now" in result.output
    assert "--environment locked --wheelhouse" in result.output


def test_options_that_exclude_each_other_are_refused(training):
    result = command("-o", training.house, "--listed", "x", "--skip", "y")
    assert isinstance(result.exception, UsageError)


def test_a_bundle_is_not_written_into(training, tmp_path):
    bundle = tmp_path / "bundle" / "data"
    bundle.mkdir(parents=True)
    (bundle / "bundle.json").write_text("{}")
    result = command("-o", bundle / "wheels")
    assert isinstance(result.exception, UsageError)
    assert "would change the bundle" in result.exception.message


def test_help_has_examples_and_exit_codes():
    output = command("--help").output
    assert "bundler capture-wheels -o wheelhouse --python" in output
    assert re.search(r"7\s+a wheel could not be had", output)


# --- real ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_real_package_from_the_index_is_captured_recreated_and_imported_in_the_sandbox(tmp_path):
    venv = tmp_path / "training"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = venv / "bin" / "python"
    got = subprocess.run([python, "-m", "pip", "install", "-q", "six==1.17.0"], capture_output=True)
    if got.returncode != 0:
        pytest.skip("no index is within reach")
    house = tmp_path / "wheelhouse"
    output = house / "wheels.json"
    # Python 3.11 puts setuptools into an environment; no index need have its old version.
    fill(Request(python=python, wheelhouse=house, output=output, skip=("setuptools",)), Silence())
    bundle = Bundle(parse(output.read_bytes()), lock="six==1.17.0\n")
    runtime = prepare(
        "locked",
        python=PYTHON,
        files=bundle,
        spec=bundle.spec,
        wheelhouse=house,
        place=tmp_path / "runtime",
    )
    assert runtime.software == ()
    (tmp_path / "out").mkdir()
    job = sandbox.Job(
        command=(runtime.python, "-c", "import six; print(six.__version__)"),
        working_directory=PurePosixPath("/tmp"),
        mounts=(),
        output=tmp_path / "out",
        log=tmp_path / "log.txt",
        interpreter=runtime.interpreter,
    )
    outcome = sandbox.find().run(job)
    log = (tmp_path / "log.txt").read_text()
    assert (outcome.exit_code, log.strip()) == (0, "1.17.0"), log
