import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fsat_kedro import metrics

# Ranked: 2 0 1 3 · 1 3 2 0 · 0 1 2 3
PROBABILITIES = np.array([[0.3, 0.1, 0.5, 0.05], [0.0, 0.6, 0.1, 0.3], [0.4, 0.3, 0.2, 0.1]])


def test_precision_is_one_over_the_rank_and_zero_beyond_k():
    precisions = metrics.average_precision_at_k(np.array([0, 1, 3]), PROBABILITIES)
    np.testing.assert_allclose(precisions, [1 / 2, 1, 0])
    assert metrics.map_at_k(np.array([0, 1, 3]), PROBABILITIES) == pytest.approx(0.5)
    assert metrics.map_at_k(np.array([1, 2, 3]), PROBABILITIES) == pytest.approx(2 / 9)
    assert metrics.map_at_k(np.array([1, 2, 3]), PROBABILITIES, k=4) == pytest.approx(11 / 36)


def test_accuracy_counts_first_places_alone():
    assert metrics.accuracy(np.array([2, 3, 0]), PROBABILITIES) == pytest.approx(2 / 3)


def test_equal_probabilities_rank_in_the_order_of_the_classes():
    probabilities = np.array([[0.25, 0.25, 0.25, 0.25], [0.1, 0.4, 0.1, 0.4]])
    assert metrics.rank_classes(probabilities, k=3).tolist() == [[0, 1, 2], [1, 3, 0]]
    precisions = metrics.average_precision_at_k(np.array([2, 2]), probabilities)
    np.testing.assert_allclose(precisions, [1 / 3, 0])
    many = np.tile([0.01, 0.03], 500)[None]
    assert metrics.rank_classes(many, k=3).tolist() == [[1, 3, 5]]


def test_fewer_classes_than_k_are_all_ranked():
    probabilities = np.array([[0.2, 0.8]])
    assert metrics.rank_classes(probabilities, k=3).tolist() == [[1, 0]]
    assert metrics.map_at_k(np.array([0]), probabilities) == pytest.approx(0.5)


def test_a_clip_of_no_known_class_scores_zero():
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
def test_map_agrees_with_counting_the_classes_ahead(clips, k):
    targets, probabilities = clips
    scores = []
    for target, row in zip(targets, probabilities, strict=True):
        ahead = sum(p > row[target] for p in row) + sum(p == row[target] for p in row[:target])
        scores.append(1 / (ahead + 1) if ahead < k else 0)
    assert metrics.map_at_k(targets, probabilities, k=k) == pytest.approx(sum(scores) / len(scores))


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
def test_what_cannot_be_scored_is_an_error(targets, probabilities, message):
    with pytest.raises(ValueError, match=message):
        metrics.map_at_k(targets, probabilities)


@pytest.mark.parametrize("dtype", ["string", object])
def test_labels_become_positions_and_minus_one_where_there_is_none(dtype):
    labels = pd.Series(["Meow", pd.NA, "Bark", "Moo"], dtype=dtype)
    indices = metrics.class_indices(labels, ["Bark", "Meow"])
    assert indices.tolist() == [1, -1, 0, -1]
    assert indices.dtype == np.int64
