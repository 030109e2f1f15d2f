"""Kedro commands as users type them, in a copy of the project."""

import inspect
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from kill_and_resume import make_project
from tiny_backbone import build_tiny_backbone

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
TINY = {**SHORT, "training.phases.high.epochs": 5, "training.label_noise.rounds": 2}
"""For a project with the tiny backbone: its epochs are short, and kills have to hit one of them.
Each fold estimates trust in labels before."""


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


_FORK = """
import json, os, sys
import mlflow.store.tracking.sqlalchemy_store
from kedro.framework.cli.cli import main

sys.path.insert(0, "src")
import fsat_kedro.pipeline_registry
import fsat_kedro.settings

for number, arguments in enumerate(json.loads(sys.argv[2])):
    child = os.fork()
    if not child:
        for descriptor, name in ((1, "out"), (2, "err")):
            file = os.open(f"{sys.argv[1]}/{number}.{name}", os.O_WRONLY | os.O_CREAT)
            os.dup2(file, descriptor)
        sys.argv[1:] = arguments
        main()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def many_kedros(project, commands, folder):
    """Run short Kedro commands, each a pair of arguments and parameters, one after another.

    One process imports the project, and forks for each command. `folder` gets what they write.
    """
    lists = [_with_parameters(*command) for command in commands]
    codes = subprocess.run(
        [sys.executable, "-c", _FORK, folder, json.dumps(lists)],
        cwd=project,
        env=_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.split()
    return [
        subprocess.CompletedProcess(
            arguments,
            int(code),
            (folder / f"{number}.out").read_text(),
            (folder / f"{number}.err").read_text(),
        )
        for number, (arguments, code) in enumerate(zip(lists, codes, strict=True))
    ]


def _with_parameters(arguments, parameters):
    pairs = ",".join(f"{name}={value}" for name, value in parameters.items())
    return [*map(str, arguments), *(("--params", pairs) if pairs else ())]


def _environment():
    environment = {**os.environ, "DO_NOT_TRACK": "true"}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # Users do not set it, pytest's conftest.py does.
    return environment


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


def run_demo(folder: Path, make_project=make_project, **parameters: object) -> FinishedDemo:
    """Run the demo in a copy of the project below a folder, unless it was run there before."""
    demo = FinishedDemo(folder / "checkout", folder / "outputs", folder / "messages.txt")
    if not demo.outputs.exists():
        shutil.rmtree(demo.project, ignore_errors=True)  # Left by a run that failed.
        make_project(demo.project)
        finished = kedro(demo.project, "run", "--env", "demo", **{**SHORT, **parameters})
        assert finished.returncode == 0, finished.stdout + finished.stderr
        demo.messages.write_text(finished.stderr)
        shutil.copytree(demo.project / "data" / "demo", demo.outputs)
    return demo


def make_tiny_project(folder: Path) -> Path:
    """Make a copy of the project in which a tiny backbone takes the place of MobileNetV2.

    TensorFlow takes a second to trace it, and ten for MobileNetV2. What tests of killed runs and
    of clusters check does not depend on the network. `run_demo` runs the whole one.
    """
    project = make_project(folder)
    source = inspect.getsource(build_tiny_backbone)
    with (project / "src" / "fsat_kedro" / "modelling" / "mobilenet_v2.py").open("a") as file:
        file.write(f"\n\n{source}\n\n_load_backbone = {build_tiny_backbone.__name__}\n")
    return project
