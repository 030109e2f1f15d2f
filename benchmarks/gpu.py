"""Measure training and predictions on a GPU, and estimate the time of the full recipe.

    python benchmarks/gpu.py                                  # with a GPU
    KERAS_BACKEND=jax python benchmarks/gpu.py --n-lengths 6  # JAX compiles each length
    python benchmarks/gpu.py --clips 64 --batch-size 16 --precisions float32   # a trial on a CPU

For each precision it prints the seconds that the first steps of a stage take, because they trace
and compile the network, and clips per second of

- a training step on one batch that stays on the device, at the recipe's mean length;
- the threads that make batches, alone;
- an epoch of a real run: crops of random lengths, two threads that make batches, a checkpoint;
- predictions on one batch that stays on the device, and as a run makes them;

and which of them limits an epoch. Spectrograms are noise in a memory-mapped file, of the recipe's
sizes. Without a GPU all of it runs on the CPU.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd

from fsat_kedro.inference.ensemble import predict_crops
from fsat_kedro.modelling.batches import TrainingBatches
from fsat_kedro.modelling.checkpoint import Checkpoint
from fsat_kedro.modelling.crop_lengths import training_lengths
from fsat_kedro.modelling.crops import Clips, CropBatches
from fsat_kedro.modelling.networks import build_network
from fsat_kedro.modelling.training import train_stage
from fsat_kedro.parameters import TestTimeCrops
from training_input import (
    LONGEST,
    N_CLASSES,
    N_COMPONENTS,
    N_MELS,
    SHORTEST,
    make_clips,
    settings_of,
)

MEAN_LENGTH = (SHORTEST + LONGEST) // 2
N_TRAIN, N_TEST, N_FOLDS = 9473, 9400, 10
CROPS = TestTimeCrops(n_lengths=6, crops_per_length=5, subset="all", batch_size=64)
# Epochs of a stage: each steady phase ends after 11 at the earliest.
FEWEST_EPOCHS, MOST_EPOCHS = 100 + 2 * 11, 100 + 2 * 100


def measure(
    precision: str, n_clips: int, batch_size: int, n_steps: int, n_lengths: int | None
) -> tuple[dict[str, float], dict[str, float]]:
    """Measure everything in one precision, and print it.

    Returns:
        Clips per second by name, and the seconds by which a stage and predictions begin slower.
    """
    rates = {}

    def report(name: str, rate: float) -> None:
        rates[name] = rate
        print(f"{precision}: {name} {rate:,.0f} clips/s", flush=True)

    model, settings = settings_of(batch_size, 3, precision)
    sizes = {"n_mels": N_MELS, "n_classes": N_CLASSES, "n_components": N_COMPONENTS}
    with tempfile.TemporaryDirectory() as folder:
        clips = make_clips(n_clips, folder)
        clips.mel_statistics.update(shortest=SHORTEST, longest=LONGEST)
        batches = TrainingBatches(
            clips,
            batch_size=batch_size,
            lengths=training_lengths(SHORTEST, LONGEST, n_lengths),
            augmentation=settings.augmentation,
            mixup_alpha=settings.mixup_alpha.mel_pca,
            seed=0,
        )
        report("batches of a thread", n_clips / _seconds(lambda: _make_all(batches)))
        network = build_network(model, weights=None, **sizes)
        few = Clips(clips.rows[:batch_size], *_parts(clips))
        one = CROPS.model_copy(update={"n_lengths": 1, "crops_per_length": 1})
        history = train_stage(
            network,
            batches,
            CropBatches(few, one, seed=(0,)),
            settings=settings,
            name=precision,
            checkpoint=Checkpoint(Path(folder, "checkpoint.npz")),
        )
        # The first epoch traces the network, and the last has a validation.
        first, second = history["seconds"].iloc[:2]
        report("epoch", n_clips / second)
        train, predict = _resident_steps(network, batch_size)
        report("training step", n_steps * batch_size / _warm_seconds(train, n_steps))
        report("prediction step", n_steps * batch_size / _warm_seconds(predict, n_steps))
        crops = CropBatches(Clips(clips.rows[: n_clips // 8], *_parts(clips)), CROPS, seed=(0,))
        cold, warm = (_seconds(lambda: predict_crops(network, crops)) for _ in range(2))
        report("predictions", crops.n_crops / warm)
    starts = {"a stage": first - second, "predictions": cold - warm}
    for name, seconds in starts.items():
        print(f"{precision}: start of {name} {seconds:.0f} s")
    print(f"{precision}: an epoch is limited by {_limit(rates)}", flush=True)
    return rates, starts


def _make_all(batches: TrainingBatches) -> None:
    for index in range(len(batches)):
        batches[index]


def _seconds(call: Callable) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _parts(clips: Clips) -> tuple:
    return clips.fnames, clips.mels, clips.components, clips.mel_statistics, clips.targets


def _resident_steps(network: keras.Model, batch_size: int) -> tuple[Callable, Callable]:
    """Return a step of training and one of prediction, on a batch that stays on the device."""
    rng = np.random.default_rng(0)
    mel = rng.random((batch_size, N_MELS, MEAN_LENGTH, 1), np.float32)
    pca = rng.normal(size=(batch_size, N_COMPONENTS))
    inputs = [keras.ops.convert_to_tensor(x, "float32") for x in (mel, pca)]
    targets = np.eye(N_CLASSES, dtype=np.float32)[rng.integers(N_CLASSES, size=batch_size)]
    targets = keras.ops.convert_to_tensor(targets)
    network.compile("adam", "categorical_crossentropy", jit_compile=network.jit_compile)
    return (
        partial(network.train_on_batch, inputs, targets),
        partial(network.predict_on_batch, inputs),
    )


def _warm_seconds(step: Callable, n_steps: int) -> float:
    """Return the seconds of some steps, each of which waits for its result."""
    for _ in range(2):
        step()
    return _seconds(lambda: [step() for _ in range(n_steps)])


def _limit(rates: dict[str, float]) -> str:
    # Two threads make batches while the device trains.
    if rates["epoch"] > 0.85 * rates["training step"]:
        return "the device"
    if 2 * rates["batches of a thread"] < rates["training step"]:
        return "the threads that make batches"
    return "starts of steps, new lengths and the checkpoint: more clips an epoch hide them"


def estimate(rates: dict[str, float], starts: dict[str, float]) -> pd.DataFrame:
    """Return the hours of the full recipe on this device, by part."""
    clips_an_epoch = N_TRAIN * (N_FOLDS - 1) / N_FOLDS
    validated = CROPS.n_lengths * N_TRAIN / N_FOLDS
    epoch = clips_an_epoch / rates["epoch"] + validated / rates["predictions"]
    n_crops = CROPS.n_lengths * CROPS.crops_per_length * (N_FOLDS * N_TEST + N_TRAIN)
    seconds = {
        "training, at the fewest epochs": 2 * N_FOLDS * FEWEST_EPOCHS * epoch,
        "training, at the most epochs": 2 * N_FOLDS * MOST_EPOCHS * epoch,
        "predictions": n_crops / rates["predictions"],
        "starts": N_FOLDS * (2 * starts["a stage"] + starts["predictions"]),
    }
    return pd.DataFrame({"hours": {name: each / 3600 for name, each in seconds.items()}}).round(2)


def main() -> None:
    """Measure in each precision, and print the estimates."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=4096, help="of an epoch")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50, help="on a resident batch")
    parser.add_argument("--n-lengths", type=int, help="training.n_lengths; all by default")
    parser.add_argument("--precisions", nargs="+", default=["float32", "mixed_bfloat16"])
    arguments = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("fsat_kedro").setLevel(logging.INFO)
    device = str(keras.ops.zeros(()).device)
    print(f"{keras.backend.backend()} on {device}")
    if "gpu" not in device.lower() and "cuda" not in device.lower():
        print("No GPU: all of it runs on the CPU")
    for precision in arguments.precisions:
        measured = measure(
            precision, arguments.clips, arguments.batch_size, arguments.steps, arguments.n_lengths
        )
        print(estimate(*measured).to_string())


if __name__ == "__main__":
    main()
