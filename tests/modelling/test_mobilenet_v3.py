"""The encoders that were trained on AudioSet. Their weights are random, but for the last test."""

from pathlib import Path

import keras
import numpy as np
import pytest
from torch_files import tensors_of, write_tensors

from fsat_kedro.audio.log_mel import kaldi_log_mel
from fsat_kedro.errors import InputError
from fsat_kedro.modelling.mobilenet_v3 import (
    build_audioset_head,
    build_mobilenet_v3,
    freeze,
    load_published_weights,
)
from fsat_kedro.modelling.normalisation import BatchNormalization
from fsat_kedro.modelling.optimizer import Adam

SHARED = Path(__file__).parents[3] / "shared"


def build(width=0.4):
    return build_mobilenet_v3(width, n_mels=128, name="encoder")


@pytest.fixture(scope="module")
def encoder():
    return build()


def published(network, rng):
    """Return tensors of random values for a network, as PyTorch names and shapes them."""
    return tensors_of(network, lambda variable: rng.uniform(0.5, 1.5, variable.shape))


def test_the_widths_have_the_published_numbers_of_parameters():
    for width, millions in ((0.4, 0.98), (1.0, 4.88), (2.0, 17.91)):
        network = build_audioset_head(build(width), width)
        n_trainable = sum(int(np.prod(x.shape)) for x in network.trainable_variables)
        assert n_trainable / 1e6 == pytest.approx(millions, abs=0.006)


def test_the_map_has_a_32nd_of_both_axes_rounded_up(encoder):
    for n_frames, n_columns in ((1, 1), (32, 1), (33, 2), (300, 10)):
        features = encoder(np.zeros((2, 128, n_frames, 1), np.float32))
        assert features.shape == (2, 4, n_columns, 384)


def test_weights_are_loaded_into_the_layers_of_their_names(tmp_path, rng):
    network = build_audioset_head(build(), 0.4)
    tensors = published(network, rng)
    path = write_tensors(tmp_path / "mn04.pt", tensors)
    load_published_weights(network, str(path), encoder="mn04")
    (kernel,) = network.get_layer("features.2.block.0.0").get_weights()
    published_kernel = tensors["features.2.block.0.0.weight"]
    np.testing.assert_array_equal(kernel[0, 0, 3], published_kernel[:, 3, 0, 0])
    (depthwise,) = network.get_layer("features.4.block.1.0").get_weights()
    published_kernel = tensors["features.4.block.1.0.weight"]
    np.testing.assert_array_equal(depthwise[..., 5, 0], published_kernel[5, 0])
    squeeze = network.get_layer("features.4.block.2.conc_se_layers.0.fc1")
    np.testing.assert_array_equal(squeeze.get_weights()[0], tensors[f"{squeeze.name}.weight"].T)
    moments = network.get_layer("features.16.1").get_weights()
    for value, name in zip(moments, ("weight", "bias", "running_mean", "running_var"), strict=True):
        np.testing.assert_array_equal(value, tensors[f"features.16.1.{name}"])
    # The encoder alone leaves the classification layers out.
    alone = build()
    load_published_weights(alone, str(path), encoder="mn04")
    for value, expected in zip(
        alone.get_layer("features.16.1").get_weights(), moments, strict=True
    ):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x.pop("features.7.block.1.1.running_mean"),
            "has no tensor features.7.block.1.1",
        ),
        (
            lambda x: x.update(extra=np.zeros(1, np.float32)),
            "1 more tensors than mn04, such as ext",
        ),
        (
            lambda x: x.update({"features.0.0.weight": np.zeros((1, 8, 3, 3), np.float32)}),
            r"features.0.0.weight has the shape \(1, 8, 3, 3\) instead of \(8, 1, 3, 3\)",
        ),
        (
            lambda x: x.update({"features.0.1.bias": np.zeros(8, np.int64)}),
            "features.0.1.bias is of int64",
        ),
    ],
)
def test_a_file_of_another_structure_is_refused(encoder, tmp_path, rng, change, message):
    tensors = published(encoder, rng)
    change(tensors)
    path = write_tensors(tmp_path / "mn04.pt", tensors)
    with pytest.raises(InputError, match=message) as error:
        load_published_weights(encoder, str(path), encoder="mn04")
    assert str(path) in str(error.value)
    assert "model.encoder" in str(error.value)


