"""Measure the cost of preparing batches beside that of training, and the memory of a fold.

    python benchmarks/training_input.py feeding      # batches made step by step and at once
    python benchmarks/training_input.py throughput   # fit and one resident batch, in turns
    python benchmarks/training_input.py memory       # the longest batches of the full recipe

Spectrograms are noise, in a memory-mapped file as in a run; sizes are those of the full recipe.
`training_input.md` has the results.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from omegaconf import OmegaConf

from fsat_kedro.data.ragged import gather
from fsat_kedro.datasets.ragged_dataset import RaggedDataset
from fsat_kedro.modelling import augmentation as augment

if TYPE_CHECKING:
    import keras

    from fsat_kedro.modelling.batches import TrainingBatches
    from fsat_kedro.modelling.crops import Clips
    from fsat_kedro.parameters import Model, Training

N_MELS, N_CLASSES, N_COMPONENTS = 64, 41, 350
SHORTEST, LONGEST = 263, 763
CONF = Path(__file__).parents[1] / "conf" / "base" / "parameters_training.yml"


def make_clips(n_clips: int, folder: str) -> Clips:
    """Make clips with the challenge's distribution of lengths."""
    from fsat_kedro.modelling.crops import Clips

    rng = np.random.default_rng(0)
    lengths = rng.lognormal(6.1, 0.8, n_clips).clip(30, 3000).astype(int)
    dataset = RaggedDataset(filepath=f"{folder}/mels")
    noise = (rng.random((length, N_MELS), np.float32) * 129 - 90 for length in lengths)
    dataset.save(gather(noise, spool_dir=folder))
    return Clips(
        rows=np.arange(n_clips),
        fnames=[f"{index}.wav" for index in range(n_clips)],
        mels=dataset.load(),
        components=rng.normal(size=(n_clips, N_COMPONENTS)),
        mel_statistics={"minimum": -90.0, "maximum": 39.0},
        targets=np.eye(N_CLASSES, dtype=np.float32)[rng.integers(N_CLASSES, size=n_clips)],
    )


def settings_of(batch_size: int, n_epochs: int, precision: str) -> tuple[Model, Training]:
    """Return the recipe's settings, with one phase of some epochs."""
    from fsat_kedro.parameters import Model, Training

    recipe = OmegaConf.to_container(OmegaConf.load(CONF))
    phases = recipe["training"]["phases"]
    for name, phase in phases.items():
        phase["epochs"] = n_epochs if name == "cyclic" else 0
    changes = {"selection": "last", "validate_every": n_epochs, "batch_size": batch_size}
    model = Model(**{**recipe["model"], "precision": precision})
    return model, Training(**{**recipe["training"], **changes})


def train(
    clips: Clips,
    length: int,
    batch_size: int,
    n_epochs: int,
    precision: str,
    folder: str,
    after_epoch: Callable,
) -> None:
    """Train a stage with a checkpoint; `after_epoch` is called with network and batches."""
    import keras

    from fsat_kedro.modelling.batches import TrainingBatches
    from fsat_kedro.modelling.checkpoint import Checkpoint
    from fsat_kedro.modelling.crops import CropBatches
    from fsat_kedro.modelling.networks import build_network
    from fsat_kedro.modelling.training import train_stage
    from fsat_kedro.parameters import TestTimeCrops

    model, settings = settings_of(batch_size, n_epochs, precision)
    batches = TrainingBatches(
        clips,
        batch_size=batch_size,
        lengths=[length],
        augmentation=settings.augmentation,
        mixup_alpha=settings.mixup_alpha.mel_pca,
        seed=0,
    )
    statistics = {**clips.mel_statistics, "shortest": length, "longest": length}
    crops = TestTimeCrops(n_lengths=1, crops_per_length=1, subset="all", batch_size=64)
    validation = CropBatches(replace(clips, mel_statistics=statistics), crops, seed=(0,))
    sizes = {"n_mels": N_MELS, "n_classes": N_CLASSES, "n_components": N_COMPONENTS}
    network = build_network(model, weights=None, **sizes)
    callback = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: after_epoch(network, batches)
    )
    train_stage(
        network,
        batches,
        validation,
        settings=settings,
        name="benchmark",
        checkpoint=Checkpoint(Path(folder, "mel_pca.checkpoint.npz")),
        callbacks=[callback],
    )


def make_batch_step_by_step(batches: TrainingBatches, index: int) -> tuple:
    """Make a training batch with a copy for every step, from the same random draws.

    Clips are padded, cropped, shifted, reversed, scaled and erased one by one, then joined,
    transposed and mixed.
    """
    rng, length = batches._rng(1, index), batches._draw_length(index)
    rows = batches._draw_rows(index)
    weights = augment.draw_mixup_weights(len(rows), batches._mixup_alpha, rng)
    partners = batches._draw_rows(index, partners=True)
    pairs = zip(*(_steps_of(batches, part, length, rng) for part in (rows, partners)), strict=True)
    crops, partner_crops = (
        np.stack(part).transpose(0, 2, 1)[..., None] for part in zip(*pairs, strict=True)
    )
    own, other = batches._clips.vectors(rows), batches._clips.vectors(partners)
    mixed = [
        _as_rows(weights, part) * part + (1 - _as_rows(weights, part)) * partner
        for part, partner in zip((crops, *own), (partner_crops, *other), strict=True)
    ]
    return tuple(mixed[:-1]), mixed[-1]


def _as_rows(weights: np.ndarray, part: np.ndarray) -> np.ndarray:
    return weights.reshape(-1, *[1] * (part.ndim - 1))


