"""One stage of training: three phases of one network."""

import logging
import math
import time
from collections.abc import Callable
from contextvars import ContextVar

import keras
import pandas as pd

from fsat_kedro.model import jit_compile
from fsat_kedro.parameters import CyclicPhase, SteadyPhase, Training

logger = logging.getLogger(__name__)

EpochListener = Callable[[dict[str, float], int], None]
_listener: ContextVar[EpochListener | None] = ContextVar("epoch_listener", default=None)


def report_epochs_to(listener: EpochListener) -> None:
    """Have `listener` called with metrics and number of every epoch that ends in this thread."""
    _listener.set(listener)


def triangular_rate(step: int, half_cycle: int, minimum: float, maximum: float) -> float:
    """Cyclic learning rate (Smith, 2017): up from the minimum over a half cycle, and down again.

    Args:
        step: batches since the phase began.
        half_cycle: batches from the minimum to the maximum.
        minimum: the lowest rate.
        maximum: the highest.
    """
    distance_from_peak = abs(step / half_cycle % 2 - 1)
    return minimum + (maximum - minimum) * (1 - distance_from_peak)


def map_at_3(accuracy: float, top_2_accuracy: float, top_3_accuracy: float) -> float:
    """MAP@3 of clips with one true class each, from the shares ranked among the first 1, 2, 3."""
    return accuracy + (top_2_accuracy - accuracy) / 2 + (top_3_accuracy - top_2_accuracy) / 3


def train_stage(
    model: keras.Model,
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

    Args:
        model: the network.
        batches: training batches; an epoch is one pass.
        validation: views of the held-out clips.
        settings: batch size, phases, selection.
        name: for the log, such as `fold_3 mel`.

    Returns:
        The history, a row an epoch: epoch (from 1 on through the phases), phase, loss,
        accuracy, val_loss, val_accuracy, val_map_at_3, learning_rate, seconds.

    Raises:
        FloatingPointError: the loss is no longer a number.
    """
    model.compile(
        optimizer="adam",
        loss="categorical_crossentropy",
        metrics=[
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.TopKCategoricalAccuracy(2, name="top_2_accuracy"),
            keras.metrics.TopKCategoricalAccuracy(3, name="top_3_accuracy"),
        ],
        jit_compile=jit_compile(),
    )
    # Left to the first step, this makes TensorFlow trace that step twice, ten seconds each.
    model.optimizer.build(model.trainable_variables)
    epochs_in_all = sum(phase.epochs for _, phase in settings.phases)
    recorder = _Recorder(name, epochs_in_all)
    best = _BestWeights()
    for phase_name, phase in settings.phases:
        if phase.epochs == 0:
            continue
        _forget_moments(model.optimizer)
        recorder.phase = phase_name
        model.fit(
            batches,
            validation_data=validation,
            initial_epoch=len(recorder.rows),
            epochs=len(recorder.rows) + phase.epochs,
            # Recorded before a plateau lowers it, the rate is that of the epoch that ends.
            callbacks=[best, recorder, *_rate_callbacks(phase, settings, len(batches))],
            shuffle=False,
            verbose=0,
        )
        if settings.selection == "best" and best.weights is not None:
            model.set_weights(best.weights)
    return pd.DataFrame(recorder.rows)


def _forget_moments(optimizer: keras.Optimizer) -> None:
    """Start a phase with a fresh optimiser, without compiling the model again."""
    for variable in optimizer.variables:
        if variable is not optimizer.learning_rate:
            variable.assign(keras.ops.zeros_like(variable))


def _rate_callbacks(
    phase: CyclicPhase | SteadyPhase, settings: Training, half_cycle: int
) -> list[keras.callbacks.Callback]:
    if isinstance(phase, CyclicPhase):
        return [_TriangularRate(half_cycle, phase.minimum_rate, phase.maximum_rate)]
    if settings.selection == "last":
        return [_FirstRate(phase.rate)]
    plateau = settings.plateau
    return [
        _FirstRate(phase.rate),
        keras.callbacks.ReduceLROnPlateau(
            factor=plateau.factor, patience=plateau.patience, min_delta=plateau.min_delta
        ),
        keras.callbacks.EarlyStopping(patience=plateau.stop_after, min_delta=plateau.min_delta),
    ]


class _FirstRate(keras.callbacks.Callback):
    """Sets the rate that a phase begins with."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self._rate = rate

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.model.optimizer.learning_rate = self._rate


class _TriangularRate(keras.callbacks.Callback):
    """Sets the cyclic rate before every batch."""

    def __init__(self, half_cycle: int, minimum: float, maximum: float) -> None:
        super().__init__()
        self._arguments = (half_cycle, minimum, maximum)
        self._step = 0

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.model.optimizer.learning_rate = triangular_rate(self._step, *self._arguments)
        self._step += 1


class _BestWeights(keras.callbacks.Callback):
    """Remembers the weights of the lowest validation loss, from phase to phase."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = None
        self._loss = math.inf

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        if logs["val_loss"] < self._loss:
            self._loss = logs["val_loss"]
            self.weights = self.model.get_weights()


class _Recorder(keras.callbacks.Callback):
    """Keeps the history, logs a line an epoch and tells the listener."""

    def __init__(self, name: str, epochs_in_all: int) -> None:
        super().__init__()
        self.phase = ""
        self.rows: list[dict] = []
        self._name = name
        self._epochs_in_all = epochs_in_all

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        if not (math.isfinite(logs["loss"]) and math.isfinite(logs["val_loss"])):
            raise FloatingPointError(
                f"{self._name}: the loss is {logs['loss']} (validation {logs['val_loss']}) in "
                f"epoch {epoch + 1}, phase {self.phase}: lower the learning rate"
            )
        metrics = {
            "loss": logs["loss"],
            "accuracy": logs["accuracy"],
            "val_loss": logs["val_loss"],
            "val_accuracy": logs["val_accuracy"],
            "val_map_at_3": map_at_3(
                logs["val_accuracy"], logs["val_top_2_accuracy"], logs["val_top_3_accuracy"]
            ),
            "learning_rate": float(self.model.optimizer.learning_rate),
            "seconds": time.monotonic() - self._started,
        }
        self.rows.append({"epoch": epoch + 1, "phase": self.phase, **metrics})
        logger.info(
            f"{self._name} {self.phase} {epoch + 1}/{self._epochs_in_all}: "
            "loss {loss:.3f}, val_loss {val_loss:.3f}, val_map_at_3 {val_map_at_3:.3f}, "
            "rate {learning_rate:.1e}, {seconds:.1f} s".format(**metrics)
        )
        listener = _listener.get()
        if listener is not None:
            listener(metrics, epoch + 1)
