"""Wiring of the training: setup of the folds, one template for each fold, and aggregation."""

from collections.abc import Callable, Sequence
from functools import partial, update_wrapper

from kedro.pipeline import Pipeline, node
from kedro.pipeline.node import Node

from fsat_kedro.inference.tagger import parts as tagger_parts
from fsat_kedro.pipelines.training import nodes


def create_pipeline(
    n_folds: int, stages: Sequence[str], *, probe: bool = False, verify_labels: bool = False
) -> Pipeline:
    """Assign folds, train the stages of each in a namespace of its own, and score them together.

    Args:
        n_folds: number of folds.
        stages: names of the stages.
        probe: whether all clips are embedded before the first fold, for its probe.
        verify_labels: whether each fold estimates how much its labels can be trusted.
    """
    folds = range(1, n_folds + 1)
    per_fold = [_per_fold(fold, stages, probe, verify_labels) for fold in folds]
    return Pipeline(
        [_setup(folds, stages, probe=probe), *per_fold, _aggregate(folds, stages)],
        namespace="training",
        prefix_datasets_with_namespace=False,
    )


def _setup(folds: range, stages: Sequence[str], *, probe: bool) -> Pipeline:
    features = {"summary": "train_summary"} if "mel_pca" in stages else {}
    if probe:
        features["embeddings"] = "train_embeddings"
    baselines = node(
        nodes.score_baselines,
        {
            **{"assigned": "train_folds", "clips": "train_clips", "classes": "classes"},
            **{"seed": "params:seed", "n_jobs": "params:n_jobs"},
            **features,
        },
        "baseline_scores",
        name="score_baselines",
    )
    settings = ["params:folds", "params:training.label_noise"]
    return Pipeline(
        [
            node(nodes.list_classes, "train_clips", "classes", name="list_classes"),
            node(
                nodes.assign_folds,
                ["train_clips", *settings, "params:seed"],
                "train_folds",
                name="assign_folds",
            ),
            node(
                nodes.split_folds,
                ["train_folds", "train_clips", "classes", "mel_statistics", *settings],
                [f"split_{fold}" for fold in folds],
                name="split_folds",
            ),
            *([_embed_clips()] if probe else []),
            baselines,
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


def _per_fold(fold: int, stages: Sequence[str], probe: bool, verify_labels: bool) -> Pipeline:
    given = {"split": f"split_{fold}", "settings": "params:network_settings"}
    mels, components = {"mels": "train_mels"}, {"components": "train_components"}
    embeddings = {"embeddings": "train_embeddings"} if probe else {}
    trust = {"trust": f"label_trust_{fold}"} if verify_labels else {}
    verify = node(
        nodes.verify_labels,
        {**given, **(embeddings or components)},
        f"label_trust_{fold}",
        name="verify_labels",
    )
    trained = {
        "mel": _train(nodes.train_mel, "mel", fold, {**given, **mels, **embeddings, **trust}),
        "mel_pca": _train(
            nodes.train_mel_pca,
            "mel_pca",
            fold,
            {"mel_weights": f"mel_weights_{fold}", **given, **mels, **components, **trust},
        ),
    }
    weights = {"weights": f"{stages[-1]}_weights_{fold}"}
    predict = node(
        nodes.predict_out_of_fold,
        {**weights, **given, **mels, **(components if "mel_pca" in stages else {})},
        f"oof_{fold}",
        name="predict_out_of_fold",
    )
    return Pipeline(
        [*([verify] if verify_labels else []), *(trained[stage] for stage in stages), predict],
        tags="gpu",
        namespace=f"fold_{fold}",
        prefix_datasets_with_namespace=False,
    )


def _train(function: Callable, stage: str, fold: int, inputs: dict[str, str]) -> Node:
    return node(
        function,
        {**inputs, "checkpoint": f"{stage}_checkpoint_{fold}", "callbacks": "callbacks"},
        [f"{stage}_weights_{fold}", f"{stage}_history_{fold}"],
        name=function.__name__,
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
