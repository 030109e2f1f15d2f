"""A store on an S3 server of this machine, seen from one machine and from another."""

import os
import pickle
import socket
import time

import fsspec
import numpy as np
import pytest
from fsspec.config import conf
from kedro.io import DataCatalog
from s3_server import BUCKET, s3_server

from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.datasets.stored_dataset import StoredDataset, in_store, store_of
from fsat_kedro.errors import InputError
from fsat_kedro.hooks.mlflow import CheckpointHooks
from fsat_kedro.store import Store, folder_of, is_address

PARTS = ("values.npy", "offsets.npy")


@pytest.fixture(scope="module")
def s3():
    with s3_server() as settings:
        yield settings


@pytest.fixture
def address(s3, monkeypatch, request):
    """Where a test may write to."""
    monkeypatch.setitem(conf, "s3", s3)
    return f"s3://{BUCKET}/{abs(hash(request.node.name))}"


@pytest.fixture
def here(address, tmp_path):
    return Store(address, tmp_path / "here")


@pytest.fixture
def there(address, tmp_path):
    """The same store, on a machine with nothing in its folder."""
    return Store(address, tmp_path / "there")


def write(store, name, text):
    path = store.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def read(store, name, parts=()):
    path = store.folder / name
    assert store.fetch(path, parts)
    return [(path / part).read_text() for part in parts] if parts else path.read_text()


def folder(store, name, **files):
    for part, text in files.items():
        write(store, f"{name}/{part}.npy", text)
    return store.folder / name


def objects(store):
    files = fsspec.filesystem("s3", **conf["s3"], use_listings_cache=False)
    return {key.partition(store.address.removeprefix("s3://"))[2] for key in files.find(BUCKET)}


def test_what_one_machine_sends_another_fetches_once_and_again_when_it_is_another(here, there):
    here.send(write(here, "06_models/scores.json", "one"))
    assert objects(here) >= {"/06_models/scores.json"}
    assert read(there, "06_models/scores.json") == "one"
    copied = (there.folder / "06_models/scores.json").stat()
    assert read(there, "06_models/scores.json") == "one"
    assert (there.folder / "06_models/scores.json").stat() == copied
    here.send(write(here, "06_models/scores.json", "two"))
    assert read(there, "06_models/scores.json") == "two"


def test_what_is_removed_by_one_machine_is_there_for_none(here, there):
    here.send(write(here, "scores.json", "one"))
    read(there, "scores.json")
    here.remove(here.folder / "scores.json")
    assert not here.has(here.folder / "scores.json")
    assert not there.fetch(there.folder / "scores.json")
    assert not (there.folder / "scores.json").exists()
    assert here.saved_at(here.folder / "scores.json") is None


def test_a_folder_is_there_with_its_last_file_only(here, there, monkeypatch):
    mels = folder(here, "mels", values="old values", offsets="offsets")
    here.send(mels, PARTS)
    read(there, "mels", PARTS)
    put = here._files.put_file

    def fail_at_offsets(local, key):
        if key.endswith("offsets.npy"):
            raise KeyboardInterrupt
        put(local, key)

    monkeypatch.setattr(here._files, "put_file", fail_at_offsets)
    with pytest.raises(KeyboardInterrupt):
        here.send(folder(here, "mels", values="new values"), PARTS)
    assert not here.has(mels, PARTS)
    assert not there.fetch(there.folder / "mels", PARTS)
    assert not (there.folder / "mels").exists()


def test_a_folder_of_which_one_file_changed_is_fetched_again(here, there):
    here.send(folder(here, "mels", values="old", offsets="same"), PARTS)
    assert read(there, "mels", PARTS) == ["old", "same"]
    here.send(folder(here, "mels", values="new", offsets="same"), PARTS)
    assert read(there, "mels", PARTS) == ["new", "same"]


def test_what_was_saved_and_not_sent_is_not_taken_for_a_copy(here):
    here.send(write(here, "scores.json", "sent"))
    here.forget(here.folder / "scores.json")
    write(here, "scores.json", "killed before it was sent")
    assert read(here, "scores.json") == "sent"


