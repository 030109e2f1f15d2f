import pytest
from kedro.io import MemoryDataset
from kedro_datasets.json import JSONDataset

from fsat_kedro.datasets import NpyDataset, RaggedDataset
from fsat_kedro.datasets.filepath import filepath_of


@pytest.mark.parametrize("path", ["/data/out/a", "s3://bucket/out/a", "gs://bucket/out/a"])
@pytest.mark.parametrize("kind", [NpyDataset, RaggedDataset, JSONDataset])
def test_the_path_or_url_of_a_dataset_is_known(kind, path):
    if path.startswith("gs") and kind is JSONDataset:
        pytest.skip("gcsfs is not installed")
    assert filepath_of(kind(filepath=path)) == path
    assert filepath_of(MemoryDataset()) is None
