"""Measure the cost of each subset of test-time crops, and its agreement with all crops.

    python benchmarks/inference.py DATA_DIR                  # the test clips of a finished run
    python benchmarks/inference.py DATA_DIR --split train    # the held-out clips of each fold

Every method predicts the same clips with the same networks, fold by fold and in turns. The estimate
for the whole challenge assumes that time is proportional to the frames of the crops, of clips as
long as those of the challenge. Loading and tracing are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd

from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.datasets.ragged_dataset import RaggedDataset
from fsat_kedro.evaluation import metrics
from fsat_kedro.inference.ensemble import geometric_mean, predict_crops
from fsat_kedro.inference.runtimes import OpenVINONetwork, convert
from fsat_kedro.parameters import Model, TestTimeCrops
from generated import lengths_of

if TYPE_CHECKING:
    import keras

    from fsat_kedro.modelling.crops import Clips, CropBatches

METHODS = {
    "all": ("all", "keras"),
    "all, OpenVINO": ("all", "openvino"),
    "thinned": ("thinned", "keras"),
    "thinned, OpenVINO": ("thinned", "openvino"),
}
"""Subset of the crops, and runtime."""

N_CLIPS, HOURS, N_FOLDS = 9400, 8.97, 10
FRAMES_PER_SECOND = 22_050 / 220


class Run:
    """The outputs of a finished run in its data folder."""

    def __init__(self, data_dir: Path, split: str) -> None:
        self._models = data_dir / "06_models"
        self.split = split
        self.clips = pd.read_pickle(data_dir / "02_intermediate" / f"{split}_clips.pkl")
        self.mels = RaggedDataset(filepath=str(data_dir / "04_feature" / f"{split}_mels")).load()
        self.components = np.load(data_dir / "04_feature" / f"{split}_components.npy")
        self.statistics = json.loads((self._models / "mel_statistics.json").read_text())
        self.labels = json.loads((self._models / "classes.json").read_text())["labels"]
        self.targets = metrics.class_indices(self.clips["label"], self.labels)
        self.n_folds = len(list(self._models.glob("fold_*/mel_pca.weights.h5")))

    def clips_of(self, fold: int) -> Clips:
        """Return the clips that a fold predicts."""
        from fsat_kedro.modelling.crops import Clips

        rows = np.flatnonzero(self.clips["status"] == "ok")
        if self.split == "train":
            rows = pd.read_pickle(self._models / f"fold_{fold}" / "split.pkl")["validation"]
        fnames = self.clips["fname"].tolist()
        return Clips(rows, fnames, self.mels, self.components, self.statistics)

    def network(self, fold: int, width: float) -> keras.Model:
        """Return the network of a fold."""
        from fsat_kedro.modelling.networks import load_network

        momentum = {"backbone": 0.9, "others": 0.9}
        model = Model(
            encoder="mobilenet_v2",
            weights=None,
            width=width,
            momentum=momentum,
            frozen_stages=0,
            freeze_normalisation=False,
            summary_features=True,
            head="mlp",
            precision="float32",
        )
        return load_network(
            model,
            self._models / f"fold_{fold}" / "mel_pca.weights.h5",
            n_mels=self.mels.values.shape[1],
            n_classes=len(self.labels),
            n_components=self.components.shape[1],
        )


def compare(run: Run, batch_size: int, width: float) -> None:
    """Print seconds and agreement of all methods, and the estimate."""
    logs: dict[str, list[np.ndarray]] = {method: [] for method in METHODS}
    seconds, n_frames = dict.fromkeys(METHODS, 0.0), dict.fromkeys(METHODS, 0)
    n_clips, converting = 0, 0.0
    for fold in range(1, run.n_folds + 1):
        network, clips = run.network(fold, width), run.clips_of(fold)
        began = time.perf_counter()
        networks = {"keras": network, "openvino": OpenVINONetwork(convert(network))}
        converting += time.perf_counter() - began
        for method, (subset, runtime) in METHODS.items():
            few = replace(clips, rows=clips.rows[:: -(-len(clips.rows) // 8)])
            # The first call traces the network.
            predict_crops(networks[runtime], batches_of(few, subset, batch_size, fold))
            batches = batches_of(clips, subset, batch_size, fold)
            began = time.perf_counter()
            logs[method].append(predict_crops(networks[runtime], batches))
            seconds[method] += time.perf_counter() - began
            n_frames[method] += frames_of(batches)
        n_clips += len(clips)
        print(f"fold {fold}: " + ", ".join(f"{method} {x:.1f} s" for method, x in seconds.items()))
    probabilities = {method: combine(folds, run) for method, folds in logs.items()}
    scored = ~np.isnan(probabilities["all"]).any(axis=1) & (run.targets >= 0)
    report({method: x[scored] for method, x in probabilities.items()}, run.targets[scored])
    for method, taken in seconds.items():
        each, times = 1000 * taken / n_clips, seconds["all"] / taken
        print(f"{method}: {each:.1f} ms a clip and fold, {times:.1f} times as fast as all")
    print(f"OpenVINO: {converting / run.n_folds:.1f} s to convert a network")
    # The cost of a frame is proportional to its mel bands; the challenge's recipe has 64.
    bands = 64 / run.mels.values.shape[1]
    estimate({method: bands * seconds[method] / n_frames[method] for method in METHODS})


def batches_of(clips: Clips, subset: str, batch_size: int, fold: int) -> CropBatches:
    """Make the batches of a subset of six lengths with five crops each."""
    from fsat_kedro.modelling.crops import CropBatches

    crops = TestTimeCrops(n_lengths=6, crops_per_length=5, subset=subset, batch_size=batch_size)
    return CropBatches(clips, crops, seed=(1, fold))


def frames_of(batches: CropBatches) -> int:
    """Count the frames of all crops."""
    return len(batches.clips) * sum(batches.lengths)


def combine(folds: list[np.ndarray], run: Run) -> np.ndarray:
    """Return the ensemble's probabilities; for a training clip those of its held-out fold."""
    return geometric_mean([np.nansum(folds, axis=0)] if run.split == "train" else folds)


