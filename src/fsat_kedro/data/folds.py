"""Which training clip is held out in which fold."""

import logging
import warnings

import numpy as np
from sklearn.model_selection import StratifiedKFold

from fsat_kedro.errors import InputError

logger = logging.getLogger(__name__)


def stratified_folds(labels: np.ndarray, *, n_folds: int, seed: int) -> np.ndarray:
    """Folds of equal size and class balance, shuffled.

    Args:
        labels: (n,) a label per clip.
        n_folds: number of folds.
        seed: of the shuffle.

    Returns:
        (n,) int64, 1 to n_folds.

    Raises:
        InputError: more folds than clips, or than clips of any one label.
    """
    if n_folds > len(labels):
        raise InputError(
            f"{n_folds} folds of {len(labels)} usable training clips: lower folds.n_folds"
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
            "Labels with fewer clips than the %d folds, some of which hold out none: %s",
            n_folds,
            ", ".join(rare),
        )
    folds = np.zeros(len(labels), dtype=np.int64)
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # Said above.
        for fold, (_, held_out) in enumerate(splitter.split(codes, codes), start=1):
            folds[held_out] = fold
    return folds


def given_folds(folds: np.ndarray, *, n_folds: int) -> np.ndarray:
    """A data set's own folds, numbered from 1 on in their order.

    Args:
        folds: (n,) a fold number per clip.
        n_folds: the number of folds expected.

    Returns:
        (n,) int64, 1 to n_folds.

    Raises:
        InputError: another number of folds.
    """
    found, positions = np.unique(folds.astype(np.int64), return_inverse=True)
    if len(found) != n_folds:
        raise InputError(
            f"the usable clips are in folds {found.tolist()}, but folds.n_folds is {n_folds}: "
            f"set folds.n_folds to {len(found)}, or folds.source to stratified"
        )
    return positions + 1
