import numpy as np
import pytest
from narrow_model import NARROW

from fsat_kedro.datasets.keras_weights_dataset import KerasWeightsDataset
from fsat_kedro.modelling.crop_lengths import MINIMUM
from fsat_kedro.modelling.networks import (
    build_embedder,
    build_network,
    compiles_with_xla,
    load_network,
)
from fsat_kedro.parameters import Model

SIZES = {"n_mels": 32, "n_classes": 3}


@pytest.fixture(scope="module")
def mel_network(tiny_backbone):
    with tiny_backbone():
        return build_network(NARROW, weights=None, **SIZES)


@pytest.fixture(scope="module")
def mel_pca_network(tiny_backbone):
    import keras

    keras.utils.set_random_seed(1)
    with tiny_backbone():
        return build_network(NARROW, weights=None, **SIZES, n_components=5)


@pytest.fixture(scope="module")
def mobile_network():
    """Build a network with a real backbone."""
    return build_network(NARROW, weights=None, **SIZES)


def mels(n, length):
    return np.random.default_rng(length).random((n, 32, length, 1), dtype=np.float32)


def test_the_full_network_has_the_published_number_of_parameters():
    published = {"width": 1, "momentum": {"backbone": 0.999, "others": 0.99}}
    settings = Model.model_validate({**NARROW.model_dump(), **published})
    sizes = {"n_mels": 64, "n_classes": 41, "n_components": 350}
    network = build_network(settings, weights=None, **sizes)
    assert network.count_params() == 5_378_330
    assert sum(int(np.prod(weight.shape)) for weight in network.trainable_weights) == 5_339_676
    assert [x.name for x in network.inputs] == ["mel", "pca"]
    assert network.output_shape == (None, 41)


def test_the_head_is_that_of_the_published_network(mel_network, mel_pca_network):
    head = [
        ("dense_1536", 1536, "relu"),
        ("normalisation_1536", None, None),
        ("dense_384", 384, "relu"),
        ("normalisation_384", None, None),
        ("classes", 3, "softmax"),
    ]
    joined = [("pooling", None, None), ("pca_normalisation", None, None), ("features", None, None)]
    for network, n_features, first in ((mel_network, 8, joined[:1]), (mel_pca_network, 13, joined)):
        described = [
            (layer.name, config.get("units"), config.get("activation"))
            for layer in network.layers[1 + network.layers.index(network.get_layer("encoder")) :]
            if (config := layer.get_config()) and layer.name != "pca"
        ]
        assert described == first + head
        assert network.get_layer("dense_1536").kernel.shape == (n_features, 1536)
        norms = [layer for layer in network.layers if "normalisation" in layer.name]
        assert {layer.momentum for layer in norms} == {NARROW.momentum.others}
        assert [x.shape for x in network.inputs] == [(None, 32, None, 1), (None, 5)][
            : len(network.inputs)
        ]
    assert (mel_network.name, mel_pca_network.name) == ("mel", "mel_pca")


def test_a_network_starts_from_the_weights_of_a_backbone(tiny_backbone, tmp_path):
    path = tmp_path / "backbone.weights.h5"
    with tiny_backbone() as build:
        backbone = build(NARROW, None)
        backbone.save_weights(path)
        network = build_network(NARROW, weights=str(path), **SIZES)
    ours = network.get_layer("encoder").get_layer("tiny_backbone")
    for one, other in zip(ours.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("backend", ["tensorflow", "torch", "jax"])
def test_xla_is_for_jax(monkeypatch, backend):
    import keras

    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    assert compiles_with_xla() == (backend == "jax")


def test_half_precision_concerns_the_layers_only(tiny_backbone):
    import keras

    half = NARROW.model_copy(update={"precision": "mixed_bfloat16"})
    with tiny_backbone():
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


def test_the_shortest_batches_can_be_trained_on(mobile_network):
    mobile_network.compile(optimizer="sgd", loss="categorical_crossentropy", jit_compile=False)
    for length in (MINIMUM, MINIMUM + 1):
        loss = mobile_network.train_on_batch(mels(2, length), np.eye(3, dtype=np.float32)[:2])
        assert np.isfinite(loss)


@pytest.mark.parametrize("n_frames", [*range(MINIMUM, MINIMUM + 5), 95])
def test_the_tiny_backbone_of_tests_halves_as_the_real_one_does(
    mobile_network, mel_network, n_frames
):
    real, tiny = (
        network.get_layer("encoder").compute_output_shape((1, 32, n_frames, 1))
        for network in (mobile_network, mel_network)
    )
    assert real[:3] == tiny[:3]


def test_the_prediction_depends_on_both_inputs(mel_pca_network, rng):
    mel, pca = mels(3, 40), rng.normal(size=(3, 5)).astype(np.float32)
    # In training mode, because an untrained backbone predicts next to 0 for every sound.
    original, other_mel, other_pca = (
        np.asarray(mel_pca_network(inputs, training=True))
        for inputs in ([mel, pca], [mel[::-1], pca], [mel, pca[::-1]])
    )
    assert np.abs(other_mel - original).max() > 0.01
    assert np.abs(other_pca - original).max() > 0.01


def test_a_network_is_loaded_from_its_weights(tiny_backbone, mel_pca_network, tmp_path):
    dataset = KerasWeightsDataset(filepath=str(tmp_path / "mel_pca.weights.h5"))
    dataset.save(mel_pca_network)
    with tiny_backbone():
        loaded = load_network(NARROW, dataset.load(), **SIZES, n_components=5)
    assert loaded.jit_compile == compiles_with_xla()
    assert [x.shape for x in loaded.inputs] == [(None, 32, None, 1), (None, 5)]
    for ours, theirs in zip(loaded.get_weights(), mel_pca_network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_means_of_several_stages_are_joined_in_their_order():
    settings = NARROW.model_copy(update={"encoder": "mn04", "pooled_stages": (14, 12)})
    embedder = build_embedder(settings, weights=None, n_mels=32)
    mel = mels(2, 64)
    first, second = (
        np.asarray(each).mean(axis=(1, 2)) for each in embedder.get_layer("encoder")(mel)
    )
    found = embedder([mel])
    np.testing.assert_allclose(found, np.hstack([first, second]), rtol=1e-5, atol=1e-6)
    assert first.shape[1] != second.shape[1]
