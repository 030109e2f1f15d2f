"""Wiring of the plots and tables for people."""

from collections.abc import Callable
from functools import partial, update_wrapper

from kedro.pipeline import Pipeline, node

from fsat_kedro.pipelines.reporting import nodes


def create_pipeline(n_folds: int, splits: list[str]) -> Pipeline:
    """Report on clips, features and training, and on the test clips where there are any."""
    clips = [f"{split}_clips" for split in splits]
    scores = ["cv_scores", "test_scores"] if "test" in splits else ["cv_scores"]
    test = ["test_probabilities", "test_clips", "classes"] if "test" in splits else []
    out_of_fold = ["oof_probabilities", "train_clips", "classes"]
    histories = [
        f"{stage}_history_{fold}" for stage in ("mel", "mel_pca") for fold in range(1, n_folds + 1)
    ]
    tables = [
        node(nodes.tabulate_scores, scores, "scores", name="tabulate_scores"),
        node(nodes.score_classes, out_of_fold, "class_scores", name="score_classes"),
        node(nodes.list_confused_pairs, out_of_fold, "confused_pairs", name="list_confused_pairs"),
    ]
    if test:
        tables.append(
            node(nodes.score_test_classes, test, "test_class_scores", name="score_test_classes")
        )
    plots = [
        node(nodes.draw_class_balance, "train_clips", "class_balance", name="draw_class_balance"),
        node(
            _of_splits(nodes.draw_clip_lengths, splits),
            ["mel_statistics", "params:log_mel", *clips],
            "clip_lengths",
            name="draw_clip_lengths",
        ),
        node(
            nodes.draw_explained_variance,
            "projector",
            "explained_variance",
            name="draw_explained_variance",
        ),
        node(nodes.draw_learning_curves, histories, "learning_curves", name="draw_learning_curves"),
        node(
            nodes.draw_confusion_matrix,
            out_of_fold,
            "confusion_matrix",
            name="draw_confusion_matrix",
        ),
    ]
    reports = Pipeline(tables + plots)
    return Pipeline(
        reports,
        namespace="reporting",
        inputs={*clips, *scores, *out_of_fold, *test, *histories, "mel_statistics", "projector"},
        outputs=reports.outputs(),
        parameters={"log_mel"},
    )


def _of_splits(report: Callable, splits: list[str]) -> Callable:
    """A node's function, told which splits the tables that it gets are of."""
    return update_wrapper(partial(report, splits=splits), report)
