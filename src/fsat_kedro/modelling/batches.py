"""Batches of crops: augmented random ones for training, fixed ones for validation and prediction.

Axes: n clips of a batch, m mel bands, t frames, p components, c classes. Every batch is drawn
from a seed of its own, because Keras may ask for a batch twice and from several threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import keras
import numpy as np

from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.modelling import augmentation as augment
from fsat_kedro.parameters import Augmentation

_QUEUE = {"workers": 2, "max_queue_size": 2}
"""Threads of Keras. Without them TensorFlow tunes a queue of its own, which once in a few epochs
misses the end of an epoch, and the next one begins ten seconds late."""


@dataclass(frozen=True, eq=False)
class Clips:
    """Inputs of the networks for some clips of a split.

    Attributes:
        rows: (k,) rows of these clips in the split.
        fnames: names of all clips; what is drawn for a clip depends on its name alone.
        mels: log-mels in dB of all clips, item i (t_i, m).
        components: (clips, p), or None for the network of stage mel.
        mel_statistics: of the training clips: minimum and maximum in dB, which become 0 and 1;
            shortest and longest crop in frames.
    """

    rows: np.ndarray
    fnames: Sequence[str]
    mels: RaggedArray
    components: np.ndarray | None
    mel_statistics: dict[str, float]

    def __len__(self) -> int:
        return len(self.rows)

    def n_frames(self, row: int) -> int:
        """Return the length of a clip."""
        return len(self.mels[row])

    def crop(self, row: int, start: int, length: int) -> np.ndarray:
        """Return a crop (length, m) float32, scaled to 0..1; see `augmentation.crop`."""
        smallest, largest = self.mel_statistics["minimum"], self.mel_statistics["maximum"]
        mel = augment.crop(self.mels[row], start, length)
        return ((mel - smallest) / (largest - smallest)).astype(np.float32)

    def random_crop(self, row: int, length: int, rng: np.random.Generator) -> np.ndarray:
        """Return a crop (length, m) from a random start."""
        return self.crop(row, augment.draw_crop_start(self.n_frames(row), length, rng), length)

    def inputs(self, crops: list[np.ndarray], rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Stack crops (t, m) of one length, and the components of their rows.

        Returns:
            mel (n, m, t, 1), and pca (n, p) if there are components.
        """
        mel = np.stack(crops).transpose(0, 2, 1)[..., None]
        if self.components is None:
            return (mel,)
        return mel, self.components[rows].astype(np.float32)


class TrainingBatches(keras.utils.PyDataset):
    """An epoch of augmented batches, each of one random length.

    Args:
        clips: training clips.
        targets: (clips, c) float32 one-hot labels.
        batch_size: clips in a batch, at most.
        lengths: crop lengths in frames to draw from, see `crop_lengths.training_lengths`.
        augmentation: shift, flip and erasing.
        mixup_alpha: α, 0 for no mixup.
        seed: of all random draws.

    Attributes:
        epoch: number of the epoch that is drawn, from 0.
    """

    def __init__(
        self,
        clips: Clips,
        targets: np.ndarray,
        *,
        batch_size: int,
        lengths: Sequence[int],
        augmentation: Augmentation,
        mixup_alpha: float,
        seed: int,
    ) -> None:
        super().__init__(**_QUEUE)
        self._clips = clips
        self._targets = targets
        # Keras takes the shape of all batches from the first two: they must exist, and differ.
        self._n_batches = max(min(2, len(clips)), -(-len(clips) // batch_size))
        self._lengths = lengths
        self._augmentation = augmentation
        self._mixup_alpha = mixup_alpha
        self._seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self._n_batches

    def on_epoch_end(self) -> None:
        """Go on to the next epoch's batches."""
        self.epoch += 1

    def __getitem__(self, index: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """Return batch `index` of this epoch: the inputs, and targets (n, c)."""
        order = self._rng(0).permutation(len(self._clips))
        rows = self._clips.rows[np.array_split(order, self._n_batches)[index]]
        rng = self._rng(1, index)
        length = self._draw_length(index)
        crops = [self._augmented_crop(row, length, rng) for row in rows]
        inputs = self._clips.inputs(crops, rows)
        targets = self._targets[rows]
        if self._mixup_alpha > 0:
            partners, weights = augment.draw_mixup(len(rows), self._mixup_alpha, rng)
            inputs = tuple(augment.mixup(part, partners, weights) for part in inputs)
            targets = augment.mixup(targets, partners, weights)
        return inputs, targets

    def _rng(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, self.epoch, *purpose])

    def _draw_length(self, index: int) -> int:
        drawn = int(self._rng(2, index).integers(len(self._lengths)))
        if index == 1 and self._lengths[drawn] == self._draw_length(0):
            drawn += 1 if drawn + 1 < len(self._lengths) else -1
        return self._lengths[drawn]

    def _augmented_crop(self, row: int, length: int, rng: np.random.Generator) -> np.ndarray:
        mel = self._clips.random_crop(row, length, rng)
        mel = augment.shift(mel, augment.draw_shift(length, self._augmentation.shift, rng))
        if rng.random() < self._augmentation.flip:
            mel = augment.flip(mel)
        erase = self._augmentation.erase
        if rng.random() < erase.probability:
            box = augment.draw_box(mel.shape, area=erase.area, aspect=erase.aspect, rng=rng)
            mel = augment.erase(mel, box, rng.random())
        return mel


class CropBatches(keras.utils.PyDataset):
    """Random crops of every clip at several lengths, the same whenever they are asked for.

    Consecutive batches differ in length. All crops of a batch of clips come before the next
    clips. Where the clips are few, a batch has all their crops of a length.

    Args:
        clips: the clips to crop.
        lengths: crop lengths in frames, see `crop_lengths.test_time_lengths`.
        crops_per_length: random crops of each length.
        batch_size: crops in a batch, at most.
        seed: of the crops' positions.
        targets: (clips, c) float32 one-hot labels; None for batches without targets.

    Attributes:
        clips: as given.
        lengths: frames of each crop of a clip.
    """

    def __init__(
        self,
        clips: Clips,
        *,
        lengths: list[int],
        crops_per_length: int,
        batch_size: int,
        seed: int | tuple[int, ...],
        targets: np.ndarray | None = None,
    ) -> None:
        super().__init__(**_QUEUE)
        self.clips = clips
        # Keras takes the shape of all batches from the first two, which have to differ if any do.
        lengths = [lengths[-1], *lengths[:-1]]
        self.lengths = lengths * crops_per_length
        self._seed = seed if isinstance(seed, tuple) else (seed,)
        self._targets = targets
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

    def __getitem__(self, index: int) -> tuple:
        """Return batch `index`: the inputs, and targets (n, c) if there are any."""
        rows, crops = self._batches[index]
        inputs = self.clips.inputs(
            [self._crop(row, crop) for crop in crops for row in rows], self.rows(index)
        )
        if self._targets is None:
            return (inputs,)
        return inputs, self._targets[self.rows(index)]

    def _crop(self, row: int, crop: int) -> np.ndarray:
        name = crc32(self.clips.fnames[row].encode())
        rng = np.random.default_rng([*self._seed, name, crop])
        return self.clips.random_crop(row, self.lengths[crop], rng)
