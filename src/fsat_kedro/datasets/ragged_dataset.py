"""Dataset for ragged arrays."""

from pathlib import Path
from typing import Any

import numpy as np
from kedro.io import AbstractDataset

from fsat_kedro.datasets.atomic import replacing
from fsat_kedro.ragged import RaggedArray


class RaggedDataset(AbstractDataset[RaggedArray, RaggedArray]):
    """A `RaggedArray` as a folder of two `.npy` files, `values` and `offsets`.

    Loading maps the values into memory, read-only: many processes share one copy.

    Example:
        In `catalog.yml`::

            train_mels:
              type: fsat_kedro.datasets.ragged_dataset.RaggedDataset
              filepath: data/04_feature/train_mels

        In Python::

            dataset = RaggedDataset(filepath="data/04_feature/train_mels")
            dataset.save(gather(arrays, spool_dir="data"))
            first = dataset.load()[0]
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        """A dataset at `filepath`, a folder; `metadata` is kept for plugins."""
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> RaggedArray:
        """The array, its values memory-mapped."""
        offsets = np.load(self._filepath / "offsets.npy")
        # An array without elements cannot be mapped.
        mmap_mode = "r" if offsets[-1] else None
        return RaggedArray(np.load(self._filepath / "values.npy", mmap_mode=mmap_mode), offsets)

    def save(self, data: RaggedArray) -> None:
        """Write the array, in place of what was there."""
        with replacing(self._filepath) as partial:
            partial.mkdir()
            np.save(partial / "values.npy", data.values)
            np.save(partial / "offsets.npy", data.offsets)

    def _exists(self) -> bool:
        return self._filepath.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
