"""The encoder of the published solution: MobileNetV2 on a log-mel spectrogram.

Axes: n clips, m mel bands, t frames.
"""

import keras
import numpy as np
from keras import layers

from fsat_kedro.errors import InputError
from fsat_kedro.modelling.normalisation import BatchNormalization
from fsat_kedro.parameters import Model

_IMAGENET_WEIGHTS = (
    "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
    "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{width}_224_no_top.h5"
)
"""Where `keras.applications` downloads them from."""


def build_mobilenet_v2(
    settings: Model, *, weights: str | None, n_mels: int, name: str
) -> keras.Model:
    """Build the mel normalisation, two 1×1 convolutions and the MobileNetV2 backbone.

    Args:
        settings: width and momentum of the backbone.
        weights: file of initial weights of the backbone, or None for random ones.
        n_mels: m.
        name: of the model.

    Returns:
        A model from mel (n, m, t, 1) in 0..1 to a map (n, m / 32, t / 32, features).

    Raises:
        InputError: the weights cannot be loaded.
    """
    mel = keras.Input((n_mels, None, 1), name="mel")
    channels = BatchNormalization(momentum=settings.momentum.others, name="mel_normalisation")(mel)
    channels = layers.Conv2D(10, 1, activation="relu", name="conv_10")(channels)
    channels = layers.Conv2D(3, 1, activation="relu", name="conv_3")(channels)
    backbone = _fuse_normalisation(_load_backbone(settings, weights), settings.momentum.backbone)
    encoder = keras.Model(mel, backbone(channels), name=name)
    if weights is not None:
        init_grayscale_adapter(encoder)
    return encoder


def fetch_imagenet_weights(width: float) -> str:
    """Return the path of the backbone's ImageNet weights.

    They are downloaded to Keras' cache, unless they are there.

    Raises:
        InputError: they cannot be downloaded.
    """
    url = _IMAGENET_WEIGHTS.format(width=float(width))
    file = url.rpartition("/")[2]
    try:
        return keras.utils.get_file(file, url, cache_subdir="models")
    except Exception as error:  # Of many types: Keras raises a plain Exception.
        raise InputError(
            f"the ImageNet weights of the backbone could not be downloaded: {error}. Download "
            f"{url} with another machine. Put the file into ~/.keras/models, or set model.weights "
            "to its path. To train from random weights, set model.weights to null"
        ) from error


def init_grayscale_adapter(encoder: keras.Model) -> None:
    """Set the 1×1 convolutions so that a trained backbone starts from a grayscale mel image.

    From the random initial weights alone, the backbone would get coloured images unlike those
    that it was trained on, some of them black. A tenth of the random weights
    is kept, so that the channels differ.
    """
    for name, kernel, bias in [
        # Five channels of the normalised mel above its mean, five below: together, the mel …
        ("conv_10", np.repeat([1.0, -1.0], 5)[None, :], np.zeros(10)),
        # … plus three standard deviations, so that only the faintest values are below zero.
        ("conv_3", np.repeat([0.2, -0.2], 5)[:, None] * np.ones(3), np.full(3, 3.0)),
    ]:
        layer = encoder.get_layer(name)
        initial, _ = layer.get_weights()
        layer.set_weights([kernel[None, None] + initial / 10, bias])


def _load_backbone(settings: Model, path: str | None) -> keras.Model:
    try:
        return keras.applications.MobileNetV2(
            # Given one side alone, Keras 3 fails on the other; it needs the sizes for padding only.
            input_shape=(None, None, 3),
            alpha=settings.width,
            include_top=False,
            weights=path,
        )
    except Exception as error:  # Of many types.
        if path is None:
            raise
        raise InputError(
            f"the backbone's weights could not be loaded from {path}: {error}. It has to be a "
            f"complete file of MobileNetV2 without top, of width {settings.width:g}. Replace it, "
            "or set model.weights to another file or to null"
        ) from error


def _fuse_normalisation(backbone: keras.Model, momentum: float) -> keras.Model:
    """Return a copy with fused batch normalisations of the given momentum."""

    def copy(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if isinstance(layer, layers.BatchNormalization):
            config["momentum"] = momentum
            return BatchNormalization.from_config(config)
        return type(layer).from_config(config)

    fused = keras.models.clone_model(backbone, clone_function=copy)
    fused.set_weights(backbone.get_weights())
    return fused
