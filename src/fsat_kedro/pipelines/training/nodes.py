"""Nodes from features to trained folds and out-of-fold scores.

Axes: n training clips, c classes, p components. The parts of a fold: its number (`fold`), and the
rows of the clips it trains on (`train`) and holds out (`validation`).
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline as Projector

from fsat_kedro.data.folds import predefined_folds, stratified_folds
from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.errors import InputError
from fsat_kedro.evaluation import metrics
from fsat_kedro.inference.ensemble import geometric_mean, predict_with_weights
from fsat_kedro.inference.tagger import TaggerSettings
from fsat_kedro.modelling.crop_lengths import training_lengths, view_lengths
from fsat_kedro.parameters import (
    Decoding,
    Folds,
    Inference,
    LogMel,
    Model,
    Training,
    Trim,
    Views,
)

logger = logging.getLogger(__name__)

# A `keras.Model`. Keras takes seconds to import, so the nodes that need it import it when they
# run; and Kedro, which reads the types of parameters here, could not resolve the real name.
Network: TypeAlias = Any


def list_classes(clips: pd.DataFrame) -> dict[str, list]:
    """Labels of the usable training clips in alphabetical order, and the share of each."""
    shares = clips.loc[clips["status"] == "ok", "label"].value_counts(normalize=True).sort_index()
    if len(shares) == 1:
        logger.warning("All training clips are labelled %s: every clip will be", shares.index[0])
    return {"labels": shares.index.tolist(), "prior": shares.tolist()}


def assign_folds(clips: pd.DataFrame, folds: Folds, seed: int) -> np.ndarray:
    """The fold that holds each clip out, (n,) from 1 on; 0 for a rejected clip."""
    usable = (clips["status"] == "ok").to_numpy()
    assigned = np.zeros(len(clips), np.int64)
    if folds.source == "stratified":
        labels = clips.loc[usable, "label"].to_numpy(str)
        assigned[usable] = stratified_folds(labels, n_folds=folds.n_folds, seed=seed)
        return assigned
    if clips["fold"].isna().any():
        raise InputError("the data set has no folds of its own: set folds.source to stratified")
    assigned[usable] = predefined_folds(clips.loc[usable, "fold"].to_numpy(), n_folds=folds.n_folds)
    return assigned


def split_folds(assigned: np.ndarray, folds: Folds) -> list[dict]:
    """The parts of every fold."""
    return [
        {
            "fold": fold,
            "train": np.flatnonzero((assigned != fold) & (assigned > 0)),
            "validation": np.flatnonzero(assigned == fold),
        }
        for fold in range(1, folds.n_folds + 1)
    ]


def train_mel(
    split: dict,
    clips: pd.DataFrame,
    mels: RaggedArray,
    mel_statistics: dict,
    classes: dict,
    model: Model,
    training: Training,
    views: Views,
    seed: int,
) -> tuple[Network, pd.DataFrame]:
    """Train the network of stage mel on one fold.

    Returns:
        The network, and its history, a row an epoch.
    """
    import keras

    from fsat_kedro.modelling.networks import build_network

    seed = _stage_seed(seed, split["fold"], stage=1)
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    network = build_network(model, weights=model.weights, **_sizes(mels, classes))
    history = _train(
        network, split, clips, mels, None, mel_statistics, classes, training, views, seed
    )
    return network, history


def train_mel_pca(
    mel_weights: Path,
    split: dict,
    clips: pd.DataFrame,
    mels: RaggedArray,
    components: np.ndarray,
    mel_statistics: dict,
    classes: dict,
    model: Model,
    training: Training,
    views: Views,
    seed: int,
) -> tuple[Network, pd.DataFrame]:
    """Train the network of both inputs on one fold, from the encoder of stage mel.

    Returns:
        The network, and its history, a row an epoch.
    """
    import keras

    from fsat_kedro.modelling.networks import build_network, copy_encoder_weights, load_network

    seed = _stage_seed(seed, split["fold"], stage=2)
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    mel_network = load_network(model, mel_weights, **_sizes(mels, classes))
    network = build_network(model, weights=None, **_sizes(mels, classes, components))
    copy_encoder_weights(mel_network, network)
    history = _train(
        network, split, clips, mels, components, mel_statistics, classes, training, views, seed
    )
    return network, history


def predict_out_of_fold(
    mel_pca_weights: Path,
    split: dict,
    clips: pd.DataFrame,
    mels: RaggedArray,
    components: np.ndarray,
    mel_statistics: dict,
    classes: dict,
    model: Model,
    views: Views,
    inference: Inference,
    seed: int,
) -> np.ndarray:
    """Mean log probabilities of the clips that a fold holds out, (n, c); NaN for all others."""
    from fsat_kedro.modelling.batches import Clips

    fnames = clips["fname"].tolist()
    held_out = Clips(split["validation"], fnames, mels, components, mel_statistics)
    n_classes = len(classes["labels"])
    return predict_with_weights(
        mel_pca_weights,
        held_out,
        n_classes=n_classes,
        model=model,
        views=views,
        inference=inference,
        seed=seed,
        fold=split["fold"],
    )


def describe_tagger(
    mel_statistics: dict,
    projector: Projector,
    classes: dict,
    decoding: Decoding,
    trim: Trim,
    log_mel: LogMel,
    model: Model,
    views: Views,
    inference: Inference,
    seed: int,
    *weights: Path,
) -> TaggerSettings:
    """What it takes, beside all that was fitted, to tag other sounds.

    The fitted parts and the weights are only there for the order of things: an ensemble that is
    described is whole.
    """
    return TaggerSettings(
        decoding=decoding,
        trim=trim,
        log_mel=log_mel,
        # The backbone's first weights are of no use any more.
        model=model.model_copy(update={"weights": None}),
        views=views,
        inference=inference,
        seed=seed,
        n_folds=len(weights),
    )


def join_histories(*histories: pd.DataFrame) -> pd.DataFrame:
    """The histories of all stages of all folds in one table.

    Args:
        histories: of each fold in order, that of stage mel and that of stage mel_pca.

    Returns:
        fold, stage, and the columns of the histories.
    """
    stages = ("mel", "mel_pca")
    named = [
        history.assign(fold=1 + index // 2, stage=stages[index % 2])
        for index, history in enumerate(histories)
    ]
    return pd.concat(named, ignore_index=True)[["fold", "stage", *histories[0].columns]]


def combine_out_of_fold(*logs: np.ndarray) -> np.ndarray:
    """Probabilities of every clip by the fold that held it out, (n, c); NaN for rejected ones."""
    rejected = np.isnan(logs).all(axis=(0, 2))
    probabilities = geometric_mean([np.nansum(logs, axis=0)])
    probabilities[rejected] = np.nan
    return probabilities


def score_cross_validation(
    probabilities: np.ndarray, assigned: np.ndarray, clips: pd.DataFrame, classes: dict, seed: int
) -> dict:
    """Scores (`metrics.SCORES`) of the out-of-fold predictions, over all clips and fold by fold."""
    targets = metrics.class_indices(clips["label"], classes["labels"])

    def scores(rows: np.ndarray) -> dict[str, float]:
        return metrics.score_clips(targets[rows], probabilities[rows], seed=seed)

    per_fold = [
        {"fold": fold, **scores(assigned == fold)} for fold in range(1, int(assigned.max()) + 1)
    ]
    return {**scores(assigned > 0), "per_fold": per_fold}


def _stage_seed(seed: int, fold: int, *, stage: int) -> int:
    return int(np.random.SeedSequence([seed, fold, stage]).generate_state(1)[0])


def _sizes(
    mels: RaggedArray, classes: dict, components: np.ndarray | None = None
) -> dict[str, int | None]:
    """Sizes of a network's inputs and output."""
    return {
        "n_mels": mels.values.shape[1],
        "n_classes": len(classes["labels"]),
        "n_components": None if components is None else components.shape[1],
    }


