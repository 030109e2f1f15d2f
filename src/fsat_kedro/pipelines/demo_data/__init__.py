"""Demo data: the synthetic data set."""

from fsat_kedro.pipelines.demo_data.pipeline import create_pipeline

__all__ = ["create_pipeline"]
