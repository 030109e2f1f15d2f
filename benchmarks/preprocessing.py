"""Time of preprocessing, compared with a bare loop of decoding and trimming, and its memory.

    python benchmarks/preprocessing.py time FOLDER      # FOLDER in ESC-50's layout
    python benchmarks/preprocessing.py memory TABLE…    # the challenge's full-size CSVs

`time` alternates both on the same clips. `memory` generates a clip of the challenge's lengths for
every row of the tables, and prints the peak memory for growing parts of them.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import librosa
import pandas as pd
import soundfile
from joblib.externals.loky import get_reusable_executor

from fsat_kedro.datasets.ragged_dataset import RaggedDataset
from fsat_kedro.parameters import Decoding, TableColumns, Trim
from fsat_kedro.pipelines.preprocessing.nodes import read_metadata, trim_clips
from generated import generate

DECODING, TRIM = Decoding(max_seconds=600), Trim(top_db=60)


def bare_loop(raw_dir: str) -> None:
    """Read, mix down and trim: the work that cannot be avoided."""
    for path in sorted(Path(raw_dir, "audio").iterdir()):
        channels, _ = soundfile.read(path, dtype="float32", always_2d=True)
        librosa.effects.trim(channels.mean(axis=1), top_db=TRIM.top_db)


def preprocess(raw_dir: str, dataset: str, folder: str, n_jobs: int) -> None:
    """Run the nodes of the pipeline and save the audio."""
    metadata, _ = read_metadata(
        raw_dir, dataset, TableColumns(file=None, label=None), split="train"
    )
    audio, _ = trim_clips(metadata, DECODING, TRIM, n_jobs, folder)
    RaggedDataset(filepath=f"{folder}/audio").save(audio)


def compare_times(raw_dir: str, repeats: int) -> None:
    """Print the median seconds of each, and the ratios to the bare loop of the same round."""
    ways = {
        "bare loop": lambda folder: bare_loop(raw_dir),
        "preprocessing, 1 process": lambda folder: preprocess(raw_dir, "esc50", folder, 1),
        "preprocessing, 2 processes": lambda folder: preprocess(raw_dir, "esc50", folder, 2),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                way(folder)
                if repeat:  # The first round warms up imports, processes and the disk cache.
                    seconds[name].append(time.perf_counter() - began)
    print(f"{'':28}  seconds  ratio to the bare loop (median of {repeats}, smallest, largest)")
    for name, times in seconds.items():
        ratios = [x / y for x, y in zip(times, seconds["bare loop"], strict=True)]
        print(
            f"{name:28}  {statistics.median(times):7.2f}  {statistics.median(ratios):5.2f}"
            f"  ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def compare_memory(tables: list[str], work_dir: str | None) -> None:
    """Print the peak memory of preprocessing an eighth, a quarter, a half and all of the clips."""
    with tempfile.TemporaryDirectory(dir=work_dir) as folder:
        raw_dir = Path(folder, "raw")
        generate({"train": tables}, raw_dir, mean_seconds={"train": 6.8})
        everything = pd.read_csv(raw_dir / "all_train.csv")
        for part in (8, 4, 2, 1):
            everything[: len(everything) // part].to_csv(raw_dir / "train.csv", index=False)
            command = [sys.executable, __file__, "peak", str(raw_dir)]
            result = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
            print(
                "{clips:6} clips, {hours:5.1f} h: peak {peak:.0f} MiB "
                "(largest worker {workers:.0f} MiB), {seconds:.0f} s".format(**result),
                flush=True,
            )


def peak(raw_dir: str) -> None:
    """Preprocess with two processes and print time and memory as JSON."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=raw_dir) as folder:
        preprocess(raw_dir, "fsdkaggle2018", folder, 2)
        audio = RaggedDataset(filepath=f"{folder}/audio").load()
        n_clips, n_samples = len(audio), audio.offsets[-1]
    get_reusable_executor().shutdown()  # The system counts only processes that have ended.
    own, workers = (
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    seconds, hours = time.perf_counter() - began, float(n_samples) / 44_100 / 3600
    numbers = {"peak": own, "workers": workers, "seconds": seconds, "hours": hours}
    print(json.dumps({"clips": n_clips, **numbers}))


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["time", "memory", "peak"])
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--work-dir", help="folder with 25 GB free, for `memory`")
    options = parser.parse_intermixed_args()
    if options.what == "time":
        compare_times(options.paths[0], options.repeats)
    elif options.what == "memory":
        compare_memory(options.paths, options.work_dir)
    else:
        peak(options.paths[0])


if __name__ == "__main__":
    main()
