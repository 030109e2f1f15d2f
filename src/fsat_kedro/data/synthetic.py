"""The built-in data set: eight classes of synthetic sounds in FSDKaggle2018's public layout.

Axes: n samples. Waves are floats in −1..1, times are in seconds, frequencies in Hz. `seed` and
`rng` are the only sources of randomness, so the same seed writes the same bytes.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf
from scipy import signal

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.errors import InputError
from fsat_kedro.files import remove

CLIP_SECONDS = (0.6, 3.0)
VERIFIED_FRACTION = 0.4
MISLABELED_FRACTION = 0.15
N_EMPTY = 3

AUDIO_FOLDERS = {"train": "FSDKaggle2018.audio_train", "test": "FSDKaggle2018.audio_test"}
META_FOLDER = "FSDKaggle2018.meta"
TRAIN_CSV = f"{META_FOLDER}/train_post_competition.csv"
TEST_CSV = f"{META_FOLDER}/test_post_competition_scoring_clips.csv"
MARKER = "demo.json"

_PEAK = 0.9
_STREAMS = {"train": 0, "test": 1, "empty": 2}
_PARTIAL_FOLDER = ".demo.partial"


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _decay(times: np.ndarray, t60: float) -> np.ndarray:
    """Return an envelope that falls by 60 dB in `t60` seconds."""
    return 10 ** (-3 * times / t60)


def _phase(frequency: np.ndarray) -> np.ndarray:
    return 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE


def _harmonics(phase: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
    return sum(a * np.sin(k * phase) for k, a in enumerate(amplitudes, start=1))


def _resonance(wave: np.ndarray, frequency: float, quality: float) -> np.ndarray:
    return signal.lfilter(*signal.iirpeak(frequency, quality, fs=SAMPLE_RATE), wave)


def _low_passed(wave: np.ndarray, cutoff: float) -> np.ndarray:
    return signal.lfilter(*signal.butter(1, cutoff, fs=SAMPLE_RATE), wave)


def _onsets(n: int, gap: float, rng: np.random.Generator) -> np.ndarray:
    """Return the first samples of strokes in a slightly uneven beat, about `gap` seconds apart."""
    beats = np.arange(0, n, gap * SAMPLE_RATE)
    beats[1:] += 0.08 * gap * SAMPLE_RATE * rng.uniform(-1, 1, len(beats) - 1)
    return beats[beats < n].astype(int)


def _scale_to_peak(wave: np.ndarray, peak: float) -> np.ndarray:
    largest = np.abs(wave).max()
    return wave * (peak / largest) if largest else wave


def _bell(n: int, rng: np.random.Generator) -> np.ndarray:
    times = np.arange(n) / SAMPLE_RATE
    strike = _log_uniform(rng, 350, 1100)
    t60 = _log_uniform(rng, 1, 4)
    ratios = np.array([0.5, 1, 1.2, 1.5, 2, 2.5, 2.67, 3, 4, 5.4])
    ratios = ratios * rng.uniform(0.98, 1.02, len(ratios))
    wave = np.zeros(n)
    for ratio in ratios:
        tone = np.sin(2 * np.pi * (strike * ratio * times + rng.random()))
        wave += rng.uniform(0.3, 1) * tone * _decay(times, t60 / ratio**0.8)
    return wave


def _chirp(n: int, rng: np.random.Generator) -> np.ndarray:
    start = _log_uniform(rng, 2500, 4500)
    octaves = rng.choice([-1, 1]) * rng.uniform(0.3, 0.8)
    gap = _log_uniform(rng, 0.08, 0.25)
    size = int(rng.uniform(0.4, 0.9) * gap * SAMPLE_RATE)
    progress = np.arange(size) / size
    wave = np.zeros(n)
    for onset in _onsets(n, gap, rng):
        sweep = start * rng.uniform(0.95, 1.05) * 2 ** (octaves * progress)
        note = np.hanning(size) * np.sin(_phase(sweep))
        wave[onset : onset + size] += rng.uniform(0.6, 1) * note[: n - onset]
    return wave


def _drum(n: int, rng: np.random.Generator) -> np.ndarray:
    pitch = _log_uniform(rng, 55, 130)
    t60 = _log_uniform(rng, 0.2, 0.6)
    click_level = rng.uniform(0.1, 0.5)
    gap = _log_uniform(rng, 0.18, 0.6)
    times = np.arange(int(t60 * SAMPLE_RATE)) / SAMPLE_RATE
    skin = np.sin(_phase(pitch * (1 + _decay(times, 0.1)))) * _decay(times, t60)
    wave = np.zeros(n)
    for onset in _onsets(n, gap, rng):
        click = click_level * rng.standard_normal(len(times)) * _decay(times, 0.03)
        stroke = rng.uniform(0.5, 1) * (skin + click)
        wave[onset : onset + len(stroke)] += stroke[: n - onset]
    return wave


def _engine(n: int, rng: np.random.Generator) -> np.ndarray:
    times = np.arange(n) / SAMPLE_RATE
    surge = np.sin(2 * np.pi * (rng.uniform(0.2, 1) * times + rng.random()))
    firing = _log_uniform(rng, 25, 80) * (1 + rng.uniform(0.02, 0.2) * surge)
    strokes = np.floor(_phase(firing) / (2 * np.pi) + rng.random())
    pulses = np.diff(strokes, prepend=strokes[0] - 1) * rng.uniform(0.6, 1, n)
    exhaust = pulses + rng.uniform(0.002, 0.01) * rng.standard_normal(n)
    wave = np.zeros(n)
    for low, high, level in [(80, 200, 1.0), (300, 800, 0.7), (1200, 2500, 0.4)]:
        pitch = _log_uniform(rng, low, high)
        wave += level * _resonance(exhaust, pitch, rng.uniform(1, 4))
    return wave


def _flute(n: int, rng: np.random.Generator) -> np.ndarray:
    times = np.arange(n) / SAMPLE_RATE
    vibrato = np.sin(2 * np.pi * (rng.uniform(4, 6.5) * times + rng.random()))
    pitch = _log_uniform(rng, 260, 1000)
    phase = _phase(pitch * 2 ** (rng.uniform(10, 40) / 1200 * vibrato))
    tone = _harmonics(phase, rng.uniform(0.15, 0.4) ** np.arange(5))
    breath = _resonance(rng.standard_normal(n), 2 * pitch, 0.7)
    attack = np.minimum(1, times / rng.uniform(0.03, 0.12))
    swell = 1 + rng.uniform(0.05, 0.25) * vibrato
    return attack * (swell * tone + rng.uniform(0.05, 0.2) * breath)


def _plucked_string(n: int, rng: np.random.Generator) -> np.ndarray:
    """Send a burst of noise through a loop of a delay line and a mild low-pass.

    Karplus and Strong (1983), "Digital synthesis of plucked-string and drum timbres".
    """
    period = round(SAMPLE_RATE / _log_uniform(rng, 80, 500))
    loss = 10 ** (-3 * period / (SAMPLE_RATE * _log_uniform(rng, 0.6, 3)))
    softness = rng.uniform(0.1, 0.5)
    loop = np.zeros(period + 2)
    loop[0] = 1
    loop[period:] = [-loss * (1 - softness), -loss * softness]
    burst = rng.standard_normal(period)
    pluck = np.zeros(n)
    pluck[:period] = (burst - burst.mean())[:n]  # An offset would decay last.
    return signal.lfilter([1], loop, pluck)


def _siren(n: int, rng: np.random.Generator) -> np.ndarray:
    times = np.arange(n) / SAMPLE_RATE
    # Even a short wail goes up or down once.
    rate = max(_log_uniform(rng, 0.5, 3), 0.7 * SAMPLE_RATE / n)
    rising_fraction = rng.uniform(0.3, 0.7)
    wail = signal.sawtooth(2 * np.pi * (rate * times + rng.random()), rising_fraction)
    octaves = rng.uniform(0.35, 0.7)
    phase = _phase(_log_uniform(rng, 600, 1200) * 2 ** (octaves * wail))
    return _harmonics(phase, rng.uniform(0.3, 0.6) ** np.arange(4))


def _wind(n: int, rng: np.random.Generator) -> np.ndarray:
    times = np.arange(n) / SAMPLE_RATE
    gusts = np.sin(2 * np.pi * (rng.uniform(0.3, 1.5) * times + rng.random()))
    strength = (0.6 + 0.4 * gusts) ** rng.uniform(0.5, 2)
    noise = rng.standard_normal(n)
    rumble = _low_passed(noise, _log_uniform(rng, 200, 800))
    hiss = _low_passed(noise, _log_uniform(rng, 1000, 4000))
    return (1 - strength) * rumble + strength * hiss


_SOUNDS = {
    "Bell": _bell,
    "Chirp": _chirp,
    "Drum": _drum,
    "Engine": _engine,
    "Flute": _flute,
    "Plucked_string": _plucked_string,
    "Siren": _siren,
    "Wind": _wind,
}
LABELS = tuple(sorted(_SOUNDS))


def synthesize(label: str, duration: float, rng: np.random.Generator) -> np.ndarray:
    """Synthesize one clean sound, without silence around it.

    Args:
        label: One of `LABELS`.
        duration: Length in seconds.
        rng: Draws pitch, timbre, decay and tempo.

    Returns:
        (n,) float32 with n = round(duration × 44,100) and a peak of 0.9.

    Raises:
        ValueError: If the label is unknown or the sound empty.
    """
    if label not in _SOUNDS:
        raise ValueError(f"unknown label {label!r}: expected one of {', '.join(LABELS)}")
    n = round(duration * SAMPLE_RATE)
    if n < 1:
        raise ValueError(f"duration is {duration} s: expected at least one sample")
    return _scale_to_peak(_SOUNDS[label](n, rng), _PEAK).astype(np.float32)


def _file_names(stream: str, n_clips: int, seed: int) -> list[str]:
    """Return unique names of eight hexadecimal digits, in no visible order."""
    start = int(np.random.default_rng(seed).integers(2**32))
    numbers = (len(_STREAMS) * row + _STREAMS[stream] for row in range(n_clips))
    # Multiplying by an odd number modulo a power of two is one-to-one, so names are unique.
    return [f"{(start + 2654435761 * number) % 2**32:08x}.wav" for number in numbers]


def plan_clips(split: str, n_clips: int, seed: int) -> pd.DataFrame:
    """Draw labels and file names of the clips of one split, train or test.

    Labels alternate, so class sizes differ by at most one clip. Some unverified training clips
    contain another sound than their label says. More clips do not change the first ones.

    Returns:
        A row per clip: fname, label, sound (the label of the actual sound) and verified (bool;
        true for all test clips).
    """
    rows = np.arange(n_clips)
    label = rows % len(LABELS)
    # One column per decision, so that more rows do not change the first ones.
    verify, err, other = np.random.default_rng([seed, _STREAMS[split]]).random((n_clips, 3)).T
    verified = (verify < VERIFIED_FRACTION) | (split == "test")
    wrong = ~verified & (err < MISLABELED_FRACTION)
    step = 1 + (other * (len(LABELS) - 1)).astype(int)
    names = np.array(LABELS)
    return pd.DataFrame(
        {
            "fname": _file_names(split, n_clips, seed),
            "label": names[label],
            "sound": names[np.where(wrong, (label + step) % len(LABELS), label)],
            "verified": verified,
        }
    )


def _background(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return steady noise (n,) of unit power, from white to dull."""
    noise = signal.lfilter([1], [1, -rng.uniform(0, 0.95)], rng.standard_normal(n))
    return noise / noise.std()


