"""Download of the published data set."""

from fsat_kedro.pipelines.download.pipeline import create_pipeline

__all__ = ["create_pipeline"]
