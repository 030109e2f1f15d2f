"""The ensemble as one graph of ONNX or OpenVINO, for programs without Keras, librosa or Kedro.

Axes: n sounds, m mel bands, t frames, d summary features, p components, c classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.audio.log_mel import constants
from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.errors import InputError
from fsat_kedro.files import replacing
from fsat_kedro.inference.ensemble import geometric_mean, predict_crops
from fsat_kedro.inference.runtimes import block_telemetry
from fsat_kedro.inference.tagger import Tagger
from fsat_kedro.modelling.crop_lengths import MINIMUM
from fsat_kedro.modelling.crops import LONGEST_PIECE, Clips, WholeBatches

# Keras takes seconds to import, and the command checks its arguments first.
if TYPE_CHECKING:
    import keras
    import onnx
    import tensorflow as tf

Format = Literal["onnx", "openvino"]

TOLERANCE = 1e-3
"""Largest difference of a probability between a written file and the networks in Keras."""

FILES: dict[Format, tuple[str, ...]] = {
    "onnx": ("tagger.onnx", "preprocessing.npz"),
    "openvino": ("tagger.xml", "tagger.bin", "preprocessing.npz"),
}
"""The files of an export; the first is the one to open."""

_PACKAGES: dict[Format, tuple[str, ...]] = {
    "onnx": ("tf2onnx", "onnx", "onnxruntime"),
    "openvino": ("openvino",),
}
_OPSET = 18  # The latest of tf2onnx 1.17; ONNX Runtime reads it since 1.14.

# Those of librosa.effects.trim.
_TRIM_LENGTH, _TRIM_HOP = 2048, 512

_CHECKED_LENGTHS = (MINIMUM - 12, 2 * MINIMUM, 301)
"""Frames of the random inputs of the check; the first needs padding."""


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        folder: with the files.
        n_bytes: of all files together.
        difference: largest one of a probability between the written file and Keras.
    """

    folder: Path
    n_bytes: int
    difference: float


def require_packages(format_: Format) -> None:
    """Raise an error if packages that a format needs are not installed.

    Raises:
        InputError: with the command that installs them.
    """
    missing = [package for package in _PACKAGES[format_] if find_spec(package) is None]
    if missing:
        raise InputError(
            f"--format {format_} needs {', '.join(missing)}: uv pip install --constraint "
            f'requirements-dev.lock --editable ".[{format_}]"'
        )


def export(
    tagger: Tagger, output_dir: Path, *, format_: Format, folds: Sequence[int] = ()
) -> Export:
    """Write the folder `tagger_onnx` or `tagger_openvino`: an ensemble as one graph, and constants.

    The graph predicts whole clips, in float32. Its files are compared with the networks in Keras,
    and appear only if they give the same.

    Args:
        tagger: the ensemble.
        output_dir: where to make the folder; an earlier export in it is replaced.
        format_: of the graph.
        folds: numbers of the networks to export, from 1; all if there are none.

    Raises:
        InputError: packages are missing, Keras does not run on TensorFlow, there is no such fold,
            the folder has other files, or the written graph gives other probabilities than Keras.
    """
    require_packages(format_)
    folds = _require_folds(folds, tagger.settings.n_folds)
    folder = output_dir.absolute() / f"tagger_{format_}"
    _require_replaceable(folder)
    _require_tensorflow()
    networks = [tagger.load_network(fold, precision="float32") for fold in folds]
    with replacing(folder) as unfinished:
        unfinished.mkdir()
        _WRITERS[format_](_Graph(tagger, networks), unfinished)
        with (unfinished / "preprocessing.npz").open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **preprocessing(tagger, folds))
        difference = _compare(tagger, networks, unfinished / FILES[format_][0])
        if not difference <= TOLERANCE:  # NaN compares as false.
            raise InputError(
                f"nothing was exported: probabilities of the written file differ by "
                f"{difference:.2g} from those of Keras, more than {TOLERANCE:g}. Please report it, "
                f"with the versions of tensorflow and of {', '.join(_PACKAGES[format_])}"
            )
    return Export(folder, sum(each.stat().st_size for each in folder.iterdir()), difference)


def preprocessing(tagger: Tagger, folds: Sequence[int]) -> dict[str, Any]:
    """Return the constants with which NumPy alone makes `log_mel` of a sound: see docs/export.md.

    They are arrays, numbers and strings, which need no pickle.
    """
    return {
        "labels": np.array(tagger.labels, str),
        "folds": np.array(folds),
        "max_seconds": tagger.settings.decoding.max_seconds,
        "decoding_rate": SAMPLE_RATE,
        "trim_length": _TRIM_LENGTH,
        "trim_hop": _TRIM_HOP,
        "trim_top_db": tagger.settings.trim.top_db,
        **constants(**tagger.settings.log_mel.model_dump()),
        "longest_piece": LONGEST_PIECE,
    }


