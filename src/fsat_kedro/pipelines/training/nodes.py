"""Nodes from features to trained folds and out-of-fold scores.

Axes: n training clips, m mel bands, f features of the encoder, c classes, p components.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import numpy as np
import pandas as pd
from sklearn.preprocessing import StandardScaler

from fsat_kedro.data.folds import (
    count_folds,
    predefined_folds,
    stratified_folds,
    warn_of_cut_up_recordings,
    warn_of_split_groups,
)
from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.errors import InputError
from fsat_kedro.evaluation import metrics
from fsat_kedro.inference import ensemble
from fsat_kedro.inference.tagger import TaggerSettings
from fsat_kedro.modelling.checkpoint import Checkpoint
from fsat_kedro.modelling.crop_lengths import training_lengths
from fsat_kedro.parameters import Decoding, Folds, LabelNoise, LogMel, NetworkSettings, Trim

if TYPE_CHECKING:
    from fsat_kedro.modelling.crops import Clips

logger = logging.getLogger(__name__)

_LEAST_TRUST = 0.05
"""Clips whose labels are trusted less take no part in training, where they would change nothing."""

# Types of Keras, which takes seconds to import: the nodes that need it import it when they run.
# Kedro reads the annotations of nodes, and could not resolve the real names.
Network: TypeAlias = Any
Callback: TypeAlias = Any


class FoldSplit(TypedDict):
    """A fold's clips, and what the networks need to know of all n training clips."""

    fold: int  # Its number, from 1.
    train: np.ndarray  # Rows of the clips to train on.
    validation: np.ndarray  # Rows of the held-out clips.
    fnames: list[str]
    targets: np.ndarray  # (n,) class indices; −1 for none.
    verified: np.ndarray  # (n,) whether the label is verified, or counts as if it were.
    n_classes: int
    mel_statistics: dict[str, float]


def list_classes(clips: pd.DataFrame) -> dict[str, list]:
    """List the labels of the usable training clips alphabetically, and the fraction of each."""
    labels = clips.loc[clips["status"] == "ok", "label"]
    fractions = labels.value_counts(normalize=True).sort_index()
    if len(fractions) == 1:
        logger.warning(
            "All training clips are labelled %s, so every clip gets this tag: add other labels",
            fractions.index[0],
        )
    return {"labels": fractions.index.tolist(), "prior": fractions.tolist()}


def assign_folds(
    clips: pd.DataFrame, folds: Folds, label_noise: LabelNoise, seed: int
) -> np.ndarray:
    """Assign each clip the fold that holds it out, (n,) from 1; 0 for a rejected clip."""
    is_usable = (clips["status"] == "ok").to_numpy()
    usable = clips[is_usable]
    is_given = folds.source == "given" or (folds.source == "auto" and count_folds(usable["fold"]))
    groups = _groups(usable)
    assigned = np.zeros(len(clips), np.int64)
    if is_given:
        if clips["fold"].isna().any():
            raise InputError("the data set has no folds of its own: set folds.source to stratified")
        own_folds = usable["fold"].to_numpy()
        assigned[is_usable] = predefined_folds(own_folds, n_folds=folds.n_folds)
        logger.info("The data set's own %d folds are used", folds.n_folds)
        if groups is not None:
            warn_of_split_groups(assigned[is_usable], groups)
        return assigned
    if groups is None:
        warn_of_cut_up_recordings(usable["fname"], usable["label"])
    assigned[is_usable] = stratified_folds(
        usable["label"].to_numpy(str),
        _are_verified(clips, label_noise)[is_usable] if label_noise.is_on else None,
        groups,
        n_folds=folds.n_folds,
        seed=seed,
    )
    return assigned


def split_folds(
    assigned: np.ndarray,
    clips: pd.DataFrame,
    classes: dict,
    mel_statistics: dict,
    folds: Folds,
    label_noise: LabelNoise,
) -> list[FoldSplit]:
    """Split the clips for every fold."""
    return [
        FoldSplit(
            fold=fold,
            train=np.flatnonzero((assigned != fold) & (assigned > 0)),
            validation=np.flatnonzero(assigned == fold),
            fnames=clips["fname"].tolist(),
            targets=metrics.class_indices(clips["label"], classes["labels"]),
            verified=_are_verified(clips, label_noise),
            n_classes=len(classes["labels"]),
            mel_statistics=mel_statistics,
        )
        for fold in range(1, folds.n_folds + 1)
    ]


