"""Many predictions of a clip made into one: a geometric mean over folds and views.

Axes: n clips, c classes. Means are kept as logarithms until the end, so that nothing underflows.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fsat_kedro.lengths import view_lengths
from fsat_kedro.metrics import rank_classes
from fsat_kedro.parameters import Model, Views

# Keras takes seconds to import, and commands that predict nothing import this module too.
if TYPE_CHECKING:
    import keras

    from fsat_kedro.batches import Clips


def predict_clips(
    network: "keras.Model", clips: "Clips", *, lengths: list[int], views: Views, seed: int
) -> np.ndarray:
    """Look at clips in all views with one network.

    Args:
        network: trained, from mel and pca to c classes.
        clips: some rows of a split.
        lengths: of the views, in frames.
        views: spans of each length, clips at a time.
        seed: of the spans.

    Returns:
        (all clips of the split, c) float64: the mean over the views of the logarithm of the
        probabilities; NaN for the rows that were not asked for.
    """
    from fsat_kedro.batches import ViewBatches

    batches = ViewBatches(
        clips, lengths=lengths, n_spans=views.n_spans, batch_size=views.batch_size, seed=seed
    )
    sums = np.full((len(clips.fnames), network.output_shape[1]), np.nan)
    sums[clips.rows] = 0
    for index in range(len(batches)):
        (inputs,) = batches[index]
        sums[batches.rows(index)] += log_probabilities(network.predict_on_batch(inputs))
    return sums / (len(lengths) * views.n_spans)


def predict_with_weights(
    weights: Path, clips: "Clips", *, n_classes: int, model: Model, views: Views, seed: int
) -> np.ndarray:
    """Look at clips in all views with the network whose weights are in a file.

    Returns:
        As `predict_clips`.
    """
    from fsat_kedro.model import load_network

    network = load_network(
        model,
        weights,
        n_mels=clips.mels.values.shape[1],
        n_classes=n_classes,
        n_components=clips.components.shape[1],
    )
    shortest, longest = clips.mel_statistics["shortest"], clips.mel_statistics["longest"]
    lengths = view_lengths(shortest, longest, views.n_lengths)
    return predict_clips(network, clips, lengths=lengths, views=views, seed=seed)


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
    return [[labels[index] for index in row] for row in rank_classes(probabilities, k=k)]
