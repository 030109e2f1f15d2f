"""Kedro commands as users type them, in a copy of the project."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from kill_and_resume import make_project

SHORT = {
    "demo.n_train": 24,
    "demo.n_test": 8,
    "training.validate_every": 1,
    "training.phases.cyclic.epochs": 1,
    "training.phases.low.epochs": 0,
    "training.phases.high.epochs": 1,
    "test_time_crops.n_lengths": 2,
    "test_time_crops.crops_per_length": 1,
}


def kedro(project, *arguments, **parameters):
    """Run a Kedro command in a project and return the finished process."""
    environment = {**os.environ, "DO_NOT_TRACK": "true"}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # Users do not set it, pytest's conftest.py does.
    if parameters:
        pairs = (f"{name}={value}" for name, value in parameters.items())
        arguments = (*arguments, "--params", ",".join(pairs))
    return subprocess.run(
        [sys.executable, "-m", "kedro", *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@dataclass(frozen=True)
class FinishedDemo:
    """A short run of everything on the demo.

    Attributes:
        project: the copy of the project that it ran in; tests may change it.
        outputs: a copy of all its outputs; no test changes it.
        messages: a file of what it wrote to its standard error.
    """

    project: Path
    outputs: Path
    messages: Path


def run_demo(folder: Path) -> FinishedDemo:
    """Run the demo in a copy of the project below a folder, unless it was run there before."""
    demo = FinishedDemo(folder / "checkout", folder / "outputs", folder / "messages.txt")
    if not demo.outputs.exists():
        shutil.rmtree(demo.project, ignore_errors=True)  # Left by a run that failed.
        make_project(demo.project)
        finished = kedro(demo.project, "run", "--env", "demo", **SHORT)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        demo.messages.write_text(finished.stderr)
        shutil.copytree(demo.project / "data" / "demo", demo.outputs)
    return demo
