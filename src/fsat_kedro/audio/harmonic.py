"""The harmonic part of a sound, and what its chords are: tuning, constant-Q chroma, tonnetz.

Axes: n samples, t frames of the STFT, f frequency bins of a frame, w samples of a wavelet.

All values are those of librosa with its defaults, within the rounding of float32, for waves at
44.1 kHz. What is the same for every clip, or for every clip of one tuning, is computed once.
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

N_CHROMA = 12
N_OCTAVES = 7
BINS_PER_OCTAVE = 36
SPARSITY = 0.01
"""Share of a wavelet's spectrum that librosa rounds to zero, its faintest bins; the values of
the reference depend on it."""
_MEDIAN_BLOCK, _WAVELET_BLOCK = 1024, 256
"""Frames that are filtered, or compared with the wavelets, at a time: few enough for the
processor's cache and, of a long clip, for the memory."""


def tonnetz(harmonic: np.ndarray) -> np.ndarray:
    """Compute the tonal centroids of a wave, as `librosa.feature.tonnetz` does by default.

    Args:
        harmonic: (n,) float32, the harmonic part of a sound.

    Returns:
        (6, t) in -1..1: fifths, minor and major thirds, a sine and a cosine of each.
    """
    magnitude = np.abs(stft(harmonic, n_fft=N_FFT, hop_length=HOP_LENGTH))
    tuning = estimate_tuning(magnitude, BINS_PER_OCTAVE)
    chroma = fold_to_chroma(constant_q(harmonic, tuning))
    return librosa.feature.tonnetz(chroma=chroma, sr=SAMPLE_RATE)


def harmonic_wave(transform: np.ndarray, length: int) -> np.ndarray:
    """Keep the harmonic part of a sound, as `librosa.effects.harmonic` does by default.

    Median-filtering harmonic/percussive separation (Fitzgerald, 2010): what is harmonic lasts
    along time, what is percussive spreads along frequency.

    Args:
        transform: (f, t) complex STFT.
        length: Samples to return.

    Returns:
        (length,) samples.
    """
    return istft(_harmonic_blocks(transform), hop_length=HOP_LENGTH, length=length)


def _harmonic_blocks(transform: np.ndarray) -> Iterator[np.ndarray]:
    """The harmonic part of an STFT (f, t), block by block of its frames."""
    n_frames, edge = transform.shape[1], MEDIAN_WIDTH // 2
    for start in range(0, n_frames, _MEDIAN_BLOCK):
        stop = min(start + _MEDIAN_BLOCK, n_frames)
        # With the frames around, so that the block's own are not mirrored at its edges.
        around = slice(max(0, start - edge), stop + edge)
        own = slice(start - around.start, stop - around.start)
        magnitude = np.abs(transform[:, around])
        lasting = running_median(magnitude, axis=1)[:, own]
        spread = running_median(magnitude[:, own], axis=0)
        yield transform[:, start:stop] * soft_mask(lasting, spread)


def running_median(values: np.ndarray, axis: int, width: int = MEDIAN_WIDTH) -> np.ndarray:
    """Take the centred running median along one axis, mirrored at the edges.

    Equal to `scipy.ndimage.median_filter` with its default edges. SciPy is many times faster
    with one dimension than with two, so that all lines go through it as one, each with its own
    mirrored edges.

    Args:
        values: (a, b) of any unit.
        axis: Axis to filter along.
        width: Odd number of values under the window.

    Returns:
        Array shaped like `values`.
    """
    lines = np.moveaxis(values, axis, -1)
    edge = width // 2
    padded = np.pad(lines, [(0, 0), (edge, edge)], mode="symmetric")
    medians = scipy.ndimage.median_filter(padded.ravel(), width).reshape(padded.shape)
    return np.moveaxis(medians[:, edge:-edge], -1, axis)


def soft_mask(wanted: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Compute the share of the wanted in the power of both, as `librosa.util.softmask` does.

    Args:
        wanted: Magnitudes of any shape.
        other: As many.

    Returns:
        Values in 0..1, one half where both magnitudes are zero.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        mask = 1 / (1 + np.square(other / wanted))
    mask[np.isnan(mask)] = 0.5
    return mask


def estimate_tuning(magnitude: np.ndarray, bins_per_octave: int) -> float:
    """Find how far a sound is tuned off 440 Hz, as `librosa.estimate_tuning` does.

    Pitches are looked for below 4 kHz alone. So librosa is given the lowest quarter of the bins,
    as of a quarter of the sample rate; but what counts as a pitch depends on the loudest of all.

    Args:
        magnitude: (f, t) magnitudes at 44.1 kHz.
        bins_per_octave: What the result is a share of.

    Returns:
        Shares of a bin in -0.5..0.5, in steps of 0.01; 0 without any pitch.
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
    """Compute the magnitude of the constant-Q transform, as `librosa.cqt` does.

    Octave by octave from the top: the wave is taken to half its rate, and frames of it are
    compared with the same wavelets.

    Args:
        wave: (n,) float32.
        tuning: In shares of a bin.

    Returns:
        (252, t) magnitudes from C1 on, 36 an octave.
    """
    wavelets = make_wavelets(tuning)
    octaves = []
    for octave in range(N_OCTAVES):
        wave = librosa.resample(wave, orig_sr=2, target_sr=1, scale=True)
        padded = np.pad(wave, len(wavelets) // 2)
        frames = sliding_frames(padded, len(wavelets), HOP_LENGTH >> (octave + 1))
        octaves.append(_responses(frames, wavelets))
    n_frames = min(map(len, octaves))
    return np.concatenate([octave[:n_frames] for octave in reversed(octaves)], axis=1).T


def _responses(frames: np.ndarray, wavelets: np.ndarray) -> np.ndarray:
    """Magnitudes (t, 36) of frames (t, w) under wavelets (w, 72)."""
    blocks = []
    for start in range(0, len(frames), _WAVELET_BLOCK):
        real, imaginary = np.split(frames[start : start + _WAVELET_BLOCK] @ wavelets, 2, axis=1)
        blocks.append(np.hypot(real, imaginary))
    return np.concatenate(blocks)


@lru_cache(maxsize=128)
def make_wavelets(tuning: float) -> np.ndarray:
    """Make the wavelets of the highest octave, for half the sample rate.

    Relative to a rate that is halved from octave to octave, those of the others are the same.

    Args:
        tuning: In shares of a bin.

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


def fold_to_chroma(magnitude: np.ndarray) -> np.ndarray:
    """Add up the pitches of a constant-Q transform by their class.

    Args:
        magnitude: (252, t).

    Returns:
        (12, t), C first, each frame's largest 1.
    """
    bank = librosa.filters.cq_to_chroma(
        len(magnitude), bins_per_octave=BINS_PER_OCTAVE, n_chroma=N_CHROMA
    )
    return librosa.util.normalize(bank @ magnitude, norm=np.inf, axis=0)
