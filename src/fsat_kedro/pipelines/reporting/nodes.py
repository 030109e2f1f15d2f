"""Nodes that make plots and tables for people.

Axes: n clips, c classes.
"""

from pathlib import Path

import librosa
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.pipeline import Pipeline as Projector

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.evaluation import metrics, plots
from fsat_kedro.evaluation.misclassified import find_exemplars, find_misclassified, labelled_clips
from fsat_kedro.evaluation.report import Split, embed_plot, render_report
from fsat_kedro.parameters import CropLengths, LogMel, Report

OUT_OF_FOLD, TEST = "out-of-fold", "test"
"""What the clips are called in plots and in the page, by whether their labels were trained on."""

PLOTS = {
    "scores_by_fold": (
        "Folds and all of them",
        "Lines are 95 % intervals; the band is that of all folds together. A fold far off the "
        "others has odd clips or went wrong: look at its learning curves.",
    ),
    "scores_by_class": (
        "Scores by class",
        "The worst class on top, with the number of its clips, on which the scores rest.",
    ),
    "confusion_matrix": (
        "Confusions",
        "Out-of-fold. Each row is a class's clips by the class they are taken for.",
    ),
    "reliability": (
        "Are the probabilities right?",
        "Above the dotted line the first tag is right more often than its probability says, below "
        "it less often. Below: how many clips have which.",
    ),
    "learning_curves": (
        "Learning curves",
        "Every fold in both stages; the shades are the phases. A line apart from the others is a "
        "fold to look at.",
    ),
    "class_balance": (
        "Clips of each class",
        "Usable training clips. Scores of classes with few clips are little to go by.",
    ),
    "clip_lengths": (
        "Lengths of the clips",
        "After silence is trimmed; the shaded span is what networks are shown of a clip at a time.",
    ),
    "explained_variance": (
        "Summary features",
        "What the kept components tell of them; a curve still steep at its end says that more "
        "components would tell more.",
    ),
}
"""The plots of the page, each with a title and how to read it; wide ones come last there."""

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


def draw_learning_curves(history: pd.DataFrame) -> Figure:
    """Learning curves of all folds and stages, from a row an epoch of each."""
    stages = {
        stage: [fold.reset_index(drop=True) for _, fold in rows.groupby("fold")]
        for stage, rows in history.groupby("stage")
    }
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
    mel_statistics: dict,
    log_mel: LogMel,
    crop_lengths: CropLengths,
    *clips: pd.DataFrame,
    splits: list[str],
) -> Figure:
    """Lengths of the usable clips of each split, with the span shown to networks."""
    seconds = {
        split: table.loc[table["status"] == "ok", "length"].to_numpy() / SAMPLE_RATE
        for split, table in zip(splits, clips, strict=True)
    }
    frame = log_mel.hop_length / log_mel.sample_rate
    shown = (mel_statistics["shortest"] * frame, mel_statistics["longest"] * frame)
    return plots.plot_clip_lengths(seconds, shown, crop_lengths.percentiles)


def draw_scores_by_class(
    oof_probabilities: np.ndarray,
    train_clips: pd.DataFrame,
    classes: dict,
    test_probabilities: np.ndarray | None = None,
    test_clips: pd.DataFrame | None = None,
) -> Figure:
    """Average precision at 3 of each class, out-of-fold and over the labelled test clips."""
    scores = score_classes(oof_probabilities, train_clips, classes)
    if test_clips is None:
        return plots.plot_class_scores(scores)
    test_scores = score_test_classes(test_probabilities, test_clips, classes)
    return plots.plot_class_scores(scores, test_scores)


def draw_scores_by_fold(
    cv_scores: dict, test_scores: dict | None = None, fold_test_scores: pd.DataFrame | None = None
) -> Figure:
    """Scores of each fold beside those of all of them, out-of-fold and over the test clips."""
    held_out = pd.DataFrame(cv_scores["per_fold"])
    if not (test_scores or {"map_at_3": {}})["map_at_3"]:
        return plots.plot_fold_scores(held_out, cv_scores)
    ensemble = {score: parts["pooled"] for score, parts in test_scores.items()}
    return plots.plot_fold_scores(held_out, cv_scores, fold_test_scores, ensemble)


def draw_reliability(
    oof_probabilities: np.ndarray,
    train_clips: pd.DataFrame,
    classes: dict,
    test_probabilities: np.ndarray | None = None,
    test_clips: pd.DataFrame | None = None,
) -> Figure:
    """How often the first tag is right, by its probability."""
    tags = {OUT_OF_FOLD: _first_tags(oof_probabilities, train_clips, classes)}
    if test_clips is not None:
        tags[TEST] = _first_tags(test_probabilities, test_clips, classes)
    return plots.plot_reliability({name: x for name, x in tags.items() if len(x[0])})


