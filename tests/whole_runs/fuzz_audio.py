"""Damaged sound files by the thousand, decoded and made into features in a process of their own.

Run as a script for a long session: `python tests/fuzz_audio.py --files 2000`.
"""

import argparse
import collections
import io
import json
import multiprocessing
import re
import resource
import struct
import time
import warnings

import numpy as np
import soundfile

from fsat_kedro.audio.decoding import SAMPLE_RATE, UnusableClipError, load_trimmed
from fsat_kedro.audio.log_mel import log_mel
from fsat_kedro.audio.summary_features import summary_features

SLOW = 5.0
"""Seconds for a clip."""
SEEDS = {
    "wav_16": {"format": "WAV", "subtype": "PCM_16"},
    "wav_24": {"format": "WAV", "subtype": "PCM_24"},
    "wav_float": {"format": "WAV", "subtype": "FLOAT"},
    "wav_double": {"format": "WAV", "subtype": "DOUBLE"},
    "wav_ulaw": {"format": "WAV", "subtype": "ULAW"},
    "wav_adpcm": {"format": "WAV", "subtype": "IMA_ADPCM"},
    "wav_extensible": {"format": "WAVEX", "subtype": "PCM_16"},
    "rf64": {"format": "RF64", "subtype": "PCM_16"},
    "w64": {"format": "W64", "subtype": "PCM_16"},
    "aiff_16": {"format": "AIFF", "subtype": "PCM_16"},
    "mp3": {"format": "MP3"},
    "flac_16": {"format": "FLAC", "subtype": "PCM_16"},
    "flac_24": {"format": "FLAC", "subtype": "PCM_24"},
    "ogg_vorbis": {"format": "OGG", "subtype": "VORBIS"},
    "ogg_opus": {"format": "OGG", "subtype": "OPUS"},
}
_EXTREMES = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF]


def whole_files(rng: np.random.Generator, seconds: float = 0.6) -> dict[str, bytes]:
    """A file a kind: a tone in noise, in one or two channels."""
    files = {}
    for index, (kind, options) in enumerate(SEEDS.items()):
        rate = 48_000 if "opus" in kind else SAMPLE_RATE
        time_axis = np.arange(round(seconds * rate)) / rate
        tone = 0.5 * np.sin(2 * np.pi * 440 * time_axis) + rng.normal(0, 0.05, len(time_axis))
        file = io.BytesIO()
        soundfile.write(file, np.stack([tone] * (1 + index % 2), axis=1), rate, **options)
        files[kind] = file.getvalue()
    return files


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """A file with one to four kinds of damage, half of them within its first 100 bytes."""
    damaged = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        if len(damaged) < 8:
            break
        reach = min(100, len(damaged)) if rng.random() < 0.5 else len(damaged)
        place = int(rng.integers(0, reach))
        length = int(min(rng.integers(1, 1 + 2 ** rng.integers(0, 14)), len(damaged) - place))
        damage = rng.integers(0, 8)
        if damage == 0:
            damaged[place] ^= 1 << int(rng.integers(0, 8))
        elif damage == 1:
            damaged[place] = int(rng.integers(0, 256))
        elif damage == 2:
            order = "<I" if rng.random() < 0.5 else ">I"
            damaged[place : place + 4] = struct.pack(order, int(rng.choice(_EXTREMES)))
        elif damage == 3:
            del damaged[place:]
        elif damage == 4:
            del damaged[place : place + length]
        elif damage == 5:
            damaged[place:place] = damaged[place : place + length]
        elif damage == 6:
            damaged[place : place + length] = bytes(length)
        else:
            damaged[place : place + length] = rng.bytes(length)
    return bytes(damaged)


def with_right_checksums(data: bytes) -> bytes:
    """An Ogg file with the checksum of every page put right, so that damage gets past it."""
    pages = data.split(b"OggS")
    for index, page in enumerate(pages[1:], start=1):
        if len(page) >= 22:
            blank = b"OggS" + page[:18] + bytes(4) + page[22:]
            pages[index] = page[:18] + struct.pack("<I", _ogg_checksum(blank)) + page[22:]
    return b"OggS".join(pages)


