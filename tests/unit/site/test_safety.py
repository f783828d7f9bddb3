"""Escaping and the gate, one case a line."""

from __future__ import annotations

import json

import jinja2
import pytest

from bundler.site.safety import (
    Allowed,
    UnsafeSiteError,
    environment,
    examine,
    faults,
    hash_source,
    policy,
    script_data,
    visible,
)
from tests.unit.site.payloads import PAYLOADS

SCRIPT = "theme()"
ALLOWED = Allowed(scripts=frozenset({"assets/a.js"}), hashes=frozenset({hash_source(SCRIPT)}))
FILES = frozenset({"index.html", "runs/x.html", "assets/a.js", "assets/a.svg"})
META = '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'">'

GOOD = (
    '<a href="index.html#top">x</a>',
    '<a href="">x</a><a href=".">x</a><a href="#x">x</a><a href="?q=1">x</a>',
    '<a href="runs/../index.html">x</a>',
    '<script src="assets/a.js"></script>',
    '<script src="./assets/a.js"></script>',
    f"<script>{SCRIPT}</script>",
    '<script id="__config" type="application/json">{"a": 1}</script>',
    '<p style="color: red">&lt;script&gt;</p>',
)

BAD = (
    ("<script>other()</script>", "inline script"),
    ("<script type='module'>other()</script>", "inline script"),
    ('<script type="application/json">{}</script>', "inline script"),
    ('<script src="https://evil.example/x.js"></script>', "not a relative URL"),
    ('<script src="assets/a.svg"></script>', "script 'assets/a.svg'"),
    ('<a onclick="x">x</a>', "attribute onclick"),
    ('<A OnClick="x">x</A>', "attribute onclick"),
    ('<img src="assets/a.svg" onerror=x>', "attribute onerror"),
    ('<p srcdoc="x">', "attribute srcdoc"),
    ("<iframe></iframe>", "element iframe"),
    ('<object data="assets/a.svg"></object>', "element object"),
    ("<embed>", "element embed"),
    ('<base href="index.html">', "element base"),
    ("<style>p{}</style>", "element style"),
    ("<svg><foreignObject></svg>", "element foreignobject"),
    ("<svg><animate></svg>", "element animate"),
    ('<a href="https://evil.example/">x</a>', "not a relative URL"),
    ('<a href="//evil.example/">x</a>', "not a relative URL"),
    ('<a href="/etc/passwd">x</a>', "not a relative URL"),
    ('<a href="\\\\evil">x</a>', "not a relative URL"),
    ('<a href="javascript:x">x</a>', "not a relative URL"),
    ('<a href=" java\tscript:x">x</a>', "not a relative URL"),
    ('<a href="&#106;avascript:x">x</a>', "not a relative URL"),
    ('<a href="data:text/html,x">x</a>', "not a relative URL"),
    ('<form action="https://evil.example/"></form>', "not a relative URL"),
    ('<img srcset="https://evil.example/ 2x">', "not a relative URL"),
    ('<p style="background: URL(x)">', "attribute style"),
    ('<a href="missing.html">x</a>', "leads nowhere"),
    ('<a href="../index.html">x</a>', "leads out of the site"),
    ('<meta http-equiv="refresh" content="0;url=x">', "meta http-equiv"),
    (META, "2 content security policies"),
)


def page(body: str) -> str:
    return f"<!doctype html><html><head>{META}</head><body>{body}</body></html>"


@pytest.mark.parametrize("body", GOOD)
def test_gate_lets_pass(body):
    assert list(faults(page(body), "index.html", FILES, ALLOWED)) == []


@pytest.mark.parametrize(("body", "words"), BAD)
def test_gate_stops(body, words):
    assert any(words in fault for fault in faults(page(body), "index.html", FILES, ALLOWED))


def test_gate_wants_a_policy_before_scripts():
    found = list(faults('<script src="assets/a.js"></script>', "index.html", FILES, ALLOWED))
    assert found == [
        "a script before the content security policy",
        "0 content security policies instead of one",
    ]


def test_gate_resolves_from_the_place_of_the_page():
    assert not list(faults(page('<a href="../index.html">x</a>'), "runs/x.html", FILES, ALLOWED))
    assert list(faults(page('<a href="index.html">x</a>'), "runs/x.html", FILES, ALLOWED))


def test_gate_looks_at_figures(tmp_path):
    (tmp_path / "a.svg").write_text("<svg><style>*{}</style><path/></svg>")
    examine(tmp_path, ALLOWED)
    (tmp_path / "b.svg").write_text("<svg onload='x'></svg>")
    with pytest.raises(UnsafeSiteError, match=r"b\.svg: attribute onload"):
        examine(tmp_path, ALLOWED)


def test_policy_names_no_host():
    words = policy(frozenset({"'sha256-b'", "'sha256-a'"}))
    assert "script-src 'self' 'sha256-a' 'sha256-b';" in words
    assert "unsafe-eval" not in words
    assert "http" not in words
    assert words.startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("日本 é", "日本 é"),
        ("two\nlines\tand tab", "two\nlines\tand tab"),
        ("a\u202eb", "a\\u202eb"),
        ("\x1b[0m", "\\x1b[0m"),
        ("\u2028\u2066\u200b", "\\u2028\\u2066\\u200b"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_visible(text, shown):
    assert visible(text) == shown


@pytest.mark.parametrize("payload", PAYLOADS)
def test_script_data_is_inert_and_exact(payload):
    text = script_data("x", {"rows": [[payload, None, 1.5]]})
    assert text.isascii()
    assert not set("<>&") & set(text)
    value = json.loads(text.removeprefix("window.x = ").removesuffix(";\n"))
    assert value == {"rows": [[visible(payload), None, 1.5]]}


def test_environment_escapes_and_is_strict(tmp_path):
    (tmp_path / "t.j2").write_text('<p title="{{ x }}">{{ x }}{{ y }}{{ z }}</p>')
    (tmp_path / "u.j2").write_text("{{ missing }}")
    made = environment(tmp_path, {}, {})
    assert made.get_template("t.j2").render(x='<"\u202e">', y=None, z=True) == (
        '<p title="&lt;&#34;\\u202e&#34;&gt;">&lt;&#34;\\u202e&#34;&gt;—yes</p>'
    )
    with pytest.raises(jinja2.UndefinedError):
        made.get_template("u.j2").render()
