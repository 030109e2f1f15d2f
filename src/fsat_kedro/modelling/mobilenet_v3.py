"""EfficientAT's networks: MobileNetV3-Large of several widths, trained on AudioSet.

They are those of Schmid, Koutini, Widmer: Efficient large-scale audio tagging via
transformer-to-CNN knowledge distillation (ICASSP 2023), in Keras layers. A layer has the name of
its weights in the published files. Stage 0 is the first convolution, stages 1 to 15 are the blocks,
stage 16 is the last convolution.

Axes: n clips, m mel bands, t frames.
"""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from fsat_kedro.errors import InputError
from fsat_kedro.modelling.normalisation import BatchNormalization
from fsat_kedro.modelling.torch_checkpoint import read_tensors

N_AUDIOSET_CLASSES = 527


class _Block(NamedTuple):
    """A block of MobileNetV3-Large, of width 1."""

    kernel: int
    expanded: int
    channels: int
    squeezes: bool
    activation: str
    stride: int


_BLOCKS = [
    _Block(3, 16, 16, False, "relu", 1),
    _Block(3, 64, 24, False, "relu", 2),
    _Block(3, 72, 24, False, "relu", 1),
    _Block(5, 72, 40, True, "relu", 2),
    _Block(5, 120, 40, True, "relu", 1),
    _Block(5, 120, 40, True, "relu", 1),
    _Block(3, 240, 80, False, "hard_swish", 2),
    _Block(3, 200, 80, False, "hard_swish", 1),
    _Block(3, 184, 80, False, "hard_swish", 1),
    _Block(3, 184, 80, False, "hard_swish", 1),
    _Block(3, 480, 112, True, "hard_swish", 1),
    _Block(3, 672, 112, True, "hard_swish", 1),
    _Block(5, 672, 160, True, "hard_swish", 2),
    _Block(5, 960, 160, True, "hard_swish", 1),
    _Block(5, 960, 160, True, "hard_swish", 1),
]


def build_mobilenet_v3(width: float, *, n_mels: int, name: str) -> keras.Model:
    """Build an encoder with random weights.

    Args:
        width: factor of the channels.
        n_mels: m.
        name: of the model.

    Returns:
        A model from mel (n, m, t, 1), scaled, to a map (n, m / 32, t / 32, features).
    """
    mel = keras.Input((n_mels, None, 1), name="mel")
    channels = _scale(16, width)
    features = _convolve(mel, channels, 3, stride=2, activation="hard_swish", name="features.0")
    for index, block in enumerate(_BLOCKS, start=1):
        features = _apply_block(features, block, width, name=f"features.{index}.block")
    last = f"features.{len(_BLOCKS) + 1}"
    n_features = 6 * features.shape[-1]
    features = _convolve(features, n_features, 1, activation="hard_swish", name=last)
    return keras.Model(mel, features, name=name)


def build_audioset_head(encoder: keras.Model, width: float) -> keras.Model:
    """Add the classification layers of the published files to an encoder, with random weights.

    Returns:
        A model from mel (n, m, t, 1), scaled, to logits of the AudioSet classes (n, 527).
    """
    features = layers.GlobalAveragePooling2D()(encoder.output)
    hidden = layers.Dense(_scale(1280, width), activation="hard_swish", name="classifier.2")(
        features
    )
    hidden = layers.Dropout(0.2)(hidden)
    logits = layers.Dense(N_AUDIOSET_CLASSES, name="classifier.5")(hidden)
    return keras.Model(encoder.input, logits)


def load_published_weights(network: keras.Model, path: str, *, encoder: str) -> None:
    """Load the weights of a published file into an encoder, with its head or without.

    Args:
        network: of `build_mobilenet_v3` or `build_audioset_head`.
        path: the file.
        encoder: name of the encoder, for errors.

    Raises:
        InputError: the file cannot be read, or has other weights than those of the encoder.
    """
    tensors = read_tensors(path)
    for layer in network.layers:
        weights = [
            _take(tensors, layer, variable, path, encoder)
            for variable in layer.weights
            if variable.name in _NAMES
        ]
        if weights:
            layer.set_weights(weights)
    rest = [name for name in tensors if not name.startswith("classifier.")]
    rest = [name for name in rest if not name.endswith(".num_batches_tracked")]
    if rest:
        raise InputError(
            f"{path} has {len(rest)} more tensors than {encoder}, such as {rest[0]:.80}. {_REMEDY}"
        )


def freeze(encoder: keras.Model, *, n_stages: int, normalisation: bool) -> None:
    """Exclude parts of an encoder from training.

    Args:
        encoder: of `build_mobilenet_v3`.
        n_stages: the first of its 17 stages, completely.
        normalisation: all batch normalisations: they keep their running statistics too.
    """
    for layer in encoder.layers:
        is_normalisation = isinstance(layer, BatchNormalization)
        if _stage(layer) < n_stages or (normalisation and is_normalisation):
            layer.trainable = False


