"""Wiring from raw files to trimmed clips: one template, used for every split."""

from functools import partial, update_wrapper

from kedro.pipeline import Pipeline, node

from fsat_kedro.pipelines.preprocessing import nodes


def create_pipeline(splits: list[str], *, demo: bool) -> Pipeline:
    """Preprocess each split in a namespace of its own; `demo` if the raw files are made."""
    return sum((_split_pipeline(split, demo) for split in splits), Pipeline([]))


def _split_pipeline(split: str, demo: bool) -> Pipeline:
    read_metadata = update_wrapper(partial(nodes.read_metadata, split=split), nodes.read_metadata)
    made = ["demo_clips"] if demo else []
    template = Pipeline(
        [
            node(
                read_metadata,
                ["params:raw_dir", "params:dataset", *made],
                "metadata",
                name="read_metadata",
            ),
            node(
                nodes.trim_clips,
                ["metadata", "params:trim", "params:n_jobs", "params:data_dir"],
                ["audio", "clips"],
                name="trim_clips",
            ),
        ]
    )
    return Pipeline(
        template,
        namespace=f"preprocessing.{split}",
        inputs=set(made),
        parameters={"raw_dir", "dataset", "trim", "n_jobs", "data_dir"},
        outputs={name: f"{split}_{name}" for name in ("metadata", "audio", "clips")},
    )
