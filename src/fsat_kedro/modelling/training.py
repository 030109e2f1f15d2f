"""One stage of training: three phases of one network."""

import hashlib
import logging
import math
import statistics
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from fsat_kedro.errors import InputError
from fsat_kedro.modelling.checkpoint import Checkpoint, StageState
from fsat_kedro.modelling.networks import ENCODER, compiles_with_xla
from fsat_kedro.modelling.schedules import has_stalled, plateau_rate, triangular_rate
from fsat_kedro.parameters import CyclicPhase, SteadyPhase, Training

logger = logging.getLogger(__name__)

EpochListener = Callable[[dict[str, float], int], None]
Sender = Callable[[Path], None]
_listener: ContextVar[EpochListener | None] = ContextVar("epoch_listener", default=None)
_checkpoint_place: ContextVar[tuple[Path, Sender | None] | None] = ContextVar(
    "checkpoint_place", default=None
)


def report_epochs_to(listener: EpochListener) -> None:
    """Have `listener` called with metrics and number of every epoch that ends in this thread."""
    _listener.set(listener)


def keep_checkpoint_at(path: Path, send: Sender | None = None) -> None:
    """Have the next stage that this thread trains keep its state at `path`, or go on from it.

    Args:
        path: of an `.npz` file.
        send: called with the path whenever it is written.
    """
    _checkpoint_place.set((path, send))


def map_at_3(accuracy: float, top_2_accuracy: float, top_3_accuracy: float) -> float:
    """MAP@3 of clips with one true class each, from the shares ranked among the first 1, 2, 3."""
    return accuracy + (top_2_accuracy - accuracy) / 2 + (top_3_accuracy - top_2_accuracy) / 3


def train_stage(
    network: keras.Model,
    batches: keras.utils.PyDataset,
    validation: keras.utils.PyDataset,
    *,
    settings: Training,
    name: str,
) -> pd.DataFrame:
    """Train a network in place through all phases; it is traced once.

    With selection `best` the network ends every phase with the weights of the lowest validation
    loss of the stage so far. With `last` the validation clips decide nothing: it ends with the
    weights of the phase's last epoch, and neither rate nor end follow the validation loss.

    After `keep_checkpoint_at`, every finished epoch is kept, and a stage that was interrupted
    goes on after it as if it had not been.

    Args:
        network: freshly built, or with weights from the stage before.
        batches: training batches; an epoch is one pass.
        validation: views of the held-out clips.
        settings: batch size, phases, selection.
        name: for the log, such as `fold_3 mel`.

    Returns:
        The history, a row an epoch: epoch (from 1 on through the phases), phase, loss,
        accuracy, val_loss, val_accuracy, val_map_at_3, learning_rate, seconds. The three of the
        validation are NaN where there was none.

    Raises:
        InputError: the loss is no longer a number.
    """
    checkpoint = _checkpoint(network, batches, validation, settings)
    network.compile(
        optimizer="adam",
        loss="categorical_crossentropy",
        metrics=[
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.TopKCategoricalAccuracy(2, name="top_2_accuracy"),
            keras.metrics.TopKCategoricalAccuracy(3, name="top_3_accuracy"),
        ],
        jit_compile=compiles_with_xla(),
    )
    # Left to the first step, this makes TensorFlow trace that step twice, ten seconds each.
    network.optimizer.build(network.trainable_variables)
    stage = _Stage(network, settings, name, checkpoint)
    stage.restore()
    _tell_conditions(network, batches, name)
    for phase_name, phase in settings.phases:
        if stage.is_over(phase_name, phase):
            continue
        if not stage.rows_of(phase_name):
            stage.use_best_weights()
            _forget_moments(network.optimizer)
        batches.epoch = len(stage.rows)
        network.fit(
            batches,
            validation_data=validation,
            validation_freq=_validated_epochs(settings),
            initial_epoch=len(stage.rows),
            epochs=len(stage.rows) - len(stage.rows_of(phase_name)) + phase.epochs,
            callbacks=[
                _Rates(stage, phase_name, phase, len(batches)),
                _EpochEnd(stage, phase_name, phase),
            ],
            shuffle=False,
            verbose=0,
        )
    stage.use_best_weights()
    # No part of a trained network, the optimiser's moments would treble the file of its weights.
    network.optimizer = None
    return pd.DataFrame(stage.rows)


class _Stage:
    """How far a stage has come: its history, its best weights, and what is kept of both."""

    def __init__(
        self, network: keras.Model, settings: Training, name: str, checkpoint: Checkpoint | None
    ) -> None:
        self.name = name
        self.settings = settings
        self.rows: list[dict] = []
        self._network = network
        self._best: list[np.ndarray] = []
        self._checkpoint = checkpoint

    def rows_of(self, phase_name: str) -> list[dict]:
        return [row for row in self.rows if row["phase"] == phase_name]

    def is_over(self, phase_name: str, phase: CyclicPhase | SteadyPhase) -> bool:
        rows = self.rows_of(phase_name)
        if len(rows) >= phase.epochs:
            return True
        if isinstance(phase, CyclicPhase) or self.settings.selection == "last":
            return False
        return has_stalled([row["val_loss"] for row in rows], self.settings.plateau)

    def add(self, row: dict) -> None:
        """Take an epoch into the history, and keep what there is after it."""
        lowest = min((earlier["val_loss"] for earlier in self.rows), default=math.inf)
        self.rows.append(row)
        if self.settings.selection == "best" and row["val_loss"] < lowest:
            self._best = self._network.get_weights()
        if self._checkpoint is not None:
            optimiser = list(map(_to_numpy, self._network.optimizer.variables))
            weights = self._network.get_weights()
            self._checkpoint.save(StageState(self.rows, weights, optimiser, self._best))

    def restore(self) -> None:
        """Go back to the state that was kept, if there is one."""
        state = None if self._checkpoint is None else self._checkpoint.load()
        if state is None:
            return
        self.rows, self._best = state.rows, state.best
        self._network.set_weights(state.weights)
        for variable, value in zip(self._network.optimizer.variables, state.optimiser, strict=True):
            variable.assign(value)
        logger.info(
            "%s: goes on after epoch %d, where it was interrupted", self.name, len(self.rows)
        )
        for row in self.rows:
            _report(row)

    def seconds_left(self) -> float:
        """At most, as the latest epochs went."""
        phases = [phase for phase in self.settings.phases if not self.is_over(*phase)]
        n_epochs = sum(phase.epochs - len(self.rows_of(name)) for name, phase in phases)
        return n_epochs * statistics.median(row["seconds"] for row in self.rows[-5:])

    def use_best_weights(self) -> None:
        if self._best:
            self._network.set_weights(self._best)


