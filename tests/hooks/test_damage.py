"""Damage to outputs between two runs."""

import os

import numpy as np
import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import node, pipeline
from kedro_datasets.pandas import CSVDataset

from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.datasets import RaggedDataset
from fsat_kedro.errors import InputError
from fsat_kedro.hooks.damage import DamageHooks
from fsat_kedro.hooks.marks import Marks
from fsat_kedro.hooks.outputs import OutputHooks

HISTORY = pd.DataFrame({"epoch": [1, 2], "loss": [0.5, 0.25]})


@pytest.fixture
def catalog(tmp_path):
    return DataCatalog(
        {
            "history": CSVDataset(filepath=str(tmp_path / "history.csv")),
            "mels": RaggedDataset(filepath=str(tmp_path / "mels")),
            "params:data_dir": MemoryDataset(str(tmp_path)),
        }
    )


@pytest.fixture
def hooks(catalog):
    hooks = DamageHooks()
    hooks.before_pipeline_run(
        pipeline([node(lambda: 0, None, ["history", "mels", "in_memory"])]), catalog
    )
    return hooks


def save(catalog, hooks, name, data):
    catalog.save(name, data)
    hooks.after_dataset_saved(name)


def test_a_history_that_was_cut_off_is_noticed(tmp_path, catalog, hooks):
    path = tmp_path / "history.csv"
    save(catalog, hooks, "history", HISTORY)
    hooks.before_dataset_loaded("history")
    path.write_bytes(path.read_bytes()[:-3])  # It still loads, with 0.2 for 0.25.
    catalog.load("history")
    with pytest.raises(InputError, match="is not as it was saved") as error:
        hooks.before_dataset_loaded("history")
    assert str(error.value).startswith(f"{path} is")
    assert "--only-missing-outputs" in str(error.value)
    save(catalog, hooks, "history", HISTORY)
    hooks.before_dataset_loaded("history")


def test_a_changed_byte_is_noticed(tmp_path, catalog, hooks):
    save(catalog, hooks, "history", HISTORY)
    path = tmp_path / "history.csv"
    path.write_bytes(path.read_bytes().replace(b"0.25", b"0.75"))
    with pytest.raises(InputError, match="is not as it was saved"):
        hooks.before_dataset_loaded("history")


@pytest.mark.parametrize("harm", ["remove", "shorten"])
def test_a_folder_is_checked_file_by_file(tmp_path, catalog, hooks, harm):
    save(catalog, hooks, "mels", RaggedArray(np.ones((9, 2)), np.array([0, 4, 9])))
    hooks.before_dataset_loaded("mels")
    if harm == "remove":
        (tmp_path / "mels" / "offsets.npy").unlink()
    else:
        os.truncate(tmp_path / "mels" / "values.npy", 200)
    with pytest.raises(InputError, match="is not as it was saved"):
        hooks.before_dataset_loaded("mels")


def test_what_no_run_saved_or_what_is_missing_is_left_to_the_dataset(tmp_path, catalog, hooks):
    HISTORY.to_csv(tmp_path / "history.csv")
    hooks.before_dataset_loaded("history")
    save(catalog, hooks, "history", HISTORY)
    (tmp_path / "history.csv").unlink()
    hooks.before_dataset_loaded("history")
    hooks.before_dataset_loaded("params:data_dir")
    hooks.after_dataset_saved("in_memory")


def test_an_object_store_needs_no_records(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = "memory://bucket/run"
    history = CSVDataset(filepath=f"{url}/history.csv")
    catalog = DataCatalog({"history": history, "params:data_dir": MemoryDataset(url)})
    hooks = DamageHooks()
    hooks.before_pipeline_run(pipeline([node(lambda: 0, None, "history")]), catalog)
    save(catalog, hooks, "history", HISTORY)
    hooks.before_dataset_loaded("history")
    assert list(tmp_path.iterdir()) == []


def test_an_output_is_on_the_disk_before_it_counts_as_finished(
    tmp_path, catalog, hooks, monkeypatch
):
    synced = []
    fsync = os.fsync

    def spy(descriptor):
        synced.append((os.fstat(descriptor).st_ino, Marks(str(tmp_path)).unfinished()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    Marks(str(tmp_path)).mark_unfinished({"history"})
    save(catalog, hooks, "history", HISTORY)
    file, folder = ((tmp_path / name).stat().st_ino for name in ("history.csv", "."))
    assert synced[:2] == [(file, {"history"}), (folder, {"history"})]


def test_the_project_records_an_output_before_it_clears_the_mark():
    from kedro.framework.hooks.manager import _create_hook_manager, _register_hooks

    from fsat_kedro.settings import HOOKS

    manager = _create_hook_manager()
    _register_hooks(manager, HOOKS)
    calls = [call.plugin for call in manager.hook.after_dataset_saved.get_hookimpls()][::-1]
    order = [type(hooks) for hooks in calls]
    assert order.index(DamageHooks) < order.index(OutputHooks)
