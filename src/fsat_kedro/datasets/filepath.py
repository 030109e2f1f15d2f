"""Path of a dataset's file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kedro.io import AbstractDataset


def filepath_of(dataset: AbstractDataset[Any, Any]) -> str | None:
    """Return the path or url of a dataset; None for one without a file.

    Datasets of kedro-datasets keep the protocol of a url apart from its path.
    """
    path = getattr(dataset, "_filepath", None)
    if path is None:
        return None
    protocol = getattr(dataset, "_protocol", "file")
    return str(path) if protocol == "file" else f"{protocol}://{path}"
