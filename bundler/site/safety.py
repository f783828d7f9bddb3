r"""What keeps the text of a bundle from becoming a part of the page: escaping, the CSP, and a gate over the result.

Everything that a bundle or a report says is hostile here. It enters a page in one way only, through a template of
:func:`environment`, which escapes for HTML and shows control and bidirectional characters as ``\u202e``. The
:func:`policy` makes the browser refuse what escaping might have missed, and :func:`examine` refuses to hand out a site
that holds anything executable or external that is not ours.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import jinja2
from markupsafe import Markup

from bundler.errors import BundlerError

_KEPT = frozenset("\n\t")

_URL_ATTRIBUTES = frozenset(
    (
        "action",
        "background",
        "cite",
        "data",
        "formaction",
        "href",
        "ping",
        "poster",
        "src",
        "srcset",
        "xlink:href",
    )
)
_FORBIDDEN_TAGS = frozenset(
    (
        "animate",
        "applet",
        "base",
        "embed",
        "foreignobject",
        "frame",
        "frameset",
        "iframe",
        "object",
        "portal",
        "set",
        "style",
    )
)
_PIXELS = "data:image/png;base64,"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_UNSEEN = re.compile(r"[\x00-\x20\x7f]")


class UnsafeSiteError(BundlerError):
    """The rendered site holds something that must not be there; it was not handed out."""


def visible(text: str) -> str:
    r"""``text`` with every character that prints nothing or steers the text (controls, bidi) as ``\u202e``."""
    if text.isprintable():
        return text
    return "".join(
        each if each in _KEPT or each.isprintable() else ascii(each)[1:-1] for each in text
    )


def _finalize(value: object) -> object:
    """What an expression of a template becomes before it is escaped."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return value


def environment(
    folder: Path, filters: Mapping[str, Callable[..., object]], values: Mapping[str, object]
) -> jinja2.Environment:
    """The environment of our templates in ``folder``: escapes everything, and a name that is not there is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(filters)
    made.globals.update(values)
    return made


def script_data(name: str, value: object) -> str:
    """A script that sets ``window.name`` to ``value``: JSON in ASCII without ``<``, ``>``, ``&``, U+2028 and U+2029."""
    # With ensure_ascii, U+2028, U+2029 and all bidi characters are escapes already.
    text = json.dumps(_visible_all(value), ensure_ascii=True, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f"window.{name} = {text};\n"


def _visible_all(value: object) -> object:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {key: _visible_all(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_visible_all(item) for item in value]
    return value


def hash_source(script: str) -> str:
    """The CSP source expression that allows exactly the inline ``script``."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def policy(hashes: frozenset[str]) -> str:
    """The Content-Security-Policy of a page whose inline scripts have ``hashes``: nothing from outside, ever."""
    scripts = " ".join(["'self'", *sorted(hashes)])
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; font-src 'self'; connect-src 'self'; worker-src 'self'; "
        "frame-src 'self'; base-uri 'none'; form-action 'none'"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What the gate lets pass: script files by path in the site, inline scripts by CSP hash."""

    scripts: frozenset[str]
    hashes: frozenset[str]


def examine(site: Path, allowed: Allowed) -> None:
    """Parse every page and figure below ``site``. Raises :class:`UnsafeSiteError` at the first thing not allowed."""
    files = frozenset(
        file.relative_to(site).as_posix() for file in site.rglob("*") if file.is_file()
    )
    for name in sorted(files):
        if name.endswith((".html", ".svg")):
            text = (site / name).read_text(encoding="utf-8")
            for fault in faults(text, name, files, allowed):
                raise UnsafeSiteError(
                    f"the site was not written: {name}: {fault}",
                    remedy="This is a fault of this program, or of a changed theme. Please report it.",
                )


def faults(text: str, name: str, files: frozenset[str], allowed: Allowed) -> Iterator[str]:
    """What is wrong with the page or figure ``name`` of a site that consists of ``files``."""
    parser = _Page(name=name, files=files, allowed=allowed)
    parser.feed(text)
    parser.close()
    if name.endswith(".html") and parser.policies != 1:
        parser.faults.append(f"{parser.policies} content security policies instead of one")
    yield from parser.faults


@dataclass(eq=False)
class _Page(HTMLParser):
    """Collects what must not be in a page, and local links that lead nowhere."""

    name: str
    files: frozenset[str]
    allowed: Allowed
    faults: list[str] = field(default_factory=list)
    policies: int = 0
    _script: list[str] | None = None

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        values = {name.lower(): value or "" for name, value in attrs}
        if tag in _FORBIDDEN_TAGS and not (tag == "style" and self.name.endswith(".svg")):
            self.faults.append(f"element {tag}")
        for attribute, value in values.items():
            self._attribute(tag, attribute, value)
        if tag == "meta" and "http-equiv" in values:
            self._policy(values)
        if tag == "script":
            self._begin_script(values)

    def handle_data(self, data: str) -> None:
        """Collect the text of an inline script."""
        if self._script is not None:
            self._script.append(data)

    def handle_endtag(self, tag: str) -> None:
        """Judge an inline script by its hash."""
        if tag == "script" and self._script is not None:
            if hash_source("".join(self._script)) not in self.allowed.hashes:
                self.faults.append("an inline script that is not the theme's")
            self._script = None

    def _attribute(self, tag: str, attribute: str, value: str) -> None:
        if attribute.startswith("on") or attribute == "srcdoc":
            self.faults.append(f"attribute {attribute} of {tag}")
        if attribute == "style" and "url(" in value.lower():
            self.faults.append(f"attribute style of {tag} with a URL")
        pixels = tag == "image" and self.name.endswith(".svg") and value.startswith(_PIXELS)
        if attribute in _URL_ATTRIBUTES and not pixels:
            problem = self._link_problem(value)
            if problem:
                self.faults.append(f"{attribute} of {tag}: {problem}: {visible(value)[:80]!r}")

    def _link_problem(self, value: str) -> str | None:
        # Browsers drop control characters and spaces before they look for a scheme.
        bare = _UNSEEN.sub("", value)
        if _SCHEME.match(bare) or bare.startswith(("//", "\\", "/")):
            return "not a relative URL"
        path = unquote(bare.partition("#")[0].partition("?")[0])
        if path in {"", "."}:
            return None
        parts: list[str] = []
        for part in (PurePosixPath(self.name).parent / path).parts:
            if part == ".." and not parts:
                return "leads out of the site"
            if part == "..":
                parts.pop()
            elif part != ".":
                parts.append(part)
        return None if "/".join(parts) in self.files else "leads nowhere"

    def _policy(self, values: dict[str, str]) -> None:
        if values["http-equiv"].lower() != "content-security-policy":
            self.faults.append(f"meta http-equiv {values['http-equiv'][:40]!r}")
        self.policies += 1

    def _begin_script(self, values: dict[str, str]) -> None:
        if values.get("type") == "application/json" and values.get("id") == "__config":
            return
        if not self.policies:
            self.faults.append("a script before the content security policy")
        if "src" not in values:
            self._script = []
            return
        # Links of pages at most one folder deep: the scripts of the site have unambiguous ends.
        source = values["src"].removeprefix("../").removeprefix("./")
        if source not in self.allowed.scripts:
            self.faults.append(f"script {visible(source)[:80]!r}")
