"""Batches for Keras: augmented random crops for training, fixed ones for validation.

Axes: n clips of a batch, m mel bands, t frames, p components, c classes. Every batch is drawn
from a seed of its own, because Keras may ask for a batch twice and from several threads.
"""

from collections.abc import Iterator, Sequence

import keras
import numpy as np

from fsat_kedro.modelling import augmentation as augment
from fsat_kedro.modelling.crops import Batches, Clips
from fsat_kedro.parameters import Augmentation

_QUEUE = {"workers": 2, "max_queue_size": 2}
"""Threads of Keras. Without them TensorFlow tunes a queue of its own, which once in a few epochs
misses the end of an epoch, and the next one begins ten seconds late."""


class TrainingBatches(keras.utils.PyDataset):
    """An epoch of augmented batches, each of one random length.

    Args:
        clips: training clips, with targets.
        batch_size: clips in a batch, at most.
        lengths: crop lengths in frames to draw from, see `crop_lengths.training_lengths`.
        augmentation: which changes are made, and how large they are.
        mixup_alpha: α, 0 for no mixup.
        seed: of all random draws.

    Attributes:
        epoch: number of the epoch that is drawn, from 0.
    """

    def __init__(
        self,
        clips: Clips,
        *,
        batch_size: int,
        lengths: Sequence[int],
        augmentation: Augmentation,
        mixup_alpha: float,
        seed: int,
    ) -> None:
        super().__init__(**_QUEUE)
        self._clips = clips
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
        rng = self._rng(1, index)
        length = self._draw_length(index)
        rows = self._draw_rows(index)
        crops, vectors = self._augmented_crops(rows, length, rng), self._clips.vectors(rows)
        if self._mixup_alpha > 0:
            weights = augment.draw_mixup_weights(len(rows), self._mixup_alpha, rng)
            rows = self._draw_rows(index, partners=True)
            crops = map(augment.mixup, crops, self._augmented_crops(rows, length, rng), weights)
            pairs = zip(vectors, self._clips.vectors(rows), strict=True)
            vectors = [augment.mixup(*pair, weights[:, None]) for pair in pairs]
        *pca, targets = vectors
        return (self._clips.join(crops, len(rows), length), *pca), targets

    def _draw_rows(self, index: int, *, partners: bool = False) -> np.ndarray:
        """Draw the rows of batch `index`, or those of their partners in mixup."""
        order = self._rng(3 if partners else 0).permutation(self._clips.rows)
        return np.array_split(order, self._n_batches)[index]

    def _rng(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, self.epoch, *purpose])

    def _draw_length(self, index: int) -> int:
        drawn = int(self._rng(2, index).integers(len(self._lengths)))
        if index == 1 and self._lengths[drawn] == self._draw_length(0):
            drawn += 1 if drawn + 1 < len(self._lengths) else -1
        return self._lengths[drawn]

    def _augmented_crops(
        self, rows: np.ndarray, length: int, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        """Draw a random crop of each row, augmented, as a new array (t, m)."""
        settings, n_frames = self._augmentation, self._clips.mels.lengths[rows]
        frames = augment.source_frames(
            n_frames,
            length,
            start=augment.draw_crop_start(n_frames, length, rng),
            shift=augment.draw_shift(length, settings.shift, rng, len(rows)),
            flip=rng.random(len(rows)) < settings.flip,
        )
        if settings.roll > 0:
            rolled = rng.random(len(rows)) < settings.roll
            offsets = np.where(rolled, rng.integers(length, size=len(rows)), 0)
            frames = np.stack(list(map(np.roll, frames, offsets)))
        smallest, largest = (self._clips.mel_statistics[key] for key in ("minimum", "maximum"))
        erased = rng.random(len(rows)) < settings.erase.probability
        for row, shown, erases in zip(rows, frames, erased, strict=True):
            crop = self._clips.gather(row, shown)
            if erases:
                area, aspect = settings.erase.area, settings.erase.aspect
                box = augment.draw_box(crop.shape, area=area, aspect=aspect, rng=rng)
                crop[box] = rng.uniform(smallest, largest)
            # Nothing is drawn for what is off, so that it does not change the other draws.
            if settings.gain > 0:
                crop += rng.uniform(-settings.gain, settings.gain) * (largest - smallest)
            if settings.frequency_mask > 0:
                bands = augment.draw_mask(crop.shape[1], settings.frequency_mask, rng)
                crop[:, bands] = smallest
            if settings.time_mask > 0:
                crop[augment.draw_mask(len(crop), settings.time_mask, rng)] = smallest
            yield crop


class ValidationBatches(keras.utils.PyDataset):
    """The crops of held-out clips, in the form that Keras takes."""

    def __init__(self, crops: Batches) -> None:
        super().__init__(**_QUEUE)
        self._crops = crops

    def __len__(self) -> int:
        return len(self._crops)

    def __getitem__(self, index: int) -> tuple:
        """Return batch `index`: the inputs, and targets (n, c)."""
        return self._crops[index]
