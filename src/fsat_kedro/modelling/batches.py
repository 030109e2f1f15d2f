"""Batches of spectrograms and components: random ones for training, fixed views for scoring.

Axes: n clips of a batch, m mel bands, t frames, p components, c classes. Every batch is drawn
from a seed of its own, because Keras may ask for one twice and from several threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import keras
import numpy as np

from fsat_kedro.data.ragged import RaggedArray
from fsat_kedro.modelling import augmentation as augment
from fsat_kedro.parameters import Augmentation

_FEEDING = {"workers": 2, "max_queue_size": 2}
"""With threads of its own Keras has TensorFlow tune nothing, whose tuner, once in a few epochs, is
not told when one is over: the next then begins ten seconds later."""


@dataclass(frozen=True, eq=False)
class Clips:
    """What the networks are given of some clips of a split.

    Attributes:
        rows: (k,) which clips of the split these are.
        fnames: (clips,) names of all clips; what is drawn for a clip depends on its name alone.
        mels: log-mels in dB of all clips, item i (t_i, m).
        components: (clips, p), or None for the network of stage mel.
        mel_statistics: of the training clips: minimum and maximum in dB, which become 0 and 1;
            shortest and longest length in frames to look at.
    """

    rows: np.ndarray
    fnames: Sequence[str]
    mels: RaggedArray
    components: np.ndarray | None
    mel_statistics: dict[str, float]

    def __len__(self) -> int:
        return len(self.rows)

    def span(self, row: int, start: int, length: int) -> np.ndarray:
        """A span of a clip, see `augment.span`: (length, m) float32, its range brought to 0..1."""
        smallest, largest = self.mel_statistics["minimum"], self.mel_statistics["maximum"]
        mel = augment.span(self.mels[row], start, length)
        return ((mel - smallest) / (largest - smallest)).astype(np.float32)

    def random_span(self, row: int, length: int, rng: np.random.Generator) -> np.ndarray:
        """A span of a clip from a random start."""
        return self.span(row, augment.draw_start(self.n_frames(row), length, rng), length)

    def n_frames(self, row: int) -> int:
        """Length of a clip."""
        return len(self.mels[row])

    def inputs(self, mels: list[np.ndarray], rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Spectrograms (t, m) of one length and the clips they are of, as a network's inputs.

        Returns:
            mel (n, m, t, 1), and pca (n, p) if there are components.
        """
        mel = np.stack(mels).transpose(0, 2, 1)[..., None]
        if self.components is None:
            return (mel,)
        return mel, self.components[rows].astype(np.float32)


class TrainingBatches(keras.utils.PyDataset):
    """An epoch of augmented batches, each of one random length.

    Args:
        clips: the clips to train on.
        targets: (clips, c) float32 one-hot labels.
        batch_size: clips a batch, at most.
        lengths: in frames, of which every batch has one, see `lengths.training_lengths`.
        augmentation: shift, flip and erasing.
        mixup_alpha: α, 0 for no mixup.
        seed: of all that is drawn.
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
        super().__init__(**_FEEDING)
        self._clips = clips
        self._targets = targets
        # Keras takes the shape of all batches from the first two: they must be there, and differ.
        self._n_batches = max(min(2, len(clips)), -(-len(clips) // batch_size))
        self._lengths = lengths
        self._augmentation = augmentation
        self._mixup_alpha = mixup_alpha
        self._seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self._n_batches

    def on_epoch_end(self) -> None:
        """Draw anew from the next epoch on."""
        self.epoch += 1

    def __getitem__(self, index: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """Batch `index` of this epoch: the inputs, and targets (n, c)."""
        order = self._rng(0).permutation(len(self._clips))
        rows = self._clips.rows[np.array_split(order, self._n_batches)[index]]
        rng = self._rng(1, index)
        length = self._draw_length(index)
        mels = [self._augmented(row, length, rng) for row in rows]
        inputs = self._clips.inputs(mels, rows)
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

    def _augmented(self, row: int, length: int, rng: np.random.Generator) -> np.ndarray:
        mel = self._clips.random_span(row, length, rng)
        mel = augment.shift(mel, augment.draw_shift(length, self._augmentation.shift, rng))
        if rng.random() < self._augmentation.flip:
            mel = augment.flip(mel)
        erase = self._augmentation.erase
        if rng.random() < erase.probability:
            box = augment.draw_box(mel.shape, area=erase.area, aspect=erase.aspect, rng=rng)
            mel = augment.erase(mel, box, rng.random())
        return mel


class ViewBatches(keras.utils.PyDataset):
    """Every clip at several lengths, in several random spans of each; always the same.

    Batch after batch has another length; the clips of a batch are looked at in all views before
    the next ones are. Where they are few, all their spans of a length are one batch.

    Args:
        clips: the clips to look at.
        lengths: frames of each view, see `lengths.view_lengths`.
        n_spans: random spans of each length.
        batch_size: clips a batch, at most.
        seed: of the spans.
        targets: (clips, c) float32 one-hot labels, if they are wanted along.

    Attributes:
        clips: as given.
        batch_size: as given.
        lengths: frames of each view.
    """

    def __init__(
        self,
        clips: Clips,
        *,
        lengths: list[int],
        n_spans: int,
        batch_size: int,
        seed: int | tuple[int, ...],
        targets: np.ndarray | None = None,
    ) -> None:
        super().__init__(**_FEEDING)
        self.clips = clips
        # Keras takes the shape of all batches from the first two, which have to differ if any do.
        lengths = [lengths[-1], *lengths[:-1]]
        self.lengths = lengths * n_spans
        self.batch_size = batch_size
        self._seed = seed if isinstance(seed, tuple) else (seed,)
        self._targets = targets
        n_parts = -(-len(clips) // batch_size)
        self._looks: list[tuple[np.ndarray, range]] = []
        for rows in np.array_split(clips.rows, n_parts) if n_parts else []:
            n_at_once = n_spans if len(rows) * n_spans <= batch_size else 1
            step = len(lengths) * n_at_once
            for start in range(0, len(self.lengths), step):
                for view in range(start, start + len(lengths)):
                    self._looks.append((rows, range(view, start + step, len(lengths))))

    def __len__(self) -> int:
        return len(self._looks)

    @property
    def n_looks(self) -> int:
        """Views of all clips together."""
        return len(self.clips) * len(self.lengths)

    def rows(self, index: int) -> np.ndarray:
        """Which clip each item of batch `index` is of, (n,)."""
        rows, views = self._looks[index]
        return np.tile(rows, len(views))

    def __getitem__(self, index: int) -> tuple:
        """Batch `index`: the inputs, and targets (n, c) if they were given."""
        rows, views = self._looks[index]
        length = self.lengths[views[0]]
        mels = [
            self.clips.span(row, self._start(row, view), length) for view in views for row in rows
        ]
        inputs = self.clips.inputs(mels, self.rows(index))
        if self._targets is None:
            return (inputs,)
        return inputs, self._targets[self.rows(index)]

    def starts(self, row: int) -> list[int]:
        """The first frame that each view shows of a clip, see `augment.draw_start`."""
        return [self._start(row, view) for view in range(len(self.lengths))]

    def _start(self, row: int, view: int) -> int:
        name = crc32(self.clips.fnames[row].encode())
        rng = np.random.default_rng([*self._seed, name, view])
        return augment.draw_start(self.clips.n_frames(row), self.lengths[view], rng)
