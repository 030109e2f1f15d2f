"""Saved data comes back, from a folder as from a store; a broken-off save leaves nothing whole."""

import json
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kedro.config import OmegaConfigLoader
from kedro.io import DataCatalog, DatasetError
from matplotlib.figure import Figure

from fsat_kedro import files
from fsat_kedro.audio.projection import fit_projector
from fsat_kedro.data.ragged import RaggedArray, gather
from fsat_kedro.datasets import (
    KerasWeightsDataset,
    MatplotlibDataset,
    NpyDataset,
    ProjectorDataset,
    RaggedDataset,
    TaggerDataset,
)
from fsat_kedro.errors import InputError
from fsat_kedro.inference.tagger import TaggerSettings, parts
from fsat_kedro.settings import CONFIG_LOADER_ARGS

CONF = Path(__file__).parents[2] / "conf"


class Unsaveable:
    """Stands for values whose writing fails, as on a full disk."""

    def __array__(self, *args, **kwargs):
        raise OSError("no space left")


@pytest.fixture(params=["local", "s3"])
def root(request, tmp_path):
    """A folder or a url."""
    if request.param == "s3":
        return request.getfixturevalue("url")
    return str(tmp_path / "data")


def ragged(*lengths, start=0):
    n_values = sum(lengths)
    values = np.arange(start, start + 2 * n_values, dtype=np.float32).reshape(n_values, 2)
    return RaggedArray(values, np.cumsum([0, *lengths]))


def assert_same(ours, expected):
    assert ours.values.dtype == expected.values.dtype
    np.testing.assert_array_equal(ours.values, expected.values)
    np.testing.assert_array_equal(ours.offsets, expected.offsets)


# The catalog


def catalog_at(data_dir, cache_dir):
    """The project's catalog, on a machine with `cache_dir`."""
    parameters = {"data_dir": data_dir, "cache_dir": str(cache_dir)}
    loader = OmegaConfigLoader(
        conf_source=str(CONF), runtime_params=parameters, **CONFIG_LOADER_ARGS
    )
    return DataCatalog.from_config(loader["catalog"])


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("submission", pd.DataFrame({"fname": ["a.wav"], "label": ["Bark"]})),
        ("cv_scores", {"map_at_3": 0.5}),
        ("train_clips", pd.DataFrame({"fname": ["a.wav"], "status": ["ok"]})),
        ("report", "\u25b6 Gl\xf6ckchen"),
        ("test_components", np.arange(6, dtype=np.float32).reshape(2, 3)),
        ("train_mels", ragged(3, 0, 2)),
    ],
)
def test_a_dataset_of_the_catalog_is_read_by_another_machine(root, tmp_path, name, data):
    ours, theirs = (catalog_at(root, tmp_path / machine) for machine in ("here", "there"))
    assert not theirs.exists(name)
    ours.save(name, data)
    assert theirs.exists(name)
    loaded = theirs.load(name)
    if isinstance(data, RaggedArray):
        assert_same(loaded, data)
    elif isinstance(data, pd.DataFrame):
        pd.testing.assert_frame_equal(loaded, data)
    else:
        np.testing.assert_array_equal(loaded, data)
    with files.connected(root) as (file_system, folder):
        assert file_system.find(folder)


def test_a_change_by_one_machine_is_seen_by_another(url, tmp_path):
    ours, theirs = (catalog_at(url, tmp_path / machine) for machine in ("here", "there"))
    for value in (1, 2):
        ours.save("cv_scores", {"map_at_3": value})
        ours.save("test_components", np.full(3, value))
        ours.save("train_mels", ragged(2, 1, start=value))
        assert theirs.load("cv_scores") == {"map_at_3": value}
        assert theirs.load("test_components").tolist() == [value] * 3
        assert_same(theirs.load("train_mels"), ragged(2, 1, start=value))
    files.remove(f"{url}/07_model_output/cv_scores.json")
    assert not theirs.exists("cv_scores")


