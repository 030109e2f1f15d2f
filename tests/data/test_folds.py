import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsat_kedro.data.folds import predefined_folds, stratified_folds
from fsat_kedro.errors import InputError


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(4, 15), min_size=1, max_size=5),
    n_folds=st.integers(2, 4),
    seed=st.integers(0, 2**31),
)
def test_every_fold_has_an_equal_part_of_every_class(counts, n_folds, seed):
    labels = np.repeat([f"class {index}" for index in range(len(counts))], counts)
    folds = stratified_folds(labels, n_folds=n_folds, seed=seed)
    sizes = np.bincount(folds, minlength=n_folds + 1)
    assert sizes[0] == 0
    assert len(sizes) == n_folds + 1
    assert sizes[1:].max() - sizes[1:].min() <= 1
    for label in np.unique(labels):
        held_out = np.bincount(folds[labels == label], minlength=n_folds + 1)[1:]
        assert held_out.max() - held_out.min() <= 1


def test_the_same_seed_gives_the_same_folds_and_another_one_others():
    labels = np.repeat(["Bark", "Meow"], 20)
    first, again, other = (stratified_folds(labels, n_folds=4, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_folds_are_shuffled():
    folds = stratified_folds(np.repeat(["Bark"], 40), n_folds=2, seed=0)
    assert (np.diff(folds) != 0).sum() > 5


def test_folds_do_not_depend_on_how_labels_are_spelt():
    labels = np.array(["b", "a", "c", "a", "b", "c"] * 5)
    renamed = np.array([{"a": "z", "b": "y", "c": "x"}[label] for label in labels])
    np.testing.assert_array_equal(
        stratified_folds(labels, n_folds=3, seed=0), stratified_folds(renamed, n_folds=3, seed=0)
    )


def test_a_class_may_have_fewer_clips_than_there_are_folds_and_is_named(caplog, recwarn):
    labels = np.repeat(["common", "enough", "few", "rare"], [12, 4, 3, 2])
    folds = stratified_folds(labels, n_folds=4, seed=0)
    assert folds[-2] != folds[-1]
    (message,) = caplog.messages
    assert message.startswith("Labels with fewer clips than the 4 folds")
    assert message.endswith(": few (3), rare (2)")
    assert len(recwarn) == 0


def test_more_folds_than_clips_is_an_error_with_its_remedy():
    message = "folds.n_folds is 5, but only 4 training clips are usable: lower it"
    with pytest.raises(InputError, match=re.escape(message)):
        stratified_folds(np.repeat(["Bark"], 4), n_folds=5, seed=0)


def test_more_folds_than_clips_of_any_class_is_an_error_with_its_remedy():
    labels = np.repeat(["Bark", "Meow", "Moo"], [2, 3, 2])
    with pytest.raises(InputError, match=r"4 folds .* at most 3 clips .* lower folds\.n_folds"):
        stratified_folds(labels, n_folds=4, seed=0)


def test_predefined_folds_are_kept():
    folds = predefined_folds(np.array([2, 1, 3, 3]), n_folds=3)
    assert folds.tolist() == [2, 1, 3, 3]
    assert folds.dtype == np.int64


@pytest.mark.parametrize("folds", [[1, 0, 1], [3, 1, 3], [20, -1, 20]])
def test_predefined_folds_may_have_any_numbers(folds):
    assert predefined_folds(np.array(folds), n_folds=2).tolist() == [2, 1, 2]


@pytest.mark.parametrize(
    ("folds", "n_folds", "message"),
    [
        ([1, 2, 3], 2, "in folds [1, 2, 3], but folds.n_folds is 2: set folds.n_folds to 3"),
        ([1, 2, 2], 3, "in folds [1, 2], but folds.n_folds is 3: set folds.n_folds to 2"),
    ],
)
def test_another_number_of_predefined_folds_is_an_error(folds, n_folds, message):
    with pytest.raises(InputError, match=re.escape(message)):
        predefined_folds(np.array(folds), n_folds=n_folds)


@pytest.mark.parametrize("seed", [0, 1])
def test_folds_have_equal_fractions_of_verified_clips_of_each_label(seed):
    labels = np.repeat(["Bark", "Meow"], 40)
    verified = np.tile([True, False, False, False], 20)
    folds = stratified_folds(labels, verified, n_folds=5, seed=seed)
    for fold in range(1, 6):
        for label in ("Bark", "Meow"):
            held_out = verified[(folds == fold) & (labels == label)]
            assert (held_out.sum(), len(held_out)) == (2, 8)


def test_labels_are_balanced_where_few_clips_are_verified():
    labels = np.repeat(["Bark", "Meow"], 4)
    folds = stratified_folds(labels, np.arange(8) % 4 < 2, n_folds=4, seed=0)
    for label in ("Bark", "Meow"):
        assert sorted(folds[labels == label]) == [1, 2, 3, 4]
