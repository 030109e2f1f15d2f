"""Pipeline that writes the synthetic data set."""

from kedro.pipeline import Pipeline, node

from fsat_kedro.pipelines.demo_data import nodes


def create_pipeline() -> Pipeline:
    """Write the synthetic data set to the raw folder."""
    return Pipeline(
        [
            node(
                nodes.make_demo_clips,
                ["params:raw_dir", "params:demo", "params:seed"],
                "demo_clips",
                name="make_demo_clips",
            )
        ]
    )
