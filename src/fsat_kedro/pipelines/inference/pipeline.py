"""Wiring from trained folds to ranked tags of the test clips."""

from collections.abc import Sequence
from functools import partial, update_wrapper

from kedro.pipeline import Pipeline, node

from fsat_kedro.pipelines.inference import nodes


def create_pipeline(n_folds: int, stages: Sequence[str]) -> Pipeline:
    """Predict with the last stage of each fold in a namespace of its own, combine, rank and score.

    Without folds there is nothing to predict with, and the pipeline is empty.
    """
    if n_folds == 0:
        return Pipeline([])
    folds = range(1, n_folds + 1)
    logs = [f"test_fold_{fold}" for fold in folds]
    combined = ["test_probabilities", "test_clips", "classes"]
    return Pipeline(
        [
            *(_per_fold(fold, stages) for fold in folds),
            node(
                nodes.combine_folds,
                ["test_clips", "classes", *logs],
                "test_probabilities",
                name="combine_folds",
            ),
            node(nodes.rank_tags, combined, "submission", name="rank_tags"),
            node(nodes.score_test, [*combined, "params:seed"], "test_scores", name="score_test"),
            node(
                nodes.score_folds,
                ["test_clips", "classes", "params:seed", *logs],
                "fold_test_scores",
                name="score_folds",
            ),
        ],
        namespace="inference",
        prefix_datasets_with_namespace=False,
    )


def _per_fold(fold: int, stages: Sequence[str]) -> Pipeline:
    fitted = ["mel_statistics", "classes", "params:network_settings"]
    features = ["test_mels", "test_components"][: len(stages)]
    predict = node(
        update_wrapper(partial(nodes.predict_fold, fold=fold), nodes.predict_fold),
        [f"{stages[-1]}_weights_{fold}", "test_clips", *fitted, *features],
        f"test_fold_{fold}",
        name="predict_fold",
        tags="gpu",
    )
    return Pipeline([predict], namespace=f"fold_{fold}", prefix_datasets_with_namespace=False)