def draw_mel_gallery(
    probabilities: np.ndarray,
    clips: pd.DataFrame,
    classes: dict,
    mels: RaggedArray,
    log_mel: LogMel,
) -> Figure:
    """The log-mel of a clear training clip of each class."""
    rows = find_exemplars(probabilities, clips, classes["labels"])
    return plots.plot_mel_gallery(
        [mels[row] for row in rows],
        classes["labels"],
        frame=log_mel.hop_length / log_mel.sample_rate,
        centres=librosa.mel_frequencies(log_mel.n_mels, fmax=log_mel.sample_rate / 2),
    )


def list_misclassified_clips(
    oof_probabilities: np.ndarray,
    train_clips: pd.DataFrame,
    classes: dict,
    train_folds: np.ndarray,
    test_probabilities: np.ndarray | None = None,
    test_clips: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The clips whose first tag is not their label, of each split the surest miss first.

    Returns:
        split, and the columns of `examples.find_misclassified`.
    """
    labels = classes["labels"]
    missed = {"train": find_misclassified(oof_probabilities, train_clips, labels, train_folds)}
    if test_clips is not None:
        nowhere = np.zeros(len(test_clips), np.int64)
        missed["test"] = find_misclassified(test_probabilities, test_clips, labels, nowhere)
    return pd.concat(missed, names=["split", "place"]).reset_index("split").reset_index(drop=True)


def write_report(
    report: Report,
    log_mel: LogMel,
    dataset: str,
    data_dir: str,
    classes: dict,
    cv_scores: dict,
    train_folds: np.ndarray,
    oof_probabilities: np.ndarray,
    train_clips: pd.DataFrame,
    train_audio: RaggedArray,
    train_mels: RaggedArray,
    test_scores: dict | None = None,
    test_probabilities: np.ndarray | None = None,
    test_clips: pd.DataFrame | None = None,
    test_audio: RaggedArray | None = None,
    test_mels: RaggedArray | None = None,
    **drawn: bytes,
) -> str:
    """The page of a run, as HTML; `drawn` are `PLOTS` as PNG."""
    splits = [
        Split(OUT_OF_FOLD, train_clips, oof_probabilities, train_folds, train_audio, train_mels)
    ]
    if test_clips is not None:
        nowhere = np.zeros(len(test_clips), np.int64)
        splits.append(Split(TEST, test_clips, test_probabilities, nowhere, test_audio, test_mels))
    scores = tabulate_scores(cv_scores, test_scores)
    pairs = list_confused_pairs(oof_probabilities, train_clips, classes)
    return render_report(
        name=Path(data_dir).name,
        facts=[dataset, *_facts(classes, cv_scores, train_clips, test_clips)],
        scores=scores.iloc[len(cv_scores["per_fold"]) :].to_dict("records"),
        pairs=pairs.head(12).to_dict("records"),
        plots=[embed_plot(drawn[name], *PLOTS[name]) for name in PLOTS],
        splits=splits,
        labels=classes["labels"],
        settings=report,
        frame=log_mel.hop_length / log_mel.sample_rate,
    )


def _facts(
    classes: dict, cv_scores: dict, train_clips: pd.DataFrame, test_clips: pd.DataFrame | None
) -> list[str]:
    """What there was to learn from and to tag, in words."""
    facts = [f"{len(classes['labels']):,} classes", f"{len(cv_scores['per_fold'])} folds"]
    for split, clips in (("training", train_clips), ("test", test_clips)):
        if clips is None:
            continue
        words = f"{len(clips):,} {split} clips"
        rejected = (clips["status"] != "ok").sum()
        labelled = clips["label"].notna().sum()
        words += f", {rejected:,} rejected" if rejected else ""
        facts.append(words + (f", {labelled:,} labelled" if labelled < len(clips) else ""))
    return facts


def _first_tags(
    probabilities: np.ndarray, clips: pd.DataFrame, classes: dict
) -> tuple[np.ndarray, np.ndarray]:
    """Of the usable labelled clips, the first tag's probability and whether it is the label."""
    rows = labelled_clips(clips)
    targets = metrics.class_indices(clips["label"][rows], classes["labels"])
    tagged = metrics.top_k(probabilities[rows], k=1)[:, 0]
    return probabilities[rows].max(axis=1), tagged == targets


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
