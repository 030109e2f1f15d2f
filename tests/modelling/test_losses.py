import keras
import numpy as np
import pytest

from fsat_kedro.modelling.losses import PartlyRobustCrossentropy, metric_of_both

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], np.float32)
VERIFIED = np.array([[1, 0, 0], [0, 0, 0]], np.float32)
OTHERS = np.array([[0, 0, 0], [0, 1, 0]], np.float32)


def loss(verified, others, q):
    targets = np.hstack([verified, others])
    return float(PartlyRobustCrossentropy(q)(targets, PROBABILITIES))


@pytest.mark.parametrize("q", [0.5, 0.7, 1])
def test_each_label_has_the_loss_of_its_kind(q):
    expected = [-np.log(0.7), (1 - 0.3**q) / q]
    assert loss(VERIFIED, OTHERS, q) == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_mixed_clip_has_both_losses_by_their_weights():
    verified, others = 0.25 * VERIFIED, 0.75 * np.roll(OTHERS, 1, axis=0)
    expected = 0.25 * -np.log(0.7) + 0.75 * (1 - 0.2**0.7) / 0.7
    assert loss(verified, others, 0.7) == pytest.approx(expected / 2, rel=1e-5)


def test_a_small_q_is_the_cross_entropy():
    plain = float(keras.losses.CategoricalCrossentropy()(VERIFIED + OTHERS, PROBABILITIES))
    assert loss(VERIFIED, OTHERS, 1e-3) == pytest.approx(plain, rel=1e-3)


def test_metrics_count_labels_of_both_kinds():
    accuracy = metric_of_both(keras.metrics.categorical_accuracy, name="accuracy")
    others = np.roll(OTHERS, 1, axis=1)  # The label that is predicted.
    accuracy.update_state(np.hstack([VERIFIED, others]), PROBABILITIES)
    assert float(accuracy.result()) == 1
    assert accuracy.name == "accuracy"
