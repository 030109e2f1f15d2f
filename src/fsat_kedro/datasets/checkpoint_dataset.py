"""Dataset for the checkpoint of a training stage."""

from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from fsat_kedro import files
from fsat_kedro.modelling.checkpoint import Checkpoint


class CheckpointDataset(AbstractDataset[NoReturn, Checkpoint]):
    """The file of a stage's checkpoint, which the stage reads and writes while it trains.

    What is loaded is a `Checkpoint`, whether the file exists or not. It is an input of the node,
    so that the catalog says where the file is; nothing is saved by the catalog.

    Example:
        In `catalog.yml`::

            mel_checkpoint:
              type: fsat_kedro.datasets.checkpoint_dataset.CheckpointDataset
              filepath: data/06_models/mel.checkpoint.npz

        In Python::

            checkpoint = CheckpointDataset(filepath="data/06_models/mel.checkpoint.npz").load()
            checkpoint.save(fingerprint, state)
            state = checkpoint.load(fingerprint)
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        """Name the file, by its path or url; `metadata` is kept for plugins."""
        self._filepath = filepath if files.is_url(filepath) else Path(filepath)
        self.metadata = metadata

    def load(self) -> Checkpoint:
        """Return the checkpoint, which may not exist yet."""
        return Checkpoint(self._filepath)

    def save(self, data: NoReturn) -> NoReturn:
        """Raise an error: only a stage that trains writes its checkpoint."""
        raise DatasetError("a checkpoint is written by the stage that trains, not by the catalog")

    def _exists(self) -> bool:
        return files.exists(self._filepath)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
