"""Tagging of a folder of sounds."""

from fsat_kedro.pipelines.tag.pipeline import create_pipeline

__all__ = ["create_pipeline"]
