"""Training of one stage: the phases of one network."""

import hashlib
import logging
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import keras
import numpy as np
import pandas as pd

from fsat_kedro.errors import InputError
from fsat_kedro.modelling.batches import ValidationBatches
from fsat_kedro.modelling.checkpoint import Checkpoint, StageState
from fsat_kedro.modelling.crops import Batches
from fsat_kedro.modelling.encoders import ENCODER
from fsat_kedro.modelling.losses import PartlyRobustCrossentropy, metric_of_both
from fsat_kedro.modelling.networks import compiles_with_xla
from fsat_kedro.modelling.optimizer import Adam
from fsat_kedro.modelling.schedules import (
    cosine_rate,
    has_stalled,
    plateau_rate,
    triangular_rate,
)
from fsat_kedro.parameters import CosinePhase, CyclicPhase, Phase, SteadyPhase, Training

logger = logging.getLogger(__name__)


def train_stage(
    network: keras.Model,
    batches: keras.utils.PyDataset,
    validation: Batches,
    *,
    settings: Training,
    name: str,
    checkpoint: Checkpoint | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> pd.DataFrame:
    """Train a network in place through all phases.

    TensorFlow traces it once. With selection `best` every phase ends with the weights of the lowest
    validation loss of the stage so far. With `last` it ends with those of its last epoch, and
    neither the rate nor the number of epochs depends on the validation. Without phases, the network
    is only validated: its head is the result of a probe.

    Args:
        network: freshly built, or with the encoder of the stage before.
        batches: training batches; an epoch is one pass.
        validation: crops of the held-out clips.
        settings: phases, selection, plateau and early stopping.
        name: for the log, such as `fold_3 mel`.
        checkpoint: where the state is saved after each epoch. An interrupted stage resumes after
            its last saved epoch, with the same result to the last bit.
        callbacks: Keras callbacks. At the end of an epoch, `logs` holds the numbers of its row of
            the history, without NaNs. A resume first reports every restored epoch to them.

    Returns:
        The history, a row per epoch: epoch (from 1, through all phases), phase, loss, accuracy,
        val_loss, val_accuracy, val_map_at_3 (NaN without a validation), learning_rate, seconds.

    Raises:
        InputError: the loss is no longer a finite number.
    """
    fingerprint = _fingerprint(network, batches, validation, settings) if checkpoint else ""
    _compile(network, settings)
    stage = _Stage(network, settings, name, checkpoint, fingerprint)
    stage.restore(callbacks)
    _log_device(network, batches, name)
    held_out = ValidationBatches(validation)
    phases = settings.planned_phases()
    if not phases and not stage.rows:
        stage.validate(held_out, callbacks)
    for phase_name, phase in phases:
        if stage.is_over(phase_name, phase):
            continue
        if not stage.rows_of(phase_name):
            # The optimizer keeps its moments, as in the published solution.
            stage.use_best_weights()
        batches.epoch = len(stage.rows)
        network.fit(
            batches,
            validation_data=held_out,
            validation_freq=_validated_epochs(settings),
            initial_epoch=len(stage.rows),
            epochs=len(stage.rows) - len(stage.rows_of(phase_name)) + phase.epochs,
            callbacks=[_PhaseCallback(stage, phase_name, phase, len(batches)), *callbacks],
            shuffle=False,
            verbose=0,
        )
    stage.use_best_weights()
    # The optimizer is no part of a trained network, and would treble the file of its weights.
    network.optimizer = None
    return pd.DataFrame(stage.rows)


def map_at_3(accuracy: float, top_2_accuracy: float, top_3_accuracy: float) -> float:
    """Compute MAP@3 from the fractions of clips whose one true class is in the first 1, 2, 3."""
    return accuracy + (top_2_accuracy - accuracy) / 2 + (top_3_accuracy - top_2_accuracy) / 3


@dataclass(eq=False)
class _Stage:
    """The progress of a stage: its history, its best weights, and their checkpoint."""

    network: keras.Model
    settings: Training
    name: str
    checkpoint: Checkpoint | None
    fingerprint: str
    rows: list[dict] = field(default_factory=list)
    best: list[np.ndarray] = field(default_factory=list)

    def rows_of(self, phase_name: str) -> list[dict]:
        return [row for row in self.rows if row["phase"] == phase_name]

    def is_over(self, phase_name: str, phase: Phase) -> bool:
        rows = self.rows_of(phase_name)
        if len(rows) >= phase.epochs:
            return True
        if not isinstance(phase, SteadyPhase) or self.settings.selection == "last":
            return False
        return has_stalled([row["val_loss"] for row in rows], self.settings.early_stopping)

    def add(self, row: dict) -> None:
        """Append an epoch to the history, and save the state."""
        lowest = min((earlier["val_loss"] for earlier in self.rows), default=math.inf)
        self.rows.append(row)
        if self.settings.selection == "best" and row["val_loss"] < lowest:
            self.best = self.network.get_weights()
        if self.checkpoint is not None:
            optimizer = list(map(keras.ops.convert_to_numpy, self.network.optimizer.variables))
            state = StageState(self.rows, self.network.get_weights(), optimizer, self.best)
            self.checkpoint.save(self.fingerprint, state)

    def validate(
        self, held_out: ValidationBatches, callbacks: Sequence[keras.callbacks.Callback]
    ) -> None:
        """Append the validation of a network that is not trained further, as an epoch."""
        started = time.monotonic()
        logs = self.network.evaluate(held_out, verbose=0, return_dict=True)
        logs = {f"val_{name}": number for name, number in logs.items()}
        row = _row(1, "probe", {**logs, "loss": math.nan, "accuracy": math.nan}, rate=0.0)
        self.add({**row, "seconds": time.monotonic() - started})
        logger.info("%s %s", self.name, _format_epoch(self.rows[0], 0))
        for callback in callbacks:
            callback.set_model(self.network)
            callback.on_epoch_end(0, _numbers(self.rows[0]))

    def restore(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Go back to the saved state, if there is one, and report its epochs to the callbacks."""
        state = self.checkpoint.load(self.fingerprint) if self.checkpoint else None
        if state is None:
            return
        self.rows, self.best = state.rows, state.best
        self.network.set_weights(state.weights)
        for variable, value in zip(self.network.optimizer.variables, state.optimizer, strict=True):
            variable.assign(value)
        logger.info("%s: resumes after epoch %d", self.name, len(self.rows))
        for callback in callbacks:
            callback.set_model(self.network)
            for row in self.rows:
                callback.on_epoch_end(row["epoch"] - 1, _numbers(row))

    def seconds_left(self) -> float:
        """Estimate the longest time to the end, from the latest epochs."""
        phases = [phase for phase in self.settings.planned_phases() if not self.is_over(*phase)]
        n_epochs = sum(phase.epochs - len(self.rows_of(name)) for name, phase in phases)
        return n_epochs * statistics.median(row["seconds"] for row in self.rows[-5:])

    def use_best_weights(self) -> None:
        if self.best:
            self.network.set_weights(self.best)


class _PhaseCallback(keras.callbacks.Callback):
    """Sets the learning rates of a phase, adds its epochs to the stage, and ends it early.

    The rate changes before every batch of a cyclic phase, else before every epoch. For the
    callbacks after it, it replaces the epoch's logs by the numbers of the row in the history.
    """

    def __init__(self, stage: _Stage, phase_name: str, phase: Phase, n_batches: int) -> None:
        super().__init__()
        self._stage = stage
        self._phase_name = phase_name
        self._phase = phase
        self._n_batches = n_batches

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._started = time.monotonic()
        rows = self._stage.rows_of(self._phase_name)
        self._first_step = len(rows) * self._n_batches
        if isinstance(self._phase, SteadyPhase):
            rate = self._phase.rate
            if self._stage.settings.selection == "best":
                losses = [row["val_loss"] for row in rows]
                rate = plateau_rate(losses, rate, self._stage.settings.plateau)
            self.model.optimizer.learning_rate = rate

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        if isinstance(self._phase, CyclicPhase):
            self.model.optimizer.learning_rate = triangular_rate(
                self._first_step + batch,
                max(1, round(self._phase.half_cycle * self._n_batches)),
                self._phase.minimum_rate,
                self._phase.maximum_rate,
            )
        if isinstance(self._phase, CosinePhase):
            self.model.optimizer.learning_rate = cosine_rate(
                self._first_step + batch,
                warm_up=round(self._phase.warm_up * self._n_batches),
                n_steps=self._phase.epochs * self._n_batches,
                maximum=self._phase.rate,
            )

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row = _row(epoch + 1, self._phase_name, logs, rate=rate)
        row["seconds"] = time.monotonic() - self._started
        if not all(math.isfinite(logs.get(key, 0)) for key in ("loss", "val_loss")):
            raise InputError(
                f"{self._stage.name}: the loss is {row['loss']:.3g} (validation "
                f"{row['val_loss']:.3g}) in epoch {row['epoch']}, phase {self._phase_name}, "
                f"at the rate {row['learning_rate']:.1e}: lower the rates of "
                f"training.phases.{self._phase_name}"
            )
        self._stage.add(row)
        logger.info("%s %s", self._stage.name, _format_epoch(row, self._stage.seconds_left()))
        logs.clear()
        logs.update(_numbers(row))
        if self._stage.is_over(self._phase_name, self._phase):
            self.model.stop_training = True


def _row(epoch: int, phase_name: str, logs: dict, *, rate: float) -> dict:
    """Return a row of the history, without its seconds, from Keras' numbers of an epoch."""
    accuracies = (logs.get(f"val_{x}accuracy", math.nan) for x in ("", "top_2_", "top_3_"))
    return {
        "epoch": epoch,
        "phase": phase_name,
        "loss": logs["loss"],
        "accuracy": logs["accuracy"],
        "val_loss": logs.get("val_loss", math.nan),
        "val_accuracy": logs.get("val_accuracy", math.nan),
        "val_map_at_3": map_at_3(*accuracies),
        "learning_rate": rate,
    }


def _compile(network: keras.Model, settings: Training) -> None:
    optimizer = Adam(weight_decay=settings.weight_decay or None)
    # Neither biases nor normalisations, which decay would pull away from what they are for.
    kept = [weights for weights in network.trainable_variables if len(weights.shape) < 2]
    optimizer.exclude_from_weight_decay(kept)
    accuracies = {
        "accuracy": keras.metrics.categorical_accuracy,
        "top_2_accuracy": partial(keras.metrics.top_k_categorical_accuracy, k=2),
        "top_3_accuracy": partial(keras.metrics.top_k_categorical_accuracy, k=3),
    }
    q = settings.label_noise.robustness
    metric = metric_of_both if q else keras.metrics.MeanMetricWrapper
    network.compile(
        optimizer=optimizer,
        loss=PartlyRobustCrossentropy(q) if q else "categorical_crossentropy",
        metrics=[metric(function, name=name) for name, function in accuracies.items()],
        jit_compile=compiles_with_xla(),
    )
    # Left to the first step, this makes TensorFlow trace that step twice, ten seconds each.
    network.optimizer.build(network.trainable_variables)


def _fingerprint(
    network: keras.Model,
    batches: keras.utils.PyDataset,
    validation: Batches,
    settings: Training,
) -> str:
    """Compute a digest of everything that determines the stage."""
    versions = f"{keras.backend.backend()} {keras.version()}"
    digest = hashlib.sha256(f"{versions} {settings.model_dump_json()}".encode())
    for array in network.get_weights():
        digest.update(array.tobytes())
    digest.update(bytes(variable.trainable for variable in network.weights))
    for part in (batches, validation):
        for index in range(len(part)):
            inputs, targets = part[index]
            for array in (*inputs, targets):
                digest.update(array.tobytes())
    return digest.hexdigest()


def _log_device(network: keras.Model, batches: keras.utils.PyDataset, name: str) -> None:
    logger.info(
        "%s: %d batches an epoch, in %s, by %s on %s, %s XLA",
        name,
        len(batches),
        network.get_layer(ENCODER).dtype_policy.name,
        keras.backend.backend(),
        str(keras.ops.zeros(()).device).rpartition("device:")[2],
        "with" if network.jit_compile else "without",
    )


def _validated_epochs(settings: Training) -> list[int]:
    """Return the numbers of the epochs that end with a validation, as a stage's last one does."""
    n_epochs = sum(phase.epochs for _, phase in settings.planned_phases())
    every = settings.validate_every
    return sorted({*range(every, n_epochs + 1, every), n_epochs})


def _format_epoch(row: dict, seconds_left: float) -> str:
    losses = "epoch {epoch}, {phase}: loss {loss:.3f}".format(**row)
    if not math.isnan(row["val_loss"]):
        losses += ", val_loss {val_loss:.3f}, val_map_at_3 {val_map_at_3:.3f}".format(**row)
    left = timedelta(seconds=round(seconds_left))
    return f"{losses}, rate {row['learning_rate']:.1e}, {row['seconds']:.1f} s, {left} left"


def _numbers(row: dict) -> dict[str, float]:
    """Return the numbers of a row of the history, without NaNs."""
    return {k: x for k, x in row.items() if k not in ("epoch", "phase") and not math.isnan(x)}
