"""The parts of a stage by hand, and one small stage with all three phases.

The stage has a small network and a dozen clips of three classes, 32 bands. In phase `low` the loss
never falls by min_delta: the rate is reduced after every epoch, and the phase stops early. The
rates of phases `low` and `high` make the network worse.
"""

import logging
import re
from dataclasses import replace

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.errors import InputError
from fsat_kedro.evaluation import metrics
from fsat_kedro.modelling import training
from fsat_kedro.modelling.batches import TrainingBatches
from fsat_kedro.modelling.checkpoint import Checkpoint, StageState
from fsat_kedro.modelling.crops import Clips, CropBatches
from fsat_kedro.modelling.encoders import ENCODER
from fsat_kedro.modelling.normalisation import BatchNormalization
from fsat_kedro.parameters import TestTimeCrops, Training

STAGE = Training(
    batch_size=6,
    n_lengths=None,
    selection="best",
    validate_every=1,
    augmentation={
        "shift": 0.1,
        "flip": 0.5,
        "erase": {"probability": 0.5, "area": (0.02, 0.2), "aspect": 0.3},
        "roll": 0,
        "gain": 0,
        "time_mask": 0,
        "frequency_mask": 0,
    },
    mixup_alpha={"mel": 0.2, "mel_pca": 0.2},
    label_noise={"rounds": 0, "robustness": 0, "unknown": "verified"},
    weight_decay=0,
    probe=False,
    probe_only=False,
    probe_fraction=0,
    phases={
        "cyclic": {"epochs": 2, "half_cycle": 1, "minimum_rate": 1e-4, "maximum_rate": 1e-3},
        "low": {"epochs": 9, "rate": 30},
        "high": {"epochs": 2, "rate": 30},
        "cosine": {"epochs": 0, "warm_up": 0, "rate": 1e-3},
    },
    plateau={"min_delta": 10, "patience": 1, "factor": 0.1},
    early_stopping={"min_delta": 10, "patience": 2},
)


def small_network():
    """Build a network with the same inputs and outputs that is traced in a second."""
    mel = keras.Input((32, None, 1), name="mel")
    convolved = layers.Conv2D(8, 3, strides=2)(mel)
    encoder = keras.Model(mel, BatchNormalization(momentum=0.5)(convolved), name=ENCODER)
    features = layers.GlobalAveragePooling2D()(layers.ReLU()(encoder(mel)))
    return keras.Model([mel], layers.Dense(3, activation="softmax")(features))


class Interrupted(Exception):
    """Stands for a kill: nothing is cleaned up after it."""


class Phases(keras.callbacks.Callback):
    """Notes what the network and its optimizer are at the start of each phase and after epochs."""

    def __init__(self):
        super().__init__()
        self.starts, self.ends = [], []

    def state(self):
        # The rate is set by the phase.
        rate = self.model.optimizer.learning_rate
        moments = [x for x in self.model.optimizer.variables if x is not rate]
        return self.model.get_weights(), [keras.ops.convert_to_numpy(x) for x in moments]

    def on_train_begin(self, logs=None):
        self.starts.append((len(self.ends), *self.state()))

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append(self.state())


def messages_of(caplog):
    """Return what the training logged; TensorFlow may log something too."""
    return [x.getMessage() for x in caplog.records if x.name == training.logger.name]


