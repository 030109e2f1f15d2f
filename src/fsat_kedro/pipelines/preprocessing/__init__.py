"""Preprocessing: from raw files to tables of clips and trimmed audio."""

from fsat_kedro.pipelines.preprocessing.pipeline import create_pipeline

__all__ = ["create_pipeline"]
