"""The parts of a stage by hand, and one whole small stage in which all three phases happen.

The stage: a narrow network, a dozen clips of three classes, 32 bands. The phase `low` never
falls by its min_delta: after the first epoch its rate is lowered each time, and it stops after
two more. The phase `high` has a rate at which the network gets worse.
"""

import contextvars
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsat_kedro import metrics, model, training
from fsat_kedro.batches import Clips, TrainingBatches, ViewBatches
from fsat_kedro.parameters import Model, Training
from fsat_kedro.ragged import RaggedArray

SIZES = {"n_mels": 32, "n_classes": 3}
NARROW = Model(weights=None, width=0.35, momentum={"backbone": 0.9, "others": 0.9})
STAGE = Training(
    batch_size=6,
    selection="best",
    augmentation={
        "shift": 0.1,
        "flip": 0.5,
        "erase": {"probability": 0.5, "area": (0.02, 0.2), "aspect": 0.3},
    },
    mixup_alpha={"mel": 0.2, "mel_pca": 0.2},
    phases={
        "cyclic": {"epochs": 2, "minimum_rate": 1e-4, "maximum_rate": 1e-3},
        "low": {"epochs": 9, "rate": 1e-4},
        "high": {"epochs": 2, "rate": 0.3},
    },
    plateau={"min_delta": 10, "patience": 1, "factor": 0.1, "stop_after": 2},
)


@pytest.fixture(scope="module")
def stage():
    """A trained network, its history, what the listener heard, and the validation views."""
    import keras

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    labels = np.arange(18) % 3
    values = rng.random((18, 36, 32), dtype=np.float32)
    for mel, label in zip(values, labels, strict=True):
        mel[:, 10 * label : 10 * label + 10] += 2
    mels = RaggedArray(values.reshape(-1, 32), np.arange(0, 18 * 36 + 1, 36))
    fnames = [f"{index}.wav" for index in range(18)]
    statistics = {"minimum": 0.0, "maximum": 3.0}
    targets = np.eye(3, dtype=np.float32)[labels]
    batches = TrainingBatches(
        Clips(np.arange(12), fnames, mels, None, statistics),
        targets,
        batch_size=STAGE.batch_size,
        length_range=(32, 40),
        augmentation=STAGE.augmentation,
        mixup_alpha=STAGE.mixup_alpha.mel,
        seed=0,
    )
    held_out = Clips(np.arange(12, 18), fnames, mels, None, statistics)
    views = ViewBatches(
        held_out, lengths=[32, 36, 40], n_spans=1, batch_size=6, seed=0, targets=targets
    )
    network = model.build_network(NARROW, weights=None, **SIZES)
    heard = []

    def train():
        training.report_epochs_to(lambda metrics, epoch: heard.append((epoch, metrics)))
        return training.train_stage(network, batches, views, settings=STAGE, name="fold_1 mel")

    history = contextvars.copy_context().run(train)
    return SimpleNamespace(network=network, history=history, heard=heard, views=views)


# By hand


def test_the_rate_goes_up_and_down_in_a_triangle():
    rates = [training.triangular_rate(step, 4, 0.1, 0.5) for step in range(13)]
    triangle = [0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2]
    np.testing.assert_allclose(rates, [*triangle, *triangle[:5]])


@given(st.integers(0, 10_000), st.integers(1, 500))
def test_the_rate_stays_between_its_bounds_and_repeats(step, half_cycle):
    rate = training.triangular_rate(step, half_cycle, 1e-4, 1e-3)
    assert 1e-4 - 1e-12 <= rate <= 1e-3 + 1e-12
    later = training.triangular_rate(step + 2 * half_cycle, half_cycle, 1e-4, 1e-3)
    assert later == pytest.approx(rate, abs=1e-9)


def test_map_at_3_from_shares_is_that_of_the_ranks(rng):
    probabilities = rng.dirichlet(np.ones(6), size=50)
    targets = rng.integers(6, size=50)
    ranks = (probabilities > probabilities[np.arange(50), targets][:, None]).sum(axis=1)
    shares = [(ranks < k).mean() for k in (1, 2, 3)]
    assert training.map_at_3(*shares) == pytest.approx(metrics.map_at_k(targets, probabilities))
    assert training.map_at_3(0.5, 0.7, 1.0) == pytest.approx(0.5 + 0.1 + 0.1)


@pytest.mark.parametrize(("loss", "val_loss"), [(math.nan, 1.0), (1.0, math.inf)])
def test_a_loss_that_is_no_number_stops_training_with_advice(loss, val_loss):
    recorder = training._Recorder("fold_3 mel", 10)
    recorder.phase = "cyclic"
    message = r"fold_3 mel: .* epoch 5, phase cyclic: lower the learning rate"
    with pytest.raises(FloatingPointError, match=message):
        recorder.on_epoch_end(4, {"loss": loss, "val_loss": val_loss})
    assert not recorder.rows


# A whole stage


def test_the_history_has_a_row_an_epoch_numbered_through_the_phases(stage):
    history = stage.history
    assert history.columns.tolist() == [
        *("epoch", "phase", "loss", "accuracy", "val_loss", "val_accuracy", "val_map_at_3"),
        *("learning_rate", "seconds"),
    ]
    assert history["epoch"].tolist() == list(range(1, 8))
    assert history["phase"].tolist() == ["cyclic"] * 2 + ["low"] * 3 + ["high"] * 2
    assert np.isfinite(history.drop(columns="phase").to_numpy(float)).all()
    assert history["val_map_at_3"].between(1 / 3, 1).all()
    assert (history["val_map_at_3"] >= history["val_accuracy"]).all()


def test_the_listener_hears_every_epoch_as_it_stands_in_the_history(stage):
    rows = [
        (row["epoch"], {key: row[key] for key in stage.heard[0][1]})
        for row in stage.history.to_dict("records")
    ]
    assert stage.heard == rows
    assert set(stage.heard[0][1]) == set(stage.history) - {"epoch", "phase"}


def test_every_phase_has_its_rates(stage):
    rates = stage.history.groupby("phase")["learning_rate"].agg(list)
    # Two batches an epoch: an epoch up ends half-way, one down likewise.
    np.testing.assert_allclose(rates["cyclic"], [5.5e-4, 5.5e-4], rtol=1e-5)
    np.testing.assert_allclose(rates["low"], [1e-4, 1e-4, 1e-5], rtol=1e-5)
    np.testing.assert_allclose(rates["high"], [0.3, 0.3], rtol=1e-5)


def test_the_stage_ends_with_the_weights_of_its_lowest_validation_loss(stage):
    losses = []
    for index in range(len(stage.views)):
        (mel,), targets = stage.views[index]
        probabilities = stage.network.predict_on_batch(mel)
        losses.extend(-np.log((probabilities * targets).sum(axis=1)))
    lowest = stage.history["val_loss"].min()
    assert np.mean(losses) == pytest.approx(lowest, rel=1e-3)
    assert stage.history["val_loss"].iloc[-1] > 1.01 * lowest
