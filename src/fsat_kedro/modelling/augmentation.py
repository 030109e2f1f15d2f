"""Augmentations of log-mel spectrograms.

Axes: t frames, m mel bands, n clips of a batch. Each function that needs chance takes `rng`;
none changes its input.
"""

import numpy as np


def draw_start(n_frames: int, length: int, rng: np.random.Generator) -> int:
    """Where a span of `length` begins in a clip of `n_frames`; before it, if it is shorter."""
    surplus = n_frames - length
    if surplus >= 0:
        return int(rng.integers(surplus + 1))
    return -int(rng.integers(-surplus + 1))


def span(mel: np.ndarray, start: int, length: int) -> np.ndarray:
    """Some frames of a spectrogram that its mirror image continues on both sides.

    Args:
        mel: (t, m) with t ≥ 1.
        start: the first frame, which may lie before the spectrogram.
        length: number of frames, which may go on after it.

    Returns:
        (length, m).
    """
    stop = start + length
    before, after = max(0, -start), max(0, stop - len(mel))
    if before or after:
        mel = np.pad(mel, ((before, after), (0, 0)), mode="symmetric")
    return mel[start + before : stop + before]


def shift(mel: np.ndarray, frames: int) -> np.ndarray:
    """Move a spectrogram (t, m) later by `frames` (earlier if negative), repeating its edge."""
    source = np.arange(len(mel)) - frames
    return mel[source.clip(0, len(mel) - 1)]


def draw_shift(length: int, limit: float, rng: np.random.Generator) -> int:
    """A shift in frames, uniform within ± `limit` (a share of `length`)."""
    return round(rng.uniform(-limit, limit) * length)


def flip(mel: np.ndarray) -> np.ndarray:
    """A spectrogram (t, m) backwards in time."""
    return mel[::-1]


def erase(mel: np.ndarray, box: tuple[slice, slice], value: float) -> np.ndarray:
    """A copy of a spectrogram (t, m) with the rectangle `box` set to `value`."""
    erased = mel.copy()
    erased[box] = value
    return erased


def draw_box(
    shape: tuple[int, int],
    *,
    area: tuple[float, float],
    aspect: float,
    rng: np.random.Generator,
) -> tuple[slice, slice]:
    """A random rectangle inside `shape`.

    Draws again until the rectangle fits, as in random erasing (Zhong et al., 2017); it is empty
    if none of 1,000 does, as where an area this large would be too wide for the shape.

    Args:
        shape: (t, m).
        area: smallest and largest share of the whole area.
        aspect: smallest ratio of bands to frames; the largest is its inverse.
        rng: draws size and place.
    """
    for _ in range(1000):
        target = rng.uniform(*area) * shape[0] * shape[1]
        ratio = rng.uniform(aspect, 1 / aspect)
        frames = round(np.sqrt(target / ratio))
        bands = round(np.sqrt(target * ratio))
        if 1 <= frames <= shape[0] and 1 <= bands <= shape[1]:
            first_frame = int(rng.integers(shape[0] - frames + 1))
            first_band = int(rng.integers(shape[1] - bands + 1))
            return slice(first_frame, first_frame + frames), slice(first_band, first_band + bands)
    return slice(0, 0), slice(0, 0)


def draw_mixup(n: int, alpha: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Partners and weights for mixup (Zhang et al., 2017).

    Returns:
        A permutation (n,) of the batch, and λ (n,) float32 in 0..1 from Beta(α, α): the share
        that each clip keeps.
    """
    return rng.permutation(n), rng.beta(alpha, alpha, size=n).astype(np.float32)


def mixup(batch: np.ndarray, partners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mix every clip of a batch (n, …) with its partner: λ · own + (1 − λ) · partner's."""
    weights = weights.reshape(-1, *[1] * (batch.ndim - 1))
    return weights * batch + (1 - weights) * batch[partners]
