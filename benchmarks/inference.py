"""What each way to look at clips costs, and how far it agrees with the exact one.

    python benchmarks/inference.py DATA_DIR                  # the test clips of a finished run
    python benchmarks/inference.py DATA_DIR --split train    # those that each fold held out

All ways look at the same clips with the same networks, fold by fold and by turns. The estimate for
the whole challenge takes time for proportional to the frames that the convolutions see, of which
clips as long as the challenge's are drawn. Loading and tracing are not counted.
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
from fsat_kedro.inference.ensemble import geometric_mean, predict, view_batches
from fsat_kedro.inference.runtimes import OpenVINONetwork
from fsat_kedro.parameters import Inference, Model, Views
from generated import lengths_of

if TYPE_CHECKING:
    import keras

    from fsat_kedro.modelling.batches import Clips, ViewBatches

WAYS = {
    "exact": Inference(views="exact", runtime="keras"),
    "exact, OpenVINO": Inference(views="exact", runtime="openvino"),
    "thinned": Inference(views="thinned", runtime="keras"),
    "thinned, OpenVINO": Inference(views="thinned", runtime="openvino"),
    "shared": Inference(views="shared", runtime="keras"),
}
N_CLIPS, HOURS, N_FOLDS = 9400, 8.97, 10
FRAMES_PER_SECOND = 22_050 / 220


class Run:
    """What a finished run left in its data folder."""

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

    def asked(self, fold: int) -> Clips:
        """The clips that a fold is asked for."""
        from fsat_kedro.modelling.batches import Clips

        rows = np.flatnonzero(self.clips["status"] == "ok")
        if self.split == "train":
            rows = pd.read_pickle(self._models / f"fold_{fold}" / "split.pkl")["validation"]
        fnames = self.clips["fname"].tolist()
        return Clips(rows, fnames, self.mels, self.components, self.statistics)

    def network(self, fold: int, width: float) -> keras.Model:
        """A fold's network."""
        from fsat_kedro.modelling.networks import load_network

        momentum = {"backbone": 0.9, "others": 0.9}
        model = Model(weights=None, width=width, momentum=momentum, precision="float32")
        return load_network(
            model,
            self._models / f"fold_{fold}" / "mel_pca.weights.h5",
            n_mels=self.mels.values.shape[1],
            n_classes=len(self.labels),
            n_components=self.components.shape[1],
        )


def compare(run: Run, batch_size: int, width: float) -> None:
    """Print seconds and agreement of all ways, and the estimate."""
    logs: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
    seconds, n_frames = dict.fromkeys(WAYS, 0.0), dict.fromkeys(WAYS, 0)
    n_looks, converting = 0, 0.0
    for fold in range(1, run.n_folds + 1):
        network, clips = run.network(fold, width), run.asked(fold)
        began = time.perf_counter()
        networks = {"keras": network, "openvino": OpenVINONetwork(network)}
        converting += time.perf_counter() - began
        for way, inference in WAYS.items():
            used = networks[inference.runtime]
            few = replace(clips, rows=clips.rows[:: -(-len(clips.rows) // 8)])
            predict(used, batches_of(few, way, batch_size, fold), inference)  # Traces it.
            batches = batches_of(clips, way, batch_size, fold)
            began = time.perf_counter()
            logs[way].append(predict(used, batches, inference))
            seconds[way] += time.perf_counter() - began
            n_frames[way] += frames_of(way, batches)
        n_looks += len(clips)
        print(f"fold {fold}: " + ", ".join(f"{way} {x:.1f} s" for way, x in seconds.items()))
    probabilities = {way: combine(folds, run) for way, folds in logs.items()}
    scored = ~np.isnan(probabilities["exact"]).any(axis=1) & (run.targets >= 0)
    report({way: x[scored] for way, x in probabilities.items()}, run.targets[scored])
    for way, taken in seconds.items():
        times = seconds["exact"] / taken
        print(f"{way}: {1000 * taken / n_looks:.1f} ms a clip and fold, {times:.1f} times exact")
    print(f"OpenVINO: {converting / run.n_folds:.1f} s to convert a network")
    # A frame costs by its mel bands, of which the challenge's recipe has 64.
    bands = 64 / run.mels.values.shape[1]
    estimate({way: bands * seconds[way] / n_frames[way] for way in WAYS})


def batches_of(clips: Clips, way: str, batch_size: int, fold: int) -> ViewBatches:
    """The views of a way to look: six lengths, five spans of each, or some of them."""
    views = Views(n_lengths=6, n_spans=5, batch_size=batch_size)
    return view_batches(clips, views=views, inference=WAYS[way], seed=1, fold=fold)


def frames_of(way: str, views: ViewBatches) -> int:
    """How many frames the convolutions see of the clips that are asked for."""
    from fsat_kedro.inference.shared_views import seen_frames

    if WAYS[way].views == "shared":
        return sum(seen_frames(views, row) for row in views.clips.rows)
    return len(views.clips) * sum(views.lengths)


def combine(folds: list[np.ndarray], run: Run) -> np.ndarray:
    """The ensemble's probabilities; of training clips, those of the fold that held them out."""
    return geometric_mean([np.nansum(folds, axis=0)] if run.split == "train" else folds)


def report(probabilities: dict[str, np.ndarray], targets: np.ndarray) -> None:
    """Print how far every way agrees with the exact one, and its scores."""
    ranks = {way: metrics.top_k(x, k=3) for way, x in probabilities.items()}
    for way, x in probabilities.items():
        pairs = zip(ranks["exact"], ranks[way], strict=True)
        common = np.mean([len({*one} & {*other}) / 3 for one, other in pairs])
        same = ranks["exact"] == ranks[way]
        print(
            f"{way}, {len(targets)} clips: MAP@3 {metrics.map_at_k(targets, x):.4f}, "
            f"accuracy {metrics.accuracy(targets, x):.4f}; same first tag {same[:, 0].mean():.4f}, "
            f"same three in order {same.all(axis=1).mean():.4f}, of three in common {common:.4f}, "
            f"mean difference of probabilities {np.abs(probabilities['exact'] - x).mean():.5f}"
        )


def estimate(seconds_per_frame: dict[str, float]) -> None:
    """Print how long the challenge's test clips would take on this machine."""
    from fsat_kedro.modelling.batches import Clips

    durations = np.resize(lengths_of(3600 * HOURS / N_CLIPS), N_CLIPS)
    frames = np.maximum(1, durations * FRAMES_PER_SECOND).astype(int)
    mels = RaggedArray(np.zeros((frames.sum(), 1), bool), np.cumsum([0, *frames]))
    fnames = [f"{index}.wav" for index in range(N_CLIPS)]
    clips = Clips(np.arange(N_CLIPS), fnames, mels, None, {"shortest": 263, "longest": 763})
    print(f"The challenge's {N_CLIPS} test clips, {HOURS} h, by {N_FOLDS} folds:")
    for way, each in seconds_per_frame.items():
        seen = frames_of(way, batches_of(clips, way, batch_size=64, fold=1))
        print(
            f"{way}: {seen / N_CLIPS:.0f} frames a clip and fold, {1e6 * each:.1f} µs each: "
            f"{N_FOLDS * seen * each / 60:.0f} minutes"
        )


def main() -> None:
    """Read the command line."""
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
