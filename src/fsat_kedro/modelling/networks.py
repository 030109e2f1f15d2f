"""The networks of both stages: log-mel alone, and log-mel with the projected summary features.

Axes: n clips, m mel bands, t frames, f features of the encoder, p components, c classes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import keras
from keras import layers

from fsat_kedro.errors import InputError
from fsat_kedro.modelling.encoders import build_encoder
from fsat_kedro.modelling.normalisation import BatchNormalization
from fsat_kedro.parameters import Model

CLASSES = "classes"
"""Name of the last layer."""

POOLING = "pooling"
"""Name of the layer whose output is what pooling makes of the encoder's map or maps."""


def build_network(
    settings: Model,
    *,
    weights: str | None,
    n_mels: int,
    n_classes: int,
    n_components: int | None = None,
) -> keras.Model:
    """Build a network from spectrograms of any length to class probabilities.

    Args:
        settings: of the encoder, and precision of the layers.
        weights: file of initial weights of the encoder, or None for random ones.
        n_mels: m.
        n_classes: c.
        n_components: p, or None for the network of stage mel, which has no such input.

    Returns:
        A model from mel (n, m, t, 1) in 0..1, and pca (n, p) if any, to (n, c).
    """
    with _precision_of(settings):
        return _build(settings, weights, n_mels, n_classes, n_components)


def build_embedder(settings: Model, *, weights: str | None, n_mels: int) -> keras.Model:
    """Build the first layers of a network alone, up to the pooled features.

    Args:
        settings: of the encoder, and precision of the layers.
        weights: file of initial weights of the encoder, or None for random ones.
        n_mels: m.

    Returns:
        A model from mel (n, m, t, 1) in 0..1 to embeddings (n, f).
    """
    with _precision_of(settings):
        mel = _mel_input(n_mels)
        return keras.Model([mel], _embed(mel, settings, weights))


def load_network(
    settings: Model, path: Path, *, n_mels: int, n_classes: int, n_components: int | None = None
) -> keras.Model:
    """Build a network and load its trained weights from a file, as `load_weights` does."""
    network = build_network(
        settings, weights=None, n_mels=n_mels, n_classes=n_classes, n_components=n_components
    )
    load_weights(network, path)
    network.jit_compile = compiles_with_xla()
    return network


def load_weights(network: keras.Model, path: Path) -> None:
    """Load trained weights from a file into a network.

    Raises:
        InputError: the file is damaged, or has the weights of another network.
    """
    try:
        network.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} is damaged or was trained with other settings: {error}. Train with the "
            "settings of the file, or remove it and train again: kedro run --only-missing-outputs"
        ) from error


def compiles_with_xla() -> bool:
    """Return whether to use XLA. With TensorFlow, compiling takes half a minute per length."""
    return keras.backend.backend() == "jax"


@contextmanager
def _precision_of(settings: Model) -> Iterator[None]:
    """Build layers with the precision of the settings."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(settings.precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


def _mel_input(n_mels: int) -> keras.KerasTensor:
    return keras.Input((n_mels, None, 1), name="mel")


def _embed(mel: keras.KerasTensor, settings: Model, weights: str | None) -> keras.KerasTensor:
    """Apply the encoder to mel (n, m, t, 1), and pool its map or maps to embeddings (n, f)."""
    encoder = build_encoder(settings, weights=weights, n_mels=mel.shape[1])
    maps = encoder(mel)
    if not isinstance(maps, list):
        return layers.GlobalAveragePooling2D(name=POOLING)(maps)
    pooled = [layers.GlobalAveragePooling2D()(each) for each in maps]
    return layers.Concatenate(name=POOLING)(pooled)


def _build(
    settings: Model, weights: str | None, n_mels: int, n_classes: int, n_components: int | None
) -> keras.Model:
    normalisation = partial(BatchNormalization, momentum=settings.momentum.others)
    mel = _mel_input(n_mels)
    features = _embed(mel, settings, weights)
    inputs = [mel]
    if n_components is not None:
        pca = keras.Input((n_components,), name="pca")
        normalised = normalisation(name="pca_normalisation")(pca)
        features = layers.Concatenate(name="features")([features, normalised])
        inputs.append(pca)
    if settings.head == "mlp":
        features = layers.Dense(1536, activation="relu", name="dense_1536")(features)
        features = normalisation(name="normalisation_1536")(features)
        features = layers.Dense(384, activation="relu", name="dense_384")(features)
        features = normalisation(name="normalisation_384")(features)
    # float32 whatever the precision of the layers before: a softmax in half precision rounds to 0.
    classes = layers.Dense(n_classes, activation="softmax", dtype="float32", name=CLASSES)(features)
    return keras.Model(inputs, classes, name="mel" if n_components is None else "mel_pca")
