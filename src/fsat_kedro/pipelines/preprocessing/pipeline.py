"""Pipeline from raw files to trimmed clips: one template, used for every split."""

from functools import partial, update_wrapper

from kedro.pipeline import Pipeline, node

from fsat_kedro.pipelines.preprocessing import nodes


def create_pipeline(splits: list[str], *, demo: bool) -> Pipeline:
    """Preprocess each split in its own namespace, then report on all clips and accept them.

    With `demo`, the demo's files are written first.
    """
    return sum((_split_pipeline(split, demo) for split in splits), _check_pipeline(splits))


def _split_pipeline(split: str, demo: bool) -> Pipeline:
    read_metadata = update_wrapper(partial(nodes.read_metadata, split=split), nodes.read_metadata)
    demo_inputs = ["demo_clips"] if demo else []
    outputs = ("metadata", "unlisted", "audio", "decode_results")
    return Pipeline(
        [
            node(
                read_metadata,
                ["params:raw_dir", "params:dataset", "params:table_columns", *demo_inputs],
                ["metadata", "unlisted"],
                name="read_metadata",
            ),
            node(
                nodes.trim_clips,
                ["metadata", "params:decoding", "params:trim", "params:n_jobs", "params:spool_dir"],
                ["audio", "decode_results"],
                name="trim_clips",
            ),
        ],
        namespace=f"preprocessing.{split}",
        inputs=set(demo_inputs),
        parameters={
            *("raw_dir", "dataset", "table_columns"),
            *("decoding", "trim", "n_jobs", "spool_dir"),
        },
        outputs={name: f"{split}_{name}" for name in outputs},
    )


def _check_pipeline(splits: list[str]) -> Pipeline:
    """Save the reports on all clips, then accept the clips of each split."""
    names = ("metadata", "decode_results", "unlisted")
    results = [f"{split}_{name}" for split in splits for name in names]
    reports = ["rejected_clips", "clip_warnings", "clip_counts"]
    report_clips = update_wrapper(partial(nodes.report_clips, splits=splits), nodes.report_clips)
    report = node(report_clips, {name: name for name in results}, reports, name="report_clips")
    accept = [
        node(
            nodes.accept_clips,
            [f"{split}_metadata", f"{split}_decode_results", "rejected_clips", "params:rejection"],
            f"{split}_clips",
            name=f"accept_{split}_clips",
        )
        for split in splits
    ]
    return Pipeline(
        [report, *accept],
        namespace="preprocessing.check",
        inputs=set(results),
        outputs={*reports, *(f"{split}_clips" for split in splits)},
        parameters={"rejection"},
    )
