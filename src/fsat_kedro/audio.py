"""From a sound file to samples, and from samples to a log-mel spectrogram.

Axes: n samples, t frames, m mel bands. Signals are mono float32 in −1..1 at 44.1 kHz.
"""

from dataclasses import dataclass
from typing import BinaryIO

import librosa
import numpy as np
import soundfile

SAMPLE_RATE = 44_100


class UnusableClipError(ValueError):
    """A sound file without usable sound in it; the message is the reason."""


@dataclass(frozen=True)
class TrimmedClip:
    """The sounding part of a clip.

    Attributes:
        samples: (n,) float32.
        start: first kept sample of the decoded clip, at 44.1 kHz.
        end: one past the last kept sample.
    """

    samples: np.ndarray
    start: int
    end: int


def decode(file: BinaryIO) -> np.ndarray:
    """Read a sound file in any format of libsndfile as mono samples at 44.1 kHz.

    Returns:
        (n,) float32.

    Raises:
        UnusableClipError: not a sound file, no samples, or samples that are no numbers.
    """
    try:
        channels, sample_rate = soundfile.read(file, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise UnusableClipError(f"not readable as sound: {error}") from error
    if len(channels) == 0:
        raise UnusableClipError("no samples")
    wave = channels.mean(axis=1)
    if not np.isfinite(wave).all():
        raise UnusableClipError("NaN or infinite samples")
    if sample_rate != SAMPLE_RATE:
        wave = librosa.resample(wave, orig_sr=sample_rate, target_sr=SAMPLE_RATE)
    return wave


def trim(wave: np.ndarray, *, top_db: float) -> tuple[int, int]:
    """The interval (start, end) of a signal (n,) left when silence at both ends is cut.

    Args:
        wave: (n,) float32.
        top_db: how far below the loudest frame, in dB, counts as silence.

    Raises:
        UnusableClipError: silence throughout.
    """
    if not wave.any():
        raise UnusableClipError("silence throughout")
    _, (start, end) = librosa.effects.trim(wave, top_db=top_db)
    return int(start), int(end)


def load_trimmed(file: BinaryIO, *, top_db: float) -> TrimmedClip:
    """Decode and trim a sound file.

    Raises:
        UnusableClipError: see `decode` and `trim`.
    """
    wave = decode(file)
    start, end = trim(wave, top_db=top_db)
    return TrimmedClip(wave[start:end], start, end)


def log_mel(
    wave: np.ndarray, *, sample_rate: int, n_fft: int, hop_length: int, n_mels: int
) -> np.ndarray:
    """Log-mel spectrogram in dB, at most 80 dB below its own maximum.

    Args:
        wave: (n,) float32 at 44.1 kHz, n ≥ 1.
        sample_rate: Hz, the signal is resampled to it first.
        n_fft: samples, at that rate.
        hop_length: samples, at that rate.
        n_mels: m.

    Returns:
        (m, t) float32.
    """
    wave = librosa.resample(wave, orig_sr=SAMPLE_RATE, target_sr=sample_rate)
    power = librosa.feature.melspectrogram(
        y=wave, sr=sample_rate, n_fft=n_fft, hop_length=hop_length, n_mels=n_mels
    )
    return librosa.power_to_db(power).astype(np.float32)
