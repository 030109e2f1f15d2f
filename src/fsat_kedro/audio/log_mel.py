"""Log-mel spectrograms.

Axes: n samples, t frames, m mel bands.
"""

from functools import lru_cache

import librosa
import numpy as np

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.audio.stft import stft


def log_mel(
    wave: np.ndarray, *, sample_rate: int, n_fft: int, hop_length: int, n_mels: int
) -> np.ndarray:
    """Compute a log-mel spectrogram in dB, at most 80 dB below its own maximum.

    Args:
        wave: (n,) float32 at 44.1 kHz, n ≥ 1.
        sample_rate: Hz; the signal is resampled to it first.
        n_fft: samples of a window, at that rate.
        hop_length: samples from window to window, at that rate.
        n_mels: m.

    Returns:
        (m, t) float32.
    """
    wave = librosa.resample(wave, orig_sr=SAMPLE_RATE, target_sr=sample_rate)
    power = np.abs(stft(wave, n_fft=n_fft, hop_length=hop_length)) ** 2
    mel = mel_filterbank(sample_rate, n_fft, n_mels) @ power
    return librosa.power_to_db(mel).astype(np.float32)


@lru_cache
def mel_filterbank(sample_rate: int, n_fft: int, n_mels: int) -> np.ndarray:
    """Return the weights of the mel bands, (m, 1 + n_fft // 2) float32."""
    return librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels)
