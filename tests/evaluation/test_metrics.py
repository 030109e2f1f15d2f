import doctest

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, precision_recall_fscore_support, top_k_accuracy_score

from fsat_kedro.evaluation import metrics

# Ranked: 2 0 1 3 · 1 3 2 0 · 0 1 2 3
PROBABILITIES = np.array([[0.3, 0.1, 0.5, 0.05], [0.0, 0.6, 0.1, 0.3], [0.4, 0.3, 0.2, 0.1]])


def test_precision_is_one_over_the_rank_and_zero_beyond_k():
    precisions = metrics.average_precision_at_k(np.array([0, 1, 3]), PROBABILITIES)
    np.testing.assert_allclose(precisions, [1 / 2, 1, 0])
    assert metrics.map_at_k(np.array([0, 1, 3]), PROBABILITIES) == pytest.approx(0.5)
    assert metrics.map_at_k(np.array([1, 2, 3]), PROBABILITIES) == pytest.approx(2 / 9)
    assert metrics.map_at_k(np.array([1, 2, 3]), PROBABILITIES, k=4) == pytest.approx(11 / 36)


def test_accuracy_counts_only_the_first_rank():
    assert metrics.accuracy(np.array([2, 3, 0]), PROBABILITIES) == pytest.approx(2 / 3)


def test_equal_probabilities_rank_in_the_order_of_the_classes():
    probabilities = np.array([[0.25, 0.25, 0.25, 0.25], [0.1, 0.4, 0.1, 0.4]])
    assert metrics.top_k(probabilities, k=3).tolist() == [[0, 1, 2], [1, 3, 0]]
    precisions = metrics.average_precision_at_k(np.array([2, 2]), probabilities)
    np.testing.assert_allclose(precisions, [1 / 3, 0])
    many = np.tile([0.01, 0.03], 500)[None]
    assert metrics.top_k(many, k=3).tolist() == [[1, 3, 5]]


def test_fewer_classes_than_k_are_all_ranked():
    probabilities = np.array([[0.2, 0.8]])
    assert metrics.top_k(probabilities, k=3).tolist() == [[1, 0]]
    assert metrics.map_at_k(np.array([0]), probabilities) == pytest.approx(0.5)


def test_a_clip_of_an_unknown_class_scores_zero():
    targets = np.array([-1, 2])
    assert metrics.map_at_k(targets, PROBABILITIES[[0, 0]]) == pytest.approx(0.5)


@st.composite
def scored_clips(draw):
    n_clips, n_classes = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    # Few distinct values, so that ties are common.
    values = st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0])
    probabilities = draw(arrays(float, (n_clips, n_classes), elements=values))
    targets = draw(arrays(int, n_clips, elements=st.integers(0, n_classes - 1)))
    return targets, probabilities


@given(scored_clips(), st.integers(1, 5))
@settings(deadline=None)
def test_map_agrees_with_counting_the_classes_ahead(clips, k):
    targets, probabilities = clips
    scores = []
    for target, row in zip(targets, probabilities, strict=True):
        ahead = sum(p > row[target] for p in row) + sum(p == row[target] for p in row[:target])
        scores.append(1 / (ahead + 1) if ahead < k else 0)
    assert metrics.map_at_k(targets, probabilities, k=k) == pytest.approx(sum(scores) / len(scores))


def average_precision_of_a_list(relevant, ranked, k):
    """Mean, over the relevant items, of the precision at the rank where each is found."""
    found, precisions = 0, 0.0
    for rank, item in enumerate(ranked[:k], start=1):
        if item in relevant and item not in ranked[: rank - 1]:
            found += 1
            precisions += found / rank
    return precisions / min(len(relevant), k)


@given(scored_clips(), st.integers(1, 5))
@settings(deadline=None)
def test_map_agrees_with_the_definition_over_ranked_lists(clips, k):
    targets, probabilities = clips
    scores = []
    for target, row in zip(targets.tolist(), probabilities.tolist(), strict=True):
        ranked = sorted(range(len(row)), key=lambda index: -row[index])
        scores.append(average_precision_of_a_list([target], ranked, k))
    assert metrics.map_at_k(targets, probabilities, k=k) == pytest.approx(sum(scores) / len(scores))