class Setup:
    """A new network and its batches, always the same."""

    def __init__(self, seed=0):
        keras.utils.set_random_seed(seed)
        rng = np.random.default_rng(0)
        labels = np.arange(18) % 3
        values = rng.random((18, 36, 32), dtype=np.float32)
        # A tone that lasts, one that repeats, or none: what tells them apart is local.
        values[labels == 0, :, ::2] += 2
        values[labels == 1, ::2] += 2
        mels = RaggedArray(values.reshape(-1, 32), np.arange(0, 18 * 36 + 1, 36))
        fnames = [f"{index}.wav" for index in range(18)]
        statistics = {"minimum": 0.0, "maximum": 3.0, "shortest": 32, "longest": 40}
        targets = np.eye(3, dtype=np.float32)[labels]
        self.batches = TrainingBatches(
            Clips(np.arange(12), fnames, mels, None, statistics, targets),
            batch_size=STAGE.batch_size,
            lengths=range(32, 41),
            augmentation=STAGE.augmentation,
            mixup_alpha=STAGE.mixup_alpha.mel,
            seed=0,
        )
        held_out = Clips(np.arange(12, 18), fnames, mels, None, statistics, targets)
        crops = TestTimeCrops(n_lengths=3, crops_per_length=1, subset="all", batch_size=6)
        self.validation = CropBatches(held_out, crops, seed=(0,))
        self.network = small_network()
        self.reported = []
        self.phases = Phases()

    def train(self, settings=STAGE, *, checkpoint=None, interrupt_in=None):
        """Train the network; with `interrupt_in`, until the middle of that epoch."""
        callback = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: self.reported.append((epoch, dict(logs)))
        )
        if interrupt_in is not None:
            get = self.batches.__class__.__getitem__

            def interrupted(batches, index):
                if (len(self.reported), index) == (interrupt_in - 1, 1):
                    raise Interrupted("interrupted")
                return get(batches, index)

            kind = type("InterruptedBatches", (TrainingBatches,), {"__getitem__": interrupted})
            self.batches.__class__ = kind
        self.history = training.train_stage(
            self.network,
            self.batches,
            self.validation,
            settings=settings,
            name="fold_1 mel",
            checkpoint=None if checkpoint is None else Checkpoint(checkpoint),
            callbacks=[callback, self.phases],
        )
        return self


@pytest.fixture(scope="module")
def stage():
    """Train a stage without interruption."""
    return Setup().train()


# By hand


def test_map_at_3_from_fractions_is_that_of_the_ranks(rng):
    probabilities = rng.dirichlet(np.ones(6), size=50)
    targets = rng.integers(6, size=50)
    ranks = (probabilities > probabilities[np.arange(50), targets][:, None]).sum(axis=1)
    fractions = [(ranks < k).mean() for k in (1, 2, 3)]
    assert training.map_at_3(*fractions) == pytest.approx(metrics.map_at_k(targets, probabilities))
    assert training.map_at_3(0.5, 0.7, 1.0) == pytest.approx(0.5 + 0.1 + 0.1)


def test_the_metrics_of_a_network_give_the_map_at_3_of_its_predictions(rng):
    network = keras.Sequential([keras.Input((4,)), layers.Dense(6, activation="softmax")])
    training._compile(network, STAGE)
    features = rng.normal(size=(40, 4)).astype(np.float32)
    targets = rng.integers(6, size=40)
    found = network.evaluate(features, np.eye(6)[targets], verbose=0, return_dict=True)
    ours = training.map_at_3(*(found[f"{x}accuracy"] for x in ("", "top_2_", "top_3_")))
    expected = metrics.map_at_k(targets, network.predict_on_batch(features))
    assert ours == pytest.approx(expected, abs=1e-6)


def test_an_epoch_is_logged_with_its_numbers_and_the_time_left():
    row = {
        "epoch": 12,
        "phase": "low",
        "loss": 0.12345,
        "val_loss": 1.5,
        "val_map_at_3": 0.91,
        "learning_rate": 1e-5,
        "seconds": 61.26,
    }
    assert training._format_epoch(row, 3725.4) == (
        "epoch 12, low: loss 0.123, val_loss 1.500, val_map_at_3 0.910, rate 1.0e-05, 61.3 s, "
        "1:02:05 left"
    )
    without = training._format_epoch({**row, "val_loss": np.nan}, 59.7)
    assert without == "epoch 12, low: loss 0.123, rate 1.0e-05, 61.3 s, 0:01:00 left"


