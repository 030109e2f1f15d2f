"""Dataset for figures."""

from kedro_datasets import matplotlib


class MatplotlibDataset(matplotlib.MatplotlibDataset):
    """A `matplotlib` figure as an image, which is loaded as bytes.

    The dataset of the same name in kedro-datasets cannot load; the report embeds the images.

    Example:
        In `catalog.yml`::

            learning_curves:
              type: fsat_kedro.datasets.MatplotlibDataset
              filepath: data/08_reporting/learning_curves.png

        In Python::

            dataset = MatplotlibDataset(filepath="data/08_reporting/learning_curves.png")
            dataset.save(figure)
            image = dataset.load()
    """

    def load(self) -> bytes:
        """Load the bytes of the image."""
        return self._fs.cat_file(str(self._filepath))
