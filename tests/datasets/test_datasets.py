"""What is saved comes back; a save that breaks off leaves nothing that looks whole."""

import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from kedro.io import DatasetError
from matplotlib.figure import Figure

from fsat_kedro.data.ragged import RaggedArray, gather
from fsat_kedro.datasets.csv_dataset import CSVDataset
from fsat_kedro.datasets.json_dataset import JSONDataset
from fsat_kedro.datasets.keras_weights_dataset import KerasWeightsDataset
from fsat_kedro.datasets.matplotlib_dataset import MatplotlibDataset
from fsat_kedro.datasets.npy_dataset import NpyDataset
from fsat_kedro.datasets.pickle_dataset import PickleDataset
from fsat_kedro.datasets.ragged_dataset import RaggedDataset
from fsat_kedro.datasets.text_dataset import TextDataset


class Unsaveable:
    """Stands for values whose writing fails, as on a full disk."""

    def __array__(self, *args, **kwargs):
        raise OSError("no space left")


def ragged(*lengths, start=0):
    n_values = sum(lengths)
    values = np.arange(start, start + 2 * n_values, dtype=np.float32).reshape(n_values, 2)
    return RaggedArray(values, np.cumsum([0, *lengths]))


def assert_same(ours, expected):
    assert ours.values.dtype == expected.values.dtype
    np.testing.assert_array_equal(ours.values, expected.values)
    np.testing.assert_array_equal(ours.offsets, expected.offsets)


# Ragged arrays


@pytest.mark.parametrize("lengths", [(3, 1, 2), (0, 4, 0), (0, 0)])
def test_a_ragged_array_comes_back(tmp_path, lengths):
    dataset = RaggedDataset(filepath=str(tmp_path / "new" / "mels"))
    assert not dataset.exists()
    dataset.save(ragged(*lengths))
    assert dataset.exists()
    assert_same(dataset.load(), ragged(*lengths))
    assert [item.shape for item in dataset.load()] == [(length, 2) for length in lengths]


def test_a_ragged_array_is_loaded_memory_mapped_and_read_only(tmp_path):
    dataset = RaggedDataset(filepath=str(tmp_path / "mels"))
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


# NumPy arrays


@pytest.mark.parametrize(
    "array",
    [
        np.array([[1.5, np.nan], [np.inf, -0.0]], np.float32),
        np.array([3, 0, 1], np.int64),
        np.zeros((0, 350), np.float32),
    ],
)
def test_an_array_comes_back(tmp_path, array):
    dataset = NpyDataset(filepath=str(tmp_path / "new" / "array.npy"))
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


def test_an_array_of_objects_is_refused_and_leaves_the_old_content(tmp_path):
    dataset = NpyDataset(filepath=str(tmp_path / "array.npy"))
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


def test_weights_come_back_through_the_path(tmp_path, tiny_model):
    dataset = KerasWeightsDataset(filepath=str(tmp_path / "new" / "mel.weights.h5"))
    assert not dataset.exists()
    ones, twos = ([np.full((3, 2), x), np.full(2, x)] for x in (1.0, 2.0))
    for weights in (ones, twos):
        tiny_model.set_weights(weights)
        dataset.save(tiny_model)
        tiny_model.set_weights([np.zeros((3, 2)), np.zeros(2)])
        tiny_model.load_weights(dataset.load())
        for ours, expected in zip(tiny_model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(ours, expected)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mel.weights.h5"]


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


def test_weights_that_are_not_there_are_an_error_that_names_the_file(tmp_path):
    dataset = KerasWeightsDataset(filepath=str(tmp_path / "mel.weights.h5"))
    with pytest.raises(DatasetError, match=r"no weights at .*mel\.weights\.h5"):
        dataset.load()


# Figures and text


def test_a_figure_is_loaded_as_the_bytes_of_its_image(tmp_path):
    dataset = MatplotlibDataset(filepath=str(tmp_path / "a.png"))
    dataset.save(Figure())
    assert dataset.load() == (tmp_path / "a.png").read_bytes()
    assert dataset.load().startswith(b"\x89PNG")


def test_text_is_saved_in_utf_8_whatever_the_machine_prefers(tmp_path):
    script = (
        "import sys\n"
        "from fsat_kedro.datasets.text_dataset import TextDataset\n"
        "dataset = TextDataset(filepath=sys.argv[1])\n"
        "dataset.save('\\u25b6 Gl\\xf6ckchen')\n"
        "assert dataset.load() == '\\u25b6 Gl\\xf6ckchen'\n"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    path = tmp_path / "a.html"
    command = [sys.executable, "-c", script, str(path)]
    subprocess.run(command, env=environment, check=True)
    assert path.read_text("utf-8") == "▶ Glöckchen"


# Whatever it is that is saved

NOISE = np.random.default_rng(0).random(20_000)
KINDS = {
    "a.csv": (CSVDataset, pd.DataFrame({"x": NOISE})),
    "a.json": (JSONDataset, NOISE.tolist()),
    "a.pkl": (PickleDataset, NOISE),
    "a.png": (MatplotlibDataset, Figure()),
    "a.npy": (NpyDataset, NOISE),
    "a.html": (TextDataset, str(NOISE.tolist())),
    "mels": (RaggedDataset, RaggedArray(NOISE, np.array([0, 20_000]))),
}


@contextmanager
def full_disk():
    """Files end at 1,000 bytes, and what is written beyond fails."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


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


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_a_killed_process_wrote_is_whole_and_does_not_hinder_the_next(tmp_path):
    path = tmp_path / "a.pkl"
    endless = (
        "import sys, numpy as np\n"
        "from fsat_kedro.datasets.pickle_dataset import PickleDataset\n"
        "dataset = PickleDataset(filepath=sys.argv[1])\n"
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
    dataset = PickleDataset(filepath=str(path))
    values = dataset.load()
    assert len(values) == 10**6
    assert len(set(values.tolist())) == 1
    dataset.save("new")
    assert dataset.load() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.pkl"]


def test_saving_leaves_the_dataset_where_it_was(tmp_path):
    dataset = JSONDataset(filepath=str(tmp_path / "new" / "a.json"))
    with pytest.raises(DatasetError, match="not JSON serializable"):
        dataset.save({"a": object()})
    assert not dataset.exists()
    dataset.save({"a": 1})
    assert dataset.load() == {"a": 1}
    assert str(dataset._filepath) == str(tmp_path / "new" / "a.json")
