from __future__ import annotations

import pytest

from bundler.lockfiles import normalise, parse_requirements

HASH = "--hash=sha256:" + "0" * 64


def test_pins_with_hashes():
    lock = parse_requirements(
        "# made by pip-compile\n"
        "--index-url https://example.org/simple\n\n"
        f"Torch==2.13.0+cpu \\\n    {HASH} \\\n    {HASH}\n"
        f"typing_extensions==4.12  {HASH}  # via torch\n"
    )
    assert lock.packages == {"torch": "2.13.0+cpu", "typing-extensions": "4.12"}
    assert lock.answer == "cannot be shown"
    assert lock.unpinned == ()
    assert lock.conditional == ()


def test_windows_line_ends():
    lock = parse_requirements(f"a==1 \\\r\n  {HASH}\r\nb==2 {HASH}\r\n")
    assert (lock.packages, lock.answer) == ({"a": "1", "b": "2"}, "cannot be shown")


@pytest.mark.parametrize(
    ("line", "name", "version"),
    [
        ("a==1.0", "a", "1.0"),
        ("a == 1.0", "a", "1.0"),
        ("a===1.0", "a", "1.0"),
        ("a[x,y]==1.0rc1", "a", "1.0rc1"),
        ("a [x] ==1!2.0.post1+cu121", "a", "1!2.0.post1+cu121"),
        ("A.B_c==1", "a-b-c", "1"),
    ],
)
def test_spellings_of_a_pin(line, name, version):
    assert parse_requirements(line).packages == {name: version}


@pytest.mark.parametrize(
    "line",
    [
        "a",
        "a>=1",
        "a==2.*",
        "a==2,!=2.1",
        "a~=1.0",
        "a @ https://example.org/a.whl",
        "-e .",
        "--editable=../x",
        "-r other.txt",
        "-c limits.txt",
        "./local.whl",
        "a==1.0$(touch /tmp/x)",
        "a==1`id`",
        "[[package]]",
    ],
)
def test_what_pins_nothing_is_listed(line):
    lock = parse_requirements(f"b==1 {HASH}\n{line}\n")
    assert lock.packages == {"b": "1"}
    assert lock.unpinned == (line,)
    assert lock.answer == "no"


def test_a_marker_makes_a_package_conditional():
    lock = parse_requirements(
        f"colorama==0.4.6 ; sys_platform == 'win32' \\\n {HASH}\nb==1; python_version>'3' \nc==2"
    )
    assert lock.packages == {"b": "1", "c": "2", "colorama": "0.4.6"}
    assert lock.conditional == ("b", "colorama")
    assert lock.answer == "no"


def test_one_without_a_hash_or_with_md5_alone():
    assert parse_requirements(f"a==1 {HASH}\nb==2\n").answer == "no"
    assert parse_requirements("a==1 --hash=md5:0\n").answer == "no"


def test_an_empty_list_lists_nothing():
    assert not parse_requirements("# nothing\n--index-url x\n").lists_any
    assert parse_requirements("a>=1").lists_any
    assert parse_requirements("a==1").lists_any


def test_long_lines_are_cut():
    assert len(parse_requirements("x" * 500).unpinned[0]) == 80


def test_every_version_of_a_fork_is_kept():
    lock = parse_requirements(
        f"a==2 ; python_version>='3.12' {HASH}\na==1;python_version<'3.12' {HASH}\n"
    )
    assert lock.versions == {"a": ("1", "2")}
    assert lock.packages == {"a": "1 or 2"}
    assert lock.conditional == ("a",)


def test_spellings_of_a_hash():
    assert parse_requirements(f"a==1 {HASH.replace('=', ' ')}").answer == "cannot be shown"
    assert parse_requirements("a==1 --hash=sha512:" + "0" * 128).answer == "cannot be shown"
    assert parse_requirements("a==1 --hash=sha256:" + "0" * 63).answer == "no"
    # Any of the files may be installed, so the worst counts.
    assert parse_requirements(f"a==1 {HASH} --hash=md5:" + "0" * 32).answer == "no"


def test_completeness_cannot_be_read_from_a_requirements_file():
    lock = parse_requirements(f"a==1 {HASH}\n")
    assert (lock.format, lock.answer) == ("requirements.txt", "cannot be shown")
    assert "does not say what its packages depend upon" in lock.reasons[0]


def test_what_is_open_is_named_and_counted():
    lock = parse_requirements("a>=1\nb\nc\nd\ne==1\nf==1 --hash=md5:" + "0" * 32)
    assert lock.answer == "no"
    assert lock.reasons[:3] == (
        "4 packages without an exact version: a>=1, b, c and 1 more.",
        "1 package without a hash: e.",
        "1 package with no hash but MD5 or SHA-1, which another file can be made to have: f.",
    )


def test_an_empty_list_shows_nothing():
    lock = parse_requirements("")
    assert (lock.answer, lock.reasons) == ("cannot be shown", ("The file names no package.",))


def test_reasons_do_not_steer_a_terminal():
    lock = parse_requirements("\x1b[31ma\n")
    assert lock.reasons[0].isprintable()


def test_names_are_normalised_as_pep_503_says():
    assert normalise("Foo.-_Bar") == "foo-bar"
    assert normalise("_libgcc_mutex") == "_libgcc-mutex"
