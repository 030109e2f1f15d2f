"""Clips worth listening to: the misclassified ones, and an exemplar of each class."""

import numpy as np
import pandas as pd

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.evaluation.metrics import N_TAGS, top_k
from fsat_kedro.evaluation.predictions import Predictions


def find_misclassified(predictions: Predictions) -> pd.DataFrame:
    """List the usable labelled clips whose most probable class is another, most confident first.

    A clip whose label is none of the classes is always listed.

    Returns:
        The columns of `rank_tags`.
    """
    rows = np.flatnonzero(predictions.is_usable & predictions.is_labelled)
    first = top_k(predictions.probabilities[rows], k=1)[:, 0]
    table = rank_tags(predictions, rows[first != predictions.targets[rows]])
    return table.sort_values("probability_1", ascending=False, kind="stable", ignore_index=True)


def rank_tags(predictions: Predictions, rows: np.ndarray) -> pd.DataFrame:
    """Rank the tags of some usable labelled clips.

    Returns:
        row in the split; fname, label and verified of the clip; fold that held it out, or 0;
        length in seconds; rank and probability of its label, missing if that is none of the
        classes; tag_1, probability_1 and so on of the `N_TAGS` most probable classes, missing if
        there are fewer classes.
    """
    targets, labels = predictions.targets[rows], np.array(predictions.labels, dtype=object)
    ranked = top_k(predictions.probabilities[rows], k=len(labels))
    probabilities = np.take_along_axis(predictions.probabilities[rows], ranked, axis=1)
    rank = (ranked == targets[:, None]).argmax(axis=1)
    table = predictions.clips.iloc[rows][["fname", "label", "verified"]].assign(
        fold=0 if predictions.folds is None else predictions.folds[rows],
        seconds=predictions.clips["length"].iloc[rows] / SAMPLE_RATE,
        rank=pd.array(1 + rank, "Int64"),
        probability=probabilities[np.arange(len(rows)), rank],
    )
    table.insert(0, "row", rows)
    table.loc[targets < 0, ["rank", "probability"]] = pd.NA
    for k in range(N_TAGS):
        exists = k < len(labels)
        table[f"tag_{k + 1}"] = labels[ranked[:, k]] if exists else None
        table[f"probability_{k + 1}"] = probabilities[:, k] if exists else np.nan
    return table.reset_index(drop=True)


def find_exemplars(predictions: Predictions) -> list[int]:
    """Find the row of each class's exemplar: the usable clip with the highest probability of it.

    If a class has verified clips, its exemplar is one of them. Every class must have a usable clip.
    """
    targets = np.where(predictions.is_usable, predictions.targets, -1)
    verified = predictions.clips["verified"].fillna(False).to_numpy(bool)
    exemplars = []
    for index in range(len(predictions.labels)):
        rows = np.flatnonzero(targets == index)
        rows = rows[verified[rows]] if verified[rows].any() else rows
        exemplars.append(int(rows[predictions.probabilities[rows, index].argmax()]))
    return exemplars
