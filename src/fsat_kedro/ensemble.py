"""Many predictions of a clip made into one: a geometric mean over folds and views.

Axes: n clips, c classes. Means are kept as logarithms until the end, so that nothing underflows.
"""

from typing import TYPE_CHECKING

import numpy as np

from fsat_kedro.metrics import rank_classes

if TYPE_CHECKING:  # Keras takes seconds to import, and this module does not need it.
    import keras

    from fsat_kedro.batches import ViewBatches


def mean_log_probabilities(
    model: "keras.Model", views: "ViewBatches", n_clips: int
) -> np.ndarray:
    """Mean over all views of the logarithm of a network's probabilities.

    Args:
        model: a trained network.
        views: batches of some of the clips.
        n_clips: number of all clips.

    Returns:
        (n_clips, c) float64, NaN where a clip is not in the views.
    """
    (n_classes,) = model.output_shape[1:]
    sums = np.full((n_clips, n_classes), np.nan)
    counts = np.zeros((n_clips, 1))
    for index in range(len(views)):
        (inputs, *_), rows = views[index], views.rows(index)
        logs = log_probabilities(model.predict_on_batch(inputs))
        sums[rows] = np.where(counts[rows] > 0, sums[rows], 0) + logs
        counts[rows] += 1
    return sums / np.maximum(counts, 1)


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
