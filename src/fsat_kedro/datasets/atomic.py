"""Datasets whose file is either whole or as it was before.

They write beside the file and rename at the end, so that a killed run, a full disk or an object
that cannot be written leaves nothing that passes for whole. Apart from that they are the datasets
of kedro-datasets of the same name, for files on this machine.

Example:
    In `catalog.yml`::

        cv_scores:
          type: fsat_kedro.datasets.atomic.JSONDataset
          filepath: data/07_model_output/cv_scores.json

    In Python::

        dataset = JSONDataset(filepath="data/07_model_output/cv_scores.json")
        dataset.save({"map_at_3": 0.94})
        scores = dataset.load()
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from kedro_datasets import json, matplotlib, pandas, pickle


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or a folder to, which takes its place at the end.

    If writing fails, what was written is removed, and what was at `path` stays.
    """
    partial = path.with_name(f".partial.{path.name}")
    _remove(partial)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        if partial.is_dir():
            _remove(path)
        partial.replace(path)
    except BaseException:
        _remove(partial)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        # A folder whose name is hidden is not taken for whole while its files go one by one.
        hidden = path.with_name(f".removed.{path.name}")
        shutil.rmtree(hidden, ignore_errors=True)
        path.rename(hidden)
        shutil.rmtree(hidden)
    else:
        path.unlink(missing_ok=True)


class _AtomicSave:
    """Has the `save` of the next class write beside the file."""

    _filepath: PurePosixPath

    def save(self, data: Any) -> None:
        """Write the file, in place of what was there."""
        filepath = self._filepath
        with replacing(Path(filepath)) as partial:
            self._filepath = PurePosixPath(partial)
            try:
                super().save(data)
            finally:
                self._filepath = filepath


class CSVDataset(_AtomicSave, pandas.CSVDataset):
    """A `pandas.DataFrame` as CSV."""


class JSONDataset(_AtomicSave, json.JSONDataset):
    """What JSON can hold."""


class MatplotlibDataset(_AtomicSave, matplotlib.MatplotlibDataset):
    """A `matplotlib` figure as an image."""


class PickleDataset(_AtomicSave, pickle.PickleDataset):
    """Any object that can be pickled; only load what comes from where you trust."""
