"""Augmentations of log-mel spectrograms.

Axes: t frames, m mel bands, n clips of a batch. The functions `draw_…` draw random numbers from
`rng`, and the others apply them. No function changes its input.
"""

import numpy as np


def draw_crop_start(n_frames: int, length: int, rng: np.random.Generator) -> int:
    """Draw the first frame of a crop; it is negative where the clip is shorter than the crop."""
    surplus = n_frames - length
    if surplus >= 0:
        return int(rng.integers(surplus + 1))
    return -int(rng.integers(-surplus + 1))


def crop(mel: np.ndarray, start: int, length: int) -> np.ndarray:
    """Crop a spectrogram, which continues as its mirror image on both sides.

    Args:
        mel: (t, m) with t ≥ 1.
        start: first frame, which may lie before the spectrogram.
        length: number of frames; the crop may end after the spectrogram.

    Returns:
        (length, m).
    """
    stop = start + length
    before, after = max(0, -start), max(0, stop - len(mel))
    if before or after:
        mel = np.pad(mel, ((before, after), (0, 0)), mode="symmetric")
    return mel[start + before : stop + before]


def draw_shift(length: int, limit: float, rng: np.random.Generator) -> int:
    """Draw a shift in frames, uniform within ± `limit` (a fraction of `length`)."""
    return round(rng.uniform(-limit, limit) * length)


def shift(mel: np.ndarray, frames: int) -> np.ndarray:
    """Move a spectrogram (t, m) later by `frames` (earlier if negative), repeating its edge."""
    source = np.arange(len(mel)) - frames
    return mel[source.clip(0, len(mel) - 1)]


def flip(mel: np.ndarray) -> np.ndarray:
    """Reverse a spectrogram (t, m) in time."""
    return mel[::-1]


def draw_box(
    shape: tuple[int, int],
    *,
    area: tuple[float, float],
    aspect: float,
    rng: np.random.Generator,
) -> tuple[slice, slice]:
    """Draw a rectangle inside `shape`, as in random erasing (Zhong et al., 2017).

    Draws again until a rectangle fits. After 1,000 draws without one it is empty: a large area
    may be too wide for the shape.

    Args:
        shape: (t, m).
        area: smallest and largest fraction of the whole area.
        aspect: smallest ratio of bands to frames; the largest is its inverse.
        rng: draws size and position.
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


def erase(mel: np.ndarray, box: tuple[slice, slice], value: float) -> np.ndarray:
    """Return a copy of a spectrogram (t, m) with the rectangle `box` set to `value`."""
    erased = mel.copy()
    erased[box] = value
    return erased


def draw_mixup(n: int, alpha: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw partners and weights for mixup (Zhang et al., 2017).

    Returns:
        A permutation (n,) of the batch, and λ (n,) float32 in 0..1 from Beta(α, α): the weight of
        each clip itself.
    """
    return rng.permutation(n), rng.beta(alpha, alpha, size=n).astype(np.float32)


def mixup(batch: np.ndarray, partners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mix every clip of a batch (n, …) with its partner: λ · clip + (1 − λ) · partner."""
    weights = weights.reshape(-1, *[1] * (batch.ndim - 1))
    return weights * batch + (1 - weights) * batch[partners]
