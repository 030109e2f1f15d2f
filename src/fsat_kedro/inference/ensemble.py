"""The ensemble's predictions: a geometric mean over folds and crops, and ranked tags.

Axes: n clips, c classes. Means stay logarithms until the end, so that nothing underflows.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import softmax

from fsat_kedro.evaluation.metrics import N_TAGS, top_k
from fsat_kedro.parameters import NetworkSettings

# Keras takes seconds to import, and commands that predict nothing import this module too.
if TYPE_CHECKING:
    from fsat_kedro.inference.runtimes import Network
    from fsat_kedro.modelling.crops import Batches, Clips


def predict_fold(
    weights: Path, clips: "Clips", *, n_classes: int, settings: NetworkSettings, fold: int
) -> np.ndarray:
    """Predict the test-time crops of clips with the network of one fold.

    Args:
        weights: file of the fold's trained weights.
        clips: some rows of a split.
        n_classes: c.
        settings: network, crops, runtime and seed.
        fold: the fold's number; each fold has crops of its own.

    Returns:
        As `predict_crops`.
    """
    from fsat_kedro.inference.runtimes import OpenVINONetwork, convert, uses_openvino
    from fsat_kedro.modelling.crops import test_time_batches
    from fsat_kedro.modelling.networks import load_network

    batches = test_time_batches(clips, settings.test_time_crops, seed=(settings.seed, fold))
    network: Network = load_network(
        settings.model,
        weights,
        n_mels=clips.mels.values.shape[1],
        n_classes=n_classes,
        n_components=None if clips.components is None else clips.components.shape[1],
    )
    if uses_openvino(settings.inference, batches.n_crops):
        network = OpenVINONetwork(convert(network))
    return predict_crops(network, batches)


def predict_crops(network: "Network", batches: "Batches") -> np.ndarray:
    """Predict all crops of clips with one network.

    Args:
        network: trained, from mel and pca to c classes.
        batches: crops of some rows of a split.

    Returns:
        (all clips of the split, c) float64: the mean over a clip's crops of the logarithm of the
        probabilities; NaN for the other rows.
    """
    clips = batches.clips
    means = np.full((len(clips.fnames), network.output_shape[1]), np.nan)
    means[clips.rows] = 0
    for index in range(len(batches)):
        inputs = batches[index][0]
        logs = log_probabilities(network.predict_on_batch(inputs))
        weighted = logs * batches.fractions(index)[:, None]
        np.add.at(means, batches.rows(index), weighted)
    return means


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Compute natural logarithms, float64; 0 counts as the smallest normal float32."""
    return np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny))


def geometric_mean(logs: list[np.ndarray]) -> np.ndarray:
    """Compute probabilities (n, c) that sum to 1 from the mean log probabilities of each fold."""
    return softmax(np.mean(logs, axis=0), axis=1)


def rank_labels(probabilities: np.ndarray, labels: list[str]) -> pd.DataFrame:
    """Tabulate the most probable labels of each clip, best first.

    Args:
        probabilities: (n, c); NaN for a rejected clip.
        labels: names of the c classes.

    Returns:
        n rows: tag_1, probability_1, … up to `N_TAGS`; missing for a rejected clip, and where
        there are fewer classes.
    """
    missing = max(0, N_TAGS - len(labels))
    probabilities = np.pad(probabilities, ((0, 0), (0, missing)), constant_values=np.nan)
    ranks = top_k(np.nan_to_num(probabilities, nan=-1), k=N_TAGS)
    best = np.take_along_axis(probabilities, ranks, axis=1)
    tags = np.array([*labels, *[""] * missing], object)[ranks]
    tags[np.isnan(best)] = None
    columns = {}
    for index in range(N_TAGS):
        columns[f"tag_{index + 1}"] = pd.array(tags[:, index], "string")
        columns[f"probability_{index + 1}"] = best[:, index]
    return pd.DataFrame(columns)
