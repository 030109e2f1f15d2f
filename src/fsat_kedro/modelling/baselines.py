"""Baselines of a few seconds, which tell what the networks are worth on a data set.

Nothing here imports Keras.

Axes: n clips, f features, c classes.
"""

import warnings

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

INVERSE_STRENGTH = 0.3
"""Inverse of the regularisation of a logistic regression on embeddings, chosen out of fold: see
benchmarks/audioset.md."""

_N_TREES = 500


def random_forest(*, seed: int, n_jobs: int) -> ClassifierMixin:
    """Return a forest for summary features; each of `n_jobs` threads grows trees."""
    return RandomForestClassifier(_N_TREES, random_state=seed, n_jobs=n_jobs)


def logistic_regression() -> Pipeline:
    """Return the regression of a probe, for embeddings."""
    regression = LogisticRegression(C=INVERSE_STRENGTH, max_iter=10_000)
    return make_pipeline(StandardScaler(), regression)


def predict_out_of_fold(
    model: ClassifierMixin, features: np.ndarray, targets: np.ndarray, folds: np.ndarray
) -> np.ndarray:
    """Fit a model for each fold, and predict its held-out clips.

    Args:
        model: a classifier of scikit-learn.
        features: (n, f).
        targets: class indices (n,), 0 to c − 1, each at least once.
        folds: (n,) the fold that holds each clip out.

    Returns:
        Probabilities (n, c); 0 for a class that a fold has no clips to learn from.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Number of classes in training fold")
        return cross_val_predict(
            model, features, targets, cv=PredefinedSplit(folds), method="predict_proba"
        )
