"""Dataset for figures."""

from pathlib import Path

from kedro_datasets import matplotlib


class MatplotlibDataset(matplotlib.MatplotlibDataset):
    """A `matplotlib` figure as an image, which is loaded as bytes.

    The dataset of kedro-datasets of the same name loads nothing; the report embeds the images.

    Example:
        In `catalog.yml`::

            learning_curves:
              type: fsat_kedro.datasets.matplotlib_dataset.MatplotlibDataset
              filepath: data/08_reporting/learning_curves.png

        In Python::

            dataset = MatplotlibDataset(filepath="data/08_reporting/learning_curves.png")
            dataset.save(figure)
            image = dataset.load()
    """

    def load(self) -> bytes:
        """The content of the image's file."""
        return Path(self._filepath).read_bytes()
