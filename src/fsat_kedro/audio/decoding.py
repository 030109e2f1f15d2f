"""Decoding, validation and trimming of sound files.

Axes: n samples. Signals are mono float32 in −1..1 at 44.1 kHz.
"""

import math
import os
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import librosa
import numpy as np
import soundfile

from fsat_kedro.errors import UnreadableError

SAMPLE_RATE = 44_100
MIN_FILE_RATE, MAX_FILE_RATE = 1_000, 1_000_000
"""Hz. A header with another sample rate counts as damaged."""
MAX_CHANNELS = 32
MIN_FRACTION_PRESENT = 0.01
"""Smallest usable fraction of the audio in a header. Below it, a file counts as damaged."""
MAX_PEAK = 8.0
"""Float samples beyond it are not in −1..1. A few of them are damaged; many mean that the file is
scaled differently, to integers for instance. One such clip would set the scale of all mels."""
MAX_OUTLIER_FRACTION = 0.001
CANCELLATION_RATIO = 1e-3
"""Fraction of the channels' peak. A mean of the channels below it is only rounding error."""

# In samples. A damaged block is lost entirely; FLAC and MP3 files consist of blocks of some 4096.
_BLOCK, _SMALL_BLOCK = 2**16, 4096
_INFINITE = 1e30  # Beyond it, the sum of a few samples is infinite in float32.
_UNKNOWN_LENGTH = 2**63 - 1  # What libsndfile returns for FLAC files without a length.
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
    """A sound file without usable sound; the message is the reason."""


@dataclass(frozen=True)
class TrimmedClip:
    """A clip without the silence at its ends.

    Attributes:
        samples: (n,) float32.
        start: first kept sample of the decoded clip, at 44.1 kHz.
        end: one past the last kept sample.
        warnings: defects of the file; empty for most.
    """

    samples: np.ndarray
    start: int
    end: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Window:
    """A part of a recording.

    Attributes:
        start: seconds from the start of the recording.
        end: seconds.
        samples: (n,) float32.
        warnings: defects of the part; empty for most.
    """

    start: float
    end: float
    samples: np.ndarray
    warnings: tuple[str, ...] = ()


