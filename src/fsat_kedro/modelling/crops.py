"""Clips as inputs of the networks, and the batches of crops that validation and prediction use.

Nothing here imports Keras, which tagging with converted networks does not need.

Axes: n clips of a batch, m mel bands, t frames, p components, c classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from zlib import crc32

import numpy as np

from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.modelling import augmentation as augment
from fsat_kedro.modelling.crop_lengths import MINIMUM, test_time_crops
from fsat_kedro.parameters import TestTimeCrops

LONGEST_PIECE = 3000
"""Frames; half a minute of `conf/audioset`."""


@dataclass(frozen=True, eq=False)
class Clips:
    """Inputs of the networks for some clips of a split.

    Attributes:
        rows: (k,) rows of these clips in the split.
        fnames: names of all clips; test-time crops are drawn by them.
        mels: log-mels of all clips, item i (t_i, m).
        components: (clips, p), or None for the network of stage mel.
        mel_statistics: of the training clips: minimum and maximum, which become 0 and 1; bounded,
            whether predictions clip values beyond them (true if missing); shortest and longest
            crop in frames.
        targets: (clips, c) float32 one-hot labels, or None for predictions.
    """

    rows: np.ndarray
    fnames: Sequence[str]
    mels: RaggedArray
    components: np.ndarray | None
    mel_statistics: dict[str, float]
    targets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, row: int, frames: np.ndarray) -> np.ndarray:
        """Return frames (t,) of a clip as a new array (t, m)."""
        # To check every index would double the time; none lies outside, so none is clipped.
        return np.take(self.mels[row], frames, axis=0, mode="clip")

    def join(self, crops: Iterable[np.ndarray], n: int, length: int) -> np.ndarray:
        """Join n crops (t, m) to the input mel (n, m, t, 1), float32, scaled to 0..1.

        Values beyond minimum and maximum are below 0 or above 1.
        """
        mel = np.empty((n, self.mels.values.shape[1], length, 1), np.float32)
        smallest, largest = self.mel_statistics["minimum"], self.mel_statistics["maximum"]
        for item, crop in zip(mel[..., 0], crops, strict=True):
            item[:] = ((crop - smallest) / (largest - smallest)).T
        return mel

    def vectors(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the other parts of a batch: pca (n, p) and targets (n, c), if there are any."""
        parts = (self.components, self.targets)
        return [part[rows].astype(np.float32) for part in parts if part is not None]


def test_time_batches(clips: Clips, settings: TestTimeCrops, *, seed: tuple[int, ...]) -> "Batches":
    """Return the batches that a fold predicts.

    Args:
        clips: the clips to predict.
        settings: of the crops.
        seed: of their positions.
    """
    if settings.subset == "whole":
        return WholeBatches(clips, batch_size=settings.batch_size)
    return CropBatches(clips, settings, seed=seed)


