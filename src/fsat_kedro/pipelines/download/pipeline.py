"""Pipeline that downloads the published data set."""

from kedro.pipeline import Pipeline, node

from fsat_kedro.pipelines.download import nodes


def create_pipeline() -> Pipeline:
    """Download the files of a record to the raw folder."""
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