def test_what_is_replaced_while_it_is_fetched_is_fetched_again(here, there, monkeypatch):
    here.send(folder(here, "mels", values="old", offsets="of old"), PARTS)
    get, calls = Store._get, []

    def replace_meanwhile(self, path, target, parts):
        get(self, path, target, parts)
        if not calls:
            here.send(folder(here, "mels", values="new", offsets="of new"), PARTS)
        calls.append(path)

    monkeypatch.setattr(Store, "_get", replace_meanwhile)
    assert read(there, "mels", PARTS) == ["new", "of new"]
    assert len(calls) == 2


def test_marks_of_one_machine_are_those_of_another(here, there):
    assert there.unfinished() == set()
    here.mark_unfinished({"mels", "scores"})
    there.mark_finished("mels")
    there.mark_finished("never marked")
    assert here.unfinished() == {"scores"}


def test_an_object_to_be_seen_is_there_as_long_as_it_is_asked_for(here):
    from fsat_kedro.store import is_there

    with here.visible_file() as seen:
        assert seen.startswith(here.address)
        assert is_there(seen)
    assert not is_there(seen)


@pytest.fixture
def other_run(there):
    """One of another machine, which writes mels and reads clips."""
    with there.claim({"mels"}, {"clips"}):
        yield


@pytest.mark.parametrize(
    ("written", "read"), [({"mels"}, set()), ({"clips"}, set()), ({"scores"}, {"mels"})]
)
def test_what_a_run_of_another_machine_has_is_told(here, other_run, written, read):
    with (
        pytest.raises(InputError, match=r"another run reads or writes \w+ in s3.*process \d+ on"),
        here.claim(written, read),
    ):
        pass
    assert len([name for name in objects(here) if "/.claims/" in name]) == 1


def test_runs_that_have_nothing_in_common_go_side_by_side_on_two_machines(here, other_run):
    with here.claim({"scores"}, {"clips"}):
        pass


def test_a_run_that_was_killed_keeps_nobody_out_for_long(here, other_run, monkeypatch):
    monkeypatch.setattr("fsat_kedro.store._CLAIM_SECONDS", 0)
    with here.claim({"mels"}, set()):
        pass


def test_a_run_says_again_and_again_that_it_lives(here, monkeypatch):
    monkeypatch.setattr("fsat_kedro.store._CLAIM_SECONDS", 0.1)
    put, times = here._files.pipe_file, []

    def count(*arguments):
        put(*arguments)
        times.append(arguments)

    monkeypatch.setattr(here._files, "pipe_file", count)
    with here.claim({"mels"}, set()):
        while len(times) < 3:
            time.sleep(0.01)
    assert not any("/.claims/" in name for name in objects(here))


def dataset(store, kind="npy_dataset.NpyDataset", name="mels"):
    return StoredDataset(
        dataset={"type": f"fsat_kedro.datasets.{kind}", "filepath": str(store.folder / name)},
        address=store.address,
        folder=str(store.folder),
    )


def test_ragged_arrays_are_mapped_from_the_copy_and_read_in_parts_elsewhere(
    here, there, monkeypatch
):
    arrays = RaggedArray(np.arange(12, dtype=np.float32).reshape(6, 2), np.array([0, 1, 4, 4, 6]))
    dataset(here, "ragged_dataset.RaggedDataset").save(arrays)
    loaded = dataset(there, "ragged_dataset.RaggedDataset").load()
    assert isinstance(loaded.values, np.memmap)
    assert str(loaded.values.filename).startswith(str(there.folder))
    readers = [pickle.loads(pickle.dumps(loaded.reader(index))) for index in range(4)]
    for read, array in zip(readers, arrays, strict=True):
        np.testing.assert_array_equal(read(), array)
    # A machine whose folder, at the same path, has something else.
    np.save(there.folder / "mels" / "values.npy", np.zeros((6, 2), np.float32))
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    for read, array in zip(readers, arrays, strict=True):
        np.testing.assert_array_equal(read(), array)


