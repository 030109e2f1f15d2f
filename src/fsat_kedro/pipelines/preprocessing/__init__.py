"""From raw files to a table of clips and their trimmed sound."""

from fsat_kedro.pipelines.preprocessing.pipeline import create_pipeline

__all__ = ["create_pipeline"]
