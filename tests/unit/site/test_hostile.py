"""A provider whose every text tries to become more than text."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from bundler import storage
from bundler.importers.model import ArtefactFile
from bundler.progress import Silence
from bundler.records import DatasetVersion, FidelityFlag, MetricPoint
from bundler.site import render
from bundler.site.safety import visible
from tests import tiny
from tests.unit.site.conftest import report_about
from tests.unit.site.payloads import PAYLOADS, read

ALL = " | ".join(PAYLOADS)


def hostile(provider: tiny.Provider) -> None:
    """One run a payload, the payload in every text of it; all payloads in every text of the declaration."""
    config = provider.config
    config["system"] |= {
        "name": ALL,
        "version": ALL,
        "provider": ALL,
        "intended_purpose": ALL,
        "annex_iii": ALL,
        "responsible": ALL,
    }
    config["selection"] |= {
        "rationale": ALL,
        "declared_at": "2025-10-01",
        "exclusions": [{"run": "run-d", "reason": ALL}],
    }
    config["reproducibility"] = {
        "level": "bitwise",
        "mechanisms": list(PAYLOADS),
        "factors_of_variation": list(PAYLOADS),
        "limitations": list(PAYLOADS),
        "tolerances": [{"metric": payload, "margin": 0.1} for payload in PAYLOADS[:20]],
    }
    gate = config["gates"][0]
    config["gates"] = [
        gate | {"name": f"{number} {payload}", "requirement": payload}
        for number, payload in enumerate(PAYLOADS[:12])
    ]
    config["gates"] += [
        gate | {"name": f"m{number}", "metric": payload}
        for number, payload in enumerate(PAYLOADS[12:20])
    ]
    provider.config = json.loads(json.dumps(config))
    artefacts = provider.root / "artefacts"
    for number, payload in enumerate(PAYLOADS):
        run = tiny.make_run(
            f"h{number:02d}", provider.commit, artefacts, val_auc=0.5, rate=str(number)
        )
        provider.add(spoilt(run, payload))
    provider.edit("run-c", lambda run: spoilt(run, ALL))


def spoilt(run, payload):
    return replace(
        run,
        name=payload,
        source=replace(run.source, store=payload, experiment_id=payload, experiment=payload),
        code=replace(run.code, repository=payload, branch=payload, entry_point=payload),
        data=(
            DatasetVersion(
                name=payload, role="holdout", rows=400, source=payload, tracker_digest=payload
            ),
        ),
        parameters={**run.parameters, payload: payload},
        tags={**run.tags, payload: payload},
        points=(
            *run.points,
            MetricPoint(payload, 0, tiny.T0, 0.5),
            MetricPoint(payload, 1, tiny.T0, 0.6),
        ),
        artefacts=(*run.artefacts, ArtefactFile(path=payload, file=run.artefacts[0].file)),
        fidelity=(FidelityFlag(field=payload, flag=payload, detail=payload),),
    )


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """A clean site, and a hostile one with the report of its bundle."""
    root = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        tiny.install(patch)
        provider = tiny.make_provider(root / "provider")
        for name in ("clean", "hostile"):
            if name == "hostile":
                hostile(provider)
            provider.build(root / name)
            bag = storage.open_bag(root / name)
            render(bag, report_about(root / name), (), root / f"{name}-site", Silence())
    return root / "clean-site", root / "hostile-site"


def literally(text: str) -> str:
    """As a reader finds it: control characters visible; line ends are those of HTML."""
    return visible(text).replace("\r\n", "\n")


def test_no_payload_acts_and_each_is_text(sites):
    clean, site = sites
    clean_elements = set().union(*(read(page).elements for page in clean.rglob("*.html")))
    for page in sorted(site.rglob("*.html")):
        reader = read(page)
        pattern = "*-run-b.html" if page.parent.name == "runs" else page.name
        (twin,) = (clean / page.relative_to(site).parent).glob(pattern)
        assert reader.scripts == read(twin).scripts, page.name
        assert reader.handlers == [], page.name
        assert reader.elements <= clean_elements | {"h2"}, page.name
        for link in reader.links:
            assert not re.match(r"\s*([a-z]+:|//)", link, re.IGNORECASE), (page.name, link)
    for number, payload in enumerate(PAYLOADS):
        (page,) = (site / "runs").glob(f"*-h{number:02d}.html")
        # Name, source twice, experiment, data, parameter, metric, artefact, tag, fidelity.
        assert read(page).text.count(literally(payload)) >= 15, payload
    for page in ("index", "development", "selection"):
        assert literally(ALL) in read(site / f"{page}.html").text
    for page in ("reproducibility", "limits", "experiments"):
        words = read(site / f"{page}.html").text
        for payload in PAYLOADS:
            assert literally(payload) in words, (page, payload)
    words = read(site / "gates.html").text
    assert all(literally(payload) in words for payload in PAYLOADS[:20])


def test_slot_like_text_is_not_expanded(sites):
    _, site = sites
    assert "<!-- slot: claims -->" in read(site / "index.html").text
    assert not list(site.rglob("*.html.j2"))
    for page in site.rglob("*.html"):
        assert "<!-- slot:" not in page.read_text()


def test_titles_and_navigation_hold_our_words_only(sites):
    _, site = sites
    titles = {
        re.search(r"<title>(.*?)</title>", page.read_text(), re.DOTALL)[1]
        for page in site.rglob("*.html")
    }
    for title in titles:
        assert re.fullmatch(r"[A-Za-z0-9 ._-]+", title), title


def test_search_index_is_text(sites):
    _, site = sites
    index = json.loads((site / "search/search_index.json").read_text())
    for entry in index["docs"]:
        assert re.fullmatch(r"[A-Za-z0-9./#_-]+", entry["location"])
        assert not re.search(r"<(?!/?(p|code|pre|li|ol|ul|sub|sup)>)", entry["title"])
        assert not re.search(r"<(?!/?(p|code|pre|li|ol|ul|sub|sup)>)", entry["text"])


def test_data_of_the_table(sites):
    _, site = sites
    text = (site / "assets/site/runs.js").read_text()
    assert text.isascii()
    assert not set("<>&") & set(text)
    rows = json.loads(text.removeprefix("window.aisdpRuns = ").removesuffix(";\n"))["rows"]
    names = {row[1] for row in rows}
    assert {visible(payload) for payload in PAYLOADS} <= names


def test_figures_hold_no_text(sites):
    _, site = sites
    for figure in site.rglob("*.svg"):
        if "assets/site" in figure.as_posix():
            text = figure.read_text()
            assert "<text" not in text
            assert "evil" not in text
            assert "pwned" not in text
