"""Wiring of the plots and tables for people."""

from collections.abc import Callable
from functools import partial, update_wrapper

from kedro.pipeline import Pipeline, node
from kedro.pipeline.node import Node

from fsat_kedro.pipelines.reporting import nodes


def create_pipeline(splits: list[str]) -> Pipeline:
    """Report on clips, features and training, and on the test clips where there are any."""
    tested = "test" in splits
    clips = [f"{split}_clips" for split in splits]
    scores = ["cv_scores", "test_scores"] if tested else ["cv_scores"]
    test = ["test_probabilities", "test_clips"] if tested else []
    out_of_fold = ["oof_probabilities", "train_clips", "classes"]
    tables = [
        node(nodes.tabulate_scores, scores, "scores", name="tabulate_scores"),
        node(nodes.score_classes, out_of_fold, "class_scores", name="score_classes"),
        node(nodes.list_confused_pairs, out_of_fold, "confused_pairs", name="list_confused_pairs"),
        node(
            nodes.list_misclassified_clips,
            [*out_of_fold, "train_folds", *test],
            "misclassified_clips",
            name="list_misclassified_clips",
        ),
    ]
    if tested:
        tables.append(
            node(
                nodes.score_test_classes,
                [*test, "classes"],
                "test_class_scores",
                name="score_test_classes",
            )
        )
    plots = [
        _drawing(nodes.draw_class_balance, ["train_clips"]),
        _drawing(
            _of_splits(nodes.draw_clip_lengths, splits),
            ["mel_statistics", "params:log_mel", "params:crop_lengths", *clips],
        ),
        _drawing(nodes.draw_explained_variance, ["projector"]),
        _drawing(nodes.draw_learning_curves, ["training_history"]),
        _drawing(nodes.draw_confusion_matrix, out_of_fold),
        _drawing(nodes.draw_scores_by_class, out_of_fold + test),
        _drawing(nodes.draw_scores_by_fold, scores + (["fold_test_scores"] if tested else [])),
        _drawing(nodes.draw_reliability, out_of_fold + test),
        _drawing(nodes.draw_mel_gallery, [*out_of_fold, "train_mels", "params:log_mel"]),
    ]
    sounds = [f"{split}_{kind}" for split in splits for kind in ("audio", "mels")]
    given = [*out_of_fold, *test, *scores, "train_folds", *sounds, *nodes.PLOTS]
    settings = {name: f"params:{name}" for name in ("report", "log_mel", "dataset", "data_dir")}
    page = node(
        nodes.write_report,
        {**settings, **{name: name for name in given}},
        "report",
        name="write_report",
    )
    reports = Pipeline([*tables, *plots, page])
    parameters = {"report", "log_mel", "crop_lengths", "dataset", "data_dir"}
    return Pipeline(
        reports,
        namespace="reporting",
        inputs=reports.inputs() - {f"params:{name}" for name in parameters},
        outputs=reports.all_outputs(),
        parameters=parameters,
    )


def _drawing(draw: Callable, inputs: list[str]) -> Node:
    """The node of a plot, by whose name its function is called."""
    name = draw.__name__
    return node(draw, inputs, name.removeprefix("draw_"), name=name)


def _of_splits(report: Callable, splits: list[str]) -> Callable:
    """A node's function, told which splits the tables that it gets are of."""
    return update_wrapper(partial(report, splits=splits), report)
