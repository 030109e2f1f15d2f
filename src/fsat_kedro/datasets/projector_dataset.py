"""Dataset for the projector of the summary features."""

from io import BytesIO
from typing import Any

from kedro.io import AbstractDataset

from fsat_kedro.audio.projection import Projector, load_projector
from fsat_kedro.errors import InputError
from fsat_kedro.files import connected, exists, open_atomic


class ProjectorDataset(AbstractDataset[Projector, Projector]):
    """A projector as an `.npz` file or object: arrays only, nothing to unpickle.

    Args:
        filepath: path or url, ending in `.npz`.
        metadata: for hooks and plugins.

    Example:
        In `catalog.yml`::

            projector:
              type: fsat_kedro.datasets.ProjectorDataset
              filepath: data/06_models/projector.npz

        In Python::

            dataset = ProjectorDataset(filepath="data/06_models/projector.npz")
            dataset.save(fit_projector(features, n_components=350))
            components = dataset.load().transform(features)
    """

    def __init__(self, *, filepath: str, metadata: Any = None) -> None:
        self._filepath = filepath
        self.metadata = metadata

    def load(self) -> Projector:
        """Load the projector.

        Raises:
            InputError: it is missing or damaged.
        """
        remedy = "make it with `kedro run --pipelines features`, and then train"
        try:
            with connected(self._filepath) as (file_system, name):
                content = file_system.cat_file(name)
        except FileNotFoundError as error:
            raise InputError(f"there is no {self._filepath}: {remedy}") from error
        try:
            return load_projector(BytesIO(content))
        except InputError as error:
            raise InputError(f"{self._filepath} is damaged, {error}: {remedy}") from error

    def save(self, data: Projector) -> None:
        """Write the projector, in place of what was there."""
        with open_atomic(self._filepath) as file:
            data.save(file)

    def _exists(self) -> bool:
        return exists(self._filepath)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}
