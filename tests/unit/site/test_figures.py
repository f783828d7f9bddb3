"""The figure of the verifier's own seeds: what it draws, and what it cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bundler.equivalence import Rule, Sample, compare
from bundler.site import figures, pages
from tests.unit.site import reports
from tests.unit.site.conftest import report_about
from tests.unit.site.payloads import read
from tests.unit.site.test_render import text_of


def test_the_figure_tells_its_finding(bundle, make_site):
    worse = compare(reports.samples(auc=(0.75, 0.751, 0.749)), Rule())
    report = reports.reexecuted(
        report_about(bundle), judgement=reports.judgement(metrics=worse, verdict="INCONSISTENT")
    )
    site = make_site(bundle, report=report)
    found = [each for each in read(site / "reproducibility.html").attributes if "re-runs" in each]
    assert found
    assert found[0].startswith(
        "holdout_auc: 5 declared runs with mean 0.78, 3 re-runs with mean 0.75, margin 0.005:"
        " INCONSISTENT. holdout_disparity:"
    )
    light = (site / "assets/site/own-seeds-light.svg").read_text()
    dark = (site / "assets/site/own-seeds-dark.svg").read_text()
    assert figures.BAND in light
    assert figures.BAND not in dark
    assert "<text" not in light


def test_the_most_urgent_metrics_are_drawn(bundle, make_site, monkeypatch):
    monkeypatch.setattr(figures, "MAX_PANELS", 1)
    monkeypatch.setattr(pages, "MAX_PANELS", 1)
    worse = compare(reports.samples(gap=(0.2, 0.21, 0.205)), Rule())
    report = reports.reexecuted(
        report_about(bundle), judgement=reports.judgement(metrics=worse, verdict="INCONSISTENT")
    )
    site = make_site(bundle, report=report)
    found = [each for each in read(site / "reproducibility.html").attributes if "re-runs" in each]
    assert found[0].startswith("holdout_disparity: ")
    assert "the 1 most urgent of 2" in text_of(site, "reproducibility.html")


def test_the_legend_names_what_only_some_metrics_have(bundle, make_site):
    """The most urgent metric has no margin, so its panel has no band."""
    first = replace(reports.samples()[0], margin=None, declared_margin=None)
    judged = compare([first, reports.samples()[1]], Rule())
    report = reports.reexecuted(
        report_about(bundle), judgement=reports.judgement(metrics=judged, verdict="INCONCLUSIVE")
    )
    light = (make_site(bundle, report=report) / "assets/site/own-seeds-light.svg").read_text()
    # The band of one panel, and its patch in the legend.
    assert light.count(figures.BAND) == 2


def test_values_that_no_axis_can_show_have_no_figure(bundle, make_site):
    wild = [
        Sample(metric="huge", declared=(1e308, 1e308, 1e308), rerun=(-1e308, 1e308), margin=1.0),
        Sample(metric="none", declared=(), rerun=()),
    ]
    report = reports.reexecuted(
        report_about(bundle),
        judgement=reports.judgement(metrics=compare(wild, Rule()), verdict="INCONCLUSIVE"),
    )
    site = make_site(bundle, report=report)
    assert not (site / "assets/site/own-seeds-light.svg").exists()
    words = text_of(site, "reproducibility.html")
    assert "No figure" in words
    assert "huge ? INCONCLUSIVE — 3 runs" in words


@pytest.mark.parametrize(
    "sample",
    [
        Sample(metric="same", declared=(0.5,) * 3, rerun=(0.5,) * 3, margin=0.0),
        Sample(metric="zero", declared=(0.0,) * 3, rerun=(0.0,) * 3, margin=0.0),
        Sample(metric="tiny", declared=(5e-324, 0.0, 0.0), rerun=(5e-324, 0.0), margin=0.0),
        Sample(metric="near", declared=(1e15, 1e15 + 1, 1e15), rerun=(1e15, 1e15), margin=0.5),
        Sample(metric="wide", declared=(1e100, 2e100, 0.0), rerun=(1e100, 0.0), margin=1e-9),
        Sample(metric="one side", declared=(0.5, 0.6, 0.7), rerun=()),
    ],
)
def test_odd_values_are_drawn_without_a_warning(bundle, make_site, sample):
    judged = reports.judgement(metrics=compare([sample], Rule()), verdict="INCONCLUSIVE")
    site = make_site(bundle, report=reports.reexecuted(report_about(bundle), judgement=judged))
    assert (site / "assets/site/own-seeds-light.svg").exists()