def _ogg_checksum(page: bytes) -> int:
    checksum = 0
    for byte in page:
        checksum = (checksum << 8 & 0xFFFFFFFF) ^ _OGG_TABLE[checksum >> 24 ^ byte]
    return checksum


def _ogg_table_entry(value: int) -> int:
    value <<= 24
    for _ in range(8):
        value = (value << 1 & 0xFFFFFFFF) ^ (0x04C11DB7 if value >> 31 else 0)
    return value


_OGG_TABLE = [_ogg_table_entry(value) for value in range(256)]


def take_in(data: bytes) -> str:
    """What becomes of a file: `ok`, `ok, with warnings` or the reason why it is refused.

    Raises:
        AssertionError: a feature of a usable clip is not finite.
    """
    try:
        clip = load_trimmed(io.BytesIO(data), top_db=60, max_seconds=60)
    except UnusableClipError as error:
        return str(error)
    mel = log_mel(clip.samples, sample_rate=22_050, n_fft=1764, hop_length=220, n_mels=64)
    assert np.isfinite(mel).all(), "log-mel"
    assert np.isfinite(summary_features(clip.samples)).all(), "summary features"
    return "ok, with warnings" if clip.warnings else "ok"


def fuzz(n_files: int, seed: int) -> dict:
    """Take in `n_files` damaged files, file i the same for the same seed.

    A crash of the process that does it costs the file at hand; a new one goes on with the next.

    Returns:
        files, crashes (of the process), errors (by file), slow (seconds by file), outcomes
        (count by outcome), slowest (seconds), growth (MiB that the processes grew after their
        first tenth of the files).
    """
    context = multiprocessing.get_context("spawn")
    report = {"files": n_files, "crashes": [], "errors": {}, "slow": {}, "slowest": 0.0}
    outcomes: collections.Counter = collections.Counter()
    memory, begin = [], 0
    while begin < n_files:
        receiver, sender = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(sender, begin, n_files, seed))
        worker.start()
        sender.close()
        current = begin
        try:
            while current < n_files:
                if not receiver.poll(12 * SLOW):
                    report["slow"][current] = float("inf")
                    worker.kill()
                    raise EOFError
                outcome, error, seconds, peak = receiver.recv()
                outcomes[re.sub(r"[\d.]+(e\+\d+)?", "N", outcome.split(":")[0])] += 1
                if error:
                    report["errors"][current] = error
                if seconds > SLOW:
                    report["slow"][current] = seconds
                report["slowest"] = max(report["slowest"], seconds)
                memory.append(peak)
                current += 1
        except EOFError:
            report["crashes"].append(current)
        worker.join()
        begin = current + 1
    tenth = memory[len(memory) // 10]
    report["growth"] = max(memory) - tenth
    report["peak"] = max(memory)
    report["outcomes"] = dict(outcomes.most_common())
    return report


def damaged_file(index: int, seed: int) -> tuple[str, bytes]:
    """Kind and content of file `index`."""
    rng = np.random.default_rng([seed, index])
    kinds = list(SEEDS)
    kind = kinds[index % len(kinds)]
    damaged = mutate(_whole(seed)[kind], rng)
    if kind.startswith("ogg") and rng.random() < 0.7:
        damaged = with_right_checksums(damaged)
    return kind, damaged


_cache: dict[int, dict[str, bytes]] = {}


def _whole(seed: int) -> dict[str, bytes]:
    if seed not in _cache:
        _cache[seed] = whole_files(np.random.default_rng(seed))
    return _cache[seed]


def _work(sender, begin: int, end: int, seed: int) -> None:
    warnings.simplefilter("ignore")
    # Compiled and imported before the first file is timed.
    summary_features(np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32))
    for index in range(begin, end):
        _, data = damaged_file(index, seed)
        started = time.perf_counter()
        try:
            outcome, error = take_in(data), ""
        except Exception as failure:  # Whatever it is, it is what is looked for.
            outcome, error = "error", f"{type(failure).__name__}: {failure}"
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sender.send((outcome, error, seconds, peak))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(json.dumps(fuzz(arguments.files, arguments.seed), indent=2))
