"""The probe compared with scikit-learn, on clips of a small network with random weights."""

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.errors import InputError
from fsat_kedro.modelling import crops
from fsat_kedro.modelling.crops import Clips, WholeBatches
from fsat_kedro.modelling.encoders import ENCODER
from fsat_kedro.modelling.networks import CLASSES, POOLING
from fsat_kedro.modelling.probe import average_weights, embed_clips, fit_head

N_CLIPS, N_BANDS, N_CLASSES = 24, 8, 4
ROWS = np.random.default_rng(3).permutation(N_CLIPS)[:18]


COUNTS = np.ones(len(ROWS))


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    mel = keras.Input((N_BANDS, None, 1), name="mel")
    encoder = keras.Model(mel, layers.Conv2D(6, 3, strides=2, activation="relu")(mel), name=ENCODER)
    features = layers.GlobalAveragePooling2D(name=POOLING)(encoder(mel))
    classes = layers.Dense(N_CLASSES, activation="softmax", name=CLASSES)(features)
    return keras.Model([mel], classes)


@pytest.fixture(scope="module")
def embedder(network):
    return keras.Model(network.inputs, network.get_layer(POOLING).output)


def clips_of(labels):
    """Return clips of several lengths whose sounds have something to do with their labels."""
    rng = np.random.default_rng(0)
    lengths = rng.choice([33, 40, 64], N_CLIPS)
    values = rng.random((lengths.sum(), N_BANDS), np.float32)
    # Sounds of a class have something in common, but are not easily told apart.
    values += 0.3 * np.repeat(labels, lengths)[:, None] * (np.arange(N_BANDS) % 2)
    fnames = [f"{clip}.wav" for clip in range(N_CLIPS)]
    mels = RaggedArray(values.astype(np.float32), np.cumsum([0, *lengths]))
    statistics = {"minimum": 0.0, "maximum": 1.0, "bounded": False}
    return Clips(ROWS, fnames, mels, None, statistics)


def mel_of(clips, row):
    return clips.mels[row].T[None, ..., None]


def features_of(network, clips):
    """Compute the mean of the encoder's map over both axes, clip by clip."""
    encoder = network.get_layer(ENCODER)
    maps = [np.asarray(encoder(mel_of(clips, row)))[0] for row in ROWS]
    return np.stack([each.mean(axis=(0, 1)) for each in maps])


@pytest.mark.parametrize(
    "present", [[0, 1, 2, 3], [0, 1, 3], [1, 2], [0, 3]], ids=["all", "without one", "two", "ends"]
)
def test_the_probabilities_are_those_of_scikit_learn(network, present):
    labels = np.array(present)[np.arange(N_CLIPS) % len(present)]
    clips = clips_of(labels)
    features = features_of(network, clips)
    counts = np.random.default_rng(1).random(len(ROWS))
    fit_head(network, features, labels[ROWS], counts)
    expected = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=10_000))
    expected.fit(features, labels[ROWS], logisticregression__sample_weight=counts)
    expected = expected.predict_proba(features)
    found = np.concatenate([network([mel_of(clips, row)]) for row in ROWS])
    np.testing.assert_allclose(found[:, present], expected, rtol=1e-3, atol=1e-5)
    absent = [index for index in range(N_CLASSES) if index not in present]
    assert (found[:, absent] < 1e-8).all()
    # Neither certain nor without an opinion, or the comparison says nothing.
    assert np.ptp(expected, axis=0).max() > 0.02
    assert expected.max() < 0.9999


def test_a_single_class_is_certain(network):
    clips = clips_of(np.full(N_CLIPS, 2))
    fit_head(network, features_of(network, clips), np.full(len(ROWS), 2), COUNTS)
    for row in ROWS:
        np.testing.assert_allclose(network([mel_of(clips, row)]), [[0, 0, 1, 0]], atol=1e-8)


def test_embeddings_of_another_encoder_are_refused(network):
    with pytest.raises(InputError, match=r"have 5 features, .* makes 6: .*--nodes training.embed"):
        fit_head(network, np.zeros((4, 5)), np.array([0, 1, 0, 1]), np.ones(4))


def test_weights_are_averaged_with_those_of_the_start():
    network = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    network.set_weights([np.array([[1.0], [3.0]]), np.array([-2.0])])
    average_weights(network, [np.array([[5.0], [3.0]]), np.array([0.0])], 0.25)
    kernel, bias = network.get_weights()
    assert (kernel.tolist(), bias.tolist()) == ([[2.0], [3.0]], [-1.5])


def test_only_the_head_is_changed(network):
    before = network.get_layer(ENCODER).get_weights()
    labels = np.arange(N_CLIPS) % N_CLASSES
    fit_head(network, features_of(network, clips_of(labels)), labels[ROWS], COUNTS)
    for one, other in zip(before, network.get_layer(ENCODER).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_embedding_is_in_the_row_of_its_clip_and_nan_for_other_clips(network, embedder):
    clips = clips_of(np.zeros(N_CLIPS, int))
    found = embed_clips(embedder, WholeBatches(clips, batch_size=4))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[ROWS], features_of(network, clips), rtol=1e-4)
    others = np.setdiff1d(np.arange(N_CLIPS), ROWS)
    assert np.isnan(found[others]).all()


def test_the_embedding_of_a_clip_in_pieces_is_their_mean_by_frames(network, embedder, monkeypatch):
    clips = clips_of(np.zeros(N_CLIPS, int))
    monkeypatch.setattr(crops, "LONGEST_PIECE", 63)
    found = embed_clips(embedder, WholeBatches(clips, batch_size=4))
    row = ROWS[np.flatnonzero(clips.mels.lengths[ROWS] == 64)[0]]
    encoder, mel = network.get_layer(ENCODER), mel_of(clips, row)
    halves = [np.asarray(encoder(mel[:, :, part])) for part in (slice(32), slice(32, 64))]
    expected = sum(half.mean(axis=(0, 1, 2)) for half in halves) / 2
    np.testing.assert_allclose(found[row], expected, rtol=1e-5)
