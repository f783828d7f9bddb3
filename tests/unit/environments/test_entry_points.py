"""A wheel names the programs that its installer writes; no name of one may be a path, for any reader of the file."""

from __future__ import annotations

import configparser
from contextlib import suppress
from importlib.metadata import EntryPoints

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bundler.environments.entry_points import GROUPS, check, is_program


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[console_scripts]\ntiny = tiny:main\n",
        "[console_scripts]\r\nf2py-3.11=numpy.f2py:main [extra]\r\n\r\n[gui_scripts]\r\npy.test = pytest:main",
        "# made by hand\n\n    [console_scripts]\n\ttiny = tiny:main\n",
        "[xarray.backends]\n../no/program = tiny:x\nand no entry\n[a:b]\n[c d]\n",
        "[my.console]\n[console_scripts]\npython-dotenv = dotenv:main\n",
    ],
)
def test_what_backends_write_is_accepted(text):
    check(text.encode())


@pytest.mark.parametrize(
    "name",
    [
        "/usr/local/bin/git",
        "../../../PWNED",
        "a/b",
        "..",
        ".bashrc",
        "",
        "a b",
        "a\\b",
        "naïve",
        "a:b",
        "; a",
        "python",
        "Python3",
        "python3.11",
        "python3.13t",
        "pythonw.exe",
        "pypy3",
    ],
)
@pytest.mark.parametrize("group", GROUPS)
def test_a_program_that_is_a_path_or_the_interpreter_is_refused(group, name):
    assert not is_program(name)
    with pytest.raises(ValueError, match="no program with a plain name"):
        check(f"[{group}]\nfine = x:y\n  {name} = evil:main\n".encode())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[console_scripts]\n/abs/path: evil:main\n", "no program"),
        ("[console_scripts]\nfine = a:b\n  ../continued\n", "no program"),
        ("../x = evil:main\n[console_scripts]\n", "line 1 is in no group"),
        ("[ console_scripts ]\n../x = y\n", "no plain name of a group"),
        ("[Console_Scripts]\n../x = y\n", "no plain name of a group"),
        ("[console_scripts] ; x\n../x = y\n", "no plain name of a group"),
        ("[[console_scripts]]\n../x = y\n", "no plain name of a group"),
        ("[other\n", "no plain name of a group"),
        ("\ufeff[other]\n", "line 1 has a character that cannot be printed"),
        ("[other]\na = b\r[console_scripts]\r../x = y", "line 2 has a character"),
        ("[other]\na = b\x0c[console_scripts]\x0c../x = y", "line 2 has a character"),
        ("[other]\na = b\u2028[console_scripts]\u2028../x = y", "line 2 has a character"),
    ],
)
def test_what_readers_could_differ_on_is_refused(text, problem):
    with pytest.raises(ValueError, match=problem):
        check(text.encode())


def test_what_is_no_text_is_refused():
    with pytest.raises(UnicodeDecodeError):
        check(b"[other]\n\xff = x\n")


LINES = st.sampled_from(
    [
        "[console_scripts]", "\t[gui_scripts]", "[other]", "[console_scripts] # x", "[ gui_scripts ]",
        "[CONSOLE_SCRIPTS]", "fine = a:b", "  fine2=a:b", "../x = y", "/abs: y", " /abs = y", "a:/b = c",
        "; x = y", "# x = y", "= y", "x", "", "a = b ; [console_scripts]", "a = [x]", "python = y",
    ]
)  # fmt: skip
ENDS = st.sampled_from(["\n", "\r\n", "\r", "\x0b", "\x1c", "\x85", "\u2028"])


@given(st.lists(st.tuples(LINES, ENDS), max_size=8))
@example([("[console_scripts]", "\n"), ("fine = a:b", "\n")])
def test_no_reader_finds_a_program_that_was_not_looked_at(lines):
    text = "".join(line + end for line, end in lines)
    try:
        check(text.encode())
    except ValueError:
        return
    for name in names_of(text):
        assert is_program(name), text


def names_of(text):
    """The programs as the standard library's two readers find them; the second as strict as uv was, and as lax."""
    with suppress(ValueError):
        yield from (each.name for each in EntryPoints._from_text(text) if each.group in GROUPS)
    for delimiters in (("=",), ("=", ":")):
        reader = configparser.ConfigParser(
            delimiters=delimiters, strict=False, interpolation=None, allow_no_value=True
        )
        with suppress(configparser.Error):
            reader.read_string(text)
        for group in reader.sections():
            if group.strip().casefold() in GROUPS:
                yield from reader[group]
