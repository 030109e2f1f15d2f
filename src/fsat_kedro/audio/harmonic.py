"""The harmonic part of a sound and its tonality: tuning, constant-Q chroma, tonnetz.

Axes: n samples, t frames of the STFT, f frequency bins of a frame, w samples of a wavelet.

The values are those of librosa with its defaults, up to float32 rounding, for waves at 44.1 kHz.
Filters that many clips have in common are computed once.
"""

import warnings
from collections.abc import Iterator
from functools import lru_cache

import librosa
import numpy as np
import scipy.fft
import scipy.ndimage

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.audio.stft import istft, sliding_frames, stft

N_FFT, HOP_LENGTH = 2048, 512
MEDIAN_WIDTH = 31

N_OCTAVES = 7
BINS_PER_OCTAVE = 36
SPARSITY = 0.01
"""Fraction of a wavelet's spectrum, its faintest bins, that librosa rounds to zero. The reference
values depend on it."""
_MEDIAN_BLOCK, _WAVELET_BLOCK = 1024, 256
"""Frames to filter, or to correlate with the wavelets, at a time. They fit the processor's cache,
and a long clip does not exhaust the memory."""


def tonnetz(harmonic: np.ndarray) -> np.ndarray:
    """Compute the tonal centroids of a wave, as `librosa.feature.tonnetz` does by default.

    Args:
        harmonic: (n,) float32, the harmonic part of a sound.

    Returns:
        (6, t) in -1..1: fifths, minor and major thirds, a sine and a cosine of each.
    """
    magnitude = np.abs(stft(harmonic, n_fft=N_FFT, hop_length=HOP_LENGTH))
    tuning = estimate_tuning(magnitude, BINS_PER_OCTAVE)
    chroma = pitches_to_chroma(constant_q(harmonic, tuning))
    return librosa.feature.tonnetz(chroma=chroma, sr=SAMPLE_RATE)


def harmonic_wave(transform: np.ndarray, length: int) -> np.ndarray:
    """Extract the harmonic part, `length` samples, of a sound with the complex STFT (f, t).

    It is that of `librosa.effects.harmonic` by default: median-filtering harmonic/percussive
    separation (Fitzgerald, 2010). Harmonic sound is smooth along time, percussive sound along
    frequency.
    """
    return istft(_harmonic_blocks(transform), hop_length=HOP_LENGTH, length=length)


