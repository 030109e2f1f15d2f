import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from narrow_model import NARROW

from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.inference import runtimes
from fsat_kedro.inference.ensemble import (
    geometric_mean,
    log_probabilities,
    predict_crops,
    predict_fold,
    rank_labels,
)
from fsat_kedro.modelling.networks import build_network
from fsat_kedro.parameters import Inference, NetworkSettings, TestTimeCrops


def test_a_geometric_mean_matches_a_worked_example():
    folds = [np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]]), np.array([[0.8, 0.2]])]
    # Products 0.072 and 0.018, their cube roots in proportion 4 ** (1 / 3) to 1.
    first = 4 ** (1 / 3) / (4 ** (1 / 3) + 1)
    mean = geometric_mean([log_probabilities(fold) for fold in folds])
    np.testing.assert_allclose(mean, [[first, 1 - first]])


def test_the_smallest_probabilities_do_not_underflow():
    tiny = np.array([[1e-37, 1e-38, 1e-37]], np.float32)
    logs = log_probabilities(tiny)
    assert logs.dtype == np.float64
    mean = geometric_mean([logs] * 10)
    smallest = np.finfo(np.float32).tiny / 1e-37
    np.testing.assert_allclose(mean, [np.array([1, smallest, 1]) / (2 + smallest)], rtol=1e-6)
    assert np.isfinite(log_probabilities(np.array([0.0, 1e-45], np.float32))).all()


@given(st.permutations(range(5)), st.integers(0, 99))
def test_the_order_of_folds_does_not_matter(order, seed):
    logs = np.log(np.random.default_rng(seed).dirichlet(np.ones(4), size=(5, 3)))
    mean = geometric_mean(list(logs))
    np.testing.assert_allclose(geometric_mean([logs[fold] for fold in order]), mean, rtol=1e-12)
    np.testing.assert_allclose(mean.sum(axis=1), 1)


def test_the_mean_of_one_fold_is_its_prediction():
    probabilities = np.array([[0.2, 0.5, 0.3]])
    np.testing.assert_allclose(geometric_mean([np.log(probabilities)]), probabilities)


def test_labels_are_ranked_best_first():
    probabilities = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.1, 0.4, 0.1]])
    ranked = rank_labels(probabilities, ["a", "b", "c", "d"])
    assert ranked.filter(like="tag_").to_numpy().tolist() == [["d", "c", "b"], ["a", "c", "b"]]
    np.testing.assert_array_equal(
        ranked.filter(like="probability_"), [[0.4, 0.3, 0.2], [0.4, 0.4, 0.1]]
    )


def test_a_rejected_clip_has_no_labels_and_two_classes_have_no_third():
    ranked = rank_labels(np.array([[0.2, 0.8], [np.nan, np.nan]]), ["Bark", "Meow"])
    assert list(ranked) == [f"{kind}_{k}" for k in (1, 2, 3) for kind in ("tag", "probability")]
    first, rejected = ranked.itertuples(index=False)
    assert first[:4] == ("Meow", 0.8, "Bark", 0.2)
    assert pd.isna([*first[4:], *rejected]).all()
    assert (ranked.filter(like="tag_").dtypes == "string").all()


class LengthNetwork:
    """A network that predicts the length of a crop and the first component of its clip."""

    output_shape = (None, 2)

    def predict_on_batch(self, inputs):
        mel, pca = inputs
        lengths = np.full(len(mel), mel.shape[2] / 100)
        return np.stack([lengths, pca[:, 0]], axis=1).astype(np.float32)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_clips_get_the_mean_logarithm_over_their_crops_and_others_nan(rng, batch_size):
    from fsat_kedro.modelling.crops import Clips, CropBatches

    clips = Clips(
        np.array([4, 1, 2]),
        [f"{clip}.wav" for clip in range(5)],
        RaggedArray(rng.random((50, 3)), np.arange(0, 51, 10)),
        np.array([[0.1], [0.2], [0.3], [0.4], [0.5]]),
        {"minimum": 0.0, "maximum": 1.0, "shortest": 10, "longest": 40},
    )
    crops = TestTimeCrops(n_lengths=4, crops_per_length=2, subset="all", batch_size=batch_size)
    batches = CropBatches(clips, crops, seed=(0,))
    logs = predict_crops(LengthNetwork(), batches)
    assert logs.shape == (5, 2)
    assert np.isnan(logs[[0, 3]]).all()
    np.testing.assert_allclose(
        logs[[1, 2, 4], 0], np.log([0.1 * 0.2 * 0.3 * 0.4] * 3) / 4, rtol=1e-6
    )
    np.testing.assert_allclose(logs[[1, 2, 4], 1], np.log([0.2, 0.3, 0.5]), rtol=1e-6)


