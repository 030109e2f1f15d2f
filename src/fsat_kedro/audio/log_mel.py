"""Log-mel spectrograms, of two kinds.

`librosa` is that of librosa's defaults, in dB. `kaldi` is the one that EfficientAT's networks were
trained on (Schmid, Koutini, Widmer: Efficient large-scale audio tagging, ICASSP 2023).

Axes: n samples, t frames, f frequency bins, m mel bands.
"""

from functools import lru_cache
from typing import Literal

import librosa
import numpy as np
import scipy.fft
import scipy.signal

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.audio.stft import hann, sliding_frames, stft
from fsat_kedro.parameters import KALDI_WINDOW

Kind = Literal["librosa", "kaldi"]

_PRE_EMPHASIS = 0.97
_OFFSET = 1e-5  # Of the power, so that silence has a logarithm.
_HIGHEST = 15_000  # Hz, the end of Kaldi's last band.
_BLOCK = 128  # Frames to transform at a time.


def log_mel(
    wave: np.ndarray,
    *,
    kind: Kind,
    sample_rate: int,
    n_fft: int,
    hop_length: int,
    n_mels: int,
) -> np.ndarray:
    """Compute a log-mel spectrogram.

    Args:
        wave: (n,) float32 at 44.1 kHz, n ≥ 1.
        kind: `librosa`: in dB, at most 80 dB below its own maximum; `kaldi`: the natural logarithm
            of the power, at least ln 1e-5.
        sample_rate: Hz; the signal is resampled to it first.
        n_fft: samples of a window, at that rate. Kaldi's window is 25 ms long, and padded to it.
        hop_length: samples from window to window, at that rate.
        n_mels: m.

    Returns:
        (m, t) float32.
    """
    wave = librosa.resample(wave, orig_sr=SAMPLE_RATE, target_sr=sample_rate)
    if kind == "kaldi":
        return kaldi_log_mel(
            wave, sample_rate=sample_rate, n_fft=n_fft, hop_length=hop_length, n_mels=n_mels
        )
    power = np.abs(stft(wave, n_fft=n_fft, hop_length=hop_length)) ** 2
    mel = mel_filterbank(sample_rate, n_fft, n_mels) @ power
    return librosa.power_to_db(mel).astype(np.float32)


def kaldi_log_mel(
    wave: np.ndarray, *, sample_rate: int, n_fft: int, hop_length: int, n_mels: int
) -> np.ndarray:
    """Compute the natural logarithm of the power in Kaldi's mel bands.

    The wave is pre-emphasised; its frames are centred, mirrored at its ends, with a symmetric Hann
    window of 25 ms. It is computed in float32: rounding is far below the offset of the power.

    Args:
        wave: (n,) float32 at `sample_rate`, n ≥ 1.
        sample_rate: Hz.
        n_fft: samples of a frame, of which the window is the middle.
        hop_length: samples from frame to frame.
        n_mels: m.

    Returns:
        (m, t) float32, t = 1 + (n - 1) // hop_length.
    """
    # The difference of samples leaves none of a single one.
    wave = np.pad(wave, (0, max(0, 2 - len(wave))))
    emphasised = wave[1:] - np.float32(_PRE_EMPHASIS) * wave[:-1]
    window = _kaldi_window(sample_rate)
    padded = np.pad(emphasised, len(window) // 2, mode="reflect")
    frames = sliding_frames(padded, len(window), hop_length)
    filters = kaldi_filterbank(sample_rate, n_fft, n_mels)
    mel = np.empty((n_mels, len(frames)), np.float32)
    for start in range(0, len(frames), _BLOCK):
        block = slice(start, start + _BLOCK)
        transform = scipy.fft.rfft(frames[block] * window, n_fft, axis=1)
        mel[:, block] = filters @ (transform.real**2 + transform.imag**2).T
    return np.log(mel + np.float32(_OFFSET))


def constants(
    *, kind: Kind, sample_rate: int, n_fft: int, hop_length: int, n_mels: int
) -> dict[str, np.ndarray | float | int | str]:
    """Return the numbers with which NumPy alone computes a log-mel of either kind.

    With w samples in a window, the log-mel of a wave at `sample_rate` is computed in these steps:

    1. Convolve the wave with `pre_emphasis`, without padding (`np.convolve`, mode "valid").
    2. Pad both ends with w // 2 samples (`np.pad`, mode `padding`).
    3. Cut windows every `hop_length` samples, and multiply them by `window`.
    4. Fourier transform them to `n_fft` samples. Multiply the power with `mel_filters` (m, f).
    5. Compute `log_scale` · ln(max(mel, `log_floor`) + `log_offset`).
    6. Raise what is more than `dynamic_range` below the maximum of the clip.
    """
    common = {"sample_rate": sample_rate, "hop_length": hop_length, "n_fft": n_fft}
    if kind == "kaldi":
        return {
            **common,
            "pre_emphasis": np.array([1, -_PRE_EMPHASIS]),
            "padding": "reflect",
            "window": _kaldi_window(sample_rate),
            "mel_filters": kaldi_filterbank(sample_rate, n_fft, n_mels),
            **{"log_scale": 1.0, "log_floor": 0.0, "log_offset": _OFFSET},
            "dynamic_range": np.inf,
        }
    return {
        **common,
        "pre_emphasis": np.ones(1),
        "padding": "constant",
        "window": hann(n_fft),
        "mel_filters": mel_filterbank(sample_rate, n_fft, n_mels),
        # Those of librosa.power_to_db.
        **{"log_scale": 10 / np.log(10), "log_floor": 1e-10, "log_offset": 0.0},
        "dynamic_range": 80.0,
    }


def decibels(values: np.ndarray, kind: Kind) -> np.ndarray:
    """Convert the values of a log-mel to decibels."""
    return values if kind == "librosa" else values * (10 / np.log(10))


def band_centers(kind: Kind, sample_rate: int, n_mels: int) -> np.ndarray:
    """Return the center frequencies of the mel bands, (m,) in Hz."""
    if kind == "librosa":
        return librosa.mel_frequencies(n_mels, fmax=sample_rate / 2)
    return 700 * np.expm1(_kaldi_edges(sample_rate, n_mels)[1:-1] / 1127)


@lru_cache
def mel_filterbank(sample_rate: int, n_fft: int, n_mels: int) -> np.ndarray:
    """Return the weights of librosa's mel bands, (m, f) float32, f = 1 + n_fft // 2."""
    return librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels)


@lru_cache
def kaldi_filterbank(sample_rate: int, n_fft: int, n_mels: int) -> np.ndarray:
    """Return the weights of Kaldi's mel bands, (m, f) float32: triangles over the mel axis."""
    edges = _kaldi_edges(sample_rate, n_mels)[:, None]
    bins = 1127 * np.log1p(np.fft.rfftfreq(n_fft, 1 / sample_rate) / 700)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def _kaldi_window(sample_rate: int) -> np.ndarray:
    return scipy.signal.windows.hann(round(KALDI_WINDOW * sample_rate)).astype(np.float32)


def _kaldi_edges(sample_rate: int, n_mels: int) -> np.ndarray:
    """Return where the bands begin, (m + 2,) in mel: each ends where the second next begins."""
    highest = min(_HIGHEST, sample_rate / 2)
    return np.linspace(0, 1127 * np.log1p(highest / 700), n_mels + 2)