def _steps_of(
    batches: TrainingBatches, rows: np.ndarray, length: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    clips, settings = batches._clips, batches._augmentation
    n_frames = clips.mels.lengths[rows]
    starts = augment.draw_crop_start(n_frames, length, rng)
    shifts = augment.draw_shift(length, settings.shift, rng, len(rows))
    flips = rng.random(len(rows)) < settings.flip
    erased = rng.random(len(rows)) < settings.erase.probability
    smallest, largest = clips.mel_statistics["minimum"], clips.mel_statistics["maximum"]
    for row, start, shift, flip, erases in zip(rows, starts, shifts, flips, erased, strict=True):
        mel = clips.mels[row]
        before, after = max(0, -start), max(0, start + length - len(mel))
        mel = np.pad(mel, ((before, after), (0, 0)), mode="symmetric")
        mel = mel[start + before : start + before + length]
        mel = mel[(np.arange(length) - shift).clip(0, length - 1)]
        mel = mel[::-1] if flip else mel
        mel = (mel - smallest) / (largest - smallest)
        if erases:
            area, aspect = settings.erase.area, settings.erase.aspect
            box = augment.draw_box(mel.shape, area=area, aspect=aspect, rng=rng)
            mel = mel.copy()
            mel[box] = (rng.uniform(smallest, largest) - smallest) / (largest - smallest)
        yield mel


def compare_ways_to_feed(batch_size: int, length: int, turns: int) -> None:
    """Print the clips per second of one thread for both ways to make a batch, in turns."""
    from fsat_kedro.modelling.batches import TrainingBatches

    _, settings = settings_of(batch_size, 1, "float32")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        batches = TrainingBatches(
            make_clips(32 * batch_size, folder),
            batch_size=batch_size,
            lengths=[length],
            augmentation=settings.augmentation,
            mixup_alpha=settings.mixup_alpha.mel,
            seed=0,
        )
        ways = {
            "step by step": partial(make_batch_step_by_step, batches),
            "at once": batches.__getitem__,
        }
        for parts in zip(*((*x, y) for x, y in (way(0) for way in ways.values())), strict=True):
            np.testing.assert_allclose(*parts, atol=1e-5)
        for _ in range(turns):
            rates = [_clips_per_second(make, len(batches), batch_size) for make in ways.values()]
            ratios.append(rates[1] / rates[0])
            print(", ".join(f"{name} {rate:.0f}" for name, rate in zip(ways, rates, strict=True)))
    print(f"median ratio of {turns} turns: {statistics.median(ratios):.2f}")


def _clips_per_second(make: Callable, n_batches: int, batch_size: int) -> float:
    began = time.thread_time()  # Of this thread alone: other programs do not count.
    for index in range(n_batches):
        make(index)
    return n_batches * batch_size / (time.thread_time() - began)


def compare_with_resident(batch_size: int, length: int, turns: int, precision: str) -> None:
    """Print clips per second of `fit`, and of repeated steps on one batch of the same shape."""
    n_batches = 16
    ends, ratios = [time.perf_counter()], []

    def take_turn(network: keras.Model, batches: TrainingBatches) -> None:
        epoch = time.perf_counter() - ends[-1]
        inputs, targets = batches[0]
        network.train_on_batch(inputs, targets)
        began = time.perf_counter()
        for _ in range(n_batches):
            network.train_on_batch(inputs, targets)
        ends.append(time.perf_counter())
        resident = ends[-1] - began
        fed, best = (n_batches * batch_size / seconds for seconds in (epoch, resident))
        if len(ends) > 2:
            ratios.append(fed / best)
        remark = "" if len(ends) > 2 else " (traces the network; not counted)"
        print(f"fit {fed:.1f}, resident {best:.1f} clips/s, {fed / best:.3f}{remark}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        clips = make_clips(n_batches * batch_size, folder)
        # The last epoch has a validation.
        train(clips, length, batch_size, turns + 2, precision, folder, take_turn)
    print(f"median of {turns} turns: {statistics.median(ratios[:turns]):.3f}")


def take_longest_batches(batch_size: int, n_clips: int, precision: str) -> None:
    """Print the peak memory of batches of the greatest length, on a data set of full size."""
    with tempfile.TemporaryDirectory() as folder:
        clips = make_clips(n_clips, folder)
        size = Path(folder, "mels", "values.npy").stat().st_size
        print(f"{n_clips} clips, {size / 2**20:.0f} MiB of spectrograms; before {peak()}")
        few = replace(clips, rows=clips.rows[:: n_clips // (2 * batch_size)])
        train(few, LONGEST, batch_size, 2, precision, folder, lambda *_: print(peak()))


def peak() -> str:
    """Return the peak memory of this process, and its own and mapped memory now."""
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    parts = {"peak": "VmHWM", "own now": "RssAnon", "of mapped files now": "RssFile"}
    return ", ".join(
        f"{n} {int(status[key].split()[0]) / 1024:.0f} MiB" for n, key in parts.items()
    )


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["feeding", "throughput", "memory"])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--length", type=int, default=513, help="frames (not for memory)")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--clips", type=int, default=9473, help="of the set (memory)")
    arguments = parser.parse_args()
    if arguments.what == "feeding":
        compare_ways_to_feed(arguments.batch_size, arguments.length, arguments.turns)
    elif arguments.what == "throughput":
        compare_with_resident(
            arguments.batch_size, arguments.length, arguments.turns, arguments.precision
        )
    else:
        take_longest_batches(arguments.batch_size, arguments.clips, arguments.precision)


if __name__ == "__main__":
    main()
