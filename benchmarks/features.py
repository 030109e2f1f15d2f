"""What features cost beside the plain calls of librosa, pandas and SciPy that define them.

    python benchmarks/features.py families CLIP…    # the same clips, by turns, on one core

Every plain function is what one would write from the definitions in `summary.py` and `audio.py`
without a thought for time.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

# Before NumPy is loaded: one core is what is measured.
os.environ.update(dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"], "1"))

import librosa
import numpy as np
import pandas as pd
import scipy.fft
import scipy.stats
import soundfile

from fsat_kedro import summary
from fsat_kedro.audio import SAMPLE_RATE, log_mel

LOG_MEL = {"sample_rate": 22_050, "n_fft": 1764, "hop_length": 220, "n_mels": 64}


# The plain calls, family by family


def plain_log_mel(wave: np.ndarray) -> np.ndarray:
    wave = librosa.resample(wave, orig_sr=SAMPLE_RATE, target_sr=22_050)
    mel = librosa.feature.melspectrogram(y=wave, sr=22_050, n_fft=1764, hop_length=220, n_mels=64)
    return librosa.power_to_db(mel)


def plain_stft(wave: np.ndarray) -> np.ndarray:
    return np.abs(librosa.stft(wave))


def plain_mel(magnitude: np.ndarray) -> np.ndarray:
    return librosa.feature.melspectrogram(S=magnitude, sr=SAMPLE_RATE)


def plain_mfcc(magnitude: np.ndarray) -> np.ndarray:
    return librosa.feature.mfcc(S=magnitude, sr=SAMPLE_RATE, n_mfcc=40)


def plain_chroma(magnitude: np.ndarray) -> np.ndarray:
    return librosa.feature.chroma_stft(S=magnitude, sr=SAMPLE_RATE)


def plain_contrast(magnitude: np.ndarray) -> np.ndarray:
    return librosa.feature.spectral_contrast(S=magnitude, sr=SAMPLE_RATE)


def plain_rolloff(magnitude: np.ndarray) -> np.ndarray:
    return librosa.feature.spectral_rolloff(S=magnitude, sr=SAMPLE_RATE)


def plain_centroid(magnitude: np.ndarray) -> np.ndarray:
    return librosa.feature.spectral_centroid(S=magnitude, sr=SAMPLE_RATE)


def plain_bandwidth(magnitude: np.ndarray) -> np.ndarray:
    return librosa.feature.spectral_bandwidth(S=magnitude, sr=SAMPLE_RATE)


def plain_harmonic(wave: np.ndarray) -> np.ndarray:
    return librosa.effects.harmonic(wave)


def plain_tonnetz(harmonic: np.ndarray) -> np.ndarray:
    return librosa.feature.tonnetz(y=harmonic, sr=SAMPLE_RATE)


def plain_zero_crossing_rate(wave: np.ndarray) -> np.ndarray:
    return librosa.feature.zero_crossing_rate(wave)


def plain_statistics(rows: list[np.ndarray]) -> np.ndarray:
    functions = (np.mean, np.std, scipy.stats.skew, np.max, np.min)
    return np.concatenate([function(r, axis=1) for r in rows for function in functions])


def plain_envelope(wave: np.ndarray) -> np.ndarray:
    power = pd.Series(wave**2).rolling(2000).mean().dropna().reset_index(drop=True)
    peak = power.max()
    runs = [value for level in (0.05, 0.25) for value in plain_runs(power > level * peak)]
    attack = power[power >= 0.99 * peak].index[0]
    low = power[power < 0.2 * peak].index
    later = low[low > attack]
    decay = later[0] if len(later) else low[-1] if len(low) else len(power)
    changes = (wave[1:] * wave[:-1] <= 0).sum()
    logs = np.log1p([attack, decay, changes])
    return np.array([*runs, *logs, changes / len(wave)])


def plain_runs(mask: pd.Series) -> list[float]:
    lengths = mask.groupby((mask != mask.shift()).cumsum()).sum()
    lengths = lengths[lengths > 0]
    if len(lengths) == 0:
        return [0, 0, 0, 0]
    return [*np.log1p([lengths.mean(), lengths.std(ddof=0), lengths.max()]), len(lengths)]


def plain_segments(wave: np.ndarray) -> np.ndarray:
    segments = [wave[i : i + 2000] for i in range(100, len(wave) - 2000 + 1, 2000)]
    return np.log1p(np.mean([np.abs(np.fft.fft(s))[:1000] for s in segments], axis=0))


def plain_peaks(spectrum: np.ndarray) -> np.ndarray:
    bins, peak, norm = np.arange(1000), spectrum.max(), np.linalg.norm(spectrum)
    levels = (0.1, 0.2, 0.5, 0.9, 0.99)
    curvature, slope, intercept = np.polyfit(bins, spectrum, 2)
    centre, left, right = spectrum.argmax(), spectrum.argmax(), spectrum.argmax()
    while left > 0 and spectrum[left] > 0.1 * peak:
        left -= 1
    while right < 1000 and spectrum[right] > 0.1 * peak:
        right += 1
    around = np.polyfit(bins[left:right], spectrum[left:right], 2)[[1, 0, 2]]
    return np.array(
        [
            (spectrum**2 * bins).sum() / (spectrum**2).sum(),
            *((spectrum > level * peak).sum() for level in levels),
            centre,
            *((spectrum[:50] > level * peak).sum() for level in (0.5, 0.9)),
            *(v for level in levels for v in plain_runs(pd.Series(spectrum > level * peak))),
            *(slope, curvature, intercept),
            *(spectrum.sum(), spectrum.mean(), norm, norm / 1000),
            *(around if right - left >= 3 else (0, 0, 0)),
            *pd.Series(spectrum).rolling(20).mean().dropna()[::40],
        ]
    )


def plain_parts(wave: np.ndarray) -> np.ndarray:
    values = []
    for count in (1, 2, 3):
        for signal in (wave.astype(float), np.abs(wave).astype(float), np.diff(wave.astype(float))):
            length = len(signal) // count
            for start in range(0, count * length, length):
                part = signal[start : start + length]
                values += [part.mean(), part.std(), part.min(), part.max()]
    return np.array(values)
