import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsat_kedro.data.folds import (
    count_folds,
    predefined_folds,
    stratified_folds,
    warn_of_cut_up_recordings,
    warn_of_split_groups,
)
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


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=4, max_size=20),
    n_folds=st.integers(2, 4),
    seed=st.integers(0, 2**31),
)
def test_a_group_is_in_one_fold_and_no_fold_is_empty(sizes, n_folds, seed):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.where(groups % 4 == 3, "Meow", "Bark")
    if (np.arange(len(sizes)) % 4 != 3).sum() < n_folds:
        n_folds = 3  # Four groups have three of the first label.
    folds = stratified_folds(labels, groups=groups, n_folds=n_folds, seed=seed)
    assert set(folds) == set(range(1, n_folds + 1))
    for group in np.unique(groups):
        assert len({*folds[groups == group]}) == 1


def test_groups_of_equal_size_give_balanced_folds():
    groups = np.repeat(np.arange(20), 5)
    labels = np.where(groups < 10, "Bark", "Meow")
    folds = stratified_folds(labels, groups=groups, n_folds=5, seed=0)
    for label in ("Bark", "Meow"):
        assert np.bincount(folds[labels == label])[1:].tolist() == [10] * 5


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([0, 0, 1, 1, 1, 1], "folds.n_folds is 3, but only 2 groups of training clips are usable"),
        ([0, 1, 1, 2, 3, 3], "3 folds cannot be stratified with at most 2 groups of a label"),
    ],
)
def test_more_folds_than_groups_are_an_error_with_its_remedy(groups, message):
    labels = np.repeat(["Bark", "Meow"], 3)
    with pytest.raises(InputError, match=re.escape(message)):
        stratified_folds(labels, groups=np.array(groups), n_folds=3, seed=0)


def test_a_label_with_fewer_groups_than_folds_is_named(caplog):
    groups = np.array([0, 1, 2, 3, 4, 4, 4, 4])
    stratified_folds(np.repeat(["Bark", "Meow"], 4), groups=groups, n_folds=3, seed=0)
    (warning,) = caplog.messages
    assert warning.startswith("Labels with fewer groups than the 3 folds")
    assert warning.endswith(": Meow (1)")


@pytest.mark.parametrize(
    ("folds", "count"), [([1, 2, 1], 2), ([0, 7, 9], 3), ([1, 1, 1], 0), ([1, 2, None], 0)]
)
def test_a_data_set_has_folds_if_all_clips_are_in_two_or_more(folds, count):
    assert count_folds(pd.Series(folds, dtype="Int64")) == count


def test_groups_that_given_folds_divide_are_counted(caplog):
    warn_of_split_groups(np.array([1, 1, 2, 2]), np.array([5, 5, 6, 6]))
    assert not caplog.messages
    warn_of_split_groups(np.array([1, 2, 2, 2]), np.array([5, 5, 6, 6]))
    assert caplog.messages[0].startswith("The clips of 1 groups are in several folds")


@pytest.mark.parametrize(
    ("names", "warns"),
    [
        ([f"site{i}_{j}.wav" for i in range(6) for j in range(3)], True),
        ([f"{'ab'[i % 2]}/rec{i} {j}.flac" for i in range(6) for j in range(3)], True),
        ([f"{'ab'[i % 2]}/x_{i}.wav" for i in range(18)], False),  # Clips of a label, numbered.
        ([f"{2**40 // (i + 3):08x}.wav" for i in range(18)], False),  # As in FSDKaggle2018.
        ([f"1-{i}-A-{i % 2}.wav" for i in range(18)], False),  # As in ESC-50.
        ([f"2018-06-29_{i}.wav" for i in range(18)], False),
        ([f"site{i}_1.wav" for i in range(18)], False),
    ],
)
def test_names_of_parts_of_recordings_draw_a_warning(names, warns, caplog):
    n_parts = 3 if warns else 1
    labels = pd.Series(["ab"[i // n_parts % 2] for i in range(len(names))])
    warn_of_cut_up_recordings(pd.Series(names), labels)
    assert bool(caplog.messages) == warns
    if warns:
        assert caplog.messages[0].startswith("18 of 18 clips are named like parts of recordings")