def test_the_time_left_is_that_of_all_epochs_to_come_at_the_median_of_the_last_five():
    rows = [{"phase": "cyclic", "val_loss": 1.0, "seconds": x} for x in (90.0, 90.0)]
    # The phase is not over, and could have seven more epochs; the last phase has two.
    rows += [
        {"phase": "low", "val_loss": -20.0 * n, "seconds": x} for n, x in enumerate((3.0, 1.0))
    ]
    stage = training._Stage(None, STAGE, "fold_1 mel", None, "", rows)
    assert stage.seconds_left() == 9 * (3.0 + 90.0) / 2
    rows += [{"phase": "low", "val_loss": -20.0 * n, "seconds": n} for n in (2, 5, 6)]
    assert stage.seconds_left() == 6 * 3.0


@pytest.mark.parametrize(("selection", "best"), [("best", 0.4), ("last", None)])
def test_the_best_weights_are_those_of_the_first_epoch_with_the_lowest_validation_loss(
    selection, best
):
    settings = STAGE.model_copy(update={"selection": selection})
    stage = training._Stage(small_network(), settings, "fold_1 mel", None, "")
    empty = stage.network.get_weights()
    for loss, weight in [(0.7, 0.1), (0.5, 0.2), (0.3, 0.4), (0.3, 0.5), (0.6, 0.6)]:
        stage.network.set_weights([np.full_like(array, weight) for array in empty])
        stage.add({"val_loss": loss})
    assert [array.flat[0] for array in stage.best] == (
        [] if best is None else [np.float32(best)] * len(empty)
    )


@pytest.mark.parametrize(
    ("epochs", "every", "validated"),
    [(3, 1, [1, 2, 3]), (5, 2, [2, 4, 5]), (4, 2, [2, 4]), (2, 9, [2])],
)
def test_every_so_many_epochs_and_the_last_end_with_a_validation(epochs, every, validated):
    settings = changed(STAGE, epochs=epochs, selection="last", validate_every=every)
    assert training._validated_epochs(settings) == validated


def phase_callback(phase, *, n_batches, n_epochs=0, settings=STAGE):
    """Make the callback of a phase that has had some epochs, with a network of its own."""
    network = small_network()
    training._compile(network, settings)
    rows = [{"phase": phase, "val_loss": 1.0, "seconds": 1.0}] * n_epochs
    stage = training._Stage(network, settings, "fold_1 mel", None, "", rows)
    callback = training._PhaseCallback(stage, phase, getattr(settings.phases, phase), n_batches)
    callback.set_model(network)
    return callback


@pytest.mark.parametrize(
    ("n_batches", "n_epochs", "rates"),
    [
        (4, 0, [1e-4, 3.25e-4, 5.5e-4, 7.75e-4]),
        (4, 1, [1e-3, 7.75e-4, 5.5e-4, 3.25e-4]),
        # Of a single batch an epoch: the shortest half cycle.
        (1, 0, [1e-4]),
        (1, 1, [1e-3]),
    ],
)
def test_every_batch_of_a_cyclic_phase_has_its_rate(n_batches, n_epochs, rates):
    callback = phase_callback("cyclic", n_batches=n_batches, n_epochs=n_epochs)
    callback.on_epoch_begin(n_epochs)
    for batch, rate in enumerate(rates):
        callback.on_train_batch_begin(batch)
        ours = callback.model.optimizer.learning_rate
        assert float(keras.ops.convert_to_numpy(ours)) == pytest.approx(rate, rel=1e-5)


