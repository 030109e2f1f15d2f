"""Wiring of the training: one template, used for every fold, in one group with what is around."""

from kedro.pipeline import Pipeline, node

from fsat_kedro.pipelines.training import nodes


def create_pipeline(n_folds: int) -> Pipeline:
    """Assign folds, train each in a namespace of its own, and score them together."""
    folds = range(1, n_folds + 1)
    histories = [f"{stage}_history_{fold}" for fold in folds for stage in ("mel", "mel_pca")]
    before = Pipeline(
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
                ["train_folds", "params:folds"],
                [f"split_{fold}" for fold in folds],
                name="split_folds",
            ),
        ]
    )
    settings = ["decoding", "trim", "log_mel", "model", "views", "inference", "seed"]
    after = Pipeline(
        [
            node(nodes.join_histories, histories, "training_history", name="join_histories"),
            node(
                nodes.describe_tagger,
                [
                    *("mel_statistics", "projector", "classes"),
                    *(f"params:{name}" for name in settings),
                    *(f"mel_pca_weights_{fold}" for fold in folds),
                ],
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
    whole = sum((_fold_pipeline(fold) for fold in folds), before + after)
    return Pipeline(
        whole,
        namespace="training",
        inputs={"train_clips", "train_mels", "train_components", "mel_statistics", "projector"},
        # Dots in names that other pipelines use would make Kedro see namespaces in them.
        outputs=whole.all_outputs(),
        parameters={"folds", "training", *settings},
    )


def _fold_pipeline(fold: int) -> Pipeline:
    clips = ["split", "train_clips", "train_mels"]
    fitted = ["mel_statistics", "classes"]
    prediction = ["params:model", "params:views", "params:inference", "params:seed"]
    settings = ["params:model", "params:training", "params:views", "params:seed"]
    template = Pipeline(
        [
            node(
                nodes.train_mel,
                [*clips, *fitted, *settings],
                ["mel_weights", "mel_history"],
                name="train_mel",
                tags="gpu",
            ),
            node(
                nodes.train_mel_pca,
                ["mel_weights", *clips, "train_components", *fitted, *settings],
                ["mel_pca_weights", "mel_pca_history"],
                name="train_mel_pca",
                tags="gpu",
            ),
            node(
                nodes.predict_out_of_fold,
                ["mel_pca_weights", *clips, "train_components", *fitted, *prediction],
                "oof",
                name="predict_out_of_fold",
                tags="gpu",
            ),
        ]
    )
    trained = ["mel_weights", "mel_history", "mel_pca_weights", "mel_pca_history"]
    shared = {"train_clips", "train_mels", "train_components", "mel_statistics", "classes"}
    return Pipeline(
        template,
        namespace=f"fold_{fold}",
        inputs={"split": f"split_{fold}", **{name: name for name in shared}},
        outputs={name: f"{name}_{fold}" for name in (*trained, "oof")},
        parameters={"model", "training", "views", "inference", "seed"},
    )
