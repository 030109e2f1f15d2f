"""Dataset for ragged arrays."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
from kedro.io import AbstractDataset

from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.files import exists, is_url, local_copy, open_atomic, remove, replacing

_CHUNK_BYTES = 64 * 2**20


class RaggedDataset(AbstractDataset[RaggedArray, RaggedArray]):
    """A `RaggedArray` as a folder of two `.npy` files or objects, `values` and `offsets`.

    Loading maps the values into memory, read-only: many processes share one copy. The offsets are
    written last and removed first, so that an array is whole or does not exist.

    Args:
        filepath: path or url of the folder.
        cache_dir: folder for copies of objects in a store.
        metadata: for hooks and plugins.

    Example:
        In `catalog.yml`::

            train_mels:
              type: fsat_kedro.datasets.RaggedDataset
              filepath: data/04_feature/train_mels

        In Python::

            dataset = RaggedDataset(filepath="data/04_feature/train_mels")
            dataset.save(gather(arrays, spool_dir="data"))
            first = dataset.load()[0]
    """

    def __init__(
        self, *, filepath: str, cache_dir: str = "data/cache", metadata: Any = None
    ) -> None:
        self._filepath = filepath
        self._values, self._offsets = f"{filepath}/values.npy", f"{filepath}/offsets.npy"
        self._cache_dir = cache_dir
        self.metadata = metadata

    def load(self) -> RaggedArray:
        """Load the array, its values memory-mapped from the file or a local copy of the object."""
        offsets = np.load(local_copy(self._offsets, self._cache_dir))
        path = local_copy(self._values, self._cache_dir)
        # An array without elements cannot be mapped.
        values = np.load(path, mmap_mode="r" if offsets[-1] else None)
        return RaggedArray(values, offsets, self._values if is_url(self._values) else None)

    def save(self, data: RaggedArray) -> None:
        """Write the array, in place of what was there."""
        if is_url(self._filepath):
            remove(self._offsets)
            with replacing(self._values, self._cache_dir) as partial:
                _save_in_chunks(partial, data.values)
            with open_atomic(self._offsets) as file:
                np.save(file, data.offsets)
            return
        with replacing(self._filepath) as partial:
            partial.mkdir()
            _save_in_chunks(partial / "values.npy", data.values)
            np.save(partial / "offsets.npy", data.offsets)

    def _exists(self) -> bool:
        return exists(self._offsets)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}


def _save_in_chunks(path: Path, values: np.ndarray) -> None:
    """Write an `.npy` file as `np.save` does, with one chunk of a mapped array in memory."""
    length = max(1, _CHUNK_BYTES // max(1, values[:1].nbytes))
    with path.open("wb") as file:
        header = np.lib.format.header_data_from_array_1_0(values)
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(values), length):
            file.write(np.ascontiguousarray(values[start : start + length]).data)
            if isinstance(values, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
                # NumPy's stubs lack the attribute.
                values._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
