"""Kedro hooks of the project."""

from typing import Any


def dataset_path(dataset: Any) -> str:
    """Return the local path or the url of a dataset's file."""
    # Datasets of kedro-datasets keep the protocol of a url apart.
    protocol = getattr(dataset, "_protocol", "file")
    path = str(dataset._filepath)
    return path if protocol == "file" else f"{protocol}://{path}"
