"""A probe: logistic regression on embeddings, the pooled features of a pretrained encoder.

Axes: n clips, c classes, f features of the encoder.
"""

import keras
import numpy as np

from fsat_kedro.errors import InputError
from fsat_kedro.modelling.baselines import logistic_regression
from fsat_kedro.modelling.crops import Batches
from fsat_kedro.modelling.networks import CLASSES


def fit_head(
    network: keras.Model, embeddings: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> None:
    """Fit the head of a network to clips, in place: the weights of its only layer.

    Args:
        network: from mel to c classes, with a linear head.
        embeddings: of the training clips, (n, f).
        targets: their class indices, (n,).
        weights: how much each clip counts, (n,).

    Raises:
        InputError: the embeddings are not of the network's encoder.
    """
    layer = network.get_layer(CLASSES)
    kernel, bias = map(np.zeros_like, layer.get_weights())
    if embeddings.shape[1] != len(kernel):
        raise InputError(
            f"the embeddings of the training clips have {embeddings.shape[1]} features, but the "
            f"encoder makes {len(kernel)}: kedro run --nodes training.embed_clips makes them anew"
        )
    present = np.unique(targets)
    slopes, intercepts = _regress(embeddings, targets, weights) if len(present) > 1 else (0, 0)
    # Classes that these clips lack are improbable.
    bias -= 20
    kernel[:, present], bias[present] = slopes, intercepts
    layer.set_weights([kernel, bias])


def average_weights(network: keras.Model, start: list[np.ndarray], fraction: float) -> None:
    """Move the weights of a network back towards those that its training started from, in place.

    This is WiSE-FT (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022).

    Args:
        network: trained.
        start: its weights before the training.
        fraction: what they count in the mean, 0 to 1.
    """
    pairs = zip(start, network.get_weights(), strict=True)
    network.set_weights([fraction * before + (1 - fraction) * after for before, after in pairs])


def _regress(
    embeddings: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return slopes (f, c) and intercepts (c,) of a softmax over the c classes of some targets."""
    model = logistic_regression()
    model.fit(embeddings, targets, logisticregression__sample_weight=weights)
    scaler, regression = (step for _, step in model.steps)
    slopes, intercepts = regression.coef_ / scaler.scale_, regression.intercept_
    intercepts = intercepts - slopes @ scaler.mean_
    if len(regression.classes_) == 2:  # One logit, of the second class against the first.
        half = np.array([[-0.5], [0.5]])
        slopes, intercepts = half * slopes, half[:, 0] * intercepts
    return slopes.T, intercepts


def embed_clips(embedder: keras.Model, batches: Batches) -> np.ndarray:
    """Compute the embeddings of clips.

    Args:
        embedder: from mel to pooled features, as `build_embedder` builds it.
        batches: of some rows of a split; whole clips for a probe.

    Returns:
        (all clips of the split, f) float32: the mean over a clip's parts; NaN for the other rows.
    """
    clips = batches.clips
    means = np.full((len(clips.fnames), embedder.output_shape[1]), np.nan)
    means[clips.rows] = 0
    for index in range(len(batches)):
        features = embedder.predict_on_batch(batches[index][0])
        np.add.at(means, batches.rows(index), features * batches.fractions(index)[:, None])
    return means.astype(np.float32)
