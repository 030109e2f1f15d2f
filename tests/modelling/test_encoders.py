import numpy as np
import pytest

from fsat_kedro.errors import InputError
from fsat_kedro.modelling.encoders import build_encoder, copy_encoder_weights
from fsat_kedro.modelling.networks import build_network
from fsat_kedro.parameters import Model

NARROW = Model(
    weights=None, width=0.35, momentum={"backbone": 0.9, "others": 0.9}, precision="float32"
)


def test_a_trained_backbone_starts_from_a_grayscale_input(tmp_path, rng):
    import keras

    backbone = keras.applications.MobileNetV2((None, None, 3), 0.35, False, weights=None)
    backbone.save_weights(tmp_path / "backbone.weights.h5")
    encoder = build_encoder(NARROW, weights=str(tmp_path / "backbone.weights.h5"), n_mels=32)
    adapter = keras.Model(encoder.inputs, encoder.get_layer("conv_3").output)
    images = rng.uniform(-2, 2, (2, 32, 40, 1)).astype(np.float32)
    adapted = np.asarray(adapter(images))
    assert np.abs(adapted - (images + 3)).max() < 1
    for channel in range(3):
        assert np.corrcoef(adapted[..., channel].ravel(), images.ravel())[0, 1] > 0.99
    assert np.ptp(adapted, axis=-1).max() > 1e-3
    ours, published = encoder.get_layer(backbone.name), backbone
    for one, other in zip(ours.get_weights(), published.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    # A plain backbone can load the weights of ours.
    ours.save_weights(tmp_path / "ours.weights.h5")
    published.load_weights(tmp_path / "ours.weights.h5")


@pytest.mark.parametrize("content", [b"no weights", None])
def test_weights_that_cannot_be_loaded_are_an_error_with_a_remedy(tmp_path, content, monkeypatch):
    import keras

    path = tmp_path / "backbone.weights.h5"
    weights = "imagenet" if content is None else str(path)
    path.write_bytes(content or b"")

    def fail(*_, **__):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.src.applications.mobilenet_v2.file_utils, "get_file", fail)
    with pytest.raises(InputError, match=rf"{weights}.*Set it to a .weights.h5 .* of width 0.35"):
        build_encoder(NARROW, weights=weights, n_mels=32)


def test_the_backbone_has_the_momentum_that_is_set():
    from keras.layers import BatchNormalization

    encoder = build_encoder(NARROW, weights=None, n_mels=32)
    backbone = next(layer for layer in encoder.layers if layer.name.startswith("mobilenet"))
    norms = [layer for layer in backbone.layers if isinstance(layer, BatchNormalization)]
    assert len(norms) > 50
    assert {layer.momentum for layer in norms} == {0.9}


def test_the_encoder_weights_are_copied_and_no_others():
    import keras

    sizes = {"n_mels": 32, "n_classes": 3}
    mel_network = build_network(NARROW, weights=None, **sizes)
    keras.utils.set_random_seed(1)
    mel_pca_network = build_network(NARROW, weights=None, **sizes, n_components=5)
    source, target = (network.get_layer("encoder") for network in (mel_network, mel_pca_network))
    head = {
        layer.name: layer.get_weights() for layer in mel_pca_network.layers if layer is not target
    }
    before = source.get_weights()
    assert any((a != b).any() for a, b in zip(before, target.get_weights(), strict=True))
    copy_encoder_weights(mel_network, mel_pca_network)
    for ours, theirs, old in zip(target.get_weights(), source.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(theirs, old)
    for name, weights in head.items():
        for ours, old in zip(mel_pca_network.get_layer(name).get_weights(), weights, strict=True):
            np.testing.assert_array_equal(ours, old)
