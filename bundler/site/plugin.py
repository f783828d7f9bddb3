"""The MkDocs plugin: generated pages, slots, and the content security policy.

All that this package needs to know about Material for MkDocs is here and in :func:`configure`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from mkdocs.commands.build import build
from mkdocs.config.base import Config
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import Abort, MkDocsException
from mkdocs.plugins import BasePlugin
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from bundler.errors import BundlerError
from bundler.site.model import RunView
from bundler.site.pages import NAVIGATION, Pages
from bundler.site.safety import Allowed, hash_source, policy

RUNS = "runs"
"""Folder of the pages of single runs."""

_SEPARATOR = r"""[\s\-_,:;!=(){}\[\]"'`/.|]+|&[lg]t;|&amp;"""
"""Where the search parts words: parts of metric names, paths and digests are found too."""

_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_INLINE_PARTIALS = ("base", "palette", "content")
_OWN_SCRIPTS = ("iframe-worker.js", "runs.js", "table.js")


class NoOptions(Config):  # type: ignore[no-untyped-call]  # mkdocs does not annotate it
    """The plugin takes none: it is never named in a configuration file."""


class EvidencePlugin(BasePlugin[NoOptions]):  # type: ignore[no-untyped-call]  # as above
    """Puts the evidence into the pages. ``hashes`` are those of the theme's inline scripts, once it is built."""

    def __init__(self, pages: Pages, on_page: Callable[[], None]) -> None:
        self._pages = pages
        self._on_page = on_page
        self._runs: dict[str, RunView] = {
            f"{RUNS}/{(run.page or '').replace('.html', '.md')}": run for run in pages.model.paged
        }
        self._by_root: dict[str, frozenset[str]] = {}
        self.count = 0

    @property
    def hashes(self) -> frozenset[str]:
        """CSP hashes of all inline scripts that the theme puts into any page."""
        return frozenset().union(*self._by_root.values())

    def on_files(self, files: Files, /, *, config: MkDocsConfig) -> Files:
        """Add every page and asset. There is no folder of documents: nothing else gets in."""
        for _, name in NAVIGATION:
            files.append(File.generated(config, name, content=self._pages.markdown(name)))
        for name, run in self._runs.items():
            files.append(File.generated(config, name, content=self._pages.run_markdown(run)))
        for name, data in self._pages.assets():
            files.append(File.generated(config, name, content=data))
        return files

    def on_page_content(
        self, html: str, /, *, page: Page, config: MkDocsConfig, files: Files
    ) -> str:
        """Fill the slots."""
        name = page.file.src_uri
        return self._pages.fill(html, name, self._runs.get(name))

    def on_env(
        self, env: jinja2.Environment, /, *, config: MkDocsConfig, files: Files
    ) -> jinja2.Environment:
        """Learn the theme's inline scripts from its own templates, where no text of a bundle is."""
        for root in (".", ".."):
            values = {"config": config, "base_url": root}
            scripts: list[str] = []
            for name in _INLINE_PARTIALS:
                template = env.get_template(f"partials/javascripts/{name}.html")
                scripts += _INLINE.findall(template.render(features=[], **values))
            self._by_root[root] = frozenset(map(hash_source, scripts))
        return env

    def on_post_page(self, output: str, /, *, page: Page, config: MkDocsConfig) -> str:
        """Put the policy first in the head: it binds only what comes after it."""
        root = ".." if "/" in page.file.src_uri else "."
        meta = (
            '<meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy(self._by_root[root])}">'
        )
        self.count += 1
        self._on_page()
        # The theme's search dialog has no name for those who do not see it.
        output = output.replace('role="dialog">', 'role="dialog" aria-label="Search">', 1)
        return output.replace("<head>", f"<head>{meta}", 1)


def configure(documents: Path, target: Path) -> MkDocsConfig:
    """The MkDocs configuration of the site; ``documents`` is an empty folder."""
    config = MkDocsConfig()
    config.load_dict(
        {
            "site_name": "Module 5 evidence",
            "site_description": "Model development, selection, reproducibility and validation",
            "docs_dir": str(documents),
            "site_dir": str(target),
            "use_directory_urls": False,
            "strict": True,
            "nav": [{title: name} for title, name in NAVIGATION],
            "not_in_nav": f"/{RUNS}/",
            "theme": {
                "name": "material",
                "font": False,
                "features": ["navigation.footer", "navigation.top", "content.code.copy"],
                "icon": {"logo": "material/file-certificate-outline"},
                "palette": [
                    _palette("light", "default", "Dark mode"),
                    _palette("dark", "slate", "Light mode"),
                ],
            },
            "extra": {
                "generator": False,
                # "offline" would load its own from a CDN.
                "polyfills": ["assets/site/iframe-worker.js"],
            },
            "extra_css": ["assets/site/site.css"],
            "plugins": [{"search": {"lang": "en", "separator": _SEPARATOR}}, "offline"],
            "markdown_extensions": ["admonition"],
            "copyright": "Evidence, not conformity.",
        }
    )
    errors, warnings = config.validate()
    for key, problem in [*errors, *warnings]:
        raise BundlerError(f"the site cannot be configured: {key}: {problem}")
    # 404.html and the sitemaps: neither means anything in a folder.
    config.theme.static_templates.clear()
    return config


def _palette(media: str, scheme: str, other: str) -> dict[str, Any]:
    icon = "weather-night" if media == "light" else "weather-sunny"
    return {
        "media": f"(prefers-color-scheme: {media})",
        "scheme": scheme,
        "primary": "blue grey",
        "accent": "blue",
        "toggle": {"icon": f"material/{icon}", "name": other},
    }


def write_site(pages: Pages, documents: Path, target: Path, on_page: Callable[[], None]) -> Allowed:
    """Build the site in ``target``. Returns what its pages may hold, for :func:`bundler.site.safety.examine`."""
    epoch = _epoch(pages.model.contents.index.created)
    with _environment(NO_MKDOCS_2_WARNING="1", SOURCE_DATE_EPOCH=epoch), _quiet() as messages:
        config = configure(documents, target)
        plugin = EvidencePlugin(pages, on_page)
        config.plugins["evidence"] = plugin
        try:
            build(config)
        except (Abort, MkDocsException) as error:
            words = "; ".join(messages) or str(error)
            raise BundlerError(f"the site cannot be built: {words}") from None
    scripts = {
        path.relative_to(target).as_posix()
        for path in target.glob("assets/javascripts/*.js")
        if path.name.startswith("bundle.")
    }
    scripts |= {f"assets/site/{name}" for name in _OWN_SCRIPTS}
    return Allowed(scripts=frozenset(scripts), hashes=plugin.hashes)


def _epoch(created: str) -> str:
    """Seconds since 1970 of the bundle's own time: no clock is read."""
    try:
        return str(int(datetime.fromisoformat(created).timestamp()))
    except (ValueError, OverflowError):
        return "0"


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Environment variables for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """Keep what MkDocs logs from the terminal; yields its warnings."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger = logging.getLogger("mkdocs")
    handler = Collector(logging.WARNING)
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