def test_every_batch_of_a_cosine_phase_has_its_rate():
    phases = {**STAGE.phases.model_dump(), "cosine": {"epochs": 3, "warm_up": 0.5, "rate": 0.8}}
    settings = Training.model_validate({**STAGE.model_dump(), "phases": phases})
    for n_epochs, rates in (
        # Of 12 batches, 2 for the warm-up.
        (0, [0.4, 0.8, 0.8, 0.4 * (1 + np.cos(np.pi / 10))]),
        (2, [0.4 * (1 + np.cos(np.pi * n / 10)) for n in (6, 7, 8, 9)]),
    ):
        callback = phase_callback("cosine", n_batches=4, n_epochs=n_epochs, settings=settings)
        callback.on_epoch_begin(n_epochs)
        for batch, rate in enumerate(rates):
            callback.on_train_batch_begin(batch)
            ours = callback.model.optimizer.learning_rate
            assert float(keras.ops.convert_to_numpy(ours)) == pytest.approx(rate, rel=1e-5)


@pytest.mark.parametrize("weight_decay", [0, 0.5])
def test_weight_decay_is_of_kernels_alone(weight_decay):
    network = small_network()
    # Biases and normalisations begin with zeros and ones.
    network.set_weights([weights + 1 for weights in network.get_weights()])
    training._compile(network, STAGE.model_copy(update={"weight_decay": weight_decay}))
    network.optimizer.learning_rate = 0.1
    before = {x.path: keras.ops.convert_to_numpy(x) for x in network.trainable_variables}
    zeros = [keras.ops.zeros_like(x) for x in network.trainable_variables]
    network.optimizer.apply(zeros, network.trainable_variables)
    assert {path.rpartition("/")[2] for path in before} == {"kernel", "bias", "gamma", "beta"}
    for variable in network.trainable_variables:
        kept = 1 - 0.1 * weight_decay * (variable.name == "kernel")
        found = keras.ops.convert_to_numpy(variable)
        np.testing.assert_allclose(found, kept * before[variable.path], rtol=1e-6)


def test_a_robust_loss_is_of_labels_that_are_not_verified():
    network = small_network()
    noise = STAGE.label_noise.model_copy(update={"robustness": 0.7})
    training._compile(network, STAGE.model_copy(update={"label_noise": noise}))
    mel = np.random.default_rng(0).random((4, 32, 33, 1), np.float32)
    labels, verified = np.array([0, 1, 2, 0]), np.array([True, False, True, False])
    targets = np.eye(3, dtype=np.float32)[labels]
    both = np.hstack([targets * verified[:, None], targets * ~verified[:, None]])
    probabilities = network.predict_on_batch([mel])
    own = probabilities[np.arange(4), labels]
    logs = network.test_on_batch([mel], both, return_dict=True)
    expected = np.where(verified, -np.log(own), (1 - own**0.7) / 0.7).mean()
    assert logs["loss"] == pytest.approx(expected, rel=1e-4)
    assert logs["accuracy"] == pytest.approx((probabilities.argmax(axis=1) == labels).mean())


@pytest.mark.parametrize("selection", ["best", "last"])
def test_only_the_selection_by_validation_reduces_the_rate_of_a_steady_phase(selection):
    callback = phase_callback("low", n_batches=2, n_epochs=2)
    settings = STAGE.model_copy(update={"selection": selection})
    callback._stage.settings = settings
    callback.on_epoch_begin(2)
    ours = float(keras.ops.convert_to_numpy(callback.model.optimizer.learning_rate))
    assert ours == pytest.approx(3 if selection == "best" else 30)


LOGS = {"loss": 1.0, "accuracy": 0.5, "val_loss": 2.0, "val_accuracy": 0.5}


@pytest.mark.parametrize(("name", "loss"), [("loss", np.nan), ("val_loss", np.inf)])
def test_neither_loss_may_be_anything_but_a_number(name, loss):
    callback = phase_callback("low", n_batches=2)
    callback.on_epoch_begin(0)
    with pytest.raises(InputError, match=r"the loss is .*training\.phases\.low"):
        callback.on_epoch_end(0, {**LOGS, name: loss})
    assert callback._stage.rows == []