def _train(
    network: Network,
    split: dict,
    clips: pd.DataFrame,
    mels: RaggedArray,
    components: np.ndarray | None,
    mel_statistics: dict,
    classes: dict,
    training: Training,
    views: Views,
    seed: int,
) -> pd.DataFrame:
    """Train a network in place on one fold; returns the history."""
    from fsat_kedro.modelling.batches import Clips, TrainingBatches, ViewBatches
    from fsat_kedro.modelling.training import train_stage

    stage = network.name
    given = partial(
        Clips,
        fnames=clips["fname"].tolist(),
        mels=mels,
        components=components,
        mel_statistics=mel_statistics,
    )
    shortest, longest = mel_statistics["shortest"], mel_statistics["longest"]
    indices = metrics.class_indices(clips["label"], classes["labels"])
    targets = np.eye(len(classes["labels"]), dtype=np.float32)[indices]
    batches = TrainingBatches(
        given(split["train"]),
        targets,
        batch_size=training.batch_size,
        lengths=training_lengths(shortest, longest, training.n_lengths),
        augmentation=training.augmentation,
        mixup_alpha=getattr(training.mixup_alpha, stage),
        seed=seed,
    )
    validation = ViewBatches(
        given(split["validation"]),
        targets=targets,
        lengths=view_lengths(shortest, longest, views.n_lengths),
        n_spans=1,
        batch_size=views.batch_size,
        seed=seed,
    )
    name = f"fold_{split['fold']} {stage}"
    return train_stage(network, batches, validation, settings=training, name=name)