def select_stages(encoder: keras.Model, stages: Sequence[int]) -> keras.Model:
    """Return a model of the same layers, with the maps of some stages as its outputs.

    Args:
        encoder: of `build_mobilenet_v3`.
        stages: numbers from 0 to 16.
    """
    maps = []
    for stage in stages:
        *_, last = (layer for layer in encoder.layers if _stage(layer) == stage)
        maps.append(last.output)
    return keras.Model(encoder.input, maps, name=encoder.name)


def _stage(layer: keras.Layer) -> int:
    """Return the stage that a layer is in, 0 to 16; −1 for the input."""
    part, _, rest = layer.name.partition(".")
    return int(rest.partition(".")[0]) if part == "features" else -1


_NAMES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""Name in PyTorch of each variable of a layer in Keras."""

_REMEDY = "Set model.weights to the file of this encoder, or model.encoder to that of the file"


def _take(
    tensors: dict[str, np.ndarray],
    layer: keras.Layer,
    variable: keras.Variable,
    path: str,
    encoder: str,
) -> np.ndarray:
    """Remove a variable's tensor from the table, and return it with Keras' order of axes."""
    name = f"{layer.name}.{_NAMES[variable.name]}"
    tensor = tensors.pop(name, None)
    if tensor is None:
        raise InputError(f"{path} has no tensor {name}, which {encoder} has. {_REMEDY}")
    # PyTorch's kernels are (outputs, inputs, height, width) and (outputs, inputs).
    axes = {1: [0], 2: [1, 0], 4: [2, 3, 1, 0]}[len(variable.shape)]
    if isinstance(layer, layers.DepthwiseConv2D):
        axes = [2, 3, 0, 1]
    expected = tuple(variable.shape[axis] for axis in np.argsort(axes))
    if tensor.dtype != np.float32:
        raise InputError(f"{path}: tensor {name} is of {tensor.dtype}. {_REMEDY}")
    if tensor.shape != expected:
        raise InputError(
            f"{path}: tensor {name} has the shape {tensor.shape} instead of {expected} in "
            f"{encoder}. {_REMEDY}"
        )
    return tensor.transpose(axes)


def _apply_block(
    features: keras.KerasTensor, block: _Block, width: float, *, name: str
) -> keras.KerasTensor:
    """Apply expansion, depthwise convolution, squeeze-excitation and projection."""
    inputs, index = features, 0
    expanded, channels = _scale(block.expanded, width), _scale(block.channels, width)
    if expanded != inputs.shape[-1]:
        features = _convolve(
            features, expanded, 1, activation=block.activation, name=f"{name}.{index}"
        )
        index += 1
    features = _convolve(
        features,
        None,
        block.kernel,
        stride=block.stride,
        activation=block.activation,
        name=f"{name}.{index}",
    )
    index += 1
    if block.squeezes:
        features = _excite(features, name=f"{name}.{index}.conc_se_layers.0")
        index += 1
    features = _convolve(features, channels, 1, activation=None, name=f"{name}.{index}")
    if block.stride == 1 and channels == inputs.shape[-1]:
        features = layers.Add(name=f"{name}.add")([inputs, features])
    return features


def _convolve(
    features: keras.KerasTensor,
    channels: int | None,
    kernel: int,
    *,
    stride: int = 1,
    activation: str | None,
    name: str,
) -> keras.KerasTensor:
    """Apply a convolution (depthwise if `channels` is None), normalisation and activation."""
    padding = "same"
    if stride > 1:
        # Keras would pad more at the end than at the start; PyTorch pads both alike.
        features = layers.ZeroPadding2D(kernel // 2, name=f"{name}.padding")(features)
        padding = "valid"
    settings = {"strides": stride, "padding": padding, "use_bias": False, "name": f"{name}.0"}
    if channels is None:
        features = layers.DepthwiseConv2D(kernel, **settings)(features)
    else:
        features = layers.Conv2D(channels, kernel, **settings)(features)
    features = BatchNormalization(momentum=0.99, epsilon=1e-3, name=f"{name}.1")(features)
    if activation is not None:
        features = layers.Activation(activation, name=f"{name}.2")(features)
    return features


def _excite(features: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    """Scale each channel by a factor in 0..1, computed from the means of all channels."""
    n_channels = features.shape[-1]
    squeezed = _scale(n_channels, 1 / 4)
    means = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.pooling")(features)
    hidden = layers.Dense(squeezed, activation="relu", name=f"{name}.fc1")(means)
    factors = layers.Dense(n_channels, activation="sigmoid", name=f"{name}.fc2")(hidden)
    return layers.Multiply(name=f"{name}.scaled")([features, factors])


def _scale(channels: int, factor: float) -> int:
    """Scale a number of channels to a multiple of 8, and at least nine tenths of the product."""
    scaled = channels * factor
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded
