"""Assignment of training clips to cross-validation folds."""

import logging
import warnings

import numpy as np
from sklearn.model_selection import StratifiedKFold

from fsat_kedro.errors import InputError

logger = logging.getLogger(__name__)


def stratified_folds(
    labels: np.ndarray, verified: np.ndarray | None = None, *, n_folds: int, seed: int
) -> np.ndarray:
    """Assign clips to shuffled folds of equal size and class balance.

    Args:
        labels: (n,).
        verified: whether each label is verified, (n,), for folds that have equal fractions of both;
            None if it does not matter.
        n_folds: number of folds.
        seed: of the shuffling.

    Returns:
        (n,) int64 in 1..n_folds, the fold in which each clip is held out.

    Raises:
        InputError: more folds than clips, or than clips of any one label.
    """
    if n_folds > len(labels):
        raise InputError(
            f"folds.n_folds is {n_folds}, but only {len(labels)} training clips are usable: "
            "lower it"
        )
    names, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if n_folds > counts.max():
        raise InputError(
            f"{n_folds} folds cannot be stratified with at most {counts.max()} clips of a label: "
            "lower folds.n_folds"
        )
    rare = [f"{name} ({n})" for name, n in zip(names, counts, strict=True) if n < n_folds]
    if rare:
        logger.warning(
            "Labels with fewer clips than the %d folds, so that some folds have none: %s",
            n_folds,
            ", ".join(rare),
        )
    if verified is not None:
        both = 2 * codes + verified
        if np.bincount(both).max() >= n_folds:  # scikit-learn needs that of some group.
            codes = both
    folds = np.zeros(len(labels), dtype=np.int64)
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # Logged above.
        for fold, (_, held_out) in enumerate(splitter.split(codes, codes), start=1):
            folds[held_out] = fold
    return folds


def predefined_folds(folds: np.ndarray, *, n_folds: int) -> np.ndarray:
    """Renumber a data set's own folds (n,) from 1, in the same order.

    Returns:
        (n,) int64 in 1..n_folds.

    Raises:
        InputError: there are not `n_folds` of them.
    """
    numbers, positions = np.unique(folds.astype(np.int64), return_inverse=True)
    if len(numbers) != n_folds:
        raise InputError(
            f"the usable clips are in folds {numbers.tolist()}, but folds.n_folds is {n_folds}: "
            f"set folds.n_folds to {len(numbers)}, or folds.source to stratified"
        )
    return positions + 1
