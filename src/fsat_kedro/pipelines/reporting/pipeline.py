"""Wiring of the plots, the tables and the report."""

from collections.abc import Callable

from kedro.pipeline import Pipeline, node
from kedro.pipeline.node import Node

from fsat_kedro.evaluation.previews import preview_clips
from fsat_kedro.pipelines.reporting import nodes


def create_pipeline(splits: list[str], *, summary_features: bool) -> Pipeline:
    """Report on clips, features and training, and on the test clips if there are any."""
    drawn = {
        name: plot
        for name, plot in nodes.PLOTS.items()
        if summary_features or "projector" not in plot.inputs
    }

    def available(*names: str) -> list[str]:
        return [name for name in names if "test" in splits or "test_" not in name]

    predictions = available("train_predictions", "test_predictions")
    scores = available("cv_scores", "baseline_scores", "test_scores")
    tables = [
        _table(nodes.tabulate_scores, scores, "scores"),
        _table(nodes.score_classes, ["train_predictions"], "class_scores"),
        _table(nodes.list_confused_pairs, ["train_predictions"], "confused_pairs"),
        _table(nodes.list_label_issues, ["train_predictions"], "label_issues"),
        _table(nodes.list_misclassified_clips, predictions, "misclassified_clips"),
    ]
    if "test" in splits:
        tables.append(_table(nodes.score_test_classes, ["test_predictions"], "test_class_scores"))
    plots = [
        node(plot.draw, available(*plot.inputs), name, name=f"draw_{name}")
        for name, plot in drawn.items()
    ]
    report = {
        **{name: f"params:{name}" for name in ("report", "dataset", "data_dir")},
        "scores": "scores",
        **{split: f"{split}_previews" for split in splits},
        **{name: name for name, plot in drawn.items() if plot.title},
    }
    page = node(nodes.write_report, report, "report", name="write_report")
    per_split = [x for split in splits for x in _split_nodes(split)]
    pipeline = Pipeline([*per_split, *tables, *plots, page])
    parameters = {name for name in pipeline.inputs() if name.startswith("params:")}
    return Pipeline(
        pipeline,
        namespace="reporting",
        inputs=pipeline.inputs() - parameters,
        outputs=pipeline.all_outputs(),
        parameters=parameters,
    )


def _split_nodes(split: str) -> list[Node]:
    """Collect the predictions of a split, and preview its clips."""
    prefix, folds = ("oof", ["train_folds"]) if split == "train" else (split, [])
    predictions, sounds = f"{split}_predictions", [f"{split}_audio", f"{split}_mels"]
    collected = [f"{prefix}_probabilities", f"{split}_clips", "classes", *folds]
    previewed = ["params:report", "params:log_mel", predictions, *sounds]
    return [
        node(nodes.collect_predictions, collected, predictions, name=f"collect_{predictions}"),
        node(preview_clips, previewed, f"{split}_previews", name=f"preview_{split}_clips"),
    ]


def _table(function: Callable, inputs: list[str], output: str) -> Node:
    return node(function, inputs, output, name=function.__name__)
