"""Wiring of the plots and tables for people."""

from kedro.pipeline import Pipeline


def create_pipeline(n_folds: int, splits: list[str]) -> Pipeline:
    """Report on the training, and on the test clips where there are any."""
    return Pipeline([])
