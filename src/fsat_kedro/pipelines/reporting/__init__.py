"""Plots and tables for people."""

from fsat_kedro.pipelines.reporting.pipeline import create_pipeline

__all__ = ["create_pipeline"]
