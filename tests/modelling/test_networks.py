import numpy as np
import pytest

from fsat_kedro.datasets.keras_weights_dataset import KerasWeightsDataset
from fsat_kedro.modelling.crop_lengths import MINIMUM
from fsat_kedro.modelling.networks import build_network, load_network
from fsat_kedro.parameters import Model

NARROW = Model(
    weights=None, width=0.35, momentum={"backbone": 0.9, "others": 0.9}, precision="float32"
)
SIZES = {"n_mels": 32, "n_classes": 3}


@pytest.fixture(scope="module")
def mel_network():
    return build_network(NARROW, weights=None, **SIZES)


@pytest.fixture(scope="module")
def mel_pca_network():
    import keras

    keras.utils.set_random_seed(1)
    return build_network(NARROW, weights=None, **SIZES, n_components=5)


def mels(n, length):
    return np.random.default_rng(length).random((n, 32, length, 1), dtype=np.float32)


def test_the_full_network_has_the_published_number_of_parameters():
    settings = Model(
        weights=None, width=1, momentum={"backbone": 0.999, "others": 0.99}, precision="float32"
    )
    sizes = {"n_mels": 64, "n_classes": 41, "n_components": 350}
    network = build_network(settings, weights=None, **sizes)
    assert network.count_params() == 5_378_330
    assert sum(int(np.prod(weight.shape)) for weight in network.trainable_weights) == 5_339_676
    assert [x.name for x in network.inputs] == ["mel", "pca"]
    assert network.output_shape == (None, 41)


def test_half_precision_concerns_the_layers_only():
    import keras

    half = NARROW.model_copy(update={"precision": "mixed_bfloat16"})
    network = build_network(half, weights=None, **SIZES, n_components=5)
    assert {layer.compute_dtype for layer in network.get_layer("encoder").layers} == {"bfloat16"}
    assert {weight.dtype for weight in network.weights} == {"float32"}
    assert network.outputs[0].dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


def test_a_network_predicts_probabilities_for_any_length(mel_pca_network, rng):
    pca = rng.normal(size=(2, 5)).astype(np.float32)
    for length in (33, 64):
        probabilities = np.asarray(mel_pca_network([mels(2, length), pca], training=False))
        assert probabilities.shape == (2, 3)
        assert (probabilities > 0).all()
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("length", [MINIMUM, MINIMUM + 1])
def test_the_shortest_batches_can_be_trained_on(mel_network, length):
    mel_network.compile(optimizer="sgd", loss="categorical_crossentropy", jit_compile=False)
    loss = mel_network.train_on_batch(mels(2, length), np.eye(3, dtype=np.float32)[:2])
    assert np.isfinite(loss)


def test_the_prediction_depends_on_both_inputs(mel_pca_network, rng):
    mel, pca = mels(3, 40), rng.normal(size=(3, 5)).astype(np.float32)
    # In training mode, because an untrained backbone predicts next to 0 for every sound.
    original, other_mel, other_pca = (
        np.asarray(mel_pca_network(inputs, training=True))
        for inputs in ([mel, pca], [mel[::-1], pca], [mel, pca[::-1]])
    )
    assert np.abs(other_mel - original).max() > 0.01
    assert np.abs(other_pca - original).max() > 0.01


def test_a_network_is_loaded_from_its_weights(mel_pca_network, tmp_path, rng):
    dataset = KerasWeightsDataset(filepath=str(tmp_path / "mel_pca.weights.h5"))
    dataset.save(mel_pca_network)
    loaded = load_network(NARROW, dataset.load(), **SIZES, n_components=5)
    for ours, theirs in zip(loaded.get_weights(), mel_pca_network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
