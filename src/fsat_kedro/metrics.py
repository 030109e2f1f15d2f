"""Scores of ranked tags.

Axes: n clips, c classes. Probabilities are (n, c), targets (n,) class indices.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def class_indices(labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Targets (n,) int64 from labels; −1 for a label that is none of the classes, or missing."""
    positions = {label: index for index, label in enumerate(classes)}
    return np.array([-1 if pd.isna(x) else positions.get(x, -1) for x in labels], dtype=np.int64)


def rank_classes(probabilities: np.ndarray, *, k: int) -> np.ndarray:
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
    ranked = rank_classes(probabilities, k=k)
    hits = ranked == targets[:, None]
    return (hits / np.arange(1, ranked.shape[1] + 1)).sum(axis=1)


def map_at_k(targets: np.ndarray, probabilities: np.ndarray, *, k: int = 3) -> float:
    """Mean average precision at k, 0 to 1."""
    return float(average_precision_at_k(targets, probabilities, k=k).mean())


def accuracy(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Share of clips whose most probable class is the true one, 0 to 1."""
    return map_at_k(targets, probabilities, k=1)


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
