"""Nodes that make plots and tables for people.

Axes: n clips, c classes.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.pipeline import Pipeline as Projector

from fsat_kedro import metrics, plots
from fsat_kedro.audio import SAMPLE_RATE
from fsat_kedro.parameters import LogMel

_CLASS_SCORES = ["label", "clips", "map_at_3", "precision", "recall"]


def tabulate_scores(cv_scores: dict, test_scores: dict | None = None) -> pd.DataFrame:
    """A row a fold, one for the cross-validation and one a scored part of the test clips.

    Returns:
        clips (which ones), and `metrics.SCORES`.
    """
    rows = [{"clips": f"fold {scored['fold']}", **scored} for scored in cv_scores["per_fold"]]
    rows.append({"clips": "cross-validation", **cv_scores})
    for part in (test_scores or {"map_at_3": {}})["map_at_3"]:
        rows.append({"clips": f"test {part}", **{x: test_scores[x][part] for x in test_scores}})
    return pd.DataFrame(rows, columns=["clips", *metrics.SCORES])


def score_classes(probabilities: np.ndarray, clips: pd.DataFrame, classes: dict) -> pd.DataFrame:
    """Out-of-fold scores, a row a class.

    Args:
        probabilities: out-of-fold, (n, c).
        clips: the training clips.
        classes: with the labels of the c classes.

    Returns:
        label; clips, the number of usable ones; verified, their share, missing where the data
        does not tell; map_at_3 of the class's clips; precision (missing for a class that is
        never predicted) and recall of the most probable class.
    """
    usable = clips["status"] == "ok"
    table = _class_table(probabilities, clips, classes, usable)
    verified = clips["verified"][usable].astype("Float64").groupby(clips["label"]).mean()
    verified = verified.reindex(classes["labels"]).to_numpy(float, na_value=np.nan)
    table.insert(2, "verified", verified)
    return table


def score_test_classes(
    probabilities: np.ndarray, clips: pd.DataFrame, classes: dict
) -> pd.DataFrame:
    """Scores of the labelled test clips, rejected ones included, a row a class.

    Args:
        probabilities: (n, c).
        clips: the test clips.
        classes: with the labels of the c classes.

    Returns:
        As `score_classes`, but for verified; without a row where no clip is labelled.
    """
    labelled = clips["label"].notna()
    if not labelled.any():
        return pd.DataFrame(columns=_CLASS_SCORES)
    return _class_table(probabilities, clips, classes, labelled)


def list_confused_pairs(
    probabilities: np.ndarray, clips: pd.DataFrame, classes: dict
) -> pd.DataFrame:
    """Confusions of the out-of-fold predictions (n, c), a row a pair of classes.

    Returns:
        true and predicted (labels); clips, most first; share of the true class's clips.
    """
    counts = _confusion_counts(probabilities, clips, classes)
    true, predicted = metrics.confused_pairs(counts)
    labels = np.array(classes["labels"], dtype=object)
    confused = counts[true, predicted]
    return pd.DataFrame(
        {
            "true": labels[true],
            "predicted": labels[predicted],
            "clips": confused,
            "share": confused / counts.sum(axis=1)[true],
        }
    )


def draw_confusion_matrix(probabilities: np.ndarray, clips: pd.DataFrame, classes: dict) -> Figure:
    """Confusions of the out-of-fold predictions (n, c)."""
    counts = _confusion_counts(probabilities, clips, classes)
    return plots.plot_confusion_matrix(counts, classes["labels"])


def draw_learning_curves(*histories: pd.DataFrame) -> Figure:
    """Learning curves of all folds; their histories of stage mel come before those of mel_pca."""
    n_folds = len(histories) // 2
    stages = {"mel": histories[:n_folds], "mel_pca": histories[n_folds:]}
    return plots.plot_learning_curves(stages)


def draw_explained_variance(projector: Projector) -> Figure:
    """How much of the summary features' variance the kept components explain."""
    return plots.plot_explained_variance(projector[-1].explained_variance_ratio_)


def draw_class_balance(clips: pd.DataFrame) -> Figure:
    """Usable training clips per class, by whether the label is verified if the data tells."""
    usable = clips[clips["status"] == "ok"]
    if usable["verified"].isna().all():
        return plots.plot_class_balance(usable["label"].value_counts().to_frame("clips"))
    verified = usable["verified"].fillna(False).map({True: "verified", False: "not verified"})
    counts = pd.crosstab(usable["label"], verified)
    return plots.plot_class_balance(
        counts.reindex(columns=["verified", "not verified"], fill_value=0)
    )


def draw_clip_lengths(
    mel_statistics: dict, log_mel: LogMel, *clips: pd.DataFrame, splits: list[str]
) -> Figure:
    """Lengths of the usable clips of each split, with the span shown to networks."""
    seconds = {
        split: table.loc[table["status"] == "ok", "length"].to_numpy() / SAMPLE_RATE
        for split, table in zip(splits, clips, strict=True)
    }
    frame = log_mel.hop_length / log_mel.sample_rate
    shown = (mel_statistics["shortest"] * frame, mel_statistics["longest"] * frame)
    return plots.plot_clip_lengths(seconds, shown)


def _class_table(
    probabilities: np.ndarray, clips: pd.DataFrame, classes: dict, rows: pd.Series
) -> pd.DataFrame:
    """Scores of each class, over the clips in these rows (n,)."""
    targets = metrics.class_indices(clips["label"][rows], classes["labels"])
    scores = metrics.scores_by_class(targets, probabilities[rows.to_numpy(bool)])
    return pd.DataFrame(dict(zip(_CLASS_SCORES, [classes["labels"], *scores], strict=True)))


def _confusion_counts(probabilities: np.ndarray, clips: pd.DataFrame, classes: dict) -> np.ndarray:
    """Clips (c, c), usable ones, by their class and the one they are taken for."""
    usable = (clips["status"] == "ok").to_numpy(bool)
    targets = metrics.class_indices(clips["label"][usable], classes["labels"])
    return metrics.confusion_counts(targets, probabilities[usable])
