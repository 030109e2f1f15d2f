"""Dataset for pickled objects."""

from kedro_datasets import pickle

from fsat_kedro.files import AtomicSave


class PickleDataset(AtomicSave, pickle.PickleDataset):
    """Any object that can be pickled; load only what comes from where you trust.

    The dataset of kedro-datasets of the same name, but saved whole or not at all.

    Example:
        In `catalog.yml`::

            projector:
              type: fsat_kedro.datasets.pickle_dataset.PickleDataset
              filepath: data/06_models/projector.pkl

        In Python::

            dataset = PickleDataset(filepath="data/06_models/projector.pkl")
            dataset.save(projector)
    """