def _harmonic_blocks(transform: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the harmonic part of an STFT (f, t) in blocks of frames."""
    n_frames, edge = transform.shape[1], MEDIAN_WIDTH // 2
    for start in range(0, n_frames, _MEDIAN_BLOCK):
        stop = min(start + _MEDIAN_BLOCK, n_frames)
        # The neighbouring frames are included, so that the block is not mirrored at its edges.
        padded = slice(max(0, start - edge), stop + edge)
        inner = slice(start - padded.start, stop - padded.start)
        magnitude = np.abs(transform[:, padded])
        harmonic = running_median(magnitude, axis=1)[:, inner]
        percussive = running_median(magnitude[:, inner], axis=0)
        yield transform[:, start:stop] * soft_mask(harmonic, percussive)


def running_median(values: np.ndarray, axis: int) -> np.ndarray:
    """Compute the centred running median of values (a, b) along one axis, mirrored at the edges.

    The values equal those of `scipy.ndimage.median_filter`. SciPy is many times faster with one
    dimension than with two, so all lines are joined into one, each with its mirrored edges.
    """
    lines = np.moveaxis(values, axis, -1)
    edge = MEDIAN_WIDTH // 2
    padded = np.pad(lines, [(0, 0), (edge, edge)], mode="symmetric")
    medians = scipy.ndimage.median_filter(padded.ravel(), MEDIAN_WIDTH).reshape(padded.shape)
    return np.moveaxis(medians[:, edge:-edge], -1, axis)


def soft_mask(magnitude: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Compute a magnitude's fraction of the power of both, as `librosa.util.softmask` does.

    Both have the same shape. The fraction, in 0..1, is one half where both are zero.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        mask = 1 / (1 + np.square(other / magnitude))
    mask[np.isnan(mask)] = 0.5
    return mask


def estimate_tuning(magnitude: np.ndarray, bins_per_octave: int) -> float:
    """Estimate the deviation of a sound from A = 440 Hz, as `librosa.estimate_tuning` does.

    librosa searches for pitches below 4 kHz only. So it gets the lowest quarter of the bins, at a
    quarter of the sample rate. Its threshold for a pitch depends on the loudest of all bins.

    Args:
        magnitude: (f, t) magnitudes at 44.1 kHz.
        bins_per_octave: Bins of which the result is a fraction.

    Returns:
        Fraction of a bin in -0.5..0.5, in steps of 0.01; 0 if there is no pitch.
    """
    loudest = magnitude.max(axis=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Trying to estimate tuning from empty frequency set")
        return librosa.estimate_tuning(
            S=magnitude[: 1 + len(magnitude) // 4],
            sr=SAMPLE_RATE / 4,
            bins_per_octave=bins_per_octave,
            ref=lambda S, axis: loudest,
        )


def constant_q(wave: np.ndarray, tuning: float) -> np.ndarray:
    """Compute the magnitude of the constant-Q transform of a wave (n,), as `librosa.cqt` does.

    From the highest octave down, the wave is resampled to half its rate, and its frames are
    correlated with the same wavelets. The tuning is a fraction of a bin.

    Returns:
        (252, t) magnitudes from C1 on, 36 an octave.
    """
    wavelets = make_wavelets(tuning)
    octaves = []
    for octave in range(N_OCTAVES):
        wave = librosa.resample(wave, orig_sr=2, target_sr=1, scale=True)
        padded = np.pad(wave, len(wavelets) // 2)
        frames = sliding_frames(padded, len(wavelets), HOP_LENGTH >> (octave + 1))
        octaves.append(_correlate(frames, wavelets))
    n_frames = min(map(len, octaves))
    return np.concatenate([octave[:n_frames] for octave in reversed(octaves)], axis=1).T


def _correlate(frames: np.ndarray, wavelets: np.ndarray) -> np.ndarray:
    """Compute the magnitudes (t, 36) of frames (t, w) for wavelets (w, 72)."""
    blocks = []
    for start in range(0, len(frames), _WAVELET_BLOCK):
        real, imaginary = np.split(frames[start : start + _WAVELET_BLOCK] @ wavelets, 2, axis=1)
        blocks.append(np.hypot(real, imaginary))
    return np.concatenate(blocks)


@lru_cache(maxsize=128)
def make_wavelets(tuning: float) -> np.ndarray:
    """Compute the wavelets of the highest octave, for half the sample rate and a tuning in bins.

    They serve the other octaves too, as the rate is halved from octave to octave.

    Returns:
        (w, 72) float32: the real parts of the 36 wavelets, then the imaginary ones.
    """
    lowest = librosa.note_to_hz("C1") * 2 ** (N_OCTAVES - 1 + tuning / BINS_PER_OCTAVE)
    frequencies = librosa.cqt_frequencies(BINS_PER_OCTAVE, fmin=lowest, bins_per_octave=36)
    wavelets, lengths = librosa.filters.wavelet(freqs=frequencies, sr=SAMPLE_RATE / 2)
    n_samples = wavelets.shape[1]
    spectra = scipy.fft.fft(wavelets)[:, : n_samples // 2 + 1]
    spectra = librosa.util.sparsify_rows(spectra, quantile=SPARSITY).toarray()
    wavelets = scipy.fft.fft(spectra, n_samples) * np.sqrt(lengths[:, None]) / n_samples
    return np.concatenate([wavelets.real, wavelets.imag]).T.astype(np.float32)


def pitches_to_chroma(magnitude: np.ndarray) -> np.ndarray:
    """Sum a constant-Q transform (252, t) by pitch class.

    Returns:
        (12, t), C first; the maximum of each frame is 1.
    """
    bank = librosa.filters.cq_to_chroma(len(magnitude), bins_per_octave=BINS_PER_OCTAVE)
    return librosa.util.normalize(bank @ magnitude, norm=np.inf, axis=0)