@st.composite
def clips_without_ties(draw):
    n_clips, n_classes = draw(st.integers(2, 30)), draw(st.integers(4, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.integers(n_classes, size=n_clips), rng.dirichlet(np.ones(n_classes), size=n_clips)


@given(clips_without_ties())
@settings(deadline=None)
def test_scores_agree_with_scikit_learn(clips):
    targets, probabilities = clips
    labels = range(probabilities.shape[1])
    predicted = probabilities.argmax(axis=1)
    scores = metrics.score_clips(targets, probabilities, seed=0)
    assert scores["accuracy"] == pytest.approx(accuracy_score(targets, predicted))
    among_three = metrics.average_precision_at_k(targets, probabilities) > 0
    top_three = top_k_accuracy_score(targets, probabilities, k=3, labels=labels)
    assert among_three.mean() == pytest.approx(top_three)
    n_clips, _, precision, recall = metrics.scores_by_class(targets, probabilities)
    expected = precision_recall_fscore_support(
        targets, predicted, labels=labels, zero_division=np.nan
    )
    np.testing.assert_allclose(precision, expected[0])
    np.testing.assert_allclose(recall, expected[1])
    np.testing.assert_array_equal(n_clips, expected[3])


@pytest.mark.parametrize(
    ("targets", "probabilities", "message"),
    [
        (np.zeros(2, int), np.zeros((3, 4)), r"targets \(2,\) and probabilities \(3, 4\)"),
        (np.zeros(3, int), np.zeros(3), r"targets \(3,\) and probabilities \(3,\)"),
        (np.zeros((3, 1), int), np.zeros((3, 4)), r"targets \(3, 1\)"),
        (np.zeros(0, int), np.zeros((0, 4)), "no clips"),
        (np.zeros(1, int), np.array([[0.5, np.nan]]), "NaN"),
        (np.zeros(1, int), np.array([[0.5, np.inf]]), "infinite"),
    ],
)
def test_invalid_targets_or_probabilities_raise(targets, probabilities, message):
    with pytest.raises(ValueError, match=message):
        metrics.map_at_k(targets, probabilities)


@pytest.mark.parametrize("dtype", ["string", object])
def test_class_indices_are_minus_one_for_missing_and_unknown_labels(dtype):
    labels = pd.Series(["Meow", pd.NA, "Bark", "Moo"], dtype=dtype)
    indices = metrics.class_indices(labels, ["Bark", "Meow"])
    assert indices.tolist() == [1, -1, 0, -1]
    assert indices.dtype == np.int64


# Intervals

one_over_ranks = st.sampled_from([0, 1 / 3, 1 / 2, 1])


@given(arrays(float, st.integers(1, 50), elements=one_over_ranks), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_an_interval_contains_the_mean_and_is_reproducible(scores, seed):
    low, high = metrics.bootstrap_interval(scores, seed=seed)
    assert scores.min() - 1e-12 <= low <= scores.mean() + 1e-12
    assert scores.mean() - 1e-12 <= high <= scores.max() + 1e-12
    assert metrics.bootstrap_interval(scores, seed=seed) == (low, high)


@pytest.mark.parametrize("n_clips", [1, 2, 100])
def test_perfect_scores_have_an_interval_from_one_to_one(n_clips):
    scores = metrics.score_clips(np.zeros(n_clips, int), np.tile([0.9, 0.1], (n_clips, 1)), seed=0)
    assert scores.pop("n_clips") == n_clips
    assert set(scores.values()) == {1.0}


def test_the_seed_decides_the_intervals_of_scores(rng):
    targets, probabilities = rng.integers(4, size=40), rng.dirichlet(np.ones(4), size=40)
    first, again, other = (
        metrics.score_clips(targets, probabilities, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_four_times_the_clips_halve_the_interval(rng):
    scores = rng.choice([0, 1 / 3, 1 / 2, 1], size=400)
    (low, high), (low_4, high_4) = (
        metrics.bootstrap_interval(np.tile(scores, n), seed=0) for n in (1, 4)
    )
    assert (high_4 - low_4) / (high - low) == pytest.approx(1 / 2, rel=0.1)


def test_an_interval_agrees_with_multinomial_resampling(rng):
    scores = rng.choice([0, 1 / 3, 1 / 2, 1], size=300, p=[0.1, 0.1, 0.2, 0.6])
    # How often each of 300 equally likely clips is drawn in 300 draws.
    counts = rng.multinomial(300, np.full(300, 1 / 300), size=10_000)
    expected = np.quantile(counts @ scores / 300, [0.025, 0.975])
    np.testing.assert_allclose(metrics.bootstrap_interval(scores, seed=0), expected, atol=0.004)


def test_about_95_percent_of_intervals_contain_the_true_mean(rng):
    values, fractions = np.array([1, 1 / 2, 1 / 3, 0]), np.array([0.8, 0.08, 0.06, 0.06])
    low, high = metrics.bootstrap_interval(rng.choice(values, size=(200, 100), p=fractions), seed=0)
    contains = (low <= values @ fractions) & (values @ fractions <= high)
    # Three standard deviations for 200 trials; the percentile bootstrap is a little narrow.
    assert 0.89 <= contains.mean() <= 0.99


def test_each_score_has_its_own_interval():
    scores = metrics.score_clips(np.array([0, 1, 3]), PROBABILITIES, seed=0)
    assert tuple(scores) == metrics.SCORES
    assert scores["n_clips"] == 3
    # Ranks 2, 1 and 4. One resample of 27 is of the second clip alone, one of the third.
    assert scores["map_at_3"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert (scores["map_at_3_low"], scores["map_at_3_high"]) == (0, 1)
    assert scores["accuracy"] == pytest.approx(1 / 3)
    assert (scores["accuracy_low"], scores["accuracy_high"]) == (0, 1)


# By class


@pytest.mark.filterwarnings("error")
def test_a_class_without_clips_has_no_recall_and_no_map():
    targets, probabilities = np.array([0, 0]), np.array([[0.9, 0.1], [0.4, 0.6]])
    np.testing.assert_array_equal(
        metrics.confusion_counts(targets, probabilities), [[1, 1], [0, 0]]
    )
    n_clips, map_at_3, precision, recall = metrics.scores_by_class(targets, probabilities)
    np.testing.assert_array_equal(n_clips, [2, 0])
    np.testing.assert_allclose(map_at_3, [0.75, np.nan])
    np.testing.assert_allclose(precision, [1, 0])
    np.testing.assert_allclose(recall, [0.5, np.nan])


def test_a_clip_of_an_unknown_class_lowers_the_precision_of_its_first_tag():
    n_clips, map_at_3, precision, recall = metrics.scores_by_class(
        np.array([0, -1]), np.array([[0.9, 0.1], [0.8, 0.2]])
    )
    np.testing.assert_array_equal(n_clips, [1, 0])
    np.testing.assert_allclose(map_at_3, [1, np.nan])
    np.testing.assert_allclose(precision, [0.5, np.nan])
    np.testing.assert_allclose(recall, [1, np.nan])


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([0, -1], "targets from -1 to 0: expected 0 to 1"),
        ([2, 1], "targets from 1 to 2: expected 0 to 1"),
    ],
)
def test_confusion_counts_require_known_classes(targets, message):
    with pytest.raises(ValueError, match=message):
        metrics.confusion_counts(np.array(targets), np.full((2, 2), 0.5))


def test_confusion_counts_are_integers():
    counts = metrics.confusion_counts(np.array([0, 1, 1]), PROBABILITIES[:, :2])
    assert counts.tolist() == [[1, 0], [1, 1]]
    assert counts.dtype == np.int64


def test_confused_pairs_are_sorted_by_clips_then_by_class():
    counts = np.array([[9, 2, 0], [1, 0, 5], [2, 1, 7]])
    true, predicted = metrics.confused_pairs(counts)
    assert list(zip(true.tolist(), predicted.tolist(), strict=True)) == [
        *[(1, 2)],  # 5 clips
        *[(0, 1), (2, 0)],  # 2
        *[(1, 0), (2, 1)],  # 1
    ]


def test_many_equally_frequent_pairs_stay_in_the_order_of_classes():
    counts = np.resize([1, 2, 3], (40, 40))
    true, predicted = metrics.confused_pairs(counts)
    pairs = [(i, j) for i in range(40) for j in range(40) if i != j]
    expected = sorted(pairs, key=lambda pair: -counts[pair])
    assert list(zip(true.tolist(), predicted.tolist(), strict=True)) == expected


def test_perfect_predictions_have_no_confused_pairs():
    assert [len(x) for x in metrics.confused_pairs(np.diag([3, 0, 2]))] == [0, 0]


def test_reliability_worked_by_hand():
    confidence = np.array([0.9, 0.2, 0.8, 0.3, 0.7, 0.1])
    correct = np.array([True, False, True, True, False, False])
    means, accuracies, low, high = metrics.reliability_curve(confidence, correct, min_per_bin=3)
    np.testing.assert_allclose(means, [0.2, 0.8])
    np.testing.assert_allclose(accuracies, [1 / 3, 2 / 3])
    # Wilson's interval of 1 in 3, with z = 1.96.
    z = 1.959964
    centre, half = (1 + z**2 / 2) / (3 + z**2), z / (3 + z**2) * (2 / 3 + z**2 / 4) ** 0.5
    np.testing.assert_allclose([low[0], high[0]], [centre - half, centre + half], rtol=1e-6)


def test_reliability_of_few_or_equally_confident_predictions():
    for n in (1, 5, 39, 40, 500):
        means, accuracies, low, high = metrics.reliability_curve(np.ones(n), np.ones(n, bool))
        assert len(means) == min(10, max(1, n // 20))
        assert (accuracies == 1).all()
        assert (low < 1).all()
        np.testing.assert_allclose(high, 1)


def test_equally_confident_predictions_stay_in_their_order():
    confidence = np.tile([0.5, 0.6], 500)
    # In each half of the predictions, sorted by confidence, the first 250 are correct.
    correct = np.arange(1000) < 500
    _, accuracies, *_ = metrics.reliability_curve(confidence, correct)
    np.testing.assert_allclose(accuracies, [1, 1, 0.5, 0, 0] * 2)


def test_the_worked_examples_are_right():
    result = doctest.testmod(metrics)
    assert result.attempted > 0
    assert result.failed == 0
