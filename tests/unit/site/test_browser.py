"""The site in a real browser, opened from a folder."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from tests.unit.site import reports
from tests.unit.site.conftest import report_about
from tests.unit.site.payloads import PAYLOADS, read
from tests.unit.site.test_hostile import hostile, poisoned

CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


@pytest.fixture
def browse(tmp_path):
    """Open a page and return its DOM after scripts, and what the console said."""

    def open_page(url: str) -> tuple[str, list[str]]:
        done = subprocess.run(
            [
                CHROMIUM,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                f"--user-data-dir={tmp_path / 'profile'}",
                "--virtual-time-budget=5000",
                "--enable-logging=stderr",
                "--dump-dom",
                url,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return open_page


def test_table_search_and_policy(honest, browse):
    _, _, site = honest
    dom, console = browse((site / "experiments.html").as_uri())
    assert console == []
    assert "9 of 9 runs" in dom
    assert dom.count('class="run-id"') >= 9
    assert dom.count('<button type="button">') > 9
    dom, console = browse((site / "index.html").as_uri() + "?q=pessimistic")
    assert console == []
    assert re.search(r"md-search-result__meta\">[1-9][0-9]* matching documents", dom)
    (run,) = (site / "runs").glob("*-run-c.html")
    assert browse(run.as_uri())[1] == []


def test_hostile_bundle_stays_text(provider, tmp_path, make_site, browse):
    hostile(provider)
    provider.build(tmp_path / "bundle")
    site = make_site(tmp_path / "bundle", report=report_about(tmp_path / "bundle"))
    for page in ("experiments.html", "index.html?q=setAttribute", "reproducibility.html"):
        dom, console = browse(f"{site.as_uri()}/{page}")
        assert not re.search(r"<html[^>]*data-pwned", dom)
        assert console == []
        if "?q=" in page:
            assert re.search(r"md-search-result__meta\">[1-9][0-9]* matching documents", dom)
    assert PAYLOADS[0].replace("<", "&lt;").replace(">", "&gt;") in dom
    assert read(site / "index.html").handlers == []


def test_a_hostile_report_of_a_re_execution_stays_text(provider, tmp_path, make_site, browse):
    provider.build(tmp_path / "bundle")
    clean = reports.reexecuted(report_about(tmp_path / "bundle"))
    report = replace(
        clean,
        reruns=poisoned(clean.reruns, "reruns", []),
        judgement=poisoned(clean.judgement, "judgement", []),
        evaluation=poisoned(clean.evaluation, "evaluation", []),
    )
    site = make_site(tmp_path / "bundle", report=report)
    dom, console = browse(f"{site.as_uri()}/reproducibility.html")
    assert console == []
    assert not re.search(r"<html[^>]*data-pwned", dom)
    assert "own-seeds-light.svg" in dom