def test_a_catalog_is_kept_in_the_store_but_for_what_is_elsewhere(here, there):
    configuration = {
        "{split}_components": {
            "type": "fsat_kedro.datasets.npy_dataset.NpyDataset",
            # As in `data_dir=s3://bucket/`, with a slash.
            "filepath": f"{here.address}//04_feature/{{split}}_components.npy",
            "metadata": {"kedro-viz": {"layer": "feature"}},
        },
        "elsewhere": {
            "type": "fsat_kedro.datasets.npy_dataset.NpyDataset",
            "filepath": f"{here.folder}/elsewhere.npy",
        },
    }
    ours, theirs = (
        DataCatalog.from_config(in_store(configuration, store)) for store in (here, there)
    )
    ours.save("test_components", np.arange(3))
    ours.save("elsewhere", np.arange(4))
    assert theirs.exists("test_components")
    assert not theirs.exists("train_components")
    np.testing.assert_array_equal(theirs.load("test_components"), np.arange(3))
    assert objects(here) == objects(there) >= {"/04_feature/test_components.npy"}
    assert not any("elsewhere" in key for key in objects(here))
    assert store_of(theirs, ["test_components"]) == there
    assert store_of(theirs, ["elsewhere", "not there"]) is None


def test_what_nobody_made_is_told_by_its_address(here):
    with pytest.raises(Exception, match=r"there is no s3://.*mels: make it first"):
        dataset(here).load()


def test_folders_of_addresses_are_told_apart(tmp_path):
    assert folder_of("s3://bucket/a/b/", tmp_path) == tmp_path / "s3" / "bucket" / "a" / "b"
    assert is_address("s3://bucket")
    assert not is_address("/data/out")


def error_of(address, tmp_path):
    with pytest.raises(InputError) as error, Store(address, tmp_path).visible_file():
        pass
    return str(error.value)


def test_a_bucket_that_is_not_there_is_told(address, tmp_path):
    told = error_of("s3://no-such-bucket/run", tmp_path)
    assert told.startswith("s3://no-such-bucket/run is not there (The specified bucket")
    assert "make the bucket first" in told


def test_a_store_that_cannot_be_reached_is_told(address, s3, tmp_path, monkeypatch):
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    once = {"retries": {"max_attempts": 0}}
    nowhere = {**s3, "endpoint_url": "http://127.0.0.1:9", "config_kwargs": once}
    monkeypatch.setitem(conf, "s3", nowhere)
    told = error_of(address, tmp_path)
    assert "does not answer: Could not connect" in told
    assert "~/.config/fsspec" in told


def test_missing_credentials_are_told(address, s3, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(conf, "s3", {"endpoint_url": s3["endpoint_url"]})
    assert "does not answer: Unable to locate credentials" in error_of(address, tmp_path)


def test_refused_access_is_told(address, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(Store(address, tmp_path)._files, "pipe_file", refuse)
    assert "may not be read or written: Access Denied" in error_of(address, tmp_path)


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("nowhere://bucket", "Protocol not known: nowhere"),
        ("gs://bucket", "Please install gcsfs"),
    ],
)
def test_a_protocol_that_nobody_speaks_is_told(address, problem, tmp_path):
    assert f"{address} cannot be used: {problem}" in error_of(address, tmp_path)


def test_without_the_package_for_s3_its_name_is_told(tmp_path, monkeypatch):
    def missing(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsat_kedro.store.url_to_fs", missing)
    assert "pip install" in error_of("s3://bucket", tmp_path)


def test_training_goes_on_where_its_state_cannot_be_sent(address, tmp_path, caplog):
    hooks = CheckpointHooks()
    hooks._store = Store("s3://no-such-bucket/run", tmp_path)
    hooks._send(write(hooks._store, "mel.checkpoint.npz", "state"))
    assert "on this machine only: s3://no-such-bucket/run is not there" in caplog.text
