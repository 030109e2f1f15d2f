"""Wiring of the training: setup of the folds, one template for each fold, and aggregation."""

from kedro.pipeline import Pipeline, node

from fsat_kedro.pipelines.training import nodes


def create_pipeline(n_folds: int) -> Pipeline:
    """Assign folds, train each in a namespace of its own, and score them together."""
    folds = range(1, n_folds + 1)
    pipeline = sum(map(_per_fold, folds), _setup(folds) + _aggregate(folds))
    parameters = {"folds", "decoding", "trim", "log_mel", "network_settings", "seed"}
    return Pipeline(
        pipeline,
        namespace="training",
        # Dots in names that other pipelines use would make Kedro see namespaces in them.
        inputs=pipeline.inputs() - {f"params:{name}" for name in parameters},
        outputs=pipeline.all_outputs(),
        parameters=parameters,
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
    features = ["train_mels", "train_components"]
    settings = "params:network_settings"
    template = Pipeline(
        [
            node(
                nodes.train_mel,
                ["split", "train_mels", settings, "mel_checkpoint", "callbacks"],
                ["mel_weights", "mel_history"],
                name="train_mel",
                tags="gpu",
            ),
            node(
                nodes.train_mel_pca,
                ["mel_weights", "split", *features, settings, "mel_pca_checkpoint", "callbacks"],
                ["mel_pca_weights", "mel_pca_history"],
                name="train_mel_pca",
                tags="gpu",
            ),
            node(
                nodes.predict_out_of_fold,
                ["mel_pca_weights", "split", *features, settings],
                "oof",
                name="predict_out_of_fold",
                tags="gpu",
            ),
        ]
    )
    own = {name: f"{name}_{fold}" for name in ("split", "mel_checkpoint", "mel_pca_checkpoint")}
    return Pipeline(
        template,
        namespace=f"fold_{fold}",
        inputs={**own, **{name: name for name in (*features, "callbacks")}},
        outputs={name: f"{name}_{fold}" for name in template.all_outputs()},
        parameters={"network_settings"},
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