def decode(
    file: BinaryIO, *, max_seconds: float, suffix: str = ""
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read a sound file in any format of libsndfile as mono samples at 44.1 kHz.

    Args:
        file: a seekable file.
        max_seconds: the rest of a longer file is not read, so that memory is bounded.
        suffix: suffix of the file's name, such as `.wav`.

    Returns:
        (n,) float32, and warnings about defects of the file.

    Raises:
        UnusableClipError: not a sound file, another format than its suffix says, no samples, or
            a header that claims much more audio than the file has.
    """
    with _open(file, suffix) as sound:
        blocks = _MonoBlocks(sound, n_max=round(max_seconds * sound.samplerate))
        wave = np.concatenate([np.zeros(0, np.float32), *blocks])
        warnings = blocks.warnings(max_seconds) or _unread_warnings(sound, file)
    wave, peak_warnings = _limit_peak(wave)
    return _resample(wave, sound.samplerate), warnings + peak_warnings


class Windows:
    """Consecutive overlapping windows of a sound file of any length, in constant memory.

    A window is decoded as a clip of its length would be, without trimming. The last one ends with
    the file, and may be shorter than the others. Windows can be read once.

    Args:
        file: a seekable file.
        seconds: length of a window.
        hop_seconds: from the start of a window to that of the next; at most `seconds`.
        suffix: as for `decode`.

    Attributes:
        warnings: defects of the file, once all windows are read.
    """

    def __init__(
        self, file: BinaryIO, *, seconds: float, hop_seconds: float, suffix: str = ""
    ) -> None:
        self._file = file
        self._seconds = seconds
        self._hop_seconds = hop_seconds
        self._suffix = suffix
        self.warnings: tuple[str, ...] = ()

    def __iter__(self) -> Generator["Window", None, None]:
        """Yield the windows.

        Raises:
            UnusableClipError: see `decode`; because of what the header claims, or channels that
                cancel each other out, at the end of the file only.
        """
        with _open(self._file, self._suffix) as sound:
            blocks = _MonoBlocks(sound)
            rate, number = sound.samplerate, 0
            length, buffer, offset = max(1, round(self._seconds * rate)), np.zeros(0, np.float32), 0
            for block in blocks:
                buffer = np.concatenate([buffer, block])
                # The end of the file may be the end of this block: the last window waits.
                while (start := self._start(number, rate)) + length < offset + len(buffer):
                    yield self._window(number, buffer[start - offset :][:length], rate)
                    number += 1
                    kept = min(self._start(number, rate) - offset, len(buffer))
                    buffer, offset = buffer[kept:], offset + kept
            self.warnings = blocks.warnings() or _unread_warnings(sound, self._file)
            yield self._window(number, buffer[self._start(number, rate) - offset :], rate)

    def _start(self, number: int, rate: int) -> int:
        """Return the first sample of a window at the file's own rate."""
        return round(number * self._hop_seconds * rate)

    def _window(self, number: int, wave: np.ndarray, rate: int) -> "Window":
        start = self._start(number, rate)
        limited, warnings = _limit_peak(wave.copy())
        end = (start + len(wave)) / rate
        return Window(start / rate, end, _resample(limited, rate), warnings)


def trim(wave: np.ndarray, *, top_db: float) -> tuple[int, int]:
    """Find the interval (start, end) of a signal (n,) without the silence at both ends.

    Frames more than `top_db` dB below the loudest one count as silence.

    Raises:
        UnusableClipError: all samples are zero or equal.
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


def read_clip(
    open_file: Callable[[], BinaryIO],
    *,
    reason: str,
    suffix: str,
    top_db: float,
    max_seconds: float,
) -> tuple[TrimmedClip, str]:
    """Decode and trim a sound file, or return the reason why it is rejected.

    A `reason` rejects it without opening it; "" stands for none. `open_file` may raise
    `UnreadableError`. For the other arguments see `decode` and `trim`.

    Returns:
        The trimmed clip and ""; or an empty clip and the reason.
    """
    empty = TrimmedClip(np.zeros(0, np.float32), 0, 0)
    if reason:
        return empty, reason
    try:
        with open_file() as file:
            return load_trimmed(file, top_db=top_db, max_seconds=max_seconds, suffix=suffix), ""
    except (UnusableClipError, UnreadableError) as error:
        return empty, str(error)


class _ForwardSoundFile(soundfile.SoundFile):
    """A sound file that is only read forwards, up to where it is damaged.

    soundfile seeks after every read, which fails where a file ends earlier than its header says.
    """

    def seekable(self) -> bool:
        return False


def _open(file: BinaryIO, suffix: str) -> _ForwardSoundFile:
    """Open a sound file whose header is valid.

    Raises:
        UnusableClipError: see `decode`.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size == 0:
        raise UnusableClipError("an empty file")
    try:
        sound = _ForwardSoundFile(file)
    except (soundfile.SoundFileError, RuntimeError) as error:
        message = f"not readable as sound: {_error_text(error)}: {_CONVERT}"
        raise UnusableClipError(message) from error
    try:
        _require_valid_header(sound, suffix)
    except UnusableClipError:
        sound.close()
        raise
    return sound


def _require_valid_header(sound: _ForwardSoundFile, suffix: str) -> None:
    formats = _FORMATS.get(suffix.lower())
    if formats is not None and sound.format not in formats:
        raise UnusableClipError(f"named {suffix}, but its content is {sound.format}: rename it")
    if not MIN_FILE_RATE <= sound.samplerate <= MAX_FILE_RATE:
        raise UnusableClipError(f"a sample rate of {sound.samplerate} Hz")
    if sound.channels > MAX_CHANNELS:
        raise UnusableClipError(f"{sound.channels} channels")


class _MonoBlocks:
    """Blocks of a sound file up to any damage, each the mean of its channels (n,) float32.

    Args:
        sound: the file, at its start.
        n_max: samples to read, at most.
    """

    def __init__(self, sound: _ForwardSoundFile, n_max: float = math.inf) -> None:
        self._sound = sound
        self._n_max = n_max
        self._n_read = self._n_replaced = 0
        # Of single channels, and of their mean.
        self._channel_peak = self._peak = 0.0
        self._damage = ""

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the blocks.

        Raises:
            UnusableClipError: at the end, if there are no samples, or the channels cancel each
                other out.
        """
        size = _SMALL_BLOCK if self._sound.format in ("FLAC", "MP3") else _BLOCK
        while (n := int(min(size, self._n_max - self._n_read))) and len(block := self._read(n)):
            self._channel_peak = max(self._channel_peak, np.abs(block).max())
            mono = block.mean(axis=1)
            self._peak = max(self._peak, np.abs(mono).max())
            self._n_read += len(mono)
            yield mono
        if self._n_read == 0:
            damage = f"not readable as sound: {self._damage}"
            raise UnusableClipError(damage if self._damage else "no samples")
        if self._peak < CANCELLATION_RATIO * self._channel_peak:
            raise UnusableClipError("its channels cancel each other out: keep one of them")

    def _read(self, n: int) -> np.ndarray:
        """Read up to n samples (n, channels), none at the end or where the file is damaged."""
        try:
            block = self._sound.read(n, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            self._damage = _error_text(error)
            return np.zeros((0, 1), np.float32)
        if len(block) and not np.abs(block).max() < _INFINITE:  # NaN compares as false.
            finite = np.abs(block) < _INFINITE
            self._n_replaced += finite.size - np.count_nonzero(finite)
            return np.where(finite, block, np.float32(0))
        return block

    def warnings(self, max_seconds: float = math.inf) -> tuple[str, ...]:
        """Return warnings about the file, once all blocks are read.

        Raises:
            UnusableClipError: see `_damage_warnings`.
        """
        n = self._n_replaced
        warnings = (f"{n} NaN or infinite samples, taken as 0",) if n else ()
        if self._n_read == self._n_max < self._sound.frames < _UNKNOWN_LENGTH:
            return (*warnings, f"only its first {max_seconds:g} s are used")
        return warnings + _damage_warnings(self._sound, self._n_read, self._damage)


def _damage_warnings(sound: _ForwardSoundFile, n_read: int, damage: str) -> tuple[str, ...]:
    """Return a warning if the file is damaged or ends earlier than its header says.

    Raises:
        UnusableClipError: almost nothing of what the header claims is in the file.
    """
    known = 0 < sound.frames < _UNKNOWN_LENGTH
    fraction = n_read / sound.frames if known else 1.0
    # libsndfile corrects the header's sizes to the actual ones, and says so in its log only.
    for claimed, found in _SIZES.findall(sound.extra_info):
        fraction = min(fraction, int(found) / max(1, int(claimed)))
    if fraction < MIN_FRACTION_PRESENT:
        raise UnusableClipError(
            f"less than {MIN_FRACTION_PRESENT:.0%} of the sound that its header claims is there: "
            f"if the file is complete, {_CONVERT} again"
        )
    if fraction < 1:
        return (f"cut off: {math.floor(1000 * fraction) / 10}% of what its header says",)
    if damage:
        return (f"broken inside, read up to there: {damage}",)
    return tuple(warning for sign, warning in _OGG_DAMAGE.items() if sign in sound.extra_info)[:1]


def _unread_warnings(sound: _ForwardSoundFile, file: BinaryIO) -> tuple[str, ...]:
    """Return a warning if a file, read to its end, has bytes that were not read."""
    position = file.tell()
    size = file.seek(0, os.SEEK_END)
    if sound.format == "MP3" and position < 0.9 * size:
        return (f"only {position / size:.0%} of its bytes are read: {_CONVERT}",)
    return ()


def _resample(wave: np.ndarray, rate: int) -> np.ndarray:
    """Resample a wave (n,) from a rate in Hz to 44.1 kHz."""
    if rate == SAMPLE_RATE:
        return wave
    return librosa.resample(wave, orig_sr=rate, target_sr=SAMPLE_RATE)


def _limit_peak(wave: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Zero a few samples (n,) that are far too large, or scale down a wave of many; and warn."""
    peak = np.abs(wave).max()
    if peak <= MAX_PEAK:
        return wave, ()
    outliers = np.abs(wave) > MAX_PEAK
    if outliers.mean() < MAX_OUTLIER_FRACTION:
        wave[outliers] = 0
        return wave, (f"{outliers.sum()} samples up to {peak:.3g}, taken as 0",)
    return wave / peak, (f"samples up to {peak:.3g}, scaled down to 1",)


def _error_text(error: Exception) -> str:
    """Return libsndfile's message without the name of the file object."""
    return str(getattr(error, "error_string", error)).strip().rstrip(".")
