"""The fused Adam compared with that of Keras."""

import keras
import numpy as np
import pytest
from keras import layers

from fsat_kedro.modelling.optimizer import Adam


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_steps_at_changing_rates_are_those_of_keras(policy, rng):
    images = rng.normal(size=(8, 5)).astype(np.float32)
    targets = rng.normal(size=(8, 2)).astype(np.float32)
    trained = []
    for kind in (keras.optimizers.Adam, Adam):
        keras.utils.set_random_seed(0)
        hidden = layers.Dense(4, activation="tanh", dtype=policy)
        network = keras.Sequential([keras.Input((5,)), hidden, layers.Dense(2, dtype="float32")])
        optimizer = kind()
        network.compile(optimizer=optimizer, loss="mse")
        for rate in (1e-2, 1e-1, 1e-4):
            optimizer.learning_rate = rate
            network.fit(images, targets, epochs=3, verbose=0)
        variables = [keras.ops.convert_to_numpy(x) for x in network.optimizer.variables]
        trained.append([*network.get_weights(), *variables])
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if policy == "float32" else {"rtol": 5e-3}
    for ours, expected in zip(trained[1], trained[0], strict=True):
        np.testing.assert_allclose(ours, expected, **tolerance)
