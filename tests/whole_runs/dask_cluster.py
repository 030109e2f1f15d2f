"""A scheduler and workers as processes of this machine, which tests may kill."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOOPBACK = ("--host", "127.0.0.1")


def python_path(source: Path = ROOT / "src") -> str:
    """Return a PYTHONPATH with the package and with the functions of the tests' nodes."""
    folders = (source, ROOT / "tests" / "cluster", ROOT / "tests" / "whole_runs")
    return os.pathsep.join(map(str, folders))


class Cluster:
    """A `dask scheduler` and its `dask worker` processes; `close` ends them all.

    Args:
        folder: where logs go.
        source: the folder of the package that the workers import.
    """

    def __init__(self, folder: Path, source: Path = ROOT / "src") -> None:
        self._folder = folder
        self._path = python_path(source)
        self._file = folder / "scheduler.json"
        self.workers: dict[str, subprocess.Popen] = {}
        self.scheduler = self._start(
            "scheduler", "--scheduler-file", self._file, "--port", "0", *LOOPBACK
        )
        self.address = self._address()

    def add_worker(
        self,
        name: str,
        *arguments: str,
        threads: int = 1,
        cwd: Path | None = None,
        **environment: str,
    ) -> None:
        """Start a worker, which joins when it is ready."""
        self.workers[name] = self._start(
            *("worker", self.address, "--name", name, "--nthreads", str(threads), "--no-dashboard"),
            *("--local-directory", self._folder, *LOOPBACK, *arguments),
            cwd=cwd,
            **environment,
        )

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def close(self) -> None:
        """End all processes; a worker ends with its nanny."""
        for process in (*self.workers.values(), self.scheduler):
            process.kill()
            process.wait()

    def _start(
        self, what: str, *arguments: object, cwd: Path | None = None, **environment: str
    ) -> subprocess.Popen:
        name = arguments[2] if what == "worker" else what
        with (self._folder / f"{name}.log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", what, *map(str, arguments)],
                env={**os.environ, "PYTHONPATH": self._path, **environment},
                cwd=cwd or self._folder,
                stdout=log,
                stderr=log,
            )

    def _address(self) -> str:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            if self._file.is_file() and (text := self._file.read_text()):
                return json.loads(text)["address"]
            time.sleep(0.1)
        raise AssertionError(self.log("scheduler"))
