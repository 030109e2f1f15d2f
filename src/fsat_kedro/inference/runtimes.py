"""Runtimes of a trained network: Keras, which always works, or OpenVINO, faster on a CPU."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol
from zipfile import BadZipFile, ZipFile

import numpy as np

from fsat_kedro.errors import InputError
from fsat_kedro.files import open_atomic
from fsat_kedro.parameters import Inference

# A converted network needs no Keras, which takes seconds to import.
if TYPE_CHECKING:
    import keras
    import openvino

MANY_CROPS = 1000
"""Crops from which on OpenVINO saves more than the second that the conversion takes."""

_REQUEST_SIZE = 8
"""Crops of a request. A batch is cut into several, so that every core has some."""


class Network(Protocol):
    """The part of a Keras model that predictions need."""

    output_shape: tuple[int | None, int]

    def predict_on_batch(self, inputs: Any) -> np.ndarray:
        """Return the outputs for a batch, float32."""


def uses_openvino(inference: Inference, n_crops: int) -> bool:
    """Return whether to predict with OpenVINO.

    With runtime `auto`, it is used if it is installed, Keras runs on TensorFlow without a GPU, and
    there are enough crops to repay the conversion.

    Raises:
        InputError: OpenVINO is set, but cannot be used.
    """
    import keras

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
    worthwhile = inference.runtime == "auto" and n_crops >= MANY_CROPS
    return worthwhile and convertible and installed and not _has_gpu()


def convert(network: keras.Model) -> openvino.Model:
    """Convert a Keras network on TensorFlow for OpenVINO, with its weights as they are now."""
    block_telemetry()
    import openvino
    import tensorflow as tf

    specs = [tf.TensorSpec(each.shape, each.dtype, each.name) for each in network.inputs]
    function = tf.function(lambda *inputs: network(list(inputs), training=False), specs)
    # Shared weights would change with those of the Keras network.
    return openvino.convert_model(function.get_concrete_function(), share_weights=False)


def block_telemetry() -> None:
    """Keep OpenVINO from reporting every conversion to its makers. Call it before importing it."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # Blocks the import.


def save_converted(model: openvino.Model, path: Path, *, origin: str) -> None:
    """Write a converted network to one file, a zip of what OpenVINO writes.

    Args:
        model: a converted network.
        path: the file, replaced if it exists.
        origin: what the network was converted from, for `load_converted`.
    """
    import openvino

    with TemporaryDirectory() as folder, open_atomic(path) as file, ZipFile(file, "w") as archive:
        openvino.save_model(model, Path(folder, "model.xml"), compress_to_fp16=False)
        for name in ("model.xml", "model.bin"):
            archive.write(Path(folder, name), name)
        archive.comment = origin.encode()


def load_converted(path: Path, *, origin: str) -> openvino.Model | None:
    """Read what `save_converted` wrote; None if it is not there, damaged or of another origin."""
    if not (path.is_file() and find_spec("openvino")):
        return None
    import openvino

    try:
        with ZipFile(path) as archive:
            if archive.comment != origin.encode():
                return None
            # Reading checks the CRC of either.
            xml, weights = archive.read("model.xml"), archive.read("model.bin")
        return openvino.Core().read_model(xml, weights)
    # OpenVINO raises a RuntimeError for what it cannot read, such as a file of a later version.
    except (OSError, BadZipFile, KeyError, RuntimeError):
        return None


class OpenVINONetwork:
    """A converted network, run by OpenVINO on all cores, in float32 as Keras does."""

    def __init__(self, model: openvino.Model) -> None:
        import openvino

        n_classes = model.output(0).partial_shape[1].get_length()
        self.output_shape: tuple[int | None, int] = (None, n_classes)
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
