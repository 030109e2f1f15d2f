"""From a sound file to samples, and from samples to a log-mel spectrogram.

Axes: n samples, t frames, m mel bands. Signals are mono float32 in −1..1 at 44.1 kHz.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

import librosa
import numpy as np
import soundfile

from fsat_kedro.stft import stft

SAMPLE_RATE = 44_100
LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000
"""Hz; a header that says anything else is taken for damaged."""
LEAST_SHARE = 0.01
"""Of the sound that a header claims; a file that has less is taken for damaged, not for cut off."""
HIGHEST_PEAK = 8.0
"""A float file beyond it is not in −1..1, but in integers, say. One such clip would set the scale
of all spectrograms."""

# In samples. Of a block that breaks all is lost; only FLAC files do break, in blocks of 4096.
_BLOCK, _FLAC_BLOCK = 2**16, 4096
_FORMATS = {
    **dict.fromkeys([".wav", ".wave"], ("WAV", "WAVEX", "RF64", "W64")),
    **dict.fromkeys([".aif", ".aiff", ".aifc"], ("AIFF",)),
    **dict.fromkeys([".ogg", ".oga", ".opus"], ("OGG",)),
    ".flac": ("FLAC",),
    ".mp3": ("MP3",),
}


class UnusableClipError(ValueError):
    """A sound file without usable sound in it; the message is the reason."""


@dataclass(frozen=True)
class TrimmedClip:
    """The sounding part of a clip.

    Attributes:
        samples: (n,) float32.
        start: first kept sample of the decoded clip, at 44.1 kHz.
        end: one past the last kept sample.
        notes: what is odd about the file, in words; empty for most.
    """

    samples: np.ndarray
    start: int
    end: int
    notes: tuple[str, ...] = ()


def decode(
    file: BinaryIO, *, max_seconds: float, suffix: str = ""
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read a sound file in any format of libsndfile as mono samples at 44.1 kHz.

    Args:
        file: seekable.
        max_seconds: what follows later in the file is left out, so that memory is bounded.
        suffix: what the file's name ends in, such as `.wav`.

    Returns:
        (n,) float32; and what is odd about the file, in words.

    Raises:
        UnusableClipError: not a sound file, not the one that its suffix says, no samples, or a
            header that claims much more than there is.
    """
    try:
        sound = _Sound(file)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise UnusableClipError(f"not readable as sound: {_reason(error)}") from error
    with sound:
        _check_format(sound, suffix)
        wave, notes = _read_mono(sound, max_seconds)
    wave, more = _mend(wave)
    if sound.samplerate != SAMPLE_RATE:
        wave = librosa.resample(wave, orig_sr=sound.samplerate, target_sr=SAMPLE_RATE)
    return wave, notes + more


def trim(wave: np.ndarray, *, top_db: float) -> tuple[int, int]:
    """The interval (start, end) of a signal (n,) left when silence at both ends is cut.

    Args:
        wave: (n,) float32.
        top_db: how far below the loudest frame, in dB, counts as silence.

    Raises:
        UnusableClipError: silence, or a constant, throughout.
    """
    if not wave.any():
        raise UnusableClipError("silence throughout")
    if len(wave) > 1 and wave.min() == wave.max():
        raise UnusableClipError(f"silence throughout: every sample is {wave[0]:.3g}")
    _, (start, end) = librosa.effects.trim(wave, top_db=top_db)
    return int(start), int(end)


def load_trimmed(
    file: BinaryIO, *, top_db: float, max_seconds: float, suffix: str = ""
) -> TrimmedClip:
    """Decode and trim a sound file.

    Raises:
        UnusableClipError: see `decode` and `trim`.
    """
    wave, notes = decode(file, max_seconds=max_seconds, suffix=suffix)
    start, end = trim(wave, top_db=top_db)
    return TrimmedClip(wave[start:end], start, end, notes)


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
    power = np.abs(stft(wave, n_fft=n_fft, hop_length=hop_length)) ** 2
    return librosa.power_to_db(mel_bank(sample_rate, n_fft, n_mels) @ power).astype(np.float32)


@lru_cache
def mel_bank(sample_rate: int, n_fft: int, n_mels: int) -> np.ndarray:
    """Make the triangles of the mel bands, (m, 1 + n_fft // 2) float32."""
    return librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels)


class _Sound(soundfile.SoundFile):
    """A sound file that is only read forwards, and so to the place where it is broken.

    soundfile seeks after every read, which fails where a file ends before its header says.
    """

    def seekable(self) -> bool:
        return False


def _check_format(sound: _Sound, suffix: str) -> None:
    meant = _FORMATS.get(suffix.lower())
    if meant is not None and sound.format not in meant:
        raise UnusableClipError(f"named {suffix}, but its content is {sound.format}: rename it")
    if not LOWEST_RATE <= sound.samplerate <= HIGHEST_RATE:
        raise UnusableClipError(f"a sample rate of {sound.samplerate} Hz")


def _read_mono(sound: _Sound, max_seconds: float) -> tuple[np.ndarray, tuple[str, ...]]:
    """Samples (n,) float32 at the file's own rate, as far as there are any; and notes."""
    wanted = round(max_seconds * sound.samplerate)
    size = _FLAC_BLOCK if sound.format == "FLAC" else _BLOCK
    blocks, n_read, broken = [np.zeros(0, np.float32)], 0, ""
    while n_read < wanted:
        try:
            block = sound.read(min(size, wanted - n_read), dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            broken = _reason(error)
            break
        if len(block) == 0:
            break
        blocks.append(block.mean(axis=1))
        n_read += len(block)
    if n_read == 0:
        raise UnusableClipError(f"not readable as sound: {broken}" if broken else "no samples")
    if n_read == wanted and sound.frames > wanted:
        return np.concatenate(blocks), (f"only its first {max_seconds:g} s are used",)
    return np.concatenate(blocks), _missing_part(sound, n_read, broken)


def _missing_part(sound: _Sound, n_read: int, broken: str) -> tuple[str, ...]:
    """A note if the file ends before its header says.

    Raises:
        UnusableClipError: next to nothing is there of what the header says.
    """
    share = n_read / sound.frames if sound.frames > 0 else 1.0
    # libsndfile corrects what the header says to what is there, and tells so in its log only.
    for said, found in re.findall(r"(?:data|SSND) *: (\d+) \(should be (\d+)\)", sound.extra_info):
        share = min(share, int(found) / int(said))
    if share < LEAST_SHARE:
        raise UnusableClipError(f"its header claims {1 / share:.3g} times the sound that is there")
    if share < 1:
        return (f"cut off: {share:.1%} of what its header says",)
    if broken:
        return (f"broken inside, read up to there: {broken}",)
    if "lacks an end-of-stream bit" in sound.extra_info:
        return ("cut off: its end is missing",)
    return ()


def _mend(wave: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """A signal (n,) with finite samples of usual size, and what was done to it."""
    notes = []
    finite = np.isfinite(wave)
    if not finite.all():
        wave = np.where(finite, wave, np.float32(0))
        notes.append(f"{len(wave) - finite.sum()} NaN or infinite samples, taken as 0")
    peak = np.abs(wave).max()
    if peak > HIGHEST_PEAK:
        wave = wave / peak
        notes.append(f"samples up to {peak:.3g}, scaled down to 1")
    return wave, tuple(notes)


def _reason(error: Exception) -> str:
    """What libsndfile says, without the name of the file object."""
    return str(getattr(error, "error_string", error)).strip().rstrip(".")
