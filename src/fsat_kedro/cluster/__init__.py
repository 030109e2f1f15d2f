"""Kedro nodes on the workers of a Dask cluster."""

from fsat_kedro.cluster.runner import DaskRunner

__all__ = ["DaskRunner"]