def _require_folds(folds: Sequence[int], n_folds: int) -> list[int]:
    """Return the numbers of the folds to export, ascending."""
    unknown = sorted({*folds} - {*range(1, n_folds + 1)})
    if unknown:
        raise InputError(f"no fold {unknown[0]}: the ensemble has folds 1 to {n_folds}")
    return sorted({*folds}) or list(range(1, n_folds + 1))


def _require_replaceable(folder: Path) -> None:
    known = {file for files in FILES.values() for file in files}
    if folder.exists() and not (
        folder.is_dir() and {each.name for each in folder.iterdir()} <= known
    ):
        raise InputError(
            f"{folder} exists and is no earlier export: move it, or set another --output-dir"
        )


def _require_tensorflow() -> None:
    import keras

    if (backend := keras.backend.backend()) != "tensorflow":
        raise InputError(
            f"an export converts networks from TensorFlow, and Keras runs on {backend}: set "
            "KERAS_BACKEND to tensorflow"
        )


class _Graph:
    """The parts of the graph, as functions of TensorFlow.

    Attributes:
        networks: their inputs are the outputs of `prepare`.
        inputs: specs of log_mel (n, m, t), and of summary (n, d) if there is a projector.
    """

    def __init__(self, tagger: Tagger, networks: list[keras.Model]) -> None:
        import tensorflow as tf

        self.networks = networks
        self._statistics = tagger.mel_statistics
        self._projector = tagger.projector
        shapes: dict[str, tuple] = {"log_mel": (None, tagger.settings.log_mel.n_mels, None)}
        if self._projector is not None:
            shapes["summary"] = (None, len(self._projector.mean))
        self.inputs = [tf.TensorSpec(shape, tf.float32, name) for name, shape in shapes.items()]

    def prepare(self, log_mel: tf.Tensor, *summary: tf.Tensor) -> dict[str, tf.Tensor]:
        """Compute the networks' inputs, mel (n, m, t, 1), and pca (n, p) if any.

        Inputs are padded, scaled and bounded as by `WholeBatches` and `Projector.transform`.
        """
        import tensorflow as tf

        smallest, largest = self._statistics["minimum"], self._statistics["maximum"]
        n_frames = tf.shape(log_mel)[2]
        frames = tf.range(tf.maximum(n_frames, MINIMUM)) % (2 * n_frames)
        mirrored = tf.gather(log_mel, tf.minimum(frames, 2 * n_frames - 1 - frames), axis=2)
        mel = (mirrored - smallest) / (largest - smallest)
        if self._statistics.get("bounded", True):
            mel = tf.clip_by_value(mel, 0, 1)
        inputs = {"mel": mel[..., None]}
        if self._projector is not None:
            each = self._projector
            # In float64, as the projector: a feature may be large and hardly vary.
            standardised = (tf.cast(summary[0], tf.float64) - each.mean) / each.scale
            components = tf.clip_by_value(standardised @ each.axes.T, each.minimum, each.maximum)
            inputs["pca"] = tf.cast(components, tf.float32)
        return inputs

    @staticmethod
    def log_probabilities(network: keras.Model, *inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Compute the logarithms of a network's probabilities, logs (n, c)."""
        import tensorflow as tf

        probabilities = network(list(inputs), training=False)
        return {"logs": tf.math.log(tf.maximum(probabilities, np.finfo(np.float32).tiny))}

    @staticmethod
    def combine(*logs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Compute probabilities (n, c) from the logarithms of all networks, as `geometric_mean`."""
        import tensorflow as tf

        return {"probabilities": tf.nn.softmax(tf.add_n(logs) / len(logs))}

    def predict(self, *inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Compute probabilities (n, c) from `inputs`."""
        prepared = self.prepare(*inputs).values()
        logs = [self.log_probabilities(each, *prepared)["logs"] for each in self.networks]
        return self.combine(*logs)


def _write_onnx(graph: _Graph, folder: Path) -> None:
    """Convert part after part, and join them: tf2onnx takes minutes for a graph of many layers."""
    import onnx
    import tensorflow as tf

    n_classes = graph.networks[0].output_shape[1]
    names = [f"network_{number}_" for number, _ in enumerate(graph.networks, start=1)]
    logs = [tf.TensorSpec((None, n_classes), tf.float32, f"{name}logs") for name in names]
    parts = [_convert_part(graph.prepare, graph.inputs, "prepare_")]
    for network, name in zip(graph.networks, names, strict=True):
        specs = [tf.TensorSpec(each.shape, each.dtype, each.name) for each in network.inputs]
        function = partial(graph.log_probabilities, network)
        parts.append(_convert_part(function, specs, name, rename_outputs=True))
    parts.append(_convert_part(graph.combine, logs, "combine_"))
    joined = onnx.helper.make_graph(
        [node for part in parts for node in part.graph.node],
        "tagger",
        inputs=parts[0].graph.input,
        outputs=parts[-1].graph.output,
        initializer=[each for part in parts for each in part.graph.initializer],
    )
    model = onnx.helper.make_model(
        joined, opset_imports=parts[0].opset_import, ir_version=parts[0].ir_version
    )
    onnx.save_model(model, folder / FILES["onnx"][0])


def _convert_part(
    function: Callable, specs: list[tf.TensorSpec], prefix: str, *, rename_outputs: bool = False
) -> onnx.ModelProto:
    """Convert a function, and add a prefix to the names in it, except those of inputs."""
    import tensorflow as tf
    import tf2onnx
    from onnx.compose import add_prefix

    model, _ = tf2onnx.convert.from_function(tf.function(function, specs), specs, opset=_OPSET)
    return add_prefix(model, prefix, rename_inputs=False, rename_outputs=rename_outputs)


def _write_openvino(graph: _Graph, folder: Path) -> None:
    block_telemetry()
    import openvino
    import tensorflow as tf

    function = tf.function(graph.predict, graph.inputs).get_concrete_function()
    model = openvino.convert_model(function, share_weights=False)
    openvino.save_model(model, folder / FILES["openvino"][0], compress_to_fp16=False)


_WRITERS: dict[Format, Callable[[_Graph, Path], None]] = {
    "onnx": _write_onnx,
    "openvino": _write_openvino,
}


def _compare(tagger: Tagger, networks: list[keras.Model], file: Path) -> float:
    """Return how far probabilities of a written file are from those of Keras, for random inputs."""
    rng = np.random.default_rng(0)
    predict = _open(file)
    differences = []
    for length in _CHECKED_LENGTHS:
        mels = np.stack([_random_mel(tagger, length, rng) for _ in range(2)])
        inputs = {"log_mel": mels}
        if tagger.projector is not None:
            mean, scale = tagger.projector.mean, tagger.projector.scale
            inputs["summary"] = rng.normal(mean, scale, (2, len(mean))).astype(np.float32)
        expected = _predict_with_keras(tagger, networks, **inputs)
        differences.append(np.abs(predict(inputs) - expected).max())
    return float(np.max(differences))


def _random_mel(tagger: Tagger, length: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a log-mel (m, t) whose bands and frames differ, a few of them beyond the bounds."""
    smallest, largest = tagger.mel_statistics["minimum"], tagger.mel_statistics["maximum"]
    n_mels = tagger.settings.log_mel.n_mels
    bands, frames = rng.normal(size=(n_mels, 1)), rng.normal(size=(1, length))
    values = bands + frames + rng.normal(size=(n_mels, length))
    return ((smallest + largest) / 2 + (largest - smallest) / 6 * values).astype(np.float32)


def _predict_with_keras(
    tagger: Tagger,
    networks: list[keras.Model],
    log_mel: np.ndarray,
    summary: np.ndarray | None = None,
) -> np.ndarray:
    """Predict as a tagger with whole clips does, from inputs of the graph to (n, c)."""
    n, _, length = log_mel.shape
    frames = np.concatenate(log_mel.transpose(0, 2, 1))
    components = None
    if tagger.projector is not None and summary is not None:
        components = tagger.projector.transform(summary.astype(np.float64))
    clips = Clips(
        rows=np.arange(n),
        fnames=[""] * n,
        mels=RaggedArray(frames, length * np.arange(n + 1)),
        components=components,
        mel_statistics=tagger.mel_statistics,
    )
    batches = WholeBatches(clips, batch_size=n)
    for network in networks:
        network.run_eagerly = True  # To trace ten networks would take longer.
    return geometric_mean([predict_crops(network, batches) for network in networks])


def _open(file: Path) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Return a function from the named inputs of a written graph to probabilities (n, c)."""
    if file.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(["probabilities"], inputs)[0]
    import openvino

    # By default it computes in bfloat16 where the processor can.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(file, "CPU", settings)
    return lambda inputs: model(inputs)["probabilities"]
