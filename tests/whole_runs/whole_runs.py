"""Kedro commands as users type them, in a copy of the project."""

import atexit
import multiprocessing
import os
import runpy
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

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


_FORKS = multiprocessing.get_context("forkserver")
# What most commands import. Neither MLflow nor TensorFlow: the project sets how they log first.
_FORKS.set_forkserver_preload(
    [
        "kedro.framework.cli.cli",
        "kedro_datasets.matplotlib.matplotlib_dataset",
        "kedro_datasets.pandas.sql_dataset",
        "librosa.feature",
        "h5py",
        "pydantic",
        "requests",
        "scipy.signal",
        "sklearn.model_selection",
        "sqlalchemy.orm",
    ]
)


def kedro(project, *arguments, **parameters):
    """Run a Kedro command in a project and return the finished process."""
    return subprocess.run(
        [sys.executable, "-m", "kedro", *_with_parameters(arguments, parameters)],
        cwd=project,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def forked_kedro(project, *arguments, **parameters):
    """Do the same in a fork of a process that has imported most libraries: seconds faster.

    Variables that libraries read when they are imported, such as fsspec's, have no effect.
    """
    arguments = _with_parameters(arguments, parameters)
    with TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("stdout", "stderr")]
        process = _FORKS.Process(target=_kedro, args=(project, arguments, _environment(), *files))
        process.start()
        process.join()
        return subprocess.CompletedProcess(
            arguments, process.exitcode, *(file.read_text() for file in files)
        )


def _with_parameters(arguments, parameters):
    pairs = (f"{name}={value}" for name, value in parameters.items())
    return [*arguments, "--params", ",".join(pairs)] if parameters else list(arguments)


def _environment():
    # Users do not set TensorFlow's log level, pytest's conftest.py does.
    environment = {name: x for name, x in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return {**environment, "DO_NOT_TRACK": "true"}


def _kedro(project, arguments, environment, stdout, stderr):
    """Become the process of a Kedro command."""
    for number, file in ((1, stdout), (2, stderr)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(project)
    sys.argv = ["kedro", *map(str, arguments)]
    try:
        runpy.run_module("kedro", run_name="__main__")
    except SystemExit as ended:
        # End as Python does: multiprocessing would first wait for joblib's idle workers.
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended.code or 0)


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
