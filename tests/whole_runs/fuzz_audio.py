"""Thousands of damaged sound files, decoded and made into features in a separate process.

Run as a script for many files: `python tests/whole_runs/fuzz_audio.py --files 2000`.
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

MAX_SECONDS = 5.0
"""Seconds per clip."""
FORMATS = {
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


def valid_files(rng: np.random.Generator, seconds: float = 0.6) -> dict[str, bytes]:
    """Return one file per format: a tone in noise, in one or two channels."""
    files = {}
    for index, (name, options) in enumerate(FORMATS.items()):
        rate = 48_000 if "opus" in name else SAMPLE_RATE
        time_axis = np.arange(round(seconds * rate)) / rate
        tone = 0.5 * np.sin(2 * np.pi * 440 * time_axis) + rng.normal(0, 0.05, len(time_axis))
        file = io.BytesIO()
        soundfile.write(file, np.stack([tone] * (1 + index % 2), axis=1), rate, **options)
        files[name] = file.getvalue()
    return files


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file in one to four ways, half of them within its first 100 bytes."""
    damaged = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        if len(damaged) < 8:
            break
        reach = min(100, len(damaged)) if rng.random() < 0.5 else len(damaged)
        start = int(rng.integers(0, reach))
        length = int(min(rng.integers(1, 1 + 2 ** rng.integers(0, 14)), len(damaged) - start))
        damage = rng.integers(0, 8)
        if damage == 0:
            damaged[start] ^= 1 << int(rng.integers(0, 8))
        elif damage == 1:
            damaged[start] = int(rng.integers(0, 256))
        elif damage == 2:
            order = "<I" if rng.random() < 0.5 else ">I"
            damaged[start : start + 4] = struct.pack(order, int(rng.choice(_EXTREMES)))
        elif damage == 3:
            del damaged[start:]
        elif damage == 4:
            del damaged[start : start + length]
        elif damage == 5:
            damaged[start:start] = damaged[start : start + length]
        elif damage == 6:
            damaged[start : start + length] = bytes(length)
        else:
            damaged[start : start + length] = rng.bytes(length)
    return bytes(damaged)


def with_valid_checksums(data: bytes) -> bytes:
    """Correct the checksum of every page of an Ogg file, so that its damage is decoded."""
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


def process(data: bytes) -> str:
    """Decode a file; return `ok`, `ok, with warnings` or the reason of its rejection.

    Raises:
        AssertionError: a feature of a usable clip is not finite.
    """
    try:
        clip = load_trimmed(io.BytesIO(data), top_db=60, max_seconds=60)
    except UnusableClipError as error:
        return str(error)
    mel = log_mel(
        clip.samples, kind="librosa", sample_rate=22_050, n_fft=1764, hop_length=220, n_mels=64
    )
    assert np.isfinite(mel).all(), "log-mel"
    assert np.isfinite(summary_features(clip.samples)).all(), "summary features"
    return "ok, with warnings" if clip.warnings else "ok"


def fuzz(n_files: int, seed: int) -> dict:
    """Process `n_files` damaged files, file i the same for the same seed.

    After a crash of the worker process, a new one continues with the next file.

    Returns:
        files, crashes (of the worker), errors (by file), slow (seconds by file), results (count
        by result), slowest (seconds), growth (MiB of the workers after a tenth of the files).
    """
    context = multiprocessing.get_context("spawn")
    report = {"files": n_files, "crashes": [], "errors": {}, "slow": {}, "slowest": 0.0}
    results: collections.Counter = collections.Counter()
    memory, begin = [], 0
    while begin < n_files:
        receiver, sender = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(sender, begin, n_files, seed))
        worker.start()
        sender.close()
        current = begin
        try:
            while current < n_files:
                if not receiver.poll(12 * MAX_SECONDS):
                    report["slow"][current] = float("inf")
                    worker.kill()
                    raise EOFError
                result, error, seconds, peak = receiver.recv()
                results[re.sub(r"[\d.]+(e\+\d+)?", "N", result.split(":")[0])] += 1
                if error:
                    report["errors"][current] = error
                if seconds > MAX_SECONDS:
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
    report["results"] = dict(results.most_common())
    return report


def damaged_file(index: int, seed: int) -> tuple[str, bytes]:
    """Return format and content of file `index`."""
    rng = np.random.default_rng([seed, index])
    formats = list(FORMATS)
    name = formats[index % len(formats)]
    damaged = mutate(_valid_files(seed)[name], rng)
    if name.startswith("ogg") and rng.random() < 0.7:
        damaged = with_valid_checksums(damaged)
    return name, damaged


_cache: dict[int, dict[str, bytes]] = {}


def _valid_files(seed: int) -> dict[str, bytes]:
    if seed not in _cache:
        _cache[seed] = valid_files(np.random.default_rng(seed))
    return _cache[seed]


def _work(sender, begin: int, end: int, seed: int) -> None:
    warnings.simplefilter("ignore")
    # Compiled and imported before the first file is timed.
    summary_features(np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32))
    for index in range(begin, end):
        _, data = damaged_file(index, seed)
        started = time.perf_counter()
        try:
            result, error = process(data), ""
        except Exception as failure:  # Any error is a finding.
            result, error = "error", f"{type(failure).__name__}: {failure}"
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sender.send((result, error, seconds, peak))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(json.dumps(fuzz(arguments.files, arguments.seed), indent=2))
