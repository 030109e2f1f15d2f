"""The short-time Fourier transform and its inverse, as librosa defines them.

Axes: n samples, t frames, f frequency bins of a frame.

The values are those of `librosa.stft` and `librosa.istft` with their defaults. scipy.fft
transforms several frames at a time, which takes half as long as one by one.
"""

from functools import lru_cache

import librosa
import numpy as np
import scipy.fft

_BLOCK = 128
"""Frames that are transformed at a time: few enough for the processor's cache."""


def stft(wave: np.ndarray, *, n_fft: int, hop_length: int) -> np.ndarray:
    """Transform windows of a wave, the first of them centred at its first sample.

    Args:
        wave: (n,) floats, n >= 1, taken as zero outside. The transform is computed in their type:
            float64 for what librosa gives, float32 where its rounding does not matter.
        n_fft: Samples of a window, even.
        hop_length: Samples from window to window.

    Returns:
        (f, t) complex64, f = n_fft // 2 + 1, t = 1 + n // hop_length, frame by frame in memory.
    """
    frames = sliding_frames(np.pad(wave, n_fft // 2), n_fft, hop_length)
    window = hann(n_fft).astype(wave.dtype)
    transform = np.empty((len(frames), n_fft // 2 + 1), np.complex64)
    for start in range(0, len(frames), _BLOCK):
        block = slice(start, start + _BLOCK)
        transform[block] = scipy.fft.rfft(frames[block] * window, axis=1)
    return transform.T


def istft(transform: np.ndarray, *, hop_length: int, length: int) -> np.ndarray:
    """Find the wave whose STFT is nearest to a given one.

    Args:
        transform: (f, t) complex64.
        hop_length: Samples from window to window; a window is a multiple of it.
        length: Samples to return, t = 1 + length // hop_length.

    Returns:
        (length,) float32.
    """
    n_fft = 2 * (transform.shape[0] - 1)
    window = hann(n_fft).astype(np.float32)
    frames = scipy.fft.irfft(transform.T, axis=1)
    frames *= window
    weights = np.broadcast_to(window**2, frames.shape)
    inside = slice(n_fft // 2, n_fft // 2 + length)
    return overlap_add(frames, hop_length)[inside] / overlap_add(weights, hop_length)[inside]


def sliding_frames(values: np.ndarray, length: int, hop_length: int) -> np.ndarray:
    """View values (n,) as overlapping frames (t, length)."""
    return np.lib.stride_tricks.sliding_window_view(values, length)[::hop_length]


def overlap_add(frames: np.ndarray, hop_length: int) -> np.ndarray:
    """Add frames (t, length) to one signal, each `hop_length` samples after the one before.

    Args:
        frames: Floats; their length is a multiple of the hop length.
        hop_length: In samples.

    Returns:
        (length + (t - 1) * hop_length,) of the frames' type.
    """
    n_frames, length = frames.shape
    hops = frames.reshape(n_frames, length // hop_length, hop_length)
    added = np.zeros((n_frames + hops.shape[1] - 1, hop_length), frames.dtype)
    for place in range(hops.shape[1]):
        added[place : place + n_frames] += hops[:, place]
    return added.ravel()


@lru_cache
def hann(length: int) -> np.ndarray:
    """Make the periodic Hann window, (length,) float64."""
    return librosa.filters.get_window("hann", length)
