"""Dataset for NumPy arrays."""

from typing import Any

import fsspec
import numpy as np
from kedro.io import AbstractDataset

from fsat_kedro.files import exists, open_atomic


class NpyDataset(AbstractDataset[np.ndarray, np.ndarray]):
    """A NumPy array as an `.npy` file or object; arrays of Python objects are refused.

    Args:
        filepath: path or url, ending in `.npy`.
        metadata: for hooks and plugins.

    Example:
        In `catalog.yml`::

            train_components:
              type: fsat_kedro.datasets.NpyDataset
              filepath: data/04_feature/train_components.npy

        In Python::

            dataset = NpyDataset(filepath="data/04_feature/train_components.npy")
            dataset.save(np.zeros((2, 350), np.float32))
            components = dataset.load()
    """

    def __init__(self, *, filepath: str, metadata: Any = None) -> None:
        self._filepath = filepath
        self.metadata = metadata

    def load(self) -> np.ndarray:
        """Load the array."""
        with fsspec.open(self._filepath) as file:
            return np.load(file, allow_pickle=False)

    def save(self, data: np.ndarray) -> None:
        """Write the array, in place of what was there."""
        with open_atomic(self._filepath) as file:
            np.save(file, data, allow_pickle=False)

    def _exists(self) -> bool:
        return exists(self._filepath)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}
