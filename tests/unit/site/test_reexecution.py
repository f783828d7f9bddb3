"""A re-execution on page 5.4: the words and figures that a report gives, and those that it does not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.equivalence import Rule, Sample, compare
from bundler.report import ScoredMetric
from bundler.site import pages
from bundler.site.reexecution import (
    ComparedMetric,
    ladder,
    mean,
    scored_difference,
    scored_word,
    trajectory,
)
from tests import tiny
from tests.unit.site import reports
from tests.unit.site.conftest import report_about
from tests.unit.site.test_render import manifest_of, text_of

MARGINS = {"holdout_auc": 0.01}
DEVIATIONS = {"holdout_auc": 0.002}


@pytest.fixture
def page(bundle, make_site):
    """The text of page 5.4 of a report with a re-execution."""

    def words(**changes) -> str:
        report = reports.reexecuted(report_about(bundle), **changes)
        return text_of(make_site(bundle, report=report, keys=tiny.TRUST), "reproducibility.html")

    return words


# --- the page -----------------------------------------------------------------------------------------------------


def test_the_verdict_comes_first_and_says_what_it_means(bundle, make_site):
    report = reports.reexecuted(report_about(bundle))
    site = make_site(bundle, report=report, keys=tiny.TRUST)
    words = text_of(site, "reproducibility.html")
    start = words.index("✓ CONSISTENT 3 trainings with the verifier's own seeds agree")
    assert start < words.index("Even with all that chance allows") < words.index("Trainings Seed")
    assert "declared seed: ? not bitwise 3 of 4 trainings with own seeds ended well" in words
    assert "2 metrics ✓ CONSISTENT" in words
    overview = text_of(site, "index.html")
    assert "- not run ✓ CONSISTENT not asked for" in overview
    assert "trainings with seeds of the verifier's own choice" not in overview
    # A good word beside a claim that is open is no green one.
    assert "Even so, the claim reproduction is not run" in words
    assert "judgement--good" not in (site / "reproducibility.html").read_text()


def test_a_good_word_is_green_where_the_claim_is_met(bundle, make_site):
    report = reports.reexecuted(report_about(bundle))
    met = [
        replace(claim, status="met") if claim.name == "reproduction" else claim
        for claim in report.claims
    ]
    site = make_site(bundle, report=replace(report, claims=tuple(met)), keys=tiny.TRUST)
    assert "Even so" not in text_of(site, "reproducibility.html")
    assert "judgement--good" in (site / "reproducibility.html").read_text()


@pytest.mark.parametrize(
    ("verdict", "sign", "tone"),
    [
        ("BITWISE", "✓", "good"),
        ("CONSISTENT", "✓", "good"),
        ("INCONSISTENT", "✗", "bad"),
        ("INCONCLUSIVE", "?", "open"),
    ],
)
def test_each_verdict_has_sign_tone_and_meaning(verdict, sign, tone):
    assert f'verdict--{tone}"' in pages.verdict(verdict)
    assert f">{sign}</span>{verdict}</span>" in pages.verdict(verdict)
    assert pages.tone(verdict) == tone
    assert pages.MEANINGS[verdict].endswith(".")


def test_metrics_stand_beside_their_margin(page):
    words = page()
    assert (
        "holdout_auc ✓ CONSISTENT 0.78 5 runs 0.7793 3 runs 0.0007 0.00254 0.005 declared 0.01"
        in words
    )
    assert "holdout_disparity ✓ CONSISTENT 0.0806 5 runs 0.082633 3 runs -0.00203" in words
    assert "within the margin of 0.005 (declared 0.01, cut by the verifier's policy)" in words
    assert "Declared runs: 0.7806, 0.7794, 0.7801, 0.7788, 0.7811. Re-runs: 0.7791," in words
    assert "with 6 degrees of freedom" in words


def test_trainings_say_how_they_ended(page):
    words = page()
    assert "1900000001 ✓ trained 61.5 s 1 this machine —" in words
    assert "1900000003 ✓ trained 61.5 s 1 this machine taken over from an interrupted" in words
    assert (
        "1900000004 ! infrastructure 61.5 s 3 this machine killed: out of memory (exit code 137)"
        in words
    )
    trials = tuple(reports.trial(seed, where="") for seed in range(201))
    assert "limits or a lost worker ended it" in words
    words = page(judgement=reports.judgement(trials=trials))
    assert "limits or a lost worker ended it" not in words
    assert "The first 200 of 201 are shown" in words


def test_the_plan_the_canary_and_the_policy_are_shown(page):
    words = page()
    assert "Judged after 3, 5, 8 trainings; stops as soon as it is settled" in words
    assert "3.1 min if settled at the first look, 6.2 min at the last" in words
    assert "holdout_auc 5 0.0022 0.01 0.005 4 holdout_recall 1 — — — —" in words
    assert "! not on this machine Could the verifier's machine" in words
    assert "(12 values compared, 8.2 s): train_loss at step 1 is 0.5000001" in words
    assert "default margin 0.005 false consistent 0.05 looks 3 5 8 margins none" in words
    assert "mode locked wheels 31" in words
    assert "canary: blocked" in words
    assert "SHA-256 of the results" not in words
    assert "What differs for the canary" not in words
    unknown = replace(
        reports.plan(),
        own_seeds=tuple(range(45)),
        looks=(),
        run_seconds=None,
        least_seconds=None,
        most_seconds=None,
        metrics=(),
    )
    changed = reports.judgement(plan=unknown, commitment=reports.BLIND, metrics=(), trials=())
    words = page(judgement=changed)
    assert "38, 39 and 5 more" in words
    assert "Time of one training not recorded Time expected unknown" in words
    assert reports.BLIND.sha256 in words
    assert "data/spec/training.json data/environment/requirements.txt" in words
    assert "No metric was judged" in words
    assert "No training with a seed of the verifier's own" in words


@pytest.mark.parametrize(
    ("verdict", "words"),
    [("passed", "✓ possible Could"), ("not run", "- not run Could"), ("failed", "! not on this")],
)
def test_a_canary_never_accuses(page, verdict, words):
    bird = replace(reports.judgement().canary, verdict=verdict, knobs=())
    shown = page(judgement=reports.judgement(canary=bird))
    assert words in shown
    assert ("first steps were not repeated" in shown) is (verdict == "not run")


def test_own_seeds_that_are_missing_are_named(bundle, make_site):
    judged = reports.judgement(metrics=(), trials=(), verdict="INCONCLUSIVE")
    report = reports.reexecuted(report_about(bundle), judgement=judged)
    words = text_of(make_site(bundle, report=report), "index.html")
    assert "Also missing: trainings with seeds of the verifier's own choice" in words


def test_the_shipped_model_is_held_against_the_declaration(page):
    words = page()
    assert "✗ failed Run run-c , 1.5 s, exit code 0" in words
    assert "holdout_auc ✓ equal 0.78 0.78 0 0.005" in words
    assert "holdout_disparity ? within margin 0.08 0.0800001 1e-07 0.01" in words
    assert "holdout_recall ✗ not equal 0.5 0.4 0.1 —" in words
    assert "holdout_f1 ? no value NaN 0.4 — —" in words
    assert "What really confined the code: Fact Value sandbox bubblewrap" in words
    assert "✗ error the shipped model gives another recall → Ask the provider." in words
    assert "1 of 4 metrics the same when the shipped model was scored" in words
    same = replace(reports.SCORED, metrics=(), isolation=reports.rerun().isolation)
    nothing = page(evaluation=same, checks=())
    assert "The code was confined as in the re-run, see below." in nothing
    assert "It gave no metric that could be compared" in nothing
    assert "when the shipped model was scored" not in nothing


def test_what_is_not_in_the_report_is_said_quietly(honest):
    _, report, site = honest
    assert report.judgement is None
    words = text_of(site, "reproducibility.html")
    assert "No re-run in the report, and so no verdict." in words
    assert "- not run not asked for; use --rerun" in words
    assert "the model was not scored" in words
    assert "CONSISTENT" not in words


def test_a_training_that_did_not_finish_accuses_nobody(page):
    broken = reports.rerun(verdict="failed", metrics=(), tensors=(), predictions=(), runtime={})
    words = page(reruns=(broken,))
    assert "declared seed: ! did not finish" in words
    assert "The training did not finish, so nothing was compared." in words
    assert "The report does not say." in words


def test_many_tensors_show_those_that_differ_first(page):
    tensors = tuple(replace(reports.SAME_TENSOR, tensor=f"same{n}") for n in range(200))
    words = page(reruns=(reports.rerun(tensors=(*tensors, reports.tensor("other"))),))
    assert "200 of 201 are shown, those that differ first" in words
    assert "other ? differs F32" in words
    assert "same199" not in words


def test_the_declaration_says_which_side_counts(page):
    words = page()
    assert "holdout_auc 0.01 only a declared value that is higher than the re-runs'" in words
    assert "holdout_disparity 0.01 a difference in either direction" in words
    assert "val_disparity 0.02 only a declared value that is lower than the re-runs'" in words


def test_the_words_are_explained(honest):
    _, _, site = honest
    text = (site / "how-to-read.html").read_text()
    assert 'id="words-for-a-re-run"' in text
    for word in pages.MEANINGS:
        assert word in text


def test_same_report_same_bytes(bundle, make_site):
    report = reports.reexecuted(report_about(bundle))
    first, second = (make_site(bundle, report=report, keys=tiny.TRUST) for _ in range(2))
    assert manifest_of(first) == manifest_of(second)
    assert (first / "assets/site/own-seeds-dark.svg").exists()


# --- a compared metric --------------------------------------------------------------------------------------


VALUES = st.lists(st.floats(-1, 1), min_size=3, max_size=6).map(tuple)


@given(
    declared=VALUES,
    rerun=VALUES,
    margin=st.floats(0.001, 2),
    side=st.sampled_from([None, "higher is better", "lower is better"]),
)
def test_the_bar_lies_in_the_band_exactly_where_the_bound_is_in_the_margin(
    declared, rerun, margin, side
):
    sample = Sample(metric="m", declared=declared, rerun=rerun, margin=margin, overstatement=side)
    (result,) = compare([sample], Rule())
    seen = ComparedMetric(result=result, overstatement=side)
    if abs(result.bound - margin) < 1e-9:
        return
    inside = seen.band[0] <= seen.chance[0] and seen.chance[1] <= seen.band[1]
    assert inside is (result.bound <= margin)
    assert seen.scale[0] < min(*declared, *rerun) <= max(*declared, *rerun) < seen.scale[1]


def test_a_mean_that_leaves_the_range_is_none():
    assert mean((1.0, 2.0)) == 1.5
    assert mean(()) is None
    assert mean((1e308, 1e308)) is None
    assert mean((math.inf, -math.inf)) is None


# --- the declared seed ---------------------------------------------------------------------------------------------


def rungs(rerun):
    return {rung.name: (rung.word, rung.found) for rung in ladder(rerun, MARGINS, DEVIATIONS)}


def test_the_ladder_goes_from_bytes_to_metrics():
    names = [rung.name for rung in ladder(reports.rerun(), MARGINS, DEVIATIONS)]
    assert names == [
        "Tensors, byte by byte",
        "Equal elements",
        "Distance in units in the last place (ULP)",
        "Relative distance (L2) and cosine",
        "Predictions",
        "Metric histories",
        "Metric holdout_auc",
    ]
    found = rungs(reports.rerun())
    assert found["Tensors, byte by byte"] == ("differs", "1 of 2 tensors have equal bytes")
    assert found["Equal elements"] == ("differs", "66.67 % of 9 elements")
    assert found["Distance in units in the last place (ULP)"][1] == (
        "median at most 3 (weight); 99th percentile at most 1,200 (weight)"
    )
    assert found["Relative distance (L2) and cosine"][1] == (
        "distance at most 2.5e-06 (weight); cosine at least 0.999998 (weight)"
    )
    assert found["Predictions"][1].startswith("the same decision in 99.5 % of 400 examples; ")
    assert found["Metric histories"] == (
        "differs",
        "1 of 2 equal in every point; the first difference is at step 1",
    )
    assert found["Metric holdout_auc"] == (
        "differs",
        "differs by 0.0004; margin 0.01; standard deviation between seeds 0.002",
    )


def test_equal_bytes_need_no_distance():
    same = replace(reports.PREDICTED, agreement=1.0, max_absolute_difference=0.0)
    rerun = reports.rerun(
        verdict="bitwise",
        tensors=(reports.SAME_TENSOR,),
        predictions=(same,),
        metrics=(reports.metric(rerun=0.78, points_differing=0, first_differing_step=None),),
    )
    assert {word for word, _ in rungs(rerun).values()} == {"equal"}
    assert len(rungs(rerun)) == 4
    assert rungs(rerun)["Metric holdout_auc"][1].startswith("the same value; margin 0.01; ")
    assert trajectory(rerun, MARGINS, DEVIATIONS) == ""


def test_what_was_not_compared_is_not_called_equal():
    bare = reports.rerun(tensors=(), predictions=(), metrics=())
    assert {word for word, _ in rungs(bare).values()} == {"not run"}
    assert trajectory(bare, MARGINS, DEVIATIONS) == ""
    hashed = reports.tensor(
        equal_fraction=None,
        max_absolute_difference=None,
        ulp_median=None,
        ulp_p99=None,
        relative_l2=None,
        cosine=None,
    )
    found = rungs(reports.rerun(tensors=(hashed,)))
    assert found["Equal elements"][1] == "not known"
    assert found["Relative distance (L2) and cosine"][1] == "not known"
    partly = rungs(reports.rerun(tensors=(hashed, reports.tensor())))
    assert partly["Equal elements"][1] == "50 % of 6 elements; not known of 1 tensors"
    huge = reports.tensor(shape=(10**200, 10**200))
    assert rungs(reports.rerun(tensors=(huge,)))["Equal elements"][1].startswith("50 % of 4,611")
    missing = reports.metric(rerun=None, first_differing_step=None)
    found = rungs(reports.rerun(metrics=(missing,)))
    assert found["Metric holdout_auc"][1].startswith("has no two values; margin")
    assert found["Metric histories"][1] == "0 of 1 equal in every point"
    assert ladder(reports.rerun(verdict="failed"), MARGINS, DEVIATIONS) == ()


def test_same_trajectory_is_said_only_where_all_figures_say_so():
    same = "Numerically divergent, same trajectory"
    assert trajectory(reports.rerun(), MARGINS, DEVIATIONS).startswith(f"{same}: the weights diff")
    away = reports.rerun(predictions=(replace(reports.PREDICTED, agreement=0.6),))
    assert "only 60 % of the examples have the same decision." in trajectory(
        away, MARGINS, DEVIATIONS
    )
    numbers = replace(reports.PREDICTED, agreement=0.6, numeric=True)
    said = trajectory(reports.rerun(predictions=(numbers,)), MARGINS, DEVIATIONS)
    assert said.endswith("only 60 % of the examples have the same score but for rounding.")
    blind = reports.rerun(predictions=())
    assert "no predictions were compared" in trajectory(blind, MARGINS, DEVIATIONS)
    turned = reports.rerun(tensors=(reports.tensor(cosine=0.1),))
    assert "cosine 0.1 of weight" in trajectory(turned, MARGINS, DEVIATIONS)
    moved = reports.rerun(metrics=(reports.metric(rerun=0.785),))
    assert "metric holdout_auc moved" in trajectory(moved, MARGINS, DEVIATIONS)
    lost = reports.rerun(metrics=(reports.metric(rerun=None),))
    assert "metric holdout_auc moved" in trajectory(lost, MARGINS, DEVIATIONS)
    assert trajectory(moved, MARGINS, {}).startswith(same)
    assert trajectory(moved, {}, {}).startswith(same)
    for rerun in (away, blind, turned, moved, lost, reports.rerun(verdict="failed")):
        assert same not in trajectory(rerun, MARGINS, DEVIATIONS)


@pytest.mark.parametrize(
    ("declared", "found", "margin", "word", "apart"),
    [
        (0.5, 0.5, None, "equal", 0.0),
        (0.5, 0.5 + 1e-9, None, "equal", 1e-9),
        (0.5, 0.51, 0.02, "within margin", 0.01),
        (0.5, 0.53, 0.02, "not equal", 0.03),
        (0.5, 0.51, None, "not equal", 0.01),
        (None, 0.5, None, "no value", None),
        ("NaN", 0.5, 0.1, "no value", None),
        (0.5, "Infinity", 0.1, "no value", None),
    ],
)
def test_words_for_a_scored_metric(declared, found, margin, word, apart):
    scored = ScoredMetric(metric="m", declared=declared, found=found)
    assert scored_word(scored, margin) == word
    assert scored_difference(scored) == (None if apart is None else pytest.approx(apart))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [("", ""), ("one thing", "One thing."), ("Done.", "Done."), ("is it?", "Is it?")],
)
def test_sentences(words, sentence):
    assert pages.sentence(words) == sentence