class Batches(ABC):
    """Batches of parts of clips, the same whenever they are asked for.

    Attributes:
        clips: the clips that the parts are of.
    """

    def __init__(self, clips: Clips) -> None:
        self.clips = clips

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches."""

    @property
    @abstractmethod
    def n_crops(self) -> int:
        """Number of parts of all clips together."""

    @abstractmethod
    def rows(self, index: int) -> np.ndarray:
        """Return the row of each item of batch `index`, (n,)."""

    @abstractmethod
    def fractions(self, index: int) -> np.ndarray:
        """Return what each item of batch `index` counts in the mean of its clip, (n,)."""

    @abstractmethod
    def _mels(self, index: int) -> list[np.ndarray]:
        """Return the items of batch `index`, n arrays (t, m)."""

    def __getitem__(self, index: int) -> tuple:
        """Return batch `index`: the inputs, and targets (n, c) if the clips have any."""
        mels = self._mels(index)
        mel = self.clips.join(mels, len(mels), len(mels[0]))
        if self.clips.mel_statistics.get("bounded", True):
            # A network that meets other numbers than it was trained on is certain of anything.
            np.clip(mel, 0, 1, out=mel)
        vectors = self.clips.vectors(self.rows(index))
        if self.clips.targets is None:
            return ((mel, *vectors),)
        *pca, targets = vectors
        return (mel, *pca), targets


class WholeBatches(Batches):
    """Every clip as a whole, or in equal pieces if it is long, which bounds the memory.

    Args:
        clips: the clips.
        batch_size: pieces in a batch, at most. Those of a batch have one length.
    """

    def __init__(self, clips: Clips, *, batch_size: int) -> None:
        super().__init__(clips)
        by_length: dict[int, list[tuple[int, int]]] = {}
        for row in clips.rows:
            n_frames = len(clips.mels[row])
            ends = np.linspace(0, n_frames, 1 - -n_frames // LONGEST_PIECE).round().astype(int)
            for start, end in pairwise(ends):
                length = max(int(end - start), MINIMUM)
                by_length.setdefault(length, []).append((int(row), int(start)))
        # Keras takes the shape of all batches from the first two, which have to differ if any do.
        self._batches: list[tuple[int, list[tuple[int, int]]]] = []
        for round_ in range(max(map(len, by_length.values()), default=0)):
            for length, pieces in by_length.items():
                if batch := pieces[round_ * batch_size : (round_ + 1) * batch_size]:
                    self._batches.append((length, batch))

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def n_crops(self) -> int:
        """Number of pieces of all clips together."""
        return sum(len(pieces) for _, pieces in self._batches)

    def rows(self, index: int) -> np.ndarray:
        """Return the row of each item of batch `index`, (n,)."""
        return np.array([row for row, _ in self._batches[index][1]])

    def fractions(self, index: int) -> np.ndarray:
        """Return which part of its clip each item of batch `index` is, (n,)."""
        length, pieces = self._batches[index]
        # Only a whole clip is shorter than its piece.
        return np.array([min(1, length / len(self.clips.mels[row])) for row, _ in pieces])

    def _mels(self, index: int) -> list[np.ndarray]:
        length, pieces = self._batches[index]
        return [
            self.clips.gather(
                row, augment.source_frames(len(self.clips.mels[row]), length, start=start)
            )
            for row, start in pieces
        ]


class CropBatches(Batches):
    """Random crops of every clip at several lengths.

    Consecutive batches differ in length. Clips are processed in groups, all crops of a group
    before the next. If a group is small, one batch holds all its crops of a length.

    Args:
        clips: the clips to crop.
        settings: lengths and number of crops, batch size.
        seed: of the crops' positions.

    Attributes:
        lengths: frames of each crop of a clip.
    """

    def __init__(self, clips: Clips, settings: TestTimeCrops, *, seed: tuple[int, ...]) -> None:
        super().__init__(clips)
        self._seed = seed
        shortest, longest = (int(clips.mel_statistics[key]) for key in ("shortest", "longest"))
        lengths, crops_per_length = test_time_crops(shortest, longest, settings)
        batch_size = settings.batch_size
        # Keras takes the shape of all batches from the first two, which have to differ if any do.
        lengths = [lengths[-1], *lengths[:-1]]
        self.lengths = lengths * crops_per_length
        n_parts = -(-len(clips) // batch_size)
        self._batches: list[tuple[np.ndarray, range]] = []
        for rows in np.array_split(clips.rows, n_parts) if n_parts else []:
            n_at_once = crops_per_length if len(rows) * crops_per_length <= batch_size else 1
            step = len(lengths) * n_at_once
            for start in range(0, len(self.lengths), step):
                for crop in range(start, start + len(lengths)):
                    self._batches.append((rows, range(crop, start + step, len(lengths))))

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def n_crops(self) -> int:
        """Number of crops of all clips together."""
        return len(self.clips) * len(self.lengths)

    def rows(self, index: int) -> np.ndarray:
        """Return the row of each item of batch `index`, (n,)."""
        rows, crops = self._batches[index]
        return np.tile(rows, len(crops))

    def fractions(self, index: int) -> np.ndarray:
        """Return what each item of batch `index` counts in the mean of its clip, (n,)."""
        return np.full(len(self.rows(index)), 1 / len(self.lengths))

    def _mels(self, index: int) -> list[np.ndarray]:
        rows, crops = self._batches[index]
        return [self._crop(row, crop) for crop in crops for row in rows]

    def _crop(self, row: int, crop: int) -> np.ndarray:
        name = crc32(self.clips.fnames[row].encode())
        rng = np.random.default_rng([*self._seed, name, crop])
        n_frames, length = len(self.clips.mels[row]), self.lengths[crop]
        start = augment.draw_crop_start(n_frames, length, rng)
        return self.clips.gather(row, augment.source_frames(n_frames, length, start=start))
