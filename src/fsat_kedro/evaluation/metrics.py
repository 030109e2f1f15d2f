"""Scores of ranked tags.

Axes: n clips, c classes. Probabilities are (n, c), targets (n,) class indices.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import binomtest, bootstrap

N_TAGS = 3
"""Number of ranked tags per clip that the challenge scores."""

SCORES = (
    "n_clips",
    *("map_at_3", "map_at_3_low", "map_at_3_high"),
    *("accuracy", "accuracy_low", "accuracy_high"),
)


def class_indices(labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Return the class index of each label, (n,) int64; −1 if missing or none of the classes."""
    return pd.Index(classes, dtype=object).get_indexer(labels).astype(np.int64)


def top_k(probabilities: np.ndarray, *, k: int) -> np.ndarray:
    """Return the k most probable classes, (n, min(k, c)), best first; ties in class order."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :k]


def average_precision_at_k(
    targets: np.ndarray, probabilities: np.ndarray, *, k: int = N_TAGS
) -> np.ndarray:
    """Compute 1 / rank of each clip's true class, (n,), or 0 if it is not in the first k.

    With one true class per clip this is the average precision at k. Its mean is the challenge's
    MAP@k.

    Example:
        >>> average_precision_at_k(np.array([0, 1]), np.array([[0.3, 0.7], [0.2, 0.8]]))
        array([0.5, 1. ])
    """
    _validate(targets, probabilities)
    ranked = top_k(probabilities, k=k)
    hits = ranked == targets[:, None]
    return (hits / np.arange(1, ranked.shape[1] + 1)).sum(axis=1)


def map_at_k(targets: np.ndarray, probabilities: np.ndarray, *, k: int = N_TAGS) -> float:
    """Compute the mean average precision at k, 0 to 1."""
    return float(average_precision_at_k(targets, probabilities, k=k).mean())


def accuracy(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Compute the fraction of clips whose most probable class is the true one, 0 to 1."""
    return map_at_k(targets, probabilities, k=1)


def score_clips(targets: np.ndarray, probabilities: np.ndarray, *, seed: int) -> dict[str, float]:
    """Compute `SCORES`: MAP@3 and accuracy, each with its 95 % interval.

    A clip of an unknown class, −1, scores 0. The seed is that of the intervals.
    """
    scores = np.array([average_precision_at_k(targets, probabilities, k=k) for k in (N_TAGS, 1)])
    low, high = bootstrap_interval(scores, seed=seed)
    numbers = np.column_stack([scores.mean(axis=1), low, high]).ravel()
    return dict(zip(SCORES, [len(targets), *numbers.tolist()], strict=True))


def bootstrap_interval(scores: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the 95 % percentile bootstrap interval of mean scores, from 9,999 resamples.

    The interval covers the choice of the clips. It does not cover the randomness of training. If
    all clips have the same score, its width is 0, which is too optimistic for few clips.

    Args:
        scores: (..., n), one per clip. Each resample takes the same clips in every row.
        seed: of the resamples.

    Returns:
        Lower and upper ends, (...) each.
    """
    if scores.shape[-1] == 1:  # SciPy requires two observations.
        return scores[..., 0], scores[..., 0]
    rng = np.random.default_rng(seed)
    return bootstrap(
        (scores,), np.mean, axis=-1, method="percentile", batch=100, rng=rng
    ).confidence_interval


def reliability_curve(
    confidence: np.ndarray, correct: np.ndarray, *, min_per_bin: int = 20
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Compute the accuracy of predictions as a function of their confidence.

    The predictions are sorted by confidence and divided into at most 10 bins of equal size, up to
    one. (`sklearn.calibration.calibration_curve` does not return the bin sizes, which the
    intervals need.)

    Args:
        confidence: (n,) probability of each prediction.
        correct: (n,) bool.
        min_per_bin: smallest bin; with fewer predictions than that there is one bin.

    Returns:
        For each bin, in order of confidence: mean confidence; accuracy; lower and upper end of
        the accuracy's 95 % interval (Wilson).

    Example:
        >>> confidence, correct = np.array([0.9, 0.2, 0.8, 0.4]), np.array([1, 0, 0, 1])
        >>> mean_confidence, accuracy, *_ = reliability_curve(confidence, correct, min_per_bin=2)
        >>> mean_confidence.round(2), accuracy
        (array([0.3 , 0.85]), array([0.5, 0.5]))
    """
    n_bins = int(np.clip(len(confidence) // min_per_bin, 1, 10))
    bins = np.array_split(np.argsort(confidence, kind="stable"), n_bins)
    tests = [binomtest(int(correct[x].sum()), len(x)) for x in bins]
    intervals = [test.proportion_ci(method="wilson") for test in tests]
    mean_confidence = np.array([confidence[x].mean() for x in bins])
    return mean_confidence, np.array([correct[x].mean() for x in bins]), *np.transpose(intervals)


def confusion_counts(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Count the clips of each class (rows) by their most probable class (columns), (c, c).

    Raises:
        ValueError: a target is none of the classes.
    """
    _validate(targets, probabilities)
    n_classes = probabilities.shape[1]
    if targets.min() < 0 or targets.max() >= n_classes:
        raise ValueError(
            f"targets from {targets.min()} to {targets.max()}: expected 0 to {n_classes - 1}"
        )
    counts = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(counts, (targets, top_k(probabilities, k=1)[:, 0]), 1)
    return counts


def confused_pairs(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the true and predicted class, (pairs,) each, of all confusions, most frequent first.

    Equally frequent pairs are in the order of the true class, then of the predicted class.

    Example:
        >>> confused_pairs(np.array([[5, 1], [2, 7]]))
        (array([1, 0]), array([0, 1]))
    """
    true, predicted = np.nonzero(counts - np.diag(np.diag(counts)))
    order = np.argsort(-counts[true, predicted], kind="stable")
    return true[order], predicted[order]


def scores_by_class(
    targets: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Compute the scores of each class.

    A clip of an unknown class, −1, lowers the precision of its most probable class.

    Returns:
        (c,) each: number of clips; mean average precision at 3; precision and recall of the most
        probable class. NaN where a class has no clips, or is never predicted (precision).
    """
    n_classes = probabilities.shape[1]
    precisions = average_precision_at_k(targets, probabilities)
    first = top_k(probabilities, k=1)[:, 0]
    known = targets >= 0
    clips = np.bincount(targets[known], minlength=n_classes)
    sums = np.bincount(targets[known], weights=precisions[known], minlength=n_classes)
    hits = np.bincount(first[first == targets], minlength=n_classes)
    predicted = np.bincount(first, minlength=n_classes)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN.
        return clips, sums / clips, hits / predicted, hits / clips


def _validate(targets: np.ndarray, probabilities: np.ndarray) -> None:
    if probabilities.ndim != 2 or targets.shape != probabilities.shape[:1]:
        raise ValueError(
            f"targets {targets.shape} and probabilities {probabilities.shape}: "
            "expected (n,) and (n, classes)"
        )
    if len(targets) == 0:
        raise ValueError("no clips to score")
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities contain NaN or infinite values")
