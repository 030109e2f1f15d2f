"""Trust in labels of clips that are easily told apart, some of them wrong."""

import numpy as np
import pytest

from fsat_kedro.modelling import label_trust
from fsat_kedro.modelling.label_trust import estimate_trust

N_CLASSES = 4


def clips_of(n, *, wrong=0.3, seed=0):
    """Return features, true and given class indices, and whether a label is verified."""
    rng = np.random.default_rng(seed)
    true = np.arange(n) % N_CLASSES
    features = 2 * np.eye(N_CLASSES)[true] + rng.normal(size=(n, N_CLASSES))
    verified = rng.random(n) < 0.4
    flipped = ~verified & (rng.random(n) < wrong / 0.6)
    return features, true, np.where(flipped, (true + 1) % N_CLASSES, true), verified


@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_wrong_labels_are_trusted_less(rounds, seed):
    features, true, given, verified = clips_of(200, seed=seed)
    trust = estimate_trust(features, given, verified, rounds=rounds, seed=seed)
    assert trust.dtype == np.float32
    assert (trust[verified] == 1).all()
    right, wrong = trust[~verified & (given == true)], trust[~verified & (given != true)]
    assert right.mean() > 0.6
    assert wrong.mean() < 0.25


def test_where_all_labels_are_right_all_are_trusted():
    # Though the classes overlap, so that a third of the clips look like another class.
    features, _, given, verified = clips_of(400, wrong=0)
    trust = estimate_trust(0.5 * features, given, verified, rounds=2, seed=0)
    assert trust.mean() > 0.9
    assert np.mean(trust > 0.5) > 0.95


@pytest.mark.parametrize("wrong", [0.1, 0.3])
def test_the_fraction_of_wrong_labels_is_estimated(wrong):
    features, true, given, verified = clips_of(1000, wrong=wrong)
    agreed = label_trust._out_of_part(features, given, verified.astype(float), verified, 0)
    found = label_trust._fraction_wrong(agreed, verified)
    assert found == pytest.approx((given != true)[~verified].mean(), abs=0.07)


def test_without_verified_clips_the_majority_is_trusted():
    features, true, given, verified = clips_of(200)
    trust = estimate_trust(features, given, np.zeros_like(verified), rounds=2, seed=0)
    assert trust[given == true].mean() > 0.6
    assert trust[given != true].mean() < 0.3


def test_a_clip_has_no_part_in_its_own_trust():
    # Its features are like no other's: a model that saw it would be sure of its label.
    features, _, given, verified = clips_of(200)
    features = np.hstack([features, np.zeros((200, 1))])
    verified[7], features[7] = False, [0, 0, 0, 0, 9]
    assert estimate_trust(features, given, verified, rounds=1, seed=0)[7] < 0.6


def test_the_first_round_learns_from_verified_clips_alone():
    # All labels that are not verified are wrong in the same way, and they are the majority.
    rng = np.random.default_rng(0)
    true = np.arange(300) % 2
    features = 2 * np.eye(2)[true] + rng.normal(size=(300, 2))
    verified = rng.random(300) < 0.2
    given = np.where(verified, true, 1 - true)
    trust = estimate_trust(features, given, verified, rounds=2, seed=0)
    assert trust[~verified].mean() < 0.45


def test_a_class_of_a_single_clip_and_a_single_class_are_trusted():
    rng = np.random.default_rng(0)
    features, none = rng.normal(size=(11, 3)), np.zeros(11, bool)
    targets = np.array([0] * 5 + [1] * 5 + [2])
    assert estimate_trust(features, targets, none, rounds=2, seed=0)[10] == 1
    assert (estimate_trust(features, np.zeros(11, int), none, rounds=2, seed=0) == 1).all()
    lone = np.array([0] * 10 + [1])
    assert (estimate_trust(features, lone, none, rounds=2, seed=0) == 1).all()


def test_few_clips_of_a_class_end_in_no_error():
    rng = np.random.default_rng(0)
    for targets in ([0, 0, 1, 1], [0, 1, 1], [3, 3, 5, 5, 5, 5]):
        n = len(targets)
        for verified in (np.zeros(n, bool), np.arange(n) % 2 == 0, np.ones(n, bool)):
            trust = estimate_trust(
                rng.normal(size=(n, 2)), np.array(targets), verified, rounds=2, seed=0
            )
            assert ((trust >= 0) & (trust <= 1)).all()


def test_the_same_seed_gives_the_same_trust():
    features, _, given, verified = clips_of(60)
    one, again, other = (
        estimate_trust(features, given, verified, rounds=2, seed=seed) for seed in (1, 1, 2)
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
