import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsat_kedro.modelling import crop_lengths
from fsat_kedro.modelling.crop_lengths import crop_length_range, training_lengths
from fsat_kedro.parameters import CropLengths, TestTimeCrops


def between(lengths, *percentiles):
    settings = CropLengths(percentiles=percentiles, seconds=None)
    return crop_length_range(np.array(lengths), settings, frames_per_second=1)


def test_the_range_lies_between_percentiles():
    lengths = np.arange(101) * 10
    assert between(lengths, 25, 75) == (250, 750)
    assert between(lengths[::-1], 5, 100) == (50, 1000)
    # 101.75 and 103.25 of 101, 102, 103, 104
    assert between([101, 102, 103, 104], 25, 75) == (102, 103)


def test_a_range_in_seconds_does_not_depend_on_the_clips():
    settings = CropLengths(percentiles=(25, 75), seconds=(0.5, 2.25))
    for lengths in ([40], [500, 900]):
        found = crop_length_range(np.array(lengths), settings, frames_per_second=100)
        assert found == (50, 225)


def test_no_length_is_below_one_column_of_the_backbone():
    assert between([0, 0, 1], 0, 50) == (32, 32)
    assert between([1, 31, 33], 0, 100) == (32, 33)
    short = CropLengths(percentiles=(25, 75), seconds=(0.1, 0.2))
    assert crop_length_range(np.array([500]), short, frames_per_second=100) == (32, 32)


def test_test_time_lengths_have_equal_steps_and_include_both_ends():
    assert crop_lengths.test_time_lengths(263, 763, 6) == [263, 363, 463, 563, 663, 763]
    assert crop_lengths.test_time_lengths(10, 11, 3) == [10, 10, 11]
    assert crop_lengths.test_time_lengths(10, 20, 1) == [10]


@given(st.integers(1, 900), st.integers(0, 900), st.integers(2, 9))
def test_test_time_lengths_ascend_within_the_range(shortest, surplus, n_lengths):
    lengths = crop_lengths.test_time_lengths(shortest, shortest + surplus, n_lengths)
    assert len(lengths) == n_lengths
    assert (lengths[0], lengths[-1]) == (shortest, shortest + surplus)
    assert lengths == sorted(lengths)
    assert np.diff(lengths).tolist() == pytest.approx(
        [surplus / (n_lengths - 1)] * (n_lengths - 1), abs=1
    )
    assert all(type(length) is int for length in lengths)


@pytest.mark.parametrize(
    ("n_lengths", "subset", "expected"),
    [
        (6, "all", ([263, 363, 463, 563, 663, 763], 5)),
        (6, "thinned", ([363, 563, 763], 1)),
        (5, "thinned", ([263, 513, 763], 1)),
        (1, "thinned", ([263], 1)),
    ],
)
def test_thinned_crops_are_one_of_every_other_length_from_the_longest_down(
    n_lengths, subset, expected
):
    crops = TestTimeCrops(n_lengths=n_lengths, crops_per_length=5, subset=subset, batch_size=1)
    assert crop_lengths.test_time_crops(263, 763, crops) == expected
    n_crops = len(expected[0]) * expected[1]
    assert crop_lengths.predictions_per_clip(crops, n_folds=10) == 10 * n_crops


def test_training_draws_from_all_lengths_or_from_a_few():
    assert list(training_lengths(3, 6, None)) == [3, 4, 5, 6]
    assert training_lengths(263, 763, 3) == [263, 513, 763]
    assert training_lengths(7, 8, 5) == [7, 8]
