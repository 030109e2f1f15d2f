"""Dataset for the weights of a Keras model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from fsat_kedro.files import replacing

if TYPE_CHECKING:  # Keras takes seconds to import, and the catalog is read by every command.
    import keras


class KerasWeightsDataset(AbstractDataset["keras.Model", Path]):
    """The weights of a Keras model as a `.weights.h5` file.

    What is saved is a model; what is loaded is the file's path. Weights alone make no model:
    whoever needs one builds the network and calls `load_weights` with the path.

    Example:
        In `catalog.yml`::

            mel_weights:
              type: fsat_kedro.datasets.keras_weights_dataset.KerasWeightsDataset
              filepath: data/06_models/mel.weights.h5

        In Python::

            dataset = KerasWeightsDataset(filepath="data/06_models/mel.weights.h5")
            dataset.save(model)
            model.load_weights(dataset.load())
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        """A dataset at `filepath`, ending in `.weights.h5`; `metadata` is kept for plugins."""
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Path:
        """The path of the file."""
        if not self._filepath.is_file():
            raise FileNotFoundError(f"no weights at {self._filepath}")
        return self._filepath

    def save(self, data: keras.Model) -> None:
        """Write the model's weights, in place of what was there."""
        with replacing(self._filepath) as partial:
            data.save_weights(partial, overwrite=True)

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
