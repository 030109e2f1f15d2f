import numpy as np
import pytest

from fsat_kedro.datasets.keras_weights_dataset import KerasWeightsDataset
from fsat_kedro.errors import InputError
from fsat_kedro.modelling import crop_lengths as lengths
from fsat_kedro.modelling import networks as model
from fsat_kedro.parameters import Model

NARROW = Model(
    weights=None, width=0.35, momentum={"backbone": 0.9, "others": 0.9}, precision="float32"
)
SIZES = {"n_mels": 32, "n_classes": 3}


@pytest.fixture(scope="module")
def mel_network():
    return model.build_network(NARROW, weights=None, **SIZES)


@pytest.fixture(scope="module")
def mel_pca_network():
    import keras

    keras.utils.set_random_seed(1)
    return model.build_network(NARROW, weights=None, **SIZES, n_components=5)


def mels(n, length):
    return np.random.default_rng(length).random((n, 32, length, 1), dtype=np.float32)


def test_the_full_network_has_the_published_number_of_parameters():
    settings = Model(
        weights=None, width=1, momentum={"backbone": 0.999, "others": 0.99}, precision="float32"
    )
    sizes = {"n_mels": 64, "n_classes": 41, "n_components": 350}
    network = model.build_network(settings, weights=None, **sizes)
    assert network.count_params() == 5_378_330
    assert sum(int(np.prod(weight.shape)) for weight in network.trainable_weights) == 5_339_676
    assert [x.name for x in network.inputs] == ["mel", "pca"]
    assert network.output_shape == (None, 41)


def test_a_trained_backbone_begins_with_a_grey_picture(tmp_path, rng):
    import keras

    backbone = keras.applications.MobileNetV2((None, None, 3), 0.35, False, weights=None)
    backbone.save_weights(tmp_path / "backbone.weights.h5")
    settings = NARROW.model_copy(update={"weights": str(tmp_path / "backbone.weights.h5")})
    encoder = model.build_network(settings, weights=settings.weights, **SIZES).get_layer(
        model.ENCODER
    )
    colours = keras.Model(encoder.inputs, encoder.get_layer("conv_3").output)
    images = rng.uniform(-2, 2, (2, 32, 40, 1)).astype(np.float32)
    seen = np.asarray(colours(images))
    assert np.abs(seen - (images + 3)).max() < 1
    for colour in range(3):
        assert np.corrcoef(seen[..., colour].ravel(), images.ravel())[0, 1] > 0.99
    assert np.ptp(seen, axis=-1).max() > 1e-3
    ours, published = encoder.get_layer(backbone.name), backbone
    for one, other in zip(ours.get_weights(), published.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    # Its file is that of a plain backbone.
    ours.save_weights(tmp_path / "ours.weights.h5")
    published.load_weights(tmp_path / "ours.weights.h5")


@pytest.mark.parametrize("content", [b"no weights", None])
def test_weights_that_cannot_be_had_are_told_with_the_remedy(tmp_path, content, monkeypatch):
    import keras

    path = tmp_path / "backbone.weights.h5"
    weights = "imagenet" if content is None else str(path)
    path.write_bytes(content or b"")

    def fail(*_, **__):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.src.applications.mobilenet_v2.file_utils, "get_file", fail)
    with pytest.raises(InputError, match=rf"{weights}.*Set it to a .weights.h5 .* of width 0.35"):
        model.build_network(NARROW, weights=weights, **SIZES)


def test_half_precision_is_that_of_layers_alone():
    import keras

    half = NARROW.model_copy(update={"precision": "mixed_bfloat16"})
    network = model.build_network(half, weights=None, **SIZES, n_components=5)
    assert {layer.compute_dtype for layer in network.get_layer(model.ENCODER).layers} == {
        "bfloat16"
    }
    assert {weight.dtype for weight in network.weights} == {"float32"}
    assert network.outputs[0].dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


def test_one_network_takes_any_length_and_gives_probabilities(mel_pca_network, rng):
    pca = rng.normal(size=(2, 5)).astype(np.float32)
    for length in (33, 64):
        probabilities = np.asarray(mel_pca_network([mels(2, length), pca], training=False))
        assert probabilities.shape == (2, 3)
        assert (probabilities > 0).all()
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("length", [lengths.MINIMUM, lengths.MINIMUM + 1])
def test_the_shortest_batches_can_be_trained_on(mel_network, length):
    mel_network.compile(optimizer="sgd", loss="categorical_crossentropy", jit_compile=False)
    loss = mel_network.train_on_batch(mels(2, length), np.eye(3, dtype=np.float32)[:2])
    assert np.isfinite(loss)


def test_both_inputs_reach_the_prediction(mel_pca_network, rng):
    mel, pca = mels(3, 40), rng.normal(size=(3, 5)).astype(np.float32)
    # In training mode: a backbone that has learned nothing gives next to 0 for every sound.
    given, other_mel, other_pca = (
        np.asarray(mel_pca_network(inputs, training=True))
        for inputs in ([mel, pca], [mel[::-1], pca], [mel, pca[::-1]])
    )
    assert np.abs(other_mel - given).max() > 0.01
    assert np.abs(other_pca - given).max() > 0.01


def test_the_backbone_keeps_running_means_by_the_given_momentum(mel_network):
    from keras.layers import BatchNormalization

    encoder = mel_network.get_layer(model.ENCODER)
    backbone = next(layer for layer in encoder.layers if layer.name.startswith("mobilenet"))
    norms = [layer for layer in backbone.layers if isinstance(layer, BatchNormalization)]
    assert len(norms) > 50
    assert {layer.momentum for layer in norms} == {0.9}


def test_the_trunk_is_carried_over_and_nothing_else(mel_network, mel_pca_network):
    source, target = (
        network.get_layer(model.ENCODER) for network in (mel_network, mel_pca_network)
    )
    head = {
        layer.name: layer.get_weights() for layer in mel_pca_network.layers if layer is not target
    }
    before = source.get_weights()
    assert any((a != b).any() for a, b in zip(before, target.get_weights(), strict=True))
    model.copy_encoder_weights(mel_network, mel_pca_network)
    for ours, theirs, old in zip(target.get_weights(), source.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(theirs, old)
    for name, weights in head.items():
        for ours, old in zip(mel_pca_network.get_layer(name).get_weights(), weights, strict=True):
            np.testing.assert_array_equal(ours, old)


def test_a_network_comes_back_from_its_weights(mel_pca_network, tmp_path, rng):
    dataset = KerasWeightsDataset(filepath=str(tmp_path / "mel_pca.weights.h5"))
    dataset.save(mel_pca_network)
    loaded = model.load_network(NARROW, dataset.load(), **SIZES, n_components=5)
    for ours, theirs in zip(loaded.get_weights(), mel_pca_network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
