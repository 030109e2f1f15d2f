"""Dataset for NumPy arrays."""

from pathlib import Path
from typing import Any

import numpy as np
from kedro.io import AbstractDataset

from fsat_kedro.files import replacing


class NpyDataset(AbstractDataset[np.ndarray, np.ndarray]):
    """A NumPy array as an `.npy` file; object arrays are refused.

    Example:
        In `catalog.yml`::

            train_components:
              type: fsat_kedro.datasets.npy_dataset.NpyDataset
              filepath: data/04_feature/train_components.npy

        In Python::

            dataset = NpyDataset(filepath="data/04_feature/train_components.npy")
            dataset.save(np.zeros((2, 350), np.float32))
            components = dataset.load()
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        """A dataset at `filepath`, ending in `.npy`; `metadata` is kept for plugins."""
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> np.ndarray:
        """The array."""
        return np.load(self._filepath, allow_pickle=False)

    def save(self, data: np.ndarray) -> None:
        """Write the array, in place of what was there."""
        with replacing(self._filepath) as partial, partial.open("wb") as file:
            np.save(file, data, allow_pickle=False)

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