def test_pieces_of_whole_clips_count_by_their_frames(rng, monkeypatch):
    from fsat_kedro.modelling import crops

    monkeypatch.setattr(crops, "LONGEST_PIECE", 40)
    clips = crops.Clips(
        np.array([2, 0]),
        [f"{clip}.wav" for clip in range(3)],
        RaggedArray(rng.random((40 + 9 + 79, 3)), np.array([0, 40, 49, 128])),
        np.array([[0.1], [0.2], [0.3]]),
        {"minimum": 0.0, "maximum": 1.0},
    )
    logs = predict_crops(LengthNetwork(), crops.WholeBatches(clips, batch_size=2))
    assert np.isnan(logs[1]).all()
    # A piece of 40 frames, and for the long clip one of 39 too.
    both = (40 * np.log(0.4) + 39 * np.log(0.39)) / 79
    np.testing.assert_allclose(logs[[0, 2], 0], [np.log(0.4), both], rtol=1e-6)
    np.testing.assert_allclose(logs[[0, 2], 1], np.log([0.1, 0.3]), rtol=1e-6)


# One fold


class Converted:
    """Replace OpenVINO by a network whose probabilities sum to 2, so that tests recognise it."""

    def __init__(self, network):
        self.network, self.output_shape = network, network.output_shape

    def predict_on_batch(self, inputs):
        return 2 * self.network.predict_on_batch(inputs)


@pytest.mark.parametrize(("n_components", "converts"), [(None, False), (2, True)])
def test_a_fold_predicts_its_own_crops_by_its_weights_in_its_runtime(
    rng, tmp_path, monkeypatch, tiny_backbone, n_components, converts
):
    from fsat_kedro.modelling.crops import Clips, CropBatches

    asked = []
    monkeypatch.setattr(runtimes, "convert", lambda network: network)
    monkeypatch.setattr(runtimes, "OpenVINONetwork", Converted)
    monkeypatch.setattr(runtimes, "uses_openvino", lambda *ask: asked.append(ask) or converts)
    clips = Clips(
        np.array([2, 0]),
        [f"{clip}.wav" for clip in range(3)],
        RaggedArray(rng.random((300, 32)), np.arange(0, 301, 100)),
        None if n_components is None else rng.random((3, n_components)),
        {"minimum": 0.0, "maximum": 1.0, "shortest": 32, "longest": 40},
    )
    crops = TestTimeCrops(n_lengths=3, crops_per_length=2, subset="all", batch_size=4)
    settings = NetworkSettings.model_construct(
        model=NARROW, test_time_crops=crops, inference=Inference(runtime="auto"), seed=7
    )
    with tiny_backbone():
        sizes = {"n_mels": 32, "n_classes": 4, "n_components": n_components}
        network = build_network(NARROW, weights=None, **sizes)
        network.save_weights(tmp_path / "fold.weights.h5")
        logs = predict_fold(
            tmp_path / "fold.weights.h5", clips, n_classes=4, settings=settings, fold=3
        )
    expected = predict_crops(network, CropBatches(clips, crops, seed=(7, 3)))
    np.testing.assert_allclose(logs, expected + np.log(2) * converts, rtol=1e-5)
    assert asked == [(settings.inference, 12)]