def _simulate_recording(sound: str, rng: np.random.Generator) -> np.ndarray:
    """Return a sound with noise, at a random level, with silence around it, (n,) int16."""
    n = round(_log_uniform(rng, *CLIP_SECONDS) * SAMPLE_RATE)
    head, tail = (rng.uniform(0.05, 0.2, 2) * n).astype(int)
    n_sound = n - head - tail
    wave = synthesize(sound, n_sound / SAMPLE_RATE, rng).astype(float)
    noise_level = wave.std() * 10 ** (-rng.uniform(15, 40) / 20)
    wave += noise_level * _background(n_sound, rng)
    wave *= signal.windows.tukey(n_sound, min(1, 0.004 * SAMPLE_RATE / n_sound))
    clip = np.zeros(n)
    if rng.random() < 0.5:
        clip += 10 ** (rng.uniform(-96, -88) / 20) * rng.standard_normal(n)
    clip[head : n - tail] += _scale_to_peak(wave, _log_uniform(rng, 0.25, _PEAK))
    return np.round(clip * (2**15 - 1)).astype(np.int16)


def _write_sounds(folder: Path, clips: pd.DataFrame, split: str, seed: int) -> None:
    folder.mkdir(parents=True)
    for row, clip in enumerate(clips.itertuples()):
        # One stream per clip, so that its sound does not depend on the number of clips.
        stream = np.random.SeedSequence([seed, _STREAMS[split]], spawn_key=[row])
        recording = _simulate_recording(clip.sound, np.random.default_rng(stream))
        sf.write(folder / clip.fname, recording, SAMPLE_RATE)


