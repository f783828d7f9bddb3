"""Lock files that somebody made to mislead, to exhaust or by accident: one error, with its place, and soon."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler.errors import MalformedError
from bundler.lockfiles import parse
from bundler.lockfiles import reading as lock_reading

FIXTURES = Path(__file__).parent.parent / "fixtures" / "lockfiles"
NAMES = (
    "uv.lock",
    "poetry.lock",
    "pylock.toml",
    "Pipfile.lock",
    "conda-lock.yml",
    "pixi.lock",
    "environment.yml",
    "conda-explicit.txt",
    "requirements.txt",
)
SAMPLES = {
    "uv.lock": "uv.lock",
    "poetry.lock": "poetry.lock",
    "pylock.toml": "pylock.pdm.toml",
    "Pipfile.lock": "Pipfile.lock",
    "conda-lock.yml": "synthetic.conda-lock.yml",
    "pixi.lock": "synthetic/pixi.lock",
    "environment.yml": "synthetic/environment.yml",
    "conda-explicit.txt": "synthetic-explicit.lock",
    "requirements.txt": "pip-compile.txt",
}

UV = "version = 1\n[[package]]\n"
POETRY = '[metadata]\ncontent-hash = "x"\n[[package]]\n'
PYLOCK = 'lock-version = "1.0"\n[[packages]]\n'
CONDA = "version: 1\npackage:\n- "
PIXI = "version: 6\nenvironments:\n  default:\n    packages:\n      linux-64:\n"
URL = "https://conda.anaconda.org/conda-forge/linux-64/a-1-0.conda"


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("uv.lock", "version = ", "at end of document"),
        ("uv.lock", "version = 2\n", "version 1"),
        ("uv.lock", "version = 1\nversion = 1\n", "line 2"),
        ("uv.lock", "version = 1\npackage = 7\n", "package is no list"),
        ("uv.lock", "version = 1\npackage = [7]\n", "package[0] is no table"),
        ("uv.lock", UV + "name = 7\n", "package[0].name: 7 is no name"),
        ("uv.lock", UV + 'name = "../x"\n', "package[0].name"),
        ("uv.lock", UV + 'name = "a"\nsource = 1\n', "source is no table"),
        ("uv.lock", UV + 'name = "a"\nwheels = 1\n', "wheels is no list"),
        ("uv.lock", UV + 'name = "a"\nsdist = 1\n', "sdist is no table"),
        ("uv.lock", UV + 'name = "a"\ndependencies = ["b"]\n', "dependencies[0] is no table"),
        ("uv.lock", UV + 'name = "a"\ndependencies = [{}]\n', "dependencies.name"),
        ("uv.lock", "version = 1\na = " + "9" * 5000, "uv.lock: "),
        ("uv.lock", "version = 1\na = " + "[" * 100_000, "nested too deeply"),
        ("uv.lock", "a" + ".a" * 11_000 + " = 1\n", "line 1: a key of too many parts"),
        ("uv.lock", "\n[a" + ".a" * 65 + "]\n", "line 2: a key of too many parts"),
        ("poetry.lock", "[metadata]\n", "content-hash"),
        ("poetry.lock", POETRY + 'name = "a"\nfiles = 1\n', "package[0].files is no list"),
        ("poetry.lock", POETRY + 'name = "a"\ndependencies = 1\n', "dependencies is no table"),
        ("pylock.toml", 'lock-version = "2.0"\n', "lock-version"),
        ("pylock.toml", PYLOCK + 'name = "a"\nwheels = [{ hashes = 1 }]\n', "hashes is no table"),
        ("Pipfile.lock", "{", "Pipfile.lock: "),
        ("Pipfile.lock", '{"_meta": {}, "_meta": {}}', "stands twice"),
        ("Pipfile.lock", "{}", "_meta"),
        ("Pipfile.lock", "[]", "no table"),
        ("Pipfile.lock", '{"_meta": {}, "default": {"a": 1}}', "a is no table"),
        ("conda-lock.yml", "a: b: c", "line 1"),
        ("conda-lock.yml", "version: 2\n", "version 1"),
        ("conda-lock.yml", "version: 1\na: &x 1\nb: *x\n", "line 2: anchors"),
        ("conda-lock.yml", "version: 1\na: !!python/name:os.system\n", "line 2: tags"),
        ("conda-lock.yml", "version: 1\nversion: 1\n", "line 2: key 'version' stands twice"),
        ("conda-lock.yml", "version: 1\n<<: {a: 1}\n", "line 2"),
        ("conda-lock.yml", "version: 1\n? [a]\n: 1\n", "line 2: a key is not a plain word"),
        ("conda-lock.yml", "a: 1\n---\na: 1\n", "line 2: a second document"),
        ("conda-lock.yml", "[" * 40, "nested too deeply"),
        ("conda-lock.yml", "7", "the file is no table"),
        ("conda-lock.yml", CONDA + "name: a/b\n", "package[0].name"),
        ("conda-lock.yml", CONDA + "name: a\n  hash: x\n", "hash is no table"),
        ("pixi.lock", "version: 3\n", "version 4, 5, 6, 7"),
        ("pixi.lock", f"{PIXI}      - conda: {URL}\n", "not described"),
        ("pixi.lock", "version: 6\npackages:\n- x: 1\n", "packages[0]: neither"),
        ("pixi.lock", "version: 6\npackages:\n- conda: no\n", "packages[0].name"),
        (
            "pixi.lock",
            f"version: 6\npackages:\n- conda: {URL}\n- conda: {URL}\n  md5: {'a' * 32}\n",
            "packages[1]: the same address is described in two ways",
        ),
        ("environment.yml", "dependencies: x\n", "dependencies is no list"),
        ("environment.yml", "dependencies:\n- [x]\n", "dependencies is no table"),
        ("conda-explicit.txt", "@EXPLICIT\nhttps://x/y\n", "line 2"),
    ],
)
def test_what_is_no_such_lock(name, text, place):
    data = text.encode()
    with pytest.raises(MalformedError) as caught:
        parse(name if name != "conda-explicit.txt" else "x", data)
    assert caught.value.code == "lock-unreadable"
    assert place in caught.value.message
    assert caught.value.remedy
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("name", NAMES[:-2])
def test_bytes_that_are_no_text(name):
    with pytest.raises(MalformedError, match="not UTF-8 at byte 0"):
        parse(name, b"\xff\xfe")


def test_a_requirements_file_in_another_encoding_pins_nothing():
    assert parse("requirements.txt", "a==1".encode("utf-16")).versions == {}


@pytest.mark.parametrize("name", NAMES)
def test_files_beyond_the_bound(name):
    with pytest.raises(MalformedError, match=r"33,554,433|33,554,432"):
        parse(name, b" " * ((32 << 20) + 1))


def many(pattern, count=100_001):
    return "".join(pattern.format(number) for number in range(count))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("requirements.txt", many("a{0}==1\n")),
        ("requirements.txt", many("a{0}\n")),
        ("x", "@EXPLICIT\n" + many("https://x/a{0}-1-0.conda\n")),
        ("environment.yml", "dependencies:\n" + many("- a{0}\n")),
        ("Pipfile.lock", '{"_meta": {}, "default": {' + many('"a{0}": {{}},')[:-1] + "}}"),
        ("conda-lock.yml", "version: 1\npackage:\n" + many("- {{}}\n")),
    ],
)
def test_more_packages_than_any_lock_has(name, text):
    with pytest.raises(MalformedError, match="more than 100,000"):
        parse(name, text.encode())


def test_relations_that_multiply(monkeypatch):
    """Ten thousand versions of one package, needed by each of them: a hundred million steps from 600 kB."""
    monkeypatch.setattr(lock_reading, "MAX_STEPS", 100_000)
    package = '[[package]]\nname = "a"\nversion = "{0}"\ndependencies = [{{ name = "a" }}]\n'
    text = "version = 1\n" + many(package, 1_000)
    with pytest.raises(MalformedError, match="relations between packages"):
        parse("uv.lock", text.encode())


def test_references_that_multiply(monkeypatch):
    monkeypatch.setattr(lock_reading, "MAX_STEPS", 100_000)
    needs = many("  - b{0}\n", 1_000)
    places = many("      p{0}:\n      - conda: " + URL + "\n", 1_000)
    text = (
        f"version: 6\nenvironments:\n  default:\n    packages:\n{places}"
        f"packages:\n- conda: {URL}\n  depends:\n{needs}"
    )
    with pytest.raises(MalformedError, match="relations between packages"):
        parse("pixi.lock", text.encode())


@pytest.mark.parametrize(
    "text", ["a" + " " * 1_000_000 + "x", "a[" * 500_000, "a==1;" * 500_000, " #" * 1_000_000]
)
def test_lines_that_a_pattern_could_get_lost_in(text):
    assert parse("requirements.txt", text.encode()).answer != "yes"


@pytest.mark.parametrize("name", NAMES)
@given(data=st.binary(max_size=300))
@settings(max_examples=40, deadline=None)
def test_any_bytes_give_a_lock_or_one_kind_of_error(name, data):
    _reads(name, data)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_lock_gives_a_lock_or_one_kind_of_error(name, data):
    """Pieces cut out, doubled, or replaced by what means something in one of the formats."""
    original = (FIXTURES / SAMPLES[name]).read_text()
    start = data.draw(st.integers(0, len(original)))
    end = data.draw(st.integers(start, min(len(original), start + 80)))
    piece = data.draw(
        st.sampled_from(
            ["", "\n", "[", "{", '"', "= 1", ": ", "- ", "#", "\x00", "é", "[[package]]\n", "1e999"]
        )
        | st.just(original[start:end] * 2)
        | st.text(max_size=8)
    )
    _reads(name, (original[:start] + piece + original[end:]).encode("utf-8", "replace"))


def _reads(name, data):
    try:
        lock = parse(name, data)
    except MalformedError as error:
        refused = error
    else:
        refused = None
        assert lock.answer in {"yes", "no", "cannot be shown"}
        assert lock.answer == "yes" or lock.reasons
        assert all(each.isprintable() for each in lock.reasons)
        assert not (lock.answer == "yes" and lock.unpinned)
    assert refused is None or refused.code == "lock-unreadable"
    assert refused is None or len(refused.message) < 1_000
