"""Dataset for tables."""

from kedro_datasets import pandas

from fsat_kedro.files import AtomicSave


class CSVDataset(AtomicSave, pandas.CSVDataset):
    """A `pandas.DataFrame` as CSV.

    The dataset of kedro-datasets of the same name, but saved whole or not at all.

    Example:
        In `catalog.yml`::

            submission:
              type: fsat_kedro.datasets.csv_dataset.CSVDataset
              filepath: data/07_model_output/submission.csv

        In Python::

            dataset = CSVDataset(filepath="data/07_model_output/submission.csv")
            dataset.save(pd.DataFrame({"fname": ["a.wav"], "label": ["Bark"]}))
    """
