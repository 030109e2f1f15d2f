"""Runtimes of a trained network: Keras, which always works, or OpenVINO, faster on a CPU."""

import sys
from importlib.util import find_spec
from typing import Any, Protocol

import keras
import numpy as np

from fsat_kedro.errors import InputError
from fsat_kedro.parameters import Inference

_MIN_CROPS = 1000
"""Crops from which on OpenVINO saves more than the second that the conversion takes."""

_REQUEST_SIZE = 8
"""Crops of a request. A batch is cut into several, so that every core has some."""


class Network(Protocol):
    """The part of a Keras model that predictions need."""

    output_shape: tuple[int, ...]

    def predict_on_batch(self, inputs: Any) -> np.ndarray:
        """Return the outputs for a batch, float32."""


def uses_openvino(inference: Inference, n_crops: int) -> bool:
    """Return whether to predict with OpenVINO.

    With runtime `auto`, it is used if it is installed, Keras runs on TensorFlow without a GPU, and
    there are enough crops to repay the conversion.

    Raises:
        InputError: OpenVINO is set, but cannot be used.
    """
    installed = find_spec("openvino") is not None
    convertible = keras.backend.backend() == "tensorflow"
    if inference.runtime == "openvino":
        if not installed:
            raise InputError(
                "inference.runtime is openvino, which is not installed: pip install openvino, or "
                "set it to keras"
            )
        if not convertible:
            raise InputError(
                "inference.runtime is openvino, which converts networks from TensorFlow: set "
                "KERAS_BACKEND to tensorflow, or inference.runtime to keras"
            )
        return True
    worthwhile = inference.runtime == "auto" and n_crops >= _MIN_CROPS
    return worthwhile and convertible and installed and not _has_gpu()


class OpenVINONetwork:
    """A copy of a Keras network, run by OpenVINO on all cores, in float32 as Keras does."""

    def __init__(self, network: keras.Model) -> None:
        # Without this, OpenVINO would report every conversion to its makers.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # Blocks the import.
        import openvino
        import tensorflow as tf

        self.output_shape = network.output_shape
        specs = [tf.TensorSpec(each.shape, each.dtype, each.name) for each in network.inputs]
        function = tf.function(lambda *inputs: network(list(inputs), training=False), specs)
        # Shared weights would change with those of the Keras network.
        model = openvino.convert_model(function.get_concrete_function(), share_weights=False)
        # By default it computes in bfloat16 where the processor can.
        settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
        self._requests = openvino.AsyncInferQueue(openvino.compile_model(model, "CPU", settings))

    def predict_on_batch(self, inputs: Any) -> np.ndarray:
        """Return the outputs for a batch, float32."""
        outputs = np.empty((len(inputs[0]), *self.output_shape[1:]), np.float32)
        n_parts = -(-len(outputs) // _REQUEST_SIZE)
        parts = np.array_split(np.arange(len(outputs)), n_parts)

        def store(request: Any, rows: np.ndarray) -> None:
            outputs[rows] = request.get_output_tensor().data

        self._requests.set_callback(store)
        for rows in parts:
            self._requests.start_async(dict(enumerate(each[rows] for each in inputs)), rows)
        self._requests.wait_all()
        return outputs


def _has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
