"""Features: from trimmed audio to log-mels and projected summary features."""

from fsat_kedro.pipelines.features.pipeline import create_pipeline

__all__ = ["create_pipeline"]
