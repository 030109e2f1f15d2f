"""A probe: logistic regression on what a pretrained encoder makes of whole clips.

Axes: n clips, c classes, f pooled features.
"""

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fsat_kedro.modelling.crops import WholeBatches
from fsat_kedro.modelling.networks import CLASSES, POOLING

_INVERSE_STRENGTH = 0.3
"""Inverse of the regularisation, chosen out of fold: see benchmarks/audioset.md."""


def fit_head(network: keras.Model, clips: WholeBatches) -> None:
    """Fit the head of a network to clips, in place: the weights of its only layer.

    Args:
        network: from mel to c classes, with a linear head.
        clips: whole training clips, with targets.
    """
    assert clips.clips.targets is not None
    targets = clips.clips.targets[clips.clips.rows].argmax(axis=1)
    features = pooled_features(network, clips)
    layer = network.get_layer(CLASSES)
    kernel, bias = (np.zeros_like(weights) for weights in layer.get_weights())
    present = np.unique(targets)
    weights, intercepts = _regress(features, targets) if len(present) > 1 else (0, 0)
    # Classes that these clips lack are improbable.
    bias -= 20
    kernel[:, present], bias[present] = weights, intercepts
    layer.set_weights([kernel, bias])


def _regress(features: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (f, c) and intercepts (c,) of a softmax over the c classes of some targets."""
    scaler = StandardScaler().fit(features)
    regression = LogisticRegression(C=_INVERSE_STRENGTH, max_iter=10_000)
    regression.fit(scaler.transform(features), targets)
    weights, intercepts = regression.coef_ / scaler.scale_, regression.intercept_
    intercepts = intercepts - weights @ scaler.mean_
    if len(regression.classes_) == 2:  # One logit, of the second class against the first.
        half = np.array([[-0.5], [0.5]])
        weights, intercepts = half * weights, half[:, 0] * intercepts
    return weights.T, intercepts


def pooled_features(network: keras.Model, clips: WholeBatches) -> np.ndarray:
    """Compute the pooled features of whole clips, (n, f), in the order of `clips.clips.rows`."""
    encoder = keras.Model(network.inputs, network.get_layer(POOLING).output)
    sums = np.zeros((len(clips.clips.fnames), encoder.output_shape[1]))
    for index in range(len(clips)):
        # Keras would take the targets for sample weights.
        features = encoder.predict_on_batch(clips[index][0])
        np.add.at(sums, clips.rows(index), features * clips.fractions(index)[:, None])
    return sums[clips.clips.rows]
