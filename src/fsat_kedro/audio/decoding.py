"""From a sound file to its trimmed samples.

Axes: n samples. Signals are mono float32 in −1..1 at 44.1 kHz.
"""

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import librosa
import numpy as np
import soundfile

from fsat_kedro.errors import UnreadableError

SAMPLE_RATE = 44_100
LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000
"""Hz; a header that says anything else is taken for damaged."""
MOST_CHANNELS = 32
LEAST_SHARE = 0.01
"""Of the sound that a header claims; a file that has less is taken for damaged, not for cut off."""
HIGHEST_PEAK = 8.0
"""Float samples beyond it are not in −1..1. If few are, they are damaged; if many, the whole file
is in integers, say. One such clip would set the scale of all spectrograms."""
FEW = 0.001
CANCELLED = 1e-3
"""Of the peak of a clip's channels; a mean of the channels below it is what rounding left."""

# In samples. Of a block that breaks all is lost; FLAC and MP3 files break, in blocks of some 4096.
_BLOCK, _SMALL_BLOCK = 2**16, 4096
_INFINITE = 1e30  # Beyond it, the sum of a few samples is infinite in float32.
_UNKNOWN_LENGTH = 2**63 - 1  # What libsndfile tells of FLAC files that do not say.
_CONVERT = "convert it to WAV, FLAC, Ogg or MP3"
_SIZES = re.compile(r"(?:data|SSND|riff|Riff size) *: (\d+) \(should be (\d+)\)")
_OGG_DAMAGE = {
    "lacks an end-of-stream bit": "cut off: its end is missing",
    "reports a hole": "broken inside: what follows is left out",
}
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
        warnings: what is odd about the file, in words; empty for most.
    """

    samples: np.ndarray
    start: int
    end: int
    warnings: tuple[str, ...] = ()


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
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size == 0:
        raise UnusableClipError("an empty file")
    try:
        sound = _Sound(file)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise UnusableClipError(f"not readable as sound: {_reason(error)}: {_CONVERT}") from error
    with sound:
        _check_header(sound, suffix)
        wave, warnings = _read_mono(sound, max_seconds)
        if sound.format == "MP3" and not warnings and file.tell() < 0.9 * size:
            warnings = (f"only {file.tell() / size:.0%} of its bytes are read: {_CONVERT}",)
    wave, more = _tame(wave)
    if sound.samplerate != SAMPLE_RATE:
        wave = librosa.resample(wave, orig_sr=sound.samplerate, target_sr=SAMPLE_RATE)
    return wave, warnings + more


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
    wave, warnings = decode(file, max_seconds=max_seconds, suffix=suffix)
    try:
        start, end = trim(wave, top_db=top_db)
    except UnusableClipError as error:
        raise UnusableClipError("; ".join([str(error), *warnings])) from error
    return TrimmedClip(wave[start:end], start, end, warnings)


def load_or_reject(
    open_sound: Callable[[], BinaryIO],
    *,
    reason: str,
    suffix: str,
    top_db: float,
    max_seconds: float,
) -> tuple[TrimmedClip, str]:
    """Decode and trim a sound file, whatever is in it.

    Args:
        open_sound: opens the file; it may raise `UnreadableError`.
        reason: why it is not to be opened; "" where it is.
        suffix: see `decode`.
        top_db: see `trim`.
        max_seconds: see `decode`.

    Returns:
        The trimmed clip and ""; or an empty one and the reason why it is rejected.
    """
    nothing = TrimmedClip(np.zeros(0, np.float32), 0, 0)
    if reason:
        return nothing, reason
    try:
        with open_sound() as file:
            return load_trimmed(file, top_db=top_db, max_seconds=max_seconds, suffix=suffix), ""
    except (UnusableClipError, UnreadableError) as error:
        return nothing, str(error)


class _Sound(soundfile.SoundFile):
    """A sound file that is only read forwards, and so to the place where it is broken.

    soundfile seeks after every read, which fails where a file ends before its header says.
    """

    def seekable(self) -> bool:
        return False


def _check_header(sound: _Sound, suffix: str) -> None:
    meant = _FORMATS.get(suffix.lower())
    if meant is not None and sound.format not in meant:
        raise UnusableClipError(f"named {suffix}, but its content is {sound.format}: rename it")
    if not LOWEST_RATE <= sound.samplerate <= HIGHEST_RATE:
        raise UnusableClipError(f"a sample rate of {sound.samplerate} Hz")
    if sound.channels > MOST_CHANNELS:
        raise UnusableClipError(f"{sound.channels} channels")


def _read_mono(sound: _Sound, max_seconds: float) -> tuple[np.ndarray, tuple[str, ...]]:
    """Samples (n,) float32 at the file's own rate, as far as there are any; and warnings."""
    wanted = round(max_seconds * sound.samplerate)
    size = _SMALL_BLOCK if sound.format in ("FLAC", "MP3") else _BLOCK
    blocks, n_read, n_mended, peak, broken = [], 0, 0, 0.0, ""
    while n_read < wanted:
        try:
            block = sound.read(min(size, wanted - n_read), dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            broken = _reason(error)
            break
        if len(block) == 0:
            break
        if not np.abs(block).max() < _INFINITE:  # NaN compares as false.
            sane = np.abs(block) < _INFINITE
            n_mended += sane.size - np.count_nonzero(sane)
            block = np.where(sane, block, np.float32(0))
        peak = max(peak, np.abs(block).max())
        blocks.append(block.mean(axis=1))
        n_read += len(block)
    if n_read == 0:
        raise UnusableClipError(f"not readable as sound: {broken}" if broken else "no samples")
    wave = np.concatenate(blocks)
    if np.abs(wave).max() < CANCELLED * peak:
        raise UnusableClipError("its channels cancel each other out: leave one of them")
    warnings = (f"{n_mended} NaN or infinite samples, taken as 0",) if n_mended else ()
    if n_read == wanted and wanted < sound.frames < _UNKNOWN_LENGTH:
        return wave, (*warnings, f"only its first {max_seconds:g} s are used")
    return wave, warnings + _missing_part(sound, n_read, broken)


def _missing_part(sound: _Sound, n_read: int, broken: str) -> tuple[str, ...]:
    """A warning if the file ends before its header says.

    Raises:
        UnusableClipError: next to nothing is there of what the header says.
    """
    known = 0 < sound.frames < _UNKNOWN_LENGTH
    share = n_read / sound.frames if known else 1.0
    # libsndfile corrects what the header says to what is there, and tells so in its log only.
    for said, found in _SIZES.findall(sound.extra_info):
        share = min(share, int(found) / max(1, int(said)))
    if share < LEAST_SHARE:
        raise UnusableClipError(
            f"not even {LEAST_SHARE:.0%} of the sound that its header claims is there: if it is "
            f"whole, {_CONVERT} anew"
        )
    if share < 1:
        return (f"cut off: {math.floor(1000 * share) / 10}% of what its header says",)
    if broken:
        return (f"broken inside, read up to there: {broken}",)
    return tuple(warning for sign, warning in _OGG_DAMAGE.items() if sign in sound.extra_info)[:1]


def _tame(wave: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """A signal (n,) without samples of unusual size, and what was done about them."""
    peak = np.abs(wave).max()
    if peak <= HIGHEST_PEAK:
        return wave, ()
    beyond = np.abs(wave) > HIGHEST_PEAK
    if beyond.mean() < FEW:
        wave[beyond] = 0
        return wave, (f"{beyond.sum()} samples up to {peak:.3g}, taken as 0",)
    return wave / peak, (f"samples up to {peak:.3g}, scaled down to 1",)


def _reason(error: Exception) -> str:
    """What libsndfile says, without the name of the file object."""
    return str(getattr(error, "error_string", error)).strip().rstrip(".")
