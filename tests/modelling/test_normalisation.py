"""The fused batch normalisation compared with that of Keras."""

import keras
import numpy as np
import pytest
from keras import layers

from fsat_kedro.modelling.normalisation import BatchNormalization


@pytest.fixture
def pair():
    """Make Keras' layer and ours with the same weights."""
    pair = [kind(momentum=0.7) for kind in (layers.BatchNormalization, BatchNormalization)]
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.5, 2, (4, 3)).astype(np.float32)
    for layer in pair:
        layer.build((None, None, None, 3))
        layer.set_weights(weights)
    return pair


@pytest.mark.parametrize("shape", [(4, 5, 6, 3), (2, 1, 1, 3), (1, 8, 2, 3)])
def test_a_training_step_gives_the_same_values_and_running_statistics(pair, shape, rng):
    images = rng.normal(2, 3, shape).astype(np.float32)
    expected, ours = (np.asarray(layer(images, training=True)) for layer in pair)
    np.testing.assert_allclose(ours, expected, atol=2e-5)
    for one, other in zip(pair[1].get_weights(), pair[0].get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="uses its gradients")
def test_gradients_are_the_same(pair, rng):
    import tensorflow as tf

    images = tf.constant(rng.normal(2, 3, (4, 5, 6, 3)), tf.float32)
    weights = tf.constant(rng.normal(size=(4, 5, 6, 3)), tf.float32)
    gradients = []
    for layer in pair:
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(layer(images, training=True) * weights)
        gradients.append(tape.gradient(loss, [images, layer.gamma.value, layer.beta.value]))
    for ours, expected in zip(gradients[1], gradients[0], strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_predictions_are_the_same(pair, rng):
    images = rng.normal(2, 3, (4, 5, 6, 3)).astype(np.float32)
    expected, ours = (np.asarray(layer(images, training=False)) for layer in pair)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_in_half_precision_its_statistics_stay_float32(rng):
    layer = BatchNormalization(momentum=0, dtype="mixed_bfloat16")
    images = rng.normal(2, 3, (8, 16, 16, 3)).astype(np.float32)
    outputs = layer(images, training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert layer.moving_mean.dtype == "float32"
    np.testing.assert_allclose(layer.moving_mean, images.mean(axis=(0, 1, 2)), rtol=1e-2)
    np.testing.assert_allclose(layer.moving_variance, images.var(axis=(0, 1, 2)), rtol=1e-2)
