"""Measure timelines: which windows find the most sounds, and what an hour takes.

    python benchmarks/timeline.py windows DATA_DIR
    python benchmarks/timeline.py hours DATA_DIR WORK_DIR

`DATA_DIR` has the results of a run with converted networks. `windows` joins random parts of 1 to
5 s of each fold's held-out clips to a recording, tags it with the network of that fold alone, and
prints the fractions of time with a right and with a wrong segment. `hours` joins clips to
recordings of 10 and of 60 minutes in `WORK_DIR`, and prints time and peak memory of `kedro tag
--timeline` on each. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.datasets import RaggedDataset
from fsat_kedro.inference.tagger import Sound, Tagger
from fsat_kedro.inference.timeline import tag_recording
from fsat_kedro.parameters import Tag

WINDOWS = ((0.5, 0.25), (1, 0.25), (1, 0.5), (2, 0.5), (2, 1), (3, 0.5), (3, 1), (5, 1))
STEP = 0.1
"""Seconds between the moments at which a timeline is judged."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["windows", "hours"])
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("work_dir", type=Path, nargs="?")
    arguments = parser.parse_args()
    if arguments.what == "windows":
        judge_windows(arguments.data_dir)
    else:
        time_recordings(arguments.data_dir, arguments.work_dir)


def judge_windows(data_dir: Path) -> None:
    clips, audio = read_clips(data_dir)
    tagger = Tagger.load(data_dir / "06_models")
    assert tagger.is_converted()
    networks, folds = tagger._converted, np.load(data_dir / "06_models/train_folds.npy")
    rows = []
    for fold, network in enumerate(networks, start=1):
        tagger._converted = [network]
        rng = np.random.default_rng(fold)
        held_out = rng.permutation(np.flatnonzero(folds == fold))
        parts = [random_part(np.array(audio[row]), rng) for row in held_out]
        labels = np.repeat(clips["label"].to_numpy()[held_out], [len(part) for part in parts])
        sound = as_file(np.concatenate(parts))
        for window, hop in WINDOWS:
            settings = Tag(timeline=True, window_seconds=window, hop_seconds=hop, threshold=0.5)
            found = tag_recording(tagger, sound, settings).segments
            moments = np.arange(0, len(labels) / SAMPLE_RATE, STEP)
            true = labels[(moments * SAMPLE_RATE).astype(int)]
            index = np.searchsorted(found["start"], moments, side="right") - 1
            inside = (index >= 0) & (moments < found["end"].to_numpy()[index])
            right = inside & (found["label"].to_numpy()[index] == true)
            rows.append((window, hop, right.mean(), (inside & ~right).mean()))
    table = pd.DataFrame(rows, columns=["window", "hop", "right", "wrong"])
    print(table.groupby(["window", "hop"]).mean().round(3).to_string())


def time_recordings(data_dir: Path, work_dir: Path) -> None:
    _, audio = read_clips(data_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    for minutes in (10, 60):
        path = work_dir / f"{minutes}_minutes.wav"
        rows, n_left = np.random.default_rng(0), minutes * 60 * SAMPLE_RATE
        with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16") as file:
            while n_left:
                wave = np.array(audio[rows.integers(len(audio))])[:n_left]
                file.write(wave)
                n_left -= len(wave)
        command = ["kedro", "tag", "--timeline", "--data-dir", str(data_dir), str(path)]
        start = time.monotonic()
        subprocess.run([Path(sys.executable).with_name(command[0]), *command[1:]], check=True)
        seconds = time.monotonic() - start
        # Of the largest child so far: the longer recording comes last.
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        print(
            f"{minutes} minutes: {seconds:.0f} s, {minutes * 60 / seconds:.1f} times real time, "
            f"peak memory {peak:.2f} GB"
        )


def read_clips(data_dir: Path) -> tuple[pd.DataFrame, object]:
    folder = data_dir / "02_intermediate"
    clips = pd.read_pickle(folder / "train_clips.pkl")
    return clips, RaggedDataset(filepath=str(folder / "train_audio")).load()


def random_part(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    n = int(rng.uniform(1, 5) * SAMPLE_RATE)
    start = int(rng.integers(max(1, len(wave) - n + 1)))
    return wave[start : start + n]


def as_file(wave: np.ndarray) -> Sound:
    file = BytesIO()
    soundfile.write(file, wave, SAMPLE_RATE, format="WAV", subtype="FLOAT")
    return Sound("recording.wav", file.getvalue())


if __name__ == "__main__":
    main()
