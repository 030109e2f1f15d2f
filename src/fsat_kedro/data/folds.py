"""Assignment of training clips to cross-validation folds."""

import logging
import re
import warnings

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from fsat_kedro.errors import InputError

logger = logging.getLogger(__name__)

# A number at the end of a name that has words, such as kitchen_12.wav: the part of a recording.
_PART = re.compile(r"^((?:.*/)?[^/]*[^\W\d_][^/]*[-_. ])\d+(?:\.\w+)?$")


def count_folds(folds: pd.Series) -> int:
    """Return the number of a data set's own folds (n,), 0 if it has none or only one."""
    n_folds = 0 if folds.isna().any() else folds.nunique()
    return n_folds if n_folds > 1 else 0


def stratified_folds(
    labels: np.ndarray,
    verified: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    *,
    n_folds: int,
    seed: int,
) -> np.ndarray:
    """Assign clips to shuffled folds of equal size and class balance.

    Args:
        labels: (n,).
        verified: whether each label is verified, (n,), for folds that have equal fractions of both;
            None if it does not matter.
        groups: the group of each clip, (n,), whose clips are kept in one fold. Sizes and balance
            are then as equal as that allows. None if there are no groups.
        n_folds: number of folds.
        seed: of the shuffling.

    Returns:
        (n,) int64 in 1..n_folds, the fold in which each clip is held out.

    Raises:
        InputError: more folds than clips, than groups, or than clips or groups of any one label.
    """
    names, codes = np.unique(labels, return_inverse=True)
    _require_enough(names, codes, groups, n_folds)
    if verified is not None:
        both = 2 * codes + verified
        if np.bincount(both).max() >= n_folds:  # scikit-learn needs that of some group.
            codes = both
    folds = np.zeros(len(labels), dtype=np.int64)
    splitter_type = StratifiedKFold if groups is None else StratifiedGroupKFold
    splitter = splitter_type(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # Logged above.
        for fold, (_, held_out) in enumerate(splitter.split(codes, codes, groups), start=1):
            folds[held_out] = fold
    return folds


def _require_enough(
    names: np.ndarray, codes: np.ndarray, groups: np.ndarray | None, n_folds: int
) -> None:
    """Require enough clips or groups for the folds; warn of labels (n,) that have too few."""
    items = "clips" if groups is None else "groups"
    units = np.unique(np.arange(len(codes)) if groups is None else groups, return_inverse=True)[1]
    n_units = int(units.max(initial=-1)) + 1
    if n_folds > n_units:
        raise InputError(
            f"folds.n_folds is {n_folds}, but only {n_units} "
            f"{'training clips are' if groups is None else 'groups of training clips are'} "
            "usable: lower it"
        )
    counts = np.bincount(np.unique([codes, units], axis=1)[0])
    if n_folds > counts.max():
        raise InputError(
            f"{n_folds} folds cannot be stratified with at most {counts.max()} {items} of a label: "
            "lower folds.n_folds"
        )
    rare = [f"{name} ({n})" for name, n in zip(names, counts, strict=True) if n < n_folds]
    if rare:
        logger.warning(
            "Labels with fewer %s than the %d folds, so that some folds have none: %s",
            items,
            n_folds,
            ", ".join(rare),
        )


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


def warn_of_split_groups(folds: np.ndarray, groups: np.ndarray) -> None:
    """Warn if clips of one group (n,) are in several folds (n,)."""
    n_split = int((pd.Series(folds).groupby(groups).nunique() > 1).sum())
    if n_split:
        logger.warning(
            "The clips of %d groups are in several folds: networks are scored on recordings that "
            "they were trained on, which flatters the scores. Set folds.source to stratified",
            n_split,
        )


def warn_of_cut_up_recordings(fnames: pd.Series, labels: pd.Series) -> None:
    """Warn if names of clips (n,) suggest that many are cut from the same recordings.

    This is so if most names differ from another of their label only in a number at the end, and if
    these are too many series to be a numbering of the clips of a label.
    """
    names = pd.DataFrame({"label": labels, "recording": fnames.str.extract(_PART, expand=False)})
    n_parts = names.groupby(["label", "recording"]).size()
    n_parts = n_parts[n_parts > 1]
    if n_parts.sum() * 2 > len(fnames) and len(n_parts) >= 3 * labels.nunique():
        logger.warning(
            "%d of %d clips are named like parts of recordings, such as %s1: folds that divide a "
            "recording flatter the scores. If they are parts, name the recording of each clip in "
            "the column group of a table of clips (docs/data.md)",
            n_parts.sum(),
            len(fnames),
            n_parts.index[0][1],
        )
