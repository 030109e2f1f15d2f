"""Scores of ranked tags.

Axes: n clips, c classes. Probabilities are (n, c), targets (n,) class indices.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import binomtest, bootstrap

N_TAGS = 3
"""Tags of a clip that count: the challenge scores three."""

SCORES = (
    "n_clips",
    *("map_at_3", "map_at_3_low", "map_at_3_high"),
    *("accuracy", "accuracy_low", "accuracy_high"),
)


def class_indices(labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Targets (n,) int64 from labels; −1 for a label that is none of the classes, or missing."""
    positions = {label: index for index, label in enumerate(classes)}
    return np.array([-1 if pd.isna(x) else positions.get(x, -1) for x in labels], dtype=np.int64)


def top_k(probabilities: np.ndarray, *, k: int) -> np.ndarray:
    """The k most probable classes, best first; equal ones in the order of the classes.

    Returns:
        (n, min(k, c)) int64.
    """
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :k]


def average_precision_at_k(
    targets: np.ndarray, probabilities: np.ndarray, *, k: int = 3
) -> np.ndarray:
    """One over the rank of the true class, 0 where it is not among the first k.

    With one true class a clip this is the average precision at k; its mean is the challenge's
    MAP@k.

    Returns:
        (n,) float64.
    """
    _validate(targets, probabilities)
    ranked = top_k(probabilities, k=k)
    hits = ranked == targets[:, None]
    return (hits / np.arange(1, ranked.shape[1] + 1)).sum(axis=1)


def map_at_k(targets: np.ndarray, probabilities: np.ndarray, *, k: int = 3) -> float:
    """Mean average precision at k, 0 to 1."""
    return float(average_precision_at_k(targets, probabilities, k=k).mean())


def accuracy(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Share of clips whose most probable class is the true one, 0 to 1."""
    return map_at_k(targets, probabilities, k=1)


def score_clips(targets: np.ndarray, probabilities: np.ndarray, *, seed: int) -> dict[str, float]:
    """The number of clips, MAP@3 and accuracy, each with its 95 % interval.

    Args:
        targets: (n,), −1 for a clip that counts as missed.
        probabilities: (n, c).
        seed: of the intervals.

    Returns:
        A number for each name in `SCORES`.
    """
    scores = np.array([average_precision_at_k(targets, probabilities, k=k) for k in (3, 1)])
    low, high = bootstrap_interval(scores, seed=seed)
    numbers = np.column_stack([scores.mean(axis=1), low, high]).ravel()
    return dict(zip(SCORES, [len(targets), *numbers.tolist()], strict=True))


def bootstrap_interval(
    scores: np.ndarray, *, seed: int, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap interval of mean scores: 9,999 resamples of the clips.

    It tells what other clips of the same kind would have changed, with the same networks; what
    another training would change is not in it. It has no width where all clips score the same,
    which says too much where they are few.

    Args:
        scores: (..., n), of every clip. The clips of a resample are the same in every row.
        seed: of the resamples.
        confidence: of the interval, 0 to 1.

    Returns:
        Lower and upper ends, (...) each.
    """
    if scores.shape[-1] == 1:  # All its resamples are the clip itself; SciPy wants two.
        return scores[..., 0], scores[..., 0]
    resampled = bootstrap(
        (scores,),
        np.mean,
        axis=-1,
        method="percentile",
        confidence_level=confidence,
        batch=100,
        rng=np.random.default_rng(seed),
    )
    return resampled.confidence_interval.low, resampled.confidence_interval.high


def reliability(
    claimed: np.ndarray, right: np.ndarray, *, per_point: int = 20, most: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """How often claims come true, by the probability that they were made with.

    The claims are divided by their probability into parts of the same number, up to one. (The
    `calibration_curve` of scikit-learn does not tell that number, which intervals need.)

    Args:
        claimed: (n,) probabilities.
        right: (n,) whether the claim came true.
        per_point: claims in a part, at least, where there are as many.
        most: parts.

    Returns:
        Of each part, with the least probable claims first: the mean probability; the share that
        came true; lower and upper end of the share's 95 % interval (Wilson).
    """
    n_parts = int(np.clip(len(claimed) // per_point, 1, most))
    parts = np.array_split(np.argsort(claimed, kind="stable"), n_parts)
    means = np.array([claimed[part].mean() for part in parts])
    shares = np.array([right[part].mean() for part in parts])
    intervals = [
        binomtest(int(right[part].sum()), len(part)).proportion_ci(method="wilson")
        for part in parts
    ]
    return means, shares, *np.transpose(intervals)


def confusion_counts(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How often clips of each class (rows) have each class as their most probable (columns).

    Returns:
        (c, c) int64.

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
    """Pairs of a true class and another that clips of it are taken for, most clips first.

    Args:
        counts: (c, c), as from `confusion_counts`.

    Returns:
        True and predicted classes, (pairs,) each; pairs of as many clips in the order of the
        true, then of the predicted classes.
    """
    true, predicted = np.nonzero(counts - np.diag(np.diag(counts)))
    order = np.argsort(-counts[true, predicted], kind="stable")
    return true[order], predicted[order]


def scores_by_class(
    targets: np.ndarray, probabilities: np.ndarray, *, k: int = 3
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores of each class, (c,) each.

    A clip whose target is no class, −1, is in the precision of the class that it is taken for.

    Returns:
        The number of its clips; their mean average precision at k; precision and recall of the
        most probable class. NaN for a precision of a class that is never predicted, and where
        there are no clips.
    """
    n_classes = probabilities.shape[1]
    precisions = average_precision_at_k(targets, probabilities, k=k)
    first = top_k(probabilities, k=1)[:, 0]
    known = targets >= 0
    clips = np.bincount(targets[known], minlength=n_classes)
    sums = np.bincount(targets[known], weights=precisions[known], minlength=n_classes)
    hits = np.bincount(first[first == targets], minlength=n_classes)
    tagged = np.bincount(first, minlength=n_classes)
    return clips, _divide(sums, clips), _divide(hits, tagged), _divide(hits, clips)


def _validate(targets: np.ndarray, probabilities: np.ndarray) -> None:
    if probabilities.ndim != 2 or targets.shape != probabilities.shape[:1]:
        raise ValueError(
            f"targets {targets.shape} and probabilities {probabilities.shape}: "
            "expected (n,) and (n, classes)"
        )
    if len(targets) == 0:
        raise ValueError("no clips to score")
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities hold NaN or infinite values")


def _divide(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """Shares, NaN where there is nothing to divide."""
    return np.divide(parts, wholes, out=np.full(len(parts), np.nan), where=wholes > 0)
