"""Dataset for a trained ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from fsat_kedro.files import exists, is_url, local_copy, local_path, open_atomic

if TYPE_CHECKING:  # librosa takes a second to import, and every command reads the catalog.
    from fsat_kedro.inference.tagger import Tagger, TaggerSettings


class TaggerDataset(AbstractDataset["TaggerSettings", "Tagger"]):
    """A trained ensemble in the folder of its weights.

    Saving writes the settings, and the digests of the other files that training leaves there;
    loading gives a `Tagger` made of them all, if they are the same.

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
        if is_url(self._filepath):
            for file in self.parts().values():
                self._local_part(file)
        return local_path(self._filepath, self._cache_dir).parent

    def parts(self) -> dict[str, str]:
        """Return the other files that loading reads, by the names of their datasets.

        Raises:
            InputError: the settings are missing, damaged, or of another version of the project.
        """
        from fsat_kedro.inference.tagger import parts, read_manifest

        manifest = read_manifest(local_copy(self._filepath, self._cache_dir).parent)
        return parts(manifest.n_folds, manifest.model.stages[-1])

    def require_same(self, names: set[str]) -> None:
        """Raise an error if parts are not those that the ensemble was described with.

        Args:
            names: of their datasets.

        Raises:
            InputError: a part is missing, damaged, or of another training.
        """
        from fsat_kedro.inference.tagger import read_manifest

        files = [file for name, file in self.parts().items() if name in names]
        folder = local_path(self._filepath, self._cache_dir).parent
        for file in files:
            self._local_part(file)
        read_manifest(folder).require_same(folder, files)

    def save(self, data: TaggerSettings) -> None:
        """Write the settings and the digests of the parts, in place of what was there."""
        from fsat_kedro.inference.tagger import Manifest, digest, parts

        files = parts(data.n_folds, data.model.stages[-1]).values()
        digests = {file: digest(self._local_part(file)) for file in files}
        manifest = Manifest(**{**data.model_dump(), "digests": digests})
        with open_atomic(self._filepath) as file:
            file.write((manifest.model_dump_json(indent=2) + "\n").encode())

    def _local_part(self, file: str) -> Path:
        folder, slash, _ = self._filepath.rpartition("/")
        return local_copy(folder + slash + file, self._cache_dir)

    def _exists(self) -> bool:
        return exists(self._filepath)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}
