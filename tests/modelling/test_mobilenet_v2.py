"""MobileNetV2 as an encoder, with a local server in place of Keras' own."""

import re
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from narrow_model import NARROW

from fsat_kedro.errors import InputError
from fsat_kedro.modelling import mobilenet_v2
from fsat_kedro.modelling.mobilenet_v2 import build_mobilenet_v2, fetch_imagenet_weights
from fsat_kedro.parameters import IMAGENET_WIDTHS


def test_a_trained_backbone_starts_from_a_grayscale_input(tmp_path, rng):
    import keras

    backbone = keras.applications.MobileNetV2((None, None, 3), 0.35, False, weights=None)
    backbone.save_weights(tmp_path / "backbone.weights.h5")
    encoder = build_mobilenet_v2(
        NARROW, name="encoder", weights=str(tmp_path / "backbone.weights.h5"), n_mels=32
    )
    adapter = keras.Model(encoder.input, encoder.get_layer("conv_3").output)
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


def test_a_file_that_is_no_weights_is_an_error_with_a_remedy(tmp_path):
    path = tmp_path / "backbone.weights.h5"
    path.write_bytes(b"no weights")
    with pytest.raises(InputError, match=rf"loaded from {path}.* of width 0.35. Replace it, or"):
        build_mobilenet_v2(NARROW, name="encoder", weights=str(path), n_mels=32)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A folder of weights, served in place of Keras' own, and an empty cache of Keras."""
    import keras

    folder = tmp_path / "published"
    folder.mkdir()
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(keras.src.backend.config, "_KERAS_DIR", str(tmp_path / "cache"))
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder)
    )
    Thread(target=server.serve_forever).start()
    url = f"http://127.0.0.1:{server.server_port}/width_{{width}}.h5"
    monkeypatch.setattr(mobilenet_v2, "_IMAGENET_WEIGHTS", url)
    yield folder
    server.shutdown()
    server.server_close()


def test_imagenet_weights_are_downloaded_once(published, tmp_path):
    import keras

    backbone = keras.applications.MobileNetV2((None, None, 3), 0.35, False, weights=None)
    backbone.save(published / "width_0.35.h5")  # In the format of the published files.
    path = fetch_imagenet_weights(NARROW.width)
    encoder = build_mobilenet_v2(NARROW, name="encoder", weights=path, n_mels=32)
    ours = encoder.get_layer(backbone.name).get_weights()
    for one, other in zip(ours, backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    (published / "width_0.35.h5").unlink()
    path = fetch_imagenet_weights(NARROW.width)
    assert path == str(tmp_path / "cache" / "models" / "width_0.35.h5")
    # A file that was brought by hand can also stand elsewhere.
    build_mobilenet_v2(NARROW, name="encoder", weights=path, n_mels=32)


def test_imagenet_weights_that_cannot_be_downloaded_are_an_error_with_a_remedy(published):
    with pytest.raises(InputError, match=r"width_1.0.h5.* into ~/.keras/models, or set"):
        fetch_imagenet_weights(1)


def test_the_url_is_that_of_keras(monkeypatch):
    import keras

    used = []
    module = keras.src.applications.mobilenet_v2
    monkeypatch.setattr(module.file_utils, "get_file", lambda *args, **_: used.append(args))
    monkeypatch.setattr(module.Functional, "load_weights", lambda *_: None)
    for width in (0.35, 1.0):
        keras.applications.MobileNetV2((224, 224, 3), width, False, weights="imagenet")
        url = mobilenet_v2._IMAGENET_WEIGHTS.format(width=width)
        assert used.pop() == (url.rpartition("/")[2], url)
    with pytest.raises(ValueError, match="alpha must be one of") as error:
        keras.applications.MobileNetV2((224, 224, 3), 0.6, False, weights="imagenet")
    widths = re.findall(r"`([\d.]+)`", str(error.value))
    assert tuple(map(float, widths)) == IMAGENET_WIDTHS


def test_the_backbone_has_the_momentum_that_is_set():
    from keras.layers import BatchNormalization

    encoder = build_mobilenet_v2(NARROW, name="encoder", weights=None, n_mels=32)
    backbone = next(layer for layer in encoder.layers if layer.name.startswith("mobilenet"))
    norms = [layer for layer in backbone.layers if isinstance(layer, BatchNormalization)]
    assert len(norms) > 50
    assert {layer.momentum for layer in norms} == {0.9}
