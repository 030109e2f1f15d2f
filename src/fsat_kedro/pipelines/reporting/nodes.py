"""Nodes that make the plots, the tables and the report.

Axes: n clips, c classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.audio.log_mel import band_centers, decibels
from fsat_kedro.audio.projection import Projector
from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.evaluation import metrics, plots
from fsat_kedro.evaluation.label_issues import find_label_issues
from fsat_kedro.evaluation.misclassified import find_exemplars, find_misclassified
from fsat_kedro.evaluation.predictions import Predictions
from fsat_kedro.evaluation.previews import PreviewedPredictions
from fsat_kedro.evaluation.report import embed_plot, render_report
from fsat_kedro.parameters import CropLengths, LogMel, Report

_CLASS_SCORES = ["label", "clips", "map_at_3", "precision", "recall"]
_Draw = Callable[..., Figure]


@dataclass(frozen=True)
class Plot:
    """A registered plot: its function, the datasets that it draws, and its text on the page."""

    draw: _Draw
    inputs: tuple[str, ...]
    title: str
    caption: str


PLOTS: dict[str, Plot] = {}
"""Plots by the name of their dataset, in the order of the page; wide ones come last there."""


def register_plot(*inputs: str, title: str = "", caption: str = "") -> Callable[[_Draw], _Draw]:
    """Register the function `draw_NAME` as the plot NAME, which needs an entry in the catalog.

    Inputs of the test clips (`test_` in the name) are left out if the data set has none; the
    function gives them a default. A plot without a title is saved but not shown on the page.
    """

    def register(draw: _Draw) -> _Draw:
        PLOTS[draw.__name__.removeprefix("draw_")] = Plot(draw, inputs, title, caption)
        return draw

    return register


def collect_predictions(
    probabilities: np.ndarray, clips: pd.DataFrame, classes: dict, folds: np.ndarray | None = None
) -> Predictions:
    """Collect the predicted probabilities (n, c) of a split with its clips, and folds if any."""
    return Predictions(probabilities, clips, classes["labels"], folds)


def tabulate_scores(
    cv_scores: dict, baseline_scores: dict, test_scores: dict | None = None
) -> pd.DataFrame:
    """Tabulate the scores of each fold, of cross-validation and of each part of the test clips.

    Those of baselines follow, which are of cross-validation too.

    Returns:
        clips (name of the row), and `metrics.SCORES`.
    """
    rows = [{"clips": f"fold {scores['fold']}", **scores} for scores in cv_scores["per_fold"]]
    rows.append({"clips": "cross-validation", **cv_scores})
    if "verified" in cv_scores:
        rows.append({"clips": "cross-validation, verified clips", **cv_scores["verified"]})
    test_scores = test_scores or {}
    for part in test_scores.get("map_at_3", {}):
        part_scores = {score: values[part] for score, values in test_scores.items()}
        rows.append({"clips": f"test {part}", **part_scores})
    rows += [{"clips": f"baseline, {name}", **scores} for name, scores in baseline_scores.items()]
    return pd.DataFrame(rows, columns=["clips", *metrics.SCORES])


def score_classes(predictions: Predictions) -> pd.DataFrame:
    """Score the out-of-fold predictions of the usable clips, a row per class.

    Returns:
        label; clips; verified, the fraction of clips with a verified label, missing if that is
        unknown; map_at_3; precision (missing for a class that is never predicted) and recall of
        the most probable class.
    """
    table = _score_classes(predictions, predictions.is_usable)
    clips = predictions.clips[predictions.is_usable]
    verified = clips["verified"].astype("Float64").groupby(clips["label"]).mean()
    verified = verified.reindex(predictions.labels).to_numpy(float, na_value=np.nan)
    table.insert(2, "verified", verified)
    return table


def score_test_classes(predictions: Predictions) -> pd.DataFrame:
    """Score the predictions of the labelled test clips, including rejected ones, a row per class.

    Returns:
        The columns of `score_classes` without verified; no rows if no clip is labelled.
    """
    if not predictions.is_labelled.any():
        return pd.DataFrame(columns=_CLASS_SCORES)
    return _score_classes(predictions, predictions.is_labelled)


def list_confused_pairs(predictions: Predictions) -> pd.DataFrame:
    """List the confused pairs of classes, most frequent first.

    Returns:
        true and predicted label; clips; their fraction of the true class's clips.
    """
    counts = _count_confusions(predictions)
    true, predicted = metrics.confused_pairs(counts)
    labels, clips = np.array(predictions.labels, dtype=object), counts[true, predicted]
    pairs = pd.DataFrame({"true": labels[true], "predicted": labels[predicted], "clips": clips})
    return pairs.assign(fraction=clips / counts.sum(axis=1)[true])


def list_misclassified_clips(train: Predictions, test: Predictions | None = None) -> pd.DataFrame:
    """List the misclassified clips of each split, most confident first.

    Returns:
        split, and the columns of `misclassified.find_misclassified`.
    """
    splits = {"train": train} if test is None else {"train": train, "test": test}
    tables = {split: find_misclassified(predictions) for split, predictions in splits.items()}
    return pd.concat(tables, names=["split"]).reset_index("split").reset_index(drop=True)


def list_label_issues(train: Predictions) -> pd.DataFrame:
    """Rank the labels of the training clips by their quality, worst first.

    Returns:
        The columns of `label_issues.find_label_issues` without row.
    """
    return find_label_issues(train).drop(columns="row")


@register_plot(
    *("cv_scores", "test_scores", "fold_test_scores"),
    title="Scores by fold",
    caption="Lines show 95 % intervals; the band shows the interval of all folds together. A fold "
    "far from the others has unusual clips or was not trained well: check its learning curves.",
)
def draw_scores_by_fold(
    cv_scores: dict, test_scores: dict | None = None, fold_test_scores: pd.DataFrame | None = None
) -> Figure:
    """Draw the scores of each fold beside those of all folds, out-of-fold and on test clips."""
    out_of_fold = pd.DataFrame(cv_scores["per_fold"])
    if test_scores is None or not test_scores["map_at_3"]:
        return plots.plot_fold_scores(out_of_fold, cv_scores)
    ensemble = {score: parts["pooled"] for score, parts in test_scores.items()}
    return plots.plot_fold_scores(out_of_fold, cv_scores, fold_test_scores, ensemble)


@register_plot(
    *("train_predictions", "test_predictions"),
    title="Scores by class",
    caption="The worst class is on top. The fewer clips a class has, the less certain its score.",
)
def draw_scores_by_class(train: Predictions, test: Predictions | None = None) -> Figure:
    """Draw the average precision at 3 of each class, out-of-fold and on labelled test clips."""
    test_scores = None if test is None else score_test_classes(test)
    return plots.plot_class_scores(score_classes(train), test_scores)


@register_plot(
    "train_predictions",
    title="Confusion matrix",
    caption="Out-of-fold. Each row shows the clips of a class by their first tag.",
)
def draw_confusion_matrix(predictions: Predictions) -> Figure:
    """Draw the confusions of the out-of-fold predictions."""
    return plots.plot_confusion_matrix(_count_confusions(predictions), predictions.labels)


@register_plot(
    *("train_predictions", "test_predictions"),
    title="Reliability of the probabilities",
    caption="Above the dotted line the first tag is correct more often than its probability says, "
    "below the line less often. The lower panel shows the distribution of the probabilities.",
)
def draw_reliability(train: Predictions, test: Predictions | None = None) -> Figure:
    """Draw the accuracy of the first tag by its probability."""
    first_tags = {x.name: _score_first_tags(x) for x in (train, test) if x is not None}
    return plots.plot_reliability({name: x for name, x in first_tags.items() if len(x[0])})


@register_plot(
    "training_history",
    title="Learning curves",
    caption="Every fold in both stages; shaded bands separate the phases of a stage. Look into a "
    "fold whose curve is far from the others.",
)
def draw_learning_curves(history: pd.DataFrame) -> Figure:
    """Draw the learning curves of all folds and stages, from a row per epoch of each."""
    stages = {
        stage: [fold.reset_index(drop=True) for _, fold in rows.groupby("fold")]
        for stage, rows in history.groupby("stage")
    }
    return plots.plot_learning_curves(stages)


@register_plot(
    "train_clips",
    title="Clips per class",
    caption="Usable training clips. The scores of a class with few clips are uncertain.",
)
def draw_class_balance(clips: pd.DataFrame) -> Figure:
    """Draw the usable training clips per class, split by verified label if that is known."""
    usable = clips[clips["status"] == "ok"]
    if usable["verified"].isna().all():
        return plots.plot_class_balance(usable["label"].value_counts().to_frame("clips"))
    counts = pd.crosstab(usable["label"], usable["verified"].fillna(False))
    counts = counts.reindex(columns=[True, False], fill_value=0)
    return plots.plot_class_balance(counts.set_axis(["verified", "not verified"], axis=1))


@register_plot(
    *("mel_statistics", "params:log_mel", "params:crop_lengths", "train_clips", "test_clips"),
    title="Clip lengths",
    caption="Length of the usable clips after silence is trimmed. The shaded range contains the "
    "crop lengths of training and inference.",
)
def draw_clip_lengths(
    mel_statistics: dict,
    log_mel: LogMel,
    crop_lengths: CropLengths,
    train_clips: pd.DataFrame,
    test_clips: pd.DataFrame | None = None,
) -> Figure:
    """Draw the lengths of the usable clips of each split, with the range of crop lengths."""
    seconds = {
        split: clips.loc[clips["status"] == "ok", "length"].to_numpy() / SAMPLE_RATE
        for split, clips in (("train", train_clips), ("test", test_clips))
        if clips is not None
    }
    hop_seconds = log_mel.hop_length / log_mel.sample_rate
    crop_range = (mel_statistics["shortest"] * hop_seconds, mel_statistics["longest"] * hop_seconds)
    return plots.plot_clip_lengths(seconds, crop_range, crop_lengths.percentiles)


@register_plot(
    "projector",
    title="Summary features",
    caption="Variance that the kept components explain. If the curve is still steep at its end, "
    "more components would explain more.",
)
def draw_explained_variance(projector: Projector) -> Figure:
    """Draw the variance of the summary features that the kept components explain."""
    return plots.plot_explained_variance(projector.explained_variance_ratio)


@register_plot("train_predictions", "train_mels", "params:log_mel")
def draw_mel_gallery(predictions: Predictions, mels: RaggedArray, log_mel: LogMel) -> Figure:
    """Draw the log-mel spectrogram of the exemplar of each class."""
    return plots.plot_mel_gallery(
        [decibels(mels[row], log_mel.kind) for row in find_exemplars(predictions)],
        predictions.labels,
        hop_seconds=log_mel.hop_length / log_mel.sample_rate,
        frequencies=band_centers(log_mel.kind, log_mel.sample_rate, log_mel.n_mels),
    )


def write_report(
    report: Report,
    dataset: str,
    data_dir: str,
    scores: pd.DataFrame,
    train: PreviewedPredictions,
    test: PreviewedPredictions | None = None,
    **images: bytes,
) -> str:
    """Write the report of a run as HTML; `scores` is their table, `images` the plots as PNG."""
    splits = [train] if test is None else [train, test]
    is_fold = scores["clips"].str.startswith("fold ")
    known = [] if dataset == "auto" else [dataset]  # Without the raw data nothing recognises it.
    facts = [*known, f"{len(train.predictions.labels):,} classes", f"{is_fold.sum()} folds"]
    return render_report(
        name=Path(data_dir).name,
        facts=facts + [_format_clip_counts(split.predictions) for split in splits],
        scores=scores[~is_fold].to_dict("records"),
        pairs=list_confused_pairs(train.predictions).head(12).to_dict("records"),
        plots=[embed_plot(images[x], PLOTS[x].title, PLOTS[x].caption) for x in images],
        splits=splits,
        settings=report,
    )


def _format_clip_counts(predictions: Predictions) -> str:
    """Return for example "83 test clips, 3 rejected, 80 labelled"."""
    n_clips = len(predictions.clips)
    n_rejected, n_labelled = (~predictions.is_usable).sum(), predictions.is_labelled.sum()
    text = f"{n_clips:,} {'test' if predictions.folds is None else 'training'} clips"
    text += f", {n_rejected:,} rejected" if n_rejected else ""
    return text + (f", {n_labelled:,} labelled" if n_labelled < n_clips else "")


def _score_first_tags(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return the first tag's probability of usable labelled clips, and whether it is correct."""
    rows = predictions.is_usable & predictions.is_labelled
    probabilities = predictions.probabilities[rows]
    first_tags = metrics.top_k(probabilities, k=1)[:, 0]
    return probabilities.max(axis=1), first_tags == predictions.targets[rows]


def _score_classes(predictions: Predictions, rows: np.ndarray) -> pd.DataFrame:
    """Score each class over the clips of a mask (n,)."""
    scores = metrics.scores_by_class(predictions.targets[rows], predictions.probabilities[rows])
    return pd.DataFrame(dict(zip(_CLASS_SCORES, [predictions.labels, *scores], strict=True)))


def _count_confusions(predictions: Predictions) -> np.ndarray:
    """Count the usable clips by true and most probable class, (c, c)."""
    rows = predictions.is_usable
    return metrics.confusion_counts(predictions.targets[rows], predictions.probabilities[rows])
