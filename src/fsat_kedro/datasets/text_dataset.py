"""Dataset for text."""

from kedro_datasets import text

from fsat_kedro.files import AtomicSave


class TextDataset(AtomicSave, text.TextDataset):
    """A string as a file, in UTF-8 whatever the machine's encoding.

    The dataset of kedro-datasets of the same name, but saved whole or not at all.

    Example:
        In `catalog.yml`::

            report:
              type: fsat_kedro.datasets.text_dataset.TextDataset
              filepath: data/08_reporting/report.html

        In Python::

            dataset = TextDataset(filepath="data/08_reporting/report.html")
            dataset.save("<!doctype html>…")
    """

    DEFAULT_FS_ARGS = {  # noqa: RUF012, as in the class above.
        "open_args_load": {"mode": "r", "encoding": "utf-8"},
        "open_args_save": {"mode": "w", "encoding": "utf-8"},
    }