def _write_tables(
    folder: Path, train: pd.DataFrame, test: pd.DataFrame, empty: pd.DataFrame
) -> None:
    source = {"freesound_id": 0, "license": "Creative Commons 0"}
    (folder / META_FOLDER).mkdir()
    train = train.assign(manually_verified=train["verified"].astype(int), **source)
    columns = ["fname", "label", "manually_verified", *source]
    train[columns].sort_values("fname").to_csv(folder / TRAIN_CSV, index=False)
    test = test.assign(usage=np.where(np.arange(len(test)) % 5 == 0, "Public", "Private"))
    test = pd.concat([test, empty.assign(usage="Ignored")]).assign(**source)
    columns = ["fname", "label", "usage", *source]
    test[columns].sort_values("fname").to_csv(folder / TEST_CSV, index=False)


def _list_files(folder: Path) -> list[str]:
    """Return the paths of all files in the audio and meta folders, relative to `folder`."""
    names = [*AUDIO_FOLDERS.values(), META_FOLDER]
    paths = (path for name in names for path in folder.glob(f"{name}/*"))
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _require_no_other_files(folder: Path) -> None:
    """Raise an error if a folder has files that no earlier call wrote."""
    marker = folder / MARKER
    try:
        written = json.loads(marker.read_text())["files"] if marker.exists() else []
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{marker} was not written by the demo: move it away, or set raw_dir to another folder"
        ) from error
    others = sorted(set(_list_files(folder)) - set(written))
    if others:
        raise InputError(
            f"{folder} has {len(others)} files that the demo did not write, such as {others[0]}: "
            "set raw_dir to another folder, or move them away"
        )


