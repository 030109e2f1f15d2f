"""Formats on disk that Kedro has no dataset for: one class a file."""

from fsat_kedro.datasets.keras_weights_dataset import KerasWeightsDataset
from fsat_kedro.datasets.matplotlib_dataset import MatplotlibDataset
from fsat_kedro.datasets.npy_dataset import NpyDataset
from fsat_kedro.datasets.projector_dataset import ProjectorDataset
from fsat_kedro.datasets.ragged_dataset import RaggedDataset
from fsat_kedro.datasets.table_dataset import TableDataset
from fsat_kedro.datasets.tagger_dataset import TaggerDataset

__all__ = [
    "KerasWeightsDataset",
    "MatplotlibDataset",
    "NpyDataset",
    "ProjectorDataset",
    "RaggedDataset",
    "TableDataset",
    "TaggerDataset",
]
