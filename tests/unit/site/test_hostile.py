"""A provider whose every text tries to become more than text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import get_args, get_type_hints

import pytest

from bundler import storage
from bundler.importers.model import ArtefactFile
from bundler.progress import Silence
from bundler.records import DatasetVersion, FidelityFlag, MetricPoint
from bundler.report import CheckResult, Finding
from bundler.site import model, render
from bundler.site.pages import Pages
from bundler.site.safety import visible
from bundler.spec import Evaluation, Predictions, Resources, Sampling
from tests import tiny
from tests.unit.site import reports
from tests.unit.site.conftest import report_about
from tests.unit.site.payloads import PAYLOADS, Reader, read
from tests.unit.site.test_render import parts

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


# --- the report of a re-execution ---------------------------------------------------------------------------------


def poisoned(value, place, found, hint=None):
    """``value`` with every text in it replaced by all payloads behind its ``place``, which is added to ``found``.

    Words of a closed list stay: no other can be read from a file.
    """
    if is_dataclass(value):
        hints = get_type_hints(type(value))
        return replace(
            value,
            **{
                each.name: poisoned(
                    getattr(value, each.name), f"{place}.{each.name}", found, hints[each.name]
                )
                for each in fields(value)
            },
        )
    if isinstance(value, str):
        if hint is not None and not takes_any_text(hint):
            return value
        found.append(place)
        return f"({place}) {ALL}"
    if isinstance(value, tuple):
        return tuple(
            poisoned(each, f"{place}.{number}", found) for number, each in enumerate(value)
        )
    if isinstance(value, Mapping):
        pairs = [(f"{place}.{name}", each) for name, each in value.items()]
        found += [f"{name}.key" for name, _ in pairs]
        return {
            f"({name}.key) {ALL}": poisoned(each, f"{name}.value", found) for name, each in pairs
        }
    return value


def takes_any_text(hint) -> bool:
    return hint is str or any(map(takes_any_text, get_args(hint)))


NOT_SHOWN = re.compile(r"judgement\.trials\.\d+\.metrics|reruns\.0\.environment")
"""Texts of a report that no page has: the metrics of each training are in the judged ones."""


@pytest.fixture(scope="module")
def poisoned_report(tmp_path_factory):
    """The site of a clean bundle whose report is hostile in every text about the re-execution, and those places."""
    root = tmp_path_factory.mktemp("poisoned")
    with pytest.MonkeyPatch.context() as patch:
        tiny.install(patch)
        tiny.make_provider(root / "provider").build(root / "bundle")
    check = CheckResult(
        check="model.evaluation",
        claim="reproduction",
        title="x",
        outcome="failed",
        findings=(
            Finding(code="x", severity="error", subject="x", message=ALL, remedy=f"remedy {ALL}"),
        ),
    )
    judged = reports.judgement(commitment=reports.BLIND)
    clean = reports.reexecuted(report_about(root / "bundle"), judgement=judged, checks=(check,))
    turned = reports.rerun(tensors=(reports.tensor(cosine=0.1), reports.SAME_TENSOR))
    places: list[str] = []
    report = replace(
        clean,
        reruns=poisoned((turned,), "reruns", places),
        judgement=poisoned(judged, "judgement", places),
        evaluation=poisoned(reports.SCORED, "evaluation", places),
    )
    bag = storage.open_bag(root / "bundle")
    render(bag, clean, (), root / "clean-site", Silence())
    render(bag, report, (), root / "site", Silence())
    return root / "clean-site", root / "site", places


def test_every_text_of_a_hostile_report_is_text(poisoned_report):
    _, site, places = poisoned_report
    page = read(site / "reproducibility.html")
    spaced = " ".join(page.text.split())
    assert len(places) > 60
    for place in places:
        if NOT_SHOWN.match(place):
            continue
        whole = literally(f"({place}) {ALL}")
        if place.endswith(".key"):
            # A key is shown with spaces for underscores.
            whole = whole.replace("_", " ")
        assert whole in page.text or " ".join(whole.split()) in spaced, place
    assert literally(ALL) in page.text
    assert literally(f"remedy {ALL}") in page.text
    assert literally(f"(judgement.explanation) {ALL}") in page.text


def test_a_hostile_report_adds_nothing_that_acts(poisoned_report):
    clean, site, _ = poisoned_report
    for page in sorted(site.rglob("*.html")):
        reader, twin = read(page), read(clean / page.relative_to(site))
        assert reader.scripts == twin.scripts, page.name
        assert reader.handlers == [], page.name
        assert reader.elements == twin.elements, page.name
        assert reader.links == twin.links, page.name
    for figure in (site / "assets/site").glob("own-seeds-*.svg"):
        assert "<text" not in figure.read_text()
        assert "pwned" not in figure.read_text()


def test_hostile_declarations_of_how_to_score_are_text(provider, tmp_path):
    provider.build(tmp_path / "bundle")
    files, contents = parts(tmp_path / "bundle")
    names = ("path", "label", "score", "key")
    predictions = Predictions(**{name: f"{name} {ALL}" for name in names})
    training = replace(
        contents.training,
        wheels=f"wheels {ALL}",
        evaluation=Evaluation(command=(f"command {ALL}",), results=f"results {ALL}"),
        resources=Resources(cpus=2, gpus=2, memory_bytes=8_000_000_000),
        outputs=replace(contents.training.outputs, predictions=predictions),
    )
    sampling = Sampling(
        kind="predictions", dataset_role=f"role {ALL}", predictions=predictions, statistic="f1"
    )
    index = contents.index
    gates = (replace(index.gates[0], sampling=sampling), *index.gates[1:])
    contents = replace(contents, training=training, index=replace(index, gates=gates))
    shown = Pages(model.make_model(files, contents, None, None), {})
    reader = Reader()
    reader.feed(shown.fill("<!-- slot: gates --><!-- slot: training -->", "gates.md"))
    for name in (*names, "wheels", "command", "results", "role"):
        assert literally(f"{name} {ALL}") in reader.text, name
    assert reader.text.count(literally(f"key {ALL}")) == 2
    assert reader.handlers == reader.scripts == []
    assert not reader.elements & {"svg", "iframe", "object", "form", "base", "meta", "b"}
    words = " ".join(reader.text.split())
    assert "Hold-out: f1, computed anew from the predictions for each row" in words
    assert "Hold-out: difference over the rows with role holdout." in words
    assert "2 processor cores, 2 GPUs, 8.0 GB of memory" in words
    assert "positive from 0.5 on" in words
