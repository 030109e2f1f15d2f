"""Dataset for the weights of a Keras model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from fsat_kedro.files import exists, local_copy, replacing

if TYPE_CHECKING:  # Keras takes seconds to import, and every command reads the catalog.
    import keras


class KerasWeightsDataset(AbstractDataset["keras.Model", Path]):
    """The weights of a Keras model as a `.weights.h5` file or object.

    Saving takes a model; loading gives the local path of the weights. To get a model back, build
    its network and call `load_weights` with the path.

    Args:
        filepath: path or url, ending in `.weights.h5`.
        cache_dir: folder for the copy of an object in a store.
        metadata: for hooks and plugins.

    Example:
        In `catalog.yml`::

            mel_weights:
              type: fsat_kedro.datasets.KerasWeightsDataset
              filepath: data/06_models/mel.weights.h5

        In Python::

            dataset = KerasWeightsDataset(filepath="data/06_models/mel.weights.h5")
            dataset.save(model)
            model.load_weights(dataset.load())
    """

    def __init__(
        self, *, filepath: str, cache_dir: str = "data/cache", metadata: Any = None
    ) -> None:
        self._filepath = filepath
        self._cache_dir = cache_dir
        self.metadata = metadata

    def load(self) -> Path:
        """Return the path of the file, or of a current copy of the object."""
        path = local_copy(self._filepath, self._cache_dir)
        if not path.is_file():
            raise FileNotFoundError(f"no weights at {path}")
        # Opened once, so that a file that was cut off is an error of this dataset.
        import h5py

        with h5py.File(path):
            return path

    def save(self, data: keras.Model) -> None:
        """Write the model's weights, in place of what was there."""
        with replacing(self._filepath, self._cache_dir) as partial:
            data.save_weights(partial, overwrite=True)

    def _exists(self) -> bool:
        return exists(self._filepath)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}
