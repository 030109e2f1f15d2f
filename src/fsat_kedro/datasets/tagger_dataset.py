"""Dataset for a trained ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset
from pydantic import ValidationError

from fsat_kedro.files import replacing

if TYPE_CHECKING:  # librosa takes a second to import, and the catalog is read by every command.
    from fsat_kedro.inference.tagger import Tagger, TaggerSettings


class TaggerDataset(AbstractDataset["TaggerSettings", "Tagger"]):
    """A trained ensemble in the folder of its weights.

    What is saved are the settings, beside all else that a training leaves there; what is loaded
    is a `Tagger` of it all.

    Example:
        In `catalog.yml`::

            tagger:
              type: fsat_kedro.datasets.tagger_dataset.TaggerDataset
              filepath: data/06_models/tagger.json

        In Python::

            tagger = TaggerDataset(filepath="data/06_models/tagger.json").load()
            tagger.tag([Sound("bark.wav", "sounds/bark.wav")])
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        """An ensemble whose settings are at `filepath`; `metadata` is kept for plugins."""
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Tagger:
        """The ensemble."""
        from fsat_kedro.inference.tagger import Tagger

        return Tagger.load(self._filepath.parent)

    def beside(self) -> list[Path]:
        """The other files of the ensemble; none where `load` will say what is wrong."""
        from fsat_kedro.inference.tagger import TaggerSettings, model_files

        try:
            settings = TaggerSettings.model_validate_json(self._filepath.read_text())
        except ValidationError:
            return []
        names = set(model_files(settings.n_folds)) - {self._filepath.name}
        return [self._filepath.parent / name for name in sorted(names)]

    def save(self, data: TaggerSettings) -> None:
        """Write the settings, in place of what was there."""
        with replacing(self._filepath) as partial:
            partial.write_text(data.model_dump_json(indent=2) + "\n")

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
