"""Nodes from trained folds to ranked tags of the test clips and their scores.

Axes: n test clips, c classes, p components.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.evaluation import metrics
from fsat_kedro.inference import ensemble
from fsat_kedro.parameters import NetworkSettings

logger = logging.getLogger(__name__)


def predict_fold(
    weights: Path,
    clips: pd.DataFrame,
    mel_statistics: dict,
    classes: dict,
    settings: NetworkSettings,
    mels: RaggedArray,
    components: np.ndarray | None = None,
    *,
    fold: int,
) -> np.ndarray:
    """Predict mean log probabilities by the network of one fold, (n, c); NaN if rejected."""
    from fsat_kedro.modelling.crops import Clips

    usable = np.flatnonzero(clips["status"] == "ok")
    return ensemble.predict_fold(
        weights,
        Clips(usable, clips["fname"].tolist(), mels, components, mel_statistics),
        n_classes=len(classes["labels"]),
        settings=settings,
        fold=fold,
    )


def combine_folds(clips: pd.DataFrame, classes: dict, *logs: np.ndarray) -> np.ndarray:
    """Combine the predictions of all folds into probabilities (n, c), by the geometric mean.

    A rejected clip gets the prior: each class's fraction of the training clips.
    """
    probabilities = ensemble.geometric_mean(list(logs))
    probabilities[clips["status"] != "ok"] = classes["prior"]
    return probabilities


def rank_tags(probabilities: np.ndarray, clips: pd.DataFrame, classes: dict) -> pd.DataFrame:
    """Make the submission, a row for each clip: fname, and label with the three best tags.

    Spaces separate the tags; within a label, underscores replace spaces.
    """
    labels = [label.replace(" ", "_") for label in classes["labels"]]
    tags = ensemble.rank_labels(probabilities, labels).filter(like="tag_")
    label = tags["tag_1"].str.cat(tags.drop(columns="tag_1"), sep=" ", na_rep="").str.strip()
    return pd.DataFrame({"fname": clips["fname"], "label": label.to_numpy()})


def score_test(
    probabilities: np.ndarray, clips: pd.DataFrame, classes: dict, seed: int
) -> dict[str, dict[str, float]]:
    """Compute `metrics.SCORES` of the public, the private and all labelled clips (pooled).

    A part without labelled clips has no scores.
    """
    targets = metrics.class_indices(clips["label"], classes["labels"])
    unknown = clips.loc[clips["label"].notna() & (targets < 0), "label"]
    if len(unknown):
        logger.warning(
            "%d test clips have labels that no training clip has, and count as misclassified: %s",
            len(unknown),
            ", ".join(unknown.unique()[:5]),
        )
    usage, labelled = clips["usage"].str.lower(), clips["label"].notna()
    scores: dict[str, dict[str, float]] = {score: {} for score in metrics.SCORES}
    for part in ("public", "private", "pooled"):
        used = labelled if part == "pooled" else labelled & (usage == part).fillna(False)
        rows = used.to_numpy(bool)
        if rows.any():
            scored = metrics.score_clips(targets[rows], probabilities[rows], seed=seed)
            for score, number in scored.items():
                scores[score][part] = number
    return scores


def score_folds(clips: pd.DataFrame, classes: dict, seed: int, *logs: np.ndarray) -> pd.DataFrame:
    """Compute the scores of each fold's network, on the clips that the ensemble is scored on.

    `logs` are the mean log probabilities (n, c) of each fold. `seed` is that of the intervals.

    Returns:
        fold, and `metrics.SCORES`, a row for each fold; no row if no clip is labelled.
    """
    labelled = clips["label"].notna().to_numpy(bool)
    targets = metrics.class_indices(clips["label"][labelled], classes["labels"])
    rows = []
    for fold, log in enumerate(logs if labelled.any() else [], start=1):
        probabilities = combine_folds(clips, classes, log)[labelled]
        rows.append({"fold": fold, **metrics.score_clips(targets, probabilities, seed=seed)})
    return pd.DataFrame(rows, columns=["fold", *metrics.SCORES])
