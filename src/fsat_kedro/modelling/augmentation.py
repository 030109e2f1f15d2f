"""Augmentations of log-mel spectrograms.

Axes: t frames, m mel bands, n clips of a batch. The functions `draw_…` draw random numbers from
`rng`, and the others apply them. No function changes its input.
"""

import numpy as np


def draw_crop_start(
    n_frames: int | np.ndarray, length: int, rng: np.random.Generator
) -> int | np.ndarray:
    """Draw the first frame of a crop for each number of frames, one or (n,).

    It is negative where the clip is shorter than the crop.
    """
    surplus = np.asarray(n_frames) - length
    return np.sign(surplus) * rng.integers(np.abs(surplus) + 1)


def draw_shift(
    length: int, limit: float, rng: np.random.Generator, size: int | None = None
) -> int | np.ndarray:
    """Draw shifts in frames, one or (size,), within ± `limit` (a fraction of `length`)."""
    return np.rint(rng.uniform(-limit, limit, size) * length).astype(int)


def source_frames(
    n_frames: int | np.ndarray,
    length: int,
    *,
    start: int | np.ndarray,
    shift: int | np.ndarray = 0,
    flip: bool | np.ndarray = False,
) -> np.ndarray:
    """Compose crop, shift and flip: compute which frame of the clip each frame of a crop shows.

    The clip continues as its mirror image on both sides. The crop is moved later by `shift` frames
    (earlier if negative) and repeats its edge there; at last it may be reversed in time.

    Args:
        n_frames: of the clip, at least 1; each argument but the length is a number or (n,).
        length: of the crop, in frames.
        start: first frame of the crop; it may lie before the clip, and the crop may end after it.
        shift: in frames.
        flip: whether to reverse the crop.

    Returns:
        Indices into the frames of the clip: (length,) for one crop, (n, length) for n.
    """
    n_frames, start, shift, flip = (np.expand_dims(x, -1) for x in (n_frames, start, shift, flip))
    positions = np.arange(length)
    positions = np.where(flip, length - 1 - positions, positions)
    frames = start + np.clip(positions - shift, 0, length - 1)
    # A clip and its mirror image repeat after twice its frames.
    frames %= 2 * n_frames
    return np.minimum(frames, 2 * n_frames - 1 - frames)


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
        frames = round((target / ratio) ** 0.5)
        bands = round((target * ratio) ** 0.5)
        if 1 <= frames <= shape[0] and 1 <= bands <= shape[1]:
            first_frame = int(rng.integers(shape[0] - frames + 1))
            first_band = int(rng.integers(shape[1] - bands + 1))
            return slice(first_frame, first_frame + frames), slice(first_band, first_band + bands)
    return slice(0), slice(0)


def draw_mask(size: int, limit: float, rng: np.random.Generator) -> slice:
    """Draw a part of an axis, as in SpecAugment (Park et al., 2019).

    Args:
        size: of the axis.
        limit: largest fraction of it.
        rng: draws length, from 0 to the largest, and position.
    """
    length = int(rng.integers(round(limit * size) + 1))
    start = int(rng.integers(size - length + 1))
    return slice(start, start + length)


def draw_mixup_weights(n: int, alpha: float, rng: np.random.Generator) -> np.ndarray:
    """Draw λ (n,) float32 in 0..1 from Beta(α, α): the weight of each clip (Zhang et al., 2017)."""
    return rng.beta(alpha, alpha, size=n).astype(np.float32)


def mixup(clips: np.ndarray, partners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mix clips with their partners: λ · clip + (1 − λ) · partner.

    All three arrays have one shape, or shapes that broadcast.
    """
    mixed = clips - partners
    mixed *= weights
    mixed += partners
    return mixed
