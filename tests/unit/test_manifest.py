"""Names and manifests in exactly one form."""

from __future__ import annotations

import pytest

from bundler.errors import MalformedError
from bundler.manifest import (
    bag_info,
    collisions,
    format_manifest,
    is_sha256,
    parse_manifest,
    path_problem,
)
from bundler.storage.archive import member_header
from bundler.storage.model import name_problems

A, B = "a" * 64, "b" * 64

GOOD = {
    "data/a": A,
    "data/a-b/c_d.E.txt": B,
    "data/-": A,
    "data/" + "x" * 100: A,
    "data/" + "x" * 94 + "/" + "y" * 100: B,
}


def test_a_manifest_survives_the_way_there_and_back():
    assert parse_manifest(format_manifest(GOOD), name="m") == GOOD


def test_a_manifest_is_what_sha256sum_writes():
    assert format_manifest({"b": B, "a": A}) == f"{A}  a\n{B}  b\n".encode()


LINES = {
    "nothing": ("", "manifest-syntax"),
    "one empty line": ("\n", "manifest-syntax"),
    "an empty line in between": (f"{A}  a\n\n{B}  b\n", "manifest-syntax"),
    "no last newline": (f"{A}  a", "manifest-syntax"),
    "CRLF": (f"{A}  a\r\n", "manifest-syntax"),
    "a lone CR": (f"{A}  a\r{B}  b\n", "manifest-syntax"),
    "a byte order mark": (f"\ufeff{A}  a\n", "manifest-syntax"),
    "binary mode": (f"{A} *a\n", "manifest-syntax"),
    "one space": (f"{A} a\n", "manifest-syntax"),
    "a tab": (f"{A}\ta\n", "manifest-syntax"),
    "three spaces": (f"{A}   a\n", "manifest-syntax"),
    "a space at the end": (f"{A}  a \n", "manifest-syntax"),
    "upper case": (f"{A.upper()}  a\n", "manifest-syntax"),
    "a short digest": (f"{A[1:]}  a\n", "manifest-syntax"),
    "an MD5 digest": (f"{A[:32]}  a\n", "manifest-syntax"),
    "a long digest": (f"{A}a  a\n", "manifest-syntax"),
    "an escaped line": (f"\\{A}  a\\nb\n", "manifest-syntax"),
    "a comment": ("# files\n", "manifest-syntax"),
    "a percent": (f"{A}  a%0Ab\n", "manifest-syntax"),
    "a NUL": (f"{A}  a\0b\n", "manifest-syntax"),
    "a letter beyond ASCII": (f"{A}  é\n", "manifest-syntax"),
    "an absolute path": (f"{A}  /etc/passwd\n", "path-unsafe"),
    "a parent folder": (f"{A}  data/../x\n", "path-unsafe"),
    "a folder": (f"{A}  data/\n", "path-unsafe"),
    "the same folder": (f"{A}  ./a\n", "path-unsafe"),
    "a hidden file": (f"{A}  data/.git/config\n", "path-unsafe"),
    "an empty part": (f"{A}  data//a\n", "path-unsafe"),
    "a long part": (f"{A}  data/{'a' * 101}\n", "path-unsafe"),
    "a long path": (f"{A}  {'/'.join(['a' * 49] * 4 + ['b'])}\n", "path-unsafe"),
    "a line twice": (f"{A}  a\n{A}  a\n", "manifest-duplicate"),
    "a conflicting line": (f"{A}  a\n{B}  a\n", "manifest-duplicate"),
    "lines out of order": (f"{A}  b\n{B}  a\n", "manifest-order"),
}


@pytest.mark.parametrize("what", LINES)
def test_any_other_form_of_a_manifest_is_refused_by_name(what):
    text, code = LINES[what]
    with pytest.raises(MalformedError) as refused:
        parse_manifest(text.encode(), name="manifest")
    assert refused.value.code == code
    assert refused.value.message.startswith("manifest")
    assert refused.value.message.isprintable()


def test_the_line_is_named():
    with pytest.raises(MalformedError, match="m, line 2: not 'sha256  path'"):
        parse_manifest(f"{A}  a\nb\n".encode(), name="m")


@pytest.mark.parametrize("path", [*GOOD, "a", "a/b", "A.b-c_d", "a" * 100, "a..b"])
def test_a_plain_path_has_no_problem_and_fits_a_tar_header(path):
    assert path_problem(path) is None
    assert len(member_header(path, 1)) == 512


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "/a", "a/", "a//b", ".", "..", "a/..", "a/../b", ".a", "a/.b", "a\\b", "C:/a", "a b",
        "a\nb", "a\rb", "a\0b", "a\n", "a%0Ab", "é", "e\u0301", "a\u202eb", "~/a\t", "a:b", "a*",
        "a" * 101, "a/" * 100 + "b",
    ],
)  # fmt: skip
def test_any_other_path_has_one(path):
    assert path_problem(path) is not None


def test_a_path_that_no_tar_header_can_carry_is_refused_in_folders_too():
    """It is short enough, and yet no slash cuts it into at most 155 and 100 characters."""
    path = "/".join(["data", "artefacts", "r" * 32, "x" * 10, "y" * 100, "z" * 30])
    assert len(path) <= 200
    with pytest.raises(MalformedError) as refused:
        member_header(path, 1)
    assert refused.value.code == "archive-member"
    assert "tar archive" in path_problem(path)


COLLISIONS = {
    "two files": (["data/a", "data/A"], [("data/a", "data/A")]),
    "two folders": (["data/a/x", "data/A/y"], [("data/a", "data/A")]),
    "a file and a folder": (["data/a", "data/A/y"], [("data/a", "data/A")]),
    "a file and a folder of one name": (["data/a", "data/a/y"], [("data/a", "data/a")]),
    "a folder and a file of one name": (["data/a/y", "data/a"], [("data/a", "data/a")]),
    "none": (["data/a/x", "data/a/y", "data/b", "x"], []),
}


@pytest.mark.parametrize("what", COLLISIONS)
def test_names_that_some_file_system_cannot_keep_apart_collide(what):
    paths, expected = COLLISIONS[what]
    assert collisions(paths) == expected
    assert [problem.code for problem in name_problems(paths)] == ["path-collision"] * len(expected)


def test_a_finding_about_a_hostile_name_is_printable():
    hostile = ["a\x1b[2J", "A\x1b[2J", "\udce9\u202e"]
    problems = name_problems(hostile)
    assert {problem.code for problem in problems} == {"path-unsafe", "path-collision"}
    for problem in problems:
        assert problem.subject.isascii()
        assert problem.message.isascii()
        assert (problem.subject + problem.message).isprintable()


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (A, True),
        (A.upper(), False),
        (A[1:], False),
        (A + "a", False),
        (A + "\n", False),
        ("g" * 64, False),
    ],
)
def test_a_digest_has_one_spelling(text, good):
    assert is_sha256(text) is good


def test_bag_info_counts_the_payload():
    text = bag_info("x 1", "2026-01-02T03:04:05.000Z", files=2, size=7)
    assert text == b"Bag-Software-Agent: x 1\nBagging-Date: 2026-01-02\nPayload-Oxum: 7.2\n"
