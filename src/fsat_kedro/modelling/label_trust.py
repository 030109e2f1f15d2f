"""Trust in labels that nobody verified: how probable other clips make them.

Self-verification, as the second place of the challenge did it with its networks: a model of some
clips predicts others, and labels that it agrees with count when it is fitted again. Here the model
is a logistic regression, which takes seconds.

Axes: n clips, f features, c classes.
"""

import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from fsat_kedro.modelling.baselines import INVERSE_STRENGTH

_N_PARTS = 5
_FEWEST = 10
"""Verified clips that it takes to estimate how many of the other labels are wrong."""
_TINY = 1e-9


def estimate_trust(
    features: np.ndarray, targets: np.ndarray, verified: np.ndarray, *, rounds: int, seed: int
) -> np.ndarray:
    """Estimate how much each label of some training clips can be trusted.

    In each round the clips are cut into five parts. A logistic regression on the other four
    predicts each part. The trust in a label is the odds that its probability gives it, times those
    of any such label to be right. In the first round the regression learns from the verified clips
    alone, then from all by their trust.

    Args:
        features: (n, f), of about unit variance, that no label had a part in.
        targets: class indices (n,).
        verified: (n,) bool. Of classes with fewer than five verified clips, the first round takes
            all clips.
        rounds: at least 1.
        seed: of the parts.

    Returns:
        (n,) float32, 0 to 1; 1 for verified labels, and where a class has a single clip.
    """
    if verified.all():
        return np.ones(len(targets), np.float32)
    n_clips = np.bincount(targets)
    n_verified = np.bincount(targets[verified], minlength=len(n_clips))
    certain = verified | (n_clips[targets] == 1)
    trust = np.where(certain | (n_verified[targets] < _N_PARTS), 1.0, 0.0)
    for round_ in range(rounds):
        agreed = _out_of_part(features, targets, trust, verified, seed + round_)
        wrong = _fraction_wrong(agreed, verified)
        right = (1 - wrong) * agreed
        # Where no label is wrong, all are trusted.
        trust = (right + _TINY) / (right + wrong * (1 - agreed) + _TINY)
        trust[certain] = 1
    return trust.astype(np.float32)


def _fraction_wrong(agreed: np.ndarray, verified: np.ndarray) -> float:
    """Estimate the fraction of labels that are wrong, of those that are not verified.

    If all were right, they would be as probable as the verified ones.
    """
    if verified.sum() < _FEWEST or verified.all():
        return 0.5
    return float(np.clip(1 - agreed[~verified].mean() / agreed[verified].mean(), 0, 1))


def _out_of_part(
    features: np.ndarray, targets: np.ndarray, trust: np.ndarray, verified: np.ndarray, seed: int
) -> np.ndarray:
    """Return the probability (n,) that clips of other parts give to each clip's label."""
    codes = np.unique(targets, return_inverse=True)[1]
    strata = 2 * codes + verified
    n_parts = min(_N_PARTS, int(np.bincount(strata).max()))
    if n_parts < 2 or (np.bincount(codes) > 1).sum() < 2:  # There is nothing to compare with.
        return np.ones(len(targets))
    parts = StratifiedKFold(n_parts, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        # Of classes with fewer clips than parts.
        warnings.filterwarnings("ignore", message="The least populated class|Number of classes")
        probabilities = cross_val_predict(
            LogisticRegression(C=INVERSE_STRENGTH, max_iter=10_000),
            features,
            codes,
            cv=list(parts.split(features, strata)),
            method="predict_proba",
            params={"sample_weight": trust},
        )
    return probabilities[np.arange(len(targets)), codes]
