"""Learning rates by hand, and compared with the Keras callbacks that keep a state."""

import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsat_kedro.modelling.schedules import (
    cosine_rate,
    has_stalled,
    plateau_rate,
    triangular_rate,
)
from fsat_kedro.parameters import EarlyStopping, Plateau

PLATEAU = Plateau(min_delta=0.1, patience=2, factor=0.1)


def test_the_rate_rises_and_falls_in_a_triangle():
    rates = [triangular_rate(step, 4, 0.1, 0.5) for step in range(13)]
    triangle = [0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2]
    np.testing.assert_allclose(rates, [*triangle, *triangle[:5]])


@given(st.integers(0, 10_000), st.integers(1, 500))
def test_the_rate_stays_between_its_bounds_and_repeats(step, half_cycle):
    rate = triangular_rate(step, half_cycle, 1e-4, 1e-3)
    assert 1e-4 - 1e-12 <= rate <= 1e-3 + 1e-12
    later = triangular_rate(step + 2 * half_cycle, half_cycle, 1e-4, 1e-3)
    assert later == pytest.approx(rate, abs=1e-9)


def test_the_rate_warms_up_and_falls_as_half_a_cosine():
    rates = [cosine_rate(step, warm_up=2, n_steps=6, maximum=0.4) for step in range(6)]
    # 1 + cos of 0, 45, 90 and 135 degrees.
    root = math.sqrt(0.5)
    np.testing.assert_allclose(rates, [0.2, 0.4, 0.4, 0.2 * (1 + root), 0.2, 0.2 * (1 - root)])


def test_without_a_warm_up_the_rate_begins_at_the_top_and_ends_near_0():
    rates = [cosine_rate(step, warm_up=0, n_steps=500, maximum=1e-3) for step in range(500)]
    assert rates[0] == 1e-3
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 1e-3 * 1e-4
    assert np.mean(rates) == pytest.approx(1e-3 / 2, rel=0.01)


@pytest.mark.parametrize("warm_up", [4, 9])
def test_a_phase_may_be_no_longer_than_its_warm_up(warm_up):
    rates = [cosine_rate(step, warm_up=warm_up, n_steps=4, maximum=1) for step in range(4)]
    np.testing.assert_allclose(rates, np.arange(1, 5) / warm_up)


def test_a_rate_falls_after_every_patience_without_gain():
    losses = [1.0, 0.95, 0.92, 0.8, 0.8, 0.75, 0.72, 0.71]
    rates = [plateau_rate(losses[:n], 1.0, PLATEAU) for n in range(len(losses) + 1)]
    np.testing.assert_allclose(rates, [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001])


def test_a_phase_stops_after_its_patience_without_any_gain():
    stopping = EarlyStopping(min_delta=0, patience=3)
    losses = [1.0, 1.1, 0.99999, 1.2, 0.99999, 1.0]
    assert [has_stalled(losses[:n], stopping) for n in range(len(losses) + 1)] == [False] * 6 + [
        True
    ]
    assert not has_stalled([*losses[:-1], 0.99998], stopping)


def test_losses_that_are_not_finite_are_no_improvement():
    losses = [math.nan, math.inf, 1.0, math.nan]
    starts = [losses[:n] for n in range(5)]
    rates = [plateau_rate(start, 1.0, PLATEAU) for start in starts]
    np.testing.assert_allclose(rates, [1, 1, 0.1, 0.1, 0.1])
    stopping = EarlyStopping(min_delta=0.1, patience=2)
    assert [has_stalled(start, stopping) for start in starts] == [False, False, True, False, False]
    # A phase has at least two epochs.
    assert not has_stalled([math.nan], EarlyStopping(min_delta=0, patience=1))


@given(
    # Keras compares in float32, which represents these numbers exactly.
    st.lists(st.integers(0, 128).map(lambda x: x / 64), max_size=30),
    st.builds(
        Plateau,
        min_delta=st.sampled_from([0, 0.125, 1]),
        patience=st.integers(1, 4),
        factor=st.sampled_from([0.1, 0.5]),
    ),
    st.builds(EarlyStopping, min_delta=st.sampled_from([0, 0.125, 1]), patience=st.integers(1, 8)),
)
def test_plateau_and_early_stopping_are_those_of_the_keras_callbacks(losses, plateau, stopping):
    model = SimpleNamespace(
        optimizer=SimpleNamespace(learning_rate=np.float64(1)), stop_training=False
    )
    callbacks = [
        keras.callbacks.ReduceLROnPlateau(
            mode="min",
            factor=plateau.factor,
            patience=plateau.patience,
            min_delta=plateau.min_delta,
        ),
        keras.callbacks.EarlyStopping(
            mode="min", patience=stopping.patience, min_delta=stopping.min_delta
        ),
    ]
    for callback in callbacks:
        callback.set_model(model)
        callback.on_train_begin()
    for n, loss in enumerate(losses):
        for callback in callbacks:
            callback.on_epoch_end(n, {"val_loss": loss})
        rate = plateau_rate(losses[: n + 1], 1.0, plateau)
        assert math.isclose(rate, model.optimizer.learning_rate, rel_tol=1e-6)
        assert has_stalled(losses[: n + 1], stopping) == model.stop_training
        if model.stop_training:
            break
