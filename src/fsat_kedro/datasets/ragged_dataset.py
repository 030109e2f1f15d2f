"""Dataset for ragged arrays."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
from kedro.io import AbstractDataset

from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.files import replacing

_PART = 64 * 2**20  # Bytes.


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

    PARTS = ("values.npy", "offsets.npy")
    """Its files, in the order in which they are written."""

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
            _save_in_parts(partial / "values.npy", data.values)
            np.save(partial / "offsets.npy", data.offsets)

    def _exists(self) -> bool:
        return self._filepath.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


def _save_in_parts(path: Path, values: np.ndarray) -> None:
    """Do as `np.save` does, but never hold more than a part of a memory-mapped array in memory."""
    length = max(1, _PART // max(1, values[:1].nbytes))
    with path.open("wb") as file:
        header = np.lib.format.header_data_from_array_1_0(values)
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(values), length):
            file.write(np.ascontiguousarray(values[start : start + length]).data)
            if isinstance(values, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
                values._mmap.madvise(mmap.MADV_DONTNEED)