def embed_clips(
    mels: RaggedArray, clips: pd.DataFrame, mel_statistics: dict, settings: NetworkSettings
) -> np.ndarray:
    """Compute the embedding of each whole clip, (n, f) float32; NaN for a rejected clip."""
    from fsat_kedro.modelling import probe
    from fsat_kedro.modelling.crops import Clips, WholeBatches
    from fsat_kedro.modelling.encoders import fetch_weights
    from fsat_kedro.modelling.networks import build_embedder

    _seed_embedder(settings.seed)
    weights = fetch_weights(settings.model, settings.cache_dir)
    embedder = build_embedder(settings.model, weights=weights, n_mels=mels.values.shape[1])
    usable = np.flatnonzero(clips["status"] == "ok")
    whole = Clips(usable, clips["fname"].tolist(), mels, None, mel_statistics)
    batch_size = settings.test_time_crops.batch_size
    return probe.embed_clips(embedder, WholeBatches(whole, batch_size=batch_size))


def score_baselines(
    assigned: np.ndarray,
    clips: pd.DataFrame,
    classes: dict,
    seed: int,
    n_jobs: int,
    summary: pd.DataFrame | None = None,
    embeddings: np.ndarray | None = None,
) -> dict[str, dict[str, float]]:
    """Score simple models on the same folds: what the networks are worth is what they add.

    Args:
        assigned: fold that holds out each clip, (n,); 0 for a rejected clip.
        clips: of the training split.
        classes: their labels.
        seed: of the models and of the intervals.
        n_jobs: threads.
        summary: summary features of all clips, for a random forest.
        embeddings: embeddings of all clips (n, f), for a logistic regression.

    Returns:
        `metrics.SCORES` by the name of the model.
    """
    from fsat_kedro.modelling import baselines

    models = {
        "random forest": (baselines.random_forest(seed=seed, n_jobs=n_jobs), summary),
        "logistic regression": (baselines.logistic_regression(), embeddings),
    }
    rows = np.flatnonzero(assigned)
    targets = metrics.class_indices(clips["label"], classes["labels"])[rows]
    scores = {}
    for name, (model, features) in models.items():
        if features is not None:
            known = np.asarray(features, np.float64)[rows]
            predicted = baselines.predict_out_of_fold(model, known, targets, assigned[rows])
            scores[name] = metrics.score_clips(targets, predicted, seed=seed)
            logger.info(
                "A %s has an out-of-fold MAP@3 of %.3f (accuracy %.3f) on the same folds",
                name,
                scores[name]["map_at_3"],
                scores[name]["accuracy"],
            )
    return scores


def verify_labels(
    split: FoldSplit,
    settings: NetworkSettings,
    embeddings: np.ndarray | None = None,
    components: np.ndarray | None = None,
) -> np.ndarray:
    """Estimate how much the label of each training clip of a fold can be trusted.

    The held-out clips have no part in it. It takes embeddings (n, f), or else components (n, p), of
    all clips.

    Returns:
        (n,) float32, 0 to 1; NaN for a clip that the fold does not train on.
    """
    from fsat_kedro.modelling.label_trust import estimate_trust

    rows, noise = split["train"], settings.training.label_noise
    if embeddings is not None:
        features = StandardScaler().fit_transform(embeddings[rows])
    else:
        assert components is not None
        # Of one scale for all: the last components are mostly noise.
        features = components[rows] / components[rows].std()
    targets, verified = split["targets"][rows], split["verified"][rows]
    trust = np.full(len(split["fnames"]), np.nan, np.float32)
    seed = settings.seed + split["fold"]
    trust[rows] = estimate_trust(features, targets, verified, rounds=noise.rounds, seed=seed)
    doubted = trust[rows] < 0.5
    logger.info(
        "fold_%d: %d of %d labels are not verified, and %d of them are more likely wrong than "
        "right; of the most doubted label only %.0f %% of the clips count",
        split["fold"],
        (~verified).sum(),
        len(rows),
        doubted.sum(),
        100 * pd.Series(trust[rows]).groupby(targets).mean().min(),
    )
    return trust


def train_mel(
    split: FoldSplit,
    mels: RaggedArray,
    settings: NetworkSettings,
    checkpoint: Checkpoint,
    callbacks: Sequence[Callback],
    embeddings: np.ndarray | None = None,
    trust: np.ndarray | None = None,
) -> tuple[Network, pd.DataFrame]:
    """Train the network of stage mel on one fold; return it and its history.

    With embeddings of all clips (n, f), the training begins with a probe. With trust in their
    labels (n,), each clip counts as much as that.
    """
    from fsat_kedro.modelling.encoders import fetch_weights
    from fsat_kedro.modelling.networks import build_network
    from fsat_kedro.modelling.probe import average_weights, fit_head

    seed = _seed_stage(settings.seed, split["fold"], stage=1)
    sizes = {"n_mels": mels.values.shape[1], "n_classes": split["n_classes"]}
    weights = fetch_weights(settings.model, settings.cache_dir)
    if embeddings is not None:
        _seed_embedder(settings.seed)
    network = build_network(settings.model, weights=weights, **sizes)
    clips = _training_clips(split, settings, mels, None, trust)
    if embeddings is not None:
        rows = clips.rows
        counts = np.ones(len(rows)) if trust is None else trust[rows]
        fit_head(network, embeddings[rows], split["targets"][rows], counts)
    start = network.get_weights()
    history = _train(network, split, clips, settings, seed, checkpoint, callbacks)
    if embeddings is not None:
        average_weights(network, start, settings.training.probe_fraction)
    return network, history


