"""All views of a clip for little more than the price of one.

Views of a clip overlap, and the convolutions of the networks would see the same frames again and
again. Here they see every frame once, and a view is a window of the map that comes out of them.

Axes: n clips, v views of each, w columns of a map, f features, c classes.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from fsat_kedro.inference.ensemble import log_probabilities
from fsat_kedro.modelling.batches import ViewBatches
from fsat_kedro.modelling.networks import split_network

STRIDE = 32
"""Frames from one column of the backbone's map to the next."""

_LENGTH_STEP = 2 * STRIDE
"""Stretches are made longer to multiples of this, so that clips of like length go together."""


@dataclass(frozen=True)
class _Stretch:
    """Frames of a clip without a gap that some of its views show.

    Attributes:
        clip: its place among the clips that are looked at together.
        start: first frame, which may lie before the clip.
        length: frames.
        views: the views.
        starts: first frame of each, counted from the stretch's.
    """

    clip: int
    start: int
    length: int
    views: list[int]
    starts: list[int]


def predict_shared_views(network: keras.Model, batches: ViewBatches) -> np.ndarray:
    """Nearly what `ensemble.predict_views` gives.

    The views are the same. What differs is what the convolutions see beside them: there the
    frames of the clip, elsewhere zeros.

    Takes and gives what `predict_views` does.
    """
    encoder, head = split_network(network)
    clips = batches.clips
    means = np.full((len(clips.fnames), network.output_shape[1]), np.nan)
    # Clips of like length are looked at together, whatever their order.
    rows = sorted(clips.rows, key=clips.n_frames)
    for first in range(0, len(rows), batches.batch_size):
        part = rows[first : first + batches.batch_size]
        features = _features(encoder, batches, part)
        n, v, f = features.shape
        pca = np.repeat(clips.components[part].astype(np.float32), v, axis=0)
        logs = log_probabilities(head.predict_on_batch([features.reshape(n * v, f), pca]))
        means[part] = logs.reshape(n, v, -1).mean(axis=1)
    return means


def window_weights(starts: Sequence[int], lengths: Sequence[int], n_columns: int) -> np.ndarray:
    """How much each column of a map counts in the mean over a window.

    A view of its own would have columns every 32 frames from its first one on. Here each lies
    between two columns of the map, which share it by their distance.

    Args:
        starts: (v,) first frame of each window, from the first frame of the map on.
        lengths: (v,) frames of each.
        n_columns: w.

    Returns:
        (v, w) float32; each row sums to 1.
    """
    weights = np.zeros((len(starts), n_columns), np.float32)
    for row, start, length in zip(weights, starts, lengths, strict=True):
        count = -(-length // STRIDE)
        first, beyond = divmod(start, STRIDE)
        columns = np.arange(first, first + count)
        share = beyond / STRIDE
        np.add.at(row, columns, (1 - share) / count)
        # Behind the last column there is none to share with.
        np.add.at(row, np.minimum(columns + 1, n_columns - 1), share / count)
    return weights


def seen_frames(batches: ViewBatches, row: int) -> int:
    """How many frames of a clip the convolutions see."""
    stretches = _stretches(0, batches.starts(row), batches.lengths)
    return sum(stretch.length for stretch in stretches)


def _features(encoder: keras.Model, batches: ViewBatches, rows: list[int]) -> np.ndarray:
    """What the head gets of every view, (n, v, f)."""
    clips, lengths = batches.clips, np.array(batches.lengths)
    features = np.empty((len(rows), len(lengths), encoder.output_shape[-1]), np.float32)
    alike = defaultdict(list)
    for clip, row in enumerate(rows):
        for stretch in _stretches(clip, batches.starts(row), batches.lengths):
            alike[stretch.length].append(stretch)
    longest = max(lengths)
    for length, stretches in alike.items():
        at_once = max(1, batches.batch_size * longest // length)
        for first in range(0, len(stretches), at_once):
            part = stretches[first : first + at_once]
            mels = [clips.span(rows[x.clip], x.start, length) for x in part]
            maps = encoder.predict_on_batch(np.stack(mels).transpose(0, 2, 1)[..., None])
            for stretch, columns in zip(part, maps.mean(axis=1), strict=True):
                weights = window_weights(stretch.starts, lengths[stretch.views], len(columns))
                features[stretch.clip, stretch.views] = weights @ columns
    return features


def _stretches(clip: int, starts: Sequence[int], lengths: Sequence[int]) -> Iterator[_Stretch]:
    """The fewest stretches of a clip that all its views lie in."""
    order = sorted(range(len(starts)), key=starts.__getitem__)
    views: list[int] = []
    start = stop = starts[order[0]]
    for view in order:
        if starts[view] > stop:
            yield _stretch(clip, start, stop, views, starts)
            views, start, stop = [], starts[view], starts[view]
        views.append(view)
        stop = max(stop, starts[view] + lengths[view])
    yield _stretch(clip, start, stop, views, starts)


def _stretch(clip: int, start: int, stop: int, views: list[int], starts: Sequence[int]) -> _Stretch:
    length = -(-(stop - start) // _LENGTH_STEP) * _LENGTH_STEP
    return _Stretch(clip, start, length, views, [starts[view] - start for view in views])
