"""From features to trained folds and out-of-fold scores."""

from fsat_kedro.pipelines.training.pipeline import create_pipeline

__all__ = ["create_pipeline"]