def train_mel_pca(
    mel_weights: Path,
    split: FoldSplit,
    mels: RaggedArray,
    components: np.ndarray,
    settings: NetworkSettings,
    checkpoint: Checkpoint,
    callbacks: Sequence[Callback],
    trust: np.ndarray | None = None,
) -> tuple[Network, pd.DataFrame]:
    """Train the network of both inputs from stage mel's encoder; return it and its history."""
    from fsat_kedro.modelling.encoders import copy_encoder_weights
    from fsat_kedro.modelling.networks import build_network, load_network

    seed = _seed_stage(settings.seed, split["fold"], stage=2)
    sizes = {"n_mels": mels.values.shape[1], "n_classes": split["n_classes"]}
    mel_network = load_network(settings.model, mel_weights, **sizes)
    sizes["n_components"] = components.shape[1]
    network = build_network(settings.model, weights=None, **sizes)
    copy_encoder_weights(mel_network, network)
    clips = _training_clips(split, settings, mels, components, trust)
    return network, _train(network, split, clips, settings, seed, checkpoint, callbacks)


def predict_out_of_fold(
    weights: Path,
    split: FoldSplit,
    settings: NetworkSettings,
    mels: RaggedArray,
    components: np.ndarray | None = None,
) -> np.ndarray:
    """Predict mean log probabilities of a fold's held-out clips, (n, c); NaN for all others."""
    return ensemble.predict_fold(
        weights,
        _select_clips(split["validation"], split, mels, components),
        n_classes=split["n_classes"],
        settings=settings,
        fold=split["fold"],
    )


def describe_tagger(
    decoding: Decoding,
    trim: Trim,
    log_mel: LogMel,
    folds: Folds,
    settings: NetworkSettings,
    *parts: object,
) -> TaggerSettings:
    """Collect the settings that the ensemble needs to tag other sounds.

    The fitted parts and the weights are inputs so that Kedro runs this node after they are saved:
    an ensemble that is described is complete.
    """
    return TaggerSettings(
        decoding=decoding,
        trim=trim,
        log_mel=log_mel,
        # A trained network does not need the backbone's initial weights.
        model=settings.model.model_copy(update={"weights": None}),
        test_time_crops=settings.test_time_crops,
        inference=settings.inference,
        seed=settings.seed,
        n_folds=folds.n_folds,
    )


