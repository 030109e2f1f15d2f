"""From trained folds to ranked tags of the test clips and their scores."""

from fsat_kedro.pipelines.inference.pipeline import create_pipeline

__all__ = ["create_pipeline"]
