"""Wiring of the training: setup of the folds, one template for each fold, and aggregation."""

from collections.abc import Sequence
from functools import partial, update_wrapper

from kedro.pipeline import Pipeline, node
from kedro.pipeline.node import Node

from fsat_kedro.inference.tagger import parts as tagger_parts
from fsat_kedro.pipelines.training import nodes


def create_pipeline(n_folds: int, stages: Sequence[str], *, probe: bool = False) -> Pipeline:
    """Assign folds, train the stages of each in a namespace of its own, and score them together.

    With a probe, all clips are embedded before the first fold.
    """
    folds = range(1, n_folds + 1)
    per_fold = [_per_fold(fold, stages, probe=probe) for fold in folds]
    return Pipeline(
        [_setup(folds, probe=probe), *per_fold, _aggregate(folds, stages)],
        namespace="training",
        prefix_datasets_with_namespace=False,
    )


def _setup(folds: range, *, probe: bool) -> Pipeline:
    return Pipeline(
        [
            node(nodes.list_classes, "train_clips", "classes", name="list_classes"),
            node(
                nodes.assign_folds,
                ["train_clips", "params:folds", "params:seed"],
                "train_folds",
                name="assign_folds",
            ),
            node(
                nodes.split_folds,
                ["train_folds", "train_clips", "classes", "mel_statistics", "params:folds"],
                [f"split_{fold}" for fold in folds],
                name="split_folds",
            ),
            *([_embed_clips()] if probe else []),
        ]
    )


def _embed_clips() -> Node:
    return node(
        nodes.embed_clips,
        ["train_mels", "train_clips", "mel_statistics", "params:network_settings"],
        "train_embeddings",
        name="embed_clips",
        tags="gpu",
    )


def _per_fold(fold: int, stages: Sequence[str], *, probe: bool) -> Pipeline:
    features = ["train_mels", "train_components"][: len(stages)]
    predict = node(
        nodes.predict_out_of_fold,
        [f"{stages[-1]}_weights_{fold}", f"split_{fold}", "params:network_settings", *features],
        f"oof_{fold}",
        name="predict_out_of_fold",
    )
    trained = [_train_mel(fold, probe=probe), _train_mel_pca(fold)][: len(stages)]
    return Pipeline(
        [*trained, predict],
        tags="gpu",
        namespace=f"fold_{fold}",
        prefix_datasets_with_namespace=False,
    )


def _train_mel(fold: int, *, probe: bool) -> Node:
    settings, checkpoint = "params:network_settings", f"mel_checkpoint_{fold}"
    return node(
        nodes.train_mel,
        [
            *(f"split_{fold}", "train_mels", settings, checkpoint, "callbacks"),
            *(["train_embeddings"] if probe else []),
        ],
        [f"mel_weights_{fold}", f"mel_history_{fold}"],
        name="train_mel",
    )


def _train_mel_pca(fold: int) -> Node:
    features = ["train_mels", "train_components"]
    settings, checkpoint = "params:network_settings", f"mel_pca_checkpoint_{fold}"
    return node(
        nodes.train_mel_pca,
        [f"mel_weights_{fold}", f"split_{fold}", *features, settings, checkpoint, "callbacks"],
        [f"mel_pca_weights_{fold}", f"mel_pca_history_{fold}"],
        name="train_mel_pca",
    )


def _aggregate(folds: range, stages: Sequence[str]) -> Pipeline:
    groups = ("decoding", "trim", "log_mel", "folds", "network_settings")
    settings = [f"params:{group}" for group in groups]
    parts = tagger_parts(len(folds), stages[-1])
    join = update_wrapper(partial(nodes.join_histories, stages=stages), nodes.join_histories)
    return Pipeline(
        [
            node(
                join,
                [f"{stage}_history_{fold}" for fold in folds for stage in stages],
                "training_history",
                name="join_histories",
            ),
            node(
                nodes.describe_tagger,
                [*settings, *parts],
                "tagger",
                name="describe_tagger",
            ),
            node(
                nodes.combine_out_of_fold,
                [f"oof_{fold}" for fold in folds],
                "oof_probabilities",
                name="combine_out_of_fold",
            ),
            node(
                nodes.score_cross_validation,
                ["oof_probabilities", "train_folds", "train_clips", "classes", "params:seed"],
                "cv_scores",
                name="score_cross_validation",
            ),
        ]
    )