def report(probabilities: dict[str, np.ndarray], targets: np.ndarray) -> None:
    """Print the agreement of every method with all crops, and its scores."""
    ranks = {method: metrics.top_k(x, k=metrics.N_TAGS) for method, x in probabilities.items()}
    for method, x in probabilities.items():
        pairs = zip(ranks["all"], ranks[method], strict=True)
        common = np.mean([len({*one} & {*other}) / 3 for one, other in pairs])
        same = ranks["all"] == ranks[method]
        print(
            f"{method}, {len(targets)} clips: MAP@3 {metrics.map_at_k(targets, x):.4f}, "
            f"accuracy {metrics.accuracy(targets, x):.4f}; same first tag {same[:, 0].mean():.4f}, "
            f"same three in order {same.all(axis=1).mean():.4f}, of three in common {common:.4f}, "
            f"mean difference of probabilities {np.abs(probabilities['all'] - x).mean():.5f}"
        )


def estimate(seconds_per_frame: dict[str, float]) -> None:
    """Print how long the challenge's test clips would take on this machine."""
    from fsat_kedro.modelling.crops import Clips

    durations = np.resize(lengths_of(3600 * HOURS / N_CLIPS), N_CLIPS)
    frames = np.maximum(1, durations * FRAMES_PER_SECOND).astype(int)
    mels = RaggedArray(np.zeros((frames.sum(), 1), bool), np.cumsum([0, *frames]))
    fnames = [f"{index}.wav" for index in range(N_CLIPS)]
    clips = Clips(np.arange(N_CLIPS), fnames, mels, None, {"shortest": 263, "longest": 763})
    print(f"The challenge's {N_CLIPS} test clips, {HOURS} h, by {N_FOLDS} folds:")
    for method, each in seconds_per_frame.items():
        n_frames = frames_of(batches_of(clips, METHODS[method][0], batch_size=64, fold=1))
        print(
            f"{method}: {n_frames / N_CLIPS:.0f} frames a clip and fold, {1e6 * each:.1f} µs each: "
            f"{N_FOLDS * n_frames * each / 60:.0f} minutes"
        )


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--split", choices=["test", "train"], default="test")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--width", type=float, default=1.0)
    arguments = parser.parse_args()
    compare(Run(arguments.data_dir, arguments.split), arguments.batch_size, arguments.width)


if __name__ == "__main__":
    main()
