"""Measure the speed-up and the cost of a Dask cluster on the cores of this machine.

    python benchmarks/cluster.py features      # one worker against two, in turns
    python benchmarks/cluster.py overhead      # pipelines of empty nodes
    python benchmarks/cluster.py batches       # the cost of a batch of mapped clips
    python benchmarks/cluster.py scaling       # a calculation from measured numbers: see `Measured`

The results are in `cluster.md`. `features` pins each worker to a core of its own.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node
from kedro.runner import SequentialRunner
from kedro_datasets.json import JSONDataset
from kedro_datasets.pickle import PickleDataset

from fsat_kedro.audio.decoding import SAMPLE_RATE
from fsat_kedro.cluster import DaskRunner
from fsat_kedro.data.ragged import gather
from fsat_kedro.datasets.ragged_dataset import RaggedDataset
from fsat_kedro.parameters import LogMel
from fsat_kedro.pipelines.features import nodes

SOURCE = Path(__file__).parents[1] / "src"
LOG_MEL = {"kind": "librosa", "sample_rate": 22_050, "n_fft": 1764, "hop_length": 220, "n_mels": 64}


@dataclass(frozen=True)
class Measured:
    """Measured numbers for the calculation; `cluster.md` names the source of each."""

    startup_seconds: float = 30.0  # Of a stage before its first step.
    trim_core_seconds: float = 8.0  # Per hour of sound.
    feature_core_seconds: float = 82.0  # Per hour of sound, log-mels and summary.
    two_workers: float = 1.86  # Their speed, relative to one.
    batch_seconds: float = 0.35  # Of work in a batch of clips, on average.
    gather_seconds: float = 0.0058  # Of the mapping node, per batch.
    gather_bytes_a_second: float = 0.9e9  # Of the same node, in addition.
    wave_bytes: float = SAMPLE_RATE * 4 * 3600  # Per hour of sound.
    mel_bytes: float = 22_050 / 220 * 64 * 4 * 3600
    disk_bytes_a_second: float = 500e6


class Workers:
    """A scheduler, and workers that are pinned to one core each."""

    def __init__(self, n_workers: int) -> None:
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name, "scheduler.json")
        self._processes = [self._start("scheduler", "--scheduler-file", file, "--port", "0")]
        while not (file.exists() and file.read_text()):
            time.sleep(0.1)
        cores = sorted(os.sched_getaffinity(0))
        for index in range(n_workers):
            worker = ("worker", "--scheduler-file", file, "--nthreads", "1", "--no-dashboard")
            self._processes.append(self._start(*worker, core=cores[index % len(cores)]))
        self.address = json.loads(file.read_text())["address"]
        self._wait(n_workers)

    def _start(self, *arguments: object, core: int | None = None) -> subprocess.Popen:
        pin = ["taskset", "-c", str(core)] if core is not None else []
        return subprocess.Popen(
            [*pin, sys.executable, "-m", "dask", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _wait(self, n_workers: int) -> None:
        from distributed import Client

        with Client(self.address) as client:
            client.wait_for_workers(n_workers)

    def processor_seconds(self) -> float:
        """Return the processor time of this process, the scheduler and the workers so far."""
        processes = (psutil.Process(), *self._all())
        return sum(sum(each.cpu_times()[:2]) for each in processes)

    def waiting_seconds(self) -> float:
        """Return the time that threads were ready but had no core so far (Linux)."""
        waits = [
            int(file.read_text().split()[1])
            for process in self._all()
            for file in Path("/proc", str(process.pid), "task").glob("*/schedstat")
        ]
        return sum(waits) / 1e9

    def _all(self) -> list[psutil.Process]:
        started = [psutil.Process(process.pid) for process in self._processes]
        return started + [each for process in started for each in process.children(recursive=True)]

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait()
        self._folder.cleanup()


def compare_features(n_clips: int, repeats: int) -> None:
    """Compute log-mels and summary features on one worker and on two, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        catalog = _sounds(Path(folder), n_clips)
        hours = catalog.load("audio").lengths.sum() / SAMPLE_RATE / 3600
        print(f"{n_clips} clips, {hours:.3f} h of sound; {os.cpu_count()} cores")
        ratios = []
        with Workers(1) as one, Workers(2) as two:
            clusters = {1: one, 2: two}
            for cluster in clusters.values():
                _run_features(cluster.address, catalog)  # Libraries loaded and compiled.
            for turn in range(repeats):
                wall, cpu, waited = {}, {}, {}
                for n_workers in (1, 2) if turn % 2 == 0 else (2, 1):
                    cluster = clusters[n_workers]
                    start, used = time.monotonic(), cluster.processor_seconds()
                    waited_before = cluster.waiting_seconds()
                    _run_features(cluster.address, catalog)
                    wall[n_workers] = time.monotonic() - start
                    cpu[n_workers] = cluster.processor_seconds() - used
                    waited[n_workers] = cluster.waiting_seconds() - waited_before
                ratios.append(wall[1] / wall[2])
                print(
                    f"one worker {wall[1]:.1f} s, two {wall[2]:.1f} s: {ratios[-1]:.2f}; "
                    f"processors {cpu[1]:.1f} and {cpu[2]:.1f} s, "
                    f"waits for one {waited[1]:.1f} and {waited[2]:.1f} s",
                    flush=True,
                )
        print(f"median {statistics.median(ratios):.2f}")


