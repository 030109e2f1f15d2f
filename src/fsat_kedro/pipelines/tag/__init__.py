"""From a folder of anybody's sounds to their tags."""

from fsat_kedro.pipelines.tag.pipeline import create_pipeline

__all__ = ["create_pipeline"]
