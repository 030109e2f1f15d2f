"""Wiring of the published data set."""

from kedro.pipeline import Pipeline, node

from fsat_kedro.pipelines.download import nodes


def create_pipeline() -> Pipeline:
    """One node, from the address of a record to files in the raw folder."""
    return Pipeline(
        [
            node(
                nodes.download_files,
                ["params:raw_dir", "params:download"],
                "downloaded_files",
                name="download_files",
            )
        ]
    )
