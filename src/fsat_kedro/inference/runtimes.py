"""What runs a trained network: Keras, which always can, or OpenVINO, which is faster on a CPU."""

import sys
from importlib.util import find_spec
from typing import Protocol

import keras
import numpy as np

from fsat_kedro.errors import InputError
from fsat_kedro.parameters import Inference

_WORTHWHILE_LOOKS = 1000
"""Views of clips from which on a second of conversion is won back."""

_CLIPS_A_REQUEST = 8
"""A batch is cut into requests of so many clips, so that every core has some."""


class Network(Protocol):
    """What predictions need of a network."""

    output_shape: tuple[int | None, ...]

    def predict_on_batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """The outputs for a batch, float32."""


def uses_openvino(inference: Inference, n_looks: int) -> bool:
    """Whether to predict with OpenVINO.

    Args:
        inference: if its runtime is `auto`, OpenVINO is used where it is installed, Keras has
            TensorFlow and no GPU, and it is worth the second that converting takes.
        n_looks: views of clips to predict of.

    Raises:
        InputError: it is asked for, and cannot be used.
    """
    convertible = keras.backend.backend() == "tensorflow"
    if inference.runtime == "openvino":
        if find_spec("openvino") is None:
            raise InputError(
                "inference.runtime is openvino, which is not installed: pip install openvino, or "
                "set it to keras"
            )
        if not convertible:
            raise InputError(
                "inference.runtime is openvino, which takes networks from TensorFlow: set "
                "KERAS_BACKEND to tensorflow, or inference.runtime to keras"
            )
        return True
    return (
        inference.runtime == "auto"
        and inference.views != "shared"
        and n_looks >= _WORTHWHILE_LOOKS
        and convertible
        and find_spec("openvino") is not None
        and not _has_gpu()
    )


class OpenVINONetwork:
    """A Keras network as it is now, run by OpenVINO on all cores, in float32 as Keras does."""

    def __init__(self, network: keras.Model) -> None:
        # With this module it would report every conversion to its makers.
        sys.modules["openvino_telemetry"] = None
        import openvino
        import tensorflow as tf

        self.output_shape = network.output_shape
        specs = [tf.TensorSpec(each.shape, each.dtype, each.name) for each in network.inputs]
        function = tf.function(lambda *inputs: network(list(inputs), training=False), specs)
        # Shared, its weights would change with those of the network.
        model = openvino.convert_model(function.get_concrete_function(), share_weights=False)
        # Left to itself it computes in bfloat16 where the processor can.
        settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
        self._requests = openvino.AsyncInferQueue(openvino.compile_model(model, "CPU", settings))

    def predict_on_batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """The outputs for a batch, float32."""
        outputs = np.empty((len(inputs[0]), *self.output_shape[1:]), np.float32)
        n_parts = -(-len(outputs) // _CLIPS_A_REQUEST)
        parts = np.array_split(np.arange(len(outputs)), n_parts)

        def keep(request: object, rows: np.ndarray) -> None:
            outputs[rows] = request.get_output_tensor().data

        self._requests.set_callback(keep)
        for rows in parts:
            self._requests.start_async(dict(enumerate(each[rows] for each in inputs)), rows)
        self._requests.wait_all()
        return outputs


def _has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