def test_an_epoch_lasts_from_its_beginning_to_its_end(monkeypatch):
    callback = phase_callback("low", n_batches=2)
    moments = iter([100.0, 107.5])
    monkeypatch.setattr(training.time, "monotonic", lambda: next(moments))
    callback.on_epoch_begin(0)
    logs = dict(LOGS)
    callback.on_epoch_end(0, logs)
    (row,) = callback._stage.rows
    assert row["seconds"] == logs["seconds"] == 7.5
    # Without what has no number, and what is none.
    assert set(logs) == {*LOGS, "learning_rate", "seconds"}


# A whole stage


def test_the_history_has_a_row_for_each_epoch_numbered_through_the_phases(stage):
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


def test_callbacks_get_the_numbers_of_every_row_of_the_history(stage):
    names = [name for name in stage.history if name not in ("epoch", "phase")]
    rows = stage.history.to_dict("records")
    expected = [(row["epoch"] - 1, {name: row[name] for name in names}) for row in rows]
    assert stage.reported == expected


def test_every_phase_has_its_rates(stage):
    rates = stage.history.groupby("phase")["learning_rate"].agg(list)
    # With two batches an epoch, the last rate of every epoch is half-way.
    np.testing.assert_allclose(rates["cyclic"], [5.5e-4, 5.5e-4], rtol=1e-5)
    np.testing.assert_allclose(rates["low"], [30, 30, 3], rtol=1e-5)
    np.testing.assert_allclose(rates["high"], [30, 30], rtol=1e-5)


def assert_equal_arrays(ours, expected):
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_phase_starts_from_the_weights_of_the_lowest_validation_loss_so_far(stage):
    losses = stage.history["val_loss"].tolist()
    starts = stage.phases.starts[1:]
    assert [n for n, _, _ in starts] == [2, 5]
    for n, weights, _ in starts:
        assert_equal_arrays(weights, stage.phases.ends[int(np.argmin(losses[:n]))][0])
    assert min(losses[:5]) < losses[4]


def test_the_optimizer_keeps_its_moments_from_phase_to_phase(stage):
    n, _, moments = stage.phases.starts[0]
    assert n == 0
    assert not any(np.any(moment) for moment in moments)
    for n, _, moments in stage.phases.starts[1:]:
        assert all(np.any(moment) for moment in moments)
        assert_equal_arrays(moments, stage.phases.ends[n - 1][1])


def test_the_stage_ends_with_the_weights_of_its_lowest_validation_loss(stage):
    losses = []
    for index in range(len(stage.validation)):
        (mel,), targets = stage.validation[index]
        probabilities = stage.network.predict_on_batch(mel)
        losses.extend(-np.log((probabilities * targets).sum(axis=1)))
    lowest = stage.history["val_loss"].min()
    assert np.mean(losses) == pytest.approx(lowest, rel=1e-3)
    assert stage.history["val_loss"].iloc[-1] > 1.01 * lowest


def test_a_stage_learns_to_tell_sounds_apart():
    trained = Setup().train(changed(STAGE, epochs=8, maximum_rate=0.05))
    first, last = trained.history.iloc[0], trained.history.iloc[-1]
    assert last["val_accuracy"] > 0.9
    assert last["val_map_at_3"] > 0.9
    assert last["val_loss"] < first["val_loss"] / 2
    assert last["loss"] < first["loss"]


@pytest.mark.parametrize(
    ("phase", "losses", "is_over"),
    [
        # Any gain counts, even if it is too small to keep the rate.
        ("low", [1.0, 0.9, 0.8, 0.7], False),
        ("low", [0.7, 0.8, 0.7], True),
        ("low", [1.0] + [0.5] * 8, True),
        ("cyclic", [1.0], False),
        ("cyclic", [0.7, 0.8], True),
    ],
)
def test_a_phase_is_over_after_its_epochs_or_its_patience_without_any_gain(phase, losses, is_over):
    stopping = {"min_delta": 0, "patience": 2}
    settings = Training.model_validate({**STAGE.model_dump(), "early_stopping": stopping})
    # Those of another phase do not count.
    rows = [{"phase": "high", "val_loss": 0.1}] * 9
    rows += [{"phase": phase, "val_loss": loss} for loss in losses]
    stage = training._Stage(None, settings, "fold_1 mel", None, "", rows)
    assert stage.is_over(phase, getattr(settings.phases, phase)) == is_over
    last = training._Stage(
        None, settings.model_copy(update={"selection": "last"}), "", None, "", rows
    )
    assert last.is_over(phase, getattr(settings.phases, phase)) == (len(losses) in (2, 9))


