"""Shared views with a encoder whose columns are means of 32 frames each, so that all is exact."""

import itertools

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.inference.ensemble import predict_views
from fsat_kedro.inference.shared_views import _stretches, predict_shared_views, window_weights
from fsat_kedro.modelling.batches import Clips, ViewBatches
from fsat_kedro.modelling.networks import ENCODER

N_MELS = 4


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    mel = keras.Input((N_MELS, None, 1), name="mel")
    columns = layers.AveragePooling2D((N_MELS, 32), padding="same")(mel)
    encoder = keras.Model(mel, layers.Conv2D(6, 1, activation="relu")(columns), name=ENCODER)
    pca = keras.Input((2,), name="pca")
    pooled = layers.GlobalAveragePooling2D(name="pooling")(encoder(mel))
    features = layers.Concatenate()([pooled, layers.BatchNormalization()(pca)])
    return keras.Model([mel, pca], layers.Dense(3, activation="softmax")(features))


def views_of(lengths, rows, *, seed=0, n_spans=1, n_frames=(64, 200, 500, 500, 1000), names=None):
    """Views of clips that get louder from frame to frame, each by its own measure."""
    slopes = np.linspace(1, 2, len(n_frames))
    mels = [
        np.outer(slope * np.arange(n) / n, np.ones(N_MELS))
        for slope, n in zip(slopes, n_frames, strict=True)
    ]
    clips = Clips(
        np.array(rows),
        names or [f"{clip}.wav" for clip in range(len(n_frames))],
        RaggedArray(np.concatenate(mels).astype(np.float32), np.cumsum([0, *n_frames])),
        np.array([[clip, 0.5] for clip in range(len(n_frames))]),
        {"minimum": 0.0, "maximum": 1.0},
    )
    return ViewBatches(clips, lengths=lengths, n_spans=n_spans, batch_size=2, seed=seed)


def test_a_window_counts_its_columns_by_hand():
    weights = window_weights(np.array([0, 16, 40, 90]), np.array([64, 64, 33, 20]), 4)
    np.testing.assert_allclose(
        weights,
        [
            [0.5, 0.5, 0, 0],
            [0.25, 0.5, 0.25, 0],
            [0, 0.375, 0.5, 0.125],
            [0, 0, 6 / 32, 26 / 32],
        ],
    )


@given(st.integers(0, 300), st.integers(1, 300), st.integers(0, 5))
def test_a_window_counts_as_one_wherever_it_lies(start, length, surplus):
    n_columns = -(-(start + length) // 32) + surplus
    (weights,) = window_weights(np.array([start]), np.array([length]), n_columns)
    assert weights.sum() == pytest.approx(1, rel=1e-5)
    assert (weights >= 0).all()
    assert not weights[: start // 32].any()


@given(st.lists(st.tuples(st.integers(-50, 400), st.integers(1, 100)), min_size=1, max_size=9))
def test_stretches_hold_every_view_once_and_nothing_between(views):
    starts, lengths = zip(*views, strict=True)
    stretches = list(_stretches(7, starts, lengths))
    assert sorted(view for stretch in stretches for view in stretch.views) == list(
        range(len(views))
    )
    stops = []
    for stretch in stretches:
        assert stretch.length % 64 == 0
        stop = max(starts[view] + lengths[view] for view in stretch.views)
        assert stretch.start == min(starts[view] for view in stretch.views)
        assert stretch.length - 64 < stop - stretch.start <= stretch.length
        shown = {t for v in stretch.views for t in range(starts[v], starts[v] + lengths[v])}
        assert shown == set(range(stretch.start, stop))
        stops.append((stretch.start, stop))
    assert all(stop < start for (_, stop), (start, _) in itertools.pairwise(stops))


def test_a_view_of_a_whole_clip_is_that_of_the_network(network):
    views = views_of([64], [0], n_frames=(64,))
    expected = predict_views(network, views)
    np.testing.assert_allclose(predict_shared_views(network, views), expected, atol=1e-5)


def test_views_inside_a_clip_are_nearly_those_of_the_network(network):
    # Their columns are means over frames of a slope, which interpolation gives as they are.
    views = views_of([32, 64, 96], [3, 4, 2], n_spans=4)
    expected, ours = predict_views(network, views), predict_shared_views(network, views)
    assert np.isnan(ours[[0, 1]]).all()
    np.testing.assert_allclose(ours[2:], expected[2:], atol=0.02)


def test_a_clip_has_the_same_tags_in_whatever_company(network):
    names = ["a", "b", "c", "d", "e"]
    rows = [0, 1, 2, 3, 4]
    alone = [
        predict_shared_views(network, views_of([50, 90], [row], names=names))[row] for row in rows
    ]
    together = predict_shared_views(network, views_of([50, 90], rows[::-1], names=names))
    np.testing.assert_allclose(together, alone, rtol=1e-5)
