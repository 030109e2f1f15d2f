"""Wiring of the training: setup of the folds, one template for each fold, and aggregation."""

from kedro.pipeline import Pipeline, node

from fsat_kedro.pipelines.training import nodes


def create_pipeline(n_folds: int) -> Pipeline:
    """Assign folds, train each in a namespace of its own, and score them together."""
    folds = range(1, n_folds + 1)
    return Pipeline(
        [_setup(folds), *map(_per_fold, folds), _aggregate(folds)],
        namespace="training",
        prefix_datasets_with_namespace=False,
    )


def _setup(folds: range) -> Pipeline:
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
        ]
    )


def _per_fold(fold: int) -> Pipeline:
    split, features = f"split_{fold}", ["train_mels", "train_components"]
    settings, checkpoint = "params:network_settings", f"mel_pca_checkpoint_{fold}"
    return Pipeline(
        [
            node(
                nodes.train_mel,
                [split, "train_mels", settings, f"mel_checkpoint_{fold}", "callbacks"],
                [f"mel_weights_{fold}", f"mel_history_{fold}"],
                name="train_mel",
            ),
            node(
                nodes.train_mel_pca,
                [f"mel_weights_{fold}", split, *features, settings, checkpoint, "callbacks"],
                [f"mel_pca_weights_{fold}", f"mel_pca_history_{fold}"],
                name="train_mel_pca",
            ),
            node(
                nodes.predict_out_of_fold,
                [f"mel_pca_weights_{fold}", split, *features, settings],
                f"oof_{fold}",
                name="predict_out_of_fold",
            ),
        ],
        tags="gpu",
        namespace=f"fold_{fold}",
        prefix_datasets_with_namespace=False,
    )


def _aggregate(folds: range) -> Pipeline:
    fitted = ["mel_statistics", "projector", "classes"]
    settings = ["params:decoding", "params:trim", "params:log_mel", "params:network_settings"]
    return Pipeline(
        [
            node(
                nodes.join_histories,
                [f"{stage}_history_{fold}" for fold in folds for stage in ("mel", "mel_pca")],
                "training_history",
                name="join_histories",
            ),
            node(
                nodes.describe_tagger,
                [*fitted, *settings, *(f"mel_pca_weights_{fold}" for fold in folds)],
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
