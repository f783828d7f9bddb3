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
    assert lock.hashed
    assert lock.unpinned == ()
    assert lock.conditional == ()


def test_windows_line_ends():
    lock = parse_requirements(f"a==1 \\\r\n  {HASH}\r\nb==2 {HASH}\r\n")
    assert (lock.packages, lock.hashed) == ({"a": "1", "b": "2"}, True)


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
    assert not lock.hashed


def test_a_marker_makes_a_package_conditional():
    lock = parse_requirements(
        f"colorama==0.4.6 ; sys_platform == 'win32' \\\n {HASH}\nb==1; python_version>'3' \nc==2"
    )
    assert lock.packages == {"colorama": "0.4.6", "b": "1", "c": "2"}
    assert lock.conditional == ("b", "colorama")
    assert not lock.hashed


def test_one_without_a_hash_or_with_md5_alone():
    assert not parse_requirements(f"a==1 {HASH}\nb==2\n").hashed
    assert not parse_requirements("a==1 --hash=md5:0\n").hashed
    assert not parse_requirements("").hashed


def test_an_empty_list_lists_nothing():
    assert not parse_requirements("# nothing\n--index-url x\n").lists_any
    assert parse_requirements("a>=1").lists_any
    assert parse_requirements("a==1").lists_any


def test_long_lines_are_cut():
    assert len(parse_requirements("x" * 500).unpinned[0]) == 80


def test_names_are_normalised_as_pep_503_says():
    assert normalise("Foo.-_Bar") == "foo-bar"
