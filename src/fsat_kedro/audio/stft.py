"""The short-time Fourier transform and its inverse, as librosa defines them.

Axes: n samples, t frames, f frequency bins of a frame.

The values are those of `librosa.stft` and `librosa.istft` with their defaults. Transforming
several frames at a time, with scipy.fft, takes half as long as one by one.
"""

from collections.abc import Iterable
from functools import lru_cache

import librosa
import numpy as np
import scipy.fft

_BLOCK = 128
"""Frames to transform at a time: few enough for the processor's cache."""


def stft(wave: np.ndarray, *, n_fft: int, hop_length: int) -> np.ndarray:
    """Compute the STFT of a wave; the first window is centred at the first sample.

    It is computed in float64, as in librosa. In float32, rounding errors would swamp quiet frames
    beside loud ones.

    Args:
        wave: (n,) float32, n >= 1; zero outside.
        n_fft: Samples of a window, even.
        hop_length: Samples from window to window.

    Returns:
        (f, t) complex64, f = n_fft // 2 + 1, t = 1 + n // hop_length, frame by frame in memory.
    """
    frames = sliding_frames(np.pad(wave, n_fft // 2), n_fft, hop_length)
    transform = np.empty((len(frames), n_fft // 2 + 1), np.complex64)
    for start in range(0, len(frames), _BLOCK):
        block = slice(start, start + _BLOCK)
        transform[block] = scipy.fft.rfft(frames[block] * hann(n_fft), axis=1)
    return transform.T


def istft(transforms: Iterable[np.ndarray], *, hop_length: int, length: int) -> np.ndarray:
    """Compute the wave whose STFT is closest to the given one.

    Args:
        transforms: (f, t_i) complex64, consecutive blocks of frames.
        hop_length: Samples from window to window; the window length is a multiple of it.
        length: Samples to return; there are t = 1 + length // hop_length frames.

    Returns:
        (length,) float32.
    """
    n_frames, n_done = 1 + length // hop_length, 0
    for transform in transforms:
        frames = scipy.fft.irfft(transform.T, axis=1)
        n_fft = frames.shape[1]
        if n_done == 0:
            wave = np.zeros((n_frames + n_fft // hop_length - 1, hop_length), np.float32)
        frames *= hann(n_fft).astype(np.float32)
        for index, hops in enumerate(np.split(frames, n_fft // hop_length, axis=1)):
            wave[n_done + index :][: len(hops)] += hops
        n_done += len(frames)
    weights = librosa.filters.window_sumsquare(
        window="hann", n_frames=n_frames, n_fft=n_fft, hop_length=hop_length
    )
    inside = slice(n_fft // 2, n_fft // 2 + length)
    return wave.ravel()[inside] / weights[inside]


def sliding_frames(values: np.ndarray, length: int, hop_length: int) -> np.ndarray:
    """Return overlapping frames (t, length) of values (n,), without a copy."""
    return np.lib.stride_tricks.sliding_window_view(values, length)[::hop_length]


@lru_cache
def hann(length: int) -> np.ndarray:
    """Return the periodic Hann window, (length,) float64."""
    return librosa.filters.get_window("hann", length)
