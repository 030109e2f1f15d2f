"""The two networks: log-mel alone, and log-mel with the projected summary features.

Axes: n clips, m mel bands, t frames, p components, c classes.
"""

from functools import lru_cache, partial
from pathlib import Path

import keras
import numpy as np
from keras import layers

from fsat_kedro.errors import InputError
from fsat_kedro.modelling.normalisation import BatchNormalization
from fsat_kedro.parameters import Model

ENCODER = "encoder"


def build_network(
    settings: Model,
    *,
    weights: str | None,
    n_mels: int,
    n_classes: int,
    n_components: int | None = None,
) -> keras.Model:
    """A network from spectrograms of any length to class probabilities.

    Args:
        settings: width and momentum of the backbone.
        weights: first weights of the backbone: None, "imagenet" or a path.
        n_mels: m.
        n_classes: c.
        n_components: p, or None for the network of stage mel, which has no such input.

    Returns:
        A model from mel (n, m, t, 1) in 0..1, and pca (n, p) if any, to (n, c).
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(settings.precision)
    try:
        return _build(settings, weights, n_mels, n_classes, n_components)
    finally:
        keras.config.set_dtype_policy(policy)


def compiles_with_xla() -> bool:
    """Whether to use XLA: not under TensorFlow, where it takes half a minute for every length."""
    return keras.backend.backend() == "jax"


def load_network(settings: Model, weights: Path, **sizes: int | None) -> keras.Model:
    """A trained network: `build_network` with the weights of a whole network from a file."""
    network = build_network(settings, weights=None, **sizes)
    network.load_weights(weights)
    network.jit_compile = compiles_with_xla()
    return network


@lru_cache(maxsize=1)
def split_network(network: keras.Model) -> tuple[keras.Model, keras.Model]:
    """The parts of the network of both inputs on either side of its pooling.

    Returns:
        From mel (n, m, t, 1) to a map (n, m / 32, t / 32, f), and from the pooled f features and
        pca to (n, c). They share the network's weights, and are the same for the same network, so
        that they are traced once.
    """
    pooled = network.get_layer("pooling").output
    head = keras.Model([pooled, network.get_layer("pca").output], network.output)
    encoder = network.get_layer(ENCODER)
    for part in (encoder, head):
        part.jit_compile = network.jit_compile
    return encoder, head


def copy_encoder_weights(source: keras.Model, target: keras.Model) -> None:
    """Copy input normalisation, convolutions and backbone from one network to another."""
    target.get_layer(ENCODER).set_weights(source.get_layer(ENCODER).get_weights())


def _build(
    settings: Model, weights: str | None, n_mels: int, n_classes: int, n_components: int | None
) -> keras.Model:
    normalisation = partial(BatchNormalization, momentum=settings.momentum.others)
    mel = keras.Input((n_mels, None, 1), name="mel")
    encoder = _build_encoder(settings, weights, n_mels)
    features = layers.GlobalAveragePooling2D(name="pooling")(encoder(mel))
    inputs = [mel]
    if n_components is not None:
        pca = keras.Input((n_components,), name="pca")
        normalised = normalisation(name="pca_normalisation")(pca)
        features = layers.Concatenate(name="features")([features, normalised])
        inputs.append(pca)
    hidden = layers.Dense(1536, activation="relu", name="dense_1536")(features)
    hidden = normalisation(name="normalisation_1536")(hidden)
    hidden = layers.Dense(384, activation="relu", name="dense_384")(hidden)
    hidden = normalisation(name="normalisation_384")(hidden)
    # float32 whatever the precision of the layers before: a softmax in half precision rounds to 0.
    classes = layers.Dense(n_classes, activation="softmax", dtype="float32", name="classes")(hidden)
    return keras.Model(inputs, classes, name="mel" if n_components is None else "mel_pca")


def _build_encoder(settings: Model, weights: str | None, n_mels: int) -> keras.Model:
    """All that both networks share: from (n, m, t, 1) to a map (n, m / 32, t / 32, 1280)."""
    mel = keras.Input((n_mels, None, 1), name="mel")
    colours = BatchNormalization(momentum=settings.momentum.others, name="mel_normalisation")(mel)
    colours = layers.Conv2D(10, 1, activation="relu", name="conv_10")(colours)
    colours = layers.Conv2D(3, 1, activation="relu", name="conv_3")(colours)
    backbone = _with_fused_normalisation(_load_backbone(settings, weights), settings)
    encoder = keras.Model(mel, backbone(colours), name=ENCODER)
    if weights is not None:
        init_grayscale_adapter(encoder)
    return encoder


def _load_backbone(settings: Model, weights: str | None) -> keras.Model:
    try:
        return keras.applications.MobileNetV2(
            # Given one side alone, Keras 3 fails on the other; it needs the sizes for padding only.
            input_shape=(None, None, 3),
            alpha=settings.width,
            include_top=False,
            weights=weights,
        )
    except Exception as error:  # Of many kinds, Keras' download raises the plain one.
        if weights is None:
            raise
        raise InputError(
            f"the backbone's weights cannot be had from model.weights {weights}: {error}. Set it "
            f"to a .weights.h5 file of MobileNetV2 of width {settings.width:g}, or to none"
        ) from error


def init_grayscale_adapter(encoder: keras.Model) -> None:
    """Have the convolutions before a trained backbone begin with a grey picture of the mels.

    Drawn at random, their colours are pictures that no backbone was trained on, and some of them
    are black. A tenth of what was drawn stays, so that the channels are not all alike.
    """
    for name, kernel, bias in [
        # Five times the normalised mel above its mean, five times below: together, the mel …
        ("conv_10", np.repeat([1.0, -1.0], 5)[None, :], np.zeros(10)),
        # … plus three standard deviations, so that no more than the faintest is under zero.
        ("conv_3", np.repeat([0.2, -0.2], 5)[:, None] * np.ones(3), np.full(3, 3.0)),
    ]:
        layer = encoder.get_layer(name)
        drawn, _ = layer.get_weights()
        layer.set_weights([kernel[None, None] + drawn / 10, bias])


def _with_fused_normalisation(backbone: keras.Model, settings: Model) -> keras.Model:
    """A copy whose batch normalisations are fused and have the momentum that is set."""

    def copy(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if isinstance(layer, layers.BatchNormalization):
            config["momentum"] = settings.momentum.backbone
            return BatchNormalization.from_config(config)
        return type(layer).from_config(config)

    fused = keras.models.clone_model(backbone, clone_function=copy)
    fused.set_weights(backbone.get_weights())
    return fused
