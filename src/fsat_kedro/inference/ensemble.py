"""Many predictions of a clip made into one: a geometric mean over folds and views.

Axes: n clips, c classes. Means are kept as logarithms until the end, so that nothing underflows.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fsat_kedro.evaluation.metrics import top_k
from fsat_kedro.modelling.crop_lengths import view_lengths
from fsat_kedro.parameters import Inference, Model, Views

# Keras takes seconds to import, and commands that predict nothing import this module too.
if TYPE_CHECKING:
    from fsat_kedro.inference.runtimes import Network
    from fsat_kedro.modelling.batches import Clips, ViewBatches


def predict_views(network: "Network", batches: "ViewBatches") -> np.ndarray:
    """Look at clips in all views with one network.

    Args:
        network: trained, from mel and pca to c classes.
        batches: the views of some rows of a split.

    Returns:
        (all clips of the split, c) float64: the mean over the views of the logarithm of the
        probabilities; NaN for the rows that were not asked for.
    """
    clips = batches.clips
    means = np.full((len(clips.fnames), network.output_shape[1]), np.nan)
    means[clips.rows] = 0
    for index in range(len(batches)):
        (inputs,) = batches[index]
        logs = log_probabilities(network.predict_on_batch(inputs))
        np.add.at(means, batches.rows(index), logs / len(batches.lengths))
    return means


def predict_with_weights(
    weights: Path,
    clips: "Clips",
    *,
    n_classes: int,
    model: Model,
    views: Views,
    inference: Inference,
    seed: int,
    fold: int,
) -> np.ndarray:
    """`predict` with the network whose weights are in a file."""
    from fsat_kedro.inference.runtimes import OpenVINONetwork, uses_openvino
    from fsat_kedro.modelling.networks import load_network

    batches = view_batches(clips, views=views, inference=inference, seed=seed, fold=fold)
    network = load_network(
        model,
        weights,
        n_mels=clips.mels.values.shape[1],
        n_classes=n_classes,
        n_components=clips.components.shape[1],
    )
    if uses_openvino(inference, batches.n_looks):
        network = OpenVINONetwork(network)
    return predict(network, batches, inference)


def predict(network: "Network", batches: "ViewBatches", inference: Inference) -> np.ndarray:
    """Look at clips with one network, in the way that is set.

    Args:
        network: trained, from mel and pca to c classes; of Keras if views are shared.
        batches: see `view_batches`.
        inference: the way.

    Returns:
        As `predict_views`.
    """
    from fsat_kedro.inference.shared_views import predict_shared_views

    look = predict_shared_views if inference.views == "shared" else predict_views
    return look(network, batches)


def view_batches(
    clips: "Clips", *, views: Views, inference: Inference, seed: int, fold: int
) -> "ViewBatches":
    """The views of clips that a network looks at.

    Args:
        clips: some rows of a split.
        views: lengths and spans of all views of a clip.
        inference: which of them are looked at.
        seed: of the spans.
        fold: the network's number; each looks at spans of its own.
    """
    from fsat_kedro.modelling.batches import ViewBatches

    shortest, longest = clips.mel_statistics["shortest"], clips.mel_statistics["longest"]
    lengths, n_spans = view_lengths(shortest, longest, views.n_lengths), views.n_spans
    if inference.views == "thinned":
        # From the longest down: those that are between score less, see benchmarks/inference.md.
        lengths, n_spans = sorted(lengths[::-2]), 1
    return ViewBatches(
        clips, lengths=lengths, n_spans=n_spans, batch_size=views.batch_size, seed=(seed, fold)
    )


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Natural logarithm, float64; 0 counts as the smallest normal float32."""
    return np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny))


def geometric_mean(logs: list[np.ndarray]) -> np.ndarray:
    """Probabilities (n, c) that sum to 1, from mean log probabilities (n, c) of each fold."""
    means = np.mean(logs, axis=0)
    shifted = np.exp(means - means.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def ranked_tags(probabilities: np.ndarray, labels: list[str], *, k: int = 3) -> list[list[str]]:
    """The k most probable labels of each clip, best first."""
    return [[labels[index] for index in row] for row in top_k(probabilities, k=k)]