def _run_features(address: str, catalog: DataCatalog) -> None:
    data = [*("audio", "clips")]
    pipeline = Pipeline(
        [
            node(
                nodes.compute_log_mels,
                [*data, "params:log_mel", "params:n_jobs", "params:data_dir"],
                "mels",
                name="log_mels",
            ),
            node(
                nodes.compute_summary_features,
                [*data, "params:n_jobs"],
                "summary",
                name="summary",
            ),
        ]
    )
    DaskRunner(address).run(pipeline, catalog)


def _sounds(folder: Path, n_clips: int) -> DataCatalog:
    """Return a catalog of clips of noise with a tone, 1 to 15 s long."""
    rng = np.random.default_rng(0)

    def waves():
        for _ in range(n_clips):
            seconds = np.clip(rng.lognormal(1.5, 0.8), 1, 15)
            time_axis = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
            tone = np.sin(2 * np.pi * rng.uniform(100, 4000) * time_axis)
            yield (0.3 * tone + rng.normal(0, 0.05, len(tone))).astype(np.float32)

    audio = RaggedDataset(filepath=str(folder / "audio"))
    audio.save(gather(waves(), spool_dir=folder))
    clips = PickleDataset(filepath=str(folder / "clips.pkl"))
    clips.save(pd.DataFrame({"fname": [f"{index}.wav" for index in range(n_clips)]}))
    parameters = {"log_mel": LogMel(**LOG_MEL), "n_jobs": -1, "data_dir": str(folder)}
    return DataCatalog(
        datasets={
            "audio": audio,
            "clips": clips,
            "mels": RaggedDataset(filepath=str(folder / "mels")),
            "summary": PickleDataset(filepath=str(folder / "summary.pkl")),
            **{f"params:{name}": MemoryDataset(value) for name, value in parameters.items()},
        }
    )


def identity(value: int) -> int:
    return value


def measure_overhead(n_nodes: int, repeats: int) -> None:
    """Run empty nodes, independent and in a chain, and compare with Kedro's SequentialRunner."""
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder, Workers(2) as workers:
        names = [f"value_{index}" for index in range(n_nodes)]
        files = {name: JSONDataset(filepath=f"{folder}/{name}.json") for name in names}
        catalog = DataCatalog(datasets={"params:value": MemoryDataset(1), **files})
        chain = ["params:value", *names]
        pipelines = {
            "independent": [node(identity, "params:value", name, name=name) for name in names],
            "in a chain": [
                node(identity, chain[index], name, name=name) for index, name in enumerate(names)
            ],
        }
        for title, nodes_of_pipeline in pipelines.items():
            for runner in (SequentialRunner(), DaskRunner(workers.address)):
                # The minimum of some turns; the first one loads libraries.
                fastest = []
                for number in (1, n_nodes):
                    pipeline = Pipeline(nodes_of_pipeline[:number])
                    turns = [_cost(runner, pipeline, catalog, workers) for _ in range(repeats + 1)]
                    fastest.append(np.min(turns[1:], axis=0))
                wall, cpu = 1000 * (fastest[1] - fastest[0]) / (n_nodes - 1)
                print(
                    f"{title}, {type(runner).__name__}: one node {fastest[0][0]:.2f} s, "
                    f"{n_nodes} nodes {fastest[1][0]:.2f} s; each more {wall:.1f} ms, "
                    f"{cpu:.1f} ms of processors",
                    flush=True,
                )


