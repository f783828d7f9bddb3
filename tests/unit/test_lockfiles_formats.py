"""Every format: against what the tools themselves say, then trap by trap."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundler.lockfiles import parse
from bundler.lockfiles.formats import format_of

FIXTURES = Path(__file__).parent.parent / "fixtures" / "lockfiles"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text())
SHA256 = "sha256:" + "a" * 64
HEX = "a" * 64
MD5 = "b" * 32

FILES = {
    "uv.lock": ("uv.lock", "yes", 11),
    "poetry.lock": ("poetry.lock", "yes", 11),
    "pylock.pip.toml": ("pylock.toml", "cannot be shown", 8),
    "pylock.uv.toml": ("pylock.toml", "cannot be shown", 10),
    "pylock.pdm.toml": ("pylock.toml", "yes", 11),
    "Pipfile.lock": ("Pipfile.lock", "no", 8),
    "pip-compile.txt": ("requirements.txt", "cannot be shown", 8),
    "uv-export.txt": ("requirements.txt", "cannot be shown", 10),
    "uv-universal.txt": ("requirements.txt", "cannot be shown", 9),
    "uv-export-no-hashes.txt": ("requirements.txt", "no", 10),
    "synthetic.conda-lock.yml": ("conda-lock.yml", "yes", 5),
    "synthetic/pixi.lock": ("pixi.lock", "yes", 4),
    "synthetic-explicit.lock": ("conda-explicit.txt", "no", 4),
    "synthetic/environment.yml": ("environment.yml", "no", 4),
}


def fixture(name):
    return parse(name, (FIXTURES / name).read_bytes())


@pytest.mark.parametrize(("name", "expected"), FILES.items())
def test_what_the_tools_write(name, expected):
    lock = fixture(name)
    assert (lock.format, lock.answer, len(lock.versions)) == expected
    assert lock == fixture(name)
    assert lock.lists_any


@pytest.mark.parametrize(
    ("tool", "name"),
    [
        ("uv", "uv.lock"),
        ("poetry", "poetry.lock"),
        ("conda-lock", "synthetic.conda-lock.yml"),
        ("pixi", "synthetic/pixi.lock"),
    ],
)
def test_every_version_that_the_tool_itself_sees(tool, name):
    lock = fixture(name)
    found = [[key, version] for key, versions in lock.versions.items() for version in versions]
    assert sorted(found) == EXPECTED[tool]


@pytest.mark.parametrize("name", ["uv.lock", "poetry.lock"])
def test_what_a_marker_an_extra_or_a_group_brings_is_conditional(name):
    lock = fixture(name)
    assert lock.conditional == ("click", "colorama", "iniconfig", "socksio", "typing-extensions")
    assert lock.versions["click"] == ("8.1.8", "8.3.1")
    assert lock.answer == "yes"
    assert lock.unpinned == ()
    (reason,) = lock.reasons
    assert "only where a condition holds (platform, Python, extra or group): click" in reason


def test_uv_and_its_exports_agree():
    lock, requirements = fixture("uv.lock"), fixture("uv-export.txt")
    assert fixture("pylock.uv.toml").versions == requirements.versions
    assert requirements.versions.items() <= lock.versions.items()
    assert set(lock.versions) - set(requirements.versions) == {"socksio"}


def test_an_export_without_hashes_says_so():
    assert (
        "It says that it was made with --no-hashes." in fixture("uv-export-no-hashes.txt").reasons
    )


def test_pipenv_pins_nothing_where_a_marker_does_not_hold():
    lock = fixture("Pipfile.lock")
    assert lock.unpinned == ("colorama",)
    assert lock.answer == "no"
    assert lock.conditional == ()


def test_conda_explicit_has_md5_alone_and_pip_as_comments():
    lock = fixture("synthetic-explicit.lock")
    assert lock.conda == ("click", "libzlib", "python")
    assert lock.versions["h11"] == ("0.16.0",)
    assert "3 packages with no hash but MD5" in lock.reasons[0]


def test_platforms_of_conda_are_kept_apart():
    for name in ("synthetic.conda-lock.yml", "synthetic/pixi.lock"):
        lock = fixture(name)
        assert lock.versions["libzlib"] == ("1.3", "1.3.1")
        assert "colorama" in lock.conditional
        assert "libzlib" not in lock.conditional
        assert "python" in lock.conda


def test_environment_yml_is_never_sufficient():
    lock = fixture("synthetic/environment.yml")
    assert lock.versions["click"] == ("8.1.8",)
    assert any("what a solver starts from" in each for each in lock.reasons)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("deep/uv.lock", "", "uv.lock"),
        ("Pylock.Train.toml", "", "pylock.toml"),
        ("linux-64.conda-lock.yml", "", "conda-lock.yml"),
        ("environment.yaml", "", "environment.yml"),
        ("requirements.lock", "a==1\n", "requirements.txt"),
        ("x", "# c\n# platform: linux-64\n@EXPLICIT\nhttps://…\n", "conda-explicit.txt"),
        ("x", "", "requirements.txt"),
    ],
)
def test_the_format_by_name_or_content(name, text, expected):
    assert format_of(name, text.encode()) == expected


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_format_by_content_alone(name):
    data = (FIXTURES / name).read_bytes()
    assert parse("lock", data) == fixture(name)
    # The name under which a bundle keeps it leads to the same reading.
    assert parse(fixture(name).format, data) == fixture(name)


def uv(packages, head="version = 1\n"):
    return parse("uv.lock", (head + packages).encode())


OWN = '[[package]]\nname = "own"\nversion = "1"\nsource = { virtual = "." }\n'


def wheel(name, version="1", more="", digest=SHA256):
    return (
        f'[[package]]\nname = "{name}"\nversion = "{version}"\n'
        f'source = {{ registry = "https://pypi.org/simple" }}\n{more}'
        f'wheels = [{{ url = "https://example.org/x.whl", hash = "{digest}" }}]\n'
    )


def test_uv_a_dependency_that_is_not_there():
    lock = uv(
        OWN
        + 'dependencies = [{ name = "a" }]\n'
        + wheel("a", more='dependencies = [{ name = "b" }]\n')
    )
    assert lock.answer == "no"
    assert lock.reasons == ("1 dependency needed but not in the lock: b (needed by a).",)


def test_uv_a_version_that_is_not_there():
    lock = uv(OWN + 'dependencies = [{ name = "a", version = "2" }]\n' + wheel("a"))
    assert lock.reasons[0] == "1 dependency needed but not in the lock: a 2 (needed by own)."


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ('git = "https://example.org/x.git?rev=main#0123"', "version control"),
        ('editable = "../x"', "local folder"),
        ('directory = "x"', "local folder"),
        ('path = "x.whl"', "local folder"),
        ('registry = "https://example.org"', "without a hash"),
        ('url = "https://example.org/x.whl"', "without a hash"),
    ],
)
def test_uv_sources_that_pin_no_bytes(source, word):
    lock = uv(f'[[package]]\nname = "x"\nversion = "1"\nsource = {{ {source} }}\n')
    assert lock.answer == "no"
    assert word in lock.reasons[0]


def test_uv_a_local_wheel_with_its_hash_is_pinned():
    lock = uv(
        '[[package]]\nname = "x"\nversion = "1"\nsource = { path = "x.whl" }\n'
        f'wheels = [{{ filename = "x.whl", hash = "{SHA256}" }}]\n'
    )
    assert lock.answer == "yes"


def test_uv_a_workspace_is_no_dependency_of_itself():
    lock = uv(
        OWN + 'dependencies = [{ name = "part" }]\n'
        '[[package]]\nname = "part"\nsource = { editable = "parts/part" }\n'
        'dependencies = [{ name = "a" }]\n' + wheel("a"),
        head='version = 1\n[manifest]\nmembers = ["own", "part"]\n',
    )
    assert (lock.answer, lock.packages, lock.conditional) == ("yes", {"a": "1"}, ())


def test_uv_the_lock_of_a_script_has_no_project():
    lock = uv(
        wheel("a") + wheel("b"),
        head='version = 1\n[manifest]\nrequirements = [{ name = "a" }]\n',
    )
    assert lock.conditional == ("b",)


def test_uv_a_package_without_a_version_is_not_pinned():
    lock = uv(OWN + '[[package]]\nname = "x"\nsource = { directory = "x" }\n')
    assert lock.unpinned == ("x",)


def test_uv_extras_bring_what_they_name():
    extras = '[package.optional-dependencies]\nmore = [{ name = "b" }]\nless = [{ name = "c" }]\n'
    lock = uv(
        OWN
        + 'dependencies = [{ name = "a", extra = ["more"] }]\n'
        + wheel("a")
        + extras
        + wheel("b")
        + wheel("c")
    )
    assert lock.conditional == ("c",)


@pytest.mark.parametrize("digest", ["md5:" + MD5, "sha1:" + "c" * 40])
def test_uv_a_weak_hash(digest):
    lock = uv(OWN + wheel("a", digest=digest))
    assert "no hash but MD5 or SHA-1" in lock.reasons[0]


def poetry(packages, tail=""):
    text = f'{packages}\n[metadata]\nlock-version = "2.1"\ncontent-hash = "x"\n{tail}'
    return parse("poetry.lock", text.encode())


def entry(name, more=""):
    files = f'files = [{{ file = "x.whl", hash = "{SHA256}" }}]\n'
    return f'[[package]]\nname = "{name}"\nversion = "1"\noptional = false\n{files}{more}'


def test_poetry_a_dependency_that_is_not_there():
    lock = poetry(entry("a", '[package.dependencies]\nB_x = ">=1"\n'))
    assert lock.answer == "no"
    assert lock.reasons == ("1 dependency needed but not in the lock: b-x (needed by a).",)


def test_poetry_a_dependency_of_an_extra_that_nobody_asked_for():
    wanted = """{ version = "*", optional = true, markers = "extra == 'x'" }"""
    more = f"[package.dependencies]\nb = {wanted}\n"
    assert poetry(entry("a", more)).answer == "yes"


@pytest.mark.parametrize(
    "wanted",
    [
        """{ version = "*", markers = "python_version < '3.8'" }""",
        '[{ version = "1", python = "<3.8" }, { version = "2", markers = "x" }]',
    ],
)
def test_poetry_a_marker_that_may_never_hold(wanted):
    lock = poetry(entry("a", f"[package.dependencies]\nb = {wanted}\n"))
    assert lock.answer == "cannot be shown"
    assert lock.reasons[0].endswith(
        "needed under a condition and not in the lock: b (needed by a)."
    )


@pytest.mark.parametrize("kind", ["git", "directory", "file"])
def test_poetry_sources_that_pin_no_bytes(kind):
    lock = poetry(
        f'[[package]]\nname = "a"\nversion = "1"\nfiles = []\n[package.source]\ntype = "{kind}"\n'
    )
    assert lock.answer == "no"


def test_poetry_1_has_its_files_at_the_end_and_categories():
    lock = poetry(
        '[[package]]\nname = "A.b"\nversion = "1"\ncategory = "dev"\noptional = false\n',
        f'[metadata.files]\n"A.b" = [{{ file = "x.whl", hash = "{SHA256}" }}]\n',
    )
    assert (lock.answer, lock.conditional) == ("yes", ("a-b",))


def pylock(packages):
    return parse("pylock.toml", ('lock-version = "1.0"\ncreated-by = "x"\n' + packages).encode())


def test_pylock_with_its_dependencies_can_show_completeness():
    file = f'wheels = [{{ url = "https://x", hashes = {{ sha256 = "{HEX}", md5 = "{MD5}" }} }}]\n'
    first = f'[[packages]]\nname = "a"\nversion = "1"\n{file}dependencies = [{{ name = "b" }}]\n'
    second = f'[[packages]]\nname = "b"\nversion = "1"\n{file}'
    assert pylock(first + second).answer == "yes"
    lock = pylock(first)
    assert lock.reasons == ("1 dependency needed but not in the lock: b (needed by a).",)


def test_pdm_puts_every_package_into_a_group_and_says_what_it_needs():
    lock = fixture("pylock.pdm.toml")
    assert lock.conditional == ("colorama", "iniconfig", "socksio", "typing-extensions")
    text = (FIXTURES / "pylock.pdm.toml").read_text().replace('"certifi",', '"certify",')
    lock = parse("pylock.toml", text.encode())
    assert lock.reasons[0] == "1 dependency needed but not in the lock: certify (needed by httpx)."


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ('vcs = { type = "git", url = "https://x", commit-id = "1" }', "version control"),
        ('directory = { path = "x" }', "local folder"),
        ('archive = { path = "x.zip", hashes = { md5 = "' + MD5 + '" } }', "local folder"),
        ('archive = { url = "https://x", hashes = {} }', "without a hash"),
    ],
)
def test_pylock_sources_that_pin_no_bytes(source, word):
    lock = pylock(f'[[packages]]\nname = "a"\nversion = "1"\n{source}\n')
    assert lock.answer == "no"
    assert word in lock.reasons[0]


def test_pylock_the_project_itself_is_no_dependency():
    lock = pylock('[[packages]]\nname = "own"\ndirectory = { path = ".", editable = true }\n')
    assert not lock.lists_any


def pipfile(packages):
    return parse("Pipfile.lock", json.dumps({"_meta": {}, "default": packages}).encode())


@pytest.mark.parametrize(
    ("package", "word"),
    [
        ({"git": "https://x", "ref": "1"}, "version control"),
        ({"path": ".", "editable": True}, "local folder"),
        ({"version": "==1"}, "without a hash"),
    ],
)
def test_pipfile_sources_that_pin_no_bytes(package, word):
    assert word in " ".join(pipfile({"a": package}).reasons)


@pytest.mark.parametrize(
    ("more", "conditional"),
    [
        ({"markers": "python_version >= '3.8'"}, False),
        ({"markers": "sys_platform == 'win32'"}, True),
        ({"markers": "python_version < '3.8'"}, True),
        ({"sys_platform": "== 'win32'"}, True),
        ({}, False),
    ],
)
def test_pipfile_markers_that_only_repeat_what_a_package_asks_of_python(more, conditional):
    lock = pipfile({"a": {"version": "==1", "hashes": [SHA256], **more}})
    assert bool(lock.conditional) is conditional


def test_pipfile_develop_is_conditional():
    data = json.dumps({"_meta": {}, "develop": {"a": {"version": "==1", "hashes": [SHA256]}}})
    assert parse("Pipfile.lock", data.encode()).conditional == ("a",)


def explicit(*lines):
    return parse("spec.txt", "\n".join(["@EXPLICIT", *lines]).encode())


CHANNEL = "https://conda.anaconda.org/conda-forge/linux-64"


@pytest.mark.parametrize("fragment", [HEX, f"sha256:{HEX}"])
def test_explicit_with_sha256(fragment):
    lock = explicit(f"{CHANNEL}/a-b-1.0-h1_0.tar.bz2#{fragment}")
    assert (lock.packages, lock.answer) == ({"a-b": "1.0"}, "cannot be shown")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (f"{CHANNEL}/a-1-0.conda", "without a hash"),
        (f"{CHANNEL}/a-1-0.conda#12", "without a hash"),
        (f"{CHANNEL}/a-1-0.conda#{MD5}", "MD5"),
        (f"file:///x/a-1-0.conda#{MD5}", "local"),
    ],
)
def test_explicit_lines_that_pin_too_little(line, word):
    lock = explicit(line)
    assert lock.answer == "no"
    assert word in lock.reasons[0]


def test_explicit_odd_addresses():
    assert explicit("https://[/a-1-0.conda?x=/y#" + HEX).packages == {"a": "1"}
    assert explicit(f"# pip a @ https://[/a-2-py3.whl#sha256={HEX}").packages == {"a": "2"}


def test_explicit_a_wheel_of_pip_without_a_version():
    assert explicit(f"# pip a @ https://example.org/a#sha256={HEX}").unpinned == ("a",)


def conda_lock(*packages):
    head = "version: 1\nmetadata:\n  platforms:\n  - linux-64\npackage:\n"
    return parse("conda-lock.yml", (head + "".join(packages)).encode())


def locked(name, needs="{}", manager="conda", more="", digest=f"sha256: {HEX}"):
    return (
        f"- name: {name}\n  version: 1.10\n  manager: {manager}\n  platform: linux-64\n"
        f"  dependencies: {needs}\n  url: {CHANNEL}/{name}-1.10-0.conda\n"
        f"  hash:\n    {digest}\n{more}"
    )


def test_conda_lock_a_version_is_text_even_where_it_looks_like_a_number():
    assert conda_lock(locked("a")).packages == {"a": "1.10"}


def test_conda_lock_a_dependency_that_is_not_there():
    lock = conda_lock(locked("a", needs='{b: "", __glibc: ">=2"}'))
    assert lock.reasons == (
        "1 dependency needed but not in the lock: b (needed by a on linux-64).",
    )


def test_conda_lock_pip_may_know_a_package_by_another_name():
    lock = conda_lock(locked("a", needs='{torch: ""}', manager="pip"), locked("pytorch"))
    assert lock.answer == "cannot be shown"
    assert "torch (needed by a on linux-64)" in lock.reasons[0]


def test_conda_lock_optional_packages_are_conditional():
    lock = conda_lock(locked("a", more="  optional: true\n"), locked("b", more="  category: dev\n"))
    assert lock.conditional == ("a", "b")


def test_conda_lock_md5_alone():
    assert "MD5" in conda_lock(locked("a", digest=f"md5: {MD5}")).reasons[0]


def pixi(packages, references, version="6"):
    head = f"version: {version}\nenvironments:\n  default:\n    packages:\n      linux-64:\n"
    return parse("pixi.lock", f"{head}{references}packages:\n{packages}".encode())


PIXI = f"- conda: {CHANNEL}/a-1-0.conda\n  sha256: {HEX}\n"


def test_pixi_a_dependency_that_is_not_there():
    lock = pixi(
        PIXI + "  depends:\n  - conda-forge::b >=1\n  - __unix\n",
        f"      - conda: {CHANNEL}/a-1-0.conda\n",
    )
    assert lock.reasons == (
        "1 dependency needed but not in the lock: b (needed by a in environment default on linux-64).",
    )


def test_pixi_what_nobody_refers_to_is_not_locked():
    assert not pixi(PIXI, "        []\n").lists_any


def test_pixi_the_project_itself_is_no_dependency():
    lock = pixi(
        PIXI + "- pypi: ./\n  name: own\n  editable: true\n",
        f"      - conda: {CHANNEL}/a-1-0.conda\n      - pypi: ./\n",
    )
    assert (lock.answer, lock.packages) == ("yes", {"a": "1"})


def test_pixi_a_wheel_without_a_hash_and_one_that_needs_more():
    url = "https://example.org/h-1-py3-none-any.whl"
    package = f"- pypi: {url}\n  name: h\n  version: '1'\n"
    assert "without a hash" in pixi(package, f"      - pypi: {url}\n").reasons[0]
    needs = "  requires_dist:\n  - torch>=1\n  - socks ; extra == 'x'\n"
    lock = pixi(f"{package}  sha256: {HEX}\n{needs}", f"      - pypi: {url}\n")
    assert lock.answer == "cannot be shown"
    assert "torch (needed by h in" in lock.reasons[0]


@pytest.mark.parametrize(
    ("location", "word"),
    [("git+https://x/y.git", "version control"), ("./part", "local folder")],
)
def test_pixi_sources_that_pin_no_bytes(location, word):
    lock = pixi(
        f"- pypi: {location}\n  name: part\n  version: '1'\n", f"      - pypi: {location}\n"
    )
    assert word in lock.reasons[0]


def test_pixi_builds_from_source_pin_no_bytes():
    source = "- conda_source: part[1234abcd] @ parts/part\n"
    lock = pixi(source, f"      {source}", version="7")
    assert lock.unpinned == ("part",)
    assert "local folder" in lock.reasons[1]


def test_pixi_5_has_the_kind_apart():
    lock = pixi(
        f"- kind: conda\n  name: a\n  version: '1'\n  url: {CHANNEL}/a-1-0.conda\n  sha256: {HEX}\n",
        f"      - conda: {CHANNEL}/a-1-0.conda\n",
        version="5",
    )
    assert (lock.answer, lock.packages) == ("yes", {"a": "1"})


@pytest.mark.parametrize(
    ("spec", "version"),
    [
        ("a==1.2", "1.2"),
        ("a=1.2=h1_0", "1.2"),
        ("conda-forge::a==1.2", "1.2"),
        ("a=1.2", None),
        ("a=1.2=*", None),
        ("a>=1.2", None),
        ("a", None),
        ("a==1.*", None),
    ],
)
def test_environment_what_is_exact(spec, version):
    lock = parse("environment.yml", f'dependencies:\n- "{spec}"\n'.encode())
    assert lock.versions.get("a") == ((version,) if version else None)
    assert lock.answer == "no"