# Interruptions


def assert_same_stage(ours, expected):
    columns = [column for column in expected.history if column != "seconds"]
    assert ours.history[columns].equals(expected.history[columns])
    for one, other in zip(ours.network.get_weights(), expected.network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [epoch for epoch, _ in ours.reported] == list(range(len(ours.history)))


def test_an_interrupted_stage_resumes_with_the_same_result(stage, tmp_path, caplog):
    checkpoint = tmp_path / "mel.checkpoint.npz"
    # Inside a phase; at its end, after which the next starts from the best weights; in the last.
    for epoch in (2, 3, 7):
        with pytest.raises(Exception, match="interrupted"):
            Setup().train(checkpoint=checkpoint, interrupt_in=epoch)
    with caplog.at_level(logging.INFO, training.logger.name):
        resumed = Setup().train(checkpoint=checkpoint)
    assert "fold_1 mel: resumes after epoch 6" in messages_of(caplog)
    assert_same_stage(resumed, stage)
    # Finished, but its outputs are not saved: there is nothing left to train.
    again = Setup().train(checkpoint=checkpoint, interrupt_in=1 + len(stage.history))
    assert_same_stage(again, stage)
    assert again.history.equals(resumed.history)


PROBE_ONLY = STAGE.model_copy(update={"probe": True, "probe_only": True})


@pytest.mark.parametrize("selection", ["best", "last"])
def test_a_stage_without_phases_is_validated_once_and_not_trained(selection, caplog):
    setup = Setup()
    before = setup.network.get_weights()
    with caplog.at_level(logging.INFO, training.logger.name):
        setup.train(PROBE_ONLY.model_copy(update={"selection": selection}))
    assert_equal_arrays(setup.network.get_weights(), before)
    probabilities = [
        (setup.network.predict_on_batch(inputs[0]) * targets).sum(axis=1)
        for inputs, targets in map(setup.validation.__getitem__, range(len(setup.validation)))
    ]
    (row,) = setup.history.to_dict("records")
    assert (row["epoch"], row["phase"], row["learning_rate"]) == (1, "probe", 0)
    assert row["val_loss"] == pytest.approx(-np.log(probabilities).mean(), rel=1e-5)
    assert 0 < row["val_accuracy"] <= row["val_map_at_3"] <= 1
    assert np.isnan([row["loss"], row["accuracy"]]).all()
    ((epoch, logs),) = setup.reported
    assert epoch == 0
    names = ("val_loss", "val_accuracy", "val_map_at_3", "learning_rate", "seconds")
    assert logs == {name: row[name] for name in names}
    assert "epoch 1, probe: loss nan, val_loss" in messages_of(caplog)[-1]
    assert setup.phases.starts == []
    assert setup.network.optimizer is None


def test_a_stage_without_phases_is_not_validated_again_when_it_resumes(tmp_path, monkeypatch):
    checkpoint = tmp_path / "mel.checkpoint.npz"
    first = Setup().train(PROBE_ONLY, checkpoint=checkpoint)
    monkeypatch.setattr(training._Stage, "validate", None)
    again = Setup().train(PROBE_ONLY, checkpoint=checkpoint)
    assert_same_stage(again, first)
    assert again.history.equals(first.history)
    with pytest.raises(TypeError, match="not callable"):
        Setup(seed=1).train(PROBE_ONLY, checkpoint=checkpoint)


@pytest.mark.parametrize("change", ["network", "settings", "clips", "validation", "keras"])
def test_the_checkpoint_of_another_stage_has_another_fingerprint(tmp_path, change, monkeypatch):
    def fingerprint(setup, settings=STAGE):
        return training._fingerprint(setup.network, setup.batches, setup.validation, settings)

    checkpoint = Checkpoint(tmp_path / "mel.checkpoint.npz")
    checkpoint.save(fingerprint(Setup()), StageState([], [], [], []))
    assert checkpoint.load(fingerprint(Setup())) is not None
    setup, settings = Setup(seed=int(change == "network")), STAGE
    if change == "settings":
        settings = STAGE.model_copy(update={"batch_size": 7})
    elif change == "clips":
        setup.batches._clips.mels.values[-1] += 1  # Of a clip that is held out.
    elif change == "validation":
        clips = setup.validation.clips
        setup.validation.clips = replace(clips, targets=clips.targets[::-1])
    elif change == "keras":
        monkeypatch.setattr(keras, "version", lambda: "0.1")
    assert checkpoint.load(fingerprint(setup, settings)) is None


def test_a_stage_with_frozen_layers_has_another_fingerprint():
    setup = Setup()
    arguments = (setup.network, setup.batches, setup.validation, STAGE)
    before = training._fingerprint(*arguments)
    setup.network.get_layer(ENCODER).layers[1].trainable = False
    assert training._fingerprint(*arguments) != before


def test_a_stage_does_not_resume_from_the_checkpoint_of_another(tmp_path):
    checkpoint = tmp_path / "mel.checkpoint.npz"
    settings = changed(STAGE, epochs=2)
    Setup(seed=1).train(settings, checkpoint=checkpoint)
    trained = Setup().train(settings, checkpoint=checkpoint)
    assert_same_stage(trained, Setup().train(settings))


def changed(settings, *, epochs, maximum_rate=1e-3, **changes):
    """Change settings to a cyclic phase only, of some epochs."""
    phases = settings.phases.model_dump()
    phases = {name: {**phase, "epochs": 0} for name, phase in phases.items()}
    phases["cyclic"].update(epochs=epochs, maximum_rate=maximum_rate)
    return Training.model_validate({**settings.model_dump(), "phases": phases, **changes})


def test_an_epoch_without_validation_has_no_numbers_of_it(caplog, capsys):
    settings = changed(STAGE, epochs=3, selection="last", validate_every=2)
    with caplog.at_level(logging.INFO, training.logger.name):
        trained = Setup().train(settings)
    assert capsys.readouterr() == ("", "")
    device, *epochs = messages_of(caplog)
    backend = keras.backend.backend()
    assert device.startswith(f"fold_1 mel: 2 batches an epoch, in float32, by {backend} on ")
    assert re.search(r" on \w+(:0)?, with(out)? XLA$", device)
    assert [re.match(r"fold_1 mel epoch (\d), cyclic: loss ", line)[1] for line in epochs] == [
        *"123"
    ]
    assert trained.history["val_loss"].isna().tolist() == [True, False, False]
    assert trained.history["loss"].notna().all()
    assert ["val_map_at_3" in logs for _, logs in trained.reported] == [False, True, True]


def test_a_loss_that_is_not_finite_stops_the_training_with_advice():
    setup = Setup()
    weights = setup.network.get_weights()
    setup.network.set_weights([*weights[:-1], np.full(3, np.nan, np.float32)])
    message = r"fold_1 mel: the loss is nan .* epoch 1, phase cyclic, .*: lower the rates of"
    with pytest.raises(InputError, match=message):
        setup.train(changed(STAGE, epochs=2))
    assert not setup.reported


def test_a_trained_network_has_no_optimizer(stage, tmp_path):
    path = tmp_path / "mel.weights.h5"
    stage.network.save_weights(path)
    with h5py.File(path) as file:
        assert "optimizer" not in file
