"""Measure `kedro serve`: its start, single and joint requests, processor time and memory.

    python benchmarks/serving.py DATA_DIR SOUNDS_DIR

The ensemble is served by Keras, by OpenVINO that converts it first, and by OpenVINO with converted
networks. Each server gets as many single sounds from 8 clients at once, and as many in requests of
8. A core-second is a second of one core's time, of the server alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import psutil
import requests

if TYPE_CHECKING:
    from collections.abc import Iterator

N_CLIENTS = 8
PROJECT = Path(__file__).parents[1]


@contextmanager
def served(data_dir: Path) -> Iterator[tuple[str, psutil.Process, float]]:
    """Serve an ensemble; yield its url, its process, and the seconds until it answered."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "kedro", "serve", "--data-dir", data_dir, "--port", str(port)]
    environment = {**os.environ, "FSAT_KEDRO_MAX_REQUESTS": "100"}
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL)
    try:
        while not answers(f"http://127.0.0.1:{port}/ping"):
            assert process.poll() is None
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid), time.monotonic() - began
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    """Return whether a server answers."""
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def measure(url: str, process: psutil.Process, batches: list[list[dict]]) -> dict[str, float]:
    """Send requests from all clients at once; return their times and what a sound costs."""

    def send(rows: list[dict]) -> float:
        began = time.monotonic()
        answer = requests.post(
            f"{url}/invocations", json={"dataframe_records": rows}, timeout=600
        ).json()
        assert not any(row["reason"] for row in answer["predictions"]), answer
        return time.monotonic() - began

    used, began = sum(process.cpu_times()[:2]), time.monotonic()
    with ThreadPoolExecutor(N_CLIENTS) as pool:
        seconds = list(pool.map(send, batches))
    wall, used = time.monotonic() - began, sum(process.cpu_times()[:2]) - used
    n_sounds = sum(map(len, batches))
    return {
        "p50 s": np.percentile(seconds, 50),
        "p95 s": np.percentile(seconds, 95),
        "sounds per s": n_sounds / wall,
        "core-seconds per sound": used / n_sounds,
        "requests per core-second": len(batches) / used,
        "GB": process.memory_info().rss / 1e9,
    }


def main() -> None:
    """Serve an ensemble in each way, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("sounds_dir", type=Path, help="folder of sounds that can be tagged")
    parser.add_argument("--sounds", type=int, default=64)
    options = parser.parse_args()
    files = sorted(path for path in options.sounds_dir.iterdir() if path.is_file())
    rows = [
        {"fname": file.name, "audio": b64encode(file.read_bytes()).decode()}
        for file in files[: options.sounds]
    ]
    requests_of = {
        "single": [[row] for row in rows],
        f"of {N_CLIENTS}": [rows[start::N_CLIENTS] for start in range(N_CLIENTS)],
    }
    table = []
    with TemporaryDirectory() as folder:
        for runtime in ("keras", "openvino"):
            models = Path(folder, runtime, "06_models")
            converted = shutil.ignore_patterns("*.openvino.zip")
            shutil.copytree(options.data_dir / "06_models", models, ignore=converted)
            settings = json.loads((models / "tagger.json").read_text())
            settings["inference"]["runtime"] = runtime
            (models / "tagger.json").write_text(json.dumps(settings))
        ways = (("keras", "Keras"), ("openvino", "converts first"), ("openvino", "converted"))
        for runtime, way in ways:
            with served(Path(folder, runtime)) as (url, process, start):
                for kind, batches in requests_of.items():
                    numbers = measure(url, process, batches)
                    table.append({"server": way, "requests": kind, "start s": start, **numbers})
    print(pd.DataFrame(table).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
