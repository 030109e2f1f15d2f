import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsat_kedro.data.ragged import RaggedArray, gather


def test_items_come_back_in_order(tmp_path, rng):
    items = [rng.normal(size=(length, 3)).astype(np.float32) for length in (4, 0, 1, 7)]
    ragged = gather(iter(items), spool_dir=tmp_path)
    assert len(ragged) == 4
    assert ragged.lengths.tolist() == [4, 0, 1, 7]
    assert ragged.values.dtype == np.float32
    for index, item in enumerate(items):
        np.testing.assert_array_equal(ragged[index], item)
    for ours, item in zip(ragged, items, strict=True):
        np.testing.assert_array_equal(ours, item)


@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_values_are_the_concatenation_and_offsets_the_running_sum(tmp_path_factory, lengths):
    starts = np.cumsum([0, *lengths])
    items = [np.arange(start, start + n) for start, n in zip(starts, lengths, strict=False)]
    ragged = gather(items, spool_dir=tmp_path_factory.getbasetemp())
    np.testing.assert_array_equal(ragged.values, np.arange(sum(lengths)))
    np.testing.assert_array_equal(ragged.offsets, starts)


def test_negative_indices_count_from_the_end(tmp_path):
    ragged = gather([np.array([1]), np.array([2, 3]), np.array([4])], spool_dir=tmp_path)
    assert ragged[-1].tolist() == [4]
    assert ragged[-2].tolist() == [2, 3]
    assert ragged[-3].tolist() == [1]


@pytest.mark.parametrize("index", [2, -3])
def test_an_index_outside_is_an_error_that_names_it(index):
    ragged = RaggedArray(np.arange(3), np.array([0, 1, 3]))
    with pytest.raises(IndexError, match=f"item {index} of a ragged array of 2 items"):
        ragged[index]


def test_items_are_views_and_not_copies():
    ragged = RaggedArray(np.arange(3), np.array([0, 1, 3]))
    assert np.shares_memory(ragged[1], ragged.values)


def test_arrays_that_are_all_empty_are_gathered(tmp_path):
    ragged = gather([np.zeros((0, 64), np.float32)] * 2, spool_dir=tmp_path)
    assert ragged.values.shape == (0, 64)
    assert ragged.lengths.tolist() == [0, 0]
    assert ragged[1].shape == (0, 64)


def test_arrays_with_a_stride_keep_their_values(tmp_path):
    transposed = np.arange(6).reshape(2, 3).T
    ragged = gather([transposed, transposed[::-1]], spool_dir=tmp_path)
    np.testing.assert_array_equal(ragged[0], transposed)
    np.testing.assert_array_equal(ragged[1], transposed[::-1])


def test_gathering_leaves_no_file_behind(tmp_path):
    ragged = gather([np.arange(1000)], spool_dir=tmp_path)
    assert isinstance(ragged.values, np.memmap)
    assert not list(tmp_path.iterdir())
    assert ragged[0].sum() == 499500


@pytest.mark.parametrize(
    ("second", "received"),
    [
        (np.zeros((2, 3), np.float64), r"array 1 is float64 \(2, 3\)"),
        (np.zeros((2, 4), np.float32), r"array 1 is float32 \(2, 4\)"),
    ],
)
def test_an_array_unlike_the_first_is_an_error_that_names_both(tmp_path, second, received):
    with pytest.raises(ValueError, match=received + r", the first one was float32 \(…, 3\)"):
        gather([np.zeros((1, 3), np.float32), second], spool_dir=tmp_path)


def test_gathering_no_array_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no arrays"):
        gather([], spool_dir=tmp_path)


@pytest.mark.parametrize("where", ["memory", "named file", "unnamed file"])
def test_a_reader_returns_its_item_after_pickling(tmp_path, rng, where):
    items = [rng.normal(size=(length, 3)).astype(np.float32) for length in (4, 0, 1, 7)]
    ragged = gather(items, spool_dir=tmp_path)
    if where == "memory":
        ragged = RaggedArray(np.array(ragged.values), ragged.offsets)
    if where == "named file":
        np.save(tmp_path / "values.npy", ragged.values)
        ragged = RaggedArray(np.load(tmp_path / "values.npy", mmap_mode="r"), ragged.offsets)
    for index, item in enumerate(items):
        sent = pickle.dumps(ragged.reader(index))
        assert ("values.npy" in str(sent)) == (where == "named file")
        read = pickle.loads(sent)()
        assert type(read) is np.ndarray
        np.testing.assert_array_equal(read, item)
