"""Dataset for a trained ensemble."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from fsat_kedro.files import exists, is_url, local_copy, open_atomic

if TYPE_CHECKING:  # librosa takes a second to import, and every command reads the catalog.
    from fsat_kedro.inference.tagger import Tagger, TaggerSettings


class TaggerDataset(AbstractDataset["TaggerSettings", "Tagger"]):
    """A trained ensemble in the folder of its weights.

    Saving writes the settings, beside the other files that training leaves there; loading gives
    a `Tagger` made of them all.

    Args:
        filepath: path or url of the settings.
        cache_dir: folder for copies of objects in a store.
        metadata: for hooks and plugins.

    Example:
        In `catalog.yml`::

            tagger:
              type: fsat_kedro.datasets.TaggerDataset
              filepath: data/06_models/tagger.json

        In Python::

            tagger = TaggerDataset(filepath="data/06_models/tagger.json").load()
            tagger.tag([Sound("bark.wav", "sounds/bark.wav")])
    """

    def __init__(
        self, *, filepath: str, cache_dir: str = "data/cache", metadata: Any = None
    ) -> None:
        self._filepath = filepath
        self._cache_dir = cache_dir
        self.metadata = metadata

    def load(self) -> Tagger:
        """Load the ensemble."""
        from fsat_kedro.inference.tagger import Tagger

        return Tagger.load(self.local_folder())

    def local_folder(self) -> Path:
        """Return the local folder of the ensemble; it holds current copies of a store's objects.

        Raises:
            InputError: a part of the ensemble is not in the store.
        """
        settings = local_copy(self._filepath, self._cache_dir)
        if is_url(self._filepath):
            from fsat_kedro.inference.tagger import model_files

            folder = self._filepath.rpartition("/")[0]
            for name in model_files(json.loads(settings.read_text()).get("n_folds", 0)):
                local_copy(f"{folder}/{name}", self._cache_dir)
        return settings.parent

    def save(self, data: TaggerSettings) -> None:
        """Write the settings, in place of what was there."""
        with open_atomic(self._filepath) as file:
            file.write((data.model_dump_json(indent=2) + "\n").encode())

    def _exists(self) -> bool:
        return exists(self._filepath)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}