def _cost(
    runner: SequentialRunner | DaskRunner,
    pipeline: Pipeline,
    catalog: DataCatalog,
    workers: Workers,
) -> tuple[float, float]:
    """Return the seconds that a run takes: wall time, and processor time of all processes."""
    start, used = time.monotonic(), workers.processor_seconds()
    runner.run(pipeline, catalog)
    return time.monotonic() - start, workers.processor_seconds() - used


def measure_batches(n_batches: int) -> None:
    """Measure the mapping node's time per batch: an empty one, and one with 10 MB of sound."""
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder, Workers(2) as workers:
        for title, n_samples in (("empty", 0), ("10 MB", 2_500_000)):
            parameters = {"n_batches": n_batches, "n_samples": n_samples}
            catalog = DataCatalog(
                datasets={
                    **{
                        f"params:{name}": MemoryDataset(value) for name, value in parameters.items()
                    },
                    "seconds": JSONDataset(filepath=f"{folder}/seconds.json"),
                }
            )
            pipeline = Pipeline([node(_map_batches, list(catalog.keys())[:2], "seconds")])
            for _ in range(2):  # The first turn loads libraries.
                DaskRunner(workers.address).run(pipeline, catalog)
            print(f"{title}: {1000 * catalog.load('seconds') / n_batches:.1f} ms a batch")


def _map_batches(n_batches: int, n_samples: int) -> float:
    from fsat_kedro import parallel

    default = parallel._BATCH_SECONDS
    parallel._BATCH_SECONDS = 0  # No batch grows.
    start = time.monotonic()
    items = [n_samples] * n_batches
    for _ in parallel.map_clips(np.zeros, items, n_jobs=-1, total=n_batches, description=""):
        pass
    parallel._BATCH_SECONDS = default
    return time.monotonic() - start


def calculate(measured: Measured) -> None:
    """Print calculated times on more machines. They are not measured."""
    print("folds: stages of 300 epochs at most; hours")
    epochs = (10, 20, 40, 240)
    print("| workers | " + " | ".join(f"{s} s an epoch" for s in epochs) + " |")
    for n_gpus in (1, 2, 5, 10, 20):
        hours = [_fold_hours(n_gpus, seconds, measured) for seconds in epochs]
        print(f"| {n_gpus} | " + " | ".join(f"{x:.1f}" for x in hours) + " |")
    print("1,000 hours of sound; minutes, of these computing, gathering, writing: trim, features")
    for n_cores in (2, 4, 8, 16, 32, 64):
        trim = _map_minutes(n_cores, measured.trim_core_seconds, measured.wave_bytes, measured)
        mels = _map_minutes(n_cores, measured.feature_core_seconds, measured.mel_bytes, measured)
        print(f"| {n_cores} | {trim} | {mels} |")


def _fold_hours(n_gpus: int, epoch_seconds: float, measured: Measured) -> float:
    """Return the hours for ten folds of two stages, one fold at a time on each GPU."""
    stage = measured.startup_seconds + 300 * epoch_seconds
    rounds = -(-10 // n_gpus)
    return rounds * 2 * stage / 3600


def _map_minutes(n_cores: int, core_seconds: float, n_bytes: float, measured: Measured) -> str:
    """Return the minutes of a map over 1,000 hours: of the computing or of the mapping node.

    The mapping node gathers the workers' results and writes them, one batch after the other. The
    slower of the two decides.
    """
    core_seconds *= 1000
    n_bytes *= 1000
    work = core_seconds / n_cores * (2 / measured.two_workers)
    gathering = core_seconds / measured.batch_seconds * measured.gather_seconds
    gathering += n_bytes / measured.gather_bytes_a_second
    writing = n_bytes / measured.disk_bytes_a_second
    parts = ", ".join(f"{seconds / 60:.0f}" for seconds in (work, gathering, writing))
    return f"{max(work, gathering + writing) / 60:.0f} ({parts})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measurement", choices=["features", "overhead", "batches", "scaling"])
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.measurement == "features":
        compare_features(options.clips, options.repeats)
    elif options.measurement == "overhead":
        measure_overhead(options.nodes, options.repeats)
    elif options.measurement == "batches":
        measure_batches(options.nodes)
    else:
        calculate(Measured())


if __name__ == "__main__":
    main()
