"""Wiring from trained folds to ranked tags of the test clips."""

from functools import partial, update_wrapper

from kedro.pipeline import Pipeline, node

from fsat_kedro.pipelines.inference import nodes


def create_pipeline(n_folds: int) -> Pipeline:
    """Predict with each fold in a namespace of its own, combine, rank and score.

    Without folds there is nothing to predict with, and the pipeline is empty.
    """
    if n_folds == 0:
        return Pipeline([])
    folds = range(1, n_folds + 1)
    logs = [f"test_fold_{fold}" for fold in folds]
    aggregate = Pipeline(
        [
            node(
                nodes.combine_folds,
                ["test_clips", "classes", *logs],
                "test_probabilities",
                name="combine_folds",
            ),
            node(
                nodes.rank_tags,
                ["test_probabilities", "test_clips", "classes"],
                "submission",
                name="rank_tags",
            ),
            node(
                nodes.score_test,
                ["test_probabilities", "test_clips", "classes", "params:seed"],
                "test_scores",
                name="score_test",
            ),
            node(
                nodes.score_folds,
                ["test_clips", "classes", "params:seed", *logs],
                "fold_test_scores",
                name="score_folds",
            ),
        ]
    )
    pipeline = sum(map(_per_fold, folds), aggregate)
    parameters = {"network_settings", "seed"}
    return Pipeline(
        pipeline,
        namespace="inference",
        inputs=pipeline.inputs() - {f"params:{name}" for name in parameters},
        outputs=pipeline.all_outputs(),
        parameters=parameters,
    )


def _per_fold(fold: int) -> Pipeline:
    shared = ["test_clips", "test_mels", "test_components", "mel_statistics", "classes"]
    template = Pipeline(
        [
            node(
                update_wrapper(partial(nodes.predict_fold, fold=fold), nodes.predict_fold),
                ["mel_pca_weights", *shared, "params:network_settings"],
                "log_probabilities",
                name="predict_fold",
                tags="gpu",
            )
        ]
    )
    return Pipeline(
        template,
        namespace=f"fold_{fold}",
        inputs={"mel_pca_weights": f"mel_pca_weights_{fold}", **{name: name for name in shared}},
        outputs={"log_probabilities": f"test_fold_{fold}"},
        parameters={"network_settings"},
    )
