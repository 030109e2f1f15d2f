"""What is saved comes back; a save that breaks off leaves nothing that looks whole."""

import numpy as np
import pytest
from kedro.io import DatasetError

from fsat_kedro.datasets.keras_weights_dataset import KerasWeightsDataset
from fsat_kedro.datasets.npy_dataset import NpyDataset
from fsat_kedro.datasets.ragged_dataset import RaggedDataset
from fsat_kedro.ragged import RaggedArray, gather


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
