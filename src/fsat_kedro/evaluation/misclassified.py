"""Which clips are worth hearing: those that were missed, and a clear one of each class.

Axes: n clips of a split, c classes.
"""

import numpy as np
import pandas as pd

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.evaluation import metrics


def labelled_clips(clips: pd.DataFrame) -> np.ndarray:
    """Which clips are usable and have a label, (n,) bool."""
    return (clips["label"].notna() & (clips["status"] == "ok")).to_numpy(bool)


def find_misclassified(
    probabilities: np.ndarray, clips: pd.DataFrame, labels: list[str], folds: np.ndarray
) -> pd.DataFrame:
    """The usable clips whose most probable class is not their label, the surest miss first.

    Args:
        probabilities: (n, c); not looked at for a rejected clip.
        clips: fname, label, verified, status, length in samples. A clip without a label cannot be
            missed; one with a label that is none of the classes always is.
        labels: of the c classes.
        folds: (n,) the fold that held each clip out; 0 if none did.

    Returns:
        row in the split; fname, label and verified of the clip; fold; its length in seconds; rank
        and probability of its label, missing where that is no class; tag_1, probability_1 and so
        on, of the `metrics.N_TAGS` most probable classes, missing where there are not as many.
    """
    targets = metrics.class_indices(clips["label"], labels)
    rows = np.flatnonzero(labelled_clips(clips))
    ranked = metrics.top_k(probabilities[rows], k=len(labels))
    wrong = ranked[:, 0] != targets[rows]
    rows, ranked = rows[wrong], ranked[wrong]
    known = targets[rows] >= 0
    table = clips.iloc[rows][["fname", "label", "verified"]].assign(
        row=rows,
        fold=folds[rows],
        seconds=clips["length"].iloc[rows] / SAMPLE_RATE,
        rank=pd.array(1 + (ranked == targets[rows, None]).argmax(axis=1), "Int64"),
        probability=probabilities[rows, targets[rows]],
    )
    table.loc[~known, ["rank", "probability"]] = pd.NA
    for place in range(metrics.N_TAGS):
        there = place < ranked.shape[1]
        index = ranked[:, place] if there else None
        table[f"tag_{place + 1}"] = np.array(labels, dtype=object)[index] if there else None
        table[f"probability_{place + 1}"] = probabilities[rows, index] if there else np.nan
    first = ["row", "fname", "label", "verified", "fold", "seconds", "rank", "probability"]
    table = table[first + [x for x in table if x not in first]]
    return table.sort_values("probability_1", ascending=False, kind="stable", ignore_index=True)


def find_exemplars(probabilities: np.ndarray, clips: pd.DataFrame, labels: list[str]) -> list[int]:
    """Of each class the row of the usable clip that it is most probable for.

    Where a class has clips with a verified label, it is one of them.

    Args:
        probabilities: out-of-fold, (n, c).
        clips: label, verified, status; every class has a usable clip.
        labels: of the c classes.
    """
    targets = np.where(clips["status"] == "ok", metrics.class_indices(clips["label"], labels), -1)
    verified = clips["verified"].fillna(False).to_numpy(bool)
    rows = []
    for index in range(len(labels)):
        own = np.flatnonzero(targets == index)
        own = own[verified[own]] if verified[own].any() else own
        rows.append(int(own[probabilities[own, index].argmax()]))
    return rows
