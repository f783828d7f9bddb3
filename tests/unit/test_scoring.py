"""The statistics against scikit-learn, their variances against naive formulas and against simulation."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn import metrics as oracle

from bundler import scoring
from bundler.errors import MalformedError
from bundler.scoring import Examples, measure, statistic, variance
from bundler.spec import Statistic

STATISTICS = get_args(Statistic)
DECIDED = {
    "accuracy": oracle.accuracy_score,
    "balanced_accuracy": oracle.balanced_accuracy_score,
    "f1": oracle.f1_score,
    "precision": oracle.precision_score,
    "recall": oracle.recall_score,
    "specificity": lambda y, d: oracle.recall_score(y, d, pos_label=0),
}
SCORED = {
    "auc": oracle.roc_auc_score,
    "brier": oracle.brier_score_loss,
    "log_loss": oracle.log_loss,
    "mae": oracle.mean_absolute_error,
    "mse": oracle.mean_squared_error,
    "rmse": oracle.root_mean_squared_error,
    "r2": oracle.r2_score,
}


def examples(labels, scores, threshold=0.5) -> Examples:
    return Examples(
        labels=np.array(labels, float), scores=np.array(scores, float), threshold=threshold
    )


def by_oracle(name, given_examples):
    if name in DECIDED:
        decided = given_examples.scores >= given_examples.threshold
        return DECIDED[name](given_examples.labels.astype(int), decided.astype(int))
    return SCORED[name](given_examples.labels, given_examples.scores)


def undefined(name, given_examples, call=statistic) -> str:
    with pytest.raises(MalformedError) as caught:
        call(name, given_examples)
    assert caught.value.code == "predictions-undefined"
    return caught.value.message


def test_every_statistic_that_can_be_declared_has_an_oracle():
    assert set(STATISTICS) == DECIDED.keys() | SCORED.keys()


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("ties", [False, True])
def test_the_values_are_those_of_scikit_learn(name, ties):
    random = np.random.default_rng(3)
    for size in (20, 301):
        labels = random.random(size) < 0.3
        scores = np.clip(0.3 * labels + 0.7 * random.random(size), 0, 1)
        each = examples(labels, np.round(scores, 1) if ties else scores, threshold=0.4)
        assert statistic(name, each) == pytest.approx(by_oracle(name, each), rel=1e-12)


@pytest.mark.parametrize("name", ["mae", "mse", "rmse", "r2"])
def test_numbers_need_not_be_labels(name):
    random = np.random.default_rng(4)
    labels = 1e6 + random.standard_normal(500)
    each = examples(labels, labels + random.standard_normal(500))
    assert statistic(name, each) == pytest.approx(by_oracle(name, each), rel=1e-9)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.5, 0.5000001, 0.9, 1.0])),
        min_size=2,
        max_size=12,
    )
)
def test_any_few_examples_have_the_oracles_value_or_are_refused_in_words(rows):
    each = examples(*zip(*rows, strict=True))
    for name in STATISTICS:
        try:
            found = statistic(name, each)
        except MalformedError as error:
            assert error.code == "predictions-undefined"  # noqa: PT017
            continue
        if name == "log_loss" and len(set(each.labels)) == 1:
            assert found >= 0
        else:
            assert found == pytest.approx(by_oracle(name, each), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "labels", "scores", "words"),
    [
        ("auc", [1, 1, 1], [0.1, 0.2, 0.3], "one class"),
        ("auc", [0, 0], [0.1, 0.2], "one class"),
        ("accuracy", [0, 2], [0.1, 0.2], "not all 0 or 1"),
        ("f1", [0, 0.5], [0.1, 0.2], "not all 0 or 1"),
        ("auc", [0, -1], [0.1, 0.2], "not all 0 or 1"),
        ("brier", [0, 1], [0.1, 1.2], "between 0 and 1"),
        ("log_loss", [0, 1], [-0.1, 0.2], "between 0 and 1"),
        ("recall", [0, 0], [0.1, 0.9], "recall of no examples"),
        ("specificity", [1, 1], [0.1, 0.9], "specificity of no examples"),
        ("precision", [0, 1], [0.1, 0.2], "precision of no examples"),
        ("f1", [0, 0], [0.1, 0.2], "no positives"),
        ("r2", [3, 3], [3.1, 2.9], "all the same"),
    ],
)
def test_what_has_no_value_is_said_in_words(name, labels, scores, words):
    assert words in undefined(name, examples(labels, scores))


# --- variances ------------------------------------------------------------------------------------------------------


def naive_delong(positives, negatives):
    """DeLong et al. 1988, as printed: a kernel over all pairs."""
    kernel = [[(p > n) + 0.5 * (p == n) for n in negatives] for p in positives]
    m, n = len(positives), len(negatives)
    area = sum(map(sum, kernel)) / (m * n)
    by_positive = [sum(row) / n for row in kernel]
    by_negative = [sum(column) / m for column in zip(*kernel, strict=True)]
    s10 = sum((each - area) ** 2 for each in by_positive) / (m - 1)
    s01 = sum((each - area) ** 2 for each in by_negative) / (n - 1)
    return area, s10 / m + s01 / n


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=15),
    st.lists(st.integers(0, 6), min_size=2, max_size=15),
)
def test_delong_is_the_naive_formula_ties_and_all(positives, negatives):
    each = examples([1] * len(positives) + [0] * len(negatives), positives + negatives)
    area, expected = naive_delong(positives, negatives)
    assert statistic("auc", each) == pytest.approx(area, abs=1e-12)
    assert variance("auc", each) == pytest.approx(expected, abs=1e-12)


def test_delong_is_what_a_simulation_shows():
    random = np.random.default_rng(11)
    areas, claimed = [], []
    for _ in range(3000):
        labels = np.arange(150) < 50
        each = examples(labels, 1.1 * labels + random.standard_normal(150))
        areas.append(statistic("auc", each))
        claimed.append(variance("auc", each))
    # The variance of 3000 draws is known to 2.6 %.
    assert np.mean(claimed) == pytest.approx(np.var(areas), rel=0.08)


@pytest.mark.parametrize("name", sorted(set(STATISTICS) - {"auc"}))
def test_variances_are_what_a_simulation_shows(name, monkeypatch):
    monkeypatch.setattr(scoring, "RESAMPLES", 200)
    random = np.random.default_rng(12)
    values, claimed = [], []
    for _ in range(400):
        scores = random.random(300)
        each = examples(random.random(300) < 0.1 + 0.8 * scores, scores)
        values.append(statistic(name, each))
        claimed.append(variance(name, each))
    # 400 draws: known to 7 %.
    assert np.mean(claimed) == pytest.approx(np.var(values), rel=0.25)


def test_means_have_the_sample_variance():
    each = examples([0, 1, 1, 0], [0.2, 0.9, 0.4, 0.6])
    assert variance("accuracy", each) == pytest.approx(0.25 / 3)
    assert variance("mae", each) == pytest.approx(np.var([0.2, 0.1, 0.6, 0.6], ddof=1) / 4)
    assert variance("balanced_accuracy", each) == pytest.approx((0.25 + 0.25) / 4)


def test_the_bootstrap_draws_the_same_everywhere():
    """The provider's figure is held against the verifier's to nine digits; numpy keeps the raw output of PCG64."""
    assert np.random.PCG64(20250802).random_raw(3).tolist() == [
        14460526458019857844,
        7346312699594450759,
        5167404730050641450,
    ]
    labels = np.arange(40) % 2
    each = examples(labels, np.where(np.arange(40) % 7 == 0, 1 - labels, labels))
    assert variance("f1", each) == pytest.approx(0.0038989721472542, rel=1e-9)
    # F(1 - F)(2 - F)^2 / 2n for n = 23 of 17 hits: the delta method.
    assert variance("f1", each) == pytest.approx(0.85 * 0.15 * 1.15**2 / 46, rel=0.1)


def test_the_bootstrap_of_many_rows_draws_some_of_them(monkeypatch):
    monkeypatch.setattr(scoring, "RESAMPLES", 400)
    random = np.random.default_rng(6)
    labels = random.standard_normal(4000)
    each = examples(labels, labels + random.standard_normal(4000))
    whole = variance("rmse", each)
    monkeypatch.setattr(scoring, "RESAMPLED_ROWS", 1000)
    assert variance("rmse", each) == pytest.approx(whole, rel=0.3)


def test_resamples_without_a_value_are_left_out_and_too_many_are_refused(monkeypatch):
    # A quarter of the resamples of three have one label only.
    assert 0 < variance("r2", examples([1, 2, 3], [1, 2, 4])) < math.inf
    monkeypatch.setattr(scoring, "RESAMPLED_ROWS", 2)
    mostly_one = examples([0] * 9 + [1], [0.1] * 9 + [0.8])
    assert "most resamples" in undefined("r2", mostly_one, variance)


def test_negatives_that_were_called_so_have_no_part_in_the_variance_of_f1():
    few = examples([1, 1, 0, 0, 1, 1], [0.9, 0.1, 0.8, 0.9, 0.9, 0.9])
    many = examples([*few.labels, *[0] * 500], [*few.scores, *[0.2] * 500])
    assert variance("f1", few) == variance("f1", many)


@pytest.mark.parametrize("name", ["auc", "recall", "balanced_accuracy"])
def test_one_example_of_a_class_shows_no_variance(name):
    each = examples([1, 0, 0, 0], [0.9, 0.1, 0.2, 0.3])
    assert statistic(name, each) == 1
    assert "one example" in undefined(name, each, variance)


# --- what a gate needs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["accuracy", "recall", "specificity", "precision"])
def test_a_proportion_counts_exactly_the_examples_that_it_is_of(name):
    labels, scores = [1] * 20 + [0] * 80, [0.9] * 15 + [0.1] * 70 + [0.9] * 15
    sizes = {"accuracy": 100, "recall": 20, "specificity": 80, "precision": 30}
    assert measure(name, examples(labels, scores)).effective == sizes[name]


@pytest.mark.parametrize(
    ("name", "most"),
    [("auc", 6 * 3 * 97 / 101), ("balanced_accuracy", 4 * 3 * 97 / 100), ("f1", 3)],
)
@pytest.mark.parametrize("perfect", [True, False])
def test_a_perfect_score_on_three_positives_counts_for_few_examples(name, most, perfect):
    labels = np.arange(100) < 3
    found = measure(name, examples(labels, labels if perfect else ~labels))
    assert found.value == (1 if perfect else 0)
    assert found.effective == pytest.approx(most if name != "f1" or perfect else 100)
    assert found.degrees == pytest.approx(found.effective - 1)


def test_the_effective_number_gives_back_the_variance():
    random = np.random.default_rng(8)
    labels = random.random(400) < 0.4
    each = examples(labels, 0.8 * labels + random.standard_normal(400))
    found = measure("auc", each)
    assert found.value * (1 - found.value) / found.effective == pytest.approx(found.variance)
    assert (found.rows, found.variance) == (400, variance("auc", each))


def test_a_brier_score_of_zero_still_may_not_have_seen_the_large_losses():
    labels = np.arange(20) % 2
    assert 18 < measure("brier", examples(labels, labels)).effective < 25
    # Of ordinary losses, those two count for little: fewer rows would do for a proportion of that value.
    random = np.random.default_rng(9)
    scores = random.random(1000)
    found = measure("brier", examples(random.random(1000) < scores, scores))
    assert found.value * (1 - found.value) / found.effective == pytest.approx(
        found.variance, rel=0.06
    )


@pytest.mark.parametrize(
    ("name", "labels", "scores", "words"),
    [
        ("mae", [1, 2, 3], [1, 2, 3], "shows no variance"),
        ("log_loss", [1, 1], [0.5, 0.5], "shows no variance"),
        ("mse", [1e200, 2], [-1e200, 3], "too large"),
        ("r2", [1e308, -1e308, 3], [1, 2, 3], "too large"),
    ],
)
def test_an_unbounded_loss_without_variance_or_limit_is_refused(name, labels, scores, words):
    assert words in undefined(name, examples(labels, scores), measure)


def test_an_unbounded_loss_counts_all_its_rows():
    found = measure("mae", examples([1, 2, 3], [1, 2, 4]))
    assert (found.effective, found.degrees, found.rows) == (None, 2, 3)
    assert found.variance == pytest.approx(1 / 9)


def test_examples_know_how_many_they_are():
    assert len(examples([1, 0], [0.1, 0.2])) == 2


def test_midranks_are_scipys():
    values = np.array([3.0, 1.0, 3.0, 2.0, 3.0, 1.0])
    assert scoring._midranks(values).tolist() == rankdata(values).tolist()
    assert math.isclose(statistic("auc", examples([1, 0, 1], [2, 2, 2])), 0.5)