def test_a_file_of_another_width_is_refused(encoder, tmp_path, rng):
    path = write_tensors(tmp_path / "mn10.pt", published(build(1.0), rng))
    with pytest.raises(InputError, match=r"features\.0\.0\.weight.* in mn04"):
        load_published_weights(encoder, str(path), encoder="mn04")


def test_the_first_stages_are_frozen_completely():
    encoder = build()
    freeze(encoder, n_stages=3, normalisation=False)
    stages = {x.path.split(".")[1].split("/")[0] for x in encoder.trainable_variables}
    assert stages == {str(stage) for stage in range(3, 17)}
    freeze(encoder, n_stages=17, normalisation=False)
    assert encoder.trainable_variables == []


def test_a_frozen_normalisation_keeps_its_statistics_in_training(rng):
    encoder = build()
    images = rng.normal(3, 2, (4, 128, 64, 1)).astype(np.float32)
    norms = [layer for layer in encoder.layers if isinstance(layer, BatchNormalization)]

    def means():
        return np.concatenate([keras.ops.convert_to_numpy(x.moving_mean) for x in norms])

    before = means()
    freeze(encoder, n_stages=0, normalisation=True)
    encoder(images, training=True)
    np.testing.assert_array_equal(means(), before)
    assert not {x.name for x in encoder.trainable_variables} & {"gamma", "beta"}
    for layer in norms:
        layer.trainable = True
    encoder(images, training=True)
    assert (means() != before).mean() > 0.9


def test_frozen_stages_and_normalisations_stay_equal_to_the_bit_in_a_training_step(rng):
    encoder = build(0.1)
    freeze(encoder, n_stages=7, normalisation=True)
    features = keras.layers.GlobalAveragePooling2D()(encoder.output)
    network = keras.Model(encoder.input, keras.layers.Dense(3, activation="softmax")(features))
    network.compile(Adam(0.1, weight_decay=0.1), "categorical_crossentropy", run_eagerly=True)
    before = {x.path: keras.ops.convert_to_numpy(x) for x in network.weights}
    mel = rng.random((4, 128, 64, 1), np.float32)
    network.train_on_batch(mel, np.eye(3, dtype=np.float32)[[0, 1, 2, 0]])
    changed, kept = set(), set()
    for variable in network.weights:
        same = np.array_equal(keras.ops.convert_to_numpy(variable), before[variable.path])
        (kept if same else changed).add(variable.path)
    trained = {f"features.{stage}." for stage in range(7, 17)}
    assert {next((x for x in trained if x in path), "head") for path in changed} == {
        *trained,
        "head",
    }
    normalisations = ("gamma", "beta", "moving_mean", "moving_variance")
    assert {path for path in before if path.endswith(normalisations)} <= kept
    assert {path for path in before if any(f"features.{n}." in path for n in range(7))} <= kept


@pytest.mark.skipif(not SHARED.exists(), reason="needs the published weights")
def test_values_are_those_of_the_published_code():
    import librosa

    encoder = build()
    network = build_audioset_head(encoder, 0.4)
    assert sum(int(np.prod(x.shape)) for x in network.trainable_variables) == 983_599
    weights = SHARED / "data" / "weights" / "mn04_as_mAP_432.pt"
    load_published_weights(network, str(weights), encoder="mn04")
    reference = np.load(SHARED / "reference" / "efficientat_mn04.npz")
    sizes = {"sample_rate": 32_000, "n_fft": 1024, "hop_length": 320, "n_mels": 128}
    for index, clip in enumerate(reference["paths"]):
        wave, _ = librosa.load(SHARED / "data" / str(clip), sr=32_000)
        mel = (kaldi_log_mel(wave[: 6 * 32_000], **sizes) + 4.5) / 5
        np.testing.assert_allclose(mel, reference[f"mel_{index}"], rtol=0, atol=1e-3)
        inputs = mel[None, :, :, None]
        embedding = np.mean(keras.ops.convert_to_numpy(encoder(inputs)), axis=(0, 1, 2))
        np.testing.assert_allclose(embedding, reference[f"embedding_{index}"], rtol=0, atol=1e-4)
        logits = keras.ops.convert_to_numpy(network(inputs))[0]
        np.testing.assert_allclose(logits, reference[f"logits_{index}"], rtol=0, atol=1e-3)
