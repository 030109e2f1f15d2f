"""Dataset for JSON."""

from kedro_datasets import json

from fsat_kedro.files import AtomicSave


class JSONDataset(AtomicSave, json.JSONDataset):
    """What JSON can hold, as a file.

    The dataset of kedro-datasets of the same name, but saved whole or not at all.

    Example:
        In `catalog.yml`::

            cv_scores:
              type: fsat_kedro.datasets.json_dataset.JSONDataset
              filepath: data/07_model_output/cv_scores.json

        In Python::

            dataset = JSONDataset(filepath="data/07_model_output/cv_scores.json")
            dataset.save({"map_at_3": 0.94})
    """
