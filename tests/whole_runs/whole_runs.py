"""Kedro commands as users type them, in a checkout of their own."""

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
    "training.phases.cyclic.epochs": 1,
    "training.phases.low.epochs": 0,
    "training.phases.high.epochs": 1,
    "test_time_crops.n_lengths": 2,
    "test_time_crops.crops_per_length": 1,
}


def kedro(project, *arguments, **parameters):
    """Run a Kedro command in a project and return the finished process."""
    if parameters:
        pairs = (f"{name}={value}" for name, value in parameters.items())
        arguments = (*arguments, "--params", ",".join(pairs))
    return subprocess.run(
        [sys.executable, "-m", "kedro", *arguments],
        cwd=project,
        env={**os.environ, "DO_NOT_TRACK": "true"},
        capture_output=True,
        text=True,
        check=False,
    )


@dataclass(frozen=True)
class FinishedDemo:
    """A short run of everything on the demo.

    Attributes:
        project: the checkout that it was made in, which tests may go on with.
        outputs: a copy of all that it wrote, which nobody changes.
    """

    project: Path
    outputs: Path


def run_demo(folder: Path) -> FinishedDemo:
    """Run the demo in a new checkout below a folder; if it was run there already, give that."""
    made = FinishedDemo(folder / "checkout", folder / "outputs")
    if not made.outputs.exists():
        shutil.rmtree(made.project, ignore_errors=True)  # Of one that failed.
        make_project(made.project)
        finished = kedro(made.project, "run", "--env", "demo", **SHORT)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        shutil.copytree(made.project / "data" / "demo", made.outputs)
    return made