def _move_into_place(partial: Path, folder: Path) -> None:
    # Tables are removed first and written last. The marker comes before the files that it lists.
    for name in [META_FOLDER, *AUDIO_FOLDERS.values()]:
        remove(folder / name)
    for name in [MARKER, *AUDIO_FOLDERS.values(), META_FOLDER]:
        (partial / name).replace(folder / name)
    partial.rmdir()


def write_synthetic_dataset(folder: Path, *, n_train: int, n_test: int, seed: int) -> pd.DataFrame:
    """Write the synthetic data set into a folder, in the layout of FSDKaggle2018's release.

    Clips are 0.6 to 3 s long, 44.1 kHz, mono, 16-bit, with silence at both ends. Three more test
    clips are empty files, labelled None and ignored, as in the challenge. An earlier data set is
    replaced. The tables come last, so that an interrupted call leaves nothing that looks complete.

    Args:
        folder: Parent of the audio and meta folders, created if missing.
        n_train: Number of training clips, at least one per class.
        n_test: Number of test clips with a sound, at least one per class.
        seed: Any integer from 0.

    Returns:
        A row per clip: fname, label, sound (the label of the actual sound; missing for an empty
        file), split.

    Raises:
        InputError: If there are fewer clips than classes, or the folder has other files in the
            challenge's layout.
    """
    for name, count in [("n_train", n_train), ("n_test", n_test)]:
        if count < len(LABELS):
            raise InputError(f"{name} is {count}: expected at least {len(LABELS)}, one per class")
    folder.mkdir(parents=True, exist_ok=True)
    _require_no_other_files(folder)
    partial = folder / _PARTIAL_FOLDER
    remove(partial)
    train, test = plan_clips("train", n_train, seed), plan_clips("test", n_test, seed)
    for split, clips in [("train", train), ("test", test)]:
        _write_sounds(partial / AUDIO_FOLDERS[split], clips, split, seed)
    empty = pd.DataFrame({"fname": _file_names("empty", N_EMPTY, seed), "label": "None"})
    for fname in empty["fname"]:
        sf.write(partial / AUDIO_FOLDERS["test"] / fname, np.zeros(0, np.int16), SAMPLE_RATE)
    _write_tables(partial, train, test, empty)
    marker = {"seed": seed, "n_train": n_train, "n_test": n_test, "labels": LABELS}
    marker["files"] = _list_files(partial)
    (partial / MARKER).write_text(json.dumps(marker, indent=1) + "\n")
    _move_into_place(partial, folder)
    clips = pd.concat([train, test, empty], keys=["train", "test", "test"], names=["split"])
    return clips.reset_index("split")[["fname", "label", "sound", "split"]].reset_index(drop=True)
