"""Errors that a user can mend, as one message."""

import errno
import pickle

import h5py
import numpy as np
import pytest
from click import ClickException
from kedro.io import DatasetError
from kedro.pipeline import node
from kedro_datasets.json import JSONDataset
from kedro_datasets.pandas import CSVDataset
from kedro_datasets.pickle import PickleDataset

from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.datasets import KerasWeightsDataset, NpyDataset, RaggedDataset
from fsat_kedro.errors import InputError
from fsat_kedro.files import open_atomic
from fsat_kedro.hooks.errors import ReadableErrorHooks


class Catalog:
    """Stands for a catalog with `params:data_dir` and `params:spool_dir`."""

    def __init__(self, data_dir, spool_dir=None):
        self.values = {"params:data_dir": str(data_dir), "params:spool_dir": str(spool_dir)}

    def load(self, name):
        return self.values[name]


def error_of_saving(cause):
    error = DatasetError("Failed while saving data")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "cause",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EACCES, "Permission denied"),
        OSError("Not enough free space to write 80000000 bytes"),
    ],
)
def test_a_full_or_read_only_disk_is_named_with_the_remedy(tmp_path, cause):
    with pytest.raises(ClickException, match=r"GB free.*--only-missing-outputs") as error:
        ReadableErrorHooks().on_pipeline_error(error_of_saving(cause), Catalog(tmp_path))
    assert str(cause) in error.value.message


def test_a_full_disk_of_a_run_with_a_url_is_that_of_its_local_folder(tmp_path):
    error = error_of_saving(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(ClickException, match=f"{tmp_path} has .* GB free"):
        ReadableErrorHooks().on_pipeline_error(error, Catalog("s3://bucket/run", tmp_path))


def test_a_full_disk_of_a_worker_is_named_with_its_machine(tmp_path):
    error = error_of_saving(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(ClickException, match=r"^on \S+: .*No space left"):
        ReadableErrorHooks().on_worker_error(error, Catalog(tmp_path))


@pytest.mark.parametrize("cause", [ValueError("free space"), OSError(errno.ENOENT, "gone")])
@pytest.mark.parametrize("data_dir", ["/data", "s3://bucket/run"])
def test_another_error_stays_as_it_is(data_dir, cause):
    ReadableErrorHooks().on_pipeline_error(error_of_saving(cause), Catalog(data_dir))


def test_an_input_error_of_a_dataset_becomes_a_message_of_the_command(tmp_path):
    with pytest.raises(ClickException, match="train first"):
        ReadableErrorHooks().on_pipeline_error(
            error_of_saving(InputError("train first")), Catalog(tmp_path)
        )


def test_an_input_error_of_a_node_names_the_node():
    failed = node(len, "a", "b", name="count")
    with pytest.raises(ClickException, match="count: no clips"):
        ReadableErrorHooks().on_node_error(InputError("no clips"), failed)
    ReadableErrorHooks().on_node_error(ValueError("another"), failed)


def message_of(url, load):
    """Return the message for the error that loading raises."""
    with pytest.raises(DatasetError) as failed:
        load()
    with pytest.raises(ClickException) as error:
        ReadableErrorHooks().on_pipeline_error(failed.value, Catalog(url))
    pickle.dumps(error.value)  # It travels from worker to run.
    return error.value.message


@pytest.mark.parametrize("kind", [JSONDataset, CSVDataset, NpyDataset])
def test_a_missing_object_is_named_with_the_remedy(url, kind):
    message = message_of(url, kind(filepath=f"{url}/scores").load)
    assert url in message
    assert "does not exist" in message
    assert "/scores" in message
    assert "run the pipeline that makes" in message


class EndpointConnectionError(Exception):
    """An error like that of botocore, which is no OSError."""


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (EndpointConnectionError("Could not connect"), "cannot be used: Could not connect"),
        (PermissionError("Access Denied"), "cannot be read or written: Access Denied"),
    ],
)
def test_an_error_of_a_store_is_named_with_the_remedy(url, monkeypatch, error, problem):
    dataset = JSONDataset(filepath=f"{url}/scores.json")

    async def fail(*_, **__):
        raise error

    monkeypatch.setattr(type(dataset._fs), "_call_s3", fail)
    message = message_of(url, dataset.load)
    assert message.startswith(f"{url} {problem}. Set credentials")
    assert "docs/cluster.md" in message


def test_a_broken_object_is_no_error_of_the_store(url):
    with open_atomic(f"{url}/scores.json") as file:
        file.write(b"{")
    message = message_of(url, JSONDataset(filepath=f"{url}/scores.json").load)
    assert message.startswith(f"{url}/scores.json is damaged")


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-50])


def an_array(path):
    np.save(path / "file", np.ones(100))
    return NpyDataset(filepath=str(path / "file.npy")), path / "file.npy"


def a_pickle(path):
    (path / "file").write_bytes(pickle.dumps(list(range(1000))))
    return PickleDataset(filepath=str(path / "file")), path / "file"


def some_weights(path):
    with h5py.File(path / "file", "w") as file:
        file["layers"] = np.ones(1000)
    return KerasWeightsDataset(filepath=str(path / "file")), path / "file"


def a_ragged_array(path):
    RaggedDataset(filepath=str(path)).save(RaggedArray(np.ones((9, 2)), np.array([0, 4, 9])))
    return RaggedDataset(filepath=str(path)), path / "values.npy"


@pytest.mark.parametrize("make", [an_array, a_pickle, some_weights, a_ragged_array])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path, make):
    dataset, file = make(tmp_path)
    dataset.load()
    cut_off(file)
    message = message_of(tmp_path, dataset.load)
    path = dataset._describe()["filepath"]
    assert message.startswith(f"{path} is damaged, or of another version of the project: ")
    assert f"Remove {path}, then make it anew: `kedro run --only-missing-outputs`" in message


def test_a_missing_file_is_not_called_damaged(tmp_path):
    with pytest.raises(DatasetError) as error:
        JSONDataset(filepath=str(tmp_path / "scores.json")).load()
    ReadableErrorHooks().on_pipeline_error(error.value, Catalog(tmp_path))