def test_the_report_is_saved_in_utf_8_whatever_the_machine_prefers(tmp_path):
    script = (
        "import sys, test_datasets\n"
        "catalog = test_datasets.catalog_at(sys.argv[1], sys.argv[1])\n"
        "catalog.save('report', '\\u25b6 Gl\\xf6ckchen')\n"
        "assert catalog.load('report') == '\\u25b6 Gl\\xf6ckchen'\n"
    )
    environment = {
        **os.environ,
        **{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        "PYTHONPATH": str(Path(__file__).parent),
    }
    command = [sys.executable, "-c", script, str(tmp_path)]
    subprocess.run(command, env=environment, check=True)
    report = tmp_path / "08_reporting" / "report.html"
    assert report.read_text("utf-8") == "▶ Glöckchen"


# Ragged arrays


@pytest.mark.parametrize("lengths", [(3, 1, 2), (0, 4, 0), (0, 0)])
def test_a_ragged_array_comes_back(root, tmp_path, lengths):
    dataset = RaggedDataset(filepath=f"{root}/new/mels", cache_dir=str(tmp_path / "cache"))
    assert not dataset.exists()
    dataset.save(ragged(*lengths))
    assert dataset.exists()
    assert_same(dataset.load(), ragged(*lengths))
    assert [item.shape for item in dataset.load()] == [(length, 2) for length in lengths]


def test_a_ragged_array_is_loaded_memory_mapped_and_read_only(root, tmp_path):
    dataset = RaggedDataset(filepath=f"{root}/mels", cache_dir=str(tmp_path / "cache"))
    dataset.save(ragged(3, 1))
    values = dataset.load().values
    assert isinstance(values, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        values[0, 0] = 1


def test_a_gathered_array_is_saved(tmp_path):
    dataset = RaggedDataset(filepath=str(tmp_path / "mels"))
    dataset.save(gather(iter(ragged(3, 0, 2)), spool_dir=tmp_path))
    assert_same(dataset.load(), ragged(3, 0, 2))


def test_a_ragged_array_replaces_another_even_the_one_it_was_loaded_from(tmp_path):
    dataset = RaggedDataset(filepath=str(tmp_path / "mels"))
    dataset.save(ragged(5, 5))
    dataset.save(ragged(1, 2, start=7))
    assert_same(dataset.load(), ragged(1, 2, start=7))
    dataset.save(dataset.load())
    assert_same(dataset.load(), ragged(1, 2, start=7))
    assert [path.name for path in tmp_path.iterdir()] == ["mels"]


def test_a_ragged_save_that_breaks_off_looks_like_nothing_and_can_be_repeated(tmp_path):
    dataset = RaggedDataset(filepath=str(tmp_path / "mels"))
    with pytest.raises(DatasetError, match="no space left"):
        dataset.save(RaggedArray(ragged(2).values, Unsaveable()))
    assert not dataset.exists()
    dataset.save(ragged(2))
    assert_same(dataset.load(), ragged(2))
    assert [path.name for path in tmp_path.iterdir()] == ["mels"]


def test_a_ragged_save_that_breaks_off_leaves_the_old_content(tmp_path):
    dataset = RaggedDataset(filepath=str(tmp_path / "mels"))
    dataset.save(ragged(3, 1))
    with pytest.raises(DatasetError, match="no space left"):
        dataset.save(RaggedArray(ragged(2).values, Unsaveable()))
    assert_same(dataset.load(), ragged(3, 1))


def test_a_ragged_upload_that_breaks_off_looks_like_nothing(url, tmp_path, monkeypatch):
    ours, theirs = (
        RaggedDataset(filepath=f"{url}/mels", cache_dir=str(tmp_path / machine))
        for machine in ("here", "there")
    )
    ours.save(ragged(3, 1))
    assert_same(theirs.load(), ragged(3, 1))
    with monkeypatch.context() as patch, files.connected(url) as (store, _):

        def break_off(*_):
            raise KeyboardInterrupt

        # The values are in the store, the offsets are not.
        patch.setattr(store, "pipe_file", break_off)
        with pytest.raises(KeyboardInterrupt):
            ours.save(ragged(2, start=7))
    assert not theirs.exists()
    with pytest.raises(DatasetError, match=r"offsets\.npy does not exist"):
        theirs.load()
    ours.save(ragged(2, start=7))
    assert_same(theirs.load(), ragged(2, start=7))


def test_other_machines_read_items_from_the_store(url, tmp_path, monkeypatch):
    arrays = ragged(1, 3, 0, 2)
    dataset = RaggedDataset(filepath=f"{url}/mels", cache_dir=str(tmp_path))
    dataset.save(arrays)
    loaded = dataset.load()
    assert str(loaded.values.filename).startswith(str(tmp_path))
    readers = [pickle.loads(pickle.dumps(loaded.reader(index))) for index in range(4)]
    for read, array in zip(readers, arrays, strict=True):
        np.testing.assert_array_equal(read(), array)
    # A machine that has something else at the same path.
    np.save(loaded.values.filename, np.zeros((6, 2), np.float32))
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    for read, array in zip(readers, arrays, strict=True):
        np.testing.assert_array_equal(read(), array)


# NumPy arrays


@pytest.mark.parametrize(
    "array",
    [
        np.array([[1.5, np.nan], [np.inf, -0.0]], np.float32),
        np.array([3, 0, 1], np.int64),
        np.zeros((0, 350), np.float32),
    ],
)
def test_an_array_comes_back(root, array):
    dataset = NpyDataset(filepath=f"{root}/new/array.npy")
    assert not dataset.exists()
    dataset.save(array)
    assert dataset.exists()
    assert dataset.load().dtype == array.dtype
    np.testing.assert_array_equal(dataset.load(), array)


def test_an_array_replaces_another(tmp_path):
    dataset = NpyDataset(filepath=str(tmp_path / "array.npy"))
    dataset.save(np.zeros(100))
    dataset.save(np.arange(3))
    np.testing.assert_array_equal(dataset.load(), np.arange(3))
    assert [path.name for path in tmp_path.iterdir()] == ["array.npy"]


def test_an_array_of_objects_is_refused_and_leaves_the_old_content(root):
    dataset = NpyDataset(filepath=f"{root}/array.npy")
    objects = np.array([{}], dtype=object)
    with pytest.raises(DatasetError, match="Object arrays"):
        dataset.save(objects)
    assert not dataset.exists()
    dataset.save(np.arange(3))
    with pytest.raises(DatasetError, match="Object arrays"):
        dataset.save(objects)
    np.testing.assert_array_equal(dataset.load(), np.arange(3))


# Weights


class BreaksOff:
    """Stands for a model whose writing is stopped half-way."""

    def save_weights(self, path, *, overwrite):
        path.write_bytes(b"\x89HDF")
        raise OSError("no space left")


@pytest.fixture(scope="module")
def tiny_model():
    import keras

    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


def test_weights_come_back_through_the_path(root, tmp_path, tiny_model):
    ours, theirs = (
        KerasWeightsDataset(filepath=f"{root}/new/mel.weights.h5", cache_dir=str(tmp_path / name))
        for name in ("here", "there")
    )
    assert not theirs.exists()
    ones, twos = ([np.full((3, 2), x), np.full(2, x)] for x in (1.0, 2.0))
    for weights in (ones, twos):
        tiny_model.set_weights(weights)
        ours.save(tiny_model)
        tiny_model.set_weights([np.zeros((3, 2)), np.zeros(2)])
        tiny_model.load_weights(theirs.load())
        for found, expected in zip(tiny_model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(found, expected)
    assert theirs.exists()


def test_saved_weights_are_the_only_file(tmp_path, tiny_model):
    for _ in range(2):
        KerasWeightsDataset(filepath=str(tmp_path / "mel.weights.h5")).save(tiny_model)
    assert [path.name for path in tmp_path.iterdir()] == ["mel.weights.h5"]


def test_a_save_of_weights_that_breaks_off_leaves_nothing_or_the_old_content(tmp_path, tiny_model):
    dataset = KerasWeightsDataset(filepath=str(tmp_path / "mel.weights.h5"))
    with pytest.raises(DatasetError, match="no space left"):
        dataset.save(BreaksOff())
    assert not dataset.exists()
    dataset.save(tiny_model)
    before = dataset.load().read_bytes()
    with pytest.raises(DatasetError, match="no space left"):
        dataset.save(BreaksOff())
    assert dataset.load().read_bytes() == before


def test_missing_weights_are_an_error_that_names_the_file(tmp_path):
    dataset = KerasWeightsDataset(filepath=str(tmp_path / "mel.weights.h5"))
    with pytest.raises(DatasetError, match=r"no weights at .*mel\.weights\.h5"):
        dataset.load()


# The trained ensemble


@pytest.fixture
def ensemble(root, tmp_path, tagger_settings):
    """Save an ensemble, of which only the settings are real."""
    for file in (*parts(2).values(), "mel.weights.h5"):
        with files.open_atomic(f"{root}/{file}") as opened:
            opened.write(file.encode())
    dataset = TaggerDataset(filepath=f"{root}/tagger.json", cache_dir=str(tmp_path / "worker"))
    dataset.save(tagger_settings)
    return TaggerDataset(filepath=f"{root}/tagger.json", cache_dir=str(tmp_path / "cache"))


def test_the_whole_ensemble_is_copied_from_a_store(ensemble, root):
    folder = ensemble.local_folder()
    assert [(folder / file).read_text() for file in parts(2).values()] == list(parts(2).values())
    assert (folder / "mel.weights.h5").exists() != files.is_url(root)
    if files.is_url(root):
        files.remove(f"{root}/classes.json")
        with pytest.raises(InputError, match=r"classes\.json does not exist"):
            ensemble.local_folder()


def test_the_settings_of_an_ensemble_have_the_digests_of_its_stored_parts(
    ensemble, tagger_settings
):
    manifest = json.loads((ensemble.local_folder() / "tagger.json").read_text())
    expected = {file: sha256(file.encode()).hexdigest() for file in parts(2).values()}
    assert manifest.pop("digests") == expected
    assert TaggerSettings(**manifest) == tagger_settings


def test_only_the_named_parts_of_an_ensemble_have_to_be_the_same(ensemble, root):
    for name, file in parts(2).items():
        ensemble.require_same(set(parts(2)))
        with files.open_atomic(f"{root}/{file}") as opened:
            opened.write(b"other content")
        with pytest.raises(InputError, match=f"not of one training: {file} changed"):
            ensemble.require_same({name})
        ensemble.require_same(set(parts(2)) - {name})
        with files.open_atomic(f"{root}/{file}") as opened:
            opened.write(file.encode())


def test_the_local_folder_of_a_local_ensemble_is_its_own(tmp_path):
    dataset = TaggerDataset(filepath=str(tmp_path / "06_models" / "tagger.json"))
    assert dataset.local_folder() == tmp_path / "06_models"


# The projector


def test_a_saved_projector_comes_back_from_an_npz(root, rng):
    projector = fit_projector(rng.normal(size=(9, 4)), n_components=2)
    dataset = ProjectorDataset(filepath=f"{root}/projector.npz")
    assert not dataset.exists()
    dataset.save(projector)
    assert dataset.exists()
    for name, array in vars(projector).items():
        np.testing.assert_array_equal(getattr(dataset.load(), name), array)


def test_a_missing_or_damaged_projector_has_a_remedy(root, rng):
    dataset = ProjectorDataset(filepath=f"{root}/projector.npz")
    with pytest.raises(DatasetError, match=r"projector\.npz.*(`kedro run|run the)"):
        dataset.load()
    with files.open_atomic(f"{root}/projector.npz") as file:
        file.write(b"PK damaged")
    with pytest.raises(DatasetError, match=r"projector\.npz is damaged, .*kedro run"):
        dataset.load()


# Figures


def test_a_figure_is_loaded_as_the_bytes_of_its_image(root):
    dataset = MatplotlibDataset(filepath=f"{root}/a.png")
    dataset.save(Figure())
    with files.connected(f"{root}/a.png") as (file_system, name):
        assert dataset.load() == file_system.cat_file(name)
    assert dataset.load().startswith(b"\x89PNG")


# A full disk

NOISE = np.random.default_rng(0).random(20_000)
KINDS = {
    "a.npy": (NpyDataset, NOISE),
    "mels": (RaggedDataset, RaggedArray(NOISE, np.array([0, 20_000]))),
}


@contextmanager
def full_disk():
    """Files end at 1,000 bytes, and writing more fails."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", KINDS)
def test_a_disk_that_fills_up_leaves_nothing_or_the_old_content(tmp_path, name):
    kind, data = KINDS[name]
    dataset = kind(filepath=str(tmp_path / name))
    # The limit holds for all files of this process: it may only last as long as the save.
    with pytest.raises(DatasetError) as error, full_disk():
        dataset.save(data)
    assert isinstance(error.value.__cause__, OSError)
    assert list(tmp_path.iterdir()) == []
    assert not dataset.exists()
    dataset.save(data)
    before = content(tmp_path)
    with pytest.raises(DatasetError), full_disk():
        dataset.save(data)
    assert content(tmp_path) == before


def test_a_killed_process_leaves_a_whole_file_that_can_be_replaced(tmp_path):
    path = tmp_path / "a.npy"
    endless = (
        "import sys, numpy as np\n"
        "from fsat_kedro.datasets import NpyDataset\n"
        "dataset = NpyDataset(filepath=sys.argv[1])\n"
        "for x in range(10**9):\n"
        "    dataset.save(np.full(10**6, x))\n"
        "    print(x, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", endless, str(path)], stdout=subprocess.PIPE, text=True
    )
    for _ in range(3):
        process.stdout.readline()
    process.kill()
    process.wait()
    dataset = NpyDataset(filepath=str(path))
    values = dataset.load()
    assert len(values) == 10**6
    assert len(set(values.tolist())) == 1
    dataset.save(np.arange(3))
    assert dataset.load().tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
