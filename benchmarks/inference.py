"""What views that share their convolutions cost, and how far they agree with exact ones.

    python benchmarks/inference.py DATA_DIR                  # the test clips of a finished run
    python benchmarks/inference.py DATA_DIR --split train    # those that each fold held out

Both ways look at the same views with the same networks, fold by fold and by turns. The estimate
for the whole challenge takes the time of a shared view for proportional to the frames that the
convolutions see, of which clips as long as the challenge's are drawn.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd

from fsat_kedro import metrics
from fsat_kedro.datasets.ragged_dataset import RaggedDataset
from fsat_kedro.ensemble import geometric_mean, predict_views
from fsat_kedro.lengths import view_lengths
from fsat_kedro.parameters import Model
from fsat_kedro.ragged import RaggedArray
from generated import lengths_of

if TYPE_CHECKING:
    import keras

    from fsat_kedro.batches import ViewBatches

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

    def views(self, fold: int, batch_size: int) -> ViewBatches:
        """The 30 views of the clips that a fold is asked for."""
        from fsat_kedro.batches import Clips, ViewBatches

        rows = np.flatnonzero(self.clips["status"] == "ok")
        if self.split == "train":
            rows = pd.read_pickle(self._models / f"fold_{fold}" / "split.pkl")["validation"]
        fnames = self.clips["fname"].tolist()
        clips = Clips(rows, fnames, self.mels, self.components, self.statistics)
        lengths = view_lengths(self.statistics["shortest"], self.statistics["longest"], 6)
        return ViewBatches(clips, lengths=lengths, n_spans=5, batch_size=batch_size, seed=1)

    def network(self, fold: int, width: float) -> keras.Model:
        """A fold's network."""
        from fsat_kedro.model import load_network

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
    """Print seconds and agreement of both ways, and the estimate."""
    from fsat_kedro.shared_views import predict_shared_views, seen_frames

    ways = {"exact": predict_views, "shared": predict_shared_views}
    logs = {way: [] for way in ways}
    seconds = dict.fromkeys(ways, 0.0)
    n_looks = n_frames = 0
    for fold in range(1, run.n_folds + 1):
        network, views = run.network(fold, width), run.views(fold, batch_size)
        network.predict_on_batch(views[0][0])  # Traces it.
        for way, predict in ways.items():
            began = time.perf_counter()
            logs[way].append(predict(network, views))
            seconds[way] += time.perf_counter() - began
        n_looks += len(views.clips)
        n_frames += sum(seen_frames(views, row) for row in views.clips.rows)
        print(f"fold {fold}: " + ", ".join(f"{way} {x:.1f} s" for way, x in seconds.items()))
    for way, taken in seconds.items():
        print(f"{way}: {1000 * taken / n_looks:.1f} ms a clip and fold")
    print(f"ratio {seconds['exact'] / seconds['shared']:.1f}")
    probabilities = {way: combine(folds, run) for way, folds in logs.items()}
    scored = ~np.isnan(probabilities["exact"]).any(axis=1) & (run.targets >= 0)
    report_agreement({way: x[scored] for way, x in probabilities.items()}, run.targets[scored])
    estimate(seconds["shared"] / n_frames, run)


def combine(folds: list[np.ndarray], run: Run) -> np.ndarray:
    """The ensemble's probabilities; of training clips, those of the fold that held them out."""
    return geometric_mean([np.nansum(folds, axis=0)] if run.split == "train" else folds)


def report_agreement(probabilities: dict[str, np.ndarray], targets: np.ndarray) -> None:
    ranks = {way: metrics.rank_classes(x, k=3) for way, x in probabilities.items()}
    same = ranks["exact"] == ranks["shared"]
    common = [
        len({*one} & {*other}) / 3
        for one, other in zip(ranks["exact"], ranks["shared"], strict=True)
    ]
    difference = np.abs(probabilities["exact"] - probabilities["shared"]).mean()
    print(f"{len(targets)} clips: same first tag {same[:, 0].mean():.4f}, same three in order")
    print(f"{same.all(axis=1).mean():.4f}, of three tags in common {np.mean(common):.4f}")
    print(f"mean absolute difference of probabilities {difference:.5f}")
    for way, x in probabilities.items():
        map_at_3, accuracy = metrics.map_at_k(targets, x), metrics.accuracy(targets, x)
        print(f"{way}: MAP@3 {map_at_3:.4f}, accuracy {accuracy:.4f}")


def estimate(seconds_per_frame: float, run: Run) -> None:
    """Print how long the challenge's test clips would take."""
    from fsat_kedro.batches import Clips, ViewBatches
    from fsat_kedro.shared_views import seen_frames

    lengths = np.resize(lengths_of(3600 * HOURS / N_CLIPS), N_CLIPS)
    frames = np.maximum(1, lengths * FRAMES_PER_SECOND).astype(int)
    mels = RaggedArray(np.zeros((frames.sum(), 1), bool), np.cumsum([0, *frames]))
    fnames = [f"{index}.wav" for index in range(N_CLIPS)]
    clips = Clips(np.arange(N_CLIPS), fnames, mels, None, {})
    views = ViewBatches(clips, lengths=view_lengths(263, 763, 6), n_spans=5, batch_size=64, seed=1)
    seen = sum(seen_frames(views, row) for row in range(N_CLIPS))
    # A frame costs by its mel bands, of which the challenge's recipe has 64.
    per_frame = seconds_per_frame * 64 / run.mels.values.shape[1]
    minutes = N_FOLDS * seen * per_frame / 60
    print(
        f"{N_CLIPS} clips, {HOURS} h, {N_FOLDS} folds: {seen / N_CLIPS:.0f} frames a clip and fold,"
    )
    print(f"{1e6 * per_frame:.1f} µs each: {minutes:.0f} minutes in all")


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
