"""Nodes from trained folds to ranked tags of the test clips and their scores.

Axes: n test clips, c classes, p components.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.evaluation import metrics
from fsat_kedro.inference.ensemble import geometric_mean, predict_with_weights, ranked_tags
from fsat_kedro.parameters import Inference, Model, Views

logger = logging.getLogger(__name__)


def predict_fold(
    mel_pca_weights: Path,
    clips: pd.DataFrame,
    mels: RaggedArray,
    components: np.ndarray,
    mel_statistics: dict,
    classes: dict,
    model: Model,
    views: Views,
    inference: Inference,
    seed: int,
    *,
    fold: int,
) -> np.ndarray:
    """Mean log probabilities over all views by one fold's network, (n, c); NaN if rejected."""
    from fsat_kedro.modelling.batches import Clips

    usable = np.flatnonzero(clips["status"] == "ok")
    test = Clips(usable, clips["fname"].tolist(), mels, components, mel_statistics)
    n_classes = len(classes["labels"])
    return predict_with_weights(
        mel_pca_weights,
        test,
        n_classes=n_classes,
        model=model,
        views=views,
        inference=inference,
        seed=seed,
        fold=fold,
    )


def combine_folds(clips: pd.DataFrame, classes: dict, *logs: np.ndarray) -> np.ndarray:
    """Probabilities of every clip, (n, c): the geometric mean over folds and views.

    A rejected clip gets the classes' shares of the training clips.
    """
    probabilities = geometric_mean(list(logs))
    probabilities[clips["status"] != "ok"] = classes["prior"]
    return probabilities


def rank_tags(probabilities: np.ndarray, clips: pd.DataFrame, classes: dict) -> pd.DataFrame:
    """The submission, a row a clip: fname, and label with the three first tags.

    A space stands between tags; within a label, an underscore takes its place.
    """
    labels = [label.replace(" ", "_") for label in classes["labels"]]
    tags = ranked_tags(probabilities, labels)
    return pd.DataFrame({"fname": clips["fname"], "label": [" ".join(three) for three in tags]})


def score_test(
    probabilities: np.ndarray, clips: pd.DataFrame, classes: dict, seed: int
) -> dict[str, dict[str, float]]:
    """Each of `metrics.SCORES`: public, private and pooled, where there are labelled clips."""
    targets = metrics.class_indices(clips["label"], classes["labels"])
    unknown = clips.loc[clips["label"].notna() & (targets < 0), "label"]
    if len(unknown):
        logger.warning(
            "%d test clips have labels that no training clip has, and count as missed: %s",
            len(unknown),
            ", ".join(unknown.unique()[:5]),
        )
    usage = clips["usage"].str.lower()
    parts = {
        "public": (usage == "public").fillna(False),
        "private": (usage == "private").fillna(False),
        "pooled": clips["label"].notna(),
    }
    scores: dict[str, dict[str, float]] = {score: {} for score in metrics.SCORES}
    for part, rows in parts.items():
        rows = (rows & clips["label"].notna()).to_numpy(bool)
        if rows.any():
            scored = metrics.score_clips(targets[rows], probabilities[rows], seed=seed)
            for score, number in scored.items():
                scores[score][part] = number
    return scores


def score_folds(clips: pd.DataFrame, classes: dict, seed: int, *logs: np.ndarray) -> pd.DataFrame:
    """Scores of each fold's network by itself, over the clips that the ensemble is scored on.

    Args:
        clips: the test clips.
        classes: with labels and prior of the c classes.
        seed: of the intervals.
        logs: of each fold, mean log probabilities (n, c).

    Returns:
        fold, and `metrics.SCORES`, a row a fold; without a row where no clip is labelled.
    """
    labelled = clips["label"].notna().to_numpy(bool)
    targets = metrics.class_indices(clips["label"][labelled], classes["labels"])
    rows = []
    for fold, log in enumerate(logs if labelled.any() else [], start=1):
        probabilities = combine_folds(clips, classes, log)[labelled]
        rows.append({"fold": fold, **metrics.score_clips(targets, probabilities, seed=seed)})
    return pd.DataFrame(rows, columns=["fold", *metrics.SCORES])