def join_histories(*histories: pd.DataFrame, stages: Sequence[str]) -> pd.DataFrame:
    """Join the histories of all stages of all folds in one table.

    Args:
        histories: of each fold in order, the history of each stage.
        stages: their names.

    Returns:
        fold, stage, and the columns of the histories.
    """
    named = [
        history.assign(fold=1 + index // len(stages), stage=stages[index % len(stages)])
        for index, history in enumerate(histories)
    ]
    return pd.concat(named, ignore_index=True)[["fold", "stage", *histories[0].columns]]


def combine_out_of_fold(*logs: np.ndarray) -> np.ndarray:
    """Combine the folds' predictions of their held-out clips.

    Returns:
        Probabilities (n, c); NaN for a rejected clip.
    """
    rejected = np.isnan(logs).all(axis=(0, 2))
    probabilities = ensemble.geometric_mean([np.nansum(logs, axis=0)])
    probabilities[rejected] = np.nan
    return probabilities


def score_cross_validation(
    probabilities: np.ndarray, assigned: np.ndarray, clips: pd.DataFrame, classes: dict, seed: int
) -> dict:
    """Compute `metrics.SCORES` of the out-of-fold predictions, for all clips and for each fold.

    If some labels are verified and others are not, also for the verified ones alone.
    """
    targets = metrics.class_indices(clips["label"], classes["labels"])

    def scores(rows: np.ndarray) -> dict[str, float]:
        return metrics.score_clips(targets[rows], probabilities[rows], seed=seed)

    per_fold = [
        {"fold": fold, **scores(assigned == fold)} for fold in range(1, int(assigned.max()) + 1)
    ]
    verified = (assigned > 0) & clips["verified"].fillna(False).to_numpy(bool)
    alone = {"verified": scores(verified)} if 0 < verified.sum() < (assigned > 0).sum() else {}
    return {**scores(assigned > 0), **alone, "per_fold": per_fold}


def _seed_stage(seed: int, fold: int, *, stage: int) -> int:
    """Clear Keras' state and seed it for a stage of a fold; return the stage's seed."""
    import keras

    seed = int(np.random.SeedSequence([seed, fold, stage]).generate_state(1)[0])
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    return seed


def _seed_embedder(seed: int) -> None:
    """Seed the layers of an encoder that no file sets: a probe is of the same ones in all folds."""
    _seed_stage(seed, 0, stage=0)


def _groups(clips: pd.DataFrame) -> np.ndarray | None:
    """Return the number of each clip's group, (n,); None if no clip has a group.

    A clip without one is a group of its own.
    """
    if "group" not in clips or clips["group"].isna().all():  # Tables of 0.1 have no such column.
        return None
    numbers = pd.factorize(clips["group"])[0]
    return np.where(numbers < 0, len(clips) + np.arange(len(clips)), numbers)


def _are_verified(clips: pd.DataFrame, noise: LabelNoise) -> np.ndarray:
    """Return whether each label is verified, (n,) bool."""
    return clips["verified"].fillna(noise.unknown == "verified").to_numpy(bool)


def _select_clips(
    rows: np.ndarray,
    split: FoldSplit,
    mels: RaggedArray,
    components: np.ndarray | None,
    targets: np.ndarray | None = None,
) -> "Clips":
    from fsat_kedro.modelling.crops import Clips

    statistics = split["mel_statistics"]
    return Clips(rows, split["fnames"], mels, components, statistics, targets)


def _targets(split: FoldSplit, settings: NetworkSettings) -> np.ndarray:
    """Return the targets of all clips, (n, c), or (n, 2 c) for a partly robust loss."""
    targets = np.eye(split["n_classes"], dtype=np.float32)[split["targets"]]
    if settings.training.label_noise.robustness == 0:
        return targets
    verified = split["verified"][:, None]
    return np.hstack([targets * verified, targets * ~verified])


def _training_clips(
    split: FoldSplit,
    settings: NetworkSettings,
    mels: RaggedArray,
    components: np.ndarray | None,
    trust: np.ndarray | None,
) -> "Clips":
    """Select the clips that a fold trains on; their targets have the sum of their trust."""
    rows, targets = split["train"], _targets(split, settings)
    if trust is not None:
        rows = rows[trust[rows] > _LEAST_TRUST]
        targets = targets * trust[:, None]
    return _select_clips(rows, split, mels, components, targets)


def _validation_clips(
    split: FoldSplit,
    settings: NetworkSettings,
    mels: RaggedArray,
    components: np.ndarray | None,
) -> "Clips":
    """Select the held-out clips that epochs are judged by: where labels may be wrong, verified."""
    rows = split["validation"]
    if settings.training.label_noise.is_on and split["verified"][rows].any():
        rows = rows[split["verified"][rows]]
    return _select_clips(rows, split, mels, components, _targets(split, settings))


def _train(
    network: Network,
    split: FoldSplit,
    clips: "Clips",
    settings: NetworkSettings,
    seed: int,
    checkpoint: Checkpoint,
    callbacks: Sequence[Callback],
) -> pd.DataFrame:
    """Train the network of a stage in place on one fold, and return its history."""
    from fsat_kedro.modelling.batches import TrainingBatches
    from fsat_kedro.modelling.crops import test_time_batches
    from fsat_kedro.modelling.training import train_stage

    stage, training = network.name, settings.training
    shortest, longest = (int(split["mel_statistics"][key]) for key in ("shortest", "longest"))
    batches = TrainingBatches(
        clips,
        batch_size=training.batch_size,
        lengths=training_lengths(shortest, longest, training.n_lengths),
        augmentation=training.augmentation,
        mixup_alpha=getattr(training.mixup_alpha, stage),
        seed=seed,
    )
    crops = settings.test_time_crops
    if crops.subset != "whole":
        crops = crops.model_copy(update={"crops_per_length": 1, "subset": "all"})
    held_out = _validation_clips(split, settings, clips.mels, clips.components)
    validation = test_time_batches(held_out, crops, seed=(seed,))
    return train_stage(
        network,
        batches,
        validation,
        settings=training,
        name=f"fold_{split['fold']} {stage}",
        checkpoint=checkpoint,
        callbacks=callbacks,
    )