class _Rates(keras.callbacks.Callback):
    """Sets the learning rate: before every batch of a cyclic phase, else before every epoch."""

    def __init__(
        self, stage: _Stage, phase_name: str, phase: CyclicPhase | SteadyPhase, n_batches: int
    ) -> None:
        super().__init__()
        self._stage = stage
        self._phase_name = phase_name
        self._phase = phase
        self._n_batches = n_batches

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
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


class _EpochEnd(keras.callbacks.Callback):
    """Takes every epoch into the stage, logs a line, and ends a phase that has stalled."""

    def __init__(self, stage: _Stage, phase_name: str, phase: CyclicPhase | SteadyPhase) -> None:
        super().__init__()
        self._stage = stage
        self._phase_name = phase_name
        self._phase = phase

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        row = {
            "epoch": epoch + 1,
            "phase": self._phase_name,
            "loss": logs["loss"],
            "accuracy": logs["accuracy"],
            "val_loss": logs.get("val_loss", math.nan),
            "val_accuracy": logs.get("val_accuracy", math.nan),
            "val_map_at_3": map_at_3(
                *(logs.get(f"val_{x}accuracy", math.nan) for x in ("", "top_2_", "top_3_"))
            ),
            "learning_rate": float(_to_numpy(self.model.optimizer.learning_rate)),
            "seconds": time.monotonic() - self._started,
        }
        self._check(row, validated="val_loss" in logs)
        self._stage.add(row)
        logger.info("%s %s", self._stage.name, _in_words(row, self._stage.seconds_left()))
        _report(row)
        if self._stage.is_over(self._phase_name, self._phase):
            self.model.stop_training = True

    def _check(self, row: dict, *, validated: bool) -> None:
        losses = [row["loss"], *([row["val_loss"]] if validated else [])]
        if not all(map(math.isfinite, losses)):
            raise InputError(
                f"{self._stage.name}: the loss is {row['loss']:.3g} (validation "
                f"{row['val_loss']:.3g}) in epoch {row['epoch']}, phase {self._phase_name}, "
                f"at the rate {row['learning_rate']:.1e}: lower the rates of "
                f"training.phases.{self._phase_name}"
            )


def _checkpoint(
    network: keras.Model,
    batches: keras.utils.PyDataset,
    validation: keras.utils.PyDataset,
    settings: Training,
) -> Checkpoint | None:
    """Where the stage is kept, by all that makes it what it is; None where nobody asked for it."""
    place = _checkpoint_place.get()
    if place is None:
        return None
    digest = hashlib.sha256(f"{keras.backend.backend()} {keras.version()}".encode())
    digest.update(settings.model_dump_json().encode())
    for array in network.get_weights():
        digest.update(array.tobytes())
    for part in (batches, validation):
        for index in range(len(part)):
            inputs, targets = part[index]
            for array in (*inputs, targets):
                digest.update(array.tobytes())
    path, send = place
    return Checkpoint(path, digest.hexdigest(), send)


def _tell_conditions(network: keras.Model, batches: keras.utils.PyDataset, name: str) -> None:
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
    """Numbers of the epochs with a validation after them; the last of a stage is one."""
    n_epochs = sum(phase.epochs for _, phase in settings.phases)
    every = settings.validate_every
    return sorted({*range(every, n_epochs + 1, every), n_epochs})


def _forget_moments(optimizer: keras.Optimizer) -> None:
    """Start a phase with a fresh optimiser, without compiling the network again."""
    # Loss scaling, around the optimiser in half precision, has nothing to forget.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    for variable in optimizer.variables:
        if variable is not optimizer.learning_rate:
            variable.assign(keras.ops.zeros(variable.shape, variable.dtype))


def _in_words(row: dict, seconds_left: float) -> str:
    losses = "epoch {epoch}, {phase}: loss {loss:.3f}".format(**row)
    if not math.isnan(row["val_loss"]):
        losses += ", val_loss {val_loss:.3f}, val_map_at_3 {val_map_at_3:.3f}".format(**row)
    left = timedelta(seconds=round(seconds_left))
    return f"{losses}, rate {row['learning_rate']:.1e}, {row['seconds']:.1f} s, {left} left"


def _report(row: dict) -> None:
    """Tell the listener of an epoch: of its numbers, those that are there."""
    listener = _listener.get()
    if listener is not None:
        numbers = {key: x for key, x in row.items() if key not in ("epoch", "phase")}
        listener({key: x for key, x in numbers.items() if not math.isnan(x)}, row["epoch"])


def _to_numpy(tensor: keras.KerasTensor) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))
